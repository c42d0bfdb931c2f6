/* cuda_faults.c - the CUDA backend where something fails: every call of the runtime and of cuBLASLt in turn, machines on
 * which it cannot work, a device that breaks, memory that is too small. Each time a status and words, nothing left behind,
 * and the next life works. The runtime is the one in cuda_fake/: this runs without GPU and driver. */
#include "base/memory.h"
#include "cuda_fake/fake.h"
#include "plan/plans.h"

/* ---- a small life: opened, loaded, recorded, run and measured, read, closed ---- */

enum { ROWS = 4, WIDTH = 8, STEPS = 3 };

typedef struct life {
    pv_backend *be;
    pv_plan *plan;
    pv_weights *weights;
    pv_instance *inst;
} life;

static pv_status zeros(const void *user, const char *name, int64_t first, int64_t n, void *dst)
{
    (void)user, (void)name, (void)first;
    memset(dst, 0, sizeof(float) * (size_t)n);
    return PV_OK;
}

static pv_dtype always_f32(const void *user, const char *name)
{
    (void)user, (void)name;
    return PV_F32;
}

static uint64_t anywhere(const void *user, const char *name)
{
    (void)user, (void)name;
    return 0;
}

/* A product, with bias and GELU, before the loop; in it one that is added to the state, and the running step's row. */
static pv_graph *small_graph(void)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *w = pv_weight(g, 2, (int64_t[]){WIDTH, WIDTH}, "small.weight");
    pv_tensor *b = pv_weight(g, 1, (int64_t[]){WIDTH}, "small.bias");
    pv_tensor *large = pv_weight(g, 2, (int64_t[]){WIDTH, 64 * WIDTH}, "large.weight");
    pv_tensor *one = pv_input(g, "one", PV_F32, 1, (int64_t[]){1}, NULL);
    pv_tensor *y = pv_gelu(g, "gelu", pv_linear(g, "product", in(g, "x", ROWS, WIDTH), w, b));
    y = pv_add(g, "sum", y, pv_linear(g, "large", in(g, "wide", ROWS, 64 * WIDTH), large, NULL));
    y = keep(pv_mul(g, "factor", y, constant(g, "constant", ROWS, WIDTH)));
    g->stage = PV_STAGE_DENOISE;
    pv_tensor *state = pv_state(g, "state", PV_F32, ROWS, WIDTH);
    pv_tensor *each = pv_mul(g, "each_row", pv_linear(g, "loop", y, w, NULL), pv_input_per_step(g, "each", WIDTH));
    keep(pv_axpy(g, "next", state, one, each));
    return g;
}

static pv_status life_begin(life *l, const char *device)
{
    static const pv_weight_source source = {NULL, zeros, always_f32, anywhere};
    *l = (life){NULL};
    pv_graph *g = small_graph();
    pv_plan_params params = {.steps = STEPS};
    pv_status st = pv_recipe_find("bf16", &params.recipe);
    if (!st)
        st = pv_graph_status(g);
    if (!st)
        st = pv_backend_open("cuda", &(pv_backend_params){.device = device}, &l->be);
    if (!st)
        st = pv_backend_device(l->be, &(pv_device_info){0});
    if (!st)
        st = pv_plan_create(l->be, &g, &params, &l->plan);
    if (!st)
        st = pv_weights_create(l->be, &source, &l->weights);
    if (!st)
        st = pv_weights_load(l->weights, l->plan->graph, NULL, NULL);
    if (!st)
        st = pv_instance_create(l->plan, l->weights, &l->inst);
    pv_graph_destroy(&g);
    return st;
}

static pv_status life_run(life *l)
{
    float x[ROWS * WIDTH] = {1, 2, 3}, got[ROWS * WIDTH] = {0};
    double node_ms[64] = {0};
    pv_run_timing timing = {.node_ms = node_ms};
    const pv_tensor *state = pv_graph_find(l->plan->graph, "state");
    CHECK(l->plan->graph->n_nodes < 64);
    pv_status st = pv_instance_write(l->inst, state, 0, x, sizeof x);
    if (!st)
        st = pv_instance_run(l->inst, (pv_run){.stages = 15, .n_steps = STEPS}, NULL);
    if (!st)
        st = pv_instance_run(l->inst, (pv_run){.stages = 15, .first_step = 1, .n_steps = 2}, &timing);
    if (!st)
        st = pv_instance_read(l->inst, state, 0, got, sizeof got);
    CHECK(st || !memcmp(x, got, sizeof x)); /* the fake's kernels leave it as it is */
    return st;
}

