/* policy.c - see policy.h. */
#include "policy.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = PV_MAX_CAMERAS + PV_MAX_STATE_KEYS + 1 };

typedef struct seen { /* an observation of its own, whose memory is used again */
    pv_field field[MAX_FIELDS];
    char *key[MAX_FIELDS];
    void *data[MAX_FIELDS];
    size_t room[MAX_FIELDS];
    int n_fields;
    uint64_t id;
    int64_t stamp_ns;
    double seen_ms;
} seen;

struct policy {
    policy_options options; /* its texts are not kept, but for the schedule */
    char *schedule;
    pv_backend *backend;
    pv_model *model;
    pv_robot *robot;
    pv_session *session;
    pv_frame *frame;
    pv_model_info info;
    pv_robot_info about;
    float *rounded;
    double *exact, *actions;

    seen slot[3];
    seen *spare, *waiting, *work; /* filled by put; to be taken next; being inferred from */
    pthread_mutex_t lock;         /* of what follows, and of which slot is which */
    pthread_cond_t change;
    bool any, stop, started;
    pthread_t thread;
};

const pv_robot_info *policy_robot(const policy *p)
{
    return &p->about;
}

/* ---- observations ---- */

static size_t bytes_of(const pv_field *f)
{
    static const size_t width[PV_FIELD_TYPE_COUNT] = {1, 4, 8, 4,
                                                      8, 1, 1}; /* u8, i32, i64, f32, f64, bool, text */
    size_t n = width[f->type];
    for (int i = 0; i < f->n_dims; i++)
        n *= (size_t)f->dim[i];
    return n;
}

static bool copy_field(seen *to, int i, const pv_field *f)
{
    size_t n = bytes_of(f);
    if (n > to->room[i]) {
        void *more = realloc(to->data[i], n);
        if (!more)
            return false;
        to->data[i] = more;
        to->room[i] = n;
    }
    if (!to->key[i] || strcmp(to->key[i], f->key)) {
        free(to->key[i]);
        to->key[i] = strdup(f->key);
        if (!to->key[i])
            return false;
    }
    if (n)
        memcpy(to->data[i], f->data, n);
    to->field[i] = *f;
    to->field[i].key = to->key[i];
    to->field[i].data = to->data[i];
    return true;
}

pv_status policy_put(policy *p, const policy_seen *from)
{
    seen *to = p->spare;
    if (from->n_fields > MAX_FIELDS)
        return PV_E_ARG;
    for (int i = 0; i < from->n_fields; i++)
        if (!copy_field(to, i, &from->fields[i]))
            return PV_E_MEMORY;
    to->n_fields = from->n_fields;
    to->id = from->id;
    to->stamp_ns = from->stamp_ns;
    to->seen_ms = from->seen_ms;
    pthread_mutex_lock(&p->lock);
    p->spare = p->waiting;
    p->waiting = to;
    p->any = true;
    pthread_cond_signal(&p->change);
    pthread_mutex_unlock(&p->lock);
    return PV_OK;
}

/* ---- the thread ---- */

static pv_status infer(policy *p, const seen *s, pv_timing *timing)
{
    pv_infer_params params = {.size = sizeof params,
                              .seed = s->id,
                              .steps = p->options.steps,
                              .schedule = p->schedule,
                              .allow_truncation = true,
                              .actions_f64 = p->exact};
    pv_status st = pv_robot_observe(p->robot, s->field, s->n_fields, &p->frame);
    if (st)
        return st;
    pv_observation observation = *pv_frame_observation(p->frame);
    observation.id = s->id;
    observation.seen_ms = s->seen_ms;
    st = pv_session_infer(p->session, &observation, &params, p->rounded);
    if (!st)
        st = pv_robot_act(p->robot, p->model, p->frame, p->exact, p->info.horizon, p->info.action_dim,
                          p->actions);
    return st ? st : pv_session_timing(p->session, timing);
}

