/* recording.c - a recording back into memory, every size checked before memory is asked for. */
#include "base/arena.h"
#include "base/memory.h"
#include "io/safetensors.h"
#include "record.h"
#include "session/schedule.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pv_recording {
    pv_safetensors *file;
    const char *path;
    pv_arena arena;
    void *data; /* of all tensors */
    pv_recorded seen;
    pv_field field[PV_RECORD_MAX_FIELDS];
    pv_image image[PV_MAX_CAMERAS];
    char *prompt;
};

void pv_recording_close(pv_recording **out)
{
    pv_recording *r = *out;
    if (!r)
        return;
    pv_safetensors_close(&r->file);
    pv_arena_free(&r->arena);
    pv_free(r->data);
    pv_free(r->prompt);
    pv_free(r);
    *out = NULL;
}

const pv_recorded *pv_recording_look(const pv_recording *r)
{
    return &r->seen;
}

const char *pv_recording_text(const pv_recording *r, const char *key)
{
    return pv_safetensors_metadata(r->file, key);
}

/* ---- words ---- */

static pv_status need_text(const pv_recording *r, const char *key, const char **out)
{
    *out = pv_recording_text(r, key);
    return *out ? PV_OK : pv_fail(PV_E_FILE, "%s: __metadata__ has no '%s'", r->path, key);
}

static pv_status read_whole(const pv_recording *r, const char *key, long most, long *out)
{
    const char *text;
    char *end;
    pv_status st = need_text(r, key, &text);
    if (st)
        return st;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (end == text || *end || errno || *out < 0 || *out > most)
        return pv_fail(PV_E_FILE, "%s: '%s': expected a whole number from 0 to %ld, came '%.40s'", r->path,
                       key, most, text);
    return PV_OK;
}

static pv_status read_words(pv_recording *r)
{
    pv_recorded *s = &r->seen;
    const char *text;
    long rope = 0, cut = 0, max_steps = 0;
    pv_status st = need_text(r, "format", &text);
    if (!st && strcmp(text, PV_RECORD_FORMAT))
        return pv_fail(PV_E_FILE, "%s: expected format " PV_RECORD_FORMAT ", came '%.40s'", r->path, text);
    static const char *const must[] = {"model",  "weights", "stats",  "config", "backend",
                                       "device", "library", "recipe", "plan"};
    for (size_t i = 0; !st && i < sizeof must / sizeof *must; i++)
        st = need_text(r, must[i], &text);
    if (!st)
        st = read_whole(r, "rope_bf16", 1, &rope);
    if (!st)
        st = read_whole(r, "allow_truncation", 1, &cut);
    if (!st)
        st = read_whole(r, "max_steps", PV_MAX_STEPS, &max_steps);
    if (!st)
        st = need_text(r, "schedule", &text);
    if (st)
        return st;
    if (strcmp(text, "custom") && !(s->schedule = pv_schedule_find(text)))
        return pv_fail(PV_E_FILE, "%s: schedule '%.40s' is not known", r->path, text);
    s->rope_bf16 = rope;
    s->allow_truncation = cut;
    s->max_steps = (int)max_steps;
    s->robot = pv_recording_text(r, "robot") != NULL;
    return PV_OK;
}

/* ---- tensors ---- */

typedef struct want {
    const char *name, *dtype;
    int n_dims;
    int most[2]; /* a dim is 1 to so much */
    int *dim[2]; /* where it goes; one that is known already must be the same */
    const void *data;
} want;

