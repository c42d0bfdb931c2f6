/* fuse.c - which rules fire for a backend that claims everything, which do not, and that bytes stay what they were:
 * the fused graph runs as its bodies on the CPU beside the graph as built. */
#include "plans.h"
#include "tests/faults.h"

static pv_backend *everything(void)
{
    static mock m;
    return mock_claiming(&m, claims_all);
}

static bool no_groups(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_GROUP;
}

static bool groups_of_two(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_GROUP || n->attr.group.n == 2;
}

static bool no_gelu(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_GELU;
}

/* What is left for the other rules where layers of the expert are not taken whole. */
static bool no_layers(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_EXPERT_BLOCK;
}

/* No product with the norm behind its residual. */
static bool no_norms_of_products(const pv_backend *be, const pv_node *n)
{
    return no_layers(be, n) && n->op != PV_OP_LINEAR_GATED_NORM;
}

/* Gated residuals apart from their products: then the norm behind one can be made with it. Nor are q, k and v made where they
 * go. */
static bool no_gated_products(const pv_backend *be, const pv_node *n)
{
    return no_layers(be, n) && n->op != PV_OP_LINEAR_GATED && n->op != PV_OP_LINEAR_ROPE_CACHE;
}

/* The graph as it was built beside the one fused for a backend that claims everything: the same bytes of the tensors named. */
static void same_when_fused(pv_graph *as_built, pv_graph *to_fuse, const pv_recipe *rounds, const char *const *names)
{
    ready plain, fused;
    bool made = ready_make(&plain, as_built, NULL, rounds, 1, NULL);
    made &= ready_make(&fused, to_fuse, everything(), rounds, 1, NULL);
    if (made) {
        ready_fill(&plain);
        ready_fill(&fused);
        ready_run(&plain, 1);
        ready_run(&fused, 1);
        for (; *names; names++)
            same_bytes(&plain, &fused, *names);
    }
    ready_drop(&plain);
    ready_drop(&fused);
}

/* A transformer block with everything the rules look for. */
static pv_graph *block(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 6, 16), *table = in(g, "table", 20, 8), *len = pv_input(g, "len", PV_I32, 1, (int64_t[]){1}, NULL);
    pv_tensor *pos = pv_input(g, "pos", PV_I32, 1, (int64_t[]){6}, NULL), *mod = in(g, "mod", 1, 48);
    pv_attention_attr a = {2, 1, 1, 0, 0.35f};
    pv_tensor *h = pv_rms_norm(g, "h", x, NULL, 1e-6f);
    pv_tensor *q = pv_linear(g, "q", h, in(g, "wq", 16, 16), NULL), *k = pv_linear(g, "k", h, in(g, "wk", 8, 16), NULL);
    pv_tensor *v = pv_linear(g, "v", h, in(g, "wv", 8, 16), NULL);
    k = pv_store(g, "k_cache", pv_state(g, "ck", PV_F32, 9, 8), pv_rope(g, "k_turned", k, table, pos, 1), 3);
    v = pv_store(g, "v_cache", pv_state(g, "cv", PV_F32, 9, 8), v, 3);
    q = pv_rope(g, "q_turned", q, table, pos, 2);
    pv_tensor *o = pv_linear(g, "o", pv_attention(g, "attn", q, k, v, len, a), in(g, "wo", 16, 16), in(g, "bo", 1, 16));
    x = pv_gated_residual(g, "x1", x, o, mod);
    pv_tensor *gate = pv_linear(g, "gate", x, in(g, "wg", 24, 16), in(g, "bg", 1, 24));
    pv_tensor *up = pv_linear(g, "up", x, in(g, "wu", 24, 16), in(g, "bu", 1, 24));
    pv_tensor *down = pv_linear(g, "down", pv_geglu(g, "act", gate, up), in(g, "wd", 16, 24), NULL);
    keep(pv_cast(g, "y", pv_add(g, "x2", x, down), PV_BF16));
    keep(k);
    return g;
}

