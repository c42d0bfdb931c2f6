/* integrate.c - see integrate.h. dx/dt = v(x, t) from t = 1 to 0.
 *
 *   Euler      x + h v(x, t)
 *   Heun       x + h/2 (v(x, t) + v(x + h v(x, t), t + h))
 *   midpoint   x + h v(x + h/2 v(x, t), t + h/2)
 *
 * The backend has float32 for x and t, and whatever its recipe has for v: sums are float64, so it is these
 * that are left of an error when the steps are many. */
#include "integrate.h"
#include "base/memory.h"

#include <string.h>

#define ROWS 50 /* times whose tables are held at once */

static bool is_velocity(void *user, const char *tensor)
{
    (void)user;
    return !strcmp(tensor, "step.v_t");
}

pv_status lab_flow_open(lab *l, lab_flow *f)
{
    *f = (lab_flow){.n = l->policy->chunk};
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = ROWS, .keep = is_velocity}, &f->r);
    if (st)
        return st;
    f->v_t = pv_graph_find(f->r->plan->graph, "step.v_t");
    if (!f->v_t)
        return pv_fail(PV_E_UNSUPPORTED, "the plan has no tensor 'step.v_t'");
    f->raw = pv_alloc(pv_tensor_bytes(f->v_t));
    f->x = pv_alloc(sizeof *f->x * f->n);
    f->v = pv_alloc(sizeof *f->v * f->n);
    f->x1 = pv_alloc(sizeof *f->x1 * f->n);
    f->v1 = pv_alloc(sizeof *f->v1 * f->n);
    f->at = pv_alloc_zero(sizeof *f->at * 2 * ROWS); /* behind the times, widths: not used, and none is NaN */
    return f->raw && f->x && f->v && f->x1 && f->v1 && f->at ? PV_OK : PV_E_MEMORY;
}

void lab_flow_close(lab_flow *f)
{
    pv_runner_destroy(&f->r);
    pv_free(f->raw);
    pv_free(f->x);
    pv_free(f->v);
    pv_free(f->x1);
    pv_free(f->v1);
    pv_free(f->at);
    *f = (lab_flow){0};
}

/* ---- one velocity ---- */

/* Evaluations in a row: of evaluation i, its time. */
static double time_of(lab_method method, const double *times, int i)
{
    if (method == LAB_EULER)
        return times[i];
    int k = i / 2;
    return i % 2 == 0 ? times[k] : method == LAB_HEUN ? times[k + 1] : (times[k] + times[k + 1]) / 2;
}

static pv_status fill_tables(lab_flow *f, lab_method method, const double *times, int steps, int first)
{
    int n = (method == LAB_EULER ? steps : 2 * steps) - first;
    f->first = first;
    f->held = n < ROWS ? n : ROWS;
    for (int i = 0; i < f->held; i++)
        f->at[i] = (float)time_of(method, times, first + i);
    return pv_runner_tables(f->r, f->at, f->at + ROWS, f->held, NULL);
}

/* v(x, time of evaluation i) into f->v. */
static pv_status velocity(lab_flow *f, lab_method method, const double *times, int steps, int i,
                          const double *x)
{
    pv_status st = i < f->first + f->held ? PV_OK : fill_tables(f, method, times, steps, i);
    for (size_t k = 0; k < f->n; k++)
        f->x[k] = (float)x[k];
    if (!st)
        st = pv_runner_noise(f->r, f->x);
    if (!st)
        st = pv_instance_run(
            f->r->inst, (pv_run){.stages = 1u << PV_STAGE_DENOISE, .first_step = i - f->first, .n_steps = 1},
            NULL);
    if (!st)
        st = pv_instance_read(f->r->inst, f->v_t, 0, f->raw, pv_tensor_bytes(f->v_t));
    if (!st)
        pv_to_f32(f->v, f->raw, f->v_t->dtype, f->n);
    return st;
}

/* ---- methods ---- */

static pv_status step(lab_flow *f, lab_method method, const double *times, int steps, int k, double *x)
{
    double h = times[k + 1] - times[k], part = method == LAB_HEUN ? h : h / 2;
    pv_status st = velocity(f, method, times, steps, method == LAB_EULER ? k : 2 * k, x);
    for (size_t i = 0; !st && method != LAB_EULER && i < f->n; i++) {
        f->v1[i] = (double)f->v[i];
        f->x1[i] = x[i] + part * f->v1[i];
    }
    if (!st && method != LAB_EULER)
        st = velocity(f, method, times, steps, 2 * k + 1, f->x1);
    for (size_t i = 0; !st && i < f->n; i++)
        x[i] += method == LAB_HEUN ? h / 2 * (f->v1[i] + (double)f->v[i]) : h * (double)f->v[i];
    return st;
}

pv_status lab_flow_run(lab *l, lab_flow *f, lab_method method, const double *times, int steps, double *x)
{
    pv_status st = fill_tables(f, method, times, steps, 0);
    for (int k = 0; !st && k < steps; k++) {
        if (k % 50 == 0)
            cli_note(&l->bar, "integrating: step %d of %d", k, steps);
        st = step(f, method, times, steps, k, x);
    }
    cli_progress_end(&l->bar);
    return st;
}

pv_status lab_flow_reference(lab *l, lab_flow *f, int n, double *x, double *own)
{
    double *times = pv_alloc(sizeof *times * (size_t)(n + 1)), *half = pv_alloc(sizeof *half * f->n);
    pv_status st = times && half ? PV_OK : PV_E_MEMORY;
    for (int pass = own ? 0 : 1; !st && pass < 2; pass++) {
        int steps = pass ? n : (n + 1) / 2;
        double *to = pass ? x : half;
        for (int k = 0; k <= steps; k++)
            times[k] = 1 - (double)k / steps;
        for (size_t i = 0; i < f->n; i++)
            to[i] = (double)l->policy->noise[i];
        st = lab_flow_run(l, f, LAB_HEUN, times, steps, to);
    }
    for (size_t i = 0; !st && own && i < f->n; i++)
        f->x[i] = (float)half[i];
    if (!st && own)
        *own = lab_error(f->x, x, f->n);
    pv_free(times);
    pv_free(half);
    return st;
}
