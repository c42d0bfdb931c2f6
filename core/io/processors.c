/* processors.c - lerobot's pipelines, step by step. Errors stick: after the first, nothing more is read. */
#include "processors.h"
#include "base/memory.h"
#include "safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_STEPS = 64, MAX_NAMES = 1024, MAX_NAME = 200, MAX_TOKENS = 1 << 14 };
#define MAX_FILE_BYTES ((size_t)1 << 20)
#define CONFIG         "config.json"
#define STATE          "observation.state"
#define EMPTY          "empty_camera_"

typedef struct range {
    const char *mode, *low, *high; /* statistics at -1 and at 1 */
} range;
static const range ranges[] = {
    {"QUANTILES", "q01", "q99"}, {"MIN_MAX", "min", "max"}, {"QUANTILE10", "q10", "q90"}};

/* A step that normalises: what its config says of one feature, and where the numbers are. */
typedef struct norm_step {
    char mode[16];
    float eps;
    const char *file;  /* of the state; NULL: none */
    const char *where; /* the step, for error words */
} norm_step;

typedef struct reader {
    pv_processors *p;
    const char *folder;
    char where[400]; /* the file, or the step in it */
    pv_status status;
    norm_step state, action;
    const cJSON *rename_map;
    bool relative_step, relative_enabled, absolute;
    bool excluded[PV_PROCESSORS_DIM]; /* from being relative */
} reader;

/* ---- values ---- */

static const cJSON *get(const cJSON *v, const char *key)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(v, key);
    return m && !cJSON_IsNull(m) ? m : NULL;
}

static void wrong(reader *r, const char *key, const char *expected, const cJSON *v)
{
    char came[80] = "nothing";
    if (cJSON_IsNumber(v))
        snprintf(came, sizeof came, "%.17g", v->valuedouble);
    else if (cJSON_IsString(v))
        snprintf(came, sizeof came, "\"%.60s\"", v->valuestring);
    else if (v)
        snprintf(came, sizeof came, "%s",
                 cJSON_IsBool(v)    ? cJSON_IsTrue(v) ? "true" : "false"
                 : cJSON_IsArray(v) ? "an array"
                 : cJSON_IsNull(v)  ? "null"
                                    : "an object");
    if (!r->status)
        r->status = pv_fail(PV_E_FILE, "%s: %s: expected %s, came %s", r->where, key, expected, came);
}

/* An object, or an empty one where there is nothing and nothing is fine. */
static const cJSON *object(reader *r, const cJSON *in, const char *key, bool needed)
{
    const cJSON *v = get(in, key);
    if (!r->status && (v ? !cJSON_IsObject(v) : needed))
        wrong(r, key, "an object", v);
    return r->status ? NULL : v;
}

static const char *text(reader *r, const cJSON *in, const char *key, const char *otherwise)
{
    const cJSON *v = get(in, key);
    if (r->status || !v)
        return otherwise;
    if (!cJSON_IsString(v) || !*v->valuestring || strlen(v->valuestring) > MAX_NAME) {
        wrong(r, key, "text of 1 to 200 bytes", v);
        return otherwise;
    }
    return v->valuestring;
}

static bool flag(reader *r, const cJSON *in, const char *key, bool otherwise)
{
    const cJSON *v = get(in, key);
    if (!r->status && v && !cJSON_IsBool(v))
        wrong(r, key, "true or false", v);
    return v ? cJSON_IsTrue(v) : otherwise;
}

static int integer(reader *r, const cJSON *v, const char *key, int most)
{
    char expected[64];
    snprintf(expected, sizeof expected, "a whole number from 1 to %d", most);
    if (!r->status && (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || v->valuedouble < 1 ||
                       v->valuedouble > most))
        wrong(r, key, expected, v);
    return r->status ? 1 : (int)v->valuedouble;
}

/* How many texts of an array; each of 1 to MAX_NAME bytes. */
static int texts(reader *r, const cJSON *v, const char *key)
{
    const int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : -1;
    if (!r->status && (n < 0 || n > MAX_NAMES))
        wrong(r, key, "an array of at most 1024 names", v);
    for (const cJSON *m = r->status ? NULL : v->child; m; m = m->next)
        if (!r->status && (!cJSON_IsString(m) || strlen(m->valuestring) > MAX_NAME))
            wrong(r, key, "names of at most 200 bytes", m);
    return r->status ? 0 : n;
}