static void fires(void)
{
    pv_graph *g = block();
    pv_fuse(g, everything());
    CHECK_OK(pv_graph_status(g));
    CHECK(count_op(g, PV_OP_LINEAR_GROUP) == 2 && count_op(g, PV_OP_LINEAR) == 0);
    CHECK(count_op(g, PV_OP_ROPE_STORE) == 1 && count_op(g, PV_OP_ROPE) == 1 && count_op(g, PV_OP_STORE) == 1);
    CHECK(count_op(g, PV_OP_LINEAR_GATED) == 1 && count_op(g, PV_OP_LINEAR_ADD) == 1);
    CHECK(count_op(g, PV_OP_CAST) == 0);
    const pv_node *qkv = node_named(g, "q");
    CHECK(qkv && qkv->op == PV_OP_LINEAR_GROUP && qkv->attr.group.n == 3 && qkv->n_in == 4 && qkv->n_out == 3);
    const pv_node *gate_up = node_named(g, "gate");
    CHECK(gate_up && gate_up->attr.group.n == 2 && gate_up->n_in == 5);
    const pv_node *gated = node_named(g, "x1");
    const pv_node *sum = node_named(g, "y"); /* the cast, the sum and the product before it */
    CHECK(sum && sum->op == PV_OP_LINEAR_ADD && sum->out[0]->dtype == PV_BF16);
    CHECK(gated && gated->op == PV_OP_LINEAR_GATED && gated->n_in == 5 && !strcmp(gated->in[4]->name, "bo"));
    pv_graph_destroy(&g);

    static mock m;
    g = block();
    pv_fuse(g, mock_claiming(&m, no_groups));
    CHECK(count_op(g, PV_OP_LINEAR_GROUP) == 0 && count_op(g, PV_OP_ROPE_STORE) == 1);
    pv_graph_destroy(&g);
    g = block();
    pv_fuse(g, mock_claiming(&m, groups_of_two)); /* q and k in one, v alone */
    CHECK(count_op(g, PV_OP_LINEAR_GROUP) == 2 && node_named(g, "v") && node_named(g, "v")->op == PV_OP_LINEAR);
    pv_graph_destroy(&g);
    g = block();
    int before = g->n_nodes;
    pv_fuse(g, mock_claiming(&m, claims_none));
    CHECK(g->n_nodes == before);
    pv_graph_destroy(&g);
}

/* GELU of a product; `spoil` says what keeps them apart: 1 an output, 2 a second reader, 3 a rounding, 4 another stage,
 * 5 a backend that does not claim it. */
static pv_graph *product_through_gelu(int spoil)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *y = pv_linear(g, "y", in(g, "x", 4, 8), in(g, "w", 24, 8), in(g, "b", 1, 24));
    y->output = spoil == 1;
    if (spoil == 2)
        keep(pv_silu(g, "second", y));
    if (spoil == 3)
        y->dtype = PV_BF16;
    if (spoil == 4)
        g->stage = PV_STAGE_PREFIX;
    keep(pv_cast(g, "act", pv_gelu(g, "wide", y), PV_BF16));
    return g;
}

static void gelu_of_a_product(void)
{
    static mock m;
    for (int spoil = 0; spoil <= 5; spoil++) {
        pv_graph *g = product_through_gelu(spoil);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil == 5 ? mock_claiming(&m, no_gelu) : everything());
        if (!CHECK(count_op(g, PV_OP_LINEAR_GELU) == !spoil && count_op(g, PV_OP_LINEAR) == !!spoil))
            printf("    spoil %d\n", spoil);
        const pv_node *n = node_named(g, "act");
        CHECK(spoil || (n && n->op == PV_OP_LINEAR_GELU && n->n_in == 3 && n->out[0]->dtype == PV_BF16));
        pv_graph_destroy(&g);
    }
    same_when_fused(product_through_gelu(0), product_through_gelu(0), NULL, (const char *[]){"act", NULL});
}

/* gate and up with GeGLU; `spoil` says what keeps them apart: 1 an output, 2 a second reader, 3 two dtypes, 4 another stage,
 * 5 another input, 6 a bias, 7 a backend that does not claim it. */
static bool no_products_of_geglu(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_GEGLU && n->op != PV_OP_LINEAR_GROUP;
}

static pv_graph *gate_and_up(int spoil, pv_dtype dtype)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 4, 8), *bias = spoil == 6 ? in(g, "b", 1, 24) : NULL;
    pv_tensor *gate = pv_linear(g, "gate", x, in(g, "wg", 24, 8), NULL);
    pv_tensor *up = pv_linear(g, "up", spoil == 5 ? in(g, "z", 4, 8) : x, in(g, "wu", 24, 8), bias);
    gate->dtype = dtype;
    up->dtype = spoil == 3 ? PV_F16 : dtype;
    up->output = spoil == 1;
    if (spoil == 2)
        keep(pv_silu(g, "second", gate));
    if (spoil == 4)
        g->stage = PV_STAGE_PREFIX;
    keep(pv_geglu(g, "act", gate, up));
    return g;
}

