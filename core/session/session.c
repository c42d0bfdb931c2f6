/* session.c - one robot: observation in, action chunk out. Keeps a plan for each number of cameras and size of prompt
 * that came; shares the weights with every session of the same model, backend and recipe. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/params.h"
#include "observation.h"
#include "runner.h"
#include "schedule.h"
#include "session.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* ---- weights shared by sessions ---- */

typedef struct shared {
    const pv_model *model;
    const pv_backend *backend;
    const pv_recipe *recipe;
    pv_weights *weights;
    int users;
    struct shared *next;
} shared;

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list; one session at a time is made ready */
static shared *all_shared;

static pv_status share(pv_model *m, pv_backend *be, const pv_recipe *recipe, shared **out)
{
    pv_status st = PV_OK;
    shared *s = all_shared;
    while (s && (s->model != m || s->backend != be || s->recipe != recipe))
        s = s->next;
    if (!s) {
        s = pv_alloc_zero(sizeof *s);
        st = s ? pv_weights_create(be, &m->source, &s->weights) : PV_E_MEMORY;
        if (st) {
            pv_free(s);
            return st;
        }
        s->model = m;
        s->backend = be;
        s->recipe = recipe;
        s->next = all_shared;
        all_shared = s;
    }
    s->users++;
    *out = s;
    return PV_OK;
}