static const char *keep(reader *r, const char *words)
{
    const char *kept = r->status ? NULL : pv_arena_printf(&r->p->arena, "%s", words);
    if (!kept && !r->status)
        r->status = pv_fail_in(PV_E_MEMORY, "%s", r->where);
    return kept;
}

/* `known` has the keys, parted by blanks. */
static void only(reader *r, const cJSON *config, const char *known)
{
    char padded[320], name[MAX_NAME + 3];
    snprintf(padded, sizeof padded, " %s ", known);
    for (const cJSON *m = config ? config->child : NULL; m && !r->status; m = m->next) {
        snprintf(name, sizeof name, " %s ",
                 strlen(m->string) <= MAX_NAME && !strchr(m->string, ' ') ? m->string : "?");
        if (!strstr(padded, name))
            r->status = pv_fail(PV_E_UNSUPPORTED, "%s: config.%.100s is not known here; expected %s%s",
                                r->where, m->string, *known ? "some of: " : "no key", known);
    }
}

/* ---- features ---- */

static const char *feature_type(reader *r, const cJSON *f)
{
    const char *type = cJSON_IsObject(f) ? cJSON_GetStringValue(get(f, "type")) : NULL;
    if (!r->status && !type)
        r->status =
            pv_fail(PV_E_FILE, "%s: feature '%.100s': expected an object with a type", r->where, f->string);
    return type ? type : "";
}

/* Length of a vector. */
static int feature_dim(reader *r, const cJSON *f)
{
    const cJSON *shape = get(f, "shape");
    char key[MAX_NAME + 16];
    snprintf(key, sizeof key, "%.*s.shape", MAX_NAME, f->string);
    if (!r->status && cJSON_GetArraySize(shape) != 1)
        wrong(r, key, "one number in an array", shape);
    return integer(r, r->status ? NULL : shape->child, key, PV_PROCESSORS_DIM);
}

static void read_camera(reader *r, const char *name)
{
    pv_processors *p = r->p;
    const char *dot = strrchr(name, '.'), *slot = dot ? dot + 1 : name;
    if (p->n_cameras == PV_MAX_CAMERAS || !*slot || strlen(name) > MAX_NAME) {
        r->status =
            pv_fail(PV_E_FILE,
                    "%s: input_features: '%.100s': expected at most %d cameras with names of 1 to %d bytes",
                    r->where, name, PV_MAX_CAMERAS, MAX_NAME);
        return;
    }
    for (int i = 0; i < p->n_cameras; i++)
        if (!strcmp(p->slot[i], slot))
            r->status = pv_fail(PV_E_FILE, "%s: input_features: two cameras end in '.%s'", r->where, slot);
    p->slot[p->n_cameras] = keep(r, slot);
    p->camera[p->n_cameras++] = keep(r, name);
}

static void read_features(reader *r, const cJSON *config)
{
    pv_processors *p = r->p;
    snprintf(r->where, sizeof r->where, "%s/%s", r->folder, CONFIG);
    const cJSON *in = object(r, config, "input_features", true),
                *out = object(r, config, "output_features", true);
    for (const cJSON *f = r->status ? NULL : in->child; f && !r->status; f = f->next) {
        if (!strcmp(feature_type(r, f), "VISUAL"))
            read_camera(r, f->string);
        else if (!strcmp(f->string, STATE))
            p->state_dim = feature_dim(r, f);
    }
    const cJSON *action = r->status ? NULL : get(out, "action");
    if (!r->status && !action)
        wrong(r, "output_features.action", "a feature", NULL);
    if (!r->status && !p->n_cameras)
        r->status = pv_fail(PV_E_FILE, "%s: input_features: expected at least one of type VISUAL", r->where);
    if (!r->status)
        p->action_dim = feature_dim(r, action);
    if (!r->status && !p->state_dim) /* lerobot puts one in, as wide as the model */
        p->state_dim = get(config, "max_state_dim")
                           ? integer(r, get(config, "max_state_dim"), "max_state_dim", PV_PROCESSORS_DIM)
                           : 32;
}

/* ---- steps ---- */

static void read_rename(reader *r, const cJSON *config)
{
    r->rename_map = object(r, config, "rename_map", false);
    for (const cJSON *m = r->rename_map ? r->rename_map->child : NULL; m && !r->status; m = m->next)
        text(r, r->rename_map, m->string, "");
    if (!r->status && r->rename_map && cJSON_GetArraySize(r->rename_map) > MAX_NAMES)
        wrong(r, "config.rename_map", "at most 1024 names", r->rename_map);
}

