/* rates.c - see rates.h. Each graph is made larger until a run of it takes long enough to be told from what starts it; the
 * best of some runs counts. */
#include "rates.h"
#include "base/clock.h"
#include "base/memory.h"
#include "graph/build.h"
#include "plan/instance.h"

#define WIDTH      4096
#define COPIES     4
#define FIRST_ROWS (1 << 12) /* 64 MiB of f32 */
#define LAST_ROWS  (1 << 16)
#define FIRST_SIDE 256
#define LAST_SIDE  8192
#define SPENT_MS   50.0
#define MOST_RUNS  50

static pv_tensor *copies(pv_graph *g, int64_t rows)
{
    pv_tensor *x = pv_state(g, "x", PV_F32, rows, WIDTH);
    for (int i = 0; i < COPIES; i++)
        x = pv_scale(g, NULL, x, 1.0f);
    return x;
}

static pv_tensor *product(pv_graph *g, int64_t side, pv_dtype dtype)
{
    pv_tensor *y =
        pv_linear(g, "y", pv_state(g, "x", dtype, side, side), pv_state(g, "w", dtype, side, side), NULL);
    if (y)
        y->dtype = dtype;
    return y;
}

/* Numbers of both signs: what a device draws, and so its clock, depends on the bits that change. */
static pv_status fill(pv_instance *inst, const pv_tensor *t)
{
    enum { N = 1 << 16 };
    size_t bytes = pv_tensor_bytes(t), part = pv_dtype_bytes(t->dtype, N);
    float *wide = pv_alloc(sizeof *wide * N);
    char *data = pv_alloc(part);
    pv_status st = wide && data ? PV_OK : PV_E_MEMORY;
    uint32_t seed = 1;
    for (int i = 0; !st && i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        wide[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    if (!st)
        pv_from_f32(data, wide, t->dtype, N);
    for (size_t at = 0; !st && at < bytes; at += part)
        st = pv_instance_write(inst, t, at, data, bytes - at < part ? bytes - at : part);
    pv_free(wide);
    pv_free(data);
    return st;
}

static pv_status fastest(pv_instance *inst, double *ms)
{
    pv_status st = PV_OK;
    double start = pv_now_ms();
    for (int i = 0; !st && i < MOST_RUNS && (i < 3 || pv_now_ms() - start < SPENT_MS); i++) {
        pv_run_timing t = {{0}};
        st = pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, &t);
        if (!i || t.run_ms < *ms)
            *ms = t.run_ms;
    }
    return st;
}

/* The graph is taken. */
static pv_status time_graph(pv_backend *be, pv_graph *g, pv_tensor *out, double *ms)
{
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    if (out)
        out->output = true;
    pv_status st = pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan);
    if (!st)
        st = pv_instance_create(plan, NULL, &inst);
    for (int i = 0; !st && i < plan->graph->n_tensors; i++)
        if (plan->graph->tensors[i]->usage == PV_STATE && !plan->graph->tensors[i]->producer)
            st = fill(inst, plan->graph->tensors[i]);
    if (!st)
        st = fastest(inst, ms);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    return st;
}

static pv_status measure_bytes(pv_backend *be, double *per_s)
{
    pv_status st = PV_OK;
    double ms = 0;
    for (int64_t rows = FIRST_ROWS; !st && rows <= LAST_ROWS && ms < 0.5; rows *= 4) {
        pv_graph *g = pv_graph_create();
        st = g ? time_graph(be, g, copies(g, rows), &ms) : PV_E_MEMORY;
        if (!st && ms > 0)
            *per_s = 2.0 * COPIES * (double)rows * WIDTH * sizeof(float) / ms * 1e3;
    }
    return *per_s > 0 ? PV_OK : st; /* no room for a larger one: the smaller counts */
}

static pv_status measure_flops(pv_backend *be, pv_dtype dtype, double *per_s)
{
    pv_status st = PV_OK;
    double ms = 0;
    for (int64_t side = FIRST_SIDE; !st && side <= LAST_SIDE && ms < 2; side *= 2) {
        pv_graph *g = pv_graph_create();
        st = g ? time_graph(be, g, product(g, side, dtype), &ms) : PV_E_MEMORY;
        if (!st && ms > 0)
            *per_s = 2.0 * (double)side * (double)side * (double)side / ms * 1e3;
    }
    return *per_s > 0 ? PV_OK : st;
}

pv_status rates_measure(pv_backend *be, pv_dtype dtype, rates *r)
{
    pv_status st = r->bytes_per_s > 0 ? PV_OK : measure_bytes(be, &r->bytes_per_s);
    return st || r->flops_per_s > 0 ? st : measure_flops(be, dtype, &r->flops_per_s);
}

double rates_floor_ms(const rates *r, double bytes, double flops)
{
    double moving = bytes / r->bytes_per_s * 1e3, computing = flops / r->flops_per_s * 1e3;
    return moving > computing ? moving : computing;
}
