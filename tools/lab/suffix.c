/* suffix.c - what a step does beside its transformer: time embedding, time MLP, the modulations of adaRMS,
 * the projection of the actions; with all of it in every step, as the reports had it, and with what depends
 * on time alone computed once for all steps.
 *
 * The unhoisted plan is the same model with one flag less: its time embedding is not marked as one that is
 * another in each step (pv_tensor.per_step), so nothing is moved out of the step. */
#include "policy.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/schedule.h"

#include <stdio.h>
#include <string.h>

enum { EMBEDDING, TIME_MLP, MODULATIONS, PROJECTION, REST, N_PARTS };

static const char *const part_names[N_PARTS] = {"time embedding (host, float64)", "time MLP",
                                                "modulations of adaRMS", "action projection",
                                                "transformer, and the rest"};
static const char *const part_reports[N_PARTS] = {"0.088 ms", "0.065 ms", NULL, "0.034 ms", "17.74 ms"};

typedef struct side { /* one plan */
    pv_runner *r;
    int *part;               /* by node */
    double *node_ms;         /* of one run */
    double *ms[N_PARTS + 1]; /* a step's, of each run; last: the loop's */
    int run;
} side;

typedef struct suffix {
    lab *l;
    float *t, *actions, *plain; /* [2 steps + 1]; [chunk]; of the loop with nothing hoisted */
    side whole, hoisted;        /* everything in each step; as planned */
    double embed_ms, schedule_ms;
    uint64_t bytes; /* of weights that time alone meets, read in each step unless hoisted */
} suffix;

/* ---- plans ---- */

static void keep_in_step(void *user, pv_graph *g)
{
    (void)user;
    pv_tensor *t = pv_graph_find(g, "step.time_emb");
    if (t)
        t->per_step = false;
}

static bool is_told(void *user, const char *name)
{
    (void)user;
    return !strcmp(name, "step.cond") || !strcmp(name, "step.suffix_in");
}

/* What a node is for, by what it depends on: time alone, or x_t. */
static pv_status sort_nodes(suffix *s, side *d)
{
    const pv_graph *g = d->r->plan->graph;
    bool *timely = pv_alloc_zero((size_t)g->n_tensors + 1);
    d->part = pv_alloc(sizeof *d->part * (size_t)(g->n_nodes + 1));
    if (!timely || !d->part) {
        pv_free(timely);
        return PV_E_MEMORY;
    }
    timely[d->r->time_emb->id] = true;
    for (int i = 0; i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        bool any = false, all = true;
        for (int k = 0; k < n->n_in; k++) {
            any |= timely[n->in[k]->id];
            all &= timely[n->in[k]->id] || n->in[k]->usage == PV_WEIGHT || n->in[k]->usage == PV_CONST ||
                   n->in[k] == g->step;
        }
        for (int k = 0; any && all && k < n->n_out; k++)
            timely[n->out[k]->id] = true;
        d->part[i] = any && all                          ? strstr(n->name, "ada_") ? MODULATIONS : TIME_MLP
                     : strstr(n->name, "step.suffix_in") ? PROJECTION
                                                         : REST;
        for (int k = 0; any && all && d == &s->whole && n->stage == PV_STAGE_DENOISE && k < n->n_in; k++)
            s->bytes += n->in[k]->usage == PV_WEIGHT ? pv_tensor_bytes(n->in[k]) : 0;
    }
    pv_free(timely);
    return PV_OK;
}

static pv_status open_side(suffix *s, side *d, const pv_runner_params *params)
{
    pv_status st = lab_runner(s->l, params, &d->r);
    if (!st)
        st = sort_nodes(s, d);
    d->node_ms = st ? NULL : pv_alloc(sizeof *d->node_ms * (size_t)(d->r->plan->graph->n_nodes + 1));
    bool ok = st || d->node_ms;
    for (int i = 0; ok && !st && i <= N_PARTS; i++)
        ok = (d->ms[i] = pv_alloc_zero(sizeof(double) * (size_t)s->l->runs)) != NULL;
    return ok ? st : PV_E_MEMORY;
}

static void close_side(side *d)
{
    pv_runner_destroy(&d->r);
    pv_free(d->part);
    pv_free(d->node_ms);
    for (int i = 0; i <= N_PARTS; i++)
        pv_free(d->ms[i]);
}

/* ---- times ---- */

