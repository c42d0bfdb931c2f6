/* measure.c - medians and errors, and small graphs of ops at work on a backend. */
#include "lab.h"
#include "base/memory.h"
#include "session/session.h"

#include <stdlib.h>

/* ---- times ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, int n, double p) /* between the two nearest, linearly */
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

lab_time lab_summary(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    return (lab_time){n, quantile(ms, n, 0.5), quantile(ms, n, 0.25), quantile(ms, n, 0.75)};
}

pv_status lab_measure_ways(lab *l, const char *what, int n, pv_status (*run)(void *user, int way, double *ms),
                           void *user, lab_time *out)
{
    double *ms = pv_alloc(pv_mul_size(sizeof *ms * (size_t)l->runs, (size_t)n)), ignored;
    pv_status st = ms ? PV_OK : PV_E_MEMORY;
    for (int i = -l->warmup; !st && i < l->runs; i++)
        for (int way = 0; !st && way < n; way++) {
            cli_note(&l->bar, "%s: run %d of %d", what, i < 0 ? 0 : i + 1, l->runs);
            st = run(user, way, i < 0 ? &ignored : &ms[way * l->runs + i]);
        }
    for (int way = 0; !st && way < n; way++)
        out[way] = lab_summary(ms + (size_t)way * (size_t)l->runs, l->runs);
    cli_progress_end(&l->bar);
    pv_free(ms);
    return st;
}

typedef struct one_way {
    pv_status (*run)(void *user, double *ms);
    void *user;
} one_way;

static pv_status run_one_way(void *user, int way, double *ms)
{
    const one_way *o = user;
    (void)way;
    return o->run(o->user, ms);
}

pv_status lab_measure(lab *l, const char *what, pv_status (*run)(void *user, double *ms), void *user,
                      lab_time *out)
{
    return lab_measure_ways(l, what, 1, run_one_way, &(one_way){run, user}, out);
}

/* ---- errors ---- */

static double relative(double difference, double size)
{
    return difference > 0 ? sqrt(difference / size) : difference; /* a NaN stays one */
}

double lab_error(const float *x, const double *y, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - y[i];
        difference += d * d;
        size += y[i] * y[i];
    }
    return relative(difference, size);
}

double lab_error_f32(const float *x, const float *y, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        difference += d * d;
        size += (double)y[i] * (double)y[i];
    }
    return relative(difference, size);
}

double lab_cosine(const float *x, const double *y, size_t n)
{
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        xy += (double)x[i] * y[i];
        xx += (double)x[i] * (double)x[i];
        yy += y[i] * y[i];
    }
    return xy / sqrt(xx * yy);
}

double lab_max_abs(const float *x, const double *y, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - y[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

void lab_random(uint64_t seed, float *x, size_t n)
{
    pv_session_noise(seed, x, n);
}

/* ---- small graphs ---- */

static pv_status clear(pv_instance *inst, const pv_tensor *t)
{
    enum { PIECE = 1 << 20 };
    size_t bytes = pv_tensor_bytes(t);
    char *zeros = pv_alloc_zero(bytes < PIECE ? bytes : PIECE);
    pv_status st = zeros ? PV_OK : PV_E_MEMORY;
    for (size_t at = 0; !st && at < bytes; at += PIECE)
        st = pv_instance_write(inst, t, at, zeros, bytes - at < PIECE ? bytes - at : PIECE);
    pv_free(zeros);
    return st;
}

pv_status lab_small_make(pv_backend *be, pv_graph **g, const pv_plan_params *params, lab_small *out)
{
    pv_plan_params p = params ? *params : (pv_plan_params){0};
    p.steps = p.steps ? p.steps : 1;
    *out = (lab_small){.steps = p.steps};
    if (!*g)
        return PV_E_MEMORY;
    pv_status st = pv_plan_create(be, g, &p, &out->plan);
    if (!st)
        st = pv_instance_create(out->plan, NULL, &out->inst);
    for (int i = 0; !st && i < out->plan->graph->n_tensors; i++) {
        const pv_tensor *t = out->plan->graph->tensors[i];
        if (!t->producer && (t->usage == PV_STATE || t->usage == PV_IO) && t->offset != PV_NOWHERE)
            st = clear(out->inst, t);
    }
    if (st)
        lab_small_free(out);
    return st;
}

void lab_small_free(lab_small *s)
{
    pv_instance_destroy(&s->inst);
    pv_plan_destroy(&s->plan);
}

static pv_status tensor(const lab_small *s, const char *name, const pv_tensor **out)
{
    *out = pv_graph_find(s->plan->graph, name);
    return *out ? PV_OK : pv_fail(PV_E_ARG, "the plan has no tensor '%s'", name);
}

pv_status lab_small_set(lab_small *s, const char *name, const float *x)
{
    const pv_tensor *t;
    pv_status st = tensor(s, name, &t);
    char *bytes = st ? NULL : pv_alloc(pv_tensor_bytes(t));
    if (!st && !bytes)
        st = PV_E_MEMORY;
    if (!st) {
        pv_from_f32(bytes, x, t->dtype, (size_t)pv_elements(t));
        st = pv_instance_write(s->inst, t, 0, bytes, pv_tensor_bytes(t));
    }
    pv_free(bytes);
    return st;
}

pv_status lab_small_count(lab_small *s, const char *name, int32_t value)
{
    const pv_tensor *t;
    pv_status st = tensor(s, name, &t);
    return st ? st : pv_instance_write(s->inst, t, 0, &value, sizeof value);
}

pv_status lab_small_get(lab_small *s, const char *name, float *x)
{
    const pv_tensor *t;
    pv_status st = tensor(s, name, &t);
    char *bytes = st ? NULL : pv_alloc(pv_tensor_bytes(t));
    if (!st && !bytes)
        st = PV_E_MEMORY;
    if (!st)
        st = pv_instance_read(s->inst, t, 0, bytes, pv_tensor_bytes(t));
    if (!st)
        pv_to_f32(x, bytes, t->dtype, (size_t)pv_elements(t));
    pv_free(bytes);
    return st;
}

pv_status lab_small_run(lab_small *s, double *ms)
{
    pv_run_timing t = {{0}};
    uint32_t stages = 0;
    for (int i = 0; i < s->plan->graph->n_nodes; i++)
        stages |= 1u << s->plan->graph->nodes[i]->stage;
    pv_status st = pv_instance_run(s->inst, (pv_run){.stages = stages, .n_steps = s->steps}, &t);
    *ms = t.run_ms;
    return st;
}

static pv_status run_once(void *user, double *ms)
{
    return lab_small_run(user, ms);
}

pv_status lab_small_time(lab *l, const char *what, lab_small *s, lab_time *out)
{
    return lab_measure(l, what, run_once, s, out);
}
