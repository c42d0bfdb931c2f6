/* place.c - where each tensor lies: an offset in the buffer of its usage, known before anything is allocated.
 *
 * What crosses from one stage into another, and what is an output, becomes state: stages can then be submitted alone.
 * Scratch is laid out by lifetimes: largest first, each at the lowest offset that is free while it lives. Versions of
 * a state share their bytes; that no node reads a version once it is overwritten is checked here. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN ((size_t)256)

typedef struct life {
    pv_tensor *t;
    int from, to; /* node indices, both included */
    size_t bytes;
} life;

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static int larger_first(const void *a, const void *b)
{
    const life *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->t->id - y->t->id;
}

/* Sets from and to of everything that the program touches; -1 where it does not. */
static bool live(pv_graph *g, life *lives)
{
    for (int i = 0; i < g->n_tensors; i++)
        lives[i] = (life){g->tensors[i], -1, -1, aligned(pv_tensor_bytes(g->tensors[i]))};
    for (int i = 0; i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        for (int k = 0; k < n->n_out; k++)
            lives[n->out[k]->id].from = lives[n->out[k]->id].to = i;
        for (int k = 0; k < n->n_in; k++) {
            life *l = &lives[n->in[k]->id];
            bool made = n->in[k]->usage == PV_SCRATCH || n->in[k]->base; /* by a node, which must have run */
            if (made && l->from < 0) {
                pv_graph_fail(g, PV_E_ARG, "'%s' reads '%s', which no node before it makes", n->name, n->in[k]->name);
                return false;
            }
            l->from = l->from < 0 ? 0 : l->from;
            l->to = i;
            if (n->in[k]->rows) { /* read by the kernel as well, though no edge says so */
                life *r = &lives[n->in[k]->rows->id];
                r->from = 0;
                r->to = i;
            }
        }
    }
    return true;
}

static bool promote(pv_graph *g, const life *lives)
{
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            pv_tensor *t = g->nodes[i]->in[k];
            if (t->usage == PV_SCRATCH && t->producer->stage != g->nodes[i]->stage)
                t->usage = PV_STATE;
        }
    for (int i = 0; i < g->n_tensors; i++) {
        pv_tensor *t = g->tensors[i];
        if (t->usage == PV_SCRATCH && t->output && lives[i].from >= 0)
            t->usage = PV_STATE;
        if (t->base && lives[i].from >= 0 && lives[t->base->id].to > lives[i].from) {
            pv_graph_fail(g, PV_E_ARG, "state '%s' is read after its next version '%s' was written", t->base->name,
                          t->name);
            return false;
        }
    }
    return true;
}

static void place_scratch(life *lives, int n, size_t *total)
{
    int placed = 0;
    for (int i = 0; i < n; i++) {
        life *x = &lives[i];
        size_t at = 0;
        for (bool moved = true; moved;) { /* past everything that is in the way, until nothing is */
            moved = false;
            for (int j = 0; j < placed; j++) {
                const life *y = &lives[j];
                if (y->from <= x->to && x->from <= y->to && at < y->t->offset + y->bytes &&
                    y->t->offset < at + x->bytes) {
                    at = y->t->offset + y->bytes;
                    moved = true;
                }
            }
        }
        x->t->offset = at;
        placed++;
        if (at + x->bytes > *total)
            *total = at + x->bytes;
    }
}

void pv_place(pv_graph *g, size_t bytes[PV_USAGE_COUNT])
{
    memset(bytes, 0, sizeof *bytes * PV_USAGE_COUNT);
    life *lives = g->status ? NULL : pv_arena_alloc(&g->arena, sizeof *lives * (size_t)(g->n_tensors + 1));
    if (!lives) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while placing tensors");
        return;
    }
    if (!live(g, lives) || !promote(g, lives))
        return;
    int n_scratch = 0;
    for (int i = 0; i < g->n_tensors; i++) {
        pv_tensor *t = g->tensors[i];
        t->offset = PV_NOWHERE;
        if (lives[i].from < 0 && t->usage != PV_IO)
            continue;
        if (t->usage == PV_SCRATCH) {
            lives[n_scratch++] = lives[i];
        } else if (t->usage != PV_WEIGHT && !t->base) {
            t->offset = bytes[t->usage];
            bytes[t->usage] += lives[i].bytes;
        } else if (t->usage == PV_WEIGHT) {
            bytes[PV_WEIGHT] += pv_tensor_bytes(t); /* a buffer of its own: nothing to align */
        }
    }
    for (int i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->base)
            g->tensors[i]->offset = pv_state_root(g->tensors[i])->offset;
    qsort(lives, (size_t)n_scratch, sizeof *lives, larger_first);
    place_scratch(lives, n_scratch, &bytes[PV_SCRATCH]);
}
