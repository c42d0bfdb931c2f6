/* record.c - a program as command buffers: one a stage, for denoising one a step, and one for a whole run: between buffers a GPU stands
 * still for some microseconds.
 *
 * Nodes stand in order, with barriers where bytes ask for them (barriers.c), and a timestamp before and behind all. In a step's buffer
 * the step is known: who reads the step's row of a table reads it in the table, and nothing is dispatched to pick it. Where there are
 * more than UNROLL steps, one buffer serves all, and rows are picked. A run is one submission; it allocates nothing here,
 * unless nodes are timed: that takes buffers of their own, with a timestamp behind each node, which are recorded when they are
 * first wanted, since the stamps cost time. Of nodes that run at the same time a stamp tells when all before it were done. Where the queue has no timestamps of 64
 * bits, the run as a whole is timed by the host's clock and stages and nodes are not. */
#include "base/clock.h"
#include "base/memory.h"
#include "vk.h"

#include <string.h>

#define UNROLL   64
#define ALL      ((1u << PV_STAGE_COUNT) - 1)
#define IN_WHOLE (ALL & ~(1u << PV_STAGE_SCHEDULE)) /* which runs when times change */

/* What is submitted: everything once without, and once with, timestamps behind nodes. */
typedef struct take {
    VkDescriptorPool sets;
    VkCommandBuffer stage[PV_STAGE_COUNT]; /* NULL: nothing to do */
    VkCommandBuffer *step;                 /* of denoising; rows picked: all the same */
    VkCommandBuffer whole;                 /* from the first stage to the last step, the schedule left out; NULL: there is none */
    bool nodes;                            /* timestamps behind them */
} take;

struct pv_recording {
    vk_device *d;
    const pv_program *prog;
    const pv_buffers *bufs;
    uint32_t n_sets; /* of a take */
    VkQueryPool queries; /* of a stage: one before its first node, one behind its last, one behind each; all of denoising for each step */
    VkFence done;
    pv_buffer part;                         /* sums of parts (VK_PART) */
    uint32_t first_query[PV_STAGE_COUNT]; /* unrolled: of denoising those of its first step, others behind */
    uint64_t *stamps;                     /* what the queries of a stage said, when a run is over */
    pv_buffer times;                      /* where one buffer serves all steps: what its queries said in each */
    int nodes[PV_STAGE_COUNT];
    VkCommandBuffer front;            /* what begins a submission: queries anew, inputs fetched that the device does not read at the host's */
    VkCommandBuffer tail;             /* what ends a submission */
    take plain, timed;                /* timed.step NULL: not yet */
    VkCommandBuffer *before, *behind; /* of each step, where one buffer serves all: what sets the step and what keeps its times */
    VkCommandBuffer *all;             /* of one submission; and all that were allocated lie behind one another in `pool` */
    VkCommandPool pool;
    bool unrolled; /* a buffer for each step */
    int now;       /* the step that is recorded; -1: none, rows are picked */
    bool *barrier; /* before node i, while its stage is recorded */
    pv_run run; /* submitted last */
    double begun_ms;
};

void vk_discard(pv_recording *r)
{
    vk_device *d = r->d;
    vk_settle(d); /* a wait may have failed */
    if (!d->hung) {
        d->fn.DestroyCommandPool(d->handle, r->pool, NULL);
        d->fn.DestroyDescriptorPool(d->handle, r->plain.sets, NULL);
        d->fn.DestroyDescriptorPool(d->handle, r->timed.sets, NULL);
        d->fn.DestroyQueryPool(d->handle, r->queries, NULL);
        d->fn.DestroyFence(d->handle, r->done, NULL);
    }
    vk_buffer_drop(d, &r->part);
    vk_buffer_drop(d, &r->times);
    pv_free(r->stamps);
    pv_free(r->plain.step);
    pv_free(r->timed.step);
    pv_free(r->before);
    pv_free(r->behind);
    pv_free(r->all);
    pv_free(r->barrier);
    pv_free(r);
}

/* ---- nodes ---- */

/* The table of which `t` is the row of the step that is recorded; NULL: it is none. */
static const pv_tensor *table_of(const pv_recording *r, const pv_tensor *t)
{
    return r->now >= 0 && t->producer && vk_reads_in_place(r->d, r->prog, t->producer) ? t->producer->in[0] : NULL;
}

