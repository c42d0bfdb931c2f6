#include "observation.h"
#include "base/memory.h"
#include "io/prompt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

pv_status pv_observer_create(const pv_model *model, pv_observer **out)
{
    const pv_config *c = &model->config;
    pv_observer *o = *out = pv_alloc_zero(sizeof *o);
    if (!o)
        return PV_E_MEMORY;
    o->model = model;
    o->ids = pv_alloc(sizeof *o->ids * (size_t)c->max_tokens);
    o->state = pv_alloc(sizeof *o->state * (size_t)c->action_dim);
    if (o->ids && o->state)
        return PV_OK;
    pv_observer_destroy(out);
    return PV_E_MEMORY;
}

void pv_observer_destroy(pv_observer **observer)
{
    pv_observer *o = *observer;
    if (!o)
        return;
    for (int i = 0; i < PV_MAX_CAMERAS; i++)
        pv_resizer_free(&o->resizer[i]);
    pv_free(o->ids);
    pv_free(o->state);
    pv_free(o);
    *observer = NULL;
}

static int camera_index(const pv_config *c, const char *name)
{
    for (int i = 0; name && i < c->n_cameras; i++)
        if (!strcmp(c->camera[i], name))
            return i;
    return -1;
}

static pv_status unknown_camera(const pv_config *c, const char *name)
{
    char names[PV_MAX_CAMERAS * (PV_CAMERA_NAME + 2)] = "";
    for (int i = 0; i < c->n_cameras; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), i ? ", %s" : "%s", c->camera[i]);
    return pv_fail(PV_E_ARG, "camera '%s': the model has %s", name ? name : "(null)", names);
}

static pv_status check_images(const pv_config *c, const pv_observation *obs, const pv_image **by_camera)
{
    if (obs->n_images < 1 || !obs->images)
        return pv_fail(PV_E_ARG, "observation: expected a picture of at least one camera");
    for (int i = 0; i < obs->n_images; i++) {
        const pv_image *image = &obs->images[i];
        int k = camera_index(c, image->camera);
        if (k < 0)
            return unknown_camera(c, image->camera);
        if (by_camera[k])
            return pv_fail(PV_E_ARG, "camera '%s' has two pictures", image->camera);
        size_t stride = image->stride ? image->stride : (size_t)(image->width > 0 ? image->width : 0) * 3;
        if (!image->pixels || image->width < 1 || image->height < 1 || image->width > PV_IMAGE_MAX_SIDE ||
            image->height > PV_IMAGE_MAX_SIDE || stride < (size_t)image->width * 3)
            return pv_fail(PV_E_SHAPE, "camera '%s': expected RGB pixels of 1 to %d a side, came %d x %d, stride %zu%s",
                           image->camera, PV_IMAGE_MAX_SIDE, image->width, image->height, stride,
                           image->pixels ? "" : ", no pixels");
        by_camera[k] = image;
    }
    return PV_OK;
}

/* Robot units -> normalised, as openpi orders it: before tokenising, before padding. Without statistics the state is
 * taken as normalised already. */
static pv_status read_state(pv_observer *o, const pv_observation *obs)
{
    const pv_model *m = o->model;
    const pv_norm *norm = m->stats ? &m->stats->state : NULL;
    int most = norm ? norm->dim : m->config.action_dim;
    if (obs->n_state < 0 || obs->n_state > most || (obs->n_state && !obs->state))
        return pv_fail(PV_E_SHAPE, "state: expected 1 to %d numbers (as in the statistics), came %d", most, obs->n_state);
    if (norm && norm->mode != PV_NORM_OPENPI && obs->n_state && obs->n_state != most) /* lerobot cuts no statistics */
        return pv_fail(PV_E_SHAPE, "state: expected %d numbers (as in the statistics), came %d", most, obs->n_state);
    if (m->config.discrete_state && obs->n_state == 0 && !obs->tokens)
        return pv_fail(PV_E_ARG, "state: this policy is told its state in the prompt; expected up to %d numbers, came none",
                       most);
    for (int i = 0; i < obs->n_state; i++)
        if (!isfinite(obs->state[i]))
            return pv_fail(PV_E_NOT_FINITE, "state: number %d is %g", i, obs->state[i]);
    o->state_outside = norm ? pv_norm_outside(norm, obs->state, obs->n_state) : 0;
    if (obs->n_state)
        memcpy(o->state, obs->state, sizeof *o->state * (size_t)obs->n_state);
    if (norm)
        pv_normalize(norm, m->rule, o->state, o->state, obs->n_state);
    return PV_OK;
}

