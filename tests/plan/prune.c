/* prune.c - what no output needs goes, what one needs stays. */
#include "plans.h"

static void branches(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 2, 8), *y = pv_gelu(g, "kept", x);
    pv_silu(g, "dead", pv_scale(g, "dead_too", x, 2));
    keep(pv_add(g, "out", y, x));
    pv_tensor *cache = pv_state(g, "cache", PV_F32, 4, 8);
    pv_tensor *read = pv_store(g, "read", cache, x, 0);
    pv_store(g, "unread", read, x, 2);
    keep(pv_scale(g, "from_cache", read, 1));
    CHECK_OK(pv_graph_status(g));
    pv_prune(g);
    CHECK_OK(pv_graph_status(g));
    CHECK(g->n_nodes == 4);
    static const char *const left[] = {"kept", "out", "read", "from_cache"};
    for (int i = 0; i < 4; i++)
        CHECK(!strcmp(g->nodes[i]->name, left[i])); /* in their order */
    pv_prune(g);
    CHECK(g->n_nodes == 4);
    pv_graph_destroy(&g);

    g = pv_graph_create();
    pv_gelu(g, "dead", in(g, "x", 2, 8));
    pv_prune(g);
    CHECK(g->n_nodes == 0);
    pv_graph_destroy(&g);
}

/* The prefix's last hidden state feeds nothing: of its last layer K and V stay. */
static void last_prefix_layer(void)
{
    static const char *const kept[] = {"attn_norm", "k_proj", "k", "v", "k_cache", "v_cache"};
    static const char *const gone[] = {"q_proj", "q", "attn", "attn_out", "attn_sum", "mlp_norm", "gate", "up", "act", "mlp_out", "out"};
    pv_config c;
    pv_graph *g = tiny(&c);
    pv_prune(g);
    char name[64];
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        snprintf(name, sizeof name, "prefix.layer%d.%s", c.gemma.depth - 1, kept[i]);
        CHECK(node_named(g, name));
    }
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        snprintf(name, sizeof name, "prefix.layer%d.%s", c.gemma.depth - 1, gone[i]);
        CHECK(!node_named(g, name));
        snprintf(name, sizeof name, "step.layer%d.%s", c.gemma.depth - 1, gone[i]);
        CHECK(node_named(g, name));
    }
    CHECK(!node_named(g, "prefix.norm_out"));
    pv_graph_destroy(&g);
}

int main(void)
{
    branches();
    last_prefix_layer();
    return test_done();
}
