/* schedule.c - what the named noise schedules and tables of one's own do with their steps: where they put
 * them, what share of the interval each part covers, and how far from the end of the flow that leaves the
 * actions; beside two methods of second order, at as many evaluations of the model. */
#include "flow.h"
#include "base/memory.h"
#include "session/schedule.h"
#include "tools/inputs.h"
#include "tools/plot.h"

#include <string.h>

/* The four schedules of the reports, in their order. */
#define NAMES(X)                                                                                             \
    X(linear, "30 % early, 30 % late")                                                                       \
    X(cosine, "11 % early, 45 % late")                                                                       \
    X(quadratic, "9 % early, 51 % late")                                                                     \
    X(sigmoid, "S-curve")
#define X(name, report) #name,
static const char *const names[] = {NAMES(X)};
#undef X
#define X(name, report) report,
static const char *const reports[] = {NAMES(X)};
#undef X
enum { N_NAMES = 4 };

static const int counts[] = {1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 30, 40, 50}; /* evaluations of the model */
enum { N_COUNTS = sizeof counts / sizeof *counts, N_CURVES = N_NAMES + 2 };

typedef struct schedule {
    lab *l;
    int reference;
    cli_list files;
    const char *plot;
    double *truth, *x; /* [chunk] */
    float *actions;    /* [chunk] */
    pv_runner *r;
    const float *times, *dt; /* of the run that is timed */
    int n;
    double error[N_CURVES][N_COUNTS], at_model_steps[N_NAMES];
} schedule;

/* ---- where the steps are ---- */

static pv_status loop(void *user, double *ms)
{
    schedule *s = user;
    return lab_denoise_at(s->l, s->r, s->times, s->dt, s->n, NULL, s->actions, ms);
}

/* Of `steps`, 30 %: at least one. */
static int part(int steps)
{
    int n = (int)lround(0.3 * steps);
    return n ? n : 1;
}

/* Shares of the interval that steps cover, shares of the evaluations that fall into an end of it, and the
 * largest step. */
static void tell_shares(lab_row *r, const float *t, int steps)
{
    int n = part(steps), early = 0, late = 0, largest = 0;
    for (int k = 0; k < steps; k++) {
        early += (double)t[k] > 0.7 + 1e-6;
        late += (double)t[k] <= 0.3 + 1e-6;
        if ((double)(t[k] - t[k + 1]) > (double)(t[largest] - t[largest + 1]) + 1e-6)
            largest = k;
    }
    r->value[0].number = 100 * (double)(t[0] - t[n]);
    r->value[1].number = 100 * (double)(t[steps - n] - t[steps]);
    r->value[2].number = 100.0 * early / steps;
    r->value[3].number = 100.0 * late / steps;
    r->value[4].number = (double)(t[largest] - t[largest + 1]);
    r->value[5].number = (double)t[largest];
}

static pv_status one_schedule(schedule *s, const char *name, const char *report, const float *t,
                              const float *dt, int steps, double *error)
{
    lab *l = s->l;
    s->times = t;
    s->dt = dt;
    s->n = steps;
    lab_row *r = lab_add(l, "%s, %d steps", name, steps);
    r->report = report;
    tell_shares(r, t, steps);
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = steps}, &s->r);
    if (!st)
        st = lab_measure(l, name, loop, s, &r->time);
    if (!st)
        r->error = lab_error(s->actions, s->truth, l->policy->chunk);
    if (error)
        *error = r->error;
    pv_runner_destroy(&s->r);
    return st;
}

static pv_status one_file(schedule *s, const char *path)
{
    float *t = NULL, *dt = NULL;
    int steps = 0;
    pv_status st = input_times_read(path, &t, &steps);
    if (!st && steps > 1000)
        st = pv_fail(PV_E_ARG, "%s: expected at most 1000 steps, came %d", path, steps);
    if (!st)
        st = (dt = pv_alloc(sizeof *dt * (size_t)steps)) ? pv_schedule_custom(t, steps, dt) : PV_E_MEMORY;
    if (!st)
        st = one_schedule(s, path, NULL, t, dt, steps, NULL);
    else
        st = pv_fail_in(st, "--schedule %s", path);
    pv_free(t);
    pv_free(dt);
    return st;
}

