/* cpu.c - the CPU as a backend: memory is the host's, a recording is a list of calls, the step is a loop over one. */
#define _GNU_SOURCE
#include "cpu.h"
#include "base/clock.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct cpu_backend {
    pv_backend base;
    pv_pool *pool;
    const cpu_vector *vector;
} cpu_backend;

struct pv_buffer {
    size_t bytes;
    char *data;
};

struct pv_recording {
    cpu_backend *be;
    const pv_program *prog;
    const pv_buffers *bufs;
    cpu_call *calls;
    double *node_ms; /* of the last run */
    int32_t *step;
    float **tmp;
    pv_run_timing timing;
};

/* The primitives. Composites are absent: they run as their bodies. */
static const cpu_kernel *const kernels[PV_OP_COUNT] = {
    [PV_OP_LINEAR] = &cpu_linear,
    [PV_OP_ATTENTION_SCORES] = &cpu_attention_scores,
    [PV_OP_SOFTMAX] = &cpu_softmax,
    [PV_OP_ATTENTION_VALUES] = &cpu_attention_values,
    [PV_OP_RMS_NORM] = &cpu_rms_norm,
    [PV_OP_LAYER_NORM] = &cpu_layer_norm,
    [PV_OP_ROPE] = &cpu_rope,
    [PV_OP_ADD] = &cpu_add,
    [PV_OP_MUL] = &cpu_mul,
    [PV_OP_SCALE] = &cpu_scale,
    [PV_OP_GELU] = &cpu_gelu,
    [PV_OP_SILU] = &cpu_silu,
    [PV_OP_AXPY] = &cpu_axpy,
    [PV_OP_CAST] = &cpu_copy,
    [PV_OP_CONCAT] = &cpu_concat,
    [PV_OP_SLICE] = &cpu_slice,
    [PV_OP_ROW] = &cpu_row,
    [PV_OP_STORE] = &cpu_store,
    [PV_OP_TRANSPOSE] = &cpu_transpose,
    [PV_OP_SCALE_FOR] = &cpu_scale_for,
    [PV_OP_QUANTIZE] = &cpu_quantize,
    [PV_OP_DEQUANTIZE] = &cpu_dequantize,
    [PV_OP_PATCHIFY] = &cpu_patchify,
};

static bool is_float(const pv_tensor *t)
{
    return t->dtype == PV_F32 || t->dtype == PV_BF16 || t->dtype == PV_F16;
}

/* Rows of 4-bit numbers begin at whole bytes. */
static bool is_fraction(const cpu_kernel *kernel, const pv_tensor *t)
{
    return is_float(t) || (kernel->few && (t->dtype == PV_E4M3 || (t->dtype == PV_E2M1 && pv_width(t) % 2 == 0)));
}

static bool claims(const pv_backend *be, const pv_node *n)
{
    (void)be;
    const cpu_kernel *kernel = kernels[n->op];
    bool ok = kernel != NULL;
    for (int k = 0; ok && k < n->n_in; k++)
        ok = is_fraction(kernel, n->in[k]) == !(kernel->whole >> k & 1);
    for (int k = 0; ok && k < n->n_out; k++)
        ok = is_fraction(kernel, n->out[k]);
    return ok;
}