static pv_buffer *place(const pv_recording *r, const pv_tensor *t, size_t *at)
{
    const pv_tensor *table = table_of(r, t);
    if (table) {
        pv_buffer *b = place(r, table, at);
        *at += pv_tensor_bytes(t) * (size_t)r->now;
        return b;
    }
    *at = t->usage == PV_WEIGHT ? 0 : t->offset;
    return t->usage == PV_WEIGHT ? r->bufs->weight[t->id] : r->bufs->buffer[t->usage];
}

static pv_status bind_call(pv_recording *r, const take *k, const vk_call *c, VkDescriptorSet *out)
{
    vk_device *d = r->d;
    VkDescriptorSetAllocateInfo one = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                       .descriptorPool = k->sets,
                                       .descriptorSetCount = 1,
                                       .pSetLayouts = &d->set_layout};
    pv_status st = VK_CHECK(d, AllocateDescriptorSets, d->handle, &one, out);
    VkDescriptorBufferInfo where[VK_BINDINGS];
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = *out,
                                  .descriptorCount = VK_BINDINGS,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .pBufferInfo = where};
    for (int i = 0; !st && i < VK_BINDINGS; i++) {
        int from = c->bind[i] ? i : 0;
        size_t at, bytes = c->bytes[from] ? c->bytes[from] : pv_tensor_bytes(c->bind[from]);
        pv_buffer *b = place(r, c->bind[from], &at);
        where[i] = (VkDescriptorBufferInfo){b->handle, at + c->at[from], (bytes + 3) / 4 * 4};
        if (i == VK_PART && c->part_words)
            where[i] = (VkDescriptorBufferInfo){r->part.handle, 0, c->part_words * sizeof(uint32_t)};
    }
    if (!st)
        d->fn.UpdateDescriptorSets(d->handle, 1, &write, 0, NULL);
    return st;
}

/* Between buffers of a submission: shaders and copies. To wait for everything there, the host too, takes a GPU ten microseconds a buffer. */
static void buffer_before(vk_device *d, VkCommandBuffer cb)
{
    VkMemoryBarrier b = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                         .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                         .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                          VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
    const VkPipelineStageFlags stages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    d->fn.CmdPipelineBarrier(cb, stages, stages, 0, 1, &b, 0, NULL, 0, NULL);
}

/* What shaders wrote is there for shaders behind it. */
static void shaders_before(vk_device *d, VkCommandBuffer cb)
{
    VkMemoryBarrier b = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                         .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                         .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT};
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
    d->fn.CmdPipelineBarrier(cb, stage, stage, 0, 1, &b, 0, NULL, 0, NULL);
}

static void everything_before(vk_device *d, VkCommandBuffer cb, VkPipelineStageFlags from, VkPipelineStageFlags to)
{
    VkMemoryBarrier b = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                         .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                         .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT};
    d->fn.CmdPipelineBarrier(cb, from, to, 0, 1, &b, 0, NULL, 0, NULL);
}

static pv_status add_call(pv_recording *r, const take *k, VkCommandBuffer cb, const vk_call *c)
{
    vk_device *d = r->d;
    VkPipeline pipeline = VK_NULL_HANDLE;
    VkDescriptorSet set = VK_NULL_HANDLE;
    pv_status st = vk_pipeline_get(d, c->shader, c->constant, &pipeline);
    if (!st)
        st = bind_call(r, k, c, &set);
    if (st)
        return st;
    d->fn.CmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    d->fn.CmdBindDescriptorSets(cb, VK_PIPELINE_BIND_POINT_COMPUTE, d->layout, 0, 1, &set, 0, NULL);
    d->fn.CmdPushConstants(cb, d->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof c->push, &c->push);
    if (c->grid[0] && c->grid[1] && c->grid[2])
        d->fn.CmdDispatch(cb, c->grid[0], c->grid[1], c->grid[2]);
    return PV_OK;
}

static pv_status add_node(pv_recording *r, const take *k, VkCommandBuffer cb, const pv_node *n)
{
    vk_call c[VK_CALLS];
    int calls = vk_calls_make(r->d, n, c);
    pv_status st = PV_OK;
    for (int i = 0; !st && i < calls; i++) {
        if (c[i].behind)
            shaders_before(r->d, cb);
        st = add_call(r, k, cb, &c[i]);
    }
    return st ? pv_fail_in(st, "'%s'", n->name) : PV_OK;
}

