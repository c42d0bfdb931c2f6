/* hash.c - what a plan computes, as one number: ops, their order and attributes, shapes, dtypes, constants.
 * Where tensors lie is not part of it. */
#include "plan.h"
#include "base/hash.h"
#include "base/memory.h"

#include <string.h>

static uint64_t add_text(uint64_t hash, const char *text)
{
    return pv_fnv1a(hash, text, strlen(text) + 1);
}

pv_status pv_plan_hash(const pv_plan *plan, uint64_t *hash)
{
    const pv_graph *g = plan->graph;
    char *text = pv_graph_text(g); /* nodes and their outputs; below, what nodes read */
    if (!text)
        return pv_fail(PV_E_MEMORY, "out of memory for the text of a plan");
    uint64_t h = add_text(add_text(PV_FNV1A_START, plan->backend->vt->name), text);
    pv_free(text);
    h = pv_fnv1a(h, &plan->program.steps, sizeof plan->program.steps);
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i];
        if (t->producer || (t->usage != PV_WEIGHT && t->offset == PV_NOWHERE))
            continue;
        h = add_text(h, t->name);
        h = add_text(h, pv_dtype_name(t->dtype));
        h = pv_fnv1a(h, t->dim, sizeof *t->dim * (size_t)t->n_dims);
        if (t->data)
            h = pv_fnv1a(h, t->data, pv_tensor_bytes(t));
    }
    *hash = h;
    return PV_OK;
}
