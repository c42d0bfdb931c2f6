/* plans.h - small graphs for the tests of the passes, and a way to run one pass after another by hand. */
#ifndef PV_TESTS_PLANS_H
#define PV_TESTS_PLANS_H

#include "graph/build.h"
#include "model/pi05.h"
#include "model/synthetic.h"
#include "plan/instance.h"
#include "tests/test.h"

static inline bool claims_all(const pv_backend *be, const pv_node *n)
{
    (void)be, (void)n;
    return true;
}

static inline bool claims_none(const pv_backend *be, const pv_node *n)
{
    (void)be, (void)n;
    return false;
}

/* A backend that can only be asked what it claims: enough for fuse and lower. */
typedef struct mock {
    pv_backend base;
    pv_backend_vt vt;
} mock;

static inline pv_backend *mock_claiming(mock *m, bool (*claims)(const pv_backend *, const pv_node *))
{
    m->vt = pv_cpu_backend;
    m->vt.name = "mock";
    m->vt.claims = claims;
    m->base.vt = &m->vt;
    return &m->base;
}

static inline pv_backend *cpu(void)
{
    static pv_backend *be;
    if (!be)
        CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 2}, &be));
    return be;
}

static inline void fill_floats(const char *name, int64_t n, float *dst)
{
    uint64_t fnv = pv_fnv1a64(name);
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)((double)(pv_hash(fnv, (uint64_t)i) >> 40) * 0x1p-23 - 1);
}

static inline pv_tensor *in(pv_graph *g, const char *name, int64_t rows, int64_t width)
{
    return pv_input(g, name, PV_F32, 2, (int64_t[]){rows, width}, NULL);
}

static inline pv_tensor *constant(pv_graph *g, const char *name, int64_t rows, int64_t width)
{
    float *data = malloc(sizeof *data * (size_t)(rows * width));
    fill_floats(name, rows * width, data);
    pv_tensor *t = pv_const(g, name, PV_F32, 2, (int64_t[]){rows, width}, data);
    free(data);
    return t;
}

static inline pv_tensor *keep(pv_tensor *t)
{
    if (t)
        t->output = true;
    return t;
}

static inline int count_op(const pv_graph *g, pv_op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->op == op;
    return n;
}

static inline const pv_node *node_named(const pv_graph *g, const char *name)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i]->name, name))
            return g->nodes[i];
    return NULL;
}

/* A plan made pass by pass, fused for `fuse_for` (NULL: not at all) but lowered and run on the CPU. */
typedef struct ready {
    pv_graph *graph;
    pv_plan plan;
    pv_instance *inst;
} ready;

static inline bool ready_make(ready *r, pv_graph *g, const pv_backend *fuse_for, const pv_recipe *recipe, int steps,
                              pv_weights *weights)
{
    size_t bytes[PV_USAGE_COUNT];
    *r = (ready){.graph = g};
    pv_prune(g);
    pv_fold(g);
    pv_hoist(g, steps);
    pv_apply_recipe(g, recipe);
    if (fuse_for)
        pv_fuse(g, fuse_for);
    pv_lower(g, cpu(), 0);
    pv_place(g, bytes);
    if (!CHECK_OK(pv_graph_status(g)))
        return false;
    r->plan = (pv_plan){.backend = cpu(), .graph = g, .program = {.graph = g, .step = g->step, .steps = steps}};
    for (int u = PV_WEIGHT + 1; u < PV_USAGE_COUNT; u++)
        r->plan.program.bytes[u] = bytes[u];
    if (weights && !CHECK_OK(pv_weights_load(weights, g, NULL, NULL)))
        return false;
    return CHECK_OK(pv_instance_create(&r->plan, weights, &r->inst));
}

static inline void ready_drop(ready *r)
{
    pv_instance_destroy(&r->inst);
    pv_graph_destroy(&r->graph);
}

static inline bool put_floats(ready *r, const char *name, const float *v, size_t n)
{
    const pv_tensor *t = pv_graph_find(r->graph, name);
    return CHECK(t) && CHECK_OK(pv_instance_write(r->inst, t, 0, v, n * sizeof *v));
}

static inline bool get_floats(ready *r, const char *name, float *v, size_t n)
{
    const pv_tensor *t = pv_graph_find(r->graph, name);
    return CHECK(t) && CHECK_OK(pv_instance_read(r->inst, t, 0, v, n * sizeof *v));
}

/* Floats by name's hash, pixels made of them; positions 0, 1, 2, ...; counts 5. */
static inline void ready_fill(ready *r)
{
    for (int i = 0; i < r->graph->n_tensors; i++) {
        const pv_tensor *t = r->graph->tensors[i];
        size_t n = (size_t)pv_elements(t), bytes = pv_tensor_bytes(t);
        if ((t->usage != PV_IO && t->usage != PV_STATE) || t->base || t->producer || t->offset == PV_NOWHERE)
            continue;
        float *wide = malloc(n * sizeof *wide);
        void *data = malloc(bytes);
        fill_floats(t->name, (int64_t)n, wide);
        if (t->dtype == PV_I32)
            for (size_t k = 0; k < n; k++)
                ((int32_t *)data)[k] = n == 1 ? 5 : (int32_t)k;
        else if (t->dtype == PV_U8)
            for (size_t k = 0; k < n; k++)
                ((uint8_t *)data)[k] = (uint8_t)(127.5f + 127.5f * wide[k]);
        else
            pv_from_f32(data, wide, t->dtype, n);
        CHECK_OK(pv_instance_write(r->inst, t, 0, data, bytes));
        free(data);
        free(wide);
    }
}

static inline void ready_run(ready *r, int n_steps)
{
    CHECK_OK(pv_instance_run(r->inst, (pv_run){.stages = (1u << PV_STAGE_COUNT) - 1, .n_steps = n_steps}, NULL));
}

/* The bytes of two tensors of the same name in two plans, whose rows both count in full. */
static inline bool same_bytes(ready *a, ready *b, const char *name)
{
    const pv_tensor *x = pv_graph_find(a->graph, name), *y = pv_graph_find(b->graph, name);
    if (!CHECK(x && y && x->dtype == y->dtype && pv_elements(x) == pv_elements(y)))
        return false;
    size_t n = pv_tensor_bytes(x);
    char *p = malloc(n), *q = malloc(n);
    bool ok = CHECK_OK(pv_instance_read(a->inst, x, 0, p, n)) && CHECK_OK(pv_instance_read(b->inst, y, 0, q, n)) &&
              CHECK(!memcmp(p, q, n));
    free(p);
    free(q);
    return ok;
}

static inline const pv_recipe *recipe(const char *name)
{
    const pv_recipe *r = NULL;
    CHECK_OK(pv_recipe_find(name, &r));
    return r;
}

/* The tiny Pi0.5, two cameras and 12 tokens. */
static inline pv_graph *tiny(pv_config *c)
{
    pv_graph *g = pv_graph_create();
    pv_config_tiny(c);
    pv_pi05_build(g, c, &(pv_pi05_shape){.views = 2, .tokens = 12});
    CHECK_OK(pv_graph_status(g));
    return g;
}

#endif
