/* verify_structure.c - see verify_structure.h. Every check is a run, or the denoising loop again on a prefix
 * that was kept, with something changed; its bytes are held to those of the run without. */
#include "verify_structure.h"
#include "base/memory.h"
#include "session/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct structure {
    pv_model *model;
    const pv_config *c;
    const trace_inputs *in;
    pv_runner *r;
    structure_report *report;
    float *times, *dt;
    int steps;
    size_t chunk;          /* bytes of the actions */
    float *want, *got;     /* the actions: untouched, and after what was done */
    float *first, *second; /* x after one step, likewise */
    char *row, *was;       /* of a cache */
    int32_t *ids;
    uint8_t *pixels;
    float *noise;
} structure;

/* ---- running ---- */

static pv_status feed(structure *s)
{
    pv_status st = pv_runner_prompt(s->r, s->ids, s->in->n_valid);
    if (!st)
        st = pv_runner_images(s->r, s->pixels);
    return st ? st : pv_runner_prefix(s->r, NULL);
}

static pv_status denoise(structure *s)
{
    pv_status st = pv_runner_noise(s->r, s->noise);
    if (!st)
        st = pv_runner_denoise(s->r, s->times, s->dt, s->steps, NULL, NULL, NULL);
    return st ? st : pv_runner_actions(s->r, s->got);
}

static pv_status all(structure *s)
{
    pv_status st = feed(s);
    return st ? st : denoise(s);
}

static pv_status one_step(structure *s, float *x)
{
    pv_status st = pv_runner_noise(s->r, s->noise);
    if (!st)
        st = pv_runner_denoise(s->r, s->times, s->dt, 1, NULL, NULL, NULL);
    return st ? st : pv_runner_actions(s->r, x);
}

static bool same(const structure *s)
{
    return !memcmp(s->got, s->want, s->chunk);
}

static void told(structure *s, const char *what, const char *then, bool ok)
{
    structure_check *c = &s->report->check[s->report->n++];
    *c = (structure_check){.what = what, .then = then, .ok = ok};
    s->report->n_failed += !ok;
    if (!ok && !s->report->first_failed)
        s->report->first_failed = c;
}

static void left_out(structure *s, const char *what, const char *why)
{
    s->report->check[s->report->n++] =
        (structure_check){.what = what, .then = why, .ok = true, .left_out = true};
    s->report->n_left_out++;
}

#define NOTHING   "the actions: not one bit"
#define SOMETHING "the actions: they change"

/* ---- what lies in memory ---- */

#define PIECE ((size_t)1 << 20) /* bytes written at once, or one row */

static pv_status fill(structure *s, const pv_tensor *t, int64_t first, int64_t rows, float value)
{
    size_t row = pv_dtype_bytes(t->dtype, (size_t)pv_width(t)), each = pv_dtype_bytes(t->dtype, 1);
    int64_t most = row < PIECE ? (int64_t)(PIECE / row) : 1;
    most = most < rows ? most : rows;
    char *bytes = pv_alloc(row * (size_t)most + 1);
    pv_status st = bytes ? PV_OK : PV_E_MEMORY;
    for (size_t at = 0; bytes && at < row * (size_t)most; at += each)
        pv_from_f32(bytes + at, &value, t->dtype, 1);
    for (int64_t i = 0, n; !st && i < rows; i += n) {
        n = rows - i < most ? rows - i : most;
        st = pv_instance_write(s->r->inst, t, row * (size_t)(first + i), bytes, row * (size_t)n);
    }
    pv_free(bytes);
    return st;
}

/* All scratch, all that one stage leaves to another, all of the caches. Tables of times stay: they are not
 * made anew. */
static pv_status fill_all(structure *s, float value)
{
    const pv_graph *g = s->r->plan->graph;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i];
        bool made = t->producer && t->producer->stage != PV_STAGE_SCHEDULE;
        bool mine = (t->usage == PV_SCRATCH && made) ||
                    (t->usage == PV_STATE && (made || !strncmp(t->name, "cache.", 6)));
        if (mine && t->offset != PV_NOWHERE && t->dtype != PV_I32 && t->dtype != PV_U8)
            st = fill(s, t, 0, pv_elements(t) / pv_width(t), value);
    }
    return st;
}

