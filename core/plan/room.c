/* room.c - what a plan takes of the device's memory: asked before anything is loaded, and told when there is too little. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

#define TOLD 5 /* of the parts, the largest */

typedef struct part {
    const char *name;
    size_t bytes;
} part;

static void add(part top[TOLD], const char *name, size_t bytes)
{
    int at = TOLD;
    while (at > 0 && bytes > top[at - 1].bytes)
        at--;
    if (at == TOLD)
        return;
    memmove(top + at + 1, top + at, sizeof *top * (size_t)(TOLD - 1 - at));
    top[at] = (part){name, bytes};
}

/* "large.weight 512.0 MiB, scratch 96.3 MiB": of the weights that nodes read, and of the plan's buffers, if given. */
static void largest(const pv_graph *g, const size_t bytes[PV_USAGE_COUNT], char *text, size_t size)
{
    static const char *const usage[PV_USAGE_COUNT] = {"weights", "constants", "inputs", "state", "scratch"};
    part top[TOLD] = {{NULL, 0}};
    for (int i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->usage == PV_WEIGHT && pv_consumers(g, g->tensors[i]))
            add(top, g->tensors[i]->name, pv_tensor_bytes(g->tensors[i]));
    for (int u = PV_WEIGHT + 1; bytes && u < PV_USAGE_COUNT; u++)
        add(top, usage[u], bytes[u]);
    *text = 0;
    for (int i = 0; i < TOLD && top[i].name; i++) {
        size_t used = strlen(text);
        bool large = top[i].bytes >= 1 << 20;
        snprintf(text + used, size - used, "%s%.100s %.1f %s", i ? ", " : "", top[i].name,
                 (double)top[i].bytes / (large ? 1 << 20 : 1 << 10), large ? "MiB" : "KiB");
    }
}

pv_status pv_no_room(pv_status st, const pv_graph *g, const size_t bytes[PV_USAGE_COUNT])
{
    char text[768];
    if (st != PV_E_MEMORY)
        return st;
    largest(g, bytes, text, sizeof text);
    return pv_fail(st, "%s; the largest of what the plan takes: %s", pv_error_text(), text);
}

pv_status pv_plan_room(const pv_plan *plan, const pv_weights *weights)
{
    const pv_graph *g = plan->graph;
    const pv_backend_vt *vt = plan->backend->vt;
    size_t free = 0, total = 0, need = 0;
    pv_status st = vt->room ? vt->room(plan->backend, &free, &total) : PV_OK;
    if (st || !total)
        return st;
    for (int u = PV_WEIGHT + 1; u < PV_USAGE_COUNT; u++)
        need += plan->program.bytes[u];
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i];
        if (t->usage == PV_WEIGHT && !pv_weights_buffer(weights, t) && pv_consumers(g, t))
            need += pv_tensor_bytes(t);
    }
    if (need <= free)
        return PV_OK;
    return pv_no_room(pv_fail(PV_E_MEMORY, "out of device memory: the plan needs %zu bytes, %zu of %zu are free", need,
                              free, total),
                      g, plan->program.bytes);
}
