/* verify_trace.c - runs a trace's inputs and compares what the trace holds.
 *
 * Two plans run. The probe keeps every traced tensor as an output, so nothing traced is pruned, swallowed by a fusion or
 * overwritten. Production is what `run` uses. On the CPU both give the same action bytes. */
#include "base/memory.h"
#include "session/schedule.h"
#include "verify_trace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- comparing ---- */

/* Elements that the tensor has in the trace, were it whole. */
static int64_t trace_elements(const verification *v, const verify_entry *e, int64_t n_ours)
{
    int64_t width = verify_width(e, v->c);
    return e->what.rows == TRACE_ALL ? n_ours : v->in.n_prefix * width;
}

/* Rows past the valid ones are nobody's: only mapped elements are looked at. */
static pv_status compare_entry(verification *v, verify_entry *e, const float *ours, int64_t n_ours)
{
    int64_t width = verify_width(e, v->c), n = trace_elements(v, e, n_ours);
    compare c = compare_begin();
    if (v->params->dump) {
        e->kept = pv_alloc_zero(pv_mul_size(sizeof(float), (size_t)n));
        e->n_kept = n;
        if (!e->kept)
            return PV_E_MEMORY;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = trace_map(&e->what, &v->in, v->c, width, i);
            if (at >= 0 && at < n_ours)
                e->kept[i] = ours[at];
        }
    }
    const pv_st_tensor *t = e->whole ? e->whole : e->sample;
    if (t->n_elements != (e->whole ? n : e->index->n_elements) || t->n_elements == 0 || (e->l2 && e->l2->n_elements != 1)) {
        e->state = VERIFY_NO_COUNTERPART;
        e->why = "another number of elements";
        return PV_OK;
    }
    float *ref = trace_floats(v->trace, t), *l2 = NULL;
    pv_status st = ref ? PV_OK : PV_E_FILE;
    int32_t *at_index = NULL;
    if (!st && !e->whole) { /* indices as integers: f32 does not hold them all */
        at_index = pv_alloc(sizeof *at_index * (size_t)(t->n_elements + 1));
        st = !at_index ? PV_E_MEMORY
             : e->index->dtype == PV_I32
                 ? pv_safetensors_read(v->trace, e->index, 0, e->index->n_elements, at_index)
                 : pv_fail(PV_E_FILE, "trace: tensor '%s': expected I32", e->index->name);
    }
    for (int64_t k = 0; !st && k < t->n_elements; k++) {
        int64_t i = e->whole ? k : at_index[k];
        if (i < 0 || i >= n) {
            st = pv_fail(PV_E_FILE, "trace: '%s.sample_index' holds %lld, of %lld elements", e->name, (long long)i,
                         (long long)n);
            break;
        }
        int64_t at = trace_map(&e->what, &v->in, v->c, width, i);
        if (at >= 0 && at < n_ours)
            compare_add(&c, i, (double)ours[at], (double)ref[k]);
    }
    if (!st && e->l2 && (l2 = trace_floats(v->trace, e->l2))) { /* the norm stands in for all that was not sampled */
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = trace_map(&e->what, &v->in, v->c, width, i);
            if (at >= 0 && at < n_ours)
                sum += (double)ours[at] * (double)ours[at];
        }
        double off = fabs(sqrt(sum) / (double)l2[0] - 1);
        e->relative_l2 = off; /* the larger of both counts */
    }
    distance d = compare_end(&c, false);
    e->relative_l2 = d.relative_l2 > e->relative_l2 || isnan(d.relative_l2) ? d.relative_l2 : e->relative_l2;
    e->max_abs = d.max_abs;
    e->mean_abs = d.mean_abs;
    e->max_spread = d.max_spread;
    e->centred_cosine = d.centred_cosine;
    e->cosine = d.cosine;
    e->worst = d.worst;
    double judged = e->absolute ? e->max_abs : e->relative_l2;
    e->ok = c.finite && c.n > 0 && judged <= e->bound;
    if (c.n == 0) {
        e->state = VERIFY_NOT_COMPARED;
        e->why = "all rows masked";
    }
    pv_free(ref);
    pv_free(l2);
    pv_free(at_index);
    return st;
}