static void life_end(life *l)
{
    pv_instance_destroy(&l->inst);
    pv_weights_destroy(&l->weights);
    pv_plan_destroy(&l->plan);
    pv_backend_close(&l->be);
}

static void healthy(const char *device)
{
    life l;
    int live = fake.live; /* a broken device keeps what was on it */
    if (CHECK_OK(life_begin(&l, device)))
        CHECK_OK(life_run(&l));
    life_end(&l);
    CHECK(fake.live == live);
}

/* ---- every call in turn ---- */

/* Calls that may fail without anybody being told: those which give things back, and the trying of one of several
 * algorithms. */
static bool may_pass(const char *call)
{
    static const char *const names[] = {"cudaFree",         "cudaStreamDestroy",    "cudaEventDestroy",
                                        "cudaGraphDestroy", "cudaGraphExecDestroy", "cublasLtDestroy",
                                        "cudaSetDevice",    "cudaStreamSynchronize"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(call, names[i]))
            return true;
    return !strncmp(call, "cublasLtM", 9);
}

/* What the words have to hold: the call's name, or what it was for where the name says less. After a sticky failure that
 * could pass, any call may be the first to tell. */
static const char *word(void)
{
    const char *call = fake.failed;
    return !strcmp(call, "cudaLaunchKernelExC")                                       ? "kernel"
           : !strcmp(call, "cudaMalloc") && fake.error == cudaErrorMemoryAllocation ? "out of device memory"
           : fake.sticky && may_pass(call)                                            ? "cu"
           : !strncmp(call, "cublasLt", 8)                                            ? "cublasLt"
                                                                                      : call;
}

typedef struct fault {
    cudaError_t error;
    bool sticky;
    const char *text;
} fault;

static const fault faults[] = {{cudaErrorInvalidValue, false, "the fake's error"},
                               {cudaErrorMemoryAllocation, false, "out of"},
                               {cudaErrorIllegalAddress, true, "an illegal memory access was encountered"}};

static void arm(const fault *f, long n)
{
    fake_reset();
    fake.fail_at = n;
    fake.error = f->error;
    fake.sticky = f->sticky;
}

static bool said(pv_status st, const fault *f)
{
    const char *call = fake.failed;
    bool library = !strncmp(call, "cublasLt", 8);
    bool ok = CHECK(st == PV_E_DEVICE || st == PV_E_MEMORY || st == PV_E_UNAVAILABLE);
    ok &= CHECK_TEXT(word()) & (library || CHECK_TEXT(f->text));
    if (f->error == cudaErrorMemoryAllocation)
        ok &= CHECK(st != PV_E_DEVICE);
    else
        ok &= CHECK(st != PV_E_MEMORY);
    return ok;
}

/* One life with the n-th call failing; false when it had fewer calls. */
static bool one_fault(const fault *f, long n)
{
    life l;
    arm(f, n);
    pv_status st = life_begin(&l, NULL);
    if (!st)
        st = life_run(&l);
    bool ok = st ? CHECK(fake.failed) && said(st, f) : true;
    if (st && l.inst) { /* what stays, stays; what does not, leaves the instance as good as before */
        pv_status again = life_run(&l);
        ok &= CHECK_STATUS(again, fake.broken[0] ? PV_E_DEVICE : PV_OK);
        if (fake.broken[0])
            ok &= CHECK_TEXT(word()) & CHECK_TEXT("started anew");
    }
    life_end(&l);
    ok &= CHECK(!fake.failed || st || may_pass(fake.failed));
    ok &= CHECK(fake.live == 0 || fake.broken[0]);
    ok &= CHECK(fake.misused == 0 && pv_alloc_live() == 0);
    bool met = fake.failed != NULL;
    if (!ok)
        printf("    %s, call %ld (%s): %s\n", f->text, n, met ? fake.failed : "none", st ? pv_error_text() : "ok");
    if (met && f->sticky && !(n % 16)) /* another device of this process, where CUDA lets it */
        healthy("1");
    if (!fake.broken[0] && !(n % 16)) { /* and the same one */
        fake.failed = NULL;
        fake.calls = 0;
        healthy(NULL);
    }
    return met;
}

static void each_call(void)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        long n = 1;
        while (test_failed < 20 && one_fault(&faults[i], n))
            n++;
        printf("%s: %ld calls\n", faults[i].text, n - 1);
        CHECK(n > 100);
    }
}

int main(void)
{
    fake_reset();
    healthy(NULL);
    each_call();
    fake_reset();
    return test_done();
}