/* Before its names are changed, an observation has `name` under this key; NULL: under none. */
static const char *before_rename(reader *r, const char *name)
{
    const char *from = NULL;
    bool moved = false;
    for (const cJSON *m = r->rename_map ? r->rename_map->child : NULL; m && !r->status; m = m->next) {
        moved = moved || !strcmp(m->string, name);
        if (strcmp(m->valuestring, name))
            continue;
        if (from || strlen(m->string) > MAX_NAME || !*m->string)
            r->status = pv_fail(PV_E_UNSUPPORTED, "%s/%s: rename_observations_processor: '%.100s' has %s",
                                r->folder, PV_PROCESSORS_PRE, name,
                                from ? "two names before" : "no name of 1 to 200 bytes before");
        from = m->string;
    }
    return from ? from : moved ? NULL : name;
}

static void rename_back(reader *r)
{
    pv_processors *p = r->p;
    for (int i = 0; i < p->n_cameras && !r->status; i++) {
        const char *key = !strncmp(p->slot[i], EMPTY, strlen(EMPTY)) ? NULL : before_rename(r, p->camera[i]);
        p->camera[i] = key ? keep(r, key) : NULL;
    }
    const char *state = before_rename(r, STATE);
    if (!r->status && !state)
        r->status = pv_fail(PV_E_FILE, "%s/%s: rename_observations_processor: '%s' is renamed away",
                            r->folder, PV_PROCESSORS_PRE, STATE);
    p->state_key = r->status ? NULL : keep(r, state);
}

/* Python's lower() of ASCII, which is what is compared there. */
static bool lower(reader *r, const char *name, char out[MAX_NAME + 1])
{
    size_t n = 0;
    for (; name[n]; n++) {
        if (name[n] & 0x80) {
            r->status =
                pv_fail(PV_E_UNSUPPORTED, "%s: joint '%.100s': expected a name in ASCII", r->where, name);
            return false;
        }
        out[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] + 32) : name[n];
    }
    out[n] = 0;
    return true;
}

/* An action is absolute when its name has one of the excluded ones in it. Actions without a name are
 * relative. */
static void read_relative(reader *r, const cJSON *config)
{
    const cJSON *exclude = get(config, "exclude_joints"), *names = get(config, "action_names");
    char name[MAX_NAME + 1], part[MAX_NAME + 1];
    r->relative_step = true;
    r->relative_enabled = flag(r, config, "enabled", false);
    if (exclude)
        texts(r, exclude, "config.exclude_joints");
    if (names)
        texts(r, names, "config.action_names");
    int d = 0;
    for (const cJSON *n = names && exclude && !r->status ? names->child : NULL; n && d < PV_PROCESSORS_DIM;
         n = n->next, d++)
        for (const cJSON *x = exclude->child; x; x = x->next)
            if (*x->valuestring && lower(r, n->valuestring, name) && lower(r, x->valuestring, part) &&
                strstr(name, part))
                r->excluded[d] = true;
}

static void read_absolute(reader *r, const cJSON *config)
{
    r->absolute = flag(r, config, "enabled", false);
}

static void read_mode(reader *r, const cJSON *map, const char *type, norm_step *to)
{
    const char *mode = text(r, map, type, "IDENTITY");
    bool known = !strcmp(mode, "IDENTITY") || !strcmp(mode, "MEAN_STD");
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        known = known || !strcmp(mode, ranges[i].mode);
    if (!r->status && !known)
        r->status = pv_fail(PV_E_UNSUPPORTED,
                            "%s: config.norm_map.%s: expected IDENTITY, MEAN_STD, QUANTILES, MIN_MAX or "
                            "QUANTILE10, came %.60s",
                            r->where, type, mode);
    snprintf(to->mode, sizeof to->mode, "%s", mode);
}