static const pv_tensor *cache(const structure *s, int layer, char which)
{
    char name[48];
    snprintf(name, sizeof name, "cache.layer%d.%c", layer, which);
    return pv_graph_find(s->r->plan->graph, name);
}

static pv_status read_row(structure *s, const pv_tensor *t, int64_t row, char *to)
{
    size_t bytes = pv_dtype_bytes(t->dtype, (size_t)pv_width(t));
    return pv_instance_read(s->r->inst, t, bytes * (size_t)row, to, bytes);
}

/* ---- the checks ---- */

static pv_status absent(structure *s)
{
    pv_status st = all(s);
    told(s, "the same again", NOTHING, !st && same(s));
    if (!st)
        st = fill_all(s, NAN);
    if (!st)
        st = all(s);
    told(s, "NaN in all scratch and caches before the run", NOTHING, !st && same(s));
    int room = s->r->shape.tokens, n = s->in->n_valid;
    const char *tail = "NaN in the prompt's rows behind its last token", *longer = "a longer prompt before";
    if (n == room) {
        left_out(s, tail, "the prompt fills its room");
        left_out(s, longer, "the prompt fills its room");
        return st;
    }
    if (!st)
        st = fill(s, s->r->prompt, n, room - n, NAN);
    if (!st)
        st = all(s);
    told(s, tail, NOTHING, !st && same(s));
    int32_t *ids = pv_alloc_zero(sizeof *ids * (size_t)room);
    if (!st)
        st = ids ? pv_runner_prompt(s->r, ids, room) : PV_E_MEMORY;
    if (!st)
        st = pv_runner_prefix(s->r, NULL);
    if (!st)
        st = denoise(s);
    if (!st)
        st = all(s);
    told(s, longer, NOTHING, !st && same(s));
    pv_free(ids);
    return st;
}

static pv_status visible(structure *s)
{
    const trace_inputs *in = s->in;
    size_t picture = (size_t)s->c->vision.image * (size_t)s->c->vision.image * 3;
    bool tokens = true, pixels = true, noise = true;
    pv_status st = PV_OK;
    for (int k = 0; !st && k < 2 && in->n_valid; k++) {
        int32_t *id = &s->ids[k ? in->n_valid - 1 : 0], was = *id;
        *id = (was + 1) % s->c->vocab;
        st = all(s);
        tokens &= !same(s);
        *id = was;
    }
    for (int v = 0; !st && v < in->views; v++) { /* its first pixel, its last */
        for (int k = 0; !st && k < 2; k++) {
            uint8_t *p = &s->pixels[picture * (size_t)v + (k ? picture - 1 : 0)];
            *p ^= 0x80;
            st = all(s);
            pixels &= !same(s);
            *p ^= 0x80;
        }
    }
    if (!st)
        st = feed(s);
    size_t n = s->chunk / sizeof(float);
    for (int k = 0; !st && k < 2; k++) {
        float *x = &s->noise[k ? n - 1 : 0], was = *x;
        *x = was + 0.5f;
        st = denoise(s);
        noise &= !same(s);
        *x = was;
    }
    if (in->n_valid)
        told(s, "another first token, another last one", SOMETHING, tokens);
    else
        left_out(s, "another token", "there is no prompt");
    if (in->views)
        told(s, "a camera's first pixel, its last one", SOMETHING, pixels);
    else
        left_out(s, "another pixel", "no camera is there");
    told(s, "the first number of the noise, the last one", SOMETHING, noise);
    return st;
}

