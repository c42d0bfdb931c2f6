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
    CHECK(n >= 4 && !pv_recipe_list(-1));
    char all[64], little[6];
    CHECK(!strcmp(pv_recipe_names(all, sizeof all), "f32, bf16, openpi, lerobot"));
    CHECK(!strcmp(pv_recipe_names(little, sizeof little), "f32, "));
    CHECK(!pv_recipe_narrow(pv_recipe_list(0)) && pv_recipe_narrow(pv_recipe_list(1)) && !pv_recipe_narrow(NULL));
}

static void rules(void)
{
    static const pv_rule list[] = {{"*", PV_BF16}, {"w_wide|x", PV_F32}, {"cache", PV_F16}};
    const pv_recipe later_wins = {"test", "", list, 3, 0, false};
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

/* What the host writes stays as it is and is read through one cast; constants are rounded; a composite's body has names. */
static void inside(void)
{
    static const pv_rule list[] = {{"x|table|a/*", PV_BF16}};
    const pv_recipe narrow = {"test", "", list, 1, (uint64_t)1 << PV_OP_GEGLU, false};
    static const float values[] = {1.00390625f + 0x1p-9f, 3};
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 4, 2), *table = pv_const(g, "table", PV_F32, 1, (int64_t[]){2}, values);
    pv_tensor *gate = pv_add(g, "gate", x, table), *up = pv_mul(g, "up", x, table);
    keep(pv_geglu(g, "a", gate, up));
    pv_apply_recipe(g, &narrow);
    CHECK_OK(pv_graph_status(g));
    CHECK(x->dtype == PV_F32 && count_op(g, PV_OP_CAST) == 1 && count_op(g, PV_OP_GEGLU) == 0);
    const pv_node *sum = node_named(g, "gate"), *product = node_named(g, "up");
    CHECK(sum->in[0] == product->in[0] && sum->in[0]->dtype == PV_BF16 && sum->in[0]->producer->in[0] == x);
    CHECK(table->dtype == PV_BF16 && ((const uint16_t *)table->data)[0] == pv_f32_to_bf16(values[0]) &&
          ((const uint16_t *)table->data)[1] == pv_f32_to_bf16(3));
    bool rounded = false;
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op == PV_OP_GELU)
            rounded = g->nodes[i]->out[0]->dtype == PV_BF16;
    const pv_tensor *a = pv_graph_find(g, "a");
    CHECK(rounded && a && a->output && a->dtype == PV_F32 && a->producer->op == PV_OP_MUL);
    pv_graph_destroy(&g);
}

static pv_dtype dtype_of(const pv_graph *g, const char *name, pv_op op)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op == op && !strncmp(g->nodes[i]->name, name, strlen(name)))
            return g->nodes[i]->out[0]->dtype;
    printf("    %s: not there\n", name);
    return PV_U8;
}

/* What openpi keeps f32, and that lerobot differs in vision alone. */
static void imitations(void)
{
    for (int i = 0; i < 2; i++) {
        pv_dtype vision = i ? PV_F32 : PV_BF16;
        const pv_recipe *r = recipe(i ? "lerobot" : "openpi");
        pv_config c;
        pv_graph *g = tiny(&c);
        pv_prune(g);
        pv_hoist(g, 10);
        pv_apply_recipe(g, r);
        CHECK_OK(pv_graph_status(g));
        CHECK(r->rope_bf16 && pv_graph_find(g, "rope")->dtype == PV_BF16);
        static const char *const wide[] = {"vision.patch_embedding", "step.cond", "step.layer0.ada_in", "step.layer0.ada_in[step]", "step.v_t",
                                           "step.x_next"};
        static const char *const narrow[] = {"prefix.embs", "prefix.layer0.attn_sum", "prefix.layer1.out", "cache.layer0.k",
                                             "step.suffix_in", "step.layer0.attn_norm", "step.layer2.out", "step.norm_out"};
        static const char *const of_vision[] = {"vision.embeddings", "vision.layer0.up", "vision.layer1.out", "vision.post_ln",
                                                "vision.projected"};
        for (size_t k = 0; k < sizeof wide / sizeof *wide; k++)
            CHECK(pv_graph_find(g, wide[k])->dtype == PV_F32);
        for (size_t k = 0; k < sizeof narrow / sizeof *narrow; k++)
            CHECK(pv_graph_find(g, narrow[k])->dtype == PV_BF16);
        for (size_t k = 0; k < sizeof of_vision / sizeof *of_vision; k++)
            CHECK(pv_graph_find(g, of_vision[k])->dtype == vision);
        CHECK(dtype_of(g, "prefix.layer0.attn/", PV_OP_ATTENTION_SCORES) == PV_BF16);
        CHECK(dtype_of(g, "prefix.layer0.attn/", PV_OP_SOFTMAX) == PV_BF16);
        CHECK(dtype_of(g, "vision.layer0.attn/", PV_OP_SOFTMAX) == PV_F32); /* one kernel in PyTorch */
        CHECK(dtype_of(g, "step.layer0.act/", PV_OP_GELU) == PV_BF16);
        CHECK(dtype_of(g, "step.layer0.out/", PV_OP_SLICE) == PV_BF16); /* the gate */
        CHECK(dtype_of(g, "step.layer0.out/", PV_OP_MUL) == PV_BF16);
        for (int k = 0; k < g->n_nodes; k++)
            if (g->nodes[k]->op == PV_OP_LAYER_NORM)
                CHECK(g->nodes[k]->in[1]->dtype == vision);
        pv_graph_destroy(&g);
    }
}

int main(void)
{
    patterns();
    names();
    rules();
    model();
    inside();
    imitations();
    return test_done();
}