static pv_status describe(pv_backend *be, pv_device_info *out)
{
    (void)be;
    pv_device_info d = {.size = sizeof d, .backend = "cpu", .unified = true};
    snprintf(d.name, sizeof d.name, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    for (char line[256]; f && fgets(line, sizeof line, f);)
        if (sscanf(line, "model name : %127[^\n]", d.name) == 1)
            break;
    if (f)
        fclose(f);
    snprintf(d.library, sizeof d.library, "%s; %s loops", cpu_blas_name(), cpu_vector_best()->level);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    snprintf(d.supports, sizeof d.supports, "vector instructions: %s\ncores: %d\n", cpu_vector_best()->level, pv_cpu_count());
    d.memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    *out = d;
    return PV_OK;
}

static pv_status devices(pv_device_info *out, int *n)
{
    if (*n > 0)
        describe(NULL, out);
    *n = 1;
    return PV_OK;
}

static void close_backend(pv_backend *base)
{
    cpu_backend *be = (cpu_backend *)base;
    pv_pool_destroy(&be->pool);
    pv_free(be);
}

static pv_status open_backend(const pv_backend_params *p, pv_backend **out)
{
    if (p->device && strcasecmp(p->device, "cpu")) {
        pv_device_info info;
        int index;
        describe(NULL, &info);
        if (pv_choose_device(&info, 1, p->device, &index))
            return PV_E_UNAVAILABLE;
    }
    if (p->sms)
        return pv_fail(PV_E_UNAVAILABLE, "%d multiprocessors: the cpu backend has none to choose from; it takes threads", p->sms);
    cpu_backend *be = pv_alloc_zero(sizeof *be);
    if (!be)
        return PV_E_MEMORY;
    be->base.vt = &pv_cpu_backend;
    be->vector = cpu_vector_best();
    pv_status st = pv_pool_create(p->threads, &be->pool);
    if (st)
        pv_free(be);
    else
        *out = &be->base;
    return st;
}

static pv_status alloc(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out)
{
    (void)be, (void)usage;
    pv_buffer *b = pv_alloc(sizeof *b);
    char *data = b ? pv_alloc(bytes) : NULL;
    if (!data) {
        pv_free(b);
        return PV_E_MEMORY;
    }
    *b = (pv_buffer){bytes, data};
    *out = b;
    return PV_OK;
}

static void release(pv_backend *be, pv_buffer *b)
{
    (void)be;
    pv_free(b->data);
    pv_free(b);
}

static pv_status write_bytes(pv_backend *be, pv_buffer *dst, size_t at, const void *src, size_t n)
{
    (void)be;
    if (src != dst->data + at)
        memcpy(dst->data + at, src, n);
    return PV_OK;
}

static pv_status read_bytes(pv_backend *be, const pv_buffer *src, size_t at, void *dst, size_t n)
{
    (void)be;
    memcpy(dst, src->data + at, n);
    return PV_OK;
}

static void *map(pv_backend *be, pv_buffer *b)
{
    (void)be;
    return b->data;
}

/* ---- recording ---- */

static void *address(const pv_buffers *bufs, const pv_tensor *t)
{
    return t->usage == PV_WEIGHT ? bufs->weight[t->id]->data : bufs->buffer[t->usage]->data + t->offset;
}

static void discard(pv_recording *r)
{
    for (int i = 0; r->tmp && i < pv_pool_threads(r->be->pool); i++)
        pv_free(r->tmp[i]);
    pv_free(r->tmp);
    pv_free(r->calls);
    pv_free(r->node_ms);
    pv_free(r);
}

static pv_status record(pv_backend *base, const pv_program *prog, const pv_buffers *bufs, pv_recording **out)
{
    cpu_backend *be = (cpu_backend *)base;
    const pv_graph *g = prog->graph;
    int workers = pv_pool_threads(be->pool);
    pv_recording *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    r->be = be;
    r->prog = prog;
    r->bufs = bufs;
    r->calls = pv_alloc_zero(sizeof *r->calls * (size_t)(g->n_nodes + 1));
    r->node_ms = pv_alloc_zero(sizeof *r->node_ms * (size_t)(g->n_nodes + 1));
    r->tmp = pv_alloc_zero(sizeof *r->tmp * (size_t)workers);
    bool ok = r->calls && r->node_ms && r->tmp;
    size_t need = 1;
    for (int i = 0; ok && i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        cpu_call *c = &r->calls[i];
        *c = (cpu_call){.node = n, .vector = be->vector, .pool = be->pool, .tmp = r->tmp};
        for (int k = 0; k < n->n_in; k++) {
            c->in[k] = address(bufs, n->in[k]);
            c->rows[k] = n->in[k]->rows ? address(bufs, n->in[k]->rows) : NULL;
        }
        for (int k = 0; k < n->n_out; k++)
            c->out[k] = address(bufs, n->out[k]);
        size_t mine = kernels[n->op]->need ? kernels[n->op]->need(n) : 0;
        need = mine > need ? mine : need;
    }
    for (int i = 0; ok && i < workers; i++)
        ok = (r->tmp[i] = pv_alloc(pv_mul_size(need, sizeof(float)))) != NULL;
    if (!ok) {
        discard(r);
        return PV_E_MEMORY;
    }
    r->step = prog->step ? address(bufs, prog->step) : NULL;
    *out = r;
    return PV_OK;
}

static void run_stage(pv_recording *r, pv_stage stage)
{
    const pv_graph *g = r->prog->graph;
    double before = pv_now_ms(), start = before;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->stage != stage)
            continue;
        kernels[g->nodes[i]->op]->run(&r->calls[i]);
        double after = pv_now_ms();
        r->node_ms[i] += after - before;
        before = after;
    }
    r->timing.stage_ms[stage] += pv_now_ms() - start;
}

