/* graph.c - building: names, the error that sticks, what shape inference refuses, text and dot. */
#include "graph/build.h"
#include "base/memory.h"
#include "tests/test.h"

static pv_tensor *in(pv_graph *g, const char *name, int64_t rows, int64_t width, pv_tensor *counted)
{
    return pv_input(g, name, PV_F32, 2, (int64_t[]){rows, width}, counted);
}

static pv_tensor *count(pv_graph *g, const char *name)
{
    return pv_input(g, name, PV_I32, 1, (int64_t[]){1}, NULL);
}

static void sticks(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 2, 8, NULL), *w = in(g, "w", 4, 9, NULL);
    CHECK(!pv_linear(g, "first", x, w, NULL));
    int nodes = g->n_nodes, tensors = g->n_tensors;
    CHECK_STATUS(pv_graph_status(g), PV_E_SHAPE);
    CHECK_TEXT("linear 'first': weight 'w' takes 9 features, input 'x' has 8");
    /* everything after that is quiet, whatever it is given */
    pv_tensor *y = pv_gelu(g, "second", NULL);
    y = pv_add(g, "third", y, x);
    CHECK(!y && !pv_attention(g, "a", y, y, y, y, (pv_attention_attr){0}));
    CHECK(!in(g, "z", 1, 1, NULL) && !pv_state(g, "s", PV_F32, 1, 1) && !pv_weight(g, 1, (int64_t[]){1}, "v"));
    CHECK(!pv_const(g, "c", PV_F32, 1, (int64_t[]){1}, &(float){1}) && !pv_cast(g, "d", NULL, PV_BF16));
    pv_scope_push(g, "scope");
    pv_scope_pop(g);
    CHECK(pv_graph_fail(g, PV_E_ARG, "other words") == PV_E_SHAPE);
    CHECK_OK(pv_fail(PV_OK, "something else")); /* the words come from the graph */
    CHECK_STATUS(pv_graph_status(g), PV_E_SHAPE);
    CHECK_TEXT("linear 'first'");
    CHECK(g->n_nodes == nodes && g->n_tensors == tensors);
    pv_graph_destroy(&g);
    pv_graph_destroy(&g);
}

static void names(void)
{
    pv_graph *g = pv_graph_create();
    pv_scope_push(g, "prefix");
    pv_scope_push(g, "layer%d", 3);
    pv_tensor *x = in(g, "x", 2, 8, NULL), *y = pv_gelu(g, NULL, x);
    CHECK(!strcmp(x->name, "prefix.layer3.x") && !strncmp(y->name, "prefix.layer3.gelu#", 19));
    pv_scope_pop(g);
    CHECK(!strcmp(pv_gelu(g, "y", x)->name, "prefix.y"));
    pv_scope_pop(g);
    pv_scope_pop(g);
    CHECK(!strcmp(pv_gelu(g, "y", x)->name, "y"));
    int64_t dim[] = {8};
    pv_tensor *w = pv_weight(g, 1, dim, "some.%s", "weight");
    CHECK(w == pv_weight(g, 1, dim, "some.weight") && pv_graph_find(g, "some.weight") == w && !pv_graph_find(g, "none"));
    for (int i = 0; i < 40; i++)
        pv_scope_push(g, "deeper");
    CHECK_STATUS(pv_graph_status(g), PV_E_ARG);
    CHECK_TEXT("too deep");
    pv_graph_destroy(&g);
}