/* The loop with a clock at each node, and once more without. */
static pv_status timed_loop(void *user, int way, double *ms)
{
    suffix *s = user;
    side *d = way ? &s->hoisted : &s->whole;
    lab *l = s->l;
    const pv_graph *g = d->r->plan->graph;
    pv_run_timing nodes = {.node_ms = d->node_ms}, loop = {{0}};
    int at = d->run < l->warmup ? 0 : d->run - l->warmup;
    float *dt = s->t + l->steps + 1;
    memset(d->node_ms, 0, sizeof *d->node_ms * (size_t)(g->n_nodes + 1));
    for (int i = 0; i <= N_PARTS; i++)
        d->ms[i][at] = 0;
    pv_status st = pv_runner_noise(d->r, l->policy->noise);
    if (!st)
        st = pv_runner_denoise(d->r, s->t, dt, l->steps, &nodes, NULL, NULL);
    if (!st)
        st = pv_runner_noise(d->r, l->policy->noise);
    if (!st)
        st = pv_runner_denoise(d->r, s->t, dt, l->steps, &loop, NULL, NULL);
    if (!st)
        st = pv_runner_actions(d->r, s->actions);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->stage == PV_STAGE_DENOISE)
            d->ms[d->part[i]][at] += d->node_ms[i] / l->steps;
    d->ms[EMBEDDING][at] = d == &s->whole ? s->embed_ms : 0;
    *ms = d->ms[N_PARTS][at] = loop.stage_ms[PV_STAGE_DENOISE];
    d->run++;
    if (!way)
        memcpy(s->plain, s->actions, sizeof *s->plain * l->policy->chunk);
    return st;
}

static pv_status time_embedding(suffix *s)
{
    enum { TIMES = 200 };
    const pv_config *c = &s->l->model->config;
    float *row = pv_alloc(sizeof *row * (size_t)c->expert.width);
    double start = pv_now_ms();
    for (int i = 0; row && i < TIMES; i++)
        pv_time_embedding(1 - (float)i / TIMES, c->expert.width, c->time_min_period, c->time_max_period, row);
    s->embed_ms = (pv_now_ms() - start) / TIMES;
    pv_free(row);
    return row ? PV_OK : PV_E_MEMORY;
}

static pv_status time_schedule(suffix *s)
{
    pv_run_timing t = {{0}};
    s->hoisted.r->n_filled = 0; /* to have the tables made once more */
    pv_status st = pv_runner_tables(s->hoisted.r, s->t, s->t + s->l->steps + 1, s->l->steps, &t);
    s->schedule_ms = t.stage_ms[PV_STAGE_SCHEDULE];
    return st;
}

/* ---- errors: what the backend made of the time, and of x_t, beside float64 on the host ---- */

/* y = x w^T + b with the checkpoint's `name`.weight [out, in] and .bias, then SiLU where asked for. */
static pv_status dense(const lab *l, const char *name, const double *x, int in, double *y, int out, bool silu)
{
    const pv_weight_source *src = &l->model->source;
    char weight[160], bias[160], raw[8];
    float *row = pv_alloc(sizeof *row * (size_t)in);
    void *bytes = pv_alloc(sizeof(float) * (size_t)in);
    pv_status st = row && bytes ? PV_OK : PV_E_MEMORY;
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    for (int n = 0; !st && n < out; n++) {
        st = src->read(src->user, weight, (int64_t)n * in, in, bytes);
        if (!st)
            st = src->read(src->user, bias, n, 1, raw);
        if (st)
            break;
        float b;
        pv_to_f32(&b, raw, src->stored_dtype(src->user, bias), 1);
        pv_to_f32(row, bytes, src->stored_dtype(src->user, weight), (size_t)in);
        y[n] = (double)b;
        for (int k = 0; k < in; k++)
            y[n] += (double)row[k] * x[k];
        y[n] = silu ? y[n] / (1 + exp(-y[n])) : y[n];
    }
    pv_free(row);
    pv_free(bytes);
    return st;
}

static pv_status against(suffix *s, const side *d, const char *tensor, int row, const char *name,
                         const double *want, size_t n)
{
    const pv_tensor *t = pv_graph_find(d->r->plan->graph, tensor);
    if (!t || t->offset == PV_NOWHERE) {
        lab_add(s->l, "%s (this plan makes none)", name);
        return PV_OK;
    }
    char *bytes = pv_alloc(pv_tensor_bytes(t));
    float *got = pv_alloc(sizeof *got * n);
    pv_status st = bytes && got ? pv_instance_read(d->r->inst, t, 0, bytes, pv_tensor_bytes(t)) : PV_E_MEMORY;
    if (!st) {
        pv_to_f32(got, bytes + pv_dtype_bytes(t->dtype, n * (size_t)row), t->dtype, n);
        lab_row *r = lab_add(s->l, "%s", name);
        r->error = lab_error(got, want, n);
        r->value[0].number = lab_max_abs(got, want, n);
    }
    pv_free(bytes);
    pv_free(got);
    return st;
}

