/* place.c - no two tensors that live together share a byte; what must outlive a stage is state; no stale reads. */
#include "plans.h"

static uint64_t rolling = 1;

static int dice(int n)
{
    return (int)(pv_hash(0x9ace, rolling++) % (uint64_t)n);
}

/* First and last node that touch a scratch tensor, found without place.c. */
static void lifetime(const pv_graph *g, const pv_tensor *t, int *from, int *to)
{
    *from = *to = -1;
    for (int i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i]->n_out; k++)
            if (g->nodes[i]->out[k] == t)
                *from = *to = i;
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k] == t)
                *to = i;
    }
}

static pv_tensor *any_node(pv_graph *g, pv_tensor *const *made, int n)
{
    pv_tensor *x = made[dice(n)], *y;
    switch (dice(4)) {
    case 0:
        return pv_cast(g, NULL, x, dice(2) ? PV_BF16 : PV_F32);
    case 1:
        return pv_slice(g, NULL, x, 0, 1 + dice((int)pv_width(x)));
    case 2:
        y = made[dice(n)];
        return pv_width(x) == pv_width(y) && pv_elements(x) % pv_elements(y) == 0 ? pv_add(g, NULL, x, y) : pv_gelu(g, NULL, x);
    default:
        return pv_linear(g, NULL, x, in(g, pv_graph_printf(g, "w%d", g->n_tensors), 1 + dice(3000), pv_width(x)), NULL);
    }
}

static double random_graph(int n_nodes)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *made[80];
    int n = 0;
    made[n++] = in(g, "x", 1 + dice(40), 1 + dice(300));
    made[n++] = in(g, "y", 1 + dice(40), 1 + dice(300));
    for (int i = 0; i < n_nodes; i++) {
        g->stage = i > n_nodes / 2 ? PV_STAGE_PREFIX : PV_STAGE_VISION;
        made[n] = any_node(g, made, n);
        if (dice(9) == 0)
            keep(made[n]);
        n++;
    }
    keep(made[n - 1]);
    CHECK_OK(pv_graph_status(g));
    size_t bytes[PV_USAGE_COUNT], most = 0;
    pv_prune(g);
    pv_place(g, bytes);
    CHECK_OK(pv_graph_status(g));

    bool apart = true, inside = true, crossing = true;
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *a = g->tensors[i];
        int from, to, b_from, b_to;
        lifetime(g, a, &from, &to);
        if (from < 0)
            continue;
        crossing &= (a->usage == PV_STATE) == (a->output || g->nodes[from]->stage != g->nodes[to]->stage);
        inside &= a->offset % 64 == 0 && a->offset + pv_tensor_bytes(a) <= bytes[a->usage];
        for (int j = 0; j < i; j++) {
            const pv_tensor *b = g->tensors[j];
            lifetime(g, b, &b_from, &b_to);
            bool together = a->usage == PV_STATE || (from <= b_to && b_from <= to); /* state lives on */
            if (b_from >= 0 && a->usage == b->usage && together)
                apart &= a->offset + pv_tensor_bytes(a) <= b->offset || b->offset + pv_tensor_bytes(b) <= a->offset;
        }
    }
    CHECK(apart);
    CHECK(inside);
    CHECK(crossing);
    for (int at = 0; at < g->n_nodes; at++) {
        size_t alive = 0;
        for (int i = 0; i < g->n_tensors; i++) {
            int from, to;
            lifetime(g, g->tensors[i], &from, &to);
            if (g->tensors[i]->usage == PV_SCRATCH && from >= 0 && from <= at && at <= to)
                alive += (pv_tensor_bytes(g->tensors[i]) + 255) / 256 * 256;
        }
        most = alive > most ? alive : most;
    }
    CHECK(bytes[PV_SCRATCH] >= most);
    double ratio = most ? (double)bytes[PV_SCRATCH] / (double)most : 1;
    pv_graph_destroy(&g);
    return ratio;
}

static pv_status placed(pv_graph **g)
{
    size_t bytes[PV_USAGE_COUNT];
    pv_place(*g, bytes);
    pv_status st = pv_graph_status(*g);
    pv_graph_destroy(g);
    return st;
}

static void versions(void)
{
    /* chained: each reads the newest */
    pv_graph *g = pv_graph_create();
    pv_tensor *s = pv_state(g, "s", PV_F32, 4, 8), *x = in(g, "x", 2, 8);
    pv_tensor *a = pv_store(g, "a", s, x, 0), *b = pv_store(g, "b", a, x, 2);
    keep(pv_gelu(g, "y", b));
    size_t bytes[PV_USAGE_COUNT];
    pv_place(g, bytes);
    CHECK_OK(pv_graph_status(g));
    CHECK(a->offset == s->offset && b->offset == s->offset && bytes[PV_STATE] == 512);
    pv_graph_destroy(&g);

    g = pv_graph_create(); /* an old version read after the new one was written */
    s = pv_state(g, "s", PV_F32, 4, 8);
    a = pv_store(g, "a", s, in(g, "x", 2, 8), 0);
    keep(pv_add(g, "y", a, s));
    CHECK_STATUS(placed(&g), PV_E_ARG);
    CHECK_TEXT("state 's' is read after its next version 'a' was written");

    g = pv_graph_create(); /* two next versions of one */
    s = pv_state(g, "s", PV_F32, 4, 8);
    x = in(g, "x", 2, 8);
    keep(pv_store(g, "a", s, x, 0));
    keep(pv_store(g, "b", s, x, 2));
    CHECK_STATUS(placed(&g), PV_E_ARG);
    CHECK_TEXT("next version 'a'");

    for (int state = 0; state < 2; state++) { /* read before it is made: nodes out of order */
        g = pv_graph_create();
        x = in(g, "x", 4, 8);
        s = state ? pv_store(g, "late", pv_state(g, "s", PV_F32, 4, 8), x, 0) : pv_silu(g, "late", x);
        keep(pv_gelu(g, "early", s));
        pv_node *first = g->nodes[0];
        g->nodes[0] = g->nodes[1];
        g->nodes[1] = first;
        CHECK_STATUS(placed(&g), PV_E_ARG);
        CHECK_TEXT("'early' reads 'late', which no node before it makes");
    }
}

