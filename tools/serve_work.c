/* serve_work.c - the worker of `pivot serve`: takes observations one after the other, whichever connection
 * they are of, and makes replies. All clients share its session, so that there is one plan and one set of
 * buffers. */
#include "serve.h"
#include "base/clock.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

void serve_job_free(serve_job *job)
{
    if (!job)
        return;
    pv_free(job->bytes);
    pv_free(job->reply.bytes);
    pv_free(job);
}

void serve_words(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; n + 1 < size && text[n]; n++)
        out[n] = (text[n] >= ' ' && text[n] <= '~') || text[n] == '\n' ? text[n] : '?';
    out[n] = 0;
}

/* ---- one inference ---- */

static void fail(serve_job *job, serve_error kind)
{
    job->failed = true;
    serve_words(job->error, sizeof job->error, pv_error_text());
    serve_count_error(kind);
}

static void add(wire_buffer *b, const char *key, double ms)
{
    wire_text(b, key);
    wire_number(b, ms);
}

/* The keys of openpi's server come first, as it writes them; clients of its own pass over the others. */
static void encode(const serve_worker *w, serve_job *job, const double ms[SERVE_STAGE_COUNT],
                   const pv_timing *t, double infer_ms)
{
    wire_buffer *b = &job->reply;
    size_t n = (size_t)w->info.horizon * (size_t)w->about.action_dim;
    bool second = job->prev_total_ms >= 0;
    wire_reserve(b, w->pre);
    wire_map(b, 3);
    wire_text(b, "actions");
    if (w->info.has_stats) {
        wire_f64(b, w->robot_f64, w->info.horizon, w->about.action_dim);
    } else { /* without statistics nothing makes doubles of the model's numbers */
        for (size_t i = 0; i < n; i++)
            w->actions[i] = (float)w->robot_f64[i];
        wire_f32(b, w->actions, w->info.horizon, w->about.action_dim);
    }
    wire_text(b, "policy_timing");
    wire_map(b, 1);
    add(b, "infer_ms", t->total_ms);
    wire_text(b, "server_timing");
    wire_map(b, second ? 12 : 11);
    add(b, "infer_ms", infer_ms);
    if (second)
        add(b, "prev_total_ms", job->prev_total_ms);
    wire_text(b, "observation");
    wire_integer(b, job->number);
    add(b, "age_ms", pv_now_ms() - job->arrived_ms);
    add(b, "queue_ms", ms[SERVE_STAGE_queue]);
    add(b, "decode_ms", ms[SERVE_STAGE_decode]);
    add(b, "transform_ms", ms[SERVE_STAGE_transform]);
    add(b, "observe_ms", ms[SERVE_STAGE_observe]);
    add(b, "vision_ms", ms[SERVE_STAGE_vision]);
    add(b, "prefix_ms", ms[SERVE_STAGE_prefix]);
    add(b, "schedule_ms", ms[SERVE_STAGE_schedule]);
    add(b, "denoise_ms", ms[SERVE_STAGE_denoise]);
}

static void pause_ms(double ms)
{
    struct timespec t = {(time_t)(ms / 1e3), (long)((ms - 1e3 * (double)(time_t)(ms / 1e3)) * 1e6)};
    nanosleep(&t, NULL);
}

/* After the reply was handed over: a copy in memory, which the recorder's thread writes to the disk. */
static void record(serve_worker *w)
{
    static const char *const name[] = {
#define X(name) #name,
        SERVE_STAGES(X)
#undef X
    };
    static const serve_stage stage[] = {SERVE_STAGE_queue, SERVE_STAGE_decode, SERVE_STAGE_transform,
                                        SERVE_STAGE_encode, SERVE_STAGE_total};
    enum { N = sizeof stage / sizeof *stage };
    char source[40];
    pv_stage_time times[N];
    snprintf(source, sizeof source, "connection %llu", (unsigned long long)w->connection);
    for (int i = 0; i < N; i++)
        times[i] = (pv_stage_time){name[stage[i]], w->ms[stage[i]]};
    pv_record whole = {.size = sizeof whole,
                       .robot = w->robot,
                       .fields = w->request.field,
                       .n_fields = w->request.n_fields,
                       .actions = w->robot_f64,
                       .source = source,
                       .times = times,
                       .n_times = N};
    if (pv_recorder_put(w->recorder, w->session, &whole))
        fprintf(stderr, "pivot serve: %s\n", pv_error_text());
    wire_request_free(&w->request);
    pv_free(w->answered);
    w->answered = NULL;
}