/* The last valid key of every layer counts and so does the first; those behind do not. The prefix is kept. */
static pv_status keys(structure *s)
{
    int64_t first = s->c->horizon, last = first + s->r->n_prefix - 1;
    bool beyond = true;
    pv_status st = PV_OK;
    for (int layer = 0; !st && layer < s->c->gemma.depth; layer++)
        for (int v = 0; !st && v < 2; v++) {
            const pv_tensor *t = cache(s, layer, v ? 'v' : 'k');
            if (last + 1 < pv_row_count(t))
                st = fill(s, t, last + 1, pv_row_count(t) - last - 1, NAN);
            else
                beyond = false;
        }
    if (!st)
        st = denoise(s);
    if (beyond)
        told(s, "NaN in all keys and values behind the last", NOTHING, !st && same(s));
    else
        left_out(s, "NaN in all keys and values behind the last", "the prompt fills its room");
    for (int end = 0; !st && end < 2; end++) {
        char where[64] = "";
        for (int layer = 0; !st && layer < s->c->gemma.depth; layer++)
            for (int v = 0; !st && v < 2; v++) {
                const pv_tensor *t = cache(s, layer, v ? 'v' : 'k');
                int64_t at = end ? last : first;
                size_t bytes = pv_dtype_bytes(t->dtype, (size_t)pv_width(t));
                st = read_row(s, t, at, s->row);
                if (!st)
                    st = fill(s, t, at, 1, 2);
                if (!st)
                    st = denoise(s);
                if (!st && same(s) && !*where)
                    snprintf(where, sizeof where, "%s of layer %d", v ? "value" : "key", layer);
                if (!st)
                    st = pv_instance_write(s->r->inst, t, bytes * (size_t)at, s->row, bytes);
            }
        told(s,
             end ? "another last key, another last value, of each layer"
                 : "another first key, another first value, of each layer",
             SOMETHING, !st && !*where);
        snprintf(s->report->check[s->report->n - 1].where, sizeof where, "%s", where);
    }
    return st;
}

/* Who sees whom. The suffix sees all of itself: not causal. So does the prefix; and pictures do not see each
 * other before it. */
static pv_status sight(structure *s)
{
    size_t row = (size_t)s->c->action_dim, rows = (size_t)s->c->horizon;
    bool seen = true;
    pv_status st = one_step(s, s->first);
    for (int k = 0; !st && k < 2; k++) {
        float *x = s->noise + (k ? 0 : row * (rows - 1)), was = *x;
        *x = was + 0.5f;
        st = one_step(s, s->second);
        size_t other = k ? row * (rows - 1) : 0;
        seen &= memcmp(s->first + other, s->second + other, sizeof *x * row) != 0;
        *x = was;
    }
    if (rows > 1)
        told(s, "another last action token; another first",
             "the other end of the chunk sees it after one step", seen);
    else
        left_out(s, "another last action token", "the chunk has one");
    int64_t first = s->c->horizon;
    const char *later = "another last prompt token",
               *sees = "the first key of layer 1 sees it, that of layer 0 does not";
    if (s->c->gemma.depth < 2 || !s->in->n_valid || s->r->n_prefix < 2) {
        left_out(s, later, "one layer, or nothing in the prompt");
    } else {
        bool apart = true;
        for (int layer = 0; !st && layer < 2; layer++) {
            const pv_tensor *t = cache(s, layer, 'k');
            int32_t *id = &s->ids[s->in->n_valid - 1], was = *id;
            st = feed(s);
            if (!st)
                st = read_row(s, t, first, s->was);
            *id = (was + 1) % s->c->vocab;
            if (!st)
                st = feed(s);
            if (!st)
                st = read_row(s, t, first, s->row);
            *id = was;
            apart &=
                (memcmp(s->row, s->was, pv_dtype_bytes(t->dtype, (size_t)pv_width(t))) != 0) == (layer == 1);
        }
        told(s, later, sees, !st && apart);
    }
    const char *picture = "another last picture",
               *own = "the keys of layer 0: its own change, the first picture's not one bit";
    if (s->in->views < 2) {
        left_out(s, picture, "one picture or none");
        return st;
    }
    const pv_tensor *t = cache(s, 0, 'k');
    int64_t patches = pv_image_tokens(s->c), mine = first + patches * (s->in->views - 1);
    size_t bytes = pv_dtype_bytes(t->dtype, (size_t)pv_width(t)),
           pixels = (size_t)s->c->vision.image * (size_t)s->c->vision.image * 3;
    bool kept = true;
    for (int end = 0; !st && end < 2; end++) {
        int64_t at = end ? mine : first;
        st = feed(s);
        if (!st)
            st = read_row(s, t, at, s->was);
        for (size_t i = 0; i < pixels; i++)
            s->pixels[pixels * (size_t)(s->in->views - 1) + i] ^= 0x55;
        if (!st)
            st = feed(s);
        if (!st)
            st = read_row(s, t, at, s->row);
        for (size_t i = 0; i < pixels; i++)
            s->pixels[pixels * (size_t)(s->in->views - 1) + i] ^= 0x55;
        kept &= (memcmp(s->row, s->was, bytes) != 0) == (end == 1);
    }
    told(s, picture, own, !st && kept);
    return st;
}