static pv_status check(const pv_recording *r, const want *w, const pv_st_tensor *t)
{
    if (!t)
        return pv_fail(PV_E_FILE, "%s: tensor '%s' is missing", r->path, w->name);
    if (strcmp(t->dtype_name, w->dtype) || t->n_dims != w->n_dims)
        return pv_fail(PV_E_FILE, "%s: tensor '%s': expected %s of %d dims, came %s of %d", r->path, w->name,
                       w->dtype, w->n_dims, t->dtype_name, t->n_dims);
    for (int i = 0; i < w->n_dims; i++) {
        if (t->dim[i] < 1 || t->dim[i] > w->most[i] || (*w->dim[i] && t->dim[i] != *w->dim[i]))
            return pv_fail(PV_E_FILE, "%s: tensor '%s': dim %d is %lld, expected %s%d", r->path, w->name, i,
                           (long long)t->dim[i], *w->dim[i] ? "" : "1 to ",
                           *w->dim[i] ? *w->dim[i] : w->most[i]);
        *w->dim[i] = (int)t->dim[i];
    }
    return PV_OK;
}

static const char *after(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) ? NULL : name + n;
}

/* A field by its tensor. *is: it is one. */
static pv_status read_field(pv_recording *r, const pv_st_tensor *t, const void *data, bool *is)
{
    const char *key = after(t->name, "observation."), *text = after(t->name, "text.");
    *is = key || text;
    if (!*is)
        return PV_OK;
    if (r->seen.n_fields == PV_RECORD_MAX_FIELDS)
        return pv_fail(PV_E_FILE, "%s: more than %d fields", r->path, PV_RECORD_MAX_FIELDS);
    pv_field *f = &r->field[r->seen.n_fields++];
    *f = (pv_field){.key = key ? key : text, .type = PV_FIELD_TYPE_COUNT, .n_dims = t->n_dims, .data = data};
    for (int type = 0; key && type < PV_FIELD_TEXT; type++)
        if (!strcmp(pv_record_dtype((pv_field_type)type), t->dtype_name))
            f->type = (pv_field_type)type;
    if (text && !strcmp(t->dtype_name, "U8") && t->n_dims == 1)
        f->type = PV_FIELD_TEXT;
    if (f->type == PV_FIELD_TYPE_COUNT || t->n_dims > 4)
        return pv_fail(PV_E_FILE, "%s: tensor '%s': no field is %s of %d dims", r->path, t->name,
                       t->dtype_name, t->n_dims);
    for (int i = 0; i < t->n_dims; i++)
        f->dim[i] = t->dim[i];
    return PV_OK;
}

/* Every tensor into one block at places that suit any dtype. Names that are not known are passed over: of
 * later versions. */
static pv_status read_tensors(pv_recording *r)
{
    enum { PLACE = 16 };
    pv_recorded *s = &r->seen;
    int times = 0, most = 1 << 20;
    want wanted[] = {
        {"noise", "F32", 2, {100000, 4096}, {&s->horizon, &s->model_dim}},
        {"model_actions", "F32", 2, {100000, 4096}, {&s->horizon, &s->model_dim}},
        {"actions", "F64", 2, {100000, 4096}, {&s->horizon, &s->action_dim}},
        {"timesteps", "F32", 1, {PV_MAX_STEPS + 1}, {&times}},
        {"tokens", "I32", 1, {most}, {&s->n_tokens}},
    };
    enum { N = sizeof wanted / sizeof *wanted };
    uint64_t all = 0;
    pv_status st = PV_OK;
    int n = pv_safetensors_count(r->file);
    for (int i = 0; !st && i < N; i++)
        st = check(r, &wanted[i], pv_safetensors_find(r->file, wanted[i].name));
    if (!st && times < 2)
        st = pv_fail(PV_E_FILE, "%s: tensor 'timesteps': expected the times of at least one step", r->path);
    for (int i = 0; !st && i < n; i++) {
        const pv_st_tensor *t = pv_safetensors_at(r->file, i);
        if (t->bytes > PV_RECORD_MAX_BYTES || (all += t->bytes + PLACE) > PV_RECORD_MAX_BYTES)
            st = pv_fail(PV_E_FILE, "%s: more than %llu bytes of data", r->path,
                         (unsigned long long)PV_RECORD_MAX_BYTES);
    }
    if (st)
        return st;
    s->steps = times - 1;
    char *at = r->data = pv_alloc((size_t)all);
    if (!at)
        return PV_E_MEMORY;
    for (int i = 0; !st && i < n; i++) {
        const pv_st_tensor *t = pv_safetensors_at(r->file, i);
        bool is;
        st = read_field(r, t, at, &is);
        for (int k = 0; k < N; k++)
            if (!strcmp(t->name, wanted[k].name)) {
                wanted[k].data = at;
                is = true;
            }
        if (st || !is)
            continue;
        st = pv_safetensors_read_all(r->file, t, at);
        at += (t->bytes + PLACE - 1) / PLACE * PLACE;
    }
    s->noise = wanted[0].data;
    s->model_actions = wanted[1].data;
    s->actions = wanted[2].data;
    s->times = wanted[3].data;
    s->tokens = wanted[4].data;
    s->fields = r->field;
    return st;
}

