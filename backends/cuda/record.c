/* record.c - a program as CUDA graphs: one a stage, and for denoising two, all steps in a row and a single
 * one.
 *
 * Recording resolves addresses, takes one piece of work memory as large as the neediest node's (nodes run one
 * after another), lets products choose their algorithms, and captures. Submitting launches graphs between
 * events, on the device's one stream; it allocates nothing and waits for nothing. Stages may begin before the rest of
 * their run is submitted. A result is copied behind them. */
#include "base/memory.h"
#include "device.h"

#include <string.h>

#define LANDING ((size_t)64 << 10)
#define UNROLL 64 /* steps that are captured in a row at most; more are so many launches of one */

struct pv_recording {
    cuda_device *d;
    const pv_program *prog;
    cuda_call *calls; /* by node */
    void *work;
    void **own; /* by node: the memory that this node was the first to ask for; NULL: none, or that of one before */
    int32_t *step; /* where the kernels read which step runs; NULL: none does */
    const pv_buffers *bufs;
    cudaGraphExec_t stage[PV_STAGE_COUNT], one_step; /* NULL: nothing to do */
    cudaEvent_t begin[PV_STAGE_COUNT], end[PV_STAGE_COUNT];
    cudaEvent_t landed;
    char *landing; /* page-locked: where a result of up to LANDING bytes is brought before the wait */
    pv_run run; /* submitted last */
    uint32_t begun; /* stages of the next run that are under way */
};

void cuda_discard(pv_recording *r)
{
    if (cuda_usable(
            r->d)) { /* else nothing can be given back, and the driver does so when the process ends */
        cudaStreamSynchronize(r->d->stream);
        for (int s = 0; s < PV_STAGE_COUNT; s++) {
            if (r->stage[s])
                cudaGraphExecDestroy(r->stage[s]);
            if (r->begin[s])
                cudaEventDestroy(r->begin[s]);
            if (r->end[s])
                cudaEventDestroy(r->end[s]);
        }
        if (r->one_step)
            cudaGraphExecDestroy(r->one_step);
        if (r->landed)
            cudaEventDestroy(r->landed);
        if (r->landing)
            cudaFreeHost(r->landing);
        cudaFree(r->work);
        for (int i = 0; r->own && i < r->prog->graph->n_nodes; i++)
            cudaFree(r->own[i]);
    }
    pv_free(r->own);
    pv_free(r->calls);
    pv_free(r);
}

/* ---- recording ---- */

static void *address(const pv_buffers *bufs, const pv_tensor *t)
{
    return t->usage == PV_WEIGHT ? bufs->weight[t->id]->data : bufs->buffer[t->usage]->data + t->offset;
}

/* Fills in calls; returns the largest need for work memory. */
static size_t resolve(pv_recording *r, const pv_buffers *bufs)
{
    const pv_graph *g = r->prog->graph;
    size_t need = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        const cuda_kernel *kernel = cuda_kernels[n->op];
        cuda_call *c = &r->calls[i];
        *c = (cuda_call){.node = n, .device = r->d, .sms = r->d->sms, .dependent = r->d->dependent};
        c->wgmma = r->d->wgmma;
        for (int k = 0; k < n->n_in; k++) {
            c->in[k] = address(bufs, n->in[k]);
            c->rows[k] = n->in[k]->rows ? address(bufs, n->in[k]->rows) : NULL;
        }
        for (int k = 0; k < n->n_out; k++)
            c->out[k] = address(bufs, n->out[k]);
        size_t mine = kernel->need ? kernel->need(r->d, n) : 0;
        need = mine > need ? mine : need;
    }
    return need;
}

/* The memory that stays: nodes of an op that want as much of it have the same. */
static pv_status give_own(pv_recording *r)
{
    cuda_device *d = r->d;
    const pv_graph *g = r->prog->graph;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < g->n_nodes; i++) {
        const cuda_kernel *kernel = cuda_kernels[g->nodes[i]->op];
        size_t bytes = kernel->own ? kernel->own(d, g->nodes[i]) : 0;
        for (int j = 0; bytes && !r->calls[i].own && j < i; j++)
            if (g->nodes[j]->op == g->nodes[i]->op && kernel->own(d, g->nodes[j]) == bytes)
                r->calls[i].own = r->calls[j].own;
        if (!bytes || r->calls[i].own)
            continue;
        st = cuda_memory(d, bytes, "what blocks exchange", &r->own[i]);
        r->calls[i].own = r->own[i];
        if (!st)
            st = CUDA_CHECK(d, cudaMemsetAsync(r->own[i], 0xff, bytes, d->stream));
    }
    return st;
}