static void geglu_of_a_product(void)
{
    static mock m;
    for (int spoil = 0; spoil <= 7; spoil++) {
        pv_graph *g = gate_and_up(spoil, PV_BF16);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil == 7 ? mock_claiming(&m, no_products_of_geglu) : everything());
        if (!CHECK(count_op(g, PV_OP_LINEAR_GEGLU) == !spoil && count_op(g, PV_OP_GEGLU) == !!spoil))
            printf("    spoil %d\n", spoil);
        const pv_node *n = node_named(g, "act");
        CHECK(spoil || (g->n_nodes == 1 && n && n->n_in == 3 && n->attr.linear_geglu.between == PV_BF16 &&
                        !strcmp(n->in[1]->name, "wg") && !strcmp(n->in[2]->name, "wu")));
        pv_graph_destroy(&g);
    }
    for (int narrow = 0; narrow < 2; narrow++) {
        same_when_fused(gate_and_up(0, narrow ? PV_BF16 : PV_F32), gate_and_up(0, narrow ? PV_BF16 : PV_F32), NULL, (const char *[]){"act", NULL});
    }
}

/* rope and store; `spoil` says what keeps them apart: 1 an output, 2 a second reader, 3 a rounding, 4 another stage. */
static int fused_stores(int spoil)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *pos = pv_input(g, "pos", PV_I32, 1, (int64_t[]){4}, NULL);
    pv_tensor *x = pv_rope(g, "turned", in(g, "x", 4, 8), in(g, "table", 9, 8), pos, 1);
    x->output = spoil == 1;
    if (spoil == 2)
        keep(pv_gelu(g, "second", x));
    if (spoil == 3)
        x->dtype = PV_BF16;
    if (spoil == 4)
        g->stage = PV_STAGE_PREFIX;
    keep(pv_store(g, "stored", pv_state(g, "cache", spoil == 5 ? PV_BF16 : PV_F32, 9, 8), x, 0));
    if (spoil == 5)
        x->dtype = PV_BF16; /* the cache rounds no further: fused is the same */
    CHECK_OK(pv_graph_status(g));
    pv_fuse(g, everything());
    int n = count_op(g, PV_OP_ROPE_STORE);
    pv_graph_destroy(&g);
    return n;
}

/* rope of q, and k and v into their caches; `spoil` says what keeps them apart: 1 another table, 2 another row of the cache,
 * 3 another stage, 4 something between, 5 other rows, 6 a backend that does not claim it. */
static bool no_rope_cache(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_ROPE_CACHE;
}

static pv_graph *into_caches(int spoil, pv_dtype dtype)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *pos = pv_input(g, "pos", PV_I32, 1, (int64_t[]){4}, NULL), *table = in(g, "table", 9, 8);
    pv_tensor *q = pv_rope(g, "q_turned", in(g, "q", 4, 16), spoil == 1 ? in(g, "other", 9, 8) : table, pos, 2);
    if (spoil == 4)
        keep(pv_gelu(g, "between", q));
    pv_tensor *k = pv_rope(g, "k_turned", in(g, "k", 4, 8), table, pos, 1);
    keep(pv_store(g, "k_cache", pv_state(g, "ck", dtype, 9, 8), k, 3));
    if (spoil == 3)
        g->stage = PV_STAGE_PREFIX;
    keep(pv_store(g, "v_cache", pv_state(g, "cv", dtype, 9, 8), in(g, "v", spoil == 5 ? 3 : 4, 8), spoil == 2 ? 2 : 3));
    q->dtype = k->dtype = dtype;
    keep(q);
    return g;
}

static void caches_at_once(void)
{
    static mock m;
    for (int spoil = 0; spoil <= 6; spoil++) {
        pv_graph *g = into_caches(spoil, PV_BF16);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil == 6 ? mock_claiming(&m, no_rope_cache) : everything());
        if (!CHECK(count_op(g, PV_OP_ROPE_CACHE) == !spoil && count_op(g, PV_OP_ROPE_STORE) == !!spoil))
            printf("    spoil %d\n", spoil);
        CHECK(spoil || (g->n_nodes == 1 && g->nodes[0]->n_out == 3 && g->nodes[0]->attr.rope_cache.heads == 2 &&
                        g->nodes[0]->attr.rope_cache.kv_heads == 1 && g->nodes[0]->attr.rope_cache.first == 3));
        pv_graph_destroy(&g);
    }
    for (int narrow = 0; narrow < 2; narrow++) {
        same_when_fused(into_caches(0, narrow ? PV_BF16 : PV_F32), into_caches(0, narrow ? PV_BF16 : PV_F32), NULL, (const char *[]){"q_turned", "k_cache", "v_cache", NULL});
    }
}

/* The same with the products in front; `spoil`: 1 an output, 2 a second reader, 3 biases, 4 the products in another stage, 5 another order, 6 a
 * backend that does not claim it. */
static bool no_products_into_caches(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_ROPE_CACHE;
}

