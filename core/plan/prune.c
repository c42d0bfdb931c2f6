/* prune.c - drops what no output needs. So the last prefix block loses all but its K and V without a line in the model. */
#include "plan.h"

void pv_prune(pv_graph *g)
{
    if (g->status)
        return;
    bool *needed = pv_arena_alloc(&g->arena, sizeof *needed * (size_t)(g->n_tensors + 1));
    if (!needed) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while pruning");
        return;
    }
    int kept = g->n_nodes; /* filled from the end */
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        pv_node *n = g->nodes[i];
        bool need = false;
        for (int k = 0; k < n->n_out; k++)
            need |= n->out[k]->output || needed[n->out[k]->id];
        if (!need)
            continue;
        for (int k = 0; k < n->n_in; k++)
            needed[n->in[k]->id] = true;
        g->nodes[--kept] = n;
    }
    for (int i = kept; i < g->n_nodes; i++)
        g->nodes[i - kept] = g->nodes[i];
    g->n_nodes -= kept;
}
