/* config.c - defaults, and JSON of three dialects over them. */
#include "config.h"
#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void set_cameras(pv_config *c)
{
    static const char *const names[] = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"};
    c->n_cameras = 3;
    for (int i = 0; i < 3; i++)
        snprintf(c->camera[i], sizeof c->camera[i], "%s", names[i]);
}

/* openpi models/pi0_config.py, gemma.py (gemma_2b, gemma_300m), siglip.py (So400m/14). */
void pv_config_full(pv_config *c)
{
    *c = (pv_config){
        .vision = {1152, 27, 4304, 16, 224, 14},
        .gemma = {2048, 18, 16384, 8, 1, 256},
        .expert = {1024, 18, 4096, 8, 1, 256},
        .vocab = 257152,
        .max_tokens = 200,
        .action_dim = 32,
        .num_steps = 10,
        .rms_norm_eps = 1e-6f,
        .layer_norm_eps = 1e-6f,
        .rope_theta = 10000,
        .time_min_period = 4e-3,
        .time_max_period = 4,
        .discrete_state = true,
    };
    set_cameras(c);
}

void pv_config_tiny(pv_config *c)
{
    pv_config_full(c);
    c->vision = (pv_siglip_config){96, 2, 176, 4, 56, 14};
    c->gemma = (pv_gemma_config){160, 3, 272, 4, 1, 48};
    c->expert = (pv_gemma_config){80, 3, 208, 4, 1, 48};
    c->vocab = 503;
    c->max_tokens = 23;
    c->horizon = 10;
}

/* ---- reading ---- */

typedef struct reader {
    const char *where;
    pv_status status;
} reader;

static const cJSON *get(reader *r, const cJSON *json, const char *key)
{
    const cJSON *v = r->status ? NULL : cJSON_GetObjectItemCaseSensitive(json, key);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

/* A value of the file is not what it should be. */
static void wrong(reader *r, const cJSON *v, const char *key, const char *expected)
{
    char came[48];
    if (cJSON_IsNumber(v))
        snprintf(came, sizeof came, "%g", v->valuedouble);
    else if (cJSON_IsString(v))
        snprintf(came, sizeof came, "\"%.32s\"", v->valuestring);
    else
        snprintf(came, sizeof came, "%s",
                 cJSON_IsTrue(v) ? "true" : cJSON_IsFalse(v) ? "false" : cJSON_IsArray(v) ? "an array" : "an object");
    r->status = pv_fail(PV_E_FILE, "%s: '%s': expected %s, came %s", r->where, key, expected, came);
}

static void integer(reader *r, const cJSON *json, const char *key, int *out)
{
    const cJSON *v = get(r, json, key);
    if (!v)
        return;
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || v->valuedouble < 0 || v->valuedouble > 1 << 24)
        wrong(r, v, key, "a whole number from 0 to 16777216");
    else
        *out = (int)v->valuedouble;
}

static void positive(reader *r, const cJSON *json, const char *key, double *out)
{
    const cJSON *v = get(r, json, key);
    if (!v)
        return;
    if (!cJSON_IsNumber(v) || !(v->valuedouble > 0) || !isfinite(v->valuedouble))
        wrong(r, v, key, "a number above 0");
    else
        *out = v->valuedouble;
}

static void number(reader *r, const cJSON *json, const char *key, float *out)
{
    double v = (double)*out;
    positive(r, json, key, &v);
    if (!r->status && (v < 1e-30 || v > 1))
        r->status = pv_fail(PV_E_FILE, "%s: '%s': expected a number from 1e-30 to 1, came %g", r->where, key, v);
    else
        *out = (float)v;
}

static void boolean(reader *r, const cJSON *json, const char *key, bool *out)
{
    const cJSON *v = get(r, json, key);
    if (!v)
        return;
    if (!cJSON_IsBool(v))
        wrong(r, v, key, "true or false");
    else
        *out = cJSON_IsTrue(v);
}

static const cJSON *object(reader *r, const cJSON *json, const char *key)
{
    const cJSON *v = get(r, json, key);
    if (v && !cJSON_IsObject(v)) {
        wrong(r, v, key, "an object");
        return NULL;
    }
    return v;
}