static void read_norm(reader *r, const cJSON *config, const cJSON *step, const char *type,
                      const char *feature, norm_step *to)
{
    const cJSON *features = object(r, config, "features", true), *map = object(r, config, "norm_map", true);
    const cJSON *f = r->status ? NULL : get(features, feature), *eps = get(config, "eps");
    if (!r->status && (!f || strcmp(feature_type(r, f), type)) && !r->status)
        r->status =
            pv_fail(PV_E_FILE, "%s: config.features: expected '%s' of type %s", r->where, feature, type);
    read_mode(r, map, type, to);
    to->eps = 1e-8f;
    if (!r->status && eps && !(cJSON_IsNumber(eps) && eps->valuedouble >= 0 && eps->valuedouble <= 1))
        wrong(r, "config.eps", "a number from 0 to 1", eps);
    if (!r->status && eps)
        to->eps = (float)eps->valuedouble;
    const char *file = text(r, step, "state_file", NULL);
    if (file && (strpbrk(file, "/\\") || *file == '.'))
        wrong(r, "state_file", "the name of a file in the same folder", get(step, "state_file"));
    to->file = file ? keep(r, file) : NULL;
    to->where = keep(r, r->where);
}

static void read_normalizer(reader *r, const cJSON *config, const cJSON *step)
{
    norm_step visual = {""};
    read_norm(r, config, step, "STATE", STATE, &r->state);
    read_mode(r, get(config, "norm_map"), "VISUAL", &visual);
    if (!r->status && strcmp(visual.mode, "IDENTITY"))
        r->status = pv_fail(PV_E_UNSUPPORTED, "%s: config.norm_map.VISUAL: expected IDENTITY, came %s",
                            r->where, visual.mode);
    const cJSON *keys = get(config, "normalize_observation_keys");
    if (!keys || r->status)
        return;
    bool is = false;
    texts(r, keys, "config.normalize_observation_keys");
    for (const cJSON *k = r->status ? NULL : keys->child; k; k = k->next)
        is = is || !strcmp(k->valuestring, STATE);
    if (!is)
        snprintf(r->state.mode, sizeof r->state.mode, "IDENTITY");
}

static void read_unnormalizer(reader *r, const cJSON *config, const cJSON *step)
{
    read_norm(r, config, step, "ACTION", "action", &r->action);
}

static void read_prompt(reader *r, const cJSON *config)
{
    r->p->task_key = keep(r, text(r, config, "task_key", "task"));
}

static void read_tokenizer(reader *r, const cJSON *config)
{
    const char *task = text(r, config, "task_key", "task"), *side = text(r, config, "padding_side", "right");
    r->p->max_tokens = integer(r, get(config, "max_length"), "config.max_length", MAX_TOKENS);
    if (!r->status && r->p->task_key && strcmp(task, r->p->task_key))
        wrong(r, "config.task_key", r->p->task_key, get(config, "task_key"));
    if (!r->status && strcmp(side, "right"))
        wrong(r, "config.padding_side", "\"right\"", get(config, "padding_side"));
    if (!flag(r, config, "truncation", true))
        wrong(r, "config.truncation", "true", get(config, "truncation"));
}

/* Where numbers lie does not matter here; in what type they are computed does. */
static void read_device(reader *r, const cJSON *config)
{
    const char *type = text(r, config, "float_dtype", "float32");
    if (!r->status && strcmp(type, "float32"))
        r->status =
            pv_fail(PV_E_UNSUPPORTED, "%s: config.float_dtype: expected float32, came %.60s", r->where, type);
}

/* ---- pipelines ---- */

typedef struct step_kind {
    const char *name;
    int rank; /* steps come in this order, each once; 0: anywhere */
    bool needed;
    const char *keys; /* of its config */
    void (*read)(reader *, const cJSON *config);
    void (*read_state)(reader *, const cJSON *config, const cJSON *step); /* of a step with a state file */
} step_kind;

#define DEVICE                                                                                               \
    {                                                                                                        \
        "device_processor", 0, false, "device float_dtype", read_device, NULL                                \
    }
#define BATCH                                                                                                \
    {                                                                                                        \
        "to_batch_processor", 0, false, "", NULL, NULL                                                       \
    }

static const step_kind pre_steps[] = {
    BATCH,
    DEVICE,
    {"rename_observations_processor", 1, false, "rename_map", read_rename, NULL},
    {"relative_actions_processor", 2, false, "enabled exclude_joints action_names", read_relative, NULL},
    {"normalizer_processor", 3, true, "eps features norm_map normalize_observation_keys", NULL,
     read_normalizer},
    {"pi05_prepare_state_tokenizer_processor_step", 4, true, "max_state_dim task_key", read_prompt, NULL},
    {"tokenizer_processor", 5, true, "max_length task_key padding_side padding truncation tokenizer_name",
     read_tokenizer, NULL},
    {NULL}};