static pv_status shares(schedule *s)
{
    static const lab_column columns[] = {{"first_30_covers", "first 30 % cover", LAB_PERCENT},
                                         {"last_30_covers", "last 30 % cover", LAB_PERCENT},
                                         {"evaluations_early", "evaluated t > 0.7", LAB_PERCENT},
                                         {"evaluations_late", "t <= 0.3", LAB_PERCENT},
                                         {"largest_step", "largest step", LAB_NUMBER},
                                         {"largest_from", "from t", LAB_NUMBER},
                                         {NULL}};
    lab *l = s->l;
    float *t = pv_alloc(sizeof *t * (size_t)(2 * l->steps + 1)), *dt = t ? t + l->steps + 1 : NULL;
    pv_status st = t ? PV_OK : PV_E_MEMORY;
    lab_begin_table(
        l, columns,
        "Where a schedule puts its steps (30 %% of them: %d of %d); time of the loop, error of the actions",
        part(l->steps), l->steps);
    for (int i = 0; !st && i < N_NAMES; i++) {
        st = pv_schedule_times(names[i], l->steps, t, dt);
        if (!st)
            st = one_schedule(s, names[i], reports[i], t, dt, l->steps, &s->at_model_steps[i]);
    }
    for (int i = 0; !st && i < s->files.n; i++)
        st = one_file(s, s->files.item[i]);
    pv_free(t);
    return st;
}

static pv_status list_times(schedule *s)
{
    lab *l = s->l;
    lab_column columns[N_NAMES + 1] = {{NULL}};
    float *t = pv_alloc(sizeof *t * (size_t)(2 * l->steps + 1) * N_NAMES);
    pv_status st = t ? PV_OK : PV_E_MEMORY;
    size_t each = (size_t)(2 * l->steps + 1);
    for (int i = 0; !st && i < N_NAMES; i++) {
        columns[i] = (lab_column){names[i], names[i], LAB_NUMBER};
        st = pv_schedule_times(names[i], l->steps, t + each * (size_t)i, t + each * (size_t)i + l->steps + 1);
    }
    lab_begin_table(l, columns, "Times at which the model is evaluated, and the end");
    for (int k = 0; !st && k <= l->steps; k++) {
        lab_row *r = k < l->steps ? lab_add(l, "step %d", k) : lab_add(l, "end");
        for (int i = 0; i < N_NAMES; i++)
            r->value[i].number = (double)t[each * (size_t)i + (size_t)k];
    }
    pv_free(t);
    return st;
}

/* ---- errors ---- */

static pv_status second_order(schedule *s, lab_flow *flow, int at)
{
    pv_status st = PV_OK;
    for (int m = 0; m < 2; m++) {
        s->error[N_NAMES + m][at] = NAN;
        if (counts[at] % 2 || st)
            continue;
        st = lab_flow_even(flow, m ? LAB_MIDPOINT : LAB_HEUN, counts[at] / 2, s->x);
        for (size_t i = 0; !st && i < flow->n; i++)
            s->actions[i] = (float)s->x[i];
        if (!st)
            s->error[N_NAMES + m][at] = lab_error(s->actions, s->truth, flow->n);
    }
    return st;
}

static pv_status errors(schedule *s, lab_flow *flow)
{
    static const lab_column columns[] = {
        {"cosine", "cosine", LAB_ERROR},     {"quadratic", "quadratic", LAB_ERROR},
        {"sigmoid", "sigmoid", LAB_ERROR},   {"heun", "linear, Heun", LAB_ERROR},
        {"midpoint", "midpoint", LAB_ERROR}, {NULL}};
    lab *l = s->l;
    pv_runner *r = NULL;
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = counts[N_COUNTS - 1]}, &r);
    lab_begin_table(l, columns, "Error of the actions by evaluations of the model (error: linear, Euler)");
    for (int at = 0; !st && at < N_COUNTS; at++) {
        cli_note(&l->bar, "%d evaluations", counts[at]);
        for (int i = 0; !st && i < N_NAMES; i++) {
            st = lab_denoise(l, r, names[i], counts[at], NULL, s->actions, NULL);
            s->error[i][at] = lab_error(s->actions, s->truth, l->policy->chunk);
        }
        if (!st)
            st = second_order(s, flow, at);
        lab_row *row = lab_add(l, "%d", counts[at]);
        row->error = s->error[0][at];
        for (int i = 1; i < N_CURVES; i++)
            row->value[i - 1].number = s->error[i][at];
    }
    pv_runner_destroy(&r);
    return st;
}