/* How many dispatches a take has, and the memory for parts, with counters that stand at 0. Their pipelines are asked for. */
static pv_status make_parts(pv_recording *r)
{
    static const uint32_t zeros[VK_CALLS * VK_TILES];
    uint32_t words = 0;
    for (int i = 0; i < r->prog->graph->n_nodes; i++) {
        vk_call c[VK_CALLS];
        int n = vk_calls_make(r->d, r->prog->graph->nodes[i], c);
        const bool dispatched = !r->unrolled || !vk_reads_in_place(r->d, r->prog, r->prog->graph->nodes[i]);
        for (int k = 0; dispatched && k < n; k++)
            vk_pipeline_ask(r->d, c[k].shader, c[k].constant);
        r->n_sets += (uint32_t)n * (r->prog->graph->nodes[i]->stage == PV_STAGE_DENOISE && r->unrolled ? (uint32_t)r->prog->steps : 1);
        for (int k = 0; k < n; k++)
            words = c[k].part_words > words ? c[k].part_words : words;
    }
    pv_status st = words ? vk_buffer_make(r->d, words * sizeof *zeros, false, "parts of sums", &r->part) : PV_OK;
    return st || !words ? st : vk_write(&r->d->base, &r->part, 0, zeros, sizeof zeros);
}

/* ---- command buffers ---- */

static pv_status begin(pv_recording *r, VkCommandBuffer *cb)
{
    vk_device *d = r->d;
    VkCommandBufferAllocateInfo one = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                       .commandPool = r->pool,
                                       .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                       .commandBufferCount = 1};
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT}; /* the steps of a run */
    pv_status st = VK_CHECK(d, AllocateCommandBuffers, d->handle, &one, cb);
    if (!st)
        st = VK_CHECK(d, BeginCommandBuffer, *cb, &info);
    if (!st)
        buffer_before(d, *cb);
    return st;
}

static pv_status end(pv_recording *r, VkCommandBuffer cb)
{
    return VK_CHECK(r->d, EndCommandBuffer, cb);
}

static pv_status record_tail(pv_recording *r)
{
    pv_status st = begin(r, &r->tail);
    if (st)
        return st;
    everything_before(r->d, r->tail, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                      VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT);
    return end(r, r->tail);
}

static void stamp(pv_recording *r, VkCommandBuffer cb, uint32_t query)
{
    if (r->d->timestamps)
        r->d->fn.CmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, r->queries, query);
}

/* Queries of a stage; of denoising, of each step. */
static uint32_t queries_of(const pv_recording *r, pv_stage s)
{
    return (uint32_t)r->nodes[s] + 2;
}

/* What the one buffer of denoising has written, which the next step's writes over. */
static void keep_times(pv_recording *r, VkCommandBuffer cb, int step)
{
    const uint32_t n = queries_of(r, PV_STAGE_DENOISE);
    if (r->d->timestamps)
        r->d->fn.CmdCopyQueryPoolResults(cb, r->queries, r->first_query[PV_STAGE_DENOISE], n, r->times.handle,
                                         sizeof(uint64_t) * n * (size_t)step, sizeof(uint64_t),
                                         VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
}

static void set_step(pv_recording *r, VkCommandBuffer cb, int32_t step)
{
    const pv_tensor *t = r->prog->step;
    size_t at;
    if (!t || t->offset == PV_NOWHERE)
        return;
    pv_buffer *b = place(r, t, &at);
    r->d->fn.CmdUpdateBuffer(cb, b->handle, at, sizeof step, &step);
}

/* The nodes of a stage, with a timestamp before and behind them all. */
static pv_status add_nodes(pv_recording *r, const take *k, VkCommandBuffer cb, pv_stage s)
{
    vk_device *d = r->d;
    const pv_graph *g = r->prog->graph;
    uint32_t query = r->first_query[s] + (r->now > 0 ? (uint32_t)r->now * queries_of(r, s) : 0);
    pv_status st = PV_OK;
    vk_barriers(d, r->prog, s, r->now >= 0, r->barrier);
    stamp(r, cb, query);
    for (int i = 0, seen = 0; !st && i < g->n_nodes; i++) {
        if (g->nodes[i]->stage != s)
            continue;
        if (r->barrier[i])
            shaders_before(d, cb);
        if (r->now < 0 || !vk_reads_in_place(d, r->prog, g->nodes[i]))
            st = add_node(r, k, cb, g->nodes[i]);
        if (k->nodes)
            stamp(r, cb, query + 2 + (uint32_t)seen++);
    }
    stamp(r, cb, query + 1);
    return st;
}

/* Does a step's buffer ask which step it is? Not where it reads all rows in place. */
static bool step_is_read(const pv_recording *r)
{
    const pv_graph *g = r->prog->graph;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->stage == PV_STAGE_DENOISE && g->nodes[i]->in[k] == r->prog->step &&
                !vk_reads_in_place(r->d, r->prog, g->nodes[i]))
                return true;
    return false;
}

