/* flow.c - see flow.h. The backend has float32 for x and t, and for v whatever its recipe has; sums are
 * float64. So these are what is left of an error when the steps are many. */
#include "flow.h"
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
    *f = (lab_flow){.l = l, .n = l->policy->chunk};
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = ROWS, .keep = is_velocity}, &f->r);
    if (st)
        return st;
    f->v_t = pv_graph_find(f->r->plan->graph, "step.v_t");
    if (!f->v_t)
        return pv_fail(PV_E_UNSUPPORTED, "the plan has no tensor 'step.v_t'");
    f->raw = pv_alloc(pv_tensor_bytes(f->v_t));
    f->x = pv_alloc(sizeof *f->x * f->n);
    f->at = pv_alloc_zero(sizeof *f->at * 2 * ROWS);
    f->work = pv_alloc(sizeof *f->work * 3 * f->n);
    return f->raw && f->x && f->at && f->work ? PV_OK : PV_E_MEMORY;
}

void lab_flow_close(lab_flow *f)
{
    pv_runner_destroy(&f->r);
    pv_free(f->raw);
    pv_free(f->x);
    pv_free(f->at);
    pv_free(f->work);
    *f = (lab_flow){0};
}

static pv_status fill_tables(lab_flow *f, int first)
{
    int n = lab_evaluations(f->method) * f->steps - first;
    f->first = first;
    f->held = n < ROWS ? n : ROWS;
    for (int i = 0; i < f->held; i++)
        f->at[i] = (float)lab_evaluation_time(f->method, f->times, first + i);
    cli_note(&f->l->bar, "integrating: step %d of %d", first / lab_evaluations(f->method), f->steps);
    return pv_runner_tables(f->r, f->at, f->at + ROWS, f->held, NULL);
}

static pv_status velocity(void *user, int i, const double *x, double *v)
{
    lab_flow *f = user;
    pv_status st = i < f->first + f->held ? PV_OK : fill_tables(f, i);
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
    if (st)
        return st;
    pv_to_f32(f->x, f->raw, f->v_t->dtype, f->n);
    for (size_t k = 0; k < f->n; k++)
        v[k] = (double)f->x[k];
    return PV_OK;
}

pv_status lab_flow_run(lab_flow *f, lab_method method, const double *times, int steps, double *x)
{
    f->method = method;
    f->times = times;
    f->steps = steps;
    f->first = f->held = 0;
    pv_status st = lab_integrate(method, times, steps, x, f->n, f->work, velocity, f);
    cli_progress_end(&f->l->bar);
    return st;
}

pv_status lab_flow_even(lab_flow *f, lab_method method, int steps, double *x)
{
    double *times = pv_alloc(sizeof *times * (size_t)(steps + 1));
    for (int k = 0; times && k <= steps; k++)
        times[k] = 1 - (double)k / steps;
    for (size_t i = 0; i < f->n; i++)
        x[i] = (double)f->l->policy->noise[i];
    pv_status st = times ? lab_flow_run(f, method, times, steps, x) : PV_E_MEMORY;
    pv_free(times);
    return st;
}

pv_status lab_flow_reference(lab_flow *f, int n, double *x, double *own)
{
    double *half = pv_alloc(sizeof *half * f->n);
    pv_status st = half ? lab_flow_even(f, LAB_HEUN, (n + 1) / 2, half) : PV_E_MEMORY;
    if (!st)
        st = lab_flow_even(f, LAB_HEUN, n, x);
    for (size_t i = 0; !st && i < f->n; i++)
        f->x[i] = (float)half[i];
    if (!st)
        *own = lab_error(f->x, x, f->n);
    pv_free(half);
    return st;
}

void lab_say_reference(lab *l, int n, double own)
{
    lab_say(
        l,
        "Errors are relative L2 of the actions, in model units, against %d steps of Heun's method with this "
        "backend's and "
        "recipe's velocities. Half as many steps end %.1e of it elsewhere: no smaller error says anything.",
        n, own);
}