/* A node that picks the running step's row of a table. */
static bool picks_step(const pv_recording *r, const pv_node *n)
{
    return n->op == PV_OP_ROW && r->prog->step && n->in[1] == r->prog->step && n->in[0]->dtype == n->out[0]->dtype;
}

/* Where all steps are captured in a row, the step is known: readers of a picked row read the table itself, and nothing
 * is launched to pick it. step -1: as it was. */
static void alias_rows(pv_recording *r, int step)
{
    const pv_graph *g = r->prog->graph;
    for (int i = 0; i < g->n_nodes; i++) {
        if (!picks_step(r, g->nodes[i]))
            continue;
        const pv_tensor *row = g->nodes[i]->out[0];
        void *at = step < 0 ? r->calls[i].out[0]
                            : (char *)r->calls[i].in[0] + (size_t)step * pv_tensor_bytes(row);
        for (int j = i + 1; j < g->n_nodes; j++)
            for (int k = 0; k < g->nodes[j]->n_in; k++)
                if (g->nodes[j]->in[k] == row)
                    r->calls[j].in[k] = at;
    }
}

/* Is `t` read by nobody but node `reader`, as its first input, and not wanted afterwards? */
static bool only_for(const pv_graph *g, const pv_tensor *t, const pv_node *reader)
{
    int readers = 0;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            readers += g->nodes[i]->in[k] == t;
    return readers == 1 && reader->in[0] == t && t->usage == PV_SCRATCH && !t->output;
}

/* Links node `i` with those behind it in the stage that the same launch can do; the last of them. */
static int link_calls(pv_recording *r, int i, bool aliased)
{
    const pv_graph *g = r->prog->graph;
    const cuda_kernel *kernel = cuda_kernels[g->nodes[i]->op];
    int last = i;
    for (int j = i + 1; kernel->joins && j < g->n_nodes && g->nodes[j]->stage == g->nodes[i]->stage; j++) {
        if (aliased && picks_step(r, g->nodes[j]))
            continue;
        if (g->nodes[j]->op != g->nodes[i]->op || !only_for(g, g->nodes[last]->out[0], g->nodes[j]) ||
            !kernel->joins(&r->calls[last], &r->calls[j]))
            break;
        r->calls[last].then = &r->calls[j];
        last = j;
    }
    return last;
}

/* One pass over a stage, without the nodes that alias_rows made needless. events, if given: recorded before the first
 * and after each node, for timing. What an error means is told when nothing is captured any more; `failed`: whose kernel
 * it is. */
static cudaError_t enqueue_stage(pv_recording *r, pv_stage stage, bool aliased, cudaStream_t stream,
                                 const cudaEvent_t *events, const pv_node **failed)
{
    const pv_graph *g = r->prog->graph;
    cudaError_t e = cudaSuccess;
    if (events)
        e = cudaEventRecordWithFlags(*events++, stream, cudaEventRecordExternal);
    for (int i = 0; e == cudaSuccess && i < g->n_nodes; i++) {
        if (g->nodes[i]->stage != stage || (aliased && picks_step(r, g->nodes[i])))
            continue;
        int last = events ? i : link_calls(r, i, aliased); /* timed one by one */
        r->calls[last].then = NULL;
        r->calls[i].stream = stream;
        e = cuda_kernels[g->nodes[i]->op]->enqueue(&r->calls[i]);
        *failed = e == cudaSuccess ? NULL : g->nodes[i];
        i = last;
        if (e == cudaSuccess && events)
            e = cudaEventRecordWithFlags(*events++, stream, cudaEventRecordExternal);
    }
    return e;
}

static int nodes_in(const pv_graph *g, pv_stage stage)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->stage == stage;
    return n;
}

/* A graph of a stage; of denoising `steps` steps from 0 on, or with steps 0 one, of whichever step is set
 * before. One that is all of the stage begins with the stage's event. */