static void nowhere(void)
{
    ready r;
    pv_graph *g = pv_graph_create();
    pv_tensor *x = in(g, "x", 4, 8);
    pv_gelu(g, "pruned", x);
    pv_state(g, "unused", PV_F32, 4, 8);
    in(g, "spare", 1, 3);
    keep(pv_silu(g, "y", x));
    float v[32] = {0};
    if (ready_make(&r, g, NULL, NULL, 1, NULL)) {
        CHECK_STATUS(pv_instance_read(r.inst, pv_graph_find(g, "pruned"), 0, v, 4), PV_E_SHAPE);
        CHECK_TEXT("'pruned' has 0 bytes that can be reached, asked for 4 at 0");
        CHECK_STATUS(pv_instance_write(r.inst, pv_graph_find(g, "unused"), 0, v, 4), PV_E_SHAPE);
        CHECK_OK(pv_instance_write(r.inst, pv_graph_find(g, "spare"), 0, v, 12)); /* an input nobody reads may be written */
        CHECK_STATUS(pv_instance_write(r.inst, pv_graph_find(g, "spare"), 8, v, 8), PV_E_SHAPE);
        CHECK_STATUS(pv_instance_read(r.inst, pv_graph_find(g, "y"), SIZE_MAX, v, 2), PV_E_SHAPE);
    }
    ready_drop(&r);
}

/* Layers of the expert apart: then there are products fused with what follows. */
static bool no_layers(const pv_backend *be, const pv_node *n)
{
    (void)be;
    return n->op != PV_OP_EXPERT_BLOCK;
}

static bool hold_activations(void *user, const pv_tensor *t)
{
    *(int *)user += 1;
    return strstr(t->name, ".mlp_") != NULL;
}

/* What is held can be read, has bytes of its own, and leaves the nodes as they are: fused ones stay fused. */
static void held(void)
{
    mock m;
    pv_config c;
    pv_plan *plain = NULL, *holding = NULL;
    int asked = 0, n_held = 0;
    pv_graph *g = tiny(&c), *same = tiny(&c);
    pv_backend *be = mock_claiming(&m, no_layers);
    CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.steps = 10}, &plain));
    CHECK_OK(pv_plan_create(be, &same, &(pv_plan_params){.steps = 10, .hold = hold_activations, .hold_user = &asked}, &holding));
    if (!plain || !holding)
        return;
    const pv_graph *a = plain->graph, *b = holding->graph;
    size_t end = 0;
    bool same_nodes = CHECK(a->n_nodes == b->n_nodes && asked >= b->n_nodes && count_op(b, PV_OP_LINEAR_GATED) > 0);
    for (int i = 0; same_nodes && i < b->n_nodes; i++) {
        same_nodes = CHECK(a->nodes[i]->op == b->nodes[i]->op && !strcmp(a->nodes[i]->name, b->nodes[i]->name));
        if (!same_nodes)
            break;
        for (int k = 0; k < b->nodes[i]->n_out; k++) {
            const pv_tensor *was = a->nodes[i]->out[k], *t = b->nodes[i]->out[k];
            bool wanted = hold_activations(&asked, t);
            CHECK(was->usage == t->usage || wanted);
            CHECK(!wanted || (t->usage == PV_STATE && t->offset != PV_NOWHERE));
            CHECK(!wanted || t->offset + pv_tensor_bytes(t) <= holding->program.bytes[PV_STATE]);
            for (int j = 0; wanted && j < b->n_tensors; j++) {
                const pv_tensor *o = b->tensors[j];
                if (o != t && o->usage == PV_STATE && !o->base && o->offset != PV_NOWHERE)
                    CHECK(o->offset >= t->offset + pv_tensor_bytes(t) || t->offset >= o->offset + pv_tensor_bytes(o));
            }
            n_held += wanted;
            end += wanted ? pv_tensor_bytes(t) : 0;
        }
    }
    CHECK(n_held > 5 && holding->program.bytes[PV_STATE] >= plain->program.bytes[PV_STATE] + end);
    pv_plan_destroy(&plain);
    pv_plan_destroy(&holding);
}

int main(void)
{
    double worst = 1, sum = 0;
    for (int i = 0; i < 150; i++) {
        double ratio = random_graph(5 + dice(60));
        worst = fmax(worst, ratio);
        sum += ratio;
    }
    printf("scratch over the most that lives at once, 150 random graphs: mean %.3f, worst %.3f\n", sum / 150, worst);
    versions();
    nowhere();
    held();

    pv_config c;
    pv_plan *plan = NULL;
    pv_graph *g = tiny(&c);
    CHECK_OK(pv_plan_create(cpu(), &g, &(pv_plan_params){.steps = 10}, &plan));
    if (plan)
        printf("tiny Pi0.5: io %zu, state %zu, scratch %zu, weights %zu bytes\n", plan->program.bytes[PV_IO],
               plan->program.bytes[PV_STATE], plan->program.bytes[PV_SCRATCH], plan->weight_bytes);
    pv_plan_destroy(&plan);
    return test_done();
}
