/* pivot.h - the public door of libpivot: robot policy Pi0.5 in, action chunk out.
 *
 * Rules that hold for everything below:
 *   - A function that can fail returns pv_status; the reason in words (what was expected, what came, where)
 *     is pv_error_text(), kept per thread until the thread's next failing call.
 *   - Every handle has one owner and one destroyer. A destroyer takes the handle's address, leaves NULL
 *     behind and welcomes NULL.
 *   - Parameter structs begin with `size`, which the caller sets to sizeof the struct (or leaves 0, which
 *     means the same). All other zero values are sensible defaults. A struct need only live during the call.
 *   - Strings are UTF-8. Images are RGB, 8 bit, row by row from the top.
 *   - The library never exits, aborts, prints to stdout or reads environment variables.
 *   - A NaN or an infinity never leaves it: input that is not finite is refused, and a chunk that is not
 *     finite is a status with the caller's buffer untouched.
 *
 * Threads: a pv_model and a pv_backend may be shared by any number of threads. A pv_session belongs to one
 * thread at a time; sessions of one model may run in parallel. pv_set_log and pv_set_allocator are to be
 * called before anything else.
 */
#ifndef PIVOT_H
#define PIVOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PV_API __attribute__((visibility("default")))
#else
#define PV_API
#endif

#define PV_VERSION_MAJOR 0
#define PV_VERSION_MINOR 1
#define PV_VERSION_PATCH 0
#define PV_ABI_VERSION   1

/* ---- Status ------------------------------------------------------------------------------------------ */

#define PV_STATUS_LIST(X)                                                                                    \
    X(OK, "ok")                                                                                              \
    X(E_ARG, "bad argument")                                                                                 \
    X(E_SHAPE, "shape or dtype does not fit")                                                                \
    X(E_FILE, "file missing, unreadable or malformed")                                                       \
    X(E_CHECKPOINT, "checkpoint is not a complete Pi0.5 policy")                                             \
    X(E_MEMORY, "out of memory")                                                                             \
    X(E_NOT_FINITE, "a value is NaN or infinite")                                                            \
    X(E_NO_KERNEL, "the backend has no kernel for this op")                                                  \
    X(E_UNAVAILABLE, "backend or device not available")                                                      \
    X(E_DEVICE, "device error")                                                                              \
    X(E_UNSUPPORTED, "not supported by this build")

typedef enum pv_status {
#define X(name, text) PV_##name,
    PV_STATUS_LIST(X)
#undef X
        PV_STATUS_COUNT
} pv_status;

PV_API const char *pv_status_name(pv_status status); /* "E_SHAPE" */
PV_API const char *pv_status_text(pv_status status); /* "shape or dtype does not fit" */

/* Why this thread's last failing call failed, in words. Never NULL; valid until that thread fails again. */
PV_API const char *pv_error_text(void);

PV_API const char *pv_version(void);    /* "0.1.0" */
PV_API uint32_t pv_abi_version(void);   /* PV_ABI_VERSION the library was built with */

/* ---- Log and memory: process-wide, set before anything else ------------------------------------------ */

typedef enum pv_log_level { PV_LOG_DEBUG, PV_LOG_INFO, PV_LOG_WARN, PV_LOG_ERROR, PV_LOG_NONE } pv_log_level;
typedef void (*pv_log_fn)(void *user, pv_log_level level, const char *text);

/* Messages of `least` and above go to `fn` (one line, no newline). fn NULL: stderr. Default: stderr, WARN. */
PV_API void pv_set_log(pv_log_fn fn, void *user, pv_log_level least);

typedef struct pv_allocator {
    size_t size;
    void *user;
    void *(*alloc)(void *user, size_t bytes, size_t alignment); /* NULL when it cannot; bytes > 0 */
    void (*release)(void *user, void *memory);                  /* memory is not NULL */
} pv_allocator;

/* All host memory of the library comes from `allocator` from now on. NULL restores the C library's.
 * PV_E_ARG while the library still holds memory of the allocator before. */
PV_API pv_status pv_set_allocator(const pv_allocator *allocator);