static pv_status submit(pv_recording *r, const pv_run *run)
{
    double start = pv_now_ms();
    r->timing = (pv_run_timing){0};
    memset(r->node_ms, 0, sizeof *r->node_ms * (size_t)r->prog->graph->n_nodes);
    for (int s = 0; s < PV_STAGE_COUNT; s++) {
        if (!(run->stages >> s & 1))
            continue;
        int times = s == PV_STAGE_DENOISE ? run->n_steps : 1;
        for (int i = 0; i < times; i++) {
            if (r->step)
                *r->step = run->first_step + i;
            run_stage(r, (pv_stage)s);
        }
    }
    r->timing.run_ms = pv_now_ms() - start;
    if (run->result)
        memcpy(run->to, address(r->bufs, run->result), pv_tensor_bytes(run->result));
    return PV_OK;
}

static pv_status wait(pv_recording *r, pv_run_timing *t)
{
    for (int s = 0; t && s < PV_STAGE_COUNT; s++)
        t->stage_ms[s] += r->timing.stage_ms[s];
    if (t)
        t->run_ms += r->timing.run_ms;
    for (int i = 0; t && t->node_ms && i < r->prog->graph->n_nodes; i++)
        t->node_ms[i] += r->node_ms[i];
    return PV_OK;
}

const pv_backend_vt pv_cpu_backend = {
    .name = "cpu",
    .devices = devices,
    .open = open_backend,
    .close = close_backend,
    .describe = describe,
    .alloc = alloc,
    .release = release,
    .write = write_bytes,
    .read = read_bytes,
    .map = map,
    .claims = claims,
    .record = record,
    .submit = submit,
    .wait = wait,
    .discard = discard,
};

/* ---- rows ---- */

#define ROW_TASK     16384 /* elements a task takes at least */
#define ROW_OPERANDS 3

typedef struct row_job {
    const cpu_call *c;
    cpu_row_fn fn;
    int64_t columns, rows, matrices, per_task, stride; /* rows: valid in each matrix; stride: that a matrix has */
} row_job;

static void row_task(void *user, int64_t task, int worker)
{
    const row_job *j = user;
    const cpu_call *c = j->c;
    const pv_node *n = c->node;
    int64_t width = pv_width(n->out[0]), in_width = pv_width(n->in[0]);
    int64_t total = j->rows * j->matrices, end = (task + 1) * j->per_task < total ? (task + 1) * j->per_task : total;
    for (int64_t i = task * j->per_task; i < end; i++) {
        int64_t row = i / j->rows * j->stride + i % j->rows;
        const float *in[ROW_OPERANDS] = {NULL};
        float *tmp = c->tmp[worker];
        for (int k = 0; k < n->n_in && k < ROW_OPERANDS; k++, tmp += in_width) {
            const pv_tensor *t = n->in[k];
            if (pv_width(t) == in_width && t->dtype != PV_I32)
                in[k] = cpu_load(c->in[k], t->dtype, row * in_width % pv_elements(t), in_width, tmp);
        }
        float *out = cpu_dest(c->out[0], n->out[0]->dtype, row * width, tmp);
        j->fn(c, row, in, out);
        cpu_done(c->out[0], n->out[0]->dtype, row * width, j->columns, out);
    }
}

void cpu_each_row(const cpu_call *c, cpu_row_fn fn)
{
    cpu_each_row_of(c, fn, pv_width(c->node->out[0]));
}

void cpu_each_row_of(const cpu_call *c, cpu_row_fn fn, int64_t columns)
{
    const pv_tensor *x = c->node->in[0];
    row_job j = {c, fn, columns, .rows = cpu_rows(c, 0), .stride = pv_row_count(x)};
    if (!j.rows || !columns)
        return;
    j.matrices = pv_elements(x) / (pv_width(x) * j.stride);
    j.per_task = ROW_TASK / pv_width(x) + 1;
    pv_pool_run(c->pool, (j.rows * j.matrices + j.per_task - 1) / j.per_task, row_task, &j);
}

size_t cpu_row_need(const pv_node *n)
{
    return (size_t)(ROW_OPERANDS * pv_width(n->in[0]) + pv_width(n->out[0]));
}