static pv_graph *products_into_caches(int spoil, pv_dtype dtype)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *pos = pv_input(g, "pos", PV_I32, 1, (int64_t[]){4}, NULL), *table = in(g, "table", 9, 8), *x = in(g, "x", 4, 16);
    static const char *const names[] = {"q", "k", "v"}, *const weights[] = {"wq", "wk", "wv"}, *const biases[] = {"bq", "bk", "bv"};
    pv_tensor *t[3];
    for (int i = 0; i < 3; i++) {
        int64_t width = i ? 8 : 16;
        t[i] = pv_linear(g, names[i], x, in(g, weights[i], width, 16), spoil == 3 ? in(g, biases[i], 1, width) : NULL);
        t[i]->dtype = dtype;
    }
    t[1]->output = spoil == 1;
    if (spoil == 2)
        keep(pv_gelu(g, "second", t[2]));
    if (spoil == 4)
        g->stage = PV_STAGE_PREFIX;
    pv_tensor *q = pv_rope(g, "q_turned", t[0], table, pos, 2);
    pv_tensor *k = pv_rope(g, "k_turned", t[spoil == 5 ? 2 : 1], table, pos, 1);
    keep(pv_store(g, "k_cache", pv_state(g, "ck", dtype, 9, 8), k, 3));
    keep(pv_store(g, "v_cache", pv_state(g, "cv", dtype, 9, 8), t[spoil == 5 ? 1 : 2], 3));
    q->dtype = k->dtype = dtype;
    keep(q);
    return g;
}

static void products_at_once(void)
{
    static mock m;
    for (int spoil = 0; spoil <= 6; spoil++) {
        pv_graph *g = products_into_caches(spoil, PV_BF16);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil == 6 ? mock_claiming(&m, no_products_into_caches) : everything());
        if (!CHECK(count_op(g, PV_OP_LINEAR_ROPE_CACHE) == !spoil && count_op(g, PV_OP_ROPE_CACHE) == !!spoil))
            printf("    spoil %d\n", spoil);
        CHECK(spoil || (g->n_nodes == 1 && g->nodes[0]->n_out == 3 && g->nodes[0]->n_in == 8 &&
                        g->nodes[0]->attr.linear_rope_cache.rope_cache.heads == 2 &&
                        g->nodes[0]->attr.linear_rope_cache.between == PV_BF16));
        pv_graph_destroy(&g);
    }
    for (int narrow = 0; narrow < 2; narrow++) {
        same_when_fused(products_into_caches(0, narrow ? PV_BF16 : PV_F32), products_into_caches(0, narrow ? PV_BF16 : PV_F32), NULL, (const char *[]){"q_turned", "k_cache", "v_cache", NULL});
    }
}

/* A sum and its norm; `spoil`: 1 somebody reads the sum before the norm, 2 it is rounded, 3 the norm is in another stage, 4 the product
 * is another reader's too, 5 a backend that does not claim it, 6 an rms_norm without a weight. */
static bool no_norms_of_sums(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_LINEAR_ADD_NORM;
}

static pv_graph *norm_of_sum(int spoil, bool layer, bool bias)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 4, 8), *residual = in(g, "residual", 4, 12), *w = in(g, "weight", 1, 12);
    pv_tensor *product = pv_linear(g, "product", x, in(g, "w", 12, 8), bias ? in(g, "b", 1, 12) : NULL);
    pv_tensor *sum = pv_add(g, "sum", residual, product), *y;
    if (spoil == 1)
        keep(pv_gelu(g, "early", sum));
    if (spoil == 2)
        sum->dtype = PV_BF16;
    if (spoil == 3)
        g->stage = PV_STAGE_PREFIX;
    if (spoil == 4)
        keep(pv_gelu(g, "other", product));
    y = layer ? pv_layer_norm(g, "norm", sum, w, in(g, "shift", 1, 12), 1e-6f) : pv_rms_norm(g, "norm", sum, spoil == 6 ? NULL : w, 1e-6f);
    y->dtype = PV_BF16;
    keep(y);
    keep(pv_gelu(g, "late", sum));
    return g;
}

static void norms_of_sums(void)
{
    static mock m;
    for (int kind = 0; kind < 4; kind++) {
        const bool layer = kind % 2, bias = kind / 2;
        for (int spoil = 0; spoil <= 6; spoil++) {
            const bool fuses = !spoil || (spoil == 6 && layer);
            pv_graph *g = norm_of_sum(spoil, layer, bias);
            CHECK_OK(pv_graph_status(g));
            pv_fuse(g, spoil == 5 ? mock_claiming(&m, no_norms_of_sums) : everything());
            if (!CHECK(count_op(g, PV_OP_LINEAR_ADD_NORM) == fuses))
                printf("    kind %d, spoil %d\n", kind, spoil);
            CHECK(!fuses || (g->nodes[0]->n_in == 4 + layer + bias && g->nodes[0]->n_out == 2 &&
                             g->nodes[0]->attr.linear_add_norm.layer == layer));
            pv_graph_destroy(&g);
        }
        same_when_fused(norm_of_sum(0, layer, bias), norm_of_sum(0, layer, bias), NULL, (const char *[]){"norm", "late", NULL});
    }
}