static pv_status capture(pv_recording *r, pv_stage stage, int steps, cudaStream_t stream,
                         const cudaEvent_t *events, cudaGraphExec_t *out)
{
    cuda_device *d = r->d;
    cudaGraph_t graph = NULL;
    pv_status st = CUDA_CHECK(d, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    if (st)
        return st;
    const pv_node *failed = NULL;
    cudaError_t e = cudaSuccess;
    if (!events && (steps || stage != PV_STAGE_DENOISE)) /* in the graph: not before the host has it launched */
        e = cudaEventRecordWithFlags(r->begin[stage], stream, cudaEventRecordExternal);
    for (int i = 0; e == cudaSuccess && i < (steps ? steps : 1); i++) {
        if (steps)
            alias_rows(r, i);
        e = enqueue_stage(r, stage, steps > 0, stream, events, &failed);
    }
    if (steps)
        alias_rows(r, -1);
    cudaError_t end = cudaStreamEndCapture(stream, &graph); /* also when something failed */
    st = cuda_check(d, e, failed ? "kernel" : "cudaEventRecordWithFlags");
    if (failed)
        pv_fail_in(st, "'%s'", failed->name);
    if (!st)
        st = cuda_check(d, end, "cudaStreamEndCapture");
    if (!st)
        st = CUDA_CHECK(d, cudaGraphInstantiate(out, graph, 0));
    if (graph)
        cudaGraphDestroy(graph);
    cuda_forget();
    return st ? st : CUDA_CHECK(d, cudaGraphUpload(*out, d->stream));
}

static pv_status record_all(pv_recording *r, cudaStream_t stream)
{
    const pv_graph *g = r->prog->graph;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < g->n_nodes; i++)
        if (cuda_kernels[g->nodes[i]->op] == &cuda_linear) {
            r->calls[i].stream = stream;
            st = cuda_linear_prepare(&r->calls[i]);
        }
    for (int s = 0; !st && s < PV_STAGE_COUNT; s++) {
        st = CUDA_CHECK(r->d, cudaEventCreate(&r->begin[s]));
        if (!st)
            st = CUDA_CHECK(r->d, cudaEventCreate(&r->end[s]));
        if (st || !nodes_in(g, (pv_stage)s))
            continue;
        bool denoise = s == PV_STAGE_DENOISE;
        if (!denoise || r->prog->steps <= UNROLL)
            st = capture(r, (pv_stage)s, denoise ? r->prog->steps : 0, stream, NULL, &r->stage[s]);
        if (!st && denoise)
            st = capture(r, PV_STAGE_DENOISE, 0, stream, NULL, &r->one_step);
    }
    return st;
}

pv_status cuda_record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out)
{
    cuda_device *d = (cuda_device *)be;
    pv_status st = cuda_enter(d);
    if (st)
        return st;
    pv_recording *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    *r = (pv_recording){.d = d, .prog = prog, .bufs = bufs};
    r->step = prog->step && prog->step->offset != PV_NOWHERE ? address(bufs, prog->step) : NULL;
    r->calls = pv_alloc(sizeof *r->calls * (size_t)(prog->graph->n_nodes + 1));
    r->own = pv_alloc_zero(sizeof *r->own * (size_t)(prog->graph->n_nodes + 1));
    cudaStream_t stream = NULL;
    if (!r->calls || !r->own)
        st = PV_E_MEMORY;
    size_t need = st ? 0 : resolve(r, bufs);
    if (need)
        st = cuda_memory(d, need, "the work of one op", &r->work);
    for (int i = 0; !st && i < prog->graph->n_nodes; i++)
        r->calls[i].work = r->work;
    if (!st)
        st = give_own(r);
    if (!st)
        st = cuda_stream(d, &stream);
    if (!st)
        st = CUDA_CHECK(
            d, cudaStreamSynchronize(d->stream)); /* what was written is there for the products to try */
    void *landing = NULL;
    if (!st)
        st = cuda_host_memory(d, LANDING, "results", &landing);
    r->landing = landing;
    if (!st)
        st = CUDA_CHECK(d, cudaEventCreateWithFlags(&r->landed, cudaEventDisableTiming));
    if (!st)
        st = record_all(r, stream);
    if (stream) {
        cudaStreamSynchronize(stream);
        cudaStreamDestroy(stream);
    }
    algos_save(&d->kept); /* those that were found count, also where something else failed */
    if (st)
        cuda_discard(r);
    else
        *out = r;
    return st;
}

/* ---- running ---- */

/* Is there a graph for all that the run wants of this stage? */
static bool in_one(const pv_recording *r, const pv_run *run, int stage)
{
    return r->stage[stage] &&
           (stage != PV_STAGE_DENOISE || (run->first_step == 0 && run->n_steps == r->prog->steps));
}

