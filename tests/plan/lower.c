/* lower.c - claim or expand; what cannot run is named; a body uses only ops declared above it. */
#include "tests/samples.h"
#include "plans.h"

static bool primitives_alone(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return !pv_ops[n->op].body;
}

static bool no_softmax(const pv_backend *be, const pv_node *n)
{
    return primitives_alone(be, n) && n->op != PV_OP_SOFTMAX;
}

static void bodies(void)
{
    mock m;
    for (int op = 0; op < PV_OP_COUNT; op++) {
        pv_graph *g = pv_graph_create();
        pv_node *n = sample(g, (pv_op)op);
        if (!CHECK(n) || !CHECK_OK(pv_graph_status(g))) {
            printf("    %s has no sample in tests/samples.h\n", pv_ops[op].name);
        } else if (pv_ops[op].body) {
            pv_tensor *was = n->out[0], *made[PV_MAX_OUT] = {NULL};
            int n_out = n->n_out, before = g->n_nodes;
            pv_ops[op].body(g, n, made);
            CHECK_OK(pv_graph_status(g));
            for (int i = before; i < g->n_nodes; i++)
                if (!CHECK(g->nodes[i]->op < (pv_op)op))
                    printf("    the body of %s uses %s, declared below it\n", pv_ops[op].name, pv_ops[g->nodes[i]->op].name);
            for (int k = 0; k < n_out; k++)
                CHECK(made[k] && made[k]->producer && pv_elements(made[k]) == pv_elements(n->out[k]) &&
                      pv_width(made[k]) == pv_width(n->out[k]) && made[k]->rows == n->out[k]->rows &&
                      made[k]->base == n->out[k]->base);

            g->n_nodes = before; /* and through the pass: the outputs are the tensors they were, made by other nodes */
            pv_lower(g, mock_claiming(&m, primitives_alone), 0);
            CHECK_OK(pv_graph_status(g));
            CHECK(g->n_nodes > 0 && g->nodes[g->n_nodes - 1]->n_out >= 1 && was->producer != n);
            for (int i = 0; i < g->n_nodes; i++) {
                CHECK(!pv_ops[g->nodes[i]->op].body);
                CHECK(!strncmp(g->nodes[i]->name, "out/", 4));
                for (int k = 0; k < g->nodes[i]->n_out; k++)
                    CHECK(g->nodes[i]->out[k]->producer == g->nodes[i]);
            }
        }
        pv_graph_destroy(&g);
    }
}

static void expand(void)
{
    mock m;
    pv_graph *g = pv_graph_create();
    sample(g, PV_OP_ATTENTION);
    pv_lower(g, mock_claiming(&m, claims_all), 0);
    CHECK(g->n_nodes == 1 && g->nodes[0]->op == PV_OP_ATTENTION);
    pv_lower(g, &m.base, 1ull << PV_OP_ATTENTION);
    CHECK_OK(pv_graph_status(g));
    CHECK(g->n_nodes == 3 && g->nodes[1]->op == PV_OP_SOFTMAX);
    pv_lower(g, &m.base, ~0ull); /* a primitive has nothing to expand to */
    CHECK_OK(pv_graph_status(g));
    CHECK(g->n_nodes == 3);
    pv_graph_destroy(&g);

    g = pv_graph_create(); /* linear_gated -> linear, gated_residual -> ... ; of these one alone, then both */
    sample(g, PV_OP_LINEAR_GATED);
    pv_lower(g, &m.base, 1ull << PV_OP_LINEAR_GATED);
    CHECK(g->n_nodes == 2 && g->nodes[1]->op == PV_OP_GATED_RESIDUAL);
    pv_lower(g, &m.base, 1ull << PV_OP_GATED_RESIDUAL);
    CHECK(g->n_nodes == 4 && count_op(g, PV_OP_SLICE) == 1);
    pv_graph_destroy(&g);
}

static void missing(void)
{
    mock m;
    pv_graph *g = pv_graph_create();
    sample(g, PV_OP_ATTENTION);
    pv_lower(g, mock_claiming(&m, no_softmax), 0);
    CHECK_STATUS(pv_graph_status(g), PV_E_NO_KERNEL);
    CHECK_TEXT("backend 'mock' has no kernel for: softmax (f32, as 'out/softmax#");
    CHECK(!strstr(pv_error_text(), "attention_scores"));
    pv_graph_destroy(&g);

    /* of the whole model, each primitive once */
    pv_config c;
    g = tiny(&c);
    mock_claiming(&m, claims_none);
    pv_plan *plan = NULL;
    CHECK_STATUS(pv_plan_create(&m.base, &g, &(pv_plan_params){.steps = 1}, &plan), PV_E_NO_KERNEL);
    CHECK(!plan && !g);
    static const pv_op used[] = {PV_OP_LINEAR, PV_OP_ATTENTION_SCORES, PV_OP_SOFTMAX, PV_OP_ATTENTION_VALUES, PV_OP_RMS_NORM,
                                 PV_OP_LAYER_NORM, PV_OP_ROPE, PV_OP_ADD, PV_OP_MUL, PV_OP_SCALE, PV_OP_GELU, PV_OP_SILU,
                                 PV_OP_AXPY, PV_OP_CONCAT, PV_OP_SLICE, PV_OP_ROW, PV_OP_STORE, PV_OP_PATCHIFY};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
        char entry[64];
        snprintf(entry, sizeof entry, " %s (f32, as", pv_ops[used[i]].name);
        CHECK_TEXT(entry);
        const char *first = strstr(pv_error_text(), entry);
        CHECK(first && !strstr(first + 1, entry));
    }
}

/* The CPU takes counts and positions as i32 and nothing else; of the rest floats alone. */
static void cpu_claims(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *ids = pv_input(g, "ids", PV_I32, 2, (int64_t[]){2, 8}, NULL);
    keep(pv_cast(g, "float_ids", ids, PV_F32));
    keep(pv_add(g, "sum", in(g, "x", 2, 8), ids));
    pv_lower(g, cpu(), 0);
    CHECK_STATUS(pv_graph_status(g), PV_E_NO_KERNEL);
    CHECK_TEXT("cast (f32, as 'float_ids' of i32)");
    CHECK_TEXT("add (f32, as 'sum' of f32, i32)");
    pv_graph_destroy(&g);
    for (int op = 0; op < PV_OP_COUNT; op++) {
        g = pv_graph_create();
        pv_node *n = sample(g, (pv_op)op);
        CHECK(n && cpu()->vt->claims(cpu(), n) == !pv_ops[op].body); /* primitives, all of them; no composite */
        pv_graph_destroy(&g);
    }
}

int main(void)
{
    bodies();
    expand();
    missing();
    cpu_claims();
    return test_done();
}
