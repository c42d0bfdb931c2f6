/* policy.c - see policy.h. */
#include "policy.h"
#include "base/memory.h"
#include "session/observation.h"
#include "session/schedule.h"
#include "session/session.h"
#include "tools/inputs.h"

#include <string.h>

#define INPUTS "F" /* the case whose made-up inputs these are; see model/synthetic.h */

/* ---- the observation ---- */

static size_t picture_bytes(const lab *l)
{
    return (size_t)l->info.image_size * (size_t)l->info.image_size * 3;
}

static void made_up(lab *l, lab_policy *p)
{
    p->views = l->views;
    for (int v = 0; v < p->views; v++) {
        p->camera[v] = v;
        pv_synthetic_image(INPUTS, l->info.camera[v], (int64_t)picture_bytes(l),
                           p->pixels + picture_bytes(l) * (size_t)v);
    }
    p->n_ids = l->tokens;
    pv_synthetic_tokens(INPUTS, p->n_ids, l->model->config.vocab, p->ids);
}

/* Pictures, words and state as the session reads them. What was not given stays made up. */
static pv_status given(lab *l, lab_policy *p)
{
    input_images images = {0};
    pv_observer *o = NULL;
    pv_image made[PV_MAX_CAMERAS];
    double *state = NULL;
    int n_state = 0, side = l->info.image_size;
    pv_status st = l->images.n ? input_images_read(&l->images, &images) : PV_OK;
    if (!st && l->state)
        st = cli_numbers("--state", l->state, &state, &n_state);
    if (!st)
        st = pv_observer_create(l->model, &o);
    for (int v = 0; !st && !l->images.n && v < p->views; v++)
        made[v] = (pv_image){l->info.camera[v], p->pixels + picture_bytes(l) * (size_t)v, side, side, 0};
    pv_observation seen = {.size = sizeof seen,
                           .images = l->images.n ? images.image : made,
                           .n_images = l->images.n ? images.n : p->views,
                           .prompt = l->prompt,
                           .tokens = l->prompt ? NULL : p->ids,
                           .n_tokens = l->prompt ? 0 : p->n_ids,
                           .state = state,
                           .n_state = n_state};
    if (!st)
        st = pv_observe(o, &seen, false);
    if (!st && l->images.n)
        st = pv_observe_pictures(o, p->pixels);
    if (!st) {
        memcpy(p->camera, o->camera, sizeof p->camera);
        memcpy(p->ids, o->ids, sizeof *p->ids * (size_t)o->n_ids);
        p->views = o->views;
        p->n_ids = o->n_ids;
    }
    pv_observer_destroy(&o);
    pv_free(state);
    input_images_free(&images);
    return st;
}

pv_status lab_policy_open(lab *l)
{
    lab_policy *p = l->policy = pv_alloc_zero(sizeof *p);
    if (!p)
        return PV_E_MEMORY;
    p->chunk = (size_t)l->info.horizon * (size_t)l->info.model_dim;
    p->pixels = pv_alloc(picture_bytes(l) * (size_t)l->info.n_cameras + 1);
    p->ids = pv_alloc(sizeof *p->ids * (size_t)l->info.max_tokens);
    p->noise = pv_alloc(sizeof *p->noise * p->chunk);
    if (!p->pixels || !p->ids || !p->noise)
        return PV_E_MEMORY;
    pv_session_noise(l->seed, p->noise, p->chunk);
    made_up(l, p);
    pv_status st = l->images.n || l->prompt || l->state ? given(l, p) : PV_OK;
    if (!st)
        st = pv_model_embedding(l->model, cli_progress, &l->bar);
    return st ? st : pv_weights_create(l->backend, &l->model->source, &p->weights);
}

void lab_policy_close(lab *l)
{
    lab_policy *p = l->policy;
    if (!p)
        return;
    pv_weights_destroy(&p->weights);
    pv_free(p->pixels);
    pv_free(p->ids);
    pv_free(p->noise);
    pv_free(p);
    l->policy = NULL;
}

/* ---- plans of it ---- */

pv_status lab_runner_unfed(lab *l, const pv_runner_params *params, pv_runner **out)
{
    pv_runner_params q = *params;
    q.steps = q.steps ? q.steps : l->steps;
    q.recipe = q.recipe ? q.recipe : l->common.recipe;
    pv_status st = pv_runner_create(l->model, l->backend, &q, out);
    if (!st)
        st = pv_weights_load(l->policy->weights, (*out)->plan->graph, cli_progress, &l->bar);
    cli_progress_end(&l->bar);
    if (!st)
        st = pv_runner_start(*out, l->policy->weights);
    if (st)
        pv_runner_destroy(out);
    return st;
}

pv_status lab_runner(lab *l, const pv_runner_params *params, pv_runner **out)
{
    const lab_policy *p = l->policy;
    pv_runner_params q = *params;
    if (!q.shape.tokens)
        q.shape = (pv_pi05_shape){.views = p->views, .tokens = p->n_ids};
    pv_status st = lab_runner_unfed(l, &q, out);
    if (!st)
        st = pv_runner_images(*out, p->pixels);
    if (!st)
        st = pv_runner_prompt(*out, p->ids, p->n_ids);
    if (!st)
        st = pv_runner_prefix(*out, NULL);
    if (st)
        pv_runner_destroy(out);
    return st;
}

pv_status lab_denoise_at(lab *l, pv_runner *r, const float *t, const float *dt, int steps, const float *noise,
                         float *actions, double *ms)
{
    pv_run_timing timing = {{0}};
    pv_status st = pv_runner_noise(r, noise ? noise : l->policy->noise);
    if (!st)
        st = pv_runner_denoise(r, t, dt, steps, &timing, NULL, NULL);
    if (!st)
        st = pv_runner_actions(r, actions);
    if (ms)
        *ms = timing.stage_ms[PV_STAGE_DENOISE];
    return st;
}

pv_status lab_denoise(lab *l, pv_runner *r, const char *schedule, int steps, const float *noise,
                      float *actions, double *ms)
{
    float *times = pv_alloc(sizeof *times * (size_t)(2 * steps + 1)), *dt = times ? times + steps + 1 : NULL;
    pv_status st = times ? pv_schedule_times(schedule, steps, times, dt) : PV_E_MEMORY;
    if (!st)
        st = lab_denoise_at(l, r, times, dt, steps, noise, actions, ms);
    pv_free(times);
    return st;
}
