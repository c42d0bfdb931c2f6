/* frame.c - fields of an observation into a frame, and actions of the session into the robot's. */
#include "frame.h"
#include "base/memory.h"
#include "io/prompt.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_FIELDS 1024 /* of one observation: keys are compared one with another */

static const struct {
    const char *name;
    size_t bytes;
} types[PV_FIELD_TYPE_COUNT] = {[PV_FIELD_U8] = {"u8", 1},     [PV_FIELD_I32] = {"i32", 4},   [PV_FIELD_I64] = {"i64", 8},
                                [PV_FIELD_F32] = {"f32", 4},   [PV_FIELD_F64] = {"f64", 8},   [PV_FIELD_BOOL] = {"bool", 1},
                                [PV_FIELD_TEXT] = {"text", 1}};

const char *pv_field_type_name(pv_field_type type)
{
    return (unsigned)type < PV_FIELD_TYPE_COUNT ? types[type].name : "unknown type";
}

void pv_field_shape(const pv_field *f, char out[96])
{
    size_t n = 0;
    n += (size_t)snprintf(out, 96, "%s [", pv_field_type_name(f->type));
    for (int i = 0; i < f->n_dims; i++)
        n += (size_t)snprintf(out + n, 96 - n, i ? ", %lld" : "%lld", (long long)f->dim[i]);
    snprintf(out + n, 96 - n, "]");
}

pv_status pv_block_need(pv_block *b, size_t bytes)
{
    if (bytes <= b->bytes)
        return PV_OK;
    pv_free(b->data);
    b->bytes = 0;
    b->data = pv_alloc(bytes);
    if (!b->data)
        return PV_E_MEMORY;
    b->bytes = bytes;
    return PV_OK;
}

void pv_frame_free(pv_frame **frame)
{
    if (!frame || !*frame)
        return;
    for (int i = 0; i < PV_MAX_CAMERAS; i++) {
        pv_free((*frame)->pixels[i].data);
        pv_free((*frame)->slot[i].data);
    }
    pv_free((*frame)->prompt.data);
    pv_free(*frame);
    *frame = NULL;
}

const pv_observation *pv_frame_observation(const pv_frame *frame)
{
    return frame && frame->robot ? &frame->observation : NULL;
}

/* ---- fields ---- */

typedef struct fields {
    const pv_field *field;
    int n;
} fields;

static const pv_field *find(fields all, const char *key)
{
    for (int i = 0; i < all.n; i++)
        if (!strcmp(all.field[i].key, key))
            return &all.field[i];
    return NULL;
}

pv_status pv_check_fields(const pv_field *field, int n_fields)
{
    const fields all = {field, n_fields};
    if (n_fields > MAX_FIELDS)
        return pv_fail(PV_E_ARG, "observation: expected at most %d fields, came %d", MAX_FIELDS, n_fields);
    for (int i = 0; i < all.n; i++) {
        const pv_field *f = &all.field[i];
        if (!f->key || (unsigned)f->type >= PV_FIELD_TYPE_COUNT || f->n_dims < 0 || f->n_dims > 4 ||
            (f->type == PV_FIELD_TEXT && f->n_dims != 1))
            return pv_fail(PV_E_ARG, "field %d ('%s'): expected a key, a type below %d and 0 to 4 dims (text: 1), came type %d, %d dims",
                           i, f->key ? f->key : "(null)", PV_FIELD_TYPE_COUNT, (int)f->type, f->n_dims);
        size_t n = types[f->type].bytes;
        for (int d = 0; d < f->n_dims; d++) {
            if (f->dim[d] < 0)
                return pv_fail(PV_E_SHAPE, "'%s': dim %d is %lld", f->key, d, (long long)f->dim[d]);
            n = pv_mul_size(n, (size_t)f->dim[d]);
        }
        if (n == SIZE_MAX || (n && !f->data))
            return pv_fail(PV_E_SHAPE, "'%s': %s", f->key, f->data ? "more bytes than there is memory" : "no data");
        if (find((fields){all.field, i}, f->key))
            return pv_fail(PV_E_ARG, "'%s': came twice", f->key);
    }
    return PV_OK;
}

/* The robot's keys, for error words. */
static void say_keys(const pv_robot *b, char *out, size_t n)
{
    *out = 0;
    for (int i = 0; i < b->n_cameras; i++)
        if (b->camera[i].key)
            snprintf(out + strlen(out), n - strlen(out), "%s%s", *out ? ", " : "", b->camera[i].key);
    for (int i = 0; i < b->n_ignore; i++)
        snprintf(out + strlen(out), n - strlen(out), ", %s", b->ignore[i]);
}