static const step_kind post_steps[] = {
    BATCH,
    DEVICE,
    {"unnormalizer_processor", 1, true, "eps features norm_map", NULL, read_unnormalizer},
    {"absolute_actions_processor", 2, false, "enabled", read_absolute, NULL},
    {NULL}};

static const step_kind *find_kind(reader *r, const cJSON *step, const step_kind *kinds)
{
    const char *name = cJSON_IsObject(step) ? cJSON_GetStringValue(get(step, "registry_name")) : NULL,
               *class = NULL;
    for (const step_kind *k = kinds; name && k->name; k++)
        if (!strcmp(k->name, name))
            return k;
    if (!name)
        class = cJSON_GetStringValue(get(step, "class"));
    if (!r->status && !name && !class)
        r->status = pv_fail(PV_E_FILE, "%s: expected a step with a registry_name", r->where);
    else if (!r->status)
        r->status = pv_fail(PV_E_UNSUPPORTED, "%s: the step '%.100s' is not known here", r->where,
                            name ? name : class);
    return NULL;
}

static void read_pipeline(reader *r, const cJSON *root, const char *file, const step_kind *kinds)
{
    bool seen[8] = {false};
    int rank = 0, i = 0;
    if (r->status)
        return;
    snprintf(r->where, sizeof r->where, "%s/%s", r->folder, file);
    const cJSON *steps = cJSON_IsObject(root) ? get(root, "steps") : NULL;
    if (!cJSON_IsArray(steps) || cJSON_GetArraySize(steps) > MAX_STEPS)
        wrong(r, "steps", "an array of at most 64", steps);
    for (const cJSON *s = r->status ? NULL : steps->child; s && !r->status; s = s->next, i++) {
        snprintf(r->where, sizeof r->where, "%s/%s: steps[%d]", r->folder, file, i);
        const step_kind *kind = find_kind(r, s, kinds);
        if (!kind)
            return;
        snprintf(r->where, sizeof r->where, "%s/%s: steps[%d] (%s)", r->folder, file, i, kind->name);
        if (kind->rank && (seen[kind->rank] || kind->rank < rank)) {
            r->status =
                pv_fail(PV_E_UNSUPPORTED, "%s: %s", r->where,
                        seen[kind->rank] ? "came before" : "comes behind a step that it has to come before");
            return;
        }
        rank = kind->rank ? kind->rank : rank;
        seen[kind->rank] = true;
        if (!kind->read_state && get(s, "state_file"))
            wrong(r, "state_file", "none", get(s, "state_file"));
        const cJSON *config = object(r, s, "config", false);
        only(r, config, kind->keys);
        if (!r->status && kind->read)
            kind->read(r, config);
        if (!r->status && kind->read_state)
            kind->read_state(r, config, s);
    }
    for (const step_kind *k = kinds; k->name; k++)
        if (!r->status && k->needed && !seen[k->rank])
            r->status = pv_fail(PV_E_UNSUPPORTED, "%s/%s: expected the step '%s', it is missing", r->folder,
                                file, k->name);
}

/* ---- statistics ---- */

/* Tensor feature.what of the state file -> `to`[dim]; not there: *found stays NULL. *dim 0: as many as it
 * has. */
static pv_status read_vector(const pv_safetensors *file, const norm_step *s, const char *feature,
                             const char *what, int *dim, double *to, double **found)
{
    char name[64];
    float x[PV_PROCESSORS_DIM];
    snprintf(name, sizeof name, "%s.%s", feature, what);
    const pv_st_tensor *t = pv_safetensors_find(file, name);
    if (!t)
        return PV_OK;
    if (t->dtype != PV_F32 || t->n_dims != 1 || t->dim[0] < 1 || t->dim[0] > PV_PROCESSORS_DIM ||
        (*dim && t->dim[0] != *dim))
        return pv_fail(PV_E_FILE, "%s: %s: tensor '%s': expected F32 [%d], came %s of %d dims, %lld elements",
                       s->where, s->file, name, *dim ? *dim : PV_PROCESSORS_DIM, t->dtype_name, t->n_dims,
                       (long long)t->n_elements);
    *dim = (int)t->dim[0];
    pv_status st = pv_safetensors_read(file, t, 0, *dim, x);
    for (int i = 0; !st && i < *dim; i++) {
        if (!isfinite(x[i]))
            st =
                pv_fail(PV_E_FILE, "%s: %s: '%s': number %d is %g", s->where, s->file, name, i, (double)x[i]);
        to[i] = (double)x[i];
    }
    *found = to;
    return st;
}

