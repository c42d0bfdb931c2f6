/* recorder.c - inferences into files, by a thread that alone waits for the disk. `put` copies an inference
 * into one block and queues it; where the queue or the folder is full it counts and forgets. */
#include "base/arena.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "io/safetensors.h"
#include "record.h"
#include "robot/frame.h"
#include "session/session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_LIMIT ((uint64_t)1 << 30)
#define WAITING_MAX   ((uint64_t)256 << 20) /* bytes that wait for the disk */
enum { DEFAULT_QUEUE = 8, MAX_QUEUE = 64, MAX_TENSORS = PV_RECORD_MAX_FIELDS + 8, MAX_TIMES = 64 };

typedef struct tensor {
    const char *name, *dtype;
    int n_dims, width;
    int64_t dim[4];
    const void *data;
    size_t bytes;
} tensor;

typedef struct words { /* of __metadata__ */
    struct words *next;
    const char *key, *value;
} words;

typedef struct item { /* one recording */
    struct item *next;
    pv_arena arena; /* names and words, and the item itself */
    words *words, **end;
    tensor tensor[MAX_TENSORS];
    int n_tensors;
    uint8_t *data;
    uint64_t bytes; /* at most so many the file will have */
    char path[];
} item;

struct pv_recorder {
    const pv_model *model;
    const pv_backend *backend;
    char *folder, *config;
    pv_identity identity;
    pv_device_info device;
    uint64_t limit;
    int queue_max;
    uint64_t started_us; /* names of files begin with the time; this and `number` keep them apart */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work, idle;
    item *queue;
    int waiting;
    uint64_t waiting_bytes, number;
    pv_recorder_info info;
    bool stop, full;
    pthread_t thread;
    bool started;
};

const char *pv_record_dtype(pv_field_type type)
{
    static const char *const spelled[PV_FIELD_TYPE_COUNT] = {
        [PV_FIELD_U8] = "U8",   [PV_FIELD_I32] = "I32",   [PV_FIELD_I64] = "I64", [PV_FIELD_F32] = "F32",
        [PV_FIELD_F64] = "F64", [PV_FIELD_BOOL] = "BOOL", [PV_FIELD_TEXT] = "U8"};
    return (unsigned)type < PV_FIELD_TYPE_COUNT ? spelled[type] : NULL;
}

/* ---- what a recording says ---- */

static pv_status say(item *x, const char *key, const char *fmt, ...) PV_PRINTF(3, 4);
static pv_status say(item *x, const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    words *w = pv_arena_alloc(&x->arena, sizeof *w);
    if (w) {
        w->key = pv_arena_printf(&x->arena, "%s", key);
        w->value = pv_arena_vprintf(&x->arena, fmt, ap);
    }
    va_end(ap);
    if (!w || !w->key || !w->value)
        return PV_E_MEMORY;
    *x->end = w;
    x->end = &w->next;
    return PV_OK;
}

static pv_status say_ms(item *x, const char *name, double ms)
{
    char key[80];
    snprintf(key, sizeof key, "ms.%.64s", name);
    return say(x, key, "%.6g", ms);
}

static pv_status say_now(item *x)
{
    struct timespec t;
    struct tm utc;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    return say(x, "time", "%s.%06ldZ", text, t.tv_nsec / 1000);
}

static pv_status say_model(item *x, const pv_recorder *r)
{
    pv_status st = say(x, "model", "%s", r->model->path);
    if (!st)
        st = say(x, "layout", "%s", r->model->layout);
    if (!st)
        st = say(x, "weights", "%016" PRIx64, r->identity.weights);
    if (!st)
        st = r->model->stats ? say(x, "stats", "%016" PRIx64, r->identity.stats) : say(x, "stats", "none");
    if (!st)
        st = say(x, "config", "%s", r->config);
    if (!st)
        st = say(x, "backend", "%s", r->device.backend);
    if (!st)
        st = say(x, "device", "%s", r->device.name);
    if (!st)
        st = say(x, "library", "%s", r->device.library);
    return st || !*r->device.driver ? st : say(x, "driver", "%s", r->device.driver);
}