static void answer(policy *p, const seen *s)
{
    char words[512];
    policy_result r = {
        .id = s->id, .stamp_ns = s->stamp_ns, .horizon = p->info.horizon, .dims = p->about.action_dim};
    r.timing.size = sizeof r.timing;
    pv_status st = infer(p, s, &r.timing);
    if (st) {
        r.error = pv_error_text();
    } else if (p->options.max_age_ms > 0 && r.timing.age_ms > p->options.max_age_ms) {
        snprintf(words, sizeof words, "the observation is %.0f ms old, %.0f are allowed", r.timing.age_ms,
                 p->options.max_age_ms);
        r.error = words;
    }
    if (r.error)
        r.timing = (pv_timing){.size = sizeof r.timing};
    else
        r.actions = p->actions;
    p->options.done(p->options.user, &r);
}

static void *work(void *arg)
{
    policy *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->any && !p->stop)
            pthread_cond_wait(&p->change, &p->lock);
        if (p->stop)
            break;
        seen *s = p->waiting;
        p->waiting = p->work;
        p->work = s;
        p->any = false;
        pthread_mutex_unlock(&p->lock);
        answer(p, s);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- begin and end ---- */

static pv_status load(policy *p, const policy_options *o)
{
    pv_backend_params backend = {.size = sizeof backend, .device = o->device};
    pv_model_params model = {.size = sizeof model,
                             .tokenizer = o->tokenizer,
                             .norm_stats = o->norm_stats,
                             .discrete_state = o->discrete_state};
    pv_session_params session = {.size = sizeof session, .recipe = o->recipe, .max_steps = o->steps};
    p->info.size = sizeof p->info;
    p->about.size = sizeof p->about;
    pv_status st = pv_robot_load(o->robot, &p->robot);
    if (!st)
        st = pv_robot_describe(p->robot, &p->about);
    if (!st)
        st = pv_model_load(o->model, &model, &p->model);
    if (!st)
        st = pv_model_describe(p->model, &p->info);
    if (!st)
        st = pv_backend_open(o->backend ? o->backend : "cpu", &backend, &p->backend);
    return st ? st : pv_session_create(p->model, p->backend, &session, &p->session);
}

pv_status policy_open(const policy_options *options, policy **out)
{
    policy *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return PV_E_MEMORY;
    p->options = *options;
    p->spare = &p->slot[0];
    p->waiting = &p->slot[1];
    p->work = &p->slot[2];
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->change, NULL);
    pv_status st = load(p, options);
    size_t rows = (size_t)p->info.horizon;
    if (!st) {
        p->schedule = options->schedule ? strdup(options->schedule) : NULL;
        p->rounded = calloc(rows * (size_t)p->info.action_dim, sizeof *p->rounded);
        p->exact = calloc(rows * (size_t)p->info.action_dim, sizeof *p->exact);
        p->actions = calloc(rows * (size_t)p->about.action_dim, sizeof *p->actions);
        if (!p->rounded || !p->exact || !p->actions || (options->schedule && !p->schedule))
            st = PV_E_MEMORY;
    }
    p->started = !st && !pthread_create(&p->thread, NULL, work, p);
    if (!st && !p->started)
        st = PV_E_UNAVAILABLE;
    if (st)
        policy_close(&p);
    *out = p;
    return st;
}

void policy_close(policy **policy_)
{
    policy *p = *policy_;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->change);
    pthread_mutex_unlock(&p->lock);
    if (p->started)
        pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->change);
    pthread_mutex_destroy(&p->lock);
    pv_frame_free(&p->frame);
    pv_session_destroy(&p->session);
    pv_robot_free(&p->robot);
    pv_model_free(&p->model);
    pv_backend_close(&p->backend);
    for (int s = 0; s < 3; s++)
        for (int i = 0; i < MAX_FIELDS; i++) {
            free(p->slot[s].key[i]);
            free(p->slot[s].data[i]);
        }
    free(p->schedule);
    free(p->rounded);
    free(p->exact);
    free(p->actions);
    free(p);
    *policy_ = NULL;
}