static pv_status check_order(const norm_step *s, const char *what, const double *low, const double *high,
                             int n)
{
    for (int i = 0; i < n; i++)
        if (!(low[i] <= high[i]))
            return pv_fail(PV_E_FILE, "%s: %s: %s: number %d goes from %.9g to %.9g", s->where, s->file, what,
                           i, low[i], high[i]);
    return PV_OK;
}

static pv_status read_numbers(const pv_safetensors *file, const norm_step *s, const char *feature, int dim,
                              pv_norm *norm)
{
    const range *ends = NULL;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        ends = !strcmp(s->mode, ranges[i].mode) ? &ranges[i] : ends;
    const struct {
        const char *name;
        double **to;
        bool needed;
    } vectors[] = {{ends ? ends->low : "", &norm->low, ends},
                   {ends ? ends->high : "", &norm->high, ends},
                   {"mean", &norm->mean, !ends},
                   {"std", &norm->std, !ends},
                   {"q01", &norm->q01, false},
                   {"q99", &norm->q99, false}};
    for (int i = 0; i < 6; i++) {
        double *at = norm->block + (size_t)i * PV_PROCESSORS_DIM;
        pv_status st = *vectors[i].name
                           ? read_vector(file, s, feature, vectors[i].name, &dim, at, vectors[i].to)
                           : PV_OK;
        if (!st && vectors[i].needed && !*vectors[i].to)
            st = pv_fail(PV_E_FILE, "%s: %s: tensor '%s.%s' is missing, %s needs it", s->where, s->file,
                         feature, vectors[i].name, s->mode);
        if (st)
            return st;
    }
    norm->dim = norm->padded_dim = dim;
    norm->mode = ends ? PV_NORM_RANGE : PV_NORM_MEAN_STD;
    if (!norm->q01 || !norm->q99) /* only together do they say what is usual */
        norm->q01 = norm->q99 = NULL;
    if (!norm->mean || !norm->std)
        norm->mean = norm->std = NULL;
    for (int i = 0; norm->std && i < dim; i++)
        if (norm->std[i] < 0)
            return pv_fail(PV_E_FILE, "%s: %s: '%s.std': number %d is %g", s->where, s->file, feature, i,
                           norm->std[i]);
    pv_status st = ends ? check_order(s, s->mode, norm->low, norm->high, dim) : PV_OK;
    return st || !norm->q01 ? st : check_order(s, "q01..q99", norm->q01, norm->q99, dim);
}

/* dim: how many numbers there have to be; 0: as many as the statistics have. */
static pv_status read_stats_of(const char *folder, const norm_step *s, const char *feature, int dim,
                               pv_norm *norm)
{
    static const char *const names[] = {"IDENTITY", "MEAN_STD", "QUANTILES", "MIN_MAX", "QUANTILE10"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], s->mode))
            norm->mode_name = names[i];
    norm->eps = s->eps;
    norm->mode = PV_NORM_IDENTITY;
    norm->dim = norm->padded_dim = dim;
    if (!strcmp(s->mode, "IDENTITY"))
        return PV_OK;
    char path[4096 + MAX_NAME];
    pv_safetensors *file = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, s->file);
    norm->block = pv_alloc(6 * PV_PROCESSORS_DIM * sizeof *norm->block);
    pv_status st = norm->block ? pv_safetensors_open(path, &file) : PV_E_MEMORY;
    if (!st)
        st = read_numbers(file, s, feature, dim, norm);
    else
        pv_fail_in(st, "%s: state_file", s->where);
    pv_safetensors_close(&file);
    return st;
}