static pv_status check_finite(const pv_recording *r)
{
    const pv_recorded *s = &r->seen;
    for (int i = 0; i < s->horizon * s->model_dim; i++)
        if (!isfinite(s->noise[i]) || !isfinite(s->model_actions[i]))
            return pv_fail(PV_E_FILE, "%s: noise or model_actions, element %d: not finite", r->path, i);
    for (int i = 0; i < s->horizon * s->action_dim; i++)
        if (!isfinite(s->actions[i]))
            return pv_fail(PV_E_FILE, "%s: actions, element %d: not finite", r->path, i);
    return PV_OK;
}

pv_status pv_recording_open(const char *path, pv_recording **out)
{
    *out = NULL;
    pv_recording *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    r->path = pv_arena_printf(&r->arena, "%s", path);
    pv_status st = r->path ? pv_safetensors_open(path, &r->file) : PV_E_MEMORY;
    if (!st)
        st = read_words(r);
    if (!st)
        st = read_tensors(r);
    if (!st)
        st = check_finite(r);
    if (st)
        pv_recording_close(&r);
    *out = r;
    return st;
}

/* ---- without a robot ---- */

static pv_status keep_prompt(pv_recording *r, const pv_field *f)
{
    size_t n = (size_t)f->dim[0];
    if (n && memchr(f->data, 0, n))
        return pv_fail(PV_E_FILE, "%s: 'text.prompt': a zero byte in it", r->path);
    r->prompt = pv_alloc(n + 1);
    if (!r->prompt)
        return PV_E_MEMORY;
    memcpy(r->prompt, f->data, n);
    r->prompt[n] = 0;
    return PV_OK;
}

pv_status pv_recording_plain(pv_recording *r, pv_observation *o)
{
    *o = (pv_observation){.size = sizeof *o, .images = r->image};
    pv_free(r->prompt);
    r->prompt = NULL;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < r->seen.n_fields; i++) {
        const pv_field *f = &r->field[i];
        const char *camera = after(f->key, "images/");
        if (camera && f->type == PV_FIELD_U8 && f->n_dims == 3 && f->dim[2] == 3 && f->dim[0] <= INT32_MAX &&
            f->dim[1] <= INT32_MAX && o->n_images < PV_MAX_CAMERAS) {
            r->image[o->n_images++] = (pv_image){camera, f->data, (int)f->dim[1], (int)f->dim[0], 0};
        } else if (!strcmp(f->key, "state") && f->type == PV_FIELD_F64 && f->n_dims == 1 &&
                   f->dim[0] <= INT32_MAX) {
            o->state = f->data;
            o->n_state = (int)f->dim[0];
        } else if (!strcmp(f->key, "tokens") && f->type == PV_FIELD_I32 && f->n_dims == 1 &&
                   f->dim[0] <= INT32_MAX) {
            o->tokens = f->data;
            o->n_tokens = (int)f->dim[0];
        } else if (!strcmp(f->key, "prompt") && f->type == PV_FIELD_TEXT) {
            st = keep_prompt(r, f);
            o->prompt = r->prompt;
        } else {
            st = pv_fail(PV_E_FILE, "%s: field '%s': an observation without a robot has no such field",
                         r->path, f->key);
        }
    }
    return st;
}