static void infer(serve_worker *w, serve_job *job)
{
    double *ms = w->ms, start = pv_now_ms();
    memset(w->ms, 0, sizeof w->ms);
    ms[SERVE_STAGE_queue] = start - job->arrived_ms;
    if (ms[SERVE_STAGE_queue] > w->deadline_ms) {
        pv_fail(PV_E_UNAVAILABLE, "deadline: the observation waited %.0f ms, %.0f are allowed",
                ms[SERVE_STAGE_queue], w->deadline_ms);
        fail(job, SERVE_ERROR_deadline);
        return;
    }
    pv_status st = wire_read(job->bytes, job->n, &w->request);
    if (st) {
        fail(job, SERVE_ERROR_message);
        return;
    }
    double decoded = pv_now_ms();
    st = pv_robot_observe(w->robot, w->request.field, w->request.n_fields, &w->frame);
    if (st) {
        fail(job, SERVE_ERROR_observation);
        return;
    }
    pv_observation observation = *pv_frame_observation(w->frame);
    observation.id = job->number;
    observation.seen_ms = job->arrived_ms;
    double seen = pv_now_ms();
    if (w->delay_ms > 0)
        pause_ms(w->delay_ms);
    pv_infer_params params = {.size = sizeof params,
                              .noise = w->noise,
                              .seed = w->seed++,
                              .steps = w->steps,
                              .schedule = w->schedule,
                              .allow_truncation = true,
                              .actions_f64 = w->model_f64};
    pv_timing t = {.size = sizeof t};
    st = pv_session_infer(w->session, &observation, &params, w->actions);
    bool refused = st == PV_E_ARG || st == PV_E_SHAPE;
    if (!st)
        st = pv_session_timing(w->session, &t);
    double inferred = pv_now_ms();
    if (!st)
        st = pv_robot_act(w->robot, w->model, w->frame, w->model_f64, w->info.horizon, w->info.action_dim,
                          w->robot_f64);
    if (st) {
        fail(job, refused ? SERVE_ERROR_observation : SERVE_ERROR_inference);
        return;
    }
    double acted = pv_now_ms();
    if (acted - job->arrived_ms > w->deadline_ms) {
        pv_fail(PV_E_UNAVAILABLE, "deadline: the actions are there after %.0f ms, %.0f are allowed",
                acted - job->arrived_ms, w->deadline_ms);
        fail(job, SERVE_ERROR_deadline);
        return;
    }
    ms[SERVE_STAGE_decode] = decoded - start;
    ms[SERVE_STAGE_transform] = seen - decoded + acted - inferred;
    ms[SERVE_STAGE_observe] = t.observe_ms;
    ms[SERVE_STAGE_vision] = t.vision_ms;
    ms[SERVE_STAGE_prefix] = t.prefix_ms;
    ms[SERVE_STAGE_schedule] = t.schedule_ms;
    ms[SERVE_STAGE_denoise] = t.denoise_ms;
    encode(w, job, ms, &t, acted - decoded);
    if (wire_ok(&job->reply)) {
        fail(job, SERVE_ERROR_inference);
        return;
    }
    double end = pv_now_ms();
    ms[SERVE_STAGE_encode] = end - acted;
    ms[SERVE_STAGE_total] = end - job->arrived_ms;
    serve_count_reply(ms, t.state_outside, t.truncated);
    if (w->recorder) { /* the job will be the other thread's, its message stays here */
        w->answered = job->bytes;
        job->bytes = NULL;
        w->connection = job->connection;
    }
}

/* ---- the queue ---- */