/* The entry's part of its tensor in the probe as f32: one view, one step, or all of it. */
static pv_status compare_tensor(verification *v, verify_entry *e)
{
    const pv_tensor *t = e->ours;
    int64_t n = pv_elements(t), first = 0;
    if (t->per_step) {
        n /= t->dim[0];
        first = n * (e->what.step % (int)t->dim[0]);
    } else if (e->what.view >= 0) {
        n /= v->in.views;
        first = n * e->what.view;
    }
    size_t at = pv_dtype_bytes(t->dtype, (size_t)first), bytes = pv_dtype_bytes(t->dtype, (size_t)n);
    void *raw = pv_alloc(bytes);
    float *f = pv_alloc(pv_mul_size(sizeof *f, (size_t)n));
    pv_status st = raw && f ? pv_instance_read(v->probe->inst, t, at, raw, bytes) : PV_E_MEMORY;
    if (!st && t->dtype == PV_I32)
        for (int64_t i = 0; i < n; i++)
            f[i] = (float)((const int32_t *)raw)[i];
    else if (!st)
        pv_to_f32(f, raw, t->dtype, (size_t)n);
    if (!st)
        st = compare_entry(v, e, f, n);
    pv_free(raw);
    pv_free(f);
    return st;
}

/* ---- running ---- */

static pv_status feed(const verification *v, pv_runner *r)
{
    pv_status st = pv_runner_prompt(r, v->in.tokens, v->in.n_valid);
    if (!st)
        st = pv_runner_images(r, v->in.images);
    return st ? st : pv_runner_noise(r, v->in.noise);
}

/* Before the first step (done 0) and after each: x_t belongs to the step to come, all else to the one that ended. */
static pv_status on_step(void *user, int done)
{
    verification *v = user;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->state != VERIFY_COMPARED || e->what.kind != TRACE_TENSOR || e->what.step < 0)
            continue;
        bool before = !strcmp(e->what.tensor, "step.x_t");
        if (e->what.step == (before ? done : done - 1))
            st = compare_tensor(v, e);
    }
    return st;
}

static pv_status compare_times(verification *v)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->state != VERIFY_COMPARED)
            continue;
        if (e->what.kind == TRACE_TIME)
            st = compare_entry(v, e, &v->times[e->what.step], 1);
        if (e->what.kind == TRACE_PAD_MASK) {
            float *mask = pv_alloc(sizeof *mask * (size_t)v->in.n_prefix);
            for (int64_t k = 0; mask && k < v->in.n_prefix; k++)
                mask[k] = v->in.packed[k] >= 0;
            e->what.rows = TRACE_ALL;
            st = mask ? compare_entry(v, e, mask, v->in.n_prefix) : PV_E_MEMORY;
            pv_free(mask);
        }
    }
    return st;
}

static pv_status run_probe(verification *v)
{
    pv_status st = feed(v, v->probe);
    if (!st)
        st = compare_times(v);
    if (!st)
        st = pv_runner_prefix(v->probe, NULL);
    for (int i = 0; !st && i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->state == VERIFY_COMPARED && e->what.kind == TRACE_TENSOR && e->what.step < 0)
            st = compare_tensor(v, e);
    }
    if (!st)
        st = pv_runner_denoise(v->probe, v->times, v->dt, v->steps, NULL, on_step, v);
    if (!st)
        st = pv_runner_actions(v->probe, v->actions);
    for (int i = 0; !st && i < v->report->n_entries; i++)
        if (v->report->entries[i].what.kind == TRACE_ACTIONS)
            st = compare_entry(v, &v->report->entries[i], v->actions, (int64_t)v->c->horizon * v->c->action_dim);
    return st;
}

static pv_status run_production(verification *v)
{
    size_t n = (size_t)v->c->horizon * (size_t)v->c->action_dim;
    float *actions = pv_alloc(sizeof *actions * n);
    pv_status st = actions ? feed(v, v->production) : PV_E_MEMORY;
    if (!st)
        st = pv_runner_prefix(v->production, NULL);
    if (!st)
        st = pv_runner_denoise(v->production, v->times, v->dt, v->steps, NULL, NULL, NULL);
    if (!st)
        st = pv_runner_actions(v->production, actions);
    v->report->production_equal = !st && !memcmp(actions, v->actions, sizeof *actions * n);
    for (int i = 0, m = v->report->n_entries; !st && i < m; i++) { /* the same bounds for what production holds */
        const verify_entry *e = &v->report->entries[i];
        if (e->what.kind != TRACE_ACTIONS || e->state != VERIFY_COMPARED)
            continue;
        verify_entry *p = &v->report->entries[v->report->n_entries++];
        *p = *e;
        p->kept = NULL;
        snprintf(p->name, sizeof p->name, "out.actions (production)");
        verify_params quiet = *v->params;
        quiet.dump = NULL;
        const verify_params *was = v->params;
        v->params = &quiet;
        st = compare_entry(v, p, actions, (int64_t)n);
        v->params = was;
    }
    pv_free(actions);
    return st;
}

