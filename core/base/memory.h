/* memory.h - host memory through the caller's allocator (pv_set_allocator), with the error words set.
 * Every size that comes from outside is multiplied with pv_mul_size, so that it cannot wrap. */
#ifndef PV_BASE_MEMORY_H
#define PV_BASE_MEMORY_H

#include "status.h"

#define PV_ALIGN ((size_t)64) /* of every block: a cache line, and the widest vector */

/* NULL with PV_E_MEMORY's words in pv_error_text() when there is none; bytes 0 counts as 1. Not zeroed. */
void *pv_alloc(size_t bytes);
void *pv_alloc_zero(size_t bytes);
void pv_free(void *memory); /* NULL is welcome */

/* Copies of strings; NULL in gives NULL out. */
char *pv_strdup(const char *text);

/* a * b, or SIZE_MAX when that would wrap (which pv_alloc then refuses). */
static inline size_t pv_mul_size(size_t a, size_t b)
{
    return b && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}

/* Blocks handed out and not returned; blocks handed out ever. For tests: a hot path must not change either. */
int64_t pv_alloc_live(void);
int64_t pv_alloc_count(void);

#endif