static void *work(void *arg)
{
    serve_worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        serve_job *job = w->queue;
        if (!job) {
            pthread_cond_wait(&w->change, &w->lock);
            continue;
        }
        w->queue = job->next;
        w->busy = true;
        pthread_mutex_unlock(&w->lock);
        infer(w, job);
        if (!w->answered)
            wire_request_free(&w->request);
        job->next = NULL;
        pthread_mutex_lock(&w->lock);
        serve_job **end = &w->done;
        while (*end)
            end = &(*end)->next;
        *end = job;
        w->busy = false;
        pthread_mutex_unlock(&w->lock);
        w->wake(w->user);
        if (w->answered)
            record(w);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

serve_job *serve_worker_put(serve_worker *w, serve_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&w->lock);
    serve_job **at = &w->queue;
    while (*at && (*at)->connection != job->connection)
        at = &(*at)->next;
    serve_job *old = *at;
    if (old) /* takes its place */
        job->next = old->next;
    *at = job;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
    return old;
}

serve_job *serve_worker_done(serve_worker *w)
{
    pthread_mutex_lock(&w->lock);
    serve_job *job = w->done;
    if (job)
        w->done = job->next;
    pthread_mutex_unlock(&w->lock);
    return job;
}

serve_job *serve_worker_drop(serve_worker *w, uint64_t connection)
{
    pthread_mutex_lock(&w->lock);
    serve_job **at = &w->queue;
    while (*at && connection && (*at)->connection != connection)
        at = &(*at)->next;
    serve_job *job = *at;
    if (job)
        *at = job->next;
    pthread_mutex_unlock(&w->lock);
    return job;
}

bool serve_worker_busy(serve_worker *w)
{
    pthread_mutex_lock(&w->lock);
    bool busy = w->busy || w->done;
    pthread_mutex_unlock(&w->lock);
    return busy;
}

/* ---- begin and end ---- */

static pv_status check(const serve_worker *w)
{
    const pv_model_info *m = &w->info;
    const pv_robot_info *r = &w->about;
    if (!m->has_tokenizer)
        return pv_fail(PV_E_CHECKPOINT,
                       "the model has no tokenizer, observations come with words (--tokenizer FILE)");
    for (int i = 0; i < r->n_cameras; i++) {
        int k = 0;
        while (k < m->n_cameras && r->slot[i] && strcmp(m->camera[k], r->slot[i]))
            k++;
        if (k == m->n_cameras && r->key[i])
            return pv_fail(PV_E_ARG, "robot '%s' has a picture for camera '%s', which the model has not",
                           r->name, r->slot[i]);
    }
    if (r->action_dim > m->action_dim)
        return pv_fail(PV_E_SHAPE, "robot '%s' has actions of %d numbers, the model of %d", r->name,
                       r->action_dim, m->action_dim);
    return PV_OK;
}

pv_status serve_worker_start(serve_worker *w)
{
    w->info.size = sizeof w->info;
    w->about.size = sizeof w->about;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    pv_status st = pv_model_describe(w->model, &w->info);
    if (!st)
        st = pv_robot_describe(w->robot, &w->about);
    if (!st)
        st = check(w);
    if (st)
        return st;
    size_t rows = (size_t)w->info.horizon;
    w->actions = pv_alloc(rows * (size_t)w->info.action_dim * sizeof *w->actions);
    w->model_f64 = pv_alloc(rows * (size_t)w->info.action_dim * sizeof *w->model_f64);
    w->robot_f64 = pv_alloc(rows * (size_t)w->about.action_dim * sizeof *w->robot_f64);
    if (!w->actions || !w->model_f64 || !w->robot_f64)
        return PV_E_MEMORY;
    int error = pthread_create(&w->thread, NULL, work, w);
    if (error)
        return pv_fail(PV_E_UNAVAILABLE, "no thread for the worker: %s", strerror(error));
    w->started = true;
    return PV_OK;
}

void serve_worker_stop(serve_worker *w)
{
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_cond_signal(&w->change);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        w->started = false;
    }
    for (serve_job *job; (job = serve_worker_drop(w, 0));)
        serve_job_free(job);
    for (serve_job *job; (job = serve_worker_done(w));)
        serve_job_free(job);
    pv_free(w->actions);
    pv_free(w->model_f64);
    pv_free(w->robot_f64);
    w->actions = NULL;
    w->model_f64 = w->robot_f64 = NULL;
    pv_frame_free(&w->frame);
}