static void read_stats(reader *r)
{
    pv_processors *p = r->p;
    const bool state = strcmp(r->state.mode, "IDENTITY") != 0,
               action = strcmp(r->action.mode, "IDENTITY") != 0;
    if (r->status || (state && !r->state.file && action && !r->action.file))
        return;
    const norm_step *lacks = state && !r->state.file     ? &r->state
                             : action && !r->action.file ? &r->action
                                                         : NULL;
    if (lacks) {
        r->status =
            pv_fail(PV_E_FILE, "%s: state_file: %s needs one, it is missing", lacks->where, lacks->mode);
        return;
    }
    p->stats = pv_alloc_zero(sizeof *p->stats);
    r->status = p->stats ? PV_OK : PV_E_MEMORY;
    /* A state may be told by fewer numbers than a feature taken over from another checkpoint has: the
     * statistics say. */
    if (!r->status)
        r->status = read_stats_of(r->folder, &r->state, STATE, state ? 0 : p->state_dim, &p->stats->state);
    if (!r->status)
        r->status = read_stats_of(r->folder, &r->action, "action", p->action_dim, &p->stats->actions);
    if (!r->status)
        p->state_dim = p->stats->state.dim;
}

/* ---- the whole ---- */

static void set_relative(reader *r)
{
    pv_processors *p = r->p;
    if (r->status)
        return;
    if (r->absolute != r->relative_enabled)
        r->status = pv_fail(
            PV_E_UNSUPPORTED,
            "%s: relative_actions_processor is %s, absolute_actions_processor is %s: expected both or none",
            r->folder,
            r->relative_enabled ? "enabled"
            : r->relative_step  ? "not enabled"
                                : "missing",
            r->absolute ? "enabled" : "not");
    else if (r->absolute && !p->stats)
        r->status = pv_fail(
            PV_E_FILE,
            "%s/%s: absolute_actions_processor: a state cannot be added to actions without statistics",
            r->folder, PV_PROCESSORS_POST);
    for (int d = 0; !r->status && r->absolute && d < p->action_dim; d++) {
        p->is_relative[d] = !r->excluded[d];
        p->relative = p->relative || p->is_relative[d];
        if (p->is_relative[d] && d >= p->state_dim)
            r->status = pv_fail(PV_E_FILE,
                                "%s/%s: relative_actions_processor: action %d has no number of the state "
                                "(%d) to be relative to",
                                r->folder, PV_PROCESSORS_PRE, d, p->state_dim);
    }
}

pv_status pv_processors_parse(const cJSON *config, const cJSON *pre, const cJSON *post, const char *folder,
                              pv_processors **out)
{
    reader r = {.p = pv_alloc_zero(sizeof *r.p), .folder = folder};
    *out = NULL;
    if (!r.p)
        return pv_fail_in(PV_E_MEMORY, "%s", folder);
    read_features(&r, config);
    read_pipeline(&r, pre, PV_PROCESSORS_PRE, pre_steps);
    read_pipeline(&r, post, PV_PROCESSORS_POST, post_steps);
    rename_back(&r);
    read_stats(&r);
    set_relative(&r);
    if (r.status)
        pv_processors_free(&r.p);
    *out = r.p;
    return r.status;
}

void pv_processors_free(pv_processors **processors)
{
    if (!*processors)
        return;
    pv_stats_free(&(*processors)->stats);
    pv_arena_free(&(*processors)->arena);
    pv_free(*processors);
    *processors = NULL;
}

static void path_of(char path[4096], const char *folder, const char *name)
{
    snprintf(path, 4096, "%s/%s", folder, name);
}

bool pv_processors_in(const char *folder)
{
    static const char *const names[] = {PV_PROCESSORS_PRE, PV_PROCESSORS_POST};
    for (int i = 0; i < 2; i++) {
        char path[4096];
        struct stat s;
        path_of(path, folder, names[i]);
        if (!stat(path, &s) && S_ISREG(s.st_mode))
            return true;
    }
    return false;
}

pv_status pv_processors_read(const char *folder, pv_processors **out)
{
    static const char *const names[] = {CONFIG, PV_PROCESSORS_PRE, PV_PROCESSORS_POST};
    cJSON *json[3] = {NULL};
    pv_status st = PV_OK;
    *out = NULL;
    if (strlen(folder) > 3000)
        return pv_fail(PV_E_FILE, "%.100s...: expected a path of at most 3000 bytes", folder);
    for (int i = 0; !st && i < 3; i++) {
        char path[4096];
        path_of(path, folder, names[i]);
        st = pv_json_read(path, MAX_FILE_BYTES, &json[i]);
    }
    if (!st)
        st = pv_processors_parse(json[0], json[1], json[2], folder, out);
    for (int i = 0; i < 3; i++)
        cJSON_Delete(json[i]);
    return st;
}
