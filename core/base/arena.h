/* arena.h - memory that lives together and goes together: nodes, tensors and names of one graph.
 * A zeroed pv_arena is an empty one. */
#ifndef PV_BASE_ARENA_H
#define PV_BASE_ARENA_H

#include "status.h"
#include <stdarg.h>

typedef struct pv_arena {
    struct pv_arena_block *last;
    size_t bytes; /* asked for so far */
} pv_arena;

void *pv_arena_alloc(pv_arena *arena, size_t bytes); /* zeroed, aligned for any type; NULL as pv_alloc */
char *pv_arena_printf(pv_arena *arena, const char *fmt, ...) PV_PRINTF(2, 3);
char *pv_arena_vprintf(pv_arena *arena, const char *fmt, va_list ap);
void pv_arena_free(pv_arena *arena); /* all of it; the arena is then empty again */

#endif