static void camera(reader *r, pv_config *c, const char *name)
{
    if (c->n_cameras == PV_MAX_CAMERAS || !name || !*name || strlen(name) >= PV_CAMERA_NAME) {
        r->status = pv_fail(PV_E_FILE, "%s: 'cameras': expected 1 to %d names of 1 to %d bytes", r->where,
                            PV_MAX_CAMERAS, PV_CAMERA_NAME - 1);
        return;
    }
    for (int i = 0; i < c->n_cameras; i++)
        if (!strcmp(c->camera[i], name)) {
            r->status = pv_fail(PV_E_FILE, "%s: 'cameras': '%s' stands there twice", r->where, name);
            return;
        }
    strcpy(c->camera[c->n_cameras++], name);
}

static void gemma(reader *r, const cJSON *json, pv_gemma_config *c)
{
    integer(r, json, "width", &c->width);
    integer(r, json, "depth", &c->depth);
    integer(r, json, "mlp_dim", &c->mlp_dim);
    integer(r, json, "heads", &c->heads);
    integer(r, json, "kv_heads", &c->kv_heads);
    integer(r, json, "head_dim", &c->head_dim);
}

static void own_keys(reader *r, const cJSON *json, pv_config *c)
{
    const cJSON *v = object(r, json, "vision");
    if (v) {
        integer(r, v, "width", &c->vision.width);
        integer(r, v, "depth", &c->vision.depth);
        integer(r, v, "mlp_dim", &c->vision.mlp_dim);
        integer(r, v, "heads", &c->vision.heads);
        integer(r, v, "image", &c->vision.image);
        integer(r, v, "patch", &c->vision.patch);
    }
    if ((v = object(r, json, "gemma")))
        gemma(r, v, &c->gemma);
    if ((v = object(r, json, "expert")))
        gemma(r, v, &c->expert);
    integer(r, json, "vocab", &c->vocab);
    integer(r, json, "max_tokens", &c->max_tokens);
    integer(r, json, "action_dim", &c->action_dim);
    integer(r, json, "horizon", &c->horizon);
    integer(r, json, "num_steps", &c->num_steps);
    number(r, json, "rms_norm_eps", &c->rms_norm_eps);
    number(r, json, "layer_norm_eps", &c->layer_norm_eps);
    positive(r, json, "rope_theta", &c->rope_theta);
    positive(r, json, "time_min_period", &c->time_min_period);
    positive(r, json, "time_max_period", &c->time_max_period);
    boolean(r, json, "discrete_state", &c->discrete_state);
    boolean(r, json, "zscore", &c->zscore);
    if (get(r, json, "zscore"))
        c->own_rules[0] = 0;
    const cJSON *cameras = get(r, json, "cameras"), *name;
    if (cameras && !cJSON_IsArray(cameras))
        r->status = pv_fail(PV_E_FILE, "%s: 'cameras': expected an array of names", r->where);
    else if (cameras) {
        c->n_cameras = 0;
        cJSON_ArrayForEach(name, cameras) if (!r->status) camera(r, c, cJSON_GetStringValue(name));
    }
}

static void variant(reader *r, const cJSON *json, const char *key, const char *want)
{
    const cJSON *v = get(r, json, key);
    if (v && (!cJSON_IsString(v) || strcmp(v->valuestring, want)))
        r->status = pv_fail(PV_E_FILE, "%s: '%s': expected \"%s\", came \"%s\" (give the dimensions by a config file)",
                            r->where, key, want, cJSON_IsString(v) ? v->valuestring : "no string");
}

/* What the dimensions are called; where they are spelled out the name does not matter. */
static void variants(reader *r, const cJSON *json)
{
    if (!get(r, json, "gemma"))
        variant(r, json, "paligemma_variant", "gemma_2b");
    if (!get(r, json, "expert"))
        variant(r, json, "action_expert_variant", "gemma_300m");
}

static void openpi_keys(reader *r, const cJSON *json, pv_config *c)
{
    integer(r, json, "action_horizon", &c->horizon);
    integer(r, json, "max_token_len", &c->max_tokens);
    boolean(r, json, "discrete_state_input", &c->discrete_state);
    variants(r, json);
}