/* The end of a step; `spoil` says what keeps it apart: 1 v an output, 2 a second reader of the norm, 3 v rounded, 4 the norm rounded,
 * 5 another stage, 6 no bias, 7 a backend that does not claim it. */
static bool no_steps(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_EULER_STEP;
}

static pv_graph *end_of_step(int spoil)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *h = pv_ada_rms_norm(g, "h", in(g, "x", 4, 8), in(g, "mod", 1, 24), 1e-6f);
    if (spoil == 2)
        keep(pv_silu(g, "second", h));
    pv_tensor *v = pv_linear(g, "v", h, in(g, "w", 6, 8), spoil == 6 ? NULL : in(g, "b", 1, 6));
    v->output = spoil == 1;
    v->dtype = spoil == 3 ? PV_BF16 : PV_F32;
    h->dtype = spoil == 4 ? PV_BF16 : PV_F32;
    if (spoil == 5)
        g->stage = PV_STAGE_DENOISE;
    keep(pv_axpy(g, "next", pv_state(g, "x_t", PV_F32, 4, 6), in(g, "dt", 1, 1), v));
    return g;
}

static void steps(void)
{
    static mock m;
    for (int spoil = 0; spoil <= 7; spoil++) {
        pv_graph *g = end_of_step(spoil);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil == 7 ? mock_claiming(&m, no_steps) : everything());
        if (!CHECK(count_op(g, PV_OP_EULER_STEP) == !spoil && count_op(g, PV_OP_AXPY) == !!spoil))
            printf("    spoil %d\n", spoil);
        CHECK(spoil || (g->n_nodes == 1 && g->nodes[0]->attr.norm.eps == 1e-6f && g->nodes[0]->out[0]->usage == PV_STATE &&
                        !strcmp(g->nodes[0]->in[2]->name, "w") && !strcmp(g->nodes[0]->in[4]->name, "x_t")));
        pv_graph_destroy(&g);
    }
    same_when_fused(end_of_step(0), end_of_step(0), NULL, (const char *[]){"next", NULL});
}

static void keeps_apart(void)
{
    CHECK(fused_stores(0) == 1);
    for (int spoil = 1; spoil <= 4; spoil++)
        if (!CHECK(fused_stores(spoil) == 0))
            printf("    spoil %d\n", spoil);
    CHECK(fused_stores(5) == 1);

    /* a cast from a rounded tensor is not the cast of the unrounded one */
    pv_graph *g = pv_graph_create();
    pv_tensor *y = pv_gelu(g, "y", in(g, "x", 4, 8));
    y->dtype = PV_BF16;
    keep(pv_cast(g, "wide", y, PV_F32));
    pv_fuse(g, everything());
    CHECK(count_op(g, PV_OP_CAST) == 1);
    pv_graph_destroy(&g);

    /* a product that is rounded before it meets the residual */
    g = pv_graph_create();
    y = pv_linear(g, "y", in(g, "x", 4, 8), in(g, "w", 8, 8), NULL);
    y->dtype = PV_BF16;
    keep(pv_add(g, "sum", in(g, "r", 4, 8), y));
    pv_fuse(g, everything());
    CHECK(count_op(g, PV_OP_LINEAR_ADD) == 0);
    pv_graph_destroy(&g);

    /* a vector that repeats is no residual; and where the product stands first there is none either */
    g = pv_graph_create();
    pv_tensor *p = pv_linear(g, "p", in(g, "x", 4, 8), in(g, "w", 8, 8), NULL);
    keep(pv_add(g, "bias", p, in(g, "b", 1, 8)));
    pv_fuse(g, everything());
    CHECK(count_op(g, PV_OP_LINEAR_ADD) == 0);
    pv_graph_destroy(&g);

    /* the product reads a state that is overwritten before the sum: it must not move behind that */
    g = pv_graph_create();
    pv_tensor *s = pv_state(g, "s", PV_F32, 4, 8), *x = in(g, "x", 4, 8);
    y = pv_linear(g, "y", s, in(g, "w", 8, 8), NULL);
    pv_tensor *next = pv_axpy(g, "s1", s, in(g, "a", 1, 1), x);
    keep(pv_add(g, "sum", next, y));
    pv_graph *same = g;
    pv_fuse(g, everything());
    CHECK(count_op(g, PV_OP_LINEAR_ADD) == 0);
    size_t bytes[PV_USAGE_COUNT];
    pv_lower(g, cpu(), 0);
    pv_place(g, bytes);
    CHECK_OK(pv_graph_status(same));
    pv_graph_destroy(&g);

    /* linears with something between them stay */
    g = pv_graph_create();
    x = in(g, "x", 4, 8);
    y = pv_linear(g, "y", x, in(g, "w", 8, 8), NULL);
    y = pv_gelu(g, "gelu", y);
    keep(y);
    keep(pv_linear(g, "z", x, in(g, "v", 8, 8), NULL));
    pv_fuse(g, everything());
    CHECK(count_op(g, PV_OP_LINEAR_GROUP) == 0);
    pv_graph_destroy(&g);
}

