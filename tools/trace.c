#include "trace.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

static pv_status read_raw(const pv_safetensors *st, const pv_st_tensor *t, void **out)
{
    *out = pv_alloc((size_t)t->bytes);
    if (!*out)
        return PV_E_MEMORY;
    pv_status s = pv_safetensors_read(st, t, 0, t->n_elements, *out);
    if (s) {
        pv_free(*out);
        *out = NULL;
    }
    return s;
}

float *trace_floats(const pv_safetensors *st, const pv_st_tensor *t)
{
    void *raw;
    if (t->dtype == PV_DTYPE_COUNT) {
        pv_fail(PV_E_FILE, "tensor '%s': dtype %s cannot be read", t->name, t->dtype_name);
        return NULL;
    }
    if (read_raw(st, t, &raw))
        return NULL;
    if (t->dtype == PV_F32)
        return raw;
    float *f = pv_alloc(pv_mul_size((size_t)t->n_elements, sizeof *f));
    for (int64_t i = 0; f && i < t->n_elements; i++) {
        if (t->dtype == PV_I32)
            f[i] = (float)((const int32_t *)raw)[i];
        else if (t->dtype == PV_U8)
            f[i] = (float)((const uint8_t *)raw)[i];
    }
    if (f && t->dtype != PV_I32 && t->dtype != PV_U8)
        pv_to_f32(f, raw, t->dtype, (size_t)t->n_elements);
    pv_free(raw);
    return f;
}

/* The tensor with its dtype and number of elements checked; -1: any number of 1-D elements. */
static pv_status need(const pv_safetensors *st, const char *name, pv_dtype dtype, int64_t n, const pv_st_tensor **out)
{
    *out = pv_safetensors_find(st, name);
    if (!*out)
        return pv_fail(PV_E_FILE, "trace: tensor '%s' is missing", name);
    if ((*out)->dtype != dtype || (n >= 0 ? (*out)->n_elements != n : (*out)->n_dims != 1))
        return pv_fail(PV_E_FILE, "trace: tensor '%s': expected %s with %lld elements, came %s with %lld", name,
                       pv_dtype_name(dtype), (long long)n, (*out)->dtype_name, (long long)(*out)->n_elements);
    return PV_OK;
}

/* What the model reads, [3, side, side], back to the pixels it was made of: v / 255 * 2 - 1, nothing between. */
static pv_status to_pixels(const pv_st_tensor *t, const float *chw, uint8_t *hwc)
{
    int64_t n = t->n_elements / 3;
    for (int64_t i = 0; i < 3 * n; i++) {
        float level = (chw[i] + 1.0f) * 127.5f + 0.5f;
        uint8_t v = level >= 0 && level < 256 ? (uint8_t)level : 0;
        if ((float)v / 255.0f * 2.0f - 1.0f != chw[i])
            return pv_fail(PV_E_FILE, "trace: tensor '%s': element %lld is %.9g, which no pixel of 8 bits becomes", t->name,
                           (long long)i, (double)chw[i]);
        hwc[i % n * 3 + i / n] = v;
    }
    return PV_OK;
}

static pv_status read_image(const pv_safetensors *st, const pv_config *c, int camera, uint8_t *hwc)
{
    int64_t n = (int64_t)c->vision.image * c->vision.image * 3;
    char name[PV_CAMERA_NAME + 32];
    const pv_st_tensor *t;
    void *raw = NULL;
    snprintf(name, sizeof name, "in.image.%s.u8", c->camera[camera]);
    if (pv_safetensors_find(st, name)) {
        pv_status s = need(st, name, PV_U8, n, &t);
        return s ? s : pv_safetensors_read(st, t, 0, n, hwc);
    }
    snprintf(name, sizeof name, "in.image.%s.f32", c->camera[camera]);
    pv_status s = need(st, name, PV_F32, n, &t);
    if (!s)
        s = read_raw(st, t, &raw);
    if (!s)
        s = to_pixels(t, raw, hwc);
    pv_free(raw);
    return s;
}