/* [height, width], which must be equal. */
static void resolution(reader *r, const cJSON *json, int *out)
{
    const cJSON *v = get(r, json, "image_resolution");
    const cJSON *h = cJSON_GetArrayItem(v, 0), *w = cJSON_GetArrayItem(v, 1);
    if (!v)
        return;
    if (cJSON_GetArraySize(v) != 2 || !cJSON_IsNumber(h) || !cJSON_IsNumber(w) || h->valuedouble != w->valuedouble ||
        h->valuedouble != floor(h->valuedouble) || h->valuedouble < 1 || h->valuedouble > 1 << 24)
        r->status = pv_fail(PV_E_FILE, "%s: 'image_resolution': expected two equal whole numbers above 0", r->where);
    else
        *out = (int)h->valuedouble;
}

/* How state and actions are normalised, where that is one of openpi's two rules for both; else kept by name.
 */
static void normalization(reader *r, const cJSON *json, pv_config *c)
{
    const cJSON *map = object(r, json, "normalization_mapping");
    const cJSON *state = map ? get(r, map, "STATE") : NULL, *action = map ? get(r, map, "ACTION") : NULL;
    if (state && !cJSON_IsString(state))
        wrong(r, state, "normalization_mapping.STATE", "text");
    if (action && !cJSON_IsString(action))
        wrong(r, action, "normalization_mapping.ACTION", "text");
    if (r->status || (!state && !action))
        return;
    const char *s = (state ? state : action)->valuestring, *a = (action ? action : state)->valuestring;
    c->own_rules[0] = 0;
    if (strcmp(s, a) || (strcmp(s, "QUANTILES") && strcmp(s, "MEAN_STD")))
        snprintf(c->own_rules, sizeof c->own_rules, "STATE %.16s, ACTION %.16s", s, a);
    else
        c->zscore = !strcmp(s, "MEAN_STD");
}

/* lerobot policies/pi05/configuration_pi05.py. Cameras are the VISUAL features of `input_features`, in file order. */
static void lerobot_keys(reader *r, const cJSON *json, pv_config *c)
{
    integer(r, json, "chunk_size", &c->horizon);
    integer(r, json, "num_inference_steps", &c->num_steps);
    integer(r, json, "max_action_dim", &c->action_dim);
    integer(r, json, "tokenizer_max_length", &c->max_tokens);
    positive(r, json, "min_period", &c->time_min_period);
    positive(r, json, "max_period", &c->time_max_period);
    resolution(r, json, &c->vision.image);
    normalization(r, json, c);
    variants(r, json);
    bool relative = false;
    boolean(r, json, "use_relative_actions", &relative);
    if (relative)
        pv_log(PV_LOG_WARN, "%s: 'use_relative_actions': a session's actions are relative to the state; pv_robot_act adds it",
               r->where);
    const cJSON *features = object(r, json, "input_features"), *f;
    int visual = 0;
    cJSON_ArrayForEach(f, features)
    {
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f, "type"));
        const char *name = f->string ? strrchr(f->string, '.') : NULL;
        if (r->status || !type || strcmp(type, "VISUAL"))
            continue;
        if (!visual++)
            c->n_cameras = 0;
        camera(r, c, name ? name + 1 : f->string);
    }
}

pv_status pv_config_apply(pv_config *c, const cJSON *json, const char *where, bool *lerobot)
{
    reader r = {where, PV_OK};
    if (!cJSON_IsObject(json))
        return pv_fail(PV_E_FILE, "%s: expected a JSON object", where);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "type");
    if (type && (!cJSON_IsString(type) || strcmp(type->valuestring, "pi05")))
        return pv_fail(PV_E_CHECKPOINT, "%s: 'type': expected \"pi05\", came %s%.100s", where,
                       cJSON_IsString(type) ? "" : "no string", cJSON_IsString(type) ? type->valuestring : "");
    if (type)
        lerobot_keys(&r, json, c);
    else
        openpi_keys(&r, json, c);
    own_keys(&r, json, c);
    if (lerobot)
        *lerobot = type != NULL;
    return r.status;
}