static void unshare(shared *s)
{
    if (!s || --s->users)
        return;
    for (shared **p = &all_shared; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    pv_weights_destroy(&s->weights);
    pv_free(s);
}

/* ---- session ---- */

#define PROMPT_SIZES 3

struct pv_session {
    pv_model *model;
    pv_backend *backend;
    const pv_recipe *recipe;
    uint64_t expand;
    shared *shared;
    pv_observer *observer;
    pv_session_params params;
    pv_runner *runner[PV_MAX_CAMERAS + 1][PROMPT_SIZES]; /* by views and size of prompt */
    int steps_cap;                                       /* of `times` and `dt` */
    float *times, *dt;
    const char *schedule; /* whose times they are, where they have a name */
    float *noise, *actions;                              /* [horizon][action_dim] */
    double *robot;
    pv_timing timing;
    uint64_t n_observations; /* inferences asked for */
    pv_opening opening;
    pv_runner *last;         /* that of the last inference; NULL: it failed, or there was none */
    pv_infer_params asked;   /* of the last inference; its pointers are stale, but for `noise` and `timesteps` being NULL */
};

/* A quarter, a half and all of max_tokens, rounded up to 16: a longer prompt within one of them needs no new plan. */
static int prompt_size(const pv_config *c, int size)
{
    int n = ((c->max_tokens >> (PROMPT_SIZES - 1 - size)) + 15) / 16 * 16;
    return n < c->max_tokens ? n : c->max_tokens;
}

static pv_status get_runner(pv_session *s, int views, int tokens, pv_runner **out)
{
    const pv_config *c = &s->model->config;
    int size = 0;
    while (prompt_size(c, size) < tokens)
        size++;
    *out = s->runner[views][size];
    if (*out)
        return PV_OK;
    pv_runner_params p = {.shape = {views, prompt_size(c, size), s->params.rope_bf16},
                          .recipe = s->recipe->name,
                          .steps = s->params.max_steps,
                          .expand = s->expand};
    pv_runner *r = NULL;
    double start = pv_now_ms();
    pv_status st = pv_runner_create(s->model, s->backend, &p, &r);
    double planned = pv_now_ms(), loaded = planned;
    pthread_mutex_lock(&shared_lock);
    if (!st)
        st = pv_plan_room(r->plan, s->shared->weights);
    if (!st) {
        st = pv_weights_load(s->shared->weights, r->plan->graph, s->params.progress, s->params.progress_user);
        loaded = pv_now_ms();
    }
    if (!st)
        st = pv_runner_start(r, s->shared->weights);
    pthread_mutex_unlock(&shared_lock);
    s->opening.plan_ms += planned - start;
    s->opening.weights_ms += loaded - planned;
    s->opening.record_ms += pv_now_ms() - loaded;
    if (st)
        pv_runner_destroy(&r);
    *out = s->runner[views][size] = r;
    return st;
}

pv_status pv_session_create(pv_model *m, pv_backend *be, const pv_session_params *params, pv_session **out)
{
    return pv_session_create_expanded(m, be, params, 0, out);
}

pv_status pv_session_create_expanded(pv_model *m, pv_backend *be, const pv_session_params *params, uint64_t expand,
                                     pv_session **out)
{
    if (!m || !be || !out)
        return pv_fail(PV_E_ARG, "pv_session_create: model, backend and out must be given");
    *out = NULL;
    pv_session *s = pv_alloc_zero(sizeof *s);
    if (!s)
        return PV_E_MEMORY;
    pv_status st = pv_take_params("pv_session_create", &s->params, params, sizeof s->params);
    if (!st && (s->params.max_steps < 0 || s->params.max_steps > PV_MAX_STEPS))
        st = pv_fail(PV_E_ARG, "max_steps: expected 0 to %d, came %d", PV_MAX_STEPS, s->params.max_steps);
    if (!s->params.max_steps)
        s->params.max_steps = m->config.num_steps;
    s->model = m;
    s->backend = be;
    s->expand = expand;
    size_t chunk = (size_t)m->config.horizon * (size_t)m->config.action_dim;
    if (!st)
        st = pv_recipe_find(s->params.recipe, &s->recipe);
    s->noise = pv_alloc(sizeof(float) * chunk);
    s->actions = pv_alloc(sizeof(float) * chunk);
    s->robot = pv_alloc(sizeof(double) * chunk);
    if (!st && !(s->noise && s->actions && s->robot))
        st = PV_E_MEMORY;
    if (!st)
        st = pv_observer_create(m, &s->observer);
    double start = pv_now_ms();
    if (!st)
        st = pv_model_embedding(m, s->params.progress, s->params.progress_user);
    s->opening.weights_ms = pv_now_ms() - start;
    if (!st) {
        pthread_mutex_lock(&shared_lock);
        st = share(m, be, s->recipe, &s->shared);
        pthread_mutex_unlock(&shared_lock);
    }
    pv_runner *full;
    if (!st)
        st = get_runner(s, m->config.n_cameras, m->config.max_tokens, &full);
    if (st)
        pv_session_destroy(&s);
    *out = s;
    return st;
}

void pv_session_destroy(pv_session **session)
{
    if (!session || !*session)
        return;
    pv_session *s = *session;
    for (int v = 0; v <= PV_MAX_CAMERAS; v++)
        for (int k = 0; k < PROMPT_SIZES; k++)
            pv_runner_destroy(&s->runner[v][k]);
    pthread_mutex_lock(&shared_lock);
    unshare(s->shared);
    pthread_mutex_unlock(&shared_lock);
    pv_observer_destroy(&s->observer);
    pv_free(s->times);
    pv_free(s->dt);
    pv_free(s->noise);
    pv_free(s->actions);
    pv_free(s->robot);
    pv_free(s);
    *session = NULL;
}

/* ---- one inference ---- */

/* Box-Muller on a hash of seed and index. */
void pv_session_noise(uint64_t seed, float *x, size_t n)
{
    uint64_t key = pv_hash(seed, 0);
    for (size_t i = 0; i < n; i++) {
        double u = ((double)(pv_hash(key, 2 * i) >> 11) + 0.5) * 0x1p-53;
        double v = (double)(pv_hash(key, 2 * i + 1) >> 11) * 0x1p-53;
        x[i] = (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
}

static pv_status set_noise(pv_session *s, const pv_infer_params *p)
{
    size_t n = (size_t)s->model->config.horizon * (size_t)s->model->config.action_dim;
    if (!p->noise)
        pv_session_noise(p->seed, s->noise, n);
    else
        memcpy(s->noise, p->noise, sizeof *s->noise * n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(s->noise[i]))
            return pv_fail(PV_E_NOT_FINITE, "noise: element %zu is %g", i, (double)s->noise[i]);
    return PV_OK;
}

static pv_status set_schedule(pv_session *s, const pv_infer_params *p, int *steps)
{
    *steps = p->steps ? p->steps : s->model->config.num_steps;
    if (*steps < 1 || *steps > PV_MAX_STEPS)
        return pv_fail(PV_E_ARG, "steps: expected 1 to %d, came %d", PV_MAX_STEPS, *steps);
    if (*steps > s->steps_cap) {
        float *times = pv_alloc(sizeof *times * (size_t)(*steps + 1)), *dt = pv_alloc(sizeof *dt * (size_t)*steps);
        if (!times || !dt) {
            pv_free(times);
            pv_free(dt);
            return PV_E_MEMORY;
        }
        pv_free(s->times);
        pv_free(s->dt);
        s->times = times;
        s->dt = dt;
        s->steps_cap = *steps;
    }
    if (!p->timesteps) {
        s->schedule = pv_schedule_find(p->schedule);
        return pv_schedule_times(p->schedule, *steps, s->times, s->dt);
    }
    memcpy(s->times, p->timesteps, sizeof *s->times * (size_t)(*steps + 1));
    return pv_schedule_custom(s->times, *steps, s->dt);
}

static pv_status feed(pv_session *s, const pv_infer_params *p, pv_runner *r)
{
    pv_observer *o = s->observer;
    uint8_t *pictures = pv_runner_pictures(r);
    pv_status st = pv_observe_pictures(o, pictures);
    if (!st)
        st = pv_runner_images(r, pictures);
    if (!st)
        st = pv_runner_begin(r); /* vision takes longer than the rest does here */
    if (!st)
        st = set_noise(s, p);
    if (!st)
        st = pv_runner_prompt(r, o->ids, o->n_ids);
    return st ? st : pv_runner_noise(r, s->noise);
}

/* Model units -> robot units, and nothing that is not finite gets out. */
static pv_status to_robot(pv_session *s)
{
    const pv_config *c = &s->model->config;
    const pv_stats *stats = s->model->stats;
    int dims = stats ? stats->actions.dim : c->action_dim;
    for (int i = 0; i < c->horizon * c->action_dim; i++)
        if (!isfinite(s->actions[i]))
            return pv_fail(PV_E_NOT_FINITE, "actions: step %d, dim %d is %g", i / c->action_dim, i % c->action_dim,
                           (double)s->actions[i]);
    for (int h = 0; h < c->horizon; h++) {
        double *row = s->robot + (size_t)h * (size_t)dims;
        for (int d = 0; d < dims; d++)
            row[d] = (double)s->actions[h * c->action_dim + d];
        if (stats)
            pv_unnormalize(&stats->actions, s->model->rule, row, row, dims);
        for (int d = 0; d < dims; d++)
            if (!isfinite((float)row[d]))
                return pv_fail(PV_E_NOT_FINITE, "actions: step %d, dim %d is %g in robot units", h, d, row[d]);
    }
    return PV_OK;
}

static void hand_out(const pv_session *s, const pv_infer_params *p, float *actions)
{
    const pv_config *c = &s->model->config;
    size_t n = (size_t)c->horizon * (size_t)(s->model->stats ? s->model->stats->actions.dim : c->action_dim);
    for (size_t i = 0; i < n; i++)
        actions[i] = (float)s->robot[i];
    if (p->actions_f64)
        memcpy(p->actions_f64, s->robot, sizeof *s->robot * n);
    if (p->model_actions)
        memcpy(p->model_actions, s->actions, sizeof *s->actions * (size_t)(c->horizon * c->action_dim));
}

pv_status pv_session_infer(pv_session *s, const pv_observation *observation, const pv_infer_params *params, float *actions)
{
    if (!s || !observation || !actions)
        return pv_fail(PV_E_ARG, "pv_session_infer: session, observation and actions must be given");
    pv_infer_params p;
    pv_observation obs;
    pv_status st = pv_take_params("pv_session_infer, params", &p, params, sizeof p);
    if (!st)
        st = pv_take_params("pv_session_infer, observation", &obs, observation, sizeof obs);
    if (st)
        return st;

    double start = pv_now_ms(), observed = 0;
    s->n_observations++;
    s->last = NULL;
    pv_run_timing run = {0};
    pv_runner *r = NULL;
    int steps = 0;
    st = pv_observe(s->observer, &obs, p.allow_truncation);
    if (!st)
        st = set_schedule(s, &p, &steps);
    if (!st)
        st = get_runner(s, s->observer->views, s->observer->n_ids, &r);
    if (!st)
        st = feed(s, &p, r);
    if (!st) {
        observed = pv_now_ms();
        st = pv_runner_infer(r, s->times, s->dt, steps, s->actions, &run);
    }
    if (st && r)
        st = pv_runner_abandon(r, st);
    if (!st)
        st = to_robot(s);
    if (st)
        return st;
    hand_out(s, &p, actions);
    s->timing = (pv_timing){
        .observe_ms = observed - start,
        .vision_ms = run.stage_ms[PV_STAGE_VISION],
        .prefix_ms = run.stage_ms[PV_STAGE_PREFIX],
        .schedule_ms = run.stage_ms[PV_STAGE_SCHEDULE],
        .denoise_ms = run.stage_ms[PV_STAGE_DENOISE],
        .run_ms = run.run_ms,
        .total_ms = pv_now_ms() - start,
        .prefix_tokens = r->n_prefix,
        .prompt_tokens = r->n_prompt,
        .steps = steps,
        .truncated = s->observer->truncated,
        .state_outside = s->observer->state_outside,
        .observation = obs.id ? obs.id : s->n_observations,
        .age_ms = pv_now_ms() - (obs.seen_ms > 0 ? obs.seen_ms : start),
    };
    s->last = r;
    s->asked = p;
    return PV_OK;
}

pv_status pv_session_timing(const pv_session *s, pv_timing *out)
{
    if (!s || !out)
        return pv_fail(PV_E_ARG, "pv_session_timing: session and out must be given");
    return pv_give_info("pv_session_timing", out, &s->timing, sizeof s->timing);
}

pv_status pv_session_memory(const pv_session *s, pv_memory_info *out)
{
    if (!s || !out)
        return pv_fail(PV_E_ARG, "pv_session_memory: session and out must be given");
    const pv_config *c = &s->model->config;
    pthread_mutex_lock(&shared_lock);
    pv_memory_info info = {.weights_bytes = pv_weights_bytes(s->shared->weights)};
    pthread_mutex_unlock(&shared_lock);
    info.host_bytes = pv_dtype_bytes(s->model->embedding_dtype, (size_t)c->vocab * (size_t)c->gemma.width);
    for (int v = 0; v <= PV_MAX_CAMERAS; v++)
        for (int k = 0; k < PROMPT_SIZES; k++) {
            const pv_runner *r = s->runner[v][k];
            if (!r)
                continue;
            info.plans++;
            info.state_bytes += r->plan->program.bytes[PV_STATE];
            info.scratch_bytes += r->plan->program.bytes[PV_SCRATCH];
            info.io_bytes += r->plan->program.bytes[PV_IO];
            info.const_bytes += r->plan->program.bytes[PV_CONST];
        }
    return pv_give_info("pv_session_memory", out, &info, sizeof info);
}

pv_opening pv_session_opening(const pv_session *s)
{
    return s->opening;
}

void pv_session_parts(const pv_session *s, const pv_model **model, const pv_backend **backend)
{
    *model = s->model;
    *backend = s->backend;
}

pv_status pv_session_last(pv_session *s, pv_inference *out)
{
    const pv_config *c = &s->model->config;
    pv_runner *r = s->last;
    if (!r)
        return pv_fail(PV_E_ARG, "session: its last inference failed, or there was none");
    pv_status st = r->hash ? PV_OK : pv_plan_hash(r->plan, &r->hash);
    *out = (pv_inference){
        .model = s->model,
        .backend = s->backend,
        .recipe = s->recipe->name,
        .rope_bf16 = s->params.rope_bf16,
        .allow_truncation = s->asked.allow_truncation,
        .max_steps = s->params.max_steps,
        .noise = s->noise,
        .drawn = !s->asked.noise,
        .seed = s->asked.seed,
        .schedule = s->asked.timesteps ? NULL : s->schedule,
        .steps = s->timing.steps,
        .times = s->times,
        .tokens = s->observer->ids,
        .n_tokens = s->observer->n_ids,
        .model_actions = s->actions,
        .actions = s->robot,
        .horizon = c->horizon,
        .model_dim = c->action_dim,
        .action_dim = s->model->stats ? s->model->stats->actions.dim : c->action_dim,
        .plan = r->hash,
        .timing = s->timing,
    };
    return st;
}

pv_runner *pv_session_runner(pv_session *s, int views, int tokens)
{
    pv_runner *r = NULL;
    return get_runner(s, views, tokens, &r) ? NULL : r;
}