static void same_bytes_apart(void)
{
    static const pv_rule narrow[] = {{"h|q|k|v|k_turned|q_turned|attn|act|gate|up|ck|cv", PV_BF16}};
    static const pv_recipe mixed = {"test", "", narrow, 1};
    for (int rounded = 0; rounded < 2; rounded++) {
        same_when_fused(block(), block(), rounded ? &mixed : NULL, (const char *[]){"y", "k_cache", NULL});
    }
}

/* A layer of the expert as the model writes it. `spoil` says what keeps it from being one node: 18 to 20 stand in the way,
 * others to 25 say something else than the op does, and from there on (spoil_tensors) are other dtypes and outputs. */
#define SPOILS 39

static pv_graph *expert_layer(int spoil)
{
    const int64_t rows = 4, width = 16, inner = 24, head = 8;
    pv_graph *g = pv_graph_create();
    pv_tensor *len = pv_input(g, "len", PV_I32, 1, (int64_t[]){1}, NULL);
    pv_tensor *x = spoil == 18 ? pv_state(g, "x", PV_F32, rows, width)
                               : pv_input(g, "x", PV_F32, 2, (int64_t[]){rows, width}, spoil == 24 ? len : NULL);
    pv_tensor *pos = pv_input(g, "pos", PV_I32, 1, &rows, NULL), *pos2 = pv_input(g, "pos2", PV_I32, 1, &rows, NULL);
    const int parts = spoil == 21 ? 2 : 1; /* of a head, that rope takes for heads */
    pv_tensor *table = in(g, "table", 20, head / parts), *table2 = in(g, "table2", 20, head);
    pv_tensor *mod = in(g, "mod", 1, 3 * width), *mod2 = in(g, "mod2", 1, 3 * width);
    pv_tensor *ck = pv_state(g, "ck", PV_F32, 10, head), *cv = pv_state(g, "cv", PV_F32, 10, head);
    pv_tensor *bias = spoil == 1 ? in(g, "bias", 1, width) : NULL;
    pv_attention_attr a = {2, 1, spoil == 11 ? 2 : 1, 1, 0.35f};
    g->stage = PV_STAGE_DENOISE;
    pv_tensor *h = pv_ada_rms_norm(g, "attn_norm", spoil == 22 ? in(g, "x2", rows, width) : x, spoil == 3 ? mod2 : mod, 1e-6f);
    pv_tensor *other = spoil == 4 || spoil == 23 ? in(g, "other", rows, width) : h;
    pv_tensor *q = pv_linear(g, "q_proj", h, in(g, "wq", 2 * head, width), NULL);
    pv_tensor *k = pv_linear(g, "k_proj", spoil == 4 ? other : h, in(g, "wk", head, width), NULL);
    pv_tensor *v = pv_linear(g, "v", spoil == 23 ? other : h, in(g, "wv", head, width), NULL);
    q = pv_rope(g, "q", q, table, pos, 2 * parts);
    if (spoil != 6)
        k = pv_rope(g, "k", k, spoil == 2 ? table2 : table, spoil == 7 ? pos2 : pos, parts);
    pv_tensor *k2 = pv_store(g, "k_cache", ck, k, 2), *v2 = pv_store(g, "v_cache", spoil == 5 ? k2 : spoil == 25 ? ck : cv, v, spoil == 8 ? 3 : 2);
    pv_tensor *o = pv_attention(g, "attn", q, spoil == 9 ? v2 : k2, v2, spoil == 10 ? NULL : len, a);
    o = pv_linear(g, "attn_out", o, in(g, "wo", width, 2 * head), bias);
    pv_tensor *x1 = pv_gated_residual(g, "attn_sum", x, o, mod);
    if (spoil == 12)
        g->stage = PV_STAGE_SCHEDULE;
    h = pv_ada_rms_norm(g, "mlp_norm", spoil == 13 ? x : x1, mod2, spoil == 14 ? 1e-5f : 1e-6f);
    g->stage = PV_STAGE_DENOISE;
    pv_tensor *gate = pv_linear(g, "gate", h, in(g, "wg", inner, width), NULL);
    pv_tensor *up = pv_linear(g, "up", spoil == 15 ? x : h, in(g, "wu", inner, width), NULL);
    pv_tensor *act = spoil == 16 ? pv_mul(g, "act", gate, up) : pv_geglu(g, "act", gate, up);
    pv_tensor *down = pv_linear(g, "mlp_out", act, in(g, "wd", width, inner), NULL);
    if (spoil == 18) /* a state that the layer reads, written before its last node */
        keep(pv_store(g, "x_next", x, in(g, "more", 1, width), 0));
    if (spoil == 19)
        keep(pv_gelu(g, "k_seen", k2)); /* what the layer stores, read before its last node */
    keep(pv_gated_residual(g, "out", x1, down, spoil == 17 ? mod : mod2));
    if (spoil == 20)
        keep(pv_gelu(g, "second", act));
    keep(k2);
    keep(v2);
    return g;
}