static pv_status keep_velocity(void *user, int done)
{
    verification *v = user;
    size_t bytes = pv_tensor_bytes(v->v_t);
    return done ? pv_instance_read(v->probe->inst, v->v_t, 0, (char *)v->sched_v + bytes * (size_t)(done - 1), bytes)
                : PV_OK;
}

/* sched.KIND.*: that schedule at the trace's own times; our own times are checked apart. */
static pv_status run_schedule(verification *v, verify_entry *timesteps)
{
    const char *kind = timesteps->what.schedule;
    int64_t chunk = (int64_t)v->c->horizon * v->c->action_dim;
    int steps = timesteps->whole ? (int)timesteps->whole->n_elements - 1 : 0;
    if (steps < 1 || steps > PV_MAX_STEPS)
        return pv_fail(PV_E_FILE, "trace: '%s': expected 2 or more times", timesteps->name);
    float *theirs = trace_floats(v->trace, timesteps->whole);
    float *times = pv_alloc(sizeof(float) * (size_t)(steps + 1)), *dt = pv_alloc(sizeof(float) * (size_t)steps);
    v->sched_v = pv_alloc(pv_mul_size(sizeof(float) * (size_t)chunk, (size_t)steps));
    float *actions = pv_alloc(sizeof(float) * (size_t)chunk);
    pv_status st = theirs && times && dt && v->sched_v && actions ? PV_OK : PV_E_MEMORY;
    if (!st && !strcmp(kind, "custom")) { /* `run` with times from a file */
        timesteps->state = VERIFY_NOT_COMPARED;
        timesteps->why = "the caller's own times";
    } else if (!st && pv_schedule_times(kind, steps, times, dt)) { /* still run at the trace's times */
        timesteps->state = VERIFY_NO_COUNTERPART;
        timesteps->why = "no schedule has this name";
    } else if (!st) {
        st = compare_entry(v, timesteps, times, steps + 1);
    }
    for (int i = 0; !st && i < steps; i++)
        dt[i] = theirs[i + 1] - theirs[i];
    if (!st)
        st = pv_runner_noise(v->probe, v->in.noise);
    if (!st)
        st = pv_runner_denoise(v->probe, theirs, dt, steps, NULL, keep_velocity, v);
    if (!st)
        st = pv_runner_actions(v->probe, actions);
    for (int i = 0; !st && i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->what.kind != TRACE_SCHEDULE || strcmp(e->what.schedule, kind))
            continue;
        if (e->what.part == TRACE_V)
            st = compare_entry(v, e, v->sched_v, chunk * steps);
        else if (e->what.part == TRACE_SCHEDULE_ACTIONS)
            st = compare_entry(v, e, actions, chunk);
    }
    pv_free(theirs);
    pv_free(times);
    pv_free(dt);
    pv_free(actions);
    pv_free(v->sched_v);
    v->sched_v = NULL;
    return st;
}

static pv_status run_schedules(verification *v)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && i < v->report->n_entries; i++) {
        verify_entry *e = &v->report->entries[i];
        if (e->what.kind != TRACE_SCHEDULE || e->state != VERIFY_COMPARED)
            continue;
        bool has_times = false;
        for (int k = 0; k < v->report->n_entries; k++) {
            const trace_name *n = &v->report->entries[k].what;
            has_times |= n->kind == TRACE_SCHEDULE && n->part == TRACE_TIMESTEPS && !strcmp(n->schedule, e->what.schedule);
        }
        if (!has_times) {
            e->state = VERIFY_NO_COUNTERPART;
            e->why = "the trace has no timesteps for this schedule";
        } else if (e->what.part == TRACE_TIMESTEPS) {
            st = run_schedule(v, e);
        }
    }
    return st;
}

/* ---- all of it ---- */

