/* fold.c - what depends on constants alone is computed while planning, with the same bytes. */
#include "plans.h"

static pv_graph *build(bool read_constant)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *w = pv_mul(g, "folded", constant(g, "a", 6, 8), pv_gelu(g, "folded_first", constant(g, "b", 1, 8)));
    pv_tensor *narrow = pv_cast(g, "folded_bf16", w, PV_BF16);
    if (read_constant)
        keep(w);
    keep(pv_linear(g, "out", in(g, "x", 3, 8), narrow, NULL));
    return g;
}

int main(void)
{
    pv_graph *g = build(false);
    pv_fold(g);
    CHECK_OK(pv_graph_status(g));
    CHECK(g->n_nodes == 1 && g->nodes[0]->op == PV_OP_LINEAR);
    const pv_tensor *w = pv_graph_find(g, "folded_bf16");
    CHECK(w->usage == PV_CONST && w->data && w->dtype == PV_BF16 && !w->producer);
    pv_graph_destroy(&g);

    /* the same bytes unfolded */
    float out[2][18];
    for (int no_fold = 0; no_fold < 2; no_fold++) {
        pv_plan *plan = NULL;
        pv_instance *inst = NULL;
        float x[24];
        g = build(false);
        const pv_tensor *to = pv_graph_find(g, "x"), *from = pv_graph_find(g, "out");
        CHECK_OK(pv_plan_create(cpu(), &g, &(pv_plan_params){.steps = 1, .no_fold = no_fold}, &plan));
        CHECK(plan->graph->n_nodes == (no_fold ? 3 : 1)); /* mul makes bf16 itself, see fuse.c */
        CHECK_OK(pv_instance_create(plan, NULL, &inst));
        fill_floats("x", 24, x);
        CHECK_OK(pv_instance_write(inst, to, 0, x, sizeof x));
        CHECK_OK(pv_instance_run(inst, (pv_run){.stages = 1}, NULL));
        CHECK_OK(pv_instance_read(inst, from, 0, out[no_fold], sizeof out[0]));
        pv_instance_destroy(&inst);
        pv_plan_destroy(&plan);
    }
    CHECK(!memcmp(out[0], out[1], sizeof out[0]));

    /* a constant that is to be read is computed when run, so that there is a place to read it from */
    ready r;
    float folded[48], a[48], b[8];
    if (ready_make(&r, build(true), NULL, NULL, 1, NULL)) {
        ready_fill(&r);
        ready_run(&r, 1);
        get_floats(&r, "folded", folded, 48);
        fill_floats("a", 48, a);
        fill_floats("b", 8, b);
        for (int i = 0; i < 48; i++) {
            double x = (double)b[i % 8], gelu = x / (1 + exp(-1.5957691216 * (x + 0.044715 * x * x * x)));
            CHECK(fabs((double)folded[i] - (double)a[i] * gelu) < 1e-6);
        }
    }
    ready_drop(&r);

    /* a version of a state is no constant */
    g = pv_graph_create();
    keep(pv_store(g, "cache1", pv_state(g, "cache", PV_F32, 4, 8), constant(g, "a", 2, 8), 0));
    pv_fold(g);
    CHECK(g->n_nodes == 1);
    pv_graph_destroy(&g);
    return test_done();
}
