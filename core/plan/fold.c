/* fold.c - computes, while planning and on the CPU, what depends on constants alone. */
#include "instance.h"

#include <string.h>

static bool foldable(const pv_node *n)
{
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k]->usage != PV_CONST)
            return false;
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k]->base || n->out[k]->output) /* what is kept to be read has its place in a buffer */
            return false;
    return true;
}

/* The node alone in a graph of its own, planned and run; its results become constants of g. */
static void fold_node(pv_graph *g, pv_node *n, pv_backend *cpu)
{
    pv_graph *alone = pv_graph_create();
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    pv_tensor *in[PV_MAX_IN], *out[PV_MAX_OUT] = {NULL};
    pv_status st = alone ? PV_OK : PV_E_MEMORY;
    if (!st) {
        for (int k = 0; k < n->n_in; k++)
            in[k] = pv_const(alone, n->in[k]->name, n->in[k]->dtype, n->in[k]->n_dims, n->in[k]->dim, n->in[k]->data);
        pv_node *copy = pv_node_add(alone, n->name, n->op, n->n_in, in, &n->attr);
        for (int k = 0; copy && k < n->n_out; k++) {
            out[k] = copy->out[k];
            out[k]->dtype = n->out[k]->dtype;
            out[k]->output = true;
        }
        st = pv_graph_status(alone);
    }
    if (!st)
        st = pv_plan_create(cpu, &alone, &(pv_plan_params){.steps = 1, .no_fold = true}, &plan);
    if (!st)
        st = pv_instance_create(plan, NULL, &inst);
    if (!st)
        st = pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION, .n_steps = 1}, NULL);
    for (int k = 0; !st && k < n->n_out; k++) {
        size_t bytes = pv_tensor_bytes(n->out[k]);
        void *data = pv_arena_alloc(&g->arena, bytes);
        st = data ? pv_instance_read(inst, out[k], 0, data, bytes) : PV_E_MEMORY;
        n->out[k]->usage = PV_CONST;
        n->out[k]->data = data;
        n->out[k]->producer = NULL;
    }
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    pv_graph_destroy(&alone);
    if (st)
        pv_graph_fail(g, st, "folding '%s': %s", n->name, pv_error_text());
}

void pv_fold(pv_graph *g)
{
    pv_backend *cpu = NULL;
    int kept = 0;
    for (int i = 0; i < g->n_nodes && !g->status; i++) {
        if (!foldable(g->nodes[i])) {
            g->nodes[kept++] = g->nodes[i];
            continue;
        }
        pv_status st = cpu ? PV_OK : pv_backend_open("cpu", &(pv_backend_params){.threads = 1}, &cpu);
        if (st) {
            pv_graph_fail(g, st, "folding '%s': %s", g->nodes[i]->name, pv_error_text());
            break;
        }
        fold_node(g, g->nodes[i], cpu);
    }
    if (!g->status)
        g->n_nodes = kept;
    pv_backend_close(&cpu);
}
