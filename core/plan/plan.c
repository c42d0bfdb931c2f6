/* plan.c - runs the passes in order and owns what they make. */
#include "plan.h"
#include "base/memory.h"

static void tell(const pv_plan_params *p, const char *pass, const pv_graph *g)
{
    if (p->on_pass && !g->status)
        p->on_pass(p->user, pass, g);
}

static void hold(const pv_plan_params *p, const pv_graph *g)
{
    for (int i = 0; p->hold && !g->status && i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_out; k++)
            g->nodes[i]->out[k]->output |= p->hold(p->hold_user, g->nodes[i]->out[k]);
}

pv_status pv_plan_create(pv_backend *be, pv_graph **taken, const pv_plan_params *p, pv_plan **out)
{
    pv_graph *g = *taken;
    *taken = NULL;
    *out = NULL;
    if (p->steps < 1)
        pv_graph_fail(g, PV_E_ARG, "steps: expected at least 1, came %d", p->steps);
    pv_plan *plan = pv_alloc_zero(sizeof *plan);
    if (!plan)
        pv_graph_fail(g, PV_E_MEMORY, "out of memory for a plan");

    size_t bytes[PV_USAGE_COUNT] = {0};
    tell(p, "build", g);
    pv_prune(g);
    tell(p, "prune", g);
    if (!p->no_fold)
        pv_fold(g);
    tell(p, "fold", g);
    pv_hoist(g, p->steps);
    tell(p, "hoist", g);
    pv_apply_recipe(g, p->recipe);
    tell(p, "recipe", g);
    pv_fuse(g, be);
    tell(p, "fuse", g);
    pv_lower(g, be, p->expand);
    tell(p, "lower", g);
    hold(p, g);
    pv_place(g, bytes);
    tell(p, "place", g);

    pv_status st = pv_graph_status(g);
    if (st) {
        pv_graph_destroy(&g);
        pv_free(plan);
        return st;
    }
    *plan = (pv_plan){.backend = be, .graph = g, .weight_bytes = bytes[PV_WEIGHT]};
    plan->program = (pv_program){.graph = g, .step = g->step, .steps = p->steps};
    for (int u = PV_WEIGHT + 1; u < PV_USAGE_COUNT; u++)
        plan->program.bytes[u] = bytes[u];
    *out = plan;
    return PV_OK;
}

void pv_plan_destroy(pv_plan **plan)
{
    if (!*plan)
        return;
    pv_graph_destroy(&(*plan)->graph);
    pv_free(*plan);
    *plan = NULL;
}