static pv_status say_inference(item *x, const pv_inference *f)
{
    const pv_timing *t = &f->timing;
    const struct {
        const char *name;
        double ms;
    } times[] = {{"observe", t->observe_ms},   {"vision", t->vision_ms},   {"prefix", t->prefix_ms},
                 {"schedule", t->schedule_ms}, {"denoise", t->denoise_ms}, {"inference", t->total_ms}};
    pv_status st = say(x, "recipe", "%s", f->recipe);
    if (!st)
        st = say(x, "rope_bf16", "%d", f->rope_bf16);
    if (!st)
        st = say(x, "max_steps", "%d", f->max_steps);
    if (!st)
        st = say(x, "plan", "%016" PRIx64, f->plan);
    if (!st)
        st = say(x, "schedule", "%s", f->schedule ? f->schedule : "custom");
    if (!st && f->drawn)
        st = say(x, "seed", "%" PRIu64, f->seed);
    if (!st)
        st = say(x, "allow_truncation", "%d", f->allow_truncation);
    if (!st)
        st = say(x, "truncated", "%d", t->truncated);
    if (!st)
        st = say(x, "state_outside", "%d", t->state_outside);
    if (!st)
        st = say(x, "observation", "%" PRIu64, t->observation);
    if (!st)
        st = say(x, "age_ms", "%.6g", t->age_ms);
    for (size_t i = 0; !st && i < sizeof times / sizeof *times; i++)
        st = say_ms(x, times[i].name, times[i].ms);
    return st;
}

static pv_status say_words(item *x, const pv_recorder *r, const pv_inference *f, const pv_record *p)
{
    pv_status st = say(x, "format", PV_RECORD_FORMAT);
    if (!st)
        st = say(x, "version", "%s", pv_version());
    if (!st)
        st = say_now(x);
    if (!st && p->source)
        st = say(x, "source", "%s", p->source);
    if (!st)
        st = say_model(x, r);
    if (!st)
        st = say_inference(x, f);
    for (int i = 0; !st && i < p->n_times; i++)
        st = say_ms(x, p->times[i].name, p->times[i].ms);
    if (!st && p->robot)
        st = say(x, "robot_name", "%s", p->robot->name);
    return st || !p->robot ? st : say(x, "robot", "%s", p->robot->json);
}

/* ---- what a recording holds ---- */

/* Pointed to as yet; copied when all is known. */
static pv_status hold(item *x, const char *prefix, const char *name, const char *dtype, int n_dims,
                      const int64_t *dim, const void *data)
{
    if (x->n_tensors == MAX_TENSORS)
        return pv_fail(PV_E_ARG, "recording: more than %d fields", PV_RECORD_MAX_FIELDS);
    tensor *t = &x->tensor[x->n_tensors++];
    *t = (tensor){.dtype = dtype, .n_dims = n_dims, .data = data, .width = pv_safetensors_bits(dtype) / 8};
    t->name = pv_arena_printf(&x->arena, "%s%s", prefix, name);
    t->bytes = (size_t)t->width;
    for (int i = 0; i < n_dims; i++) {
        t->dim[i] = dim[i];
        t->bytes = pv_mul_size(t->bytes, (size_t)dim[i]);
    }
    return t->name ? PV_OK : PV_E_MEMORY;
}

static pv_status hold_fields(item *x, const pv_record *p)
{
    pv_status st = pv_check_fields(p->fields, p->n_fields);
    for (int i = 0; !st && i < p->n_fields; i++) {
        const pv_field *f = &p->fields[i];
        st = hold(x, f->type == PV_FIELD_TEXT ? "text." : "observation.", f->key, pv_record_dtype(f->type),
                  f->n_dims, f->dim, f->data);
    }
    return st;
}