static pv_status take_tokens(pv_observer *o, const pv_observation *obs, bool allow_truncation)
{
    const pv_config *c = &o->model->config;
    int n = obs->n_tokens;
    if (n < 1 || (n > c->max_tokens && !allow_truncation))
        return pv_fail(PV_E_ARG, "tokens: expected 1 to %d, came %d", c->max_tokens, n);
    o->truncated = n > c->max_tokens;
    o->n_ids = o->truncated ? c->max_tokens : n;
    for (int i = 0; i < o->n_ids; i++)
        if (obs->tokens[i] < 0 || obs->tokens[i] >= c->vocab)
            return pv_fail(PV_E_ARG, "token %d is %d; the vocabulary has 0 to %d", i, obs->tokens[i], c->vocab - 1);
    memcpy(o->ids, obs->tokens, sizeof *o->ids * (size_t)o->n_ids);
    return PV_OK;
}

static pv_status read_prompt(pv_observer *o, const pv_observation *obs, bool allow_truncation)
{
    const pv_model *m = o->model;
    if (obs->tokens)
        return take_tokens(o, obs, allow_truncation);
    if (!obs->prompt)
        return pv_fail(PV_E_ARG, "prompt: expected words or token ids, came neither");
    if (!m->tokenizer)
        return pv_fail(PV_E_ARG, "prompt: this model has no tokenizer; give one (--tokenizer FILE) or token ids (--tokens)");
    return pv_prompt_tokens(m->tokenizer, obs->prompt, m->config.discrete_state ? o->state : NULL, obs->n_state,
                            m->config.max_tokens, allow_truncation, o->ids, &o->n_ids, &o->truncated);
}

static pv_status resize(pv_observer *o, int camera, const pv_image *image, uint8_t *dst)
{
    int side = o->model->config.vision.image;
    pv_resizer **r = &o->resizer[camera];
    if (!*r || !pv_resizer_fits(*r, image->width, image->height, side)) {
        pv_resizer_free(r);
        pv_status st = pv_resizer_create(image->width, image->height, side, r);
        if (st)
            return pv_fail_in(st, "camera '%s'", image->camera);
    }
    pv_resizer_run(*r, image->pixels, image->stride ? image->stride : (size_t)image->width * 3, dst);
    return PV_OK;
}

pv_status pv_observe(pv_observer *o, const pv_observation *obs, bool allow_truncation)
{
    const pv_config *c = &o->model->config;
    const pv_image *by_camera[PV_MAX_CAMERAS] = {NULL};
    o->truncated = false;
    pv_status st = check_images(c, obs, by_camera);
    if (!st)
        st = read_state(o, obs);
    if (!st)
        st = read_prompt(o, obs, allow_truncation);
    o->views = 0;
    for (int i = 0; !st && i < c->n_cameras; i++)
        if (by_camera[i]) {
            o->image[o->views] = by_camera[i];
            o->camera[o->views++] = i;
        }
    return st;
}

pv_status pv_observe_pictures(pv_observer *o, uint8_t *pictures)
{
    size_t side = (size_t)o->model->config.vision.image;
    pv_status st = PV_OK;
    for (int v = 0; !st && v < o->views; v++)
        st = resize(o, o->camera[v], o->image[v], pictures + (size_t)v * side * side * 3);
    return st;
}
