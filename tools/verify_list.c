/* verify_list.c - what a trace holds as a list of entries: which tensor of the graph each is, in which bounds, in order of
 * execution. */
#include "base/memory.h"
#include "verify_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FULL_WIDTH 1024 /* models as wide as this sum long enough for the wider bounds */

/* Against openpi in f32; measured between openpi and an independent f64 pass: docs/precision.md. */
double verify_bound(const pv_config *c, const trace_name *n)
{
    bool full = c->gemma.width >= FULL_WIDTH;
    bool velocity = n->kind == TRACE_TENSOR ? !strcmp(n->tensor, "step.v_t") : n->part == TRACE_V;
    bool actions = n->kind == TRACE_ACTIONS || (n->kind == TRACE_SCHEDULE && n->part == TRACE_SCHEDULE_ACTIONS);
    if (actions)
        return full ? 5e-6 : 3e-6;
    if (velocity && (n->kind == TRACE_SCHEDULE || n->kind == TRACE_TENSOR))
        return full ? 1.5e-5 : 3e-6;
    return full ? 3e-5 : 1e-5;
}

static const char *const sampled[] = {".sample", ".sample_index", ".valid_l2"};

static int suffix_of(const char *name, size_t *stem)
{
    size_t n = strlen(name);
    for (int i = 0; i < 3; i++) {
        size_t k = strlen(sampled[i]);
        if (n > k && !strcmp(name + n - k, sampled[i])) {
            *stem = n - k;
            return i;
        }
    }
    *stem = n;
    return -1;
}

static verify_entry *entry_of(verify_report *r, const char *name, size_t stem)
{
    for (int i = 0; i < r->n_entries; i++)
        if (strlen(r->entries[i].name) == stem && !strncmp(r->entries[i].name, name, stem))
            return &r->entries[i];
    verify_entry *e = &r->entries[r->n_entries++];
    *e = (verify_entry){.worst = -1};
    snprintf(e->name, sizeof e->name, "%.*s", (int)stem, name);
    return e;
}

/* Steps of the trace. One past the last that has a name; more, if a step's time says that others follow: of S steps, step k
 * is at 1 - k / S. */
static pv_status count_steps(verification *v)
{
    const verify_report *r = v->report;
    int last = -1, by_time = 0;
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        if (e->what.step > last)
            last = e->what.step;
        if (e->what.kind != TRACE_TIME || e->what.step < 1 || !e->whole || e->whole->n_elements != 1)
            continue;
        float *t = trace_floats(v->trace, e->whole);
        if (!t)
            return PV_E_FILE;
        double steps = e->what.step / (1 - (double)*t);
        if (*t < 1 && fabs(steps - round(steps)) < 1e-3 && steps > by_time && steps <= TRACE_MAX_STEPS)
            by_time = (int)round(steps);
        pv_free(t);
    }
    v->steps = last < 0 ? v->c->num_steps : last + 1 > by_time ? last + 1 : by_time;
    return PV_OK;
}

pv_status verify_list(verification *v)
{
    verify_report *r = v->report;
    int n = pv_safetensors_count(v->trace);
    r->entries = pv_alloc_zero(sizeof *r->entries * (size_t)(n + 2));
    if (!r->entries)
        return PV_E_MEMORY;
    for (int i = 0; i < n; i++) {
        const pv_st_tensor *t = pv_safetensors_at(v->trace, i);
        size_t stem;
        int part = suffix_of(t->name, &stem);
        if (stem >= sizeof r->entries->name)
            return pv_fail(PV_E_FILE, "trace: name '%.60s...' is too long", t->name);
        verify_entry *e = entry_of(r, t->name, stem);
        const pv_st_tensor **slot[] = {&e->sample, &e->index, &e->l2};
        if (part < 0)
            e->whole = t;
        else
            *slot[part] = t;
    }
    for (int i = 0; i < r->n_entries; i++) {
        verify_entry *e = &r->entries[i];
        e->what = trace_parse(e->name, v->c, &v->in);
        e->state = e->what.kind == TRACE_NOT_COMPARED ? VERIFY_NOT_COMPARED
                   : e->what.kind == TRACE_UNKNOWN    ? VERIFY_NO_COUNTERPART
                                                      : VERIFY_COMPARED;
        e->why = e->what.kind == TRACE_UNKNOWN ? "no such name in this implementation" : e->what.why;
        if (e->state == VERIFY_COMPARED && !e->whole && !(e->sample && e->index)) {
            e->state = VERIFY_NO_COUNTERPART;
            e->why = "neither whole nor sample with sample_index";
        }
        e->absolute = e->what.kind == TRACE_TIME || e->what.kind == TRACE_PAD_MASK ||
                      (e->what.kind == TRACE_SCHEDULE && e->what.part == TRACE_TIMESTEPS);
        e->bound = e->absolute ? 0x1p-23 : v->params->bound > 0 ? v->params->bound : verify_bound(v->c, &e->what);
        e->gated = verify_gate_bound(v->params->gate, e->name, VERIFY_SUM, &e->bound);
    }
    return count_steps(v);
}

/* Stage, step, then the node that makes it: entries are listed as the plan runs. */
static uint64_t order_of(const verification *v, const verify_entry *e)
{
    const pv_graph *g = v->probe->plan->graph;
    uint64_t stage = e->what.kind == TRACE_ACTIONS ? 6 : e->what.kind == TRACE_SCHEDULE ? 7 : 0, node = 0;
    if (e->ours && e->ours->producer) {
        stage = (uint64_t)e->ours->producer->stage + 1;
        while (g->nodes[node] != e->ours->producer)
            node++;
    } else if (e->what.step >= 0) {
        stage = !strcmp(e->what.tensor, "step.x_t") ? PV_STAGE_DENOISE + 1 : PV_STAGE_SCHEDULE + 1;
    }
    uint64_t step = e->what.step >= 0 ? (uint64_t)e->what.step : 0;
    uint64_t view = e->what.view >= 0 ? (uint64_t)e->what.view : 0;
    return stage << 56 | step << 32 | node << 8 | view;
}

static int by_order(const void *a, const void *b)
{
    const verify_entry *x = a, *y = b;
    return x->order != y->order ? (x->order < y->order ? -1 : 1) : strcmp(x->name, y->name);
}

void verify_sort(verify_report *r)
{
    qsort(r->entries, (size_t)r->n_entries, sizeof *r->entries, by_order);
}

void verify_find_ours(verification *v)
{
    for (int i = 0; i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->state == VERIFY_COMPARED && e->what.kind == TRACE_TENSOR) {
            e->ours = pv_graph_find(v->probe->plan->graph, e->what.tensor);
            if (!e->ours || e->ours->usage == PV_WEIGHT) {
                e->state = VERIFY_NO_COUNTERPART;
                e->why = "no tensor of the graph has this name";
            }
        }
        e->order = order_of(v, e);
    }
    verify_sort(v->report);
}

int64_t verify_width(const verify_entry *e, const pv_config *c)
{
    return e->ours && e->ours->n_dims > 1 ? pv_width(e->ours) : e->ours ? 1 : c->action_dim;
}
