/* vulkan_barriers.c - barriers where bytes ask for them, and nowhere else: small graphs whose number is
 * known, and the whole policy, where every pair of nodes is looked at. That the device sees them too is what
 * synchronisation validation says in vulkan.c. */
#include "backends/vulkan/vk.h"
#include "plan/plans.h"

static pv_backend *device(void)
{
    pv_backend *be = NULL;
    return pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe"}, &be) ? NULL : be;
}

static pv_tensor *one(pv_graph *g, pv_op op, pv_tensor *x, pv_tensor *y)
{
    pv_node *n = pv_node_add(g, NULL, op, y ? 2 : 1, (pv_tensor *[]){x, y}, &(pv_attr){0});
    return n ? n->out[0] : NULL;
}

/* Barriers of stage s, and which nodes they stand before. */
static int barriers(const pv_plan *plan, pv_stage s, bool in_place, bool *before)
{
    int n = vk_barriers((const vk_device *)plan->backend, &plan->program, s, in_place, before);
    for (int i = 0; i < plan->graph->n_nodes; i++)
        n -= before[i];
    CHECK(n == 0);
    return vk_barriers((const vk_device *)plan->backend, &plan->program, s, in_place, before);
}

static void small(pv_backend *be)
{
    pv_plan *plan = NULL;
    bool before[16];
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 4, 8), *y = in(g, "y", 4, 8);
    pv_tensor *a = one(g, PV_OP_GELU, x, NULL), *b = one(g, PV_OP_SILU, x, NULL),
              *c = one(g, PV_OP_GELU, y, NULL);
    pv_tensor *d = one(g, PV_OP_ADD, a, b), *e = one(g, PV_OP_ADD, c, y);
    keep(d), keep(e), keep(a);
    if (CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan))) {
        CHECK(plan->graph->n_nodes == 5 && barriers(plan, PV_STAGE_VISION, false, before) == 1);
        CHECK(!before[0] && !before[1] && !before[2] && before[3] && !before[4]);
        CHECK(barriers(plan, PV_STAGE_PREFIX, false, before) == 0);
    }
    pv_plan_destroy(&plan);

    /* A chain: each waits for the one before. */
    g = pv_graph_create();
    x = in(g, "x", 4, 8);
    for (int i = 0; i < 6; i++)
        x = one(g, i % 2 ? PV_OP_GELU : PV_OP_SILU, x, NULL);
    keep(x);
    if (CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan)))
        CHECK(plan->graph->n_nodes == 6 && barriers(plan, PV_STAGE_VISION, false, before) == 5 && !before[0]);
    pv_plan_destroy(&plan);

    /* A state: who reads the old version must be done when the next one is written, who reads the next waits
     * for it. */
    g = pv_graph_create();
    x = in(g, "x", 2, 8);
    pv_tensor *s = pv_state(g, "s", PV_F32, 4, 8), *old = keep(one(g, PV_OP_GELU, s, NULL)),
              *next = pv_store(g, "next", s, x, 1);
    keep(one(g, PV_OP_GELU, next, NULL));
    CHECK(old && next);
    if (CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan)))
        CHECK(plan->graph->n_nodes == 3 && barriers(plan, PV_STAGE_VISION, false, before) == 2);
    pv_plan_destroy(&plan);
}

/* ---- the whole policy ---- */

static bool share(const pv_tensor *a, const pv_tensor *b)
{
    return a->usage != PV_WEIGHT && a->usage == b->usage && a->offset < b->offset + pv_tensor_bytes(b) &&
           b->offset < a->offset + pv_tensor_bytes(a);
}

/* The memory for parts is one for all. */
static bool has_parts(const vk_device *d, const pv_node *n)
{
    vk_call c[VK_CALLS];
    bool has = false;
    for (int i = vk_calls_make(d, n, c) - 1; i >= 0; i--)
        has |= c[i].part_words > 0;
    return has;
}

static const vk_device *on;

/* Whether one writes what the other reads or writes, told from their tensors one by one. */
static bool in_the_way(const pv_node *a, const pv_node *b)
{
    if (has_parts(on, a) && has_parts(on, b))
        return true;
    for (int k = 0; k < a->n_out; k++) {
        for (int i = 0; i < b->n_in; i++)
            if (share(a->out[k], b->in[i]) || (b->in[i]->rows && share(a->out[k], b->in[i]->rows)))
                return true;
        for (int i = 0; i < b->n_out; i++)
            if (share(a->out[k], b->out[i]))
                return true;
    }
    return false;
}

/* Whether something is dispatched for it. */
static bool runs(const pv_plan *plan, const pv_node *n, pv_stage s, bool in_place)
{
    return n->stage == s && !(in_place && vk_reads_in_place(on, &plan->program, n));
}

static void whole(pv_backend *be, const char *name, bool in_place)
{
    pv_config config;
    pv_graph *g = tiny(&config);
    pv_plan *plan = NULL;
    int nodes = 0, in_all = 0, idle = 0, picked = 0;
    if (!CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.recipe = recipe(name), .steps = 10}, &plan)))
        return;
    const pv_graph *p = plan->graph;
    bool *before = malloc(sizeof *before * (size_t)p->n_nodes);
    for (int s = 0; s < PV_STAGE_COUNT; s++) {
        int n = barriers(plan, (pv_stage)s, in_place, before), since = -1;
        in_all += n;
        for (int j = 0; j < p->n_nodes; j++) {
            if (!runs(plan, p->nodes[j], (pv_stage)s, in_place)) {
                picked += p->nodes[j]->stage == (pv_stage)s;
                continue;
            }
            nodes++;
            if (before[j]) {
                bool asked = false; /* by a node since the barrier before */
                for (int i = since < 0 ? 0 : since; i < j; i++)
                    asked |= runs(plan, p->nodes[i], (pv_stage)s, in_place) &&
                             (in_the_way(p->nodes[i], p->nodes[j]) || in_the_way(p->nodes[j], p->nodes[i]));
                idle += !asked;
                since = j;
            }
            for (int i = since < 0 ? 0 : since; i < j; i++)
                if (runs(plan, p->nodes[i], (pv_stage)s, in_place) &&
                    !CHECK(!in_the_way(p->nodes[i], p->nodes[j]) && !in_the_way(p->nodes[j], p->nodes[i])))
                    printf("    no barrier between '%s' and '%s'\n", p->nodes[i]->name, p->nodes[j]->name);
        }
    }
    printf("recipe %s: %d barriers for %d nodes, %d rows read in place\n", name, in_all, nodes, picked);
    CHECK(in_place == (picked > 0));
    CHECK(in_all > 0 && in_all < nodes - PV_STAGE_COUNT && idle == 0);
    free(before);
    pv_plan_destroy(&plan);
}

int main(void)
{
    pv_backend *be = device();
    if (!be) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    on = (const vk_device *)be;
    small(be);
    whole(be, "f32", false);
    whole(be, "f32", true);
    whole(be, "bf16", false);
    whole(be, "bf16", true);
    pv_backend_close(&be);
    return test_done();
}