/* What a recipe, or somebody who wants to see a tensor, does to the layer. */
static void spoil_tensors(pv_graph *g, int spoil)
{
    static const struct {
        const char *name;
        pv_dtype dtype;
    } rounded[] = {{"attn_out", PV_BF16}, {"mlp_out", PV_BF16}, {"attn_sum", PV_BF16}, {"q_proj", PV_BF16}, {"act", PV_BF16},
                   {"k_cache", PV_BF16},  {"v", PV_F16},        {"out", PV_BF16},      {"x", PV_BF16},      {"mod", PV_BF16},
                   {"mod2", PV_BF16}};
    static const char *const outputs[] = {"attn_sum", "q_proj", "gate"};
    if (spoil > 25 && spoil <= 36)
        pv_graph_find(g, rounded[spoil - 26].name)->dtype = rounded[spoil - 26].dtype;
    if (spoil > 36)
        keep(pv_graph_find(g, outputs[spoil - 37]));
}

static void layers(void)
{
    static mock m;
    for (int spoil = 0; spoil <= SPOILS + 1; spoil++) {
        pv_graph *g = expert_layer(spoil);
        spoil_tensors(g, spoil <= SPOILS ? spoil : 0);
        CHECK_OK(pv_graph_status(g));
        pv_fuse(g, spoil > SPOILS ? mock_claiming(&m, no_layers) : everything());
        CHECK_OK(pv_graph_status(g));
        if (!CHECK(count_op(g, PV_OP_EXPERT_BLOCK) == !spoil))
            printf("    spoil %d\n", spoil);
        pv_graph_destroy(&g);
    }
    pv_graph *g = expert_layer(0);
    pv_fuse(g, everything());
    const pv_node *n = node_named(g, "out");
    static const char *const inputs[] = {"x",  "mod", "mod2", "wq",    "wk",  "wv", "wo", "wg",
                                         "wu", "wd",  "table", "pos", "ck", "cv", "len"};
    if (CHECK(g->n_nodes == 1 && n && n->op == PV_OP_EXPERT_BLOCK && n->n_in == 15 && n->n_out == 3)) {
        for (int i = 0; i < 15; i++)
            if (!CHECK(!strcmp(n->in[i]->name, inputs[i])))
                printf("    input %d\n", i);
        const pv_expert_attr *a = &n->attr.expert;
        CHECK(a->eps == 1e-6f && a->heads == 2 && a->kv_heads == 1 && a->store == 2 && a->first == 1 && a->scale == 0.35f);
        CHECK(pv_graph_find(g, "k_cache") == n->out[1] && pv_graph_find(g, "v_cache") == n->out[2]);
        for (int k = 0; k < 3; k++)
            CHECK(n->out[k]->producer == n && n->out[k]->output);
        CHECK(n->out[0]->usage == PV_SCRATCH && n->out[1]->base == n->in[12] && n->out[2]->base == n->in[13]);
    }
    pv_graph_destroy(&g);
}

/* The node of the layer finds no memory: the graph fails, and stays as it was. */
static void layer_without_memory(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    pv_graph *g = expert_layer(0);
    int before = g->n_nodes;
    fault_countdown = 0;
    while (pv_arena_alloc(&g->arena, 16)) /* what is left of the arena's last block */
        ;
    fault_countdown = 0;
    pv_fuse(g, everything());
    CHECK(fault_countdown < 0 && g->n_nodes == before);
    CHECK_STATUS(pv_graph_status(g), PV_E_MEMORY);
    fault_countdown = -1;
    pv_graph_destroy(&g);
    CHECK(pv_alloc_live() == 0);
    CHECK_OK(pv_set_allocator(NULL));
}

