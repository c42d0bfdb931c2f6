#include "arena.h"
#include "memory.h"

#include <stdio.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 << 10)

struct pv_arena_block {
    struct pv_arena_block *before;
    size_t used, size;
    _Alignas(max_align_t) char data[];
};

void *pv_arena_alloc(pv_arena *arena, size_t bytes)
{
    const size_t align = _Alignof(max_align_t);
    if (bytes > SIZE_MAX / 4)
        return pv_alloc(SIZE_MAX); /* fails, with the words */
    bytes = (bytes + align - 1) / align * align;
    struct pv_arena_block *b = arena->last;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        b = pv_alloc(sizeof *b + size);
        if (!b)
            return NULL;
        b->before = arena->last;
        b->used = 0;
        b->size = size;
        arena->last = b;
    }
    void *p = b->data + b->used;
    b->used += bytes;
    arena->bytes += bytes;
    return memset(p, 0, bytes);
}

char *pv_arena_vprintf(pv_arena *arena, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = n < 0 ? NULL : pv_arena_alloc(arena, (size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, ap);
    return text;
}

char *pv_arena_printf(pv_arena *arena, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pv_arena_vprintf(arena, fmt, ap);
    va_end(ap);
    return text;
}

void pv_arena_free(pv_arena *arena)
{
    for (struct pv_arena_block *b = arena->last, *before; b; b = before) {
        before = b->before;
        pv_free(b);
    }
    *arena = (pv_arena){0};
}