static pv_status read_masks(const pv_safetensors *st, const pv_config *c, trace_inputs *in, uint8_t **image_mask,
                            uint8_t **token_mask, int32_t **tokens)
{
    const pv_st_tensor *t;
    pv_status s = need(st, "in.image_mask", PV_U8, c->n_cameras, &t);
    if (!s)
        s = read_raw(st, t, (void **)image_mask);
    if (!s)
        s = need(st, "in.tokens", PV_I32, -1, &t);
    if (!s && t->n_elements > c->max_tokens)
        s = pv_fail(PV_E_FILE, "trace: %lld prompt slots; the model has %d", (long long)t->n_elements, c->max_tokens);
    if (s)
        return s;
    in->n_tokens = (int)t->n_elements;
    s = read_raw(st, t, (void **)tokens);
    if (!s)
        s = need(st, "in.token_mask", PV_U8, in->n_tokens, &t);
    return s ? s : read_raw(st, t, (void **)token_mask);
}

pv_status trace_read_inputs(const pv_safetensors *st, const pv_config *c, trace_inputs *in)
{
    uint8_t *image_mask = NULL, *token_mask = NULL;
    int32_t *tokens = NULL;
    int patches = pv_image_tokens(c);
    size_t pixels = (size_t)c->vision.image * (size_t)c->vision.image * 3;
    const pv_st_tensor *t = NULL;
    *in = (trace_inputs){0};
    pv_status s = read_masks(st, c, in, &image_mask, &token_mask, &tokens);
    in->n_prefix = (int64_t)c->n_cameras * patches + in->n_tokens;
    if (!s) {
        in->images = pv_alloc(pv_mul_size(pixels, (size_t)c->n_cameras));
        in->packed = pv_alloc(sizeof *in->packed * (size_t)in->n_prefix);
        in->tokens = pv_alloc(sizeof *in->tokens * (size_t)(in->n_tokens + 1));
        if (!in->images || !in->packed || !in->tokens)
            s = PV_E_MEMORY;
    }
    int row = 0;
    for (int i = 0; !s && i < c->n_cameras; i++) {
        for (int p = 0; p < patches; p++)
            in->packed[i * patches + p] = image_mask[i] ? row++ : -1;
        if (image_mask[i]) {
            s = read_image(st, c, i, in->images + pixels * (size_t)in->views);
            in->camera[in->views++] = i;
        }
    }
    for (int i = 0; !s && i < in->n_tokens; i++) {
        in->packed[c->n_cameras * patches + i] = token_mask[i] ? row++ : -1;
        if (token_mask[i])
            in->tokens[in->n_valid++] = tokens[i];
    }
    if (!s)
        s = need(st, "in.noise", PV_F32, (int64_t)c->horizon * c->action_dim, &t);
    if (!s)
        s = read_raw(st, t, (void **)&in->noise);
    pv_free(image_mask);
    pv_free(token_mask);
    pv_free(tokens);
    if (s)
        trace_free_inputs(in);
    return s;
}

#define MADE_UP "F" /* the case whose inputs these are; see model/synthetic.h */

pv_status trace_made_up(const pv_config *c, int views, int tokens, trace_inputs *in)
{
    int64_t pixels = (int64_t)c->vision.image * c->vision.image * 3, chunk = (int64_t)c->horizon * c->action_dim;
    *in = (trace_inputs){.views = views, .n_tokens = tokens, .n_valid = tokens};
    in->images = pv_alloc(pv_mul_size((size_t)pixels, (size_t)views));
    in->tokens = pv_alloc(sizeof *in->tokens * (size_t)(tokens + 1));
    in->noise = pv_alloc(sizeof *in->noise * (size_t)chunk);
    pv_status s = in->images && in->tokens && in->noise ? PV_OK : PV_E_MEMORY;
    for (int v = 0; !s && v < views; v++) {
        in->camera[v] = v;
        pv_synthetic_image(MADE_UP, c->camera[v], pixels, in->images + pixels * v);
    }
    if (!s) {
        pv_synthetic_tokens(MADE_UP, tokens, c->vocab, in->tokens);
        pv_synthetic_noise(MADE_UP, chunk, in->noise);
    }
    if (s)
        trace_free_inputs(in);
    return s;
}