static void misfits(void)
{
#define REFUSED(words, expr)                                                                                 \
    do {                                                                                                     \
        pv_graph *g = pv_graph_create();                                                                     \
        pv_tensor *n = count(g, "n"), *x = in(g, "x", 4, 8, NULL), *c = in(g, "c", 4, 8, n);                  \
        pv_tensor *s = pv_state(g, "s", PV_F32, 6, 8);                                                        \
        (void)n, (void)x, (void)c, (void)s;                                                                  \
        CHECK(!(expr));                                                                                      \
        CHECK(pv_graph_status(g) != PV_OK);                                                                  \
        CHECK_TEXT(words);                                                                                   \
        pv_graph_destroy(&g);                                                                                \
    } while (0)
    const pv_attention_attr one = {1, 1, 1, 0, 1}, two = {1, 1, 2, 0, 1}, thirds = {3, 2, 1, 0, 1}, late = {1, 1, 1, 4, 1};
    REFUSED("a weight [out, in]", pv_linear(g, "y", x, pv_input(g, "w", PV_F32, 1, (int64_t[]){8}, NULL), NULL));
    REFUSED("one bias for each output", pv_linear(g, "y", x, x, x));
    REFUSED("repeats along the first", pv_add(g, "y", x, in(g, "z", 3, 8, NULL)));
    REFUSED("repeats along the first", pv_mul(g, "y", x, in(g, "z", 4, 1, NULL)));
    REFUSED("counted by 'n'", pv_add(g, "y", x, c)); /* rows of garbage would reach the sum */
    REFUSED("counted by 'n'", pv_geglu(g, "y", x, c));
    REFUSED("counted by 'n'", pv_axpy(g, "y", x, in(g, "a", 1, 1, NULL), c));
    REFUSED("something shaped as the first", pv_axpy(g, "y", x, in(g, "a", 1, 1, NULL), in(g, "t", 8, 4, NULL)));
    REFUSED("one number", pv_axpy(g, "y", x, x, x));
    REFUSED("something shaped as the first", pv_gated_residual(g, "y", x, in(g, "t", 8, 4, NULL), in(g, "m", 1, 24, NULL)));
    REFUSED("scale, shift and gate", pv_ada_rms_norm(g, "y", x, x, 1e-6f));
    REFUSED("rows of 'c' are counted", pv_concat(g, "y", x, c, NULL));
    REFUSED("must have all its rows", pv_concat(g, "y", c, x, n));
    REFUSED("keys that are counted by the length", pv_attention_scores(g, "y", x, c, NULL, one));
    REFUSED("3 heads, 2 kv heads", pv_attention_scores(g, "y", x, x, NULL, thirds));
    REFUSED("all rows valid in a batch", pv_attention_scores(g, "y", c, x, NULL, two));
    REFUSED("first key 4 of 4", pv_attention_scores(g, "y", x, x, NULL, late));
    REFUSED("a count i32[1]", pv_softmax(g, "y", x, x));
    REFUSED("v shaped as k", pv_attention(g, "y", x, x, in(g, "v", 5, 8, NULL), NULL, one));
    REFUSED("rows that fit the state", pv_store(g, "y", s, x, 3));
    REFUSED("rows that fit the state", pv_store(g, "y", s, x, -1));
    REFUSED("'x' is no state", pv_store(g, "y", x, in(g, "z", 1, 8, NULL), 0));
    REFUSED("columns that exist", pv_slice(g, "y", x, 6, 3));
    REFUSED("columns that exist", pv_slice(g, "y", x, INT64_MAX, 2));
    REFUSED("an index i32[1]", pv_row(g, "y", x, x));
    REFUSED("heads of even size", pv_rope(g, "y", x, x, n, 3));
    REFUSED("one i32 position for each row", pv_rope(g, "y", x, x, n, 1));
    REFUSED("f32 or bf16 [positions, cos | sin]", pv_rope(g, "y", x, pv_input(g, "t", PV_F16, 2, (int64_t[]){9, 8}, NULL), n, 1));
    REFUSED("cut by the patch", pv_patchify(g, "y", x, 2));
    REFUSED("u8 pictures", pv_patchify(g, "y", pv_input(g, "f", PV_F32, 4, (int64_t[]){1, 4, 4, 3}, NULL), 2));
    REFUSED("cut by the patch", pv_patchify(g, "y", pv_input(g, "p", PV_U8, 4, (int64_t[]){1, 4, 6, 3}, NULL), 4));
    REFUSED("is missing", pv_add(g, "y", x, NULL));
    REFUSED("dimension 1 is 0", in(g, "z", 4, 0, NULL));
    REFUSED("dimension 0 is -1", in(g, "z", -1, 4, NULL));
    REFUSED("can be counted", in(g, "z", (int64_t)1 << 40, (int64_t)1 << 40, NULL));
    REFUSED("its rows are counted by an input i32[1]", in(g, "z", 4, 8, x));
}

