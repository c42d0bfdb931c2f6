/* cuda_faults.c - the CUDA backend where something fails: every call of the runtime and of cuBLASLt in turn, machines on
 * which it cannot work, a device that breaks, memory that is too small. Each time a status and words, nothing left behind,
 * and the next life works. The runtime is the one in cuda_fake/: this runs without GPU and driver. */
#include "backends/cuda/cuda.h"
#include "base/memory.h"
#include "cuda_fake/fake.h"
#include "plan/plans.h"

#include <pthread.h>

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

static pv_status life_begin_on(life *l, const pv_backend_params *on)
{
    static const pv_weight_source source = {NULL, zeros, always_f32, anywhere};
    *l = (life){NULL};
    pv_graph *g = small_graph();
    pv_plan_params params = {.steps = STEPS};
    pv_status st = pv_recipe_find("bf16", &params.recipe);
    if (!st)
        st = pv_graph_status(g);
    if (!st)
        st = pv_backend_open("cuda", on, &l->be);
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

static pv_status life_begin(life *l, const char *device)
{
    return life_begin_on(l, &(pv_backend_params){.device = device});
}

static pv_status life_run(life *l)
{
    float x[ROWS * WIDTH] = {1, 2, 3}, got[ROWS * WIDTH] = {0}, came[ROWS * WIDTH] = {0};
    double node_ms[64] = {0};
    pv_run_timing timing = {.node_ms = node_ms}, whole = {.node_ms = node_ms};
    const pv_tensor *state = pv_graph_find(l->plan->graph, "state");
    CHECK(l->plan->graph->n_nodes < 64);
    pv_status st = pv_instance_write(l->inst, state, 0, x, sizeof x);
    if (!st)
        st = pv_instance_run(l->inst, (pv_run){.stages = 15, .n_steps = STEPS, .result = state, .to = came}, NULL);
    CHECK(st || !memcmp(x, came, sizeof x));
    if (!st) /* begun, and the rest comes behind a write; or does not come */
        st = pv_instance_begin(l->inst, 1u << PV_STAGE_VISION);
    if (!st)
        st = pv_instance_write(l->inst, state, 0, x, sizeof x);
    if (!st)
        st = pv_instance_run(l->inst, (pv_run){.stages = 15, .n_steps = STEPS, .result = state, .to = came}, &whole);
    if (!st)
        st = pv_instance_begin(l->inst, 1u << PV_STAGE_VISION);
    st = pv_instance_abandon(l->inst, st);
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

static int left_out; /* the log said that a kernel is */

static void listen(void *user, pv_log_level level, const char *text)
{
    (void)user;
    left_out += level == PV_LOG_WARN && strstr(text, "is left out, several do its work") != NULL;
}

/* Calls that may fail without a status: those which give things back, the trying of one of several algorithms, and asking
 * for a kernel that is then left out. */
static bool may_pass(const char *call)
{
    static const char *const names[] = {"cudaFree",         "cudaFreeHost",  "cudaStreamDestroy",
                                        "cudaEventDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy",
                                        "cublasLtDestroy",  "cudaSetDevice", "cudaStreamSynchronize"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(call, names[i]))
            return true;
    return left_out || (!strncmp(call, "cublasLtM", 9) && !fake.in_capture);
}

/* What the words have to hold: the call's name, or what it was for where the name says less. After a sticky failure that
 * could pass, any call may be the first to tell. */
static const char *word(void)
{
    const char *call = fake.failed;
    return !strcmp(call, "cudaLaunchKernelExC")                                        ? "kernel"
           : !strcmp(call, "cudaHostAlloc") && fake.error == cudaErrorMemoryAllocation ? "out of page-locked memory"
           : !strcmp(call, "cudaMalloc") && fake.error == cudaErrorMemoryAllocation    ? "out of device memory"
           : fake.sticky && may_pass(call)                                             ? "cu"
           : !strncmp(call, "cublasLt", 8)                                             ? "cublasLt"
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
    left_out = 0;
    fake.fail_at = n;
    fake.error = f->error;
    fake.sticky = f->sticky;
}

static bool said(pv_status st, const fault *f)
{
    const char *call = fake.failed;
    bool library = !strncmp(call, "cublasLt", 8);
    bool ok = CHECK(st == PV_E_DEVICE || st == PV_E_MEMORY || st == PV_E_UNAVAILABLE);
    ok &= CHECK_TEXT(word());
    ok &= library || CHECK_TEXT(f->text);
    if (f->error == cudaErrorMemoryAllocation)
        ok &= CHECK(st != PV_E_DEVICE) && (st != PV_E_MEMORY || !strcmp(call, "cudaHostAlloc") || CHECK_TEXT(" are free"));
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
    bool ok = st ? CHECK(fake.failed) && said(st, f) : CHECK(!fake.failed || left_out || strcmp(fake.failed, "cudaSetDevice"));
    if (st && l.inst) { /* what stays, stays; what does not, leaves the instance as good as before */
        pv_status again = life_run(&l);
        ok &= CHECK_STATUS(again, fake.broken[0] ? PV_E_DEVICE : PV_OK);
        if (fake.broken[0])
            ok &= CHECK_TEXT(word()) && CHECK_TEXT("started anew");
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

/* What may be read before the kernel in front has ended: what no kernel writes. One sets the step. */
static void given(void)
{
    life l;
    fake_reset();
    if (CHECK_OK(life_begin(&l, NULL)) && CHECK(l.plan->program.step)) {
        const pv_graph *g = l.plan->graph;
        for (int i = 0; i < g->n_tensors; i++)
            CHECK(cuda_given(g->tensors[i]) == (!g->tensors[i]->producer && g->tensors[i] != l.plan->program.step &&
                                                g->tensors[i]->usage < PV_STATE));
    }
    life_end(&l);
}

/* Measuring nodes runs once more, and the state is as the run left it, whatever fails on the way. And an error that
 * somebody else left behind is nobody's. */
static void measuring(void)
{
    life l;
    fake_reset();
    CHECK_OK(life_begin(&l, NULL));
    const pv_tensor *state = pv_graph_find(l.plan->graph, "state");
    float x[ROWS * WIDTH] = {3, 2, 1}, got[ROWS * WIDTH];
    double node_ms[64];
    CHECK_OK(pv_instance_write(l.inst, state, 0, x, sizeof x));
    fake.error = cudaErrorUnknown;
    for (long n = 1; n < 1000; n++) {
        fake.failed = NULL;
        fake.fail_at = n;
        pv_status st = pv_instance_run(l.inst, (pv_run){.stages = 15, .n_steps = STEPS}, &(pv_run_timing){.node_ms = node_ms});
        bool met = fake.failed != NULL;
        fake.fail_at = 0;
        CHECK_STATUS(st, met && !may_pass(fake.failed) ? PV_E_DEVICE : st);
        CHECK_OK(pv_instance_read(l.inst, state, 0, got, sizeof got));
        if (!CHECK(!memcmp(x, got, sizeof x)) || !met)
            break;
    }
    CHECK(!fake.failed);
    CHECK(cudaSetDevice(99) != cudaSuccess);
    CHECK_OK(pv_instance_run(l.inst, (pv_run){.stages = 15, .first_step = 1, .n_steps = 1}, NULL));
    life_end(&l);
    CHECK(fake.live == 0 && fake.misused == 0);
}

/* ---- machines on which it cannot work ---- */

static void no_way(pv_status want, const char *words)
{
    pv_backend *be = (pv_backend *)&be;
    pv_status st = pv_backend_open("cuda", NULL, &be);
    if (!CHECK_STATUS(st, want) || !CHECK_TEXT(words) || !CHECK(!be && fake.live == 0))
        printf("    where \"%s\" was expected\n", words);
    fake_reset();
    healthy(NULL);
}

static void machines(void)
{
    int n = 1;
    fake_reset();
    fake.driver = 0;
    CHECK_STATUS(pv_devices("cuda", &(pv_device_info){0}, &n), PV_E_UNAVAILABLE);
    CHECK_TEXT("no NVIDIA driver is installed");
    no_way(PV_E_UNAVAILABLE, "no NVIDIA driver is installed");
    fake.driver = 12080;
    no_way(PV_E_UNAVAILABLE, "the NVIDIA driver is made for CUDA 12.8, this backend for CUDA 13: a newer driver is needed");
    fake.devices = 0;
    no_way(PV_E_UNAVAILABLE, "there is no NVIDIA GPU that this process may use");
    fake.count_error = cudaErrorNoDevice;
    no_way(PV_E_UNAVAILABLE, "there is no NVIDIA GPU that this process may use");
    fake.count_error = cudaErrorInsufficientDriver;
    no_way(PV_E_UNAVAILABLE, "the NVIDIA driver does not start: cudaGetDeviceCount");
    fake.major = 7;
    fake.minor = 5;
    no_way(PV_E_UNAVAILABLE, "device 0 (Fake GPU 0) has compute capability 7.5, 8.0 is needed");
    fake.no_code = true;
    no_way(PV_E_UNAVAILABLE, "no code for compute capability 9.0 of device 0 (Fake GPU 0); it was made for nothing");

    /* A device that does not answer is in nobody's way. */
    fake.fail_at = 1;
    fake.only = "cudaGetDeviceProperties";
    fake.error = cudaErrorUnknown;
    healthy("1");
    CHECK(fake.failed);
    fake.always = true;
    fake.only = "cudaGetDeviceProperties";
    fake.error = cudaErrorUnknown;
    pv_device_info info[FAKE_DEVICES];
    n = FAKE_DEVICES;
    memset(info, 0, sizeof info);
    CHECK_OK(pv_devices("cuda", info, &n));
    CHECK(n == FAKE_DEVICES && !strcmp(info[1].name, "does not answer") && strstr(info[1].unknown, "cudaGetDeviceProperties"));
    no_way(PV_E_UNAVAILABLE, "device 0: cudaGetDeviceProperties");
}

/* ---- cuBLASLt ---- */

static void refuse(const char *call, cudaError_t error, pv_status want, const char *words)
{
    life l;
    fake_reset();
    fake.only = call;
    fake.error = error;
    fake.always = true;
    CHECK_STATUS(life_begin(&l, NULL), want);
    CHECK(!want || (CHECK_TEXT("linear '") && CHECK_TEXT(words)));
    life_end(&l);
    CHECK(fake.live == 0 && fake.misused == 0);
    fake_reset();
    healthy(NULL);
}

static void hush(void *user, pv_log_level level, const char *text)
{
    *(int *)user += level == PV_LOG_WARN && strstr(text, "cuBLASLt has no algorithm for") != NULL;
}

static void products(void)
{
    int warned = 0;
    refuse("cublasLtMatmul", cudaErrorUnknown, PV_E_DEVICE, "cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED");
    refuse("cublasLtMatmul", cudaErrorMemoryAllocation, PV_E_MEMORY, "cublasLtMatmul: CUBLAS_STATUS_ALLOC_FAILED");
    refuse("cublasLtMatmulAlgoGetHeuristic", cudaErrorUnknown, PV_E_DEVICE, "cublasLtMatmulAlgoGetHeuristic: CUBLAS");
    pv_set_log(hush, &warned, PV_LOG_WARN); /* a library without an algorithm is no failure */
    refuse("cublasLtMatmulAlgoGetHeuristic", cudaErrorNotSupported, PV_OK, "");
    refuse("cublasLtMatmul", cudaErrorNotSupported, PV_OK, "");
    CHECK(warned > 1);
    pv_set_log(listen, NULL, PV_LOG_WARN);
}

/* ---- a device that broke ---- */

static void refused(pv_status st)
{
    CHECK_STATUS(st, PV_E_DEVICE);
    CHECK_TEXT("device 0 failed before: cudaStreamSynchronize: an illegal memory access was encountered");
    CHECK_TEXT("started anew");
}

/* Every entry of the table says so; what gives back is safe; and nothing of the runtime is called any more. */
static void broken(void)
{
    life l;
    pv_buffer *buf = NULL, *more = NULL;
    pv_recording *rec = NULL;
    char bytes[64];
    size_t available, all;
    fake_reset();
    CHECK_OK(life_begin(&l, NULL));
    const pv_backend_vt *vt = l.be->vt;
    CHECK_OK(vt->alloc(l.be, sizeof bytes, PV_IO, &buf));
    fake.fail_at = 1;
    fake.only = "cudaStreamSynchronize";
    fake.error = cudaErrorIllegalAddress;
    fake.sticky = true;
    CHECK_STATUS(vt->read(l.be, buf, 0, bytes, sizeof bytes), PV_E_DEVICE);
    CHECK_TEXT("cudaStreamSynchronize: an illegal memory access was encountered (cudaErrorIllegalAddress)");
    long calls = fake.calls;
    pv_run run = {.stages = 15, .n_steps = STEPS};
    refused(vt->describe(l.be, &(pv_device_info){0}));
    refused(vt->alloc(l.be, 16, PV_IO, &more));
    refused(vt->room(l.be, &available, &all));
    refused(vt->write(l.be, buf, 0, bytes, sizeof bytes));
    refused(vt->read(l.be, buf, 0, bytes, sizeof bytes));
    refused(vt->record(l.be, &l.plan->program, &l.inst->buffers, &rec));
    refused(vt->submit(l.inst->recording, &run));
    refused(vt->wait(l.inst->recording, &(pv_run_timing){0}));
    refused(life_run(&l));
    CHECK(!more && !rec);
    vt->release(l.be, buf);
    pv_instance_destroy(&l.inst);
    pv_weights_destroy(&l.weights);
    CHECK(fake.calls == calls);
    life_end(&l);
    CHECK(pv_alloc_live() == 0);
    healthy("1");
    CHECK_STATUS(life_begin(&l, "0"), PV_E_DEVICE); /* the same one: CUDA itself refuses */
    CHECK_TEXT("cudaSetDevice: an illegal memory access was encountered");
    CHECK_TEXT("started anew");
    life_end(&l);
    fake_reset(); /* a new process */
    healthy("0");
}

/* ---- memory ---- */

static void little_memory(void)
{
    life l;
    fake_reset();
    healthy(NULL);
    size_t enough = fake.peak;
    fake_reset();
    for (size_t capacity = 0; capacity <= enough; capacity += capacity < 32768 ? 512 : enough / 64) {
        fake.capacity = capacity;
        pv_status st = life_begin(&l, NULL);
        if (!st)
            st = life_run(&l);
        life_end(&l);
        CHECK(fake.live == 0 && pv_alloc_live() == 0);
        if (capacity == enough)
            break;
        char total[64];
        snprintf(total, sizeof total, " of %zu are free", capacity);
        if (!CHECK_STATUS(st, PV_E_MEMORY) || !CHECK_TEXT("out of device memory: ") ||
            !CHECK_TEXT(" bytes are needed for ") || !CHECK_TEXT(total) || (l.plan && !CHECK_TEXT("large.weight 16.0 KiB")))
            printf("    with %zu bytes\n", capacity);
    }
    fake.capacity = enough;
    healthy(NULL);
    fake.capacity = 100;
    CHECK_STATUS(life_begin(&l, NULL), PV_E_MEMORY);
    CHECK_TEXT("weight 'small.weight': out of device memory: 256 bytes are needed for a weight, 100 of 100 are free; "
               "the largest of what the plan takes: large.weight 16.0 KiB, small.weight 0.2 KiB, small.bias 0.0 KiB");
    life_end(&l);
}

/* ---- sessions ---- */

typedef struct robot {
    pv_backend *be;
    pv_session *session;
} robot;

static pv_model *model;
static pv_model_info info;

static pv_status robot_begin(robot *r, const char *device)
{
    *r = (robot){NULL};
    pv_status st = pv_backend_open("cuda", &(pv_backend_params){.device = device}, &r->be);
    return st ? st : pv_session_create(model, r->be, &(pv_session_params){.recipe = "bf16", .max_steps = 2}, &r->session);
}

/* The fake computes nothing: the actions are the noise. */
static pv_status robot_act(robot *r)
{
    static uint8_t pixels[64 * 64 * 3];
    enum { MOST = 4096 };
    static float noise[MOST], actions[MOST], model_actions[MOST];
    size_t n = (size_t)(info.horizon * info.model_dim);
    pv_image image = {.camera = info.camera[0], .pixels = pixels, .width = 64, .height = 64};
    pv_observation seen = {.images = &image, .n_images = 1, .tokens = (int32_t[]){2, 17, 99}, .n_tokens = 3};
    pv_infer_params params = {.noise = noise, .steps = 3, .model_actions = model_actions};
    CHECK(n <= MOST);
    for (size_t i = 0; i < n; i++)
        noise[i] = (float)i / 1024;
    memset(model_actions, 0, sizeof model_actions);
    pv_status st = pv_session_infer(r->session, &seen, &params, actions); /* more steps than there are tables for */
    CHECK(st ? model_actions[1] == 0 : !memcmp(model_actions, noise, n * sizeof *noise));
    if (st)
        return st;
    params.steps = 2; /* in one run */
    memset(model_actions, 0, sizeof model_actions);
    st = pv_session_infer(r->session, &seen, &params, actions);
    CHECK(st ? model_actions[1] == 0 : !memcmp(model_actions, noise, n * sizeof *noise));
    return st;
}

static void robot_end(robot *r)
{
    pv_session_destroy(&r->session);
    pv_backend_close(&r->be);
}

static void robot_healthy(const char *device)
{
    robot r;
    int live = fake.live;
    if (CHECK_OK(robot_begin(&r, device)) && CHECK_OK(robot_act(&r)))
        CHECK_OK(robot_act(&r));
    robot_end(&r);
    CHECK(fake.live == live && fake.misused == 0);
}

static bool robot_fault(const fault *f, long n)
{
    robot r;
    arm(f, n);
    pv_status st = robot_begin(&r, NULL);
    if (!st)
        st = robot_act(&r);
    bool ok = st ? said(st, f) : CHECK(!fake.failed || left_out || strcmp(fake.failed, "cudaSetDevice"));
    if (st && r.session) {
        ok &= CHECK_STATUS(robot_act(&r), fake.broken[0] ? PV_E_DEVICE : PV_OK);
        pv_session *second = NULL;
        ok &= CHECK_STATUS(pv_session_create(model, r.be, NULL, &second), fake.broken[0] ? PV_E_DEVICE : PV_OK);
        pv_session_destroy(&second);
    }
    robot_end(&r);
    ok &= CHECK(!fake.failed || st || may_pass(fake.failed));
    ok &= CHECK((fake.live == 0 || fake.broken[0]) && fake.misused == 0);
    bool met = fake.failed != NULL;
    if (!ok)
        printf("    session, %s, call %ld (%s): %s\n", f->text, n, met ? fake.failed : "none", st ? pv_error_text() : "ok");
    if (met && fake.broken[0])
        robot_healthy("1");
    return met;
}

/* Calls one by one at first, then with growing steps: there are thousands. */
static void sessions(void)
{
    CHECK_OK(pv_model_load("synth:tiny", NULL, &model));
    CHECK_OK(pv_model_describe(model, &info));
    fake_reset();
    robot_healthy(NULL);
    printf("a session: %ld calls\n", fake.calls);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        for (long n = 1; test_failed < 20 && robot_fault(&faults[i], n); n += 1 + n / 16)
            ;
    robot r;
    fake_reset();
    CHECK_OK(robot_begin(&r, NULL));
    robot_end(&r);
    size_t enough = fake.peak;
    for (size_t part = 0; part < 16; part++) {
        fake_reset();
        fake.capacity = enough * part / 16;
        CHECK_STATUS(robot_begin(&r, NULL), PV_E_MEMORY);
        CHECK_TEXT("out of device memory: ");
        CHECK_TEXT("the largest of what the plan takes: ");
        CHECK_TEXT(" KiB, ");
        CHECK(fake.live == (r.be ? 2 : 0)); /* its stream and cuBLASLt's handle */
        robot_end(&r);
    }
    fake_reset();
    fake.capacity = 4096; /* asked before anything is loaded or even allocated */
    CHECK_STATUS(robot_begin(&r, NULL), PV_E_MEMORY);
    CHECK_TEXT("out of device memory: the plan needs ");
    CHECK_TEXT(" bytes, 4096 of 4096 are free");
    CHECK(fake.peak == 0);
    robot_end(&r);
    fake.integrated = true; /* what is free is not known before it is asked for */
    CHECK_STATUS(robot_begin(&r, NULL), PV_E_MEMORY);
    CHECK_TEXT("weight 'paligemma");
    robot_end(&r);
    fake.integrated = false;
    fake.capacity = enough;
    CHECK_OK(robot_begin(&r, NULL));
    CHECK_STATUS(robot_act(&r), PV_E_MEMORY); /* one camera and a short prompt take a plan of their own */
    CHECK_STATUS(robot_act(&r), PV_E_MEMORY);
    fake.capacity = 2 * enough;
    CHECK_OK(robot_act(&r));
    robot_end(&r);
    pv_model_free(&model);
    CHECK(pv_alloc_live() == 0);
}

/* ---- copies on their way ---- */

/* Many more writes than there is room for on their way, and inputs written from their own place: what counts is what they were
 * given, however late it is fetched. */
static void in_flight(void)
{
    enum { N = 100001, PART = 3001, TIMES = 200 };
    static unsigned char want[N], came[N], part_of[PART];
    pv_backend *be = NULL;
    fake_reset();
    if (!CHECK_OK(pv_backend_open("cuda", NULL, &be)))
        return;
    for (int usage = PV_IO; usage <= PV_STATE; usage++) {
        pv_buffer *buf = NULL;
        if (!CHECK_OK(be->vt->alloc(be, N, (pv_usage)usage, &buf)))
            break;
        unsigned char *place = be->vt->map(be, buf);
        CHECK((place != NULL) == (usage == PV_IO));
        memset(want, 0, N);
        CHECK_OK(be->vt->write(be, buf, 0, want, N));
        for (int i = 0; i < TIMES; i++) {
            size_t at = (size_t)i * 7919 % (N - PART);
            unsigned char *from = place && i % 2 ? place + at : part_of;
            memset(from, i + 1, PART);
            memset(want + at, i + 1, PART);
            CHECK_OK(be->vt->write(be, buf, at, from, PART));
            memset(part_of, 0, PART); /* it was taken */
        }
        CHECK_OK(be->vt->read(be, buf, 0, came, N));
        CHECK(!memcmp(want, came, N));
        be->vt->release(be, buf);
    }
    pv_backend_close(&be);
    CHECK(fake.live == 0 && fake.misused == 0);
}

/* ---- products of e4m3: where there are tensor cores for them, and nothing else in their place ---- */

static pv_status of_e4m3(int major, int minor, int64_t width, pv_op *op)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *one = pv_input(g, "scale", PV_F32, 2, (int64_t[]){1, 1}, NULL);
    pv_tensor *x = pv_input(g, "x", PV_E4M3, 2, (int64_t[]){ROWS, width}, NULL);
    pv_tensor *w = pv_input(g, "w", PV_E4M3, 2, (int64_t[]){32, width}, NULL);
    keep(pv_linear_scaled(g, "product", x, w, one, one));
    pv_backend *be = NULL;
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    fake.major = major;
    fake.minor = minor;
    pv_status st = pv_backend_open("cuda", NULL, &be);
    if (!st)
        st = pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan);
    *op = st ? PV_OP_COUNT : plan->graph->nodes[0]->op;
    if (!st)
        st = pv_instance_create(plan, NULL, &inst);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    pv_graph_destroy(&g);
    pv_backend_close(&be);
    return st;
}

static void few_bits(void)
{
    pv_op op;
    fake_reset();
    CHECK_OK(of_e4m3(8, 9, 64, &op));
    CHECK(op == PV_OP_LINEAR_SCALED);
    CHECK_STATUS(of_e4m3(8, 7, 64, &op), PV_E_NO_KERNEL);
    CHECK_TEXT("no kernel for: linear (f32, as 'product/linear");
    CHECK_STATUS(of_e4m3(9, 0, 72, &op), PV_E_NO_KERNEL); /* no whole 16 bytes */
    fake_reset();
    fake.only = "cublasLtMatmul";
    fake.fail_at = 1;
    fake.always = true;
    fake.error = cudaErrorNotSupported;
    CHECK_STATUS(of_e4m3(9, 0, 64, &op), PV_E_NO_KERNEL);
    CHECK_TEXT("cuBLASLt has no algorithm for 4 x 32 x 64 in e4m3");
    CHECK(op == PV_OP_LINEAR_SCALED && fake.live == 0 && fake.misused == 0);
    fake_reset();
}

/* ---- a part of a device: the fake's has 4 multiprocessors, in groups of 2 ---- */

/* The driver's errors mean what the runtime's do. Only one that is neither lack of memory nor stays is told as something that
 * the device cannot do, and that when it is opened. */
static void part_fault(const fault *f, bool opening)
{
    life l;
    bool memory = f->error == cudaErrorMemoryAllocation;
    arm(f, opening ? 1 : 2);
    fake.only = opening ? "cuGreenCtxCreate" : "cudaStreamCreateWithFlags";
    CHECK_STATUS(life_begin_on(&l, &(pv_backend_params){.sms = 2}), memory                ? PV_E_MEMORY
                                                                    : opening && !f->sticky ? PV_E_UNAVAILABLE
                                                                                            : PV_E_DEVICE);
    CHECK_TEXT(opening ? "a part of the device cannot be had: cuGreenCtxCreate: " : "cuGreenCtxStreamCreate: ");
    CHECK_TEXT(f->text);
    CHECK_TEXT(f->sticky ? "started anew" : memory ? " bytes of device memory are free" : "cu");
    CHECK(fake.failed && !l.be == opening && (strstr(pv_error_text(), "cannot be had") != NULL) == opening);
    if (l.be)
        CHECK_STATUS(pv_instance_create(l.plan, l.weights, &l.inst), f->sticky ? PV_E_DEVICE : PV_OK);
    life_end(&l);
    CHECK((fake.live == 0 || f->sticky) && fake.misused == 0 && pv_alloc_live() == 0);
}

static void part(void)
{
    pv_backend *be = NULL;
    pv_device_info device = {0};
    fake_reset();
    CHECK_STATUS(pv_backend_open("cuda", &(pv_backend_params){.sms = 5}, &be), PV_E_UNAVAILABLE);
    CHECK_TEXT("5 multiprocessors are asked for, device 0 has 4");
    if (CHECK_OK(pv_backend_open("cuda", &(pv_backend_params){.sms = 1}, &be)))
        CHECK_OK(pv_backend_device(be, &device));
    CHECK(device.sms == 2);
    pv_backend_close(&be);
    CHECK(fake.live == 0);
    static const char *const calls[] = {"cudaGetDriverEntryPointByVersion", "cuDeviceGet", "cuDeviceGetDevResource",
                                        "cuDevSmResourceSplitByCount", "cuDevResourceGenerateDesc", "cuGreenCtxCreate",
                                        "cudaStreamCreateWithFlags"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        fake_reset();
        fake.only = calls[i];
        fake.fail_at = 1;
        fake.error = cudaErrorNotSupported;
        CHECK_STATUS(pv_backend_open("cuda", &(pv_backend_params){.sms = 2}, &be), PV_E_UNAVAILABLE);
        CHECK(be == NULL && fake.live == 0 && fake.misused == 0 && fake.failed);
        CHECK_TEXT("a part of the device cannot be had: ");
    }
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        part_fault(&faults[i], true);
        part_fault(&faults[i], false); /* recording */
    }
    fake_reset();
}

/* ---- what is asked of a device is asked of the one that was opened, whoever asks ---- */

static const pv_node layer = {.op = PV_OP_EXPERT_BLOCK, .n_out = 3};

static void *ask(void *user)
{
    pv_backend *be = user;
    return be->vt->claims(be, &layer) ? user : NULL; /* this thread has the first device */
}

static bool asked_elsewhere(pv_backend *be)
{
    pthread_t thread;
    void *yes = NULL;
    return CHECK(!pthread_create(&thread, NULL, ask, be)) && !pthread_join(thread, &yes) && yes != NULL;
}

static void other_device(void)
{
    pv_backend *be = NULL;
    fake_reset();
    left_out = 0;
    fake.clusters[0] = 1;
    if (CHECK_OK(pv_backend_open("cuda", &(pv_backend_params){.device = "1"}, &be)))
        CHECK(asked_elsewhere(be) && left_out == 0);
    fake.clusters[0] = 2;
    fake.clusters[1] = 1;
    if (be) {
        CHECK(!asked_elsewhere(be) && left_out == 1);
        CHECK(!asked_elsewhere(be) && left_out == 1); /* told once */
    }
    pv_backend_close(&be);
    CHECK(fake.live == 0 && fake.misused == 0);
    fake_reset();
}

int main(void)
{
    pv_set_log(listen, NULL, PV_LOG_WARN);
    setenv("PIVOT_CACHE", "", 1); /* nothing of the stand-in is to be kept on this machine's disk */
    fake_reset();
    healthy(NULL);
    if (test_failed) /* all else would fail for that one reason */
        return test_done();
    machines();
    each_call();
    given();
    measuring();
    products();
    broken();
    little_memory();
    sessions();
    in_flight();
    few_bits();
    part();
    other_device();
    fake_reset();
    return test_done();
}