/* A plain observation as fields. Pictures whose rows are apart are told by `rows`, see `copy`. */
static pv_status hold_plain(item *x, const pv_observation *o)
{
    pv_status st = PV_OK;
    bool whole = o->n_images >= 1 && o->n_images <= PV_MAX_CAMERAS && o->images;
    for (int i = 0; whole && i < o->n_images; i++) {
        const pv_image *image = &o->images[i];
        whole = image->camera && image->pixels && image->width > 0 && image->height > 0;
    }
    if (!whole)
        return pv_fail(PV_E_ARG, "recording: the observation's pictures are not those of an inference");
    for (int i = 0; !st && i < o->n_images; i++)
        st = hold(x, "observation.images/", o->images[i].camera, "U8", 3,
                  (int64_t[]){o->images[i].height, o->images[i].width, 3}, o->images[i].pixels);
    if (!st && o->state)
        st = hold(x, "observation.", "state", "F64", 1, (int64_t[]){o->n_state}, o->state);
    if (!st && o->tokens)
        st = hold(x, "observation.", "tokens", "I32", 1, (int64_t[]){o->n_tokens}, o->tokens);
    if (!st && !o->tokens && o->prompt)
        st = hold(x, "text.", "prompt", "U8", 1, (int64_t[]){(int64_t)strlen(o->prompt)}, o->prompt);
    return st;
}

static pv_status hold_inference(item *x, const pv_inference *f, const pv_record *p)
{
    const int64_t model[] = {f->horizon, f->model_dim},
                  robot[] = {f->horizon, p->robot ? p->robot->action_dim : f->action_dim};
    pv_status st = hold(x, "", "noise", "F32", 2, model, f->noise);
    if (!st)
        st = hold(x, "", "timesteps", "F32", 1, (int64_t[]){f->steps + 1}, f->times);
    if (!st)
        st = hold(x, "", "tokens", "I32", 1, (int64_t[]){f->n_tokens}, f->tokens);
    if (!st)
        st = hold(x, "", "model_actions", "F32", 2, model, f->model_actions);
    return st ? st : hold(x, "", "actions", "F64", 2, robot, p->robot ? p->actions : f->actions);
}

static void copy_picture(uint8_t *to, const pv_image *image)
{
    size_t row = (size_t)image->width * 3, stride = image->stride ? image->stride : row;
    for (int y = 0; y < image->height; y++)
        memcpy(to + row * (size_t)y, image->pixels + stride * (size_t)y, row);
}

/* All data into one block, the widest numbers first: each then lies as its dtype wants. */
static pv_status copy(item *x, const pv_observation *plain)
{
    size_t all = 0, at = 0;
    for (int i = 0; i < x->n_tensors; i++) {
        if (x->tensor[i].bytes > PV_RECORD_MAX_BYTES - all)
            return pv_fail(PV_E_ARG, "recording: more than %" PRIu64 " bytes", PV_RECORD_MAX_BYTES);
        all += x->tensor[i].bytes;
    }
    x->bytes = all;
    x->data = pv_alloc(all);
    if (!x->data)
        return PV_E_MEMORY;
    tensor sorted[MAX_TENSORS];
    int n = 0;
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < x->n_tensors; i++) {
            tensor t = x->tensor[i];
            if (t.width != width)
                continue;
            if (plain && i < plain->n_images)
                copy_picture(x->data + at, &plain->images[i]);
            else if (t.bytes)
                memcpy(x->data + at, t.data, t.bytes);
            t.data = x->data + at;
            at += t.bytes;
            sorted[n++] = t;
        }
    memcpy(x->tensor, sorted, sizeof *sorted * (size_t)n);
    return PV_OK;
}

static void drop(item *x)
{
    pv_free(x->data);
    pv_arena arena = x->arena; /* `x` lies in it */
    pv_arena_free(&arena);
}

/* At most so long is the header: of a byte may become six, of a number twenty. */
static uint64_t header_most(const item *x)
{
    uint64_t n = 64;
    for (const words *w = x->words; w; w = w->next)
        n += 6 * (strlen(w->key) + strlen(w->value)) + 16;
    for (int i = 0; i < x->n_tensors; i++)
        n += 6 * strlen(x->tensor[i].name) + 192;
    return n;
}