/* A stage; of denoising a step, or, where one buffer serves all, any. */
static pv_status add_stage(pv_recording *r, const take *k, VkCommandBuffer cb, pv_stage s, int step)
{
    const bool known = s == PV_STAGE_DENOISE && r->unrolled;
    if (known && step_is_read(r)) {
        set_step(r, cb, step);
        everything_before(r->d, cb, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT);
    }
    r->now = known ? step : -1;
    pv_status st = add_nodes(r, k, cb, s);
    r->now = -1;
    return st;
}

/* Stages, a bit each; of denoising n steps. */
static pv_status record_stages(pv_recording *r, const take *k, uint32_t stages, int first_step, int n, VkCommandBuffer *out)
{
    bool begun = false;
    pv_status st = begin(r, out);
    for (int s = 0; !st && s < PV_STAGE_COUNT; s++)
        for (int i = 0; !st && stages >> s & 1 && r->nodes[s] && i < (s == PV_STAGE_DENOISE ? n : 1); i++) {
            if (begun)
                buffer_before(r->d, *out);
            begun = true;
            st = add_stage(r, k, *out, (pv_stage)s, first_step + i);
        }
    return st ? st : end(r, *out);
}

/* What stands around the one buffer of denoising. */
static pv_status record_around(pv_recording *r, int step)
{
    pv_status st = begin(r, &r->before[step]);
    if (st)
        return st;
    set_step(r, r->before[step], step);
    if (r->d->timestamps && step)
        r->d->fn.CmdResetQueryPool(r->before[step], r->queries, r->first_query[PV_STAGE_DENOISE],
                                   queries_of(r, PV_STAGE_DENOISE));
    st = end(r, r->before[step]);
    if (!st)
        st = begin(r, &r->behind[step]);
    if (st)
        return st;
    keep_times(r, r->behind[step], step);
    return end(r, r->behind[step]);
}

static pv_status record_take(pv_recording *r, take *k)
{
    vk_device *d = r->d;
    const bool whole = r->unrolled && r->nodes[PV_STAGE_DENOISE] && !k->nodes;
    const uint32_t n_sets = (whole ? 2 : 1) * r->n_sets + 1;
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, n_sets * VK_BINDINGS};
    VkDescriptorPoolCreateInfo sets = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = n_sets,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    pv_status st = VK_CHECK(d, CreateDescriptorPool, d->handle, &sets, NULL, &k->sets);
    for (int s = 0; !st && s < PV_STAGE_COUNT; s++)
        if (r->nodes[s] && (s != PV_STAGE_DENOISE || !r->unrolled))
            st = record_stages(r, k, 1u << s, 0, 1, &k->stage[s]);
    for (int i = 0; !st && r->nodes[PV_STAGE_DENOISE] && i < r->prog->steps; i++)
        if (r->unrolled)
            st = record_stages(r, k, 1u << PV_STAGE_DENOISE, i, 1, &k->step[i]);
        else
            k->step[i] = k->stage[PV_STAGE_DENOISE];
    return st || !whole ? st : record_stages(r, k, IN_WHOLE, 0, r->prog->steps, &k->whole);
}