static bool known(const pv_robot *b, const char *key)
{
    bool is = !strcmp(key, b->prompt_key);
    for (int i = 0; i < b->n_cameras; i++)
        is = is || (b->camera[i].key && !strcmp(key, b->camera[i].key));
    for (int i = 0; i < b->n_state_keys; i++)
        is = is || !strcmp(key, b->state_key[i]);
    for (int i = 0; i < b->n_ignore; i++)
        is = is || !strcmp(key, b->ignore[i]);
    return is;
}

static pv_status check_closed(const pv_robot *b, fields all)
{
    for (int i = 0; i < all.n; i++)
        for (int k = 0; k < b->n_closed; k++)
            if (!strncmp(all.field[i].key, b->closed[k], strlen(b->closed[k])) && !known(b, all.field[i].key)) {
                char keys[512];
                say_keys(b, keys, sizeof keys);
                return pv_fail(PV_E_ARG, "'%s': robot '%s' does not know it; expected some of: %s", all.field[i].key, b->name,
                               keys);
            }
    return PV_OK;
}

static pv_status missing(fields all, const char *key, const char *what)
{
    char came[512] = "";
    for (int i = 0; i < all.n; i++)
        snprintf(came + strlen(came), sizeof came - strlen(came), "%s%s", i ? ", " : "", all.field[i].key);
    return pv_fail(PV_E_ARG, "'%s': expected %s, it is missing; came %s", key, what, *came ? came : "nothing");
}

static pv_status keep_text(pv_block *to, const char *text, size_t n)
{
    pv_status st = pv_block_need(to, n + 1);
    if (st)
        return st;
    memcpy(to->data, text, n);
    ((char *)to->data)[n] = 0;
    return PV_OK;
}

static pv_status read_pictures(const pv_robot *b, fields all, pv_frame *to)
{
    int n = 0;
    for (int i = 0; i < b->n_cameras; i++) {
        const pv_robot_camera *c = &b->camera[i];
        const pv_field *f = c->key ? find(all, c->key) : NULL;
        if (!f && c->key && !c->optional)
            return missing(all, c->key, "a picture");
        if (!f)
            continue;
        pv_image *image = &to->image[n];
        *image = (pv_image){0};
        pv_status st = pv_read_picture(c, f, &to->pixels[n], &image->width, &image->height);
        if (!st)
            st = keep_text(&to->slot[n], c->slot, strlen(c->slot));
        if (st)
            return st;
        image->pixels = to->pixels[n].data;
        image->camera = to->slot[n++].data;
    }
    if (n == 0)
        return pv_fail(PV_E_ARG, "robot '%s': expected a picture of at least one camera, came none", b->name);
    to->observation.images = to->image;
    to->observation.n_images = n;
    return PV_OK;
}

static double number(const pv_field *f, int i)
{
    const unsigned char *at = (const unsigned char *)f->data + types[f->type].bytes * (size_t)i;
    float f32;
    double f64;
    int32_t i32;
    int64_t i64;
    switch (f->type) {
    case PV_FIELD_F32: memcpy(&f32, at, sizeof f32); return (double)f32;
    case PV_FIELD_F64: memcpy(&f64, at, sizeof f64); return f64;
    case PV_FIELD_I32: memcpy(&i32, at, sizeof i32); return i32;
    case PV_FIELD_I64: memcpy(&i64, at, sizeof i64); return (double)i64;
    default: return *at;
    }
}

static pv_status read_state(const pv_robot *b, fields all, pv_frame *to)
{
    int n = 0;
    for (int k = 0; k < b->n_state_keys; k++) {
        const pv_field *f = find(all, b->state_key[k]);
        int want = b->state_key_dim[k];
        if (!f)
            return missing(all, b->state_key[k], "numbers of the state");
        bool scalar = f->n_dims == 0 && want == 1;
        if (f->type == PV_FIELD_TEXT || f->type == PV_FIELD_BOOL || !(scalar || (f->n_dims == 1 && f->dim[0] == want))) {
            char came[96];
            pv_field_shape(f, came);
            return pv_fail(PV_E_SHAPE, "'%s': expected numbers [%d]%s, came %s", f->key, want, want == 1 ? " or one number" : "",
                           came);
        }
        for (int i = 0; i < want; i++, n++) {
            to->state[n] = number(f, i);
            if (!isfinite(to->state[n]))
                return pv_fail(PV_E_NOT_FINITE, "'%s': number %d is %g", f->key, i, to->state[n]);
        }
    }
    pv_convert_run(&b->state_convert, to->state);
    for (int i = 0; b->f32 && i < n; i++)
        to->state[i] = (double)(float)to->state[i];
    for (int i = 0; i < n; i++)
        if (!isfinite(to->state[i]))
            return pv_fail(PV_E_NOT_FINITE, "robot '%s': number %d of the state is %g after its conversions", b->name, i,
                           to->state[i]);
    to->n_state = to->observation.n_state = n;
    to->observation.state = to->state;
    return PV_OK;
}

