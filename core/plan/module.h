/* module.h - backends that are opened at run time: what a module gets from the library and what it gives.
 *
 * A module is libpivot-NAME.so. It keeps vendor libraries away from everybody else: a program starts without
 * them and learns only when it asks for the backend that something is missing. libpivot hides its internals,
 * so whatever touches shared state (error words, log, allocator) comes through one table; pure functions
 * (shapes, dtypes) are linked into the module from the same sources. Both sides see the structs of graph.h
 * and backend.h: `abi` tells whether alike. */
#ifndef PV_PLAN_MODULE_H
#define PV_PLAN_MODULE_H

#include "backend.h"

#ifndef PV_MODULE_VERSION
#define PV_MODULE_VERSION                                                                                    \
    3 /* raised when the meaning of anything shared changes; its size is seen to below */
#endif

typedef struct pv_host {
    uint32_t abi;                                              /* stays the first member, `fail` the second */
    pv_status (*fail)(pv_status status, const char *words);    /* as pv_fail */
    pv_status (*fail_in)(pv_status status, const char *words); /* as pv_fail_in */
    void (*log)(pv_log_level level, const char *text);
    void *(*alloc)(size_t bytes); /* as pv_alloc */
    void (*release)(void *memory);
} pv_host;

/* The one function a module exports, as "pv_backend_module". NULL: it will not work with this host, words are
 * set. The table lives as long as the process; a module that gave its vtable is never closed. */
typedef const pv_backend_vt *(*pv_module_fn)(const pv_host *host);

/* The backend of libpivot-NAME.so: looked for beside the program or library that holds this code, in ../lib
 * from there, and where the loader looks. Loaded once, by whoever asks first. NULL: PV_E_UNAVAILABLE, words
 * are set. */
typedef struct pv_module {
    const char *name;
    const pv_backend_vt *vt; /* NULL until it is loaded; for pv_module_load alone */
} pv_module;
const pv_backend_vt *pv_module_load(pv_module *module);

static inline uint32_t pv_module_abi(void)
{
    const size_t parts[] = {sizeof(pv_host),
                            sizeof(pv_backend_vt),
                            sizeof(pv_program),
                            sizeof(pv_buffers),
                            sizeof(pv_run),
                            sizeof(pv_run_timing),
                            sizeof(pv_node),
                            sizeof(pv_tensor),
                            sizeof(pv_graph),
                            sizeof(pv_device_info),
                            sizeof(pv_backend_params),
                            PV_OP_COUNT,
                            PV_STAGE_COUNT,
                            PV_USAGE_COUNT,
                            PV_DTYPE_COUNT,
                            PV_STATUS_COUNT};
    uint32_t abi = PV_MODULE_VERSION;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        abi = (abi ^ (uint32_t)parts[i]) * 16777619u; /* FNV-1a, a number at a time */
    return abi;
}

#endif
