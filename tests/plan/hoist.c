/* hoist.c - one step becomes tables: what depends on time alone moves to the schedule, the step picks its row. */
#include "plans.h"

#define STEPS 5
#define W     16

static pv_tensor *time_mlp(pv_graph *g, pv_tensor *time)
{
    return pv_silu(g, "cond", pv_linear(g, "hidden", time, constant(g, "w1", W, W), constant(g, "b1", 1, W)));
}

static pv_graph *step_graph(void)
{
    pv_graph *g = pv_graph_create();
    g->stage = PV_STAGE_DENOISE;
    pv_tensor *time = pv_input_per_step(g, "time", W), *dt = pv_input_per_step(g, "dt", 1), *cond = time_mlp(g, time);
    pv_tensor *x = pv_state(g, "x_t", PV_F32, 4, W), *mod = pv_linear(g, "mod", cond, constant(g, "w2", 3 * W, W), NULL);
    pv_tensor *h = pv_ada_rms_norm(g, "h", x, mod, 1e-6f);
    h = pv_gated_residual(g, "r", h, x, mod); /* reads the same row again */
    keep(pv_axpy(g, "x_next", x, dt, h));
    return g;
}

int main(void)
{
    pv_graph *g = step_graph();
    pv_hoist(g, STEPS);
    CHECK_OK(pv_graph_status(g));
    static const struct {
        const char *name;
        pv_stage stage;
    } want[] = {{"hidden", PV_STAGE_SCHEDULE}, {"cond", PV_STAGE_SCHEDULE}, {"mod", PV_STAGE_SCHEDULE},
                {"mod[step]", PV_STAGE_DENOISE}, {"h", PV_STAGE_DENOISE}, {"r", PV_STAGE_DENOISE},
                {"dt[step]", PV_STAGE_DENOISE}, {"x_next", PV_STAGE_DENOISE}};
    CHECK(g->n_nodes == 8);
    for (int i = 0; i < 8 && i < g->n_nodes; i++)
        CHECK(!strcmp(g->nodes[i]->name, want[i].name) && g->nodes[i]->stage == want[i].stage);
    CHECK(pv_graph_find(g, "mod")->dim[0] == STEPS && pv_graph_find(g, "time")->dim[0] == STEPS);
    CHECK(pv_graph_find(g, "mod[step]")->dim[0] == 1);
    CHECK(g->step && g->step == pv_graph_find(g, "step") && g->step->dtype == PV_I32);
    pv_graph_destroy(&g);

    /* a row of the table is what the step alone would have computed; any step by its number; refilled without a plan */
    ready r;
    float time[STEPS][W], dt[STEPS], mod[STEPS][3 * W], x[4 * W], all[4 * W];
    if (ready_make(&r, step_graph(), NULL, NULL, STEPS, NULL)) {
        for (int round = 0; round < 2; round++) {
            fill_floats(round ? "other times" : "times", STEPS * W, &time[0][0]);
            fill_floats("widths", STEPS, dt);
            fill_floats("noise", 4 * W, x);
            put_floats(&r, "time", &time[0][0], STEPS * W);
            put_floats(&r, "dt", dt, STEPS);
            put_floats(&r, "x_t", x, 4 * W);
            ready_run(&r, STEPS);
            get_floats(&r, "mod", &mod[0][0], STEPS * 3 * W);
            get_floats(&r, "x_next", all, 4 * W);

            put_floats(&r, "x_t", x, 4 * W); /* the same, one submission a step */
            for (int s = 0; s < STEPS; s++)
                CHECK_OK(pv_instance_run(r.inst, (pv_run){1u << PV_STAGE_DENOISE, s, 1}, NULL));
            get_floats(&r, "x_t", x, 4 * W);
            CHECK(!memcmp(x, all, sizeof all));

            for (int s = 0; s < STEPS; s++) {
                pv_graph *one = pv_graph_create();
                pv_tensor *cond = time_mlp(one, in(one, "time", 1, W));
                keep(pv_linear(one, "mod", cond, constant(one, "w2", 3 * W, W), NULL));
                ready single;
                float want_mod[3 * W];
                if (ready_make(&single, one, NULL, NULL, 1, NULL)) {
                    put_floats(&single, "time", time[s], W);
                    ready_run(&single, 1);
                    get_floats(&single, "mod", want_mod, 3 * W);
                    for (int i = 0; i < 3 * W; i++)
                        CHECK(fabsf(want_mod[i] - mod[s][i]) <= 4e-6f); /* sums of 16 terms; other shapes, other order */
                }
                ready_drop(&single);
            }
        }
        CHECK_STATUS(pv_instance_run(r.inst, (pv_run){1u << PV_STAGE_DENOISE, 1, STEPS}, NULL), PV_E_ARG);
        CHECK_TEXT("the plan has 5");
        CHECK_STATUS(pv_instance_run(r.inst, (pv_run){1u << PV_STAGE_DENOISE, -1, 1}, NULL), PV_E_ARG);
    }
    ready_drop(&r);

    /* time where there is no step */
    g = pv_graph_create();
    pv_tensor *t = pv_input_per_step(g, "time", W);
    keep(pv_add(g, "sum", in(g, "x", 1, W), t));
    pv_hoist(g, STEPS);
    CHECK_STATUS(pv_graph_status(g), PV_E_ARG);
    CHECK_TEXT("'sum' depends on time outside the denoising step");
    pv_graph_destroy(&g);

    /* an op that mixes rows stays in the step, whatever it reads */
    g = pv_graph_create();
    g->stage = PV_STAGE_DENOISE;
    keep(pv_concat(g, "both", pv_input_per_step(g, "time", W), constant(g, "c", 1, W), NULL));
    pv_hoist(g, STEPS);
    CHECK_OK(pv_graph_status(g));
    CHECK(node_named(g, "both")->stage == PV_STAGE_DENOISE && count_op(g, PV_OP_ROW) == 1);
    pv_graph_destroy(&g);

    /* every modulation of the model, and nothing that sees x_t */
    pv_config c;
    g = tiny(&c);
    pv_prune(g);
    pv_hoist(g, STEPS);
    int scheduled = 0;
    for (int i = 0; i < g->n_nodes; i++)
        scheduled += g->nodes[i]->stage == PV_STAGE_SCHEDULE;
    CHECK(scheduled == 4 + 2 * c.expert.depth + 1); /* two layers of the time MLP with SiLU, each block's two, the last */
    CHECK(count_op(g, PV_OP_ROW) == 2 * c.expert.depth + 2); /* and dt */
    pv_graph_destroy(&g);
    return test_done();
}