static pv_status read_prompt(const pv_robot *b, fields all, pv_frame *to)
{
    const pv_field *f = find(all, b->prompt_key);
    const char *text = f ? f->data : b->default_prompt;
    if (!f && !text)
        return missing(all, b->prompt_key, "text");
    if (f && f->type != PV_FIELD_TEXT) {
        char came[96];
        pv_field_shape(f, came);
        return pv_fail(PV_E_SHAPE, "'%s': expected text, came %s", f->key, came);
    }
    size_t n = f ? (size_t)f->dim[0] : strlen(text);
    if (n > PV_PROMPT_MAX_BYTES)
        return pv_fail(PV_E_ARG, "'%s': expected at most %zu bytes, came %zu", f ? f->key : b->prompt_key, PV_PROMPT_MAX_BYTES, n);
    if (n && memchr(text, 0, n))
        return pv_fail(PV_E_ARG, "'%s': expected text, came a zero byte in it", f->key);
    pv_status st = keep_text(&to->prompt, n ? text : "", n);
    to->observation.prompt = to->prompt.data;
    return st;
}

pv_status pv_robot_observe(const pv_robot *b, const pv_field *field, int n_fields, pv_frame **frame)
{
    if (!b || !frame || n_fields < 0 || (n_fields && !field))
        return pv_fail(PV_E_ARG, "pv_robot_observe: robot, fields and frame must be given");
    pv_frame *to = *frame ? *frame : pv_alloc_zero(sizeof *to);
    if (!to)
        return PV_E_MEMORY;
    to->robot = NULL;
    to->observation = (pv_observation){.size = sizeof to->observation};
    fields all = {field, n_fields};
    pv_status st = pv_check_fields(field, n_fields);
    if (!st)
        st = check_closed(b, all);
    if (!st)
        st = read_pictures(b, all, to);
    if (!st)
        st = read_state(b, all, to);
    if (!st)
        st = read_prompt(b, all, to);
    if (!st)
        to->robot = b;
    if (st && !*frame)
        pv_frame_free(&to);
    *frame = to;
    return st;
}

/* ---- actions ---- */

/* The state as openpi adds it to relative actions: normalised and back; lerobot: as it came. */
static void return_state(const pv_model *m, const pv_frame *f, double *state)
{
    memcpy(state, f->state, sizeof *state * (size_t)f->n_state);
    if (!m || !m->stats || f->robot->f32)
        return;
    pv_normalize(&m->stats->state, m->rule, state, state, f->n_state);
    pv_unnormalize(&m->stats->state, m->rule, state, state, f->n_state);
}

static void act(const pv_robot *b, const double *state, const double *from, double *to)
{
    for (int d = 0; d < b->action_dim; d++) {
        /* What is not relative gets a zero added, too: numpy's where(mask, state, 0), torch's state * mask. */
        const double zero = b->f32 && d < b->state_dim ? state[d] * 0.0 : 0.0;
        to[d] = b->relative ? from[d] + (b->delta[d] ? state[d] : zero) : from[d];
        if (b->f32) /* a sum of two float32 in float64, rounded, is their sum in float32 */
            to[d] = (double)(float)to[d];
    }
    pv_convert_run(&b->action_convert, to);
}

pv_status pv_robot_act(const pv_robot *b, const pv_model *m, const pv_frame *f, const double *actions, int horizon, int dims,
                       double *out)
{
    if (!b || !f || !actions || !out || horizon < 1)
        return pv_fail(PV_E_ARG, "pv_robot_act: robot, frame, actions, a horizon above 0 and out must be given");
    if (f->robot != b)
        return pv_fail(PV_E_ARG, "pv_robot_act: the frame is not one that robot '%s' observed", b->name);
    if (dims < b->action_dim)
        return pv_fail(PV_E_SHAPE, "actions: robot '%s' has %d, the model's have %d", b->name, b->action_dim, dims);
    double state[PV_ROBOT_MAX_DIM], row[PV_ROBOT_MAX_DIM];
    return_state(m, f, state);
    for (int pass = 0; pass < 2; pass++) /* out is written when all rows are known to be well */
        for (int h = 0; h < horizon; h++) {
            act(b, state, actions + (size_t)h * (size_t)dims, row);
            for (int d = 0; d < b->action_dim; d++)
                if (!isfinite(row[d]))
                    return pv_fail(PV_E_NOT_FINITE, "actions: step %d, dim %d is %g after the conversions of robot '%s'", h, d,
                                   row[d], b->name);
            if (pass)
                memcpy(out + (size_t)h * (size_t)b->action_dim, row, sizeof *row * (size_t)b->action_dim);
        }
    return PV_OK;
}