static pv_status draw(schedule *s)
{
    static const char *const names_drawn[N_CURVES] = {"linear",  "cosine",       "quadratic",
                                                      "sigmoid", "linear, Heun", "linear, midpoint"};
    plot_curve curve[N_CURVES];
    double x[N_COUNTS];
    for (int i = 0; i < N_COUNTS; i++)
        x[i] = counts[i];
    for (int i = 0; i < N_CURVES; i++)
        curve[i] = (plot_curve){names_drawn[i], s->error[i]};
    return plot_curves(s->plot, x, N_COUNTS, curve, N_CURVES,
                       lab_text(s->l, "Integration error, %s", s->l->common.model),
                       "evaluations of the model", "relative L2 of the actions against many steps");
}

/* ---- the experiment ---- */

static void conclude(schedule *s)
{
    lab *l = s->l;
    int best = 0, n = N_COUNTS - 1;
    for (int i = 1; i < N_NAMES; i++)
        if (s->at_model_steps[i] < s->at_model_steps[best])
            best = i;
    lab_say(l, "Every step is one evaluation of the model, whatever it covers: compute is the same for all "
               "steps. What the reports "
               "call compute is the share of the interval that 30 %% of the steps cover. Cosine and "
               "quadratic cover much of it with "
               "their last steps because these are their LARGEST: they evaluate the model least near t = 0, "
               "where the actions are "
               "made, and most near t = 1, the noise.");
    lab_say(l,
            "With %d steps the smallest error has %s (%.2e; linear %.2e). It turns with the weights: a "
            "schedule helps where its small "
            "steps meet the bends of this flow. Success on tasks is another question (examples/libero).",
            l->steps, names[best], s->at_model_steps[best], s->at_model_steps[0]);
    lab_say(l,
            "Doubling the steps from 20 to 40 divides the error of Euler by %.1f and that of Heun by %.1f at "
            "as many evaluations (2 "
            "and 4 where the flow is smooth at such steps).",
            s->error[0][n - 3] / s->error[0][n - 1], s->error[N_NAMES][n - 3] / s->error[N_NAMES][n - 1]);
}

static pv_status work(schedule *s)
{
    lab *l = s->l;
    lab_flow flow = {0};
    double own = 0;
    pv_status st = lab_policy_open(l);
    size_t chunk = st ? 0 : l->policy->chunk;
    s->truth = pv_alloc(sizeof *s->truth * chunk);
    s->x = pv_alloc(sizeof *s->x * chunk);
    s->actions = pv_alloc(sizeof *s->actions * chunk);
    if (!st && !(s->truth && s->x && s->actions))
        st = PV_E_MEMORY;
    if (!st)
        st = lab_flow_open(l, &flow);
    if (!st)
        st = lab_flow_reference(&flow, s->reference, s->truth, &own);
    if (!st)
        st = shares(s);
    if (!st)
        st = list_times(s);
    if (!st)
        st = errors(s, &flow);
    lab_flow_close(&flow);
    if (!st && s->plot)
        st = draw(s);
    if (!st) {
        conclude(s);
        lab_say_reference(l, s->reference, own);
    }
    return st;
}

int lab_schedule(int argc, char **argv)
{
    lab l;
    schedule s = {.l = &l, .reference = 1000};
    const cli_option options[] = {
        {"schedule", "FILE",
         "times of one's own beside the four: from 1 down to 0, steps + 1 of\nthem; once for each file",
         CLI_LIST, &s.files},
        {"plot", "FILE", "the errors as a chart (SVG)", CLI_TEXT, &s.plot},
        {"reference", "N", LAB_REFERENCE, CLI_INT, &s.reference, 2, 100000},
        {NULL}};
    const lab_command command = {
        .name = "schedule",
        .claim = "The reports: cosine spends 11 % of its compute early and 45 % late, \"more steps near t = "
                 "0\", fine motor\n"
                 "control at no cost: start with it. Here: where the steps are, what they cost, and the "
                 "integration error\n"
                 "that each schedule leaves on these weights and this observation.",
        .example =
            "pivot lab schedule --model synth:tiny --plot schedule.svg\n"
            "pivot lab schedule --model DIR --backend cuda --recipe bf16 --prompt \"pick up the red block\"",
        .options = options,
        .uses = LAB_POLICY | LAB_STEPS};
    int code = lab_begin(&l, &command, argc, argv);
    code = lab_end(&l, code, code == CLI_GO ? work(&s) : PV_OK);
    pv_free(s.truth);
    pv_free(s.x);
    pv_free(s.actions);
    return code;
}