static pv_status make(const pv_recorder *r, const pv_inference *f, const pv_record *p, item **out)
{
    pv_arena arena = {0};
    size_t room = strlen(r->folder) + 80;
    item *x = pv_arena_alloc(&arena, sizeof *x + room);
    if (!x)
        return PV_E_MEMORY;
    x->arena = arena;
    x->end = &x->words;
    pv_status st = p->robot ? hold_fields(x, p) : hold_plain(x, p->observation);
    if (!st)
        st = hold_inference(x, f, p);
    if (!st)
        st = say_words(x, r, f, p);
    if (!st)
        st = copy(x, p->robot ? NULL : p->observation);
    if (st) {
        drop(x);
        return st;
    }
    x->bytes += header_most(x);
    *out = x;
    return PV_OK;
}

/* ---- the thread that writes ---- */

static pv_status write_item(const item *x)
{
    pv_st_writer *w = NULL;
    pv_status st = pv_st_writer_begin(x->path, &w);
    if (st)
        return st;
    for (const words *t = x->words; !st && t; t = t->next)
        st = pv_st_writer_metadata(w, t->key, t->value);
    for (int i = 0; !st && i < x->n_tensors; i++)
        st = pv_st_writer_declare_as(w, x->tensor[i].name, x->tensor[i].dtype, x->tensor[i].n_dims,
                                     x->tensor[i].dim);
    for (int i = 0; !st && i < x->n_tensors; i++)
        st = pv_st_writer_data(w, x->tensor[i].data, x->tensor[i].bytes);
    if (!st)
        return pv_st_writer_end(&w);
    pv_st_writer_abort(&w);
    return st;
}

static void *work(void *arg)
{
    pv_recorder *r = arg;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->queue && !r->stop)
            pthread_cond_wait(&r->work, &r->lock);
        item *x = r->queue;
        if (!x)
            break;
        r->queue = x->next;
        pthread_mutex_unlock(&r->lock);
        struct stat s = {.st_size = 0};
        pv_status st = write_item(x);
        bool known = !st && !stat(x->path, &s);
        pthread_mutex_lock(&r->lock);
        r->info.bytes -= x->bytes;
        if (known)
            r->info.bytes += (uint64_t)s.st_size;
        else if (!st) /* somebody took it away */
            r->info.bytes += x->bytes;
        r->info.written += !st;
        r->info.dropped_failed += st != PV_OK;
        if (st && !*r->info.error)
            pv_log(PV_LOG_WARN, "recordings: %s", pv_error_text());
        if (st)
            snprintf(r->info.error, sizeof r->info.error, "%s", pv_error_text());
        r->waiting_bytes -= x->bytes;
        r->waiting--;
        drop(x);
        if (!r->waiting)
            pthread_cond_broadcast(&r->idle);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- the door ---- */

/* Sorted by name they are sorted by time: 20261122T184647-PID-000001.safetensors, the time when the recorder
 * was opened. */
static void name_file(const pv_recorder *r, item *x, uint64_t number)
{
    time_t t = (time_t)(r->started_us / 1000000);
    struct tm utc;
    char when[24];
    gmtime_r(&t, &utc);
    strftime(when, sizeof when, "%Y%m%dT%H%M%S", &utc);
    snprintf(x->path, strlen(r->folder) + 80, "%s/%s.%06u-%ld-%06" PRIu64 ".safetensors", r->folder, when,
             (unsigned)(r->started_us % 1000000), (long)getpid(), number);
}

