/* hoist.c - moves what depends on time alone out of the step.
 *
 * The model writes one denoising step. Its time embedding comes in as one row that is another for each step; nodes that
 * read nothing but such rows and weights (time MLP, every adaRMS modulation) are moved to the stage `schedule` and run
 * for all steps at once: their tensors become tables [steps, ...]. Where the step reads one, a `row` node picks the row
 * of the step that runs. Exact, since row-wise ops treat each row alike. */
#include "plan.h"

#include <string.h>

static bool hoistable(const pv_node *n)
{
    bool any = false;
    for (int k = 0; k < n->n_in; k++) {
        const pv_tensor *t = n->in[k];
        if (!t->per_step && t->usage != PV_WEIGHT && t->usage != PV_CONST)
            return false;
        any |= t->per_step;
    }
    return any && n->in[0]->per_step && pv_ops[n->op].flags & PV_OP_ROW_WISE;
}

/* The row of the running step; one node for each table. `made` remembers them by tensor id. */
static pv_tensor *row_of(pv_graph *g, pv_tensor *table, pv_tensor **made)
{
    if (!g->step && (g->step = pv_input(g, "step", PV_I32, 1, (int64_t[]){1}, NULL)))
        g->step->is_step = true;
    if (!made[table->id]) {
        pv_node *n = pv_node_add(g, pv_graph_printf(g, "%s[step]", table->name), PV_OP_ROW, 2,
                                 (pv_tensor *[]){table, g->step}, NULL);
        if (!n)
            return NULL;
        n->out[0]->dtype = table->dtype;
        made[table->id] = n->out[0];
    }
    return made[table->id];
}

void pv_hoist(pv_graph *g, int steps)
{
    if (g->status)
        return;
    int n_old = g->n_nodes, n_tables = g->n_tensors;
    pv_node **old = g->nodes;
    pv_tensor **made = pv_arena_alloc(&g->arena, sizeof *made * (size_t)(n_tables + 1));
    if (!made) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while hoisting");
        return;
    }
    for (int i = 0; i < n_old; i++)
        if (hoistable(old[i])) {
            old[i]->stage = PV_STAGE_SCHEDULE;
            for (int k = 0; k < old[i]->n_out; k++)
                old[i]->out[k]->per_step = true;
        }
    for (int i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->per_step)
            g->tensors[i]->dim[0] = steps;

    /* Stage by stage in a new list; rows are picked right before their first reader. */
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int s = 0; s < PV_STAGE_COUNT; s++)
        for (int i = 0; i < n_old; i++) {
            pv_node *n = old[i];
            if (n->stage != (pv_stage)s)
                continue;
            g->stage = n->stage;
            for (int k = 0; k < n->n_in; k++)
                if (n->in[k]->per_step && n->stage != PV_STAGE_SCHEDULE) {
                    if (n->stage != PV_STAGE_DENOISE) {
                        pv_graph_fail(g, PV_E_ARG, "'%s' depends on time outside the denoising step", n->name);
                        return;
                    }
                    n->in[k] = row_of(g, n->in[k], made);
                    if (!n->in[k])
                        return;
                }
            pv_node_append(g, n);
        }
}