/* The whole policy, for a backend that claims everything, or no whole layers, or no norms of gated products, or none of these products either. */
typedef enum claim { WHOLE_LAYERS, NORMS_OF_PRODUCTS, GATED_PRODUCTS, GATED_NORMS } claim;

static void same_bytes_in_the_model(claim what)
{
    mock m;
    static bool (*const claims[])(const pv_backend *, const pv_node *) = {claims_all, no_layers, no_norms_of_products, no_gated_products};
    pv_backend *be = mock_claiming(&m, claims[what]);
    static const char *const recipes[] = {"f32", "bf16"};
    pv_config c;
    pv_graph *wanted = tiny(&c);
    pv_weight_source source = pv_synthetic_source(wanted);
    for (int i = 0; i < 2; i++) {
        ready plain, fused;
        pv_weights *weights = NULL;
        CHECK_OK(pv_weights_create(cpu(), &source, &weights));
        if (ready_make(&plain, tiny(&c), NULL, recipe(recipes[i]), 3, weights) &&
            ready_make(&fused, tiny(&c), be, recipe(recipes[i]), 3, weights)) {
            CHECK(fused.graph->n_nodes == plain.graph->n_nodes); /* bodies are what they came from */
            ready_fill(&plain);
            ready_fill(&fused);
            ready_run(&plain, 3);
            ready_run(&fused, 3);
            same_bytes(&plain, &fused, "step.x_next");
        }
        ready_drop(&plain);
        ready_drop(&fused);
        pv_weights_destroy(&weights);
    }
    pv_graph_destroy(&wanted);

    for (int i = 0; i < 2; i++) {
        pv_graph *g = tiny(&c);
        pv_prune(g);
        pv_hoist(g, 3);
        pv_apply_recipe(g, recipe(recipes[i]));
        int before = g->n_nodes;
        pv_fuse(g, be);
        printf("tiny Pi0.5, %s: %d nodes, %d when fused\n", recipes[i], before, g->n_nodes);
        CHECK(count_op(g, PV_OP_EXPERT_BLOCK) == (what == WHOLE_LAYERS ? c.expert.depth : 0));
        CHECK(count_op(g, PV_OP_GATED_NORM) == (what == GATED_NORMS ? 2 * c.expert.depth - 1 : 0));
        CHECK(count_op(g, PV_OP_LINEAR_GATED) == (what == GATED_PRODUCTS ? 2 * c.expert.depth : what == NORMS_OF_PRODUCTS));
        CHECK(count_op(g, PV_OP_LINEAR_GATED_NORM) == (what == NORMS_OF_PRODUCTS ? 2 * c.expert.depth - 1 : 0));
        CHECK(count_op(g, PV_OP_EULER_STEP) == 1 && count_op(g, PV_OP_AXPY) == 0);
        /* the last layer of the prefix has no q */
        CHECK(count_op(g, PV_OP_ROPE_STORE) == 1);
        int caches = (what == WHOLE_LAYERS ? 1 : 2) * c.gemma.depth - 1;
        /* but for the first norms, of what no product made; the prefix has one sum less */
        CHECK(count_op(g, PV_OP_LINEAR_ADD_NORM) == 2 * c.vision.depth + 2 * (c.gemma.depth - 1));
        CHECK(count_op(g, PV_OP_ROPE_CACHE) == (what == GATED_NORMS ? caches : 0));
        CHECK(count_op(g, PV_OP_LINEAR_ROPE_CACHE) == (what == GATED_NORMS ? 0 : caches));
        if (i) { /* in bf16 no rounding stands between what SigLIP's products fuse with */
            CHECK(count_op(g, PV_OP_LINEAR_GELU) == c.vision.depth);
            CHECK(count_op(g, PV_OP_GELU) == 0 && count_op(g, PV_OP_CAST) == 0);
        }
        for (int k = 0; i && k < g->n_nodes; k++)
            if (g->nodes[k]->op == PV_OP_LINEAR_GELU)
                CHECK(g->nodes[k]->in[2]->dtype == PV_BF16 && g->nodes[k]->out[0]->dtype == PV_BF16);
        pv_graph_destroy(&g);
    }
}

int main(void)
{
    layer_without_memory();
    fires();
    gelu_of_a_product();
    geglu_of_a_product();
    caches_at_once();
    products_at_once();
    norms_of_sums();
    steps();
    keeps_apart();
    layers();
    same_bytes_apart();
    same_bytes_in_the_model(WHOLE_LAYERS);
    same_bytes_in_the_model(NORMS_OF_PRODUCTS);
    same_bytes_in_the_model(GATED_PRODUCTS);
    same_bytes_in_the_model(GATED_NORMS);
    return test_done();
}
