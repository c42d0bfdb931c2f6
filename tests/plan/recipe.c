/* recipe.c - dtypes by name, casts where two sides differ. */
#include "plans.h"

static void patterns(void)
{
    CHECK(pv_pattern_match("a", "a") && !pv_pattern_match("a", "ab") && !pv_pattern_match("a", ""));
    CHECK(pv_pattern_match("*", "") && pv_pattern_match("*", "x.y") && pv_pattern_match("a*c", "abbc"));
    CHECK(pv_pattern_match("*.layer*.k", "prefix.layer12.k") && !pv_pattern_match("*.layer*.k", "prefix.layer12.k_proj"));
    CHECK(pv_pattern_match("x|*.v", "a.v") && pv_pattern_match("x|*.v", "x") && !pv_pattern_match("x|*.v", "y"));
    CHECK(pv_pattern_match("a**b*", "ab") && !pv_pattern_match("", "a") && pv_pattern_match("", ""));
}

static void names(void)
{
    const pv_recipe *r = NULL;
    CHECK_OK(pv_recipe_find(NULL, &r));
    CHECK(r && !strcmp(r->name, "f32") && r->n_rules == 0);
    CHECK_STATUS(pv_recipe_find("fp8", &r), PV_E_ARG);
    CHECK_TEXT("recipe 'fp8': expected");
    int n = 0;
    for (const pv_recipe *each; (each = pv_recipe_list(n)); n++)
        CHECK_OK(pv_recipe_find(each->name, &r));
    CHECK(n >= 2 && !pv_recipe_list(-1));
}

static void rules(void)
{
    static const pv_rule list[] = {{"*", PV_BF16}, {"w_wide", PV_F32}, {"cache", PV_F16}};
    const pv_recipe later_wins = {"test", "", list, 3};
    pv_graph *g = pv_graph_create();
    int64_t dim[] = {8, 8};
    pv_tensor *x = in(g, "x", 4, 8), *w = pv_weight(g, 2, dim, "w"), *wide = pv_weight(g, 2, dim, "w_wide");
    pv_tensor *norm = pv_weight(g, 1, dim, "norm"), *ids = pv_input(g, "ids", PV_I32, 1, (int64_t[]){4}, NULL);
    norm->plus_one = true;
    pv_tensor *y = pv_linear(g, "y", x, w, NULL), *z = pv_linear(g, "z", x, wide, NULL);
    pv_tensor *v1 = pv_store(g, "v1", pv_state(g, "cache", PV_F32, 4, 8), pv_rms_norm(g, "n", y, norm, 1e-6f), 0);
    keep(pv_add(g, "sum", z, v1));
    pv_apply_recipe(g, &later_wins);
    CHECK_OK(pv_graph_status(g));
    CHECK(w->dtype == PV_BF16 && wide->dtype == PV_F32 && y->dtype == PV_BF16);
    CHECK(norm->dtype == PV_F32); /* 1 + w is formed in f32 and stays so */
    CHECK(ids->dtype == PV_I32 && x->dtype == PV_F32); /* the host writes inputs as they are */
    CHECK(v1->dtype == PV_F16 && v1->base->dtype == PV_F16); /* versions of a state go by its name */
    CHECK(count_op(g, PV_OP_CAST) == 1); /* x for w; what w_wide reads is f32 already */
    const pv_node *linear = node_named(g, "y");
    CHECK(linear->in[0]->producer && linear->in[0]->producer->op == PV_OP_CAST && linear->in[0]->dtype == PV_BF16);
    CHECK(node_named(g, "z")->in[0] == x);
    pv_graph_destroy(&g);
}

/* On the model: what bf16 covers, and what stays f32 whatever it says. */
static void model(void)
{
    static const struct {
        const char *name;
        pv_dtype dtype;
    } want[] = {
        {"prefix.layer0.k", PV_BF16},    {"prefix.layer0.attn_norm", PV_BF16}, {"step.layer1.act", PV_BF16},
        {"cache.layer0.k", PV_BF16},     {"prefix.layer0.k_cache", PV_BF16},   {"step.layer0.k_cache", PV_BF16},
        {"prefix.layer0.attn_sum", PV_F32}, {"step.layer0.out", PV_F32},       {"step.x_t", PV_F32},
        {"step.x_next", PV_F32},         {"step.cond", PV_F32},                {"step.layer0.ada_in", PV_F32},
        {"step.v_t", PV_F32},            {"rope", PV_F32},
        {"vision.layer0.up", PV_F32},       {"vision.layer0.act", PV_BF16},
    };
    pv_config c;
    pv_graph *g = tiny(&c);
    pv_prune(g);
    pv_hoist(g, 10);
    pv_apply_recipe(g, recipe("bf16"));
    CHECK_OK(pv_graph_status(g));
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const pv_tensor *t = pv_graph_find(g, want[i].name);
        if (!CHECK(t && t->dtype == want[i].dtype))
            printf("    %s\n", want[i].name);
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        if (n->op == PV_OP_LINEAR && n->in[1]->dtype == PV_BF16)
            CHECK(n->in[0]->dtype == PV_BF16); /* a bf16 product reads bf16 */
        if (n->stage == PV_STAGE_VISION && n->op == PV_OP_LINEAR && n->n_in > 2 && n->out[0]->dtype == PV_BF16)
            CHECK(n->in[2]->dtype == PV_BF16);
        if (n->stage == PV_STAGE_VISION && n->op == PV_OP_LAYER_NORM)
            CHECK(n->in[1]->dtype == PV_F32 && n->in[2]->dtype == PV_F32);
    }
    pv_graph_destroy(&g);
}

int main(void)
{
    patterns();
    names();
    rules();
    model();
    return test_done();
}
