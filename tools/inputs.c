/* inputs.c - see inputs.h. */
#include "inputs.h"
#include "base/memory.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "session/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TIMES_BYTES ((size_t)4 << 20)

/* ---- pictures ---- */

pv_status input_images_read(const cli_list *list, input_images *out)
{
    for (int i = 0; i < list->n; i++) {
        const char *text = list->item[i], *sign = strchr(text, '=');
        if (out->n == PV_MAX_CAMERAS)
            return pv_fail(PV_E_ARG, "--image: expected at most %d pictures", PV_MAX_CAMERAS);
        picture *p = &out->picture[out->n];
        char **camera = &out->camera[out->n];
        *camera = pv_strdup(text);
        if (!*camera)
            return PV_E_MEMORY;
        (*camera)[sign - text] = 0;
        pv_status st = picture_read(sign + 1, p);
        if (st)
            return pv_fail_in(st, "camera '%s'", *camera);
        out->image[out->n++] = (pv_image){*camera, p->rgb, p->width, p->height, 0};
    }
    return PV_OK;
}

void input_images_free(input_images *images)
{
    for (int i = 0; i < PV_MAX_CAMERAS; i++) {
        picture_free(&images->picture[i]);
        pv_free(images->camera[i]);
    }
    *images = (input_images){.n = 0};
}

/* ---- noise ---- */

pv_status input_noise_read(const char *path, int horizon, int dim, float *noise)
{
    pv_safetensors *file = NULL;
    pv_status st = pv_safetensors_open(path, &file);
    if (st)
        return st;
    const pv_st_tensor *t = pv_safetensors_find(file, "noise");
    if (!t)
        t = pv_safetensors_find(file, "in.noise");
    if (!t)
        st = pv_fail(PV_E_FILE, "%s: expected a tensor 'noise' F32 [%d, %d], there is none", path, horizon,
                     dim);
    else if (t->dtype != PV_F32 || t->n_dims != 2 || t->dim[0] != horizon || t->dim[1] != dim)
        st = pv_fail(PV_E_SHAPE, "%s: tensor '%s': expected F32 [%d, %d], came %s of %d dims, [%lld, %lld%s]",
                     path, t->name, horizon, dim, t->dtype_name, t->n_dims,
                     (long long)(t->n_dims > 0 ? t->dim[0] : 0), (long long)(t->n_dims > 1 ? t->dim[1] : 0),
                     t->n_dims > 2 ? ", ..." : "");
    else
        st = pv_safetensors_read(file, t, 0, t->n_elements, noise);
    pv_safetensors_close(&file);
    return st;
}

/* ---- times ---- */

static pv_status times_of_json(const char *path, const char *text, size_t n, float *times, int most,
                               int *count)
{
    cJSON *json = NULL;
    pv_status st = pv_json_parse(text, n, MAX_TIMES_BYTES, path, &json);
    if (!st && !cJSON_IsArray(json))
        st = pv_fail(PV_E_FILE, "%s: expected an array of numbers", path);
    const cJSON *v = st ? NULL : json->child;
    for (; !st && v; v = v->next) {
        if (!cJSON_IsNumber(v) || *count == most)
            st = pv_fail(PV_E_FILE, "%s: expected an array of at most %d numbers; element %d is %s", path,
                         most, *count, cJSON_IsNumber(v) ? "one more" : "no number");
        else
            times[(*count)++] = (float)v->valuedouble;
    }
    cJSON_Delete(json);
    return st;
}

static pv_status times_of_text(const char *path, const char *text, size_t n, float *times, int most,
                               int *count)
{
    const char *between = " \t\r\n,", *end = text + n;
    for (text += strspn(text, between); text < end; text += strspn(text, between)) {
        char *after;
        float v = strtof(text, &after);
        if (after == text || (*after && !strchr(between, *after)))
            return pv_fail(PV_E_FILE, "%s: expected numbers; number %d is '%.*s'", path, *count,
                           (int)strcspn(text, between) < 24 ? (int)strcspn(text, between) : 24, text);
        if (*count == most)
            return pv_fail(PV_E_FILE, "%s: expected at most %d numbers", path, most);
        times[(*count)++] = v;
        text = after;
        if (!*text && text < end)
            return pv_fail(PV_E_FILE, "%s: expected numbers; a zero byte stands behind number %d", path,
                           *count - 1);
    }
    return PV_OK;
}

pv_status input_times_read(const char *path, float **out, int *steps)
{
    enum { MOST = PV_MAX_STEPS + 1 };
    char *text = NULL;
    size_t n = 0;
    int count = 0;
    *out = NULL;
    pv_status st = pv_file_read(path, MAX_TIMES_BYTES, &text, &n);
    float *times = st ? NULL : pv_alloc(sizeof *times * MOST);
    if (!st && !times)
        st = PV_E_MEMORY;
    if (!st && text[strspn(text, " \t\r\n")] == '[')
        st = times_of_json(path, text, n, times, MOST, &count);
    else if (!st)
        st = times_of_text(path, text, n, times, MOST, &count);
    if (!st && count < 2)
        st = pv_fail(PV_E_FILE,
                     "%s: expected times of a schedule, steps + 1 numbers from 1 down to 0; came %d", path,
                     count);
    pv_free(text);
    if (st) {
        pv_free(times);
        return st;
    }
    *out = times;
    *steps = count - 1;
    return PV_OK;
}