#define EXPERT "paligemma_with_expert.gemma_expert.model"

/* At the last step's time, and for the first numbers of the noise. */
static pv_status errors(suffix *s)
{
    static const lab_column columns[] = {{"max_abs", "largest", LAB_ERROR}, {NULL}};
    lab *l = s->l;
    const pv_config *c = &l->model->config;
    int w = c->expert.width, step = l->steps - 1;
    double *x = pv_alloc(sizeof *x * (size_t)w), *h = pv_alloc(sizeof *h * (size_t)w);
    double *cond = pv_alloc(sizeof *cond * (size_t)w), *mod = pv_alloc(sizeof *mod * 3 * (size_t)w);
    double *in = pv_alloc(sizeof *in * (size_t)c->action_dim);
    float *emb = pv_alloc(sizeof *emb * (size_t)w);
    pv_status st = x && h && cond && mod && in && emb ? PV_OK : PV_E_MEMORY;
    lab_begin_table(l, columns, "Against float64 on the host, at t = %.6g", (double)s->t[step]);
    if (!st) {
        pv_time_embedding(s->t[step], w, c->time_min_period, c->time_max_period, emb);
        for (int i = 0; i < w; i++)
            x[i] = (double)emb[i];
        for (int i = 0; i < w / 2; i++) { /* the embedding itself, not rounded */
            double f = (double)i / (w / 2 - 1),
                   p = c->time_min_period * pow(c->time_max_period / c->time_min_period, f);
            h[i] = sin(6.283185307179586 / p * (double)s->t[step]);
            h[w / 2 + i] = cos(6.283185307179586 / p * (double)s->t[step]);
        }
        lab_row *r = lab_add(l, "time embedding");
        r->error = lab_error(emb, h, (size_t)w);
        r->value[0].number = lab_max_abs(emb, h, (size_t)w);
        st = dense(l, "time_mlp_in", x, w, h, w, true);
    }
    if (!st)
        st = dense(l, "time_mlp_out", h, w, cond, w, true);
    if (!st)
        st = against(s, &s->whole, "step.cond", 0, "condition, in the step", cond, (size_t)w);
    if (!st)
        st = against(s, &s->hoisted, "step.cond", step, "condition, hoisted", cond, (size_t)w);
    if (!st)
        st = dense(l, EXPERT ".layers.0.input_layernorm.dense", cond, w, mod, 3 * w, false);
    if (!st)
        st = against(s, &s->hoisted, "step.layer0.ada_in", step, "first modulation, hoisted", mod,
                     3 * (size_t)w);
    if (!st)
        st = dense(l, EXPERT ".norm.dense", cond, w, mod, 3 * w, false);
    if (!st)
        st = against(s, &s->hoisted, "step.ada_final", step, "last modulation, hoisted", mod, 3 * (size_t)w);
    for (int i = 0; !st && i < c->action_dim; i++)
        in[i] = (double)l->policy->noise[i];
    if (!st) /* of the first step: its x is the noise */
        st = pv_runner_noise(s->whole.r, l->policy->noise);
    if (!st)
        st = pv_runner_denoise(s->whole.r, s->t, s->t + l->steps + 1, 1, NULL, NULL, NULL);
    if (!st)
        st = dense(l, "action_in_proj", in, c->action_dim, h, w, false);
    if (!st)
        st = against(s, &s->whole, "step.suffix_in", 0, "action projection, first row of the noise", h,
                     (size_t)w);
    pv_free(x);
    pv_free(h);
    pv_free(cond);
    pv_free(mod);
    pv_free(in);
    pv_free(emb);
    return st;
}

/* ---- tables ---- */

static double total(const suffix *s, const side *d, double *parts)
{
    double sum = 0;
    for (int i = 0; i < N_PARTS; i++)
        sum += parts[i] = lab_summary(d->ms[i], s->l->runs).median;
    return sum;
}