static bool keep(void *user, const char *tensor)
{
    const verification *v = user;
    for (int i = 0; i < v->report->n_entries; i++) {
        const trace_name *n = &v->report->entries[i].what;
        if (n->kind == TRACE_TENSOR && !strcmp(n->tensor, tensor))
            return true;
    }
    return !strcmp(tensor, "step.v_t");
}

static pv_status make_runners(verification *v, pv_backend *be, pv_weights *weights, pv_progress_fn progress, void *user)
{
    int exact = v->in.n_valid > 0 ? v->in.n_valid : 1;
    pv_runner_params probe = {.shape = {v->in.views, exact, false}, .recipe = v->params->recipe, .steps = v->steps,
                              .expand = v->params->expand, .keep = keep, .user = v};
    pv_runner_params production = {.shape = {v->in.views, v->c->max_tokens, false}, .recipe = v->params->recipe,
                                   .expand = v->params->expand, .steps = v->steps};
    pv_status st = pv_runner_create(v->model, be, &probe, &v->probe);
    if (!st)
        st = pv_runner_create(v->model, be, &production, &v->production);
    if (!st)
        st = pv_weights_load(weights, v->probe->plan->graph, progress, user);
    if (!st)
        st = pv_weights_load(weights, v->production->plan->graph, progress, user);
    if (!st)
        st = pv_runner_start(v->probe, weights);
    if (!st)
        st = pv_runner_start(v->production, weights);
    if (!st) {
        v->v_t = pv_graph_find(v->probe->plan->graph, "step.v_t");
        verify_find_ours(v);
    }
    return st;
}

static void conclude(verify_report *r)
{
    verify_sort(r);
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        bool failed = e->state == VERIFY_NO_COUNTERPART || (e->state == VERIFY_COMPARED && !e->ok);
        r->n_compared += e->state == VERIFY_COMPARED;
        r->n_failed += failed;
        if (failed && !r->first_failed)
            r->first_failed = e;
    }
}

pv_status verify_trace(pv_model *model, pv_backend *be, const verify_params *params, pv_progress_fn progress, void *user,
                       verify_report *out)
{
    verification v = {.model = model, .c = &model->config, .report = out, .params = params};
    pv_weights *weights = NULL;
    *out = (verify_report){0};
    pv_status st = pv_safetensors_open(params->trace, &v.trace);
    if (!st)
        st = pv_fail_in(trace_read_inputs(v.trace, v.c, &v.in), "%s", params->trace);
    if (!st)
        st = verify_list(&v);
    if (!st) {
        v.times = pv_alloc(sizeof(float) * (size_t)(v.steps + 1));
        v.dt = pv_alloc(sizeof(float) * (size_t)v.steps);
        v.actions = pv_alloc(sizeof(float) * (size_t)v.c->horizon * (size_t)v.c->action_dim);
        st = v.times && v.dt && v.actions ? pv_schedule_times("openpi", v.steps, v.times, v.dt) : PV_E_MEMORY;
    }
    if (!st)
        st = pv_model_embedding(model, progress, user);
    if (!st)
        st = pv_weights_create(be, &model->source, &weights);
    if (!st)
        st = make_runners(&v, be, weights, progress, user);
    if (!st)
        st = run_probe(&v);
    if (!st)
        st = run_schedules(&v);
    if (!st)
        st = run_production(&v);
    if (!st)
        conclude(out);
    if (!st && params->dump)
        st = verify_write_dump(&v, params->dump);
    out->steps = v.steps;
    out->views = v.in.views;
    out->prompt_tokens = v.in.n_valid;
    out->prefix_tokens = v.in.views * pv_image_tokens(v.c) + v.in.n_valid;
    for (int i = 0; i < out->n_entries; i++) /* these point into what goes now */
        out->entries[i].whole = out->entries[i].sample = out->entries[i].index = out->entries[i].l2 = NULL,
        out->entries[i].ours = NULL;
    pv_runner_destroy(&v.probe);
    pv_runner_destroy(&v.production);
    pv_weights_destroy(&weights);
    trace_free_inputs(&v.in);
    pv_safetensors_close(&v.trace);
    pv_free(v.times);
    pv_free(v.dt);
    pv_free(v.actions);
    return st;
}

void verify_free(verify_report *r)
{
    for (int i = 0; i < r->n_entries; i++) {
        pv_free(r->entries[i].kept);
        for (int c = 0; c < VERIFY_CURVES; c++)
            pv_free(r->entries[i].curve[c]);
    }
    pv_free(r->entries);
    *r = (verify_report){0};
}