static pv_status launch_steps(pv_recording *r, const pv_run *run)
{
    cuda_device *d = r->d;
    pv_status st = CUDA_CHECK(d, cudaEventRecord(r->begin[PV_STAGE_DENOISE], d->stream));
    for (int i = 0; !st && i < run->n_steps; i++) {
        if (r->step)
            st = cuda_check(d, cuda_set_step(r->step, run->first_step + i, d->stream), "kernel cuda_set_step");
        if (!st)
            st = CUDA_CHECK(d, cudaGraphLaunch(r->one_step, d->stream));
    }
    return st;
}

static bool lands(const pv_tensor *result)
{
    return pv_tensor_bytes(result) <= LANDING;
}

static pv_status fetch(pv_recording *r, const pv_tensor *result)
{
    cuda_device *d = r->d;
    if (!lands(result))
        return PV_OK;
    pv_status st = CUDA_CHECK(d, cudaMemcpyAsync(r->landing, address(r->bufs, result), pv_tensor_bytes(result),
                                                 cudaMemcpyDeviceToHost, d->stream));
    return st ? st : CUDA_CHECK(d, cudaEventRecord(r->landed, d->stream));
}

/* The result to where it is wanted. A large one is only now copied, by whatever way the runtime has to there. */
static pv_status hand_over(pv_recording *r)
{
    cuda_device *d = r->d;
    const pv_tensor *result = r->run.result;
    size_t bytes = pv_tensor_bytes(result);
    if (!lands(result)) {
        pv_status st = CUDA_CHECK(d, cudaMemcpyAsync(r->run.to, address(r->bufs, result), bytes, cudaMemcpyDeviceToHost,
                                                     d->stream));
        return st ? st : CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
    }
    pv_status st = CUDA_CHECK(d, cudaEventSynchronize(r->landed));
    if (!st)
        memcpy(r->run.to, r->landing, bytes);
    return st;
}

static pv_status launch_stages(pv_recording *r, const pv_run *run, uint32_t stages)
{
    cuda_device *d = r->d;
    pv_status st = cuda_enter(d);
    for (int s = 0; !st && s < PV_STAGE_COUNT; s++) {
        if (!(stages >> s & 1))
            continue;
        if (in_one(r, run, s))
            st = CUDA_CHECK(d, cudaGraphLaunch(r->stage[s], d->stream));
        else if (s == PV_STAGE_DENOISE && r->one_step)
            st = launch_steps(r, run);
        else /* nothing to do */
            st = CUDA_CHECK(d, cudaEventRecord(r->begin[s], d->stream));
        if (!st)
            st = CUDA_CHECK(d, cudaEventRecord(r->end[s], d->stream));
    }
    return st;
}

pv_status cuda_start(pv_recording *r, uint32_t stages)
{
    r->run = (pv_run){0};
    r->begun = stages;
    return launch_stages(r, &r->run, stages);
}

pv_status cuda_submit(pv_recording *r, const pv_run *run)
{
    pv_status st = launch_stages(r, run, run->stages & ~r->begun);
    if (!st && run->result)
        st = fetch(r, run->result);
    r->run = st ? (pv_run){0} : *run;
    return st;
}

/* ---- times of nodes ---- */

typedef struct probe {
    cudaEvent_t *events; /* n_nodes + 1 */
    int n;
    cudaStream_t stream;
    void *saved; /* the state, which running once more changes */
    bool kept;   /* it is in there */
} probe;

static pv_status probe_begin(pv_recording *r, probe *p)
{
    cuda_device *d = r->d;
    int n = r->prog->graph->n_nodes + 1;
    p->events = pv_alloc_zero(sizeof *p->events * (size_t)n);
    if (!p->events)
        return PV_E_MEMORY;
    pv_status st = cuda_stream(d, &p->stream);
    for (; !st && p->n < n; p->n += !st)
        st = CUDA_CHECK(d, cudaEventCreate(&p->events[p->n]));
    if (!st && r->bufs->buffer[PV_STATE])
        st = cuda_memory(d, r->bufs->buffer[PV_STATE]->bytes, "a copy of the state", &p->saved);
    if (!st && r->bufs->buffer[PV_STATE])
        st = CUDA_CHECK(d, cudaMemcpyAsync(p->saved, r->bufs->buffer[PV_STATE]->data, r->bufs->buffer[PV_STATE]->bytes,
                                           cudaMemcpyDeviceToDevice, d->stream));
    p->kept = !st && r->bufs->buffer[PV_STATE];
    return st;
}

