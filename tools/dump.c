/* dump.c - see dump.h. */
#include "dump.h"
#include "base/memory.h"
#include "cli.h"
#include "io/safetensors.h"
#include "picture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- what the model sees, for people ---- */

/* folder/name.ext; a camera's name is a name, not a way into other folders. */
static void file_path(char *path, size_t size, const char *dir, const char *name, const char *ext)
{
    int at = snprintf(path, size, "%s/", dir);
    if (at > 0 && (size_t)at < size)
        snprintf(path + at, size - (size_t)at, "%s%s", name, ext);
    for (char *p = path + at; at > 0 && (size_t)at < size && *p; p++)
        if (*p == '/')
            *p = '_';
}

static pv_status write_tokens(const char *path, const pv_observer *o)
{
    const pv_config *c = &o->model->config;
    cJSON *json = cli_json("pivot.inputs/1");
    cJSON *images = cJSON_AddArrayToObject(json, "cameras");
    for (int v = 0; v < o->views; v++)
        cJSON_AddItemToArray(images, cJSON_CreateString(c->camera[o->camera[v]]));
    cJSON_AddItemToObject(json, "ids", cJSON_CreateIntArray(o->ids, o->n_ids));
    cJSON_AddNumberToObject(json, "max_tokens", c->max_tokens);
    cJSON_AddBoolToObject(json, "truncated", o->truncated);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    pv_status st =
        text ? pv_file_write(path, text, strlen(text)) : pv_fail(PV_E_MEMORY, "out of memory for %s", path);
    cJSON_free(text);
    return st;
}

pv_status dump_inputs(const char *dir, const pv_observer *o, const uint8_t *pictures)
{
    const pv_config *c = &o->model->config;
    size_t pixels = (size_t)c->vision.image * (size_t)c->vision.image * 3;
    struct stat s;
    if (mkdir(dir, 0777) && errno != EEXIST)
        return pv_fail(PV_E_FILE, "%s: folder cannot be made: %s", dir, strerror(errno));
    if (stat(dir, &s) || !S_ISDIR(s.st_mode))
        return pv_fail(PV_E_FILE, "%s: expected a folder", dir);
    char path[4096];
    pv_status st = PV_OK;
    for (int v = 0; !st && v < o->views; v++) {
        file_path(path, sizeof path, dir, c->camera[o->camera[v]], ".png");
        st = picture_write_png(path, pictures + (size_t)v * pixels, c->vision.image, c->vision.image);
    }
    file_path(path, sizeof path, dir, "tokens", ".json");
    return st ? st : write_tokens(path, o);
}

/* ---- a trace, for `pivot verify` ---- */

typedef struct trace {
    pv_st_writer *w;
    pv_status status;
    bool declaring; /* the same list twice: first names and shapes, then data */
} trace;

static void put(trace *t, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim, const void *data)
{
    size_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= (size_t)dim[i];
    if (!t->status && t->declaring)
        t->status = pv_st_writer_declare(t->w, name, dtype, n_dims, dim);
    else if (!t->status)
        t->status = pv_st_writer_data(t->w, data, pv_dtype_bytes(dtype, n));
}

static void put_all(trace *t, const pv_observer *o, const dump_result *r, const int32_t *ids,
                    const uint8_t *token_mask, const uint8_t *pictures, const uint8_t *black)
{
    const pv_config *c = &o->model->config;
    const int64_t side = c->vision.image, tokens = c->max_tokens, cameras = c->n_cameras,
                  times = r->steps + 1;
    const int64_t chunk[] = {c->horizon, c->action_dim};
    uint8_t image_mask[PV_MAX_CAMERAS] = {0};
    char name[PV_CAMERA_NAME + 32];
    for (int v = 0; v < o->views; v++)
        image_mask[o->camera[v]] = 1;
    for (int i = 0, v = 0; i < c->n_cameras; i++) {
        snprintf(name, sizeof name, "in.image.%s.u8", c->camera[i]);
        put(t, name, PV_U8, 3, (int64_t[]){side, side, 3}, image_mask[i] ? pictures + side * side * 3 * v++ : black);
    }
    put(t, "in.image_mask", PV_U8, 1, &cameras, image_mask);
    put(t, "in.tokens", PV_I32, 1, &tokens, ids);
    put(t, "in.token_mask", PV_U8, 1, &tokens, token_mask);
    put(t, "in.noise", PV_F32, 2, chunk, r->noise);
    if (!strcmp(r->schedule, "openpi")) { /* the last step's time tells how many steps there were */
        snprintf(name, sizeof name, "step%d.time", r->steps - 1);
        put(t, name, PV_F32, 1, (int64_t[]){1}, &r->times[r->steps - 1]);
        put(t, "out.actions", PV_F32, 2, chunk, r->actions);
        return;
    }
    snprintf(name, sizeof name, "sched.%s.timesteps", r->schedule);
    put(t, name, PV_F32, 1, &times, r->times);
    snprintf(name, sizeof name, "sched.%s.actions", r->schedule);
    put(t, name, PV_F32, 2, chunk, r->actions);
}

pv_status dump_trace(const char *path, const pv_observer *o, const uint8_t *pictures, const dump_result *r)
{
    const pv_config *c = &o->model->config;
    int32_t *ids = pv_alloc_zero(sizeof *ids * (size_t)c->max_tokens);
    uint8_t *mask = pv_alloc_zero((size_t)c->max_tokens);
    uint8_t *black = pv_alloc_zero((size_t)c->vision.image * (size_t)c->vision.image * 3);
    trace t = {.status = ids && mask && black ? PV_OK : PV_E_MEMORY, .declaring = true};
    if (!t.status) {
        memcpy(ids, o->ids, sizeof *ids * (size_t)o->n_ids);
        memset(mask, 1, (size_t)o->n_ids);
        t.status = pv_st_writer_begin(path, &t.w);
    }
    if (!t.status)
        t.status = pv_st_writer_metadata(t.w, "source", r->source);
    if (!t.status)
        put_all(&t, o, r, ids, mask, pictures, black);
    t.declaring = false;
    if (!t.status)
        put_all(&t, o, r, ids, mask, pictures, black);
    if (!t.status)
        t.status = pv_st_writer_end(&t.w);
    else
        pv_st_writer_abort(&t.w);
    pv_free(ids);
    pv_free(mask);
    pv_free(black);
    return t.status;
}
