/* instance.c - buffers, weights, constants and the recording of one plan, and the way in and out of its tensors. */
#include "instance.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static pv_status bind_weights(pv_instance *inst, const pv_weights *weights)
{
    const pv_graph *g = inst->plan->graph;
    pv_buffer **by_id = pv_alloc_zero(sizeof *by_id * (size_t)(g->n_tensors + 1));
    if (!by_id)
        return PV_E_MEMORY;
    inst->buffers.weight = by_id;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            const pv_tensor *t = g->nodes[i]->in[k];
            if (t->usage != PV_WEIGHT)
                continue;
            by_id[t->id] = pv_weights_buffer(weights, t);
            if (!by_id[t->id])
                return pv_fail(PV_E_ARG, "weight '%s' is not loaded", t->name);
        }
    return PV_OK;
}

static pv_status write_constants(pv_instance *inst)
{
    const pv_graph *g = inst->plan->graph;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < g->n_nodes; i++)
        for (int k = 0; !st && k < g->nodes[i]->n_in; k++) {
            const pv_tensor *t = g->nodes[i]->in[k];
            if (t->usage == PV_CONST)
                st = pv_instance_write(inst, t, 0, t->data, pv_tensor_bytes(t));
        }
    return st;
}

pv_status pv_instance_create(const pv_plan *plan, const pv_weights *weights, pv_instance **out)
{
    *out = NULL;
    pv_backend *be = plan->backend;
    pv_instance *inst = pv_alloc_zero(sizeof *inst);
    if (!inst)
        return PV_E_MEMORY;
    inst->plan = plan;
    pv_status st = bind_weights(inst, weights);
    for (int u = PV_WEIGHT + 1; !st && u < PV_USAGE_COUNT; u++)
        if (plan->program.bytes[u])
            st = be->vt->alloc(be, plan->program.bytes[u], (pv_usage)u, &inst->buffers.buffer[u]);
    if (!st)
        st = write_constants(inst);
    if (!st)
        st = be->vt->record(be, &plan->program, &inst->buffers, &inst->recording);
    if (st) {
        pv_no_room(st, plan->graph, plan->program.bytes);
        pv_instance_destroy(&inst);
    }
    *out = inst;
    return st;
}

void pv_instance_destroy(pv_instance **inst)
{
    pv_instance *i = *inst;
    if (!i)
        return;
    const pv_backend_vt *vt = i->plan->backend->vt;
    if (i->recording)
        vt->discard(i->recording);
    for (int u = 0; u < PV_USAGE_COUNT; u++)
        if (i->buffers.buffer[u])
            vt->release(i->plan->backend, i->buffers.buffer[u]);
    pv_free((void *)i->buffers.weight);
    pv_free(i);
    *inst = NULL;
}

static pv_status check_range(const pv_tensor *t, size_t at, size_t n)
{
    size_t bytes = t->usage == PV_WEIGHT || t->offset == PV_NOWHERE ? 0 : pv_tensor_bytes(t);
    if (at > bytes || n > bytes - at)
        return pv_fail(PV_E_SHAPE, "'%s' has %zu bytes that can be reached, asked for %zu at %zu", t->name, bytes, n, at);
    return PV_OK;
}

pv_status pv_instance_write(pv_instance *inst, const pv_tensor *t, size_t at, const void *src, size_t n)
{
    pv_backend *be = inst->plan->backend;
    pv_status st = check_range(t, at, n);
    return st || !n ? st : be->vt->write(be, inst->buffers.buffer[t->usage], t->offset + at, src, n);
}

pv_status pv_instance_read(pv_instance *inst, const pv_tensor *t, size_t at, void *dst, size_t n)
{
    pv_backend *be = inst->plan->backend;
    pv_status st = check_range(t, at, n);
    return st || !n ? st : be->vt->read(be, inst->buffers.buffer[t->usage], t->offset + at, dst, n);
}

void *pv_instance_map(pv_instance *inst, const pv_tensor *t)
{
    pv_backend *be = inst->plan->backend;
    return (char *)be->vt->map(be, inst->buffers.buffer[PV_IO]) + t->offset;
}

pv_status pv_instance_begin(pv_instance *inst, uint32_t stages)
{
    const pv_backend_vt *vt = inst->plan->backend->vt;
    if (!vt->begin)
        return PV_OK;
    inst->begun = true; /* also where it failed half way */
    return vt->begin(inst->recording, stages);
}

pv_status pv_instance_abandon(pv_instance *inst, pv_status st)
{
    char words[1024];
    if (!inst->begun)
        return st;
    snprintf(words, sizeof words, "%s", pv_error_text());
    pv_status waited = inst->plan->backend->vt->wait(inst->recording, NULL);
    inst->begun = false;
    return st ? pv_fail(st, "%s", words) : waited;
}

pv_status pv_instance_run(pv_instance *inst, pv_run run, pv_run_timing *timing)
{
    const pv_backend_vt *vt = inst->plan->backend->vt;
    if (run.first_step < 0 || run.n_steps < 0 || run.n_steps > inst->plan->program.steps - run.first_step)
        return pv_fail(PV_E_ARG, "steps %d to %d: the plan has %d", run.first_step, run.first_step + run.n_steps - 1,
                       inst->plan->program.steps);
    run.nodes = timing && timing->node_ms;
    pv_status st = run.result ? check_range(run.result, 0, pv_tensor_bytes(run.result)) : PV_OK;
    if (!st)
        st = vt->submit(inst->recording, &run);
    if (!st) {
        inst->begun = false;
        st = vt->wait(inst->recording, timing);
    }
    return st;
}