void trace_free_inputs(trace_inputs *in)
{
    pv_free(in->images);
    pv_free(in->tokens);
    pv_free(in->packed);
    pv_free(in->noise);
    *in = (trace_inputs){0};
}

/* ---- names ---- */

static const char *after(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) ? NULL : name + n;
}

/* vision.CAM.rest */
static trace_name of_camera(const char *rest, const pv_config *c, const trace_inputs *in)
{
    trace_name n = {.kind = TRACE_UNKNOWN, .step = -1, .view = -1};
    for (int i = 0; i < c->n_cameras; i++) {
        const char *tail = after(rest, c->camera[i]);
        if (!tail || *tail != '.')
            continue;
        n.kind = TRACE_NOT_COMPARED;
        n.why = "masked camera";
        for (int v = 0; v < in->views; v++)
            if (in->camera[v] == i) {
                n.kind = TRACE_TENSOR;
                n.view = v;
                snprintf(n.tensor, sizeof n.tensor, "vision%s", tail);
            }
    }
    return n;
}

static bool ends(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && !strcmp(name + n - k, end);
}

static trace_name of_prefix(const char *name)
{
    trace_name n = {.kind = TRACE_TENSOR, .step = -1, .view = -1, .rows = TRACE_PREFIX_ROWS};
    if (!strcmp(name, "prefix.pad_mask"))
        n.kind = TRACE_PAD_MASK;
    else if (ends(name, ".k") || ends(name, ".v"))
        n.rows = TRACE_KV_ROWS;
    snprintf(n.tensor, sizeof n.tensor, "%s", name);
    return n;
}

static trace_name of_step(const char *digits)
{
    trace_name n = {.kind = TRACE_UNKNOWN, .view = -1};
    char *dot;
    long step = strtol(digits, &dot, 10);
    if (dot == digits || *dot != '.' || step < 0 || step >= TRACE_MAX_STEPS)
        return n;
    n.step = (int)step;
    n.kind = strcmp(dot, ".time") ? TRACE_TENSOR : TRACE_TIME;
    snprintf(n.tensor, sizeof n.tensor, "step%s", dot);
    return n;
}

static trace_name of_schedule(const char *rest)
{
    static const char *const parts[] = {"timesteps", "v", "actions"};
    trace_name n = {.kind = TRACE_UNKNOWN, .step = -1, .view = -1};
    const char *dot = strchr(rest, '.');
    if (!dot || (size_t)(dot - rest) >= sizeof n.schedule)
        return n;
    memcpy(n.schedule, rest, (size_t)(dot - rest));
    for (int p = 0; p < 3; p++)
        if (!strcmp(dot + 1, parts[p])) {
            n.kind = TRACE_SCHEDULE;
            n.part = (trace_part)p;
        }
    return n;
}

trace_name trace_parse(const char *name, const pv_config *c, const trace_inputs *in)
{
    trace_name n = {.kind = TRACE_UNKNOWN, .step = -1, .view = -1};
    const char *rest;
    if (after(name, "in.") || after(name, "bf16.")) {
        n.kind = TRACE_NOT_COMPARED;
        n.why = after(name, "in.") ? "input" : "for information";
    } else if ((rest = after(name, "vision."))) {
        n = of_camera(rest, c, in);
    } else if (after(name, "prefix.")) {
        n = of_prefix(name);
    } else if ((rest = after(name, "step"))) {
        n = of_step(rest);
    } else if ((rest = after(name, "sched."))) {
        n = of_schedule(rest);
    } else if (!strcmp(name, "out.actions")) {
        n.kind = TRACE_ACTIONS;
    }
    return n;
}

int64_t trace_map(const trace_name *n, const trace_inputs *in, const pv_config *c, int64_t width, int64_t i)
{
    if (n->rows == TRACE_ALL)
        return i;
    if (n->rows == TRACE_PREFIX_ROWS) {
        int32_t row = in->packed[i / width];
        return row < 0 ? -1 : row * width + i % width;
    }
    int64_t head = c->gemma.head_dim; /* [kv heads, rows, head] there, [rows, kv heads x head] here */
    int32_t row = in->packed[i / head % in->n_prefix];
    return row < 0 ? -1 : row * width + i / (head * in->n_prefix) * head + i % head;
}