pv_status pv_config_read(pv_config *c, const char *path, bool *lerobot)
{
    cJSON *json = NULL;
    pv_status st = pv_json_read(path, (size_t)1 << 20, &json);
    if (!st)
        st = pv_config_apply(c, json, path, lerobot);
    cJSON_Delete(json);
    return st;
}

/* ---- checking ---- */

static pv_status range(const char *where, const char *key, int v, int least, int most)
{
    if (v < least || v > most)
        return pv_fail(PV_E_FILE, "%s: '%s': expected %d to %d, came %d", where, key, least, most, v);
    return PV_OK;
}

static pv_status check_gemma(const char *where, const char *part, const pv_gemma_config *c)
{
    const struct {
        const char *key;
        int value, least, most;
    } numbers[] = {{"width", c->width, 1, 1 << 16},        {"depth", c->depth, 1, 1024},
                   {"mlp_dim", c->mlp_dim, 1, 1 << 18},    {"heads", c->heads, 1, 1024},
                   {"kv_heads", c->kv_heads, 1, c->heads}, {"head_dim", c->head_dim, 2, 1024}};
    pv_status st = PV_OK;
    for (size_t i = 0; !st && i < sizeof numbers / sizeof *numbers; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s.%s", part, numbers[i].key);
        st = range(where, key, numbers[i].value, numbers[i].least, numbers[i].most);
    }
    if (!st && (c->head_dim % 2 || c->heads % c->kv_heads))
        st = pv_fail(PV_E_FILE,
                     "%s: '%s': head_dim must be even and heads a multiple of kv_heads; came head_dim %d, heads %d, "
                     "kv_heads %d",
                     where, part, c->head_dim, c->heads, c->kv_heads);
    return st;
}

pv_status pv_config_check(const pv_config *c, const char *where)
{
    const pv_siglip_config *v = &c->vision;
    pv_status st = check_gemma(where, "gemma", &c->gemma);
    if (!st)
        st = check_gemma(where, "expert", &c->expert);
    if (!st)
        st = range(where, "vision.width", v->width, 1, 1 << 16);
    if (!st)
        st = range(where, "vision.depth", v->depth, 1, 1024);
    if (!st)
        st = range(where, "vision.mlp_dim", v->mlp_dim, 1, 1 << 18);
    if (!st)
        st = range(where, "vision.heads", v->heads, 1, v->width);
    if (!st)
        st = range(where, "vision.patch", v->patch, 1, 256);
    if (!st)
        st = range(where, "vision.image", v->image, v->patch, 2048);
    if (!st)
        st = range(where, "vocab", c->vocab, 1, 1 << 22);
    if (!st)
        st = range(where, "max_tokens", c->max_tokens, 1, 1 << 14);
    if (!st)
        st = range(where, "action_dim", c->action_dim, 1, 1024);
    if (!st)
        st = range(where, "horizon", c->horizon, 1, 4096);
    if (!st)
        st = range(where, "num_steps", c->num_steps, 1, 1 << 16);
    if (!st)
        st = range(where, "cameras", c->n_cameras, 1, PV_MAX_CAMERAS);
    if (!st && (v->width % v->heads || v->image % v->patch))
        st = pv_fail(PV_E_FILE,
                     "%s: 'vision': width must be a multiple of heads, image of patch; came width %d, heads %d, image %d, "
                     "patch %d",
                     where, v->width, v->heads, v->image, v->patch);
    if (!st && c->expert.width % 2)
        st = pv_fail(PV_E_FILE, "%s: 'expert.width' must be even (sin and cos of the time), came %d", where,
                     c->expert.width);
    if (!st && (c->gemma.depth != c->expert.depth || c->gemma.kv_heads != c->expert.kv_heads ||
                c->gemma.head_dim != c->expert.head_dim))
        st = pv_fail(PV_E_FILE,
                     "%s: prefix and expert share their K/V: depth, kv_heads and head_dim must agree; came %d, %d, %d and "
                     "%d, %d, %d",
                     where, c->gemma.depth, c->gemma.kv_heads, c->gemma.head_dim, c->expert.depth, c->expert.kv_heads,
                     c->expert.head_dim);
    if (!st && c->time_min_period >= c->time_max_period)
        st = pv_fail(PV_E_FILE, "%s: 'time_min_period' %g is not below 'time_max_period' %g", where, c->time_min_period,
                     c->time_max_period);
    int64_t positions = st ? 0 : (int64_t)c->n_cameras * pv_image_tokens(c) + c->max_tokens + c->horizon;
    if (!st && positions > 1 << 17)
        st = pv_fail(PV_E_FILE, "%s: %d cameras of %d tokens, %d tokens of prompt and %d of actions: expected at most %d in all",
                     where, c->n_cameras, pv_image_tokens(c), c->max_tokens, c->horizon, 1 << 17);
    if (!st && (c->rope_theta < 1 || c->rope_theta > 1e12))
        st = pv_fail(PV_E_FILE, "%s: 'rope_theta': expected 1 to 1e12, came %g", where, c->rope_theta);
    if (!st && (c->time_min_period < 1e-9 || c->time_max_period > 1e9))
        st = pv_fail(PV_E_FILE, "%s: 'time_min_period' and 'time_max_period': expected 1e-9 to 1e9, came %g and %g", where,
                     c->time_min_period, c->time_max_period);
    return st;
}