/* Queues it, or counts why not. */
static bool enqueue(pv_recorder *r, item *x)
{
    pthread_mutex_lock(&r->lock);
    bool full = r->full || x->bytes > r->limit || r->info.bytes > r->limit - x->bytes;
    bool many =
        r->waiting >= r->queue_max || x->bytes > WAITING_MAX || r->waiting_bytes > WAITING_MAX - x->bytes;
    if (full) {
        r->info.dropped_limit++;
        if (!r->full)
            pv_log(PV_LOG_WARN,
                   "recordings: %s is full: %" PRIu64 " of %" PRIu64 " bytes; no more are written", r->folder,
                   r->info.bytes, r->limit);
        r->full = true; /* and stays so: what follows is not copied for nothing */
    } else if (many) {
        r->info.dropped_queue++;
    } else {
        name_file(r, x, ++r->number);
        r->info.bytes += x->bytes;
        r->waiting_bytes += x->bytes;
        r->waiting++;
        item **end = &r->queue;
        while (*end)
            end = &(*end)->next;
        *end = x;
        pthread_cond_signal(&r->work);
    }
    pthread_mutex_unlock(&r->lock);
    return !full && !many;
}

/* Before anything is copied. */
static bool hopeless(pv_recorder *r)
{
    pthread_mutex_lock(&r->lock);
    bool full = r->full, many = !full && r->waiting >= r->queue_max;
    r->info.dropped_limit += full;
    r->info.dropped_queue += many;
    pthread_mutex_unlock(&r->lock);
    return full || many;
}

/* An inference that would have been recorded, had there been memory, is counted. */
static pv_status lost(pv_recorder *r, pv_status st)
{
    if (st != PV_E_MEMORY)
        return st;
    pthread_mutex_lock(&r->lock);
    r->info.dropped_failed++;
    snprintf(r->info.error, sizeof r->info.error, "%s", pv_error_text());
    pthread_mutex_unlock(&r->lock);
    return st;
}

pv_status pv_recorder_put(pv_recorder *r, pv_session *session, const pv_record *record)
{
    pv_record p;
    pv_observation plain = {0};
    pv_inference f;
    item *x = NULL;
    if (!r || !session || !record)
        return pv_fail(PV_E_ARG, "pv_recorder_put: recorder, session and record must be given");
    pv_status st = pv_take_params("pv_recorder_put", &p, record, sizeof p);
    if (!st && p.observation)
        st = pv_take_params("pv_recorder_put, observation", &plain, p.observation, sizeof plain);
    if (st)
        return st;
    if (p.robot ? p.observation || !p.actions || p.n_fields < 1 || !p.fields
                : !p.observation || p.fields || p.actions)
        return pv_fail(PV_E_ARG,
                       "pv_recorder_put: expected robot, fields and actions, or an observation alone");
    if (p.n_times < 0 || p.n_times > MAX_TIMES || (p.n_times && !p.times))
        return pv_fail(PV_E_ARG, "pv_recorder_put: expected at most %d times, came %d", MAX_TIMES, p.n_times);
    for (int i = 0; i < p.n_times; i++)
        if (!p.times[i].name || !isfinite(p.times[i].ms))
            return pv_fail(PV_E_ARG, "pv_recorder_put: time %d: expected a name and a finite number", i);
    p.observation = p.observation ? &plain : NULL;
    st = pv_session_last(session, &f);
    if (st)
        return lost(r, st);
    if (f.model != r->model || f.backend != r->backend)
        return pv_fail(PV_E_ARG, "pv_recorder_put: the recorder was opened for another model or backend");
    if (hopeless(r))
        return PV_OK;
    st = make(r, &f, &p, &x);
    if (!st && !enqueue(r, x))
        drop(x);
    return lost(r, st);
}

pv_status pv_recorder_describe(pv_recorder *r, pv_recorder_info *out)
{
    if (!r || !out)
        return pv_fail(PV_E_ARG, "pv_recorder_describe: recorder and out must be given");
    pthread_mutex_lock(&r->lock);
    pv_recorder_info info = r->info;
    info.waiting = r->waiting;
    pthread_mutex_unlock(&r->lock);
    return pv_give_info("pv_recorder_describe", out, &info, sizeof info);
}