/* Puts the state back, also after a failure `st`, whose words stay. */
static pv_status probe_end(pv_recording *r, probe *p, pv_status st)
{
    cuda_device *d = r->d;
    if (p->kept) {
        cudaError_t e = cudaMemcpyAsync(r->bufs->buffer[PV_STATE]->data, p->saved, r->bufs->buffer[PV_STATE]->bytes,
                                        cudaMemcpyDeviceToDevice, d->stream);
        if (!st)
            st = cuda_check(d, e, "cudaMemcpyAsync");
        cudaStreamSynchronize(d->stream);
    }
    cudaFree(p->saved);
    for (int i = 0; i < p->n; i++)
        cudaEventDestroy(p->events[i]);
    if (p->stream)
        cudaStreamDestroy(p->stream);
    pv_free(p->events);
    return st;
}

static pv_status probe_stage(pv_recording *r, probe *p, pv_stage stage, double *node_ms)
{
    cuda_device *d = r->d;
    const pv_graph *g = r->prog->graph;
    cudaGraphExec_t exec = NULL;
    bool denoise = stage == PV_STAGE_DENOISE;
    pv_status st = capture(r, stage, 0, p->stream, p->events, &exec);
    for (int step = 0; !st && step < (denoise ? r->run.n_steps : 1); step++) {
        if (denoise && r->step)
            st = cuda_check(d, cuda_set_step(r->step, r->run.first_step + step, d->stream), "kernel cuda_set_step");
        if (!st)
            st = CUDA_CHECK(d, cudaGraphLaunch(exec, d->stream));
        if (!st)
            st = CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
        for (int i = 0, at = 0; !st && i < g->n_nodes; i++) {
            float ms = 0;
            if (g->nodes[i]->stage != stage)
                continue;
            st = CUDA_CHECK(d, cudaEventElapsedTime(&ms, p->events[at], p->events[at + 1]));
            node_ms[i] += (double)ms;
            at++;
        }
    }
    if (exec)
        cudaGraphExecDestroy(exec);
    return st;
}

/* The run once more, as graphs with an event behind each node. A node's time holds that of its event, so it
 * is an upper bound, and their sum is more than the stage takes. The results of the run are kept. Allocates:
 * for measuring alone. */
static pv_status time_nodes(pv_recording *r, double *node_ms)
{
    probe p = {0};
    pv_status st = probe_begin(r, &p);
    for (int s = 0; !st && s < PV_STAGE_COUNT; s++)
        if (r->run.stages >> s & 1 && nodes_in(r->prog->graph, (pv_stage)s))
            st = probe_stage(r, &p, (pv_stage)s, node_ms);
    return probe_end(r, &p, st);
}

/* From the begin of the first stage of the run to the end of the last. */
static pv_status whole_time(pv_recording *r, double *run_ms)
{
    int first = 0, last = PV_STAGE_COUNT - 1;
    float ms = 0;
    while (first < last && !(r->run.stages >> first & 1))
        first++;
    while (last > first && !(r->run.stages >> last & 1))
        last--;
    if (!(r->run.stages >> first & 1))
        return PV_OK;
    pv_status st = CUDA_CHECK(r->d, cudaEventElapsedTime(&ms, r->begin[first], r->end[last]));
    *run_ms += (double)ms;
    return st;
}

pv_status cuda_wait(pv_recording *r, pv_run_timing *t)
{
    cuda_device *d = r->d;
    pv_status st = cuda_enter(d);
    r->begun = 0;
    if (!st && !r->run.stages) /* begun, and no whole run came */
        st = CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
    if (!st && r->run.result)
        st = hand_over(r);
    for (int s = PV_STAGE_COUNT - 1; !st && s >= 0; s--) /* the last first: then the others are done */
        if (r->run.stages >> s & 1)
            st = CUDA_CHECK(d, cudaEventSynchronize(r->end[s]));
    if (!st && r->bufs->buffer[PV_STATE]) /* all that was written has come: its window need not be waited for in the next run */
        r->bufs->buffer[PV_STATE]->used = 0;
    for (int s = 0; !st && t && s < PV_STAGE_COUNT; s++) {
        float ms = 0;
        if (!(r->run.stages >> s & 1))
            continue;
        st = CUDA_CHECK(d, cudaEventElapsedTime(&ms, r->begin[s], r->end[s]));
        t->stage_ms[s] += (double)ms;
    }
    if (!st && t)
        st = whole_time(r, &t->run_ms);
    return st || !t || !t->node_ms ? st : time_nodes(r, t->node_ms);
}