static pv_status record_front(pv_recording *r, uint32_t queries)
{
    const pv_buffer *io = r->bufs->buffer[PV_IO];
    const bool fetched = io && io->from;
    if (!fetched && !r->d->timestamps)
        return PV_OK;
    pv_status st = begin(r, &r->front);
    if (st)
        return st;
    if (r->d->timestamps)
        r->d->fn.CmdResetQueryPool(r->front, r->queries, 0, queries);
    if (fetched)
        r->d->fn.CmdCopyBuffer(r->front, io->from->handle, io->handle, 1, &(VkBufferCopy){0, 0, io->bytes});
    return end(r, r->front);
}

static pv_status make_pools(pv_recording *r)
{
    vk_device *d = r->d;
    const pv_graph *g = r->prog->graph;
    uint32_t queries = 0, most = 0;
    pv_status st = make_parts(r);
    if (st)
        return st;
    for (int s = 0; s < PV_STAGE_COUNT; s++) {
        for (int i = 0; i < g->n_nodes; i++)
            r->nodes[s] += g->nodes[i]->stage == (pv_stage)s;
        r->first_query[s] = queries;
        queries += queries_of(r, (pv_stage)s) * (s == PV_STAGE_DENOISE && r->unrolled ? (uint32_t)r->prog->steps : 1);
        most = queries_of(r, (pv_stage)s) > most ? queries_of(r, (pv_stage)s) : most;
    }
    r->stamps = pv_alloc_zero(sizeof *r->stamps * most);
    if (!r->stamps)
        return PV_E_MEMORY;
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = d->family};
    VkQueryPoolCreateInfo asked = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                   .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                   .queryCount = queries};
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    st = VK_CHECK(d, CreateCommandPool, d->handle, &pool, NULL, &r->pool);
    if (!st)
        st = VK_CHECK(d, CreateQueryPool, d->handle, &asked, NULL, &r->queries);
    if (!st)
        st = VK_CHECK(d, CreateFence, d->handle, &fence, NULL, &r->done);
    if (!st)
        st = record_front(r, queries);
    if (st || r->unrolled)
        return st;
    return vk_buffer_make(d, sizeof(uint64_t) * queries_of(r, PV_STAGE_DENOISE) * (size_t)r->prog->steps, true, "timestamps", &r->times);
}

pv_status vk_record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out)
{
    vk_device *d = (vk_device *)be;
    pv_status st = vk_usable(d);
    if (st)
        return st;
    pv_recording *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    *r = (pv_recording){.d = d, .prog = prog, .bufs = bufs, .unrolled = prog->steps <= UNROLL, .now = -1};
    r->plain.nodes = !r->unrolled;
    r->timed.nodes = true;
    size_t steps = (size_t)prog->steps;
    r->plain.step = pv_alloc_zero(sizeof *r->plain.step * (steps + 1));
    r->timed.step = pv_alloc_zero(sizeof *r->timed.step * (steps + 1));
    r->before = pv_alloc_zero(sizeof *r->before * (steps + 1));
    r->behind = pv_alloc_zero(sizeof *r->behind * (steps + 1));
    r->all = pv_alloc_zero(sizeof *r->all * (3 * steps + PV_STAGE_COUNT + 2)); /* front, tail */
    r->barrier = pv_alloc(sizeof *r->barrier * (size_t)(prog->graph->n_nodes + 1));
    bool room = r->plain.step && r->timed.step && r->before && r->behind && r->all && r->barrier;
    st = room ? make_pools(r) : PV_E_MEMORY;
    if (!st)
        st = record_tail(r);
    if (!st)
        st = record_take(r, &r->plain);
    for (int i = 0; !st && !r->unrolled && r->nodes[PV_STAGE_DENOISE] && i < prog->steps; i++)
        st = record_around(r, i);
    if (st)
        vk_discard(r);
    else
        *out = r;
    if (!st)
        vk_cache_save(d);
    return st;
}

/* ---- running ---- */

/* Does a run ask for what `whole` does? */
static bool is_whole(const pv_recording *r, const take *k, const pv_run *run)
{
    uint32_t differs = 0;
    for (int s = 0; s < PV_STAGE_COUNT; s++)
        if (r->nodes[s])
            differs |= (run->stages ^ IN_WHOLE) & 1u << s;
    return k->whole && !differs && !run->first_step && run->n_steps == r->prog->steps;
}