static void tell_parts(suffix *s)
{
    static const lab_column columns[] = {{"share", "share", LAB_PERCENT},
                                         {"hoisted_ms", "ms, hoisted", LAB_MS},
                                         {"hoisted_share", "share", LAB_PERCENT},
                                         {NULL}};
    lab *l = s->l;
    double in_step[N_PARTS], left[N_PARTS], all = total(s, &s->whole, in_step),
                                            all_left = total(s, &s->hoisted, left);
    lab_begin_table(l, columns,
                    "One step, op by op: everything in it; and with what depends on time alone hoisted out");
    for (int i = 0; i < N_PARTS; i++) {
        lab_row *r = lab_add(l, "%s", part_names[i]);
        r->time = lab_summary(s->whole.ms[i], l->runs);
        r->report = part_reports[i];
        r->value[0].number = 100 * in_step[i] / all;
        r->value[1].number = left[i];
        r->value[2].number = 100 * left[i] / all_left;
    }
    double suffix_ms = all - in_step[REST], suffix_left = all_left - left[REST];
    lab_row *r = lab_add(l, "all but the transformer");
    r->report = "first 51 %, then 1.7 %";
    r->value[0].number = 100 * suffix_ms / all;
    r->value[1].number = suffix_left;
    r->value[2].number = 100 * suffix_left / all_left;
    cli_text bytes;
    lab_say(l,
            "Both of the reports' figures ask what embed_suffix takes, which is without the modulations: "
            "these are in the layers. "
            "In a step that computes everything, what depends on time alone is %.1f %% here, and %s of "
            "weights are read for it; "
            "hoisted, it is computed once for a schedule and a step reads a row. Then %.1f %% is left beside "
            "the transformer.",
            100 * (suffix_ms - in_step[PROJECTION]) / all, cli_bytes(&bytes, s->bytes),
            100 * suffix_left / all_left);
}

static void tell_loops(suffix *s)
{
    lab *l = s->l;
    lab_begin_table(l, NULL, "The loop of %d steps; error: of the actions, against everything in each step",
                    l->steps);
    lab_row *r = lab_add(l, "everything in each step");
    r->time = lab_summary(s->whole.ms[N_PARTS], l->runs);
    r->report = "18.05 ms a step";
    r->error = 0;
    r = lab_add(l, "hoisted");
    r->time = lab_summary(s->hoisted.ms[N_PARTS], l->runs);
    r->error = lab_error_f32(s->actions, s->plain, l->policy->chunk);
    r = lab_add(l, "what is hoisted, once for a schedule");
    r->time = (lab_time){1, s->schedule_ms, s->schedule_ms, s->schedule_ms};
    lab_say(
        l,
        "It turns where weights are read slowly beside what a step computes (there the modulations, more "
        "than a third "
        "of the expert's "
        "weights once more, weigh more), and where launches are what counts (there so does every small op).");
}

static pv_status work(suffix *s)
{
    lab *l = s->l;
    pv_status st = lab_policy_open(l);
    size_t chunk = st ? 0 : l->policy->chunk;
    s->t = pv_alloc(sizeof *s->t * (size_t)(2 * l->steps + 1));
    s->actions = pv_alloc(sizeof *s->actions * chunk);
    s->plain = pv_alloc(sizeof *s->plain * chunk);
    if (!st && !(s->t && s->actions && s->plain))
        st = PV_E_MEMORY;
    if (!st)
        st = pv_schedule_times(NULL, l->steps, s->t, s->t + l->steps + 1);
    if (!st)
        st = time_embedding(s);
    if (!st)
        st =
            open_side(s, &s->whole, &(pv_runner_params){.steps = 1, .keep = is_told, .change = keep_in_step});
    if (!st)
        st = open_side(s, &s->hoisted, &(pv_runner_params){.steps = l->steps, .keep = is_told});
    lab_time ignored[2];
    if (!st) /* in turn; the hoisted one's actions are the last */
        st = lab_measure_ways(l, "loops, in the step and hoisted", 2, timed_loop, s, ignored);
    if (!st)
        st = time_schedule(s);
    if (st)
        return st;
    tell_parts(s);
    tell_loops(s);
    return errors(s);
}

int lab_suffix(int argc, char **argv)
{
    lab l;
    suffix s = {.l = &l};
    const lab_command command = {
        .name = "suffix",
        .claim = "The reports: embed_suffix (time embedding, action projection, time MLP) was first blamed "
                 "for 51 % of a step,\n"
                 "then measured: 0.31 of 18.05 ms, 1.7 %. Here: each part, the modulations of adaRMS with "
                 "them, in a step that\n"
                 "computes everything, and with all that depends on time alone hoisted out of the loop.",
        .example = "pivot lab suffix --model synth:tiny\n"
                   "pivot lab suffix --model synth:full --backend cuda --recipe bf16",
        .uses = LAB_POLICY | LAB_STEPS};
    int code = lab_begin(&l, &command, argc, argv);
    pv_status st = code == CLI_GO ? work(&s) : PV_OK;
    close_side(&s.whole); /* before the backend */
    close_side(&s.hoisted);
    code = lab_end(&l, code, st);
    pv_free(s.t);
    pv_free(s.actions);
    pv_free(s.plain);
    return code;
}