/* ---- all of it ---- */

static pv_status prepare(structure *s, pv_backend *be, const char *recipe, uint64_t expand,
                         pv_weights **weights, pv_progress_fn progress, void *user)
{
    const trace_inputs *in = s->in;
    size_t pixels = (size_t)s->c->vision.image * (size_t)s->c->vision.image * 3 * (size_t)in->views;
    size_t widest = sizeof(float) * (size_t)s->c->gemma.kv_heads * (size_t)s->c->gemma.head_dim;
    s->chunk = sizeof(float) * (size_t)s->c->horizon * (size_t)s->c->action_dim;
    s->times = pv_alloc(sizeof(float) * (size_t)(s->steps + 1));
    s->dt = pv_alloc(sizeof(float) * (size_t)s->steps);
    s->want = pv_alloc(s->chunk);
    s->got = pv_alloc(s->chunk);
    s->first = pv_alloc(s->chunk);
    s->second = pv_alloc(s->chunk);
    s->noise = pv_alloc(s->chunk);
    s->row = pv_alloc(widest);
    s->was = pv_alloc(widest);
    s->ids = pv_alloc(sizeof *s->ids * (size_t)(in->n_valid + 1));
    s->pixels = pv_alloc(pixels + 1);
    if (!s->times || !s->dt || !s->want || !s->got || !s->first || !s->second || !s->noise || !s->row ||
        !s->was || !s->ids || !s->pixels)
        return PV_E_MEMORY;
    memcpy(s->noise, in->noise, s->chunk);
    memcpy(s->ids, in->tokens, sizeof *s->ids * (size_t)in->n_valid);
    if (pixels)
        memcpy(s->pixels, in->images, pixels);
    pv_status st = pv_schedule_times("openpi", s->steps, s->times, s->dt);
    if (!st)
        st = pv_model_embedding(s->model, progress, user);
    if (!st)
        st = pv_runner_create(s->model, be,
                              &(pv_runner_params){.shape = {in->views, s->c->max_tokens, false},
                                                  .steps = s->steps,
                                                  .recipe = recipe,
                                                  .expand = expand},
                              &s->r);
    if (!st)
        st = pv_weights_create(be, &s->model->source, weights);
    if (!st)
        st = pv_weights_load(*weights, s->r->plan->graph, progress, user);
    return st ? st : pv_runner_start(s->r, *weights);
}

static void release(structure *s)
{
    pv_runner_destroy(&s->r);
    void *const mine[] = {s->times, s->dt,  s->want, s->got, s->first, s->second,
                          s->noise, s->row, s->was,  s->ids, s->pixels};
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        pv_free(mine[i]);
}

pv_status verify_structure(pv_model *model, pv_backend *backend, const trace_inputs *in, const char *recipe,
                           uint64_t expand, int steps, pv_progress_fn progress, void *user,
                           structure_report *out)
{
    structure s = {.model = model, .c = &model->config, .in = in, .report = out, .steps = steps};
    pv_weights *weights = NULL;
    *out = (structure_report){.n = 0};
    pv_status st = prepare(&s, backend, recipe, expand, &weights, progress, user);
    if (!st)
        st = fill_all(&s, 0); /* what is read and should not be is then the same for all who read it */
    if (!st)
        st = all(&s);
    if (!st)
        memcpy(s.want, s.got, s.chunk);
    if (!st)
        st = absent(&s);
    if (!st)
        st = visible(&s);
    if (!st)
        st = keys(&s);
    if (!st)
        st = sight(&s);
    release(&s);
    pv_weights_destroy(&weights);
    return st;
}