/* ---- writing ---- */

static void add_gemma(cJSON *json, const char *key, const pv_gemma_config *c)
{
    cJSON *o = cJSON_AddObjectToObject(json, key);
    cJSON_AddNumberToObject(o, "width", c->width);
    cJSON_AddNumberToObject(o, "depth", c->depth);
    cJSON_AddNumberToObject(o, "mlp_dim", c->mlp_dim);
    cJSON_AddNumberToObject(o, "heads", c->heads);
    cJSON_AddNumberToObject(o, "kv_heads", c->kv_heads);
    cJSON_AddNumberToObject(o, "head_dim", c->head_dim);
}

static double short_of(float v) /* 1e-06f as 1e-06 */
{
    char text[32];
    double d;
    snprintf(text, sizeof text, "%.7g", (double)v);
    return sscanf(text, "%lf", &d) == 1 ? d : (double)v;
}

char *pv_config_text(const pv_config *c)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *v = cJSON_AddObjectToObject(json, "vision");
    cJSON_AddNumberToObject(v, "width", c->vision.width);
    cJSON_AddNumberToObject(v, "depth", c->vision.depth);
    cJSON_AddNumberToObject(v, "mlp_dim", c->vision.mlp_dim);
    cJSON_AddNumberToObject(v, "heads", c->vision.heads);
    cJSON_AddNumberToObject(v, "image", c->vision.image);
    cJSON_AddNumberToObject(v, "patch", c->vision.patch);
    add_gemma(json, "gemma", &c->gemma);
    add_gemma(json, "expert", &c->expert);
    cJSON_AddNumberToObject(json, "vocab", c->vocab);
    cJSON_AddNumberToObject(json, "max_tokens", c->max_tokens);
    cJSON_AddNumberToObject(json, "action_dim", c->action_dim);
    cJSON_AddNumberToObject(json, "horizon", c->horizon);
    cJSON_AddNumberToObject(json, "num_steps", c->num_steps);
    cJSON *cameras = cJSON_AddArrayToObject(json, "cameras");
    for (int i = 0; i < c->n_cameras; i++)
        cJSON_AddItemToArray(cameras, cJSON_CreateString(c->camera[i]));
    cJSON_AddNumberToObject(json, "rms_norm_eps", short_of(c->rms_norm_eps));
    cJSON_AddNumberToObject(json, "layer_norm_eps", short_of(c->layer_norm_eps));
    cJSON_AddNumberToObject(json, "rope_theta", c->rope_theta);
    cJSON_AddNumberToObject(json, "time_min_period", c->time_min_period);
    cJSON_AddNumberToObject(json, "time_max_period", c->time_max_period);
    cJSON_AddBoolToObject(json, "discrete_state", c->discrete_state);
    cJSON_AddBoolToObject(json, "zscore", c->zscore);
    char *text = cJSON_Print(json), *copy = pv_strdup(text);
    cJSON_free(text);
    cJSON_Delete(json);
    if (!copy)
        pv_fail(PV_E_MEMORY, "out of memory for a config's text");
    return copy;
}