pv_status vk_run(pv_recording *r, const pv_run *run)
{
    uint32_t n = 0;
    pv_status st = vk_usable(r->d);
    take *k = run->nodes && !r->plain.nodes ? &r->timed : &r->plain;
    if (!st && k == &r->timed && !k->sets)
        st = record_take(r, k);
    if (st)
        return st;
    if (r->front)
        r->all[n++] = r->front;
    const bool whole = is_whole(r, k, run);
    if (whole)
        r->all[n++] = k->whole;
    for (int s = 0; s < PV_STAGE_COUNT && !whole; s++) {
        if (!(run->stages >> s & 1) || !r->nodes[s])
            continue;
        if (s != PV_STAGE_DENOISE)
            r->all[n++] = k->stage[s];
        for (int i = run->first_step; s == PV_STAGE_DENOISE && i < run->first_step + run->n_steps; i++) {
            if (!r->unrolled)
                r->all[n++] = r->before[i];
            r->all[n++] = k->step[i];
            if (!r->unrolled)
                r->all[n++] = r->behind[i];
        }
    }
    r->all[n++] = r->tail;
    r->run = *run;
    r->begun_ms = pv_now_ms();
    return vk_submit(r->d, n, r->all, r->done);
}

/* r->stamps: before a stage, behind it and, where nodes are timed, behind each; of denoising those of a step. */
static pv_status read_stamps(pv_recording *r, pv_stage s, int step)
{
    const size_t n = r->run.nodes || r->plain.nodes ? queries_of(r, s) : 2;
    if (s == PV_STAGE_DENOISE && !r->unrolled) {
        memcpy(r->stamps, r->times.host + sizeof *r->stamps * queries_of(r, s) * (size_t)step, sizeof *r->stamps * n);
        return PV_OK;
    }
    return VK_CHECK(r->d, GetQueryPoolResults, r->d->handle, r->queries, r->first_query[s] + (uint32_t)step * queries_of(r, s), (uint32_t)n,
                    sizeof *r->stamps * n, r->stamps, sizeof *r->stamps, VK_QUERY_RESULT_64_BIT);
}

/* Adds up what the stages and nodes of the run took; the times of the first and the last stamp. */
static pv_status add_times(pv_recording *r, pv_run_timing *t, uint64_t *first, uint64_t *last)
{
    const pv_graph *g = r->prog->graph;
    double ms = (double)r->d->limits.timestampPeriod * 1e-6;
    for (int s = 0; s < PV_STAGE_COUNT; s++) {
        bool denoise = s == PV_STAGE_DENOISE;
        if (!(r->run.stages >> s & 1) || !r->nodes[s])
            continue;
        for (int step = 0; step < (denoise ? r->run.n_steps : 1); step++) {
            pv_status st = read_stamps(r, (pv_stage)s, denoise ? r->run.first_step + step : 0);
            if (st)
                return st;
            uint64_t before = r->stamps[0];
            if (!*first)
                *first = before;
            *last = r->stamps[1];
            t->stage_ms[s] += (double)(r->stamps[1] - before) * ms;
            for (int i = 0, k = 2; t->node_ms && r->run.nodes && i < g->n_nodes; i++)
                if (g->nodes[i]->stage == (pv_stage)s) {
                    t->node_ms[i] += (double)(r->stamps[k] - before) * ms;
                    before = r->stamps[k++];
                }
        }
    }
    return PV_OK;
}

pv_status vk_wait(pv_recording *r, pv_run_timing *t)
{
    vk_device *d = r->d;
    pv_status st = vk_usable(d);
    if (!st)
        st = vk_wait_fence(d, r->done);
    if (st)
        vk_settle(d); /* the fence must not be in use when the next run comes */
    if (!st && t) {
        uint64_t first = 0, last = 0;
        if (d->timestamps)
            st = add_times(r, t, &first, &last);
        t->run_ms += d->timestamps ? (double)(last - first) * (double)d->limits.timestampPeriod * 1e-6 : pv_now_ms() - r->begun_ms;
    }
    if (!st && r->run.result) {
        size_t at;
        pv_buffer *b = place(r, r->run.result, &at);
        st = vk_read(&d->base, b, at, r->run.to, pv_tensor_bytes(r->run.result));
    }
    return st;
}