/* A layer of the action expert with one input or attribute exchanged for one that does not fit. */
static void misfits_of_a_layer(void)
{
    enum { COUNTED = 15, ONE_STATE, NO_STATE };
    static const struct {
        const char *words;
        int at; /* input, with these sizes */
        int64_t rows, width;
        int heads, kv_heads, store, first;
    } cases[] = {
        {NULL, -1, 0, 0, 2, 1, 2, 0},
        {"3 heads, 2 kv heads", -1, 0, 0, 3, 2, 0, 0},
        {"0 heads", -1, 0, 0, 0, 1, 0, 0},
        {"scale, shift and gate in one row, 'in1' is [1, 16]", 1, 1, 16, 2, 1, 0, 0},
        {"scale, shift and gate in one row, 'in2' is [2, 24]", 2, 2, 24, 2, 1, 0, 0},
        {"heads of even size", 3, 6, 8, 2, 1, 0, 0},
        {"a weight [heads x head, width]", 3, 8, 9, 2, 1, 0, 0},
        {"a weight [kv heads x head, width], 'in4'", 4, 8, 8, 2, 1, 0, 0},
        {"a weight [kv heads x head, width], 'in5'", 5, 4, 7, 2, 1, 0, 0},
        {"a weight [width, heads x head]", 6, 8, 4, 2, 1, 0, 0},
        {"a weight [inner width, width]", 7, 12, 7, 2, 1, 0, 0},
        {"shaped as that of the gate", 8, 13, 8, 2, 1, 0, 0},
        {"a weight [width, inner width]", 9, 12, 8, 2, 1, 0, 0},
        {"as wide as a head, 'in10' is [20, 8]", 10, 20, 8, 2, 1, 0, 0},
        {"a cache [keys, kv heads x head]", 12, 9, 8, 2, 1, 0, 0},
        {"v shaped as k", 13, 8, 4, 2, 1, 0, 0},
        {"rows that fit the state", -1, 0, 0, 2, 1, 6, 0},
        {"rows that fit the state", -1, 0, 0, 2, 1, -1, 0},
        {"first key 9 of 9", -1, 0, 0, 2, 1, 0, 9},
        {"first key -1 of 9", -1, 0, 0, 2, 1, 0, -1},
        {"one i32 position for each row", 11, 1, 5, 2, 1, 0, 0},
        {"a count i32[1]", 14, 1, 2, 2, 1, 0, 0},
        {"all rows valid", COUNTED, 0, 0, 2, 1, 0, 0},
        {"two states", ONE_STATE, 0, 0, 2, 1, 0, 0},
        {"is no state", NO_STATE, 0, 0, 2, 1, 0, 0},
    };
    static const int64_t sizes[15][2] = {{4, 8},  {1, 24}, {1, 24}, {8, 8},  {4, 8}, {4, 8}, {8, 8}, {12, 8},
                                         {12, 8}, {8, 12}, {20, 4}, {1, 4}, {9, 4}, {9, 4}, {1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pv_graph *g = pv_graph_create();
        pv_tensor *x[15];
        int special = cases[i].at;
        for (int k = 0; k < 15; k++) {
            char name[8];
            snprintf(name, sizeof name, "in%d", k);
            int64_t rows = k == special ? cases[i].rows : sizes[k][0], width = k == special ? cases[i].width : sizes[k][1];
            if (k == 11 || k == 14)
                x[k] = pv_input(g, name, PV_I32, 1, &width, NULL);
            else if (k == 12 || (k == 13 && special != NO_STATE))
                x[k] = pv_state(g, name, PV_F32, rows, width);
            else
                x[k] = in(g, name, rows, width, k == 0 && special == COUNTED ? count(g, "n") : NULL);
        }
        if (special == ONE_STATE)
            x[13] = x[12];
        const pv_attr attr = {.expert = {1e-6f, cases[i].heads, cases[i].kv_heads, cases[i].store, cases[i].first, 0.5f}};
        pv_node *n = pv_node_add(g, "y", PV_OP_EXPERT_BLOCK, 15, x, &attr);
        CHECK((n != NULL) == !cases[i].words);
        if (n) {
            CHECK(n->n_out == 3 && pv_row_count(n->out[0]) == 4 && pv_width(n->out[0]) == 8 && n->out[0]->usage == PV_SCRATCH);
            CHECK(n->out[1]->base == x[12] && n->out[2]->base == x[13]);
        } else {
            CHECK(pv_graph_status(g) != PV_OK);
            if (!CHECK_TEXT(cases[i].words))
                printf("    case %d\n", (int)i);
        }
        pv_graph_destroy(&g);
    }
}

static void dumps(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *n = count(g, "n"), *c = in(g, "c", 4, 8, n);
    pv_tensor *y = pv_store(g, "kept", pv_state(g, "s", PV_BF16, 6, 8), pv_scale(g, "y", c, 2), 1);
    y->output = true;
    char *text = pv_graph_text(g), *dot = pv_graph_dot(g);
    CHECK(text && !strcmp(text, "# 2 nodes\nvision:\n  y f32[4, 8] rows<=n = scale(c) factor=2\n"
                                "  kept bf16[6, 8] over s = store(s, y) first=1 size=0 output\n"));
    CHECK(dot && strstr(dot, "n0 -> n1;") && strstr(dot, "cluster_vision") && strstr(dot, "store\\nkept\\nbf16[6, 8]"));
    pv_free(text);
    pv_free(dot);
    pv_graph_destroy(&g);
}

int main(void)
{
    sticks();
    names();
    misfits();
    misfits_of_a_layer();
    dumps();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