pv_status pv_recorder_flush(pv_recorder *r, double most_ms)
{
    if (!r || !(most_ms >= 0))
        return pv_fail(PV_E_ARG, "pv_recorder_flush: expected a recorder and milliseconds");
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double at = (double)until.tv_nsec + fmin(most_ms, 1e12) * 1e6;
    until.tv_sec += (time_t)(at / 1e9);
    until.tv_nsec = (long)fmod(at, 1e9);
    pthread_mutex_lock(&r->lock);
    while (r->waiting && !pthread_cond_timedwait(&r->idle, &r->lock, &until))
        ;
    int left = r->waiting;
    pthread_mutex_unlock(&r->lock);
    return left ? pv_fail(PV_E_UNAVAILABLE, "recordings: %d still wait for the disk after %.0f ms", left,
                          most_ms)
                : PV_OK;
}

/* ---- begin and end ---- */

static pv_status look_into(pv_recorder *r)
{
    if (mkdir(r->folder, 0777) && errno != EEXIST)
        return pv_fail(PV_E_FILE, "%s: the folder cannot be made: %s", r->folder, strerror(errno));
    DIR *dir = opendir(r->folder);
    if (!dir)
        return pv_fail(PV_E_FILE, "%s: expected a folder: %s", r->folder, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat s;
        const char *end = strrchr(e->d_name, '.');
        if (end && !strcmp(end, ".safetensors") && !fstatat(dirfd(dir), e->d_name, &s, AT_SYMLINK_NOFOLLOW) &&
            S_ISREG(s.st_mode))
            r->info.bytes += (uint64_t)s.st_size;
    }
    closedir(dir);
    return access(r->folder, W_OK)
               ? pv_fail(PV_E_FILE, "%s: cannot be written into: %s", r->folder, strerror(errno))
               : PV_OK;
}

static pv_status begin(pv_recorder *r, const char *folder, const pv_recorder_params *p)
{
    struct timespec now;
    pthread_condattr_t steady;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&r->idle, &steady);
    pthread_condattr_destroy(&steady);
    clock_gettime(CLOCK_REALTIME, &now);
    r->started_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    r->limit = p->limit_bytes ? p->limit_bytes : DEFAULT_LIMIT;
    r->queue_max = p->queue ? p->queue : DEFAULT_QUEUE;
    r->device.size = sizeof r->device;
    r->folder = pv_strdup(folder);
    r->config = pv_config_text(&r->model->config);
    pv_status st = r->folder && r->config ? look_into(r) : PV_E_MEMORY;
    if (!st)
        st = pv_backend_device(r->backend, &r->device);
    if (!st)
        st = pv_model_identity(r->model, &r->identity);
    if (st)
        return st;
    int error = pthread_create(&r->thread, NULL, work, r);
    r->started = !error;
    return error ? pv_fail(PV_E_UNAVAILABLE, "no thread for recordings: %s", strerror(error)) : PV_OK;
}

pv_status pv_recorder_open(const char *folder, const pv_session *session, const pv_recorder_params *params,
                           pv_recorder **out)
{
    pv_recorder_params p;
    if (!folder || !*folder || !session || !out)
        return pv_fail(PV_E_ARG, "pv_recorder_open: folder, session and out must be given");
    *out = NULL;
    pv_status st = pv_take_params("pv_recorder_open", &p, params, sizeof p);
    if (!st && (p.queue < 0 || p.queue > MAX_QUEUE))
        st = pv_fail(PV_E_ARG, "queue: expected 0 to %d, came %d", MAX_QUEUE, p.queue);
    if (st)
        return st;
    pv_recorder *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    pv_session_parts(session, &r->model, &r->backend);
    st = begin(r, folder, &p);
    if (st)
        pv_recorder_close(&r);
    *out = r;
    return st;
}

void pv_recorder_close(pv_recorder **recorder)
{
    if (!recorder || !*recorder)
        return;
    pv_recorder *r = *recorder;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->idle);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    pv_free(r->folder);
    pv_free(r->config);
    pv_free(r);
    *recorder = NULL;
}
