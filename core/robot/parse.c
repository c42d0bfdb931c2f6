/* parse.c - a robot from JSON. Strict: a key that is not known is refused by name, so that a slip of the pen is not a
 * camera that stays dark. Errors stick: after the first, nothing more is read. */
#include "robot.h"
#include "base/memory.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_KEY  256 /* bytes */
#define MAX_KEYS 64  /* of ignore and of closed */

typedef struct reader {
    const char *where;
    pv_robot *robot;
    pv_status status;
} reader;

/* Where a value is, for error words: "cameras[1]". */
typedef struct place {
    char text[80];
} place;

static place at(const char *name, int i)
{
    place p;
    snprintf(p.text, sizeof p.text, i < 0 ? "%s" : "%s[%d]", name, i);
    return p;
}

static void wrong(reader *r, const char *in, const char *key, const char *expected, const cJSON *v)
{
    char came[64];
    if (!v)
        snprintf(came, sizeof came, "nothing");
    else if (cJSON_IsNumber(v))
        snprintf(came, sizeof came, "%.17g", v->valuedouble);
    else if (cJSON_IsString(v))
        snprintf(came, sizeof came, "\"%.40s\"", v->valuestring);
    else
        snprintf(came, sizeof came, "%s",
                 cJSON_IsBool(v)    ? "true or false"
                 : cJSON_IsNull(v)  ? "null"
                 : cJSON_IsArray(v) ? "an array"
                                    : "an object");
    if (!r->status)
        r->status = pv_fail(PV_E_FILE, "%s: %s%s%s: expected %s, came %s", r->where, in, *in && *key ? "." : "", key,
                            expected, came);
}

/* v must be an object with no other keys than `known`, which are parted by blanks. */
static bool object(reader *r, const cJSON *v, const char *in, const char *known)
{
    if (!r->status && !cJSON_IsObject(v))
        wrong(r, in, "", "an object", v);
    for (const cJSON *m = r->status ? NULL : v->child; m; m = m->next) {
        size_t n = strlen(m->string);
        const char *found = n && !strchr(m->string, ' ') ? strstr(known, m->string) : NULL;
        while (found && ((found > known && found[-1] != ' ') || (found[n] && found[n] != ' ')))
            found = strstr(found + 1, m->string);
        if (!found) {
            r->status = pv_fail(PV_E_FILE, "%s: %s%skey '%.100s' is not known here; expected some of: %s", r->where, in,
                                *in ? ": " : "", m->string, known);
            return false;
        }
    }
    return !r->status;
}

static const cJSON *get(const cJSON *v, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(v, key);
}

static const char *copy(reader *r, const char *text)
{
    char *c = r->status ? NULL : pv_arena_printf(&r->robot->arena, "%s", text);
    if (!c && !r->status)
        r->status = pv_fail_in(PV_E_MEMORY, "%s", r->where);
    return c;
}

static void *room(reader *r, size_t bytes)
{
    void *p = r->status ? NULL : pv_arena_alloc(&r->robot->arena, bytes);
    if (!p && !r->status)
        r->status = pv_fail_in(PV_E_MEMORY, "%s", r->where);
    return p;
}

/* Text of 1 to MAX_KEY bytes. */
static const char *text(reader *r, const cJSON *v, const char *in, const char *key)
{
    if (r->status)
        return NULL;
    if (!cJSON_IsString(v) || !*v->valuestring || strlen(v->valuestring) > MAX_KEY) {
        wrong(r, in, key, "text of 1 to 256 bytes", v);
        return NULL;
    }
    return copy(r, v->valuestring);
}

static double number(reader *r, const cJSON *v, const char *in, const char *key)
{
    if (!r->status && (!cJSON_IsNumber(v) || !isfinite(v->valuedouble)))
        wrong(r, in, key, "a number", v);
    return r->status ? 0 : v->valuedouble;
}

static int integer(reader *r, const cJSON *v, const char *in, const char *key, int least, int most)
{
    if (!r->status && (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || v->valuedouble < least ||
                       v->valuedouble > most)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a whole number from %d to %d", least, most);
        wrong(r, in, key, expected, v);
    }
    return r->status ? least : (int)v->valuedouble;
}

static bool flag(reader *r, const cJSON *v, const char *in, const char *key)
{
    if (v && !cJSON_IsBool(v))
        wrong(r, in, key, "true or false", v);
    return cJSON_IsTrue(v);
}

/* Index of the word; none: the first. */
static int word(reader *r, const cJSON *v, const char *in, const char *key, const char *const *words, int n)
{
    char expected[100] = "one of";
    for (int i = 0; i < n; i++) {
        if (!v || (cJSON_IsString(v) && !strcmp(v->valuestring, words[i])))
            return i;
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), " \"%s\"", words[i]);
    }
    wrong(r, in, key, expected, v);
    return 0;
}

/* An array of least to most values; returns how many. */
static int array(reader *r, const cJSON *v, const char *in, const char *key, int least, int most)
{
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : -1;
    if (!r->status && (n < least || n > most)) {
        char expected[64];
        snprintf(expected, sizeof expected, "an array of %d to %d values", least, most);
        wrong(r, in, key, expected, v);
        if (n >= 0)
            pv_fail(PV_E_FILE, "%s: %s%s%s: expected %s, came %d", r->where, in, *in ? "." : "", key, expected, n);
    }
    return r->status ? 0 : n;
}

/* ---- the parts ---- */

static void read_cameras(reader *r, const cJSON *list)
{
    static const char *const layouts[] = {"auto", "hwc", "chw"}, *const orders[] = {"rgb", "bgr"},
                             *const ranges[] = {"0..1", "-1..1"};
    pv_robot *b = r->robot;
    b->n_cameras = array(r, list, "", "cameras", 1, PV_MAX_CAMERAS);
    const cJSON *v = b->n_cameras ? list->child : NULL;
    bool any = false;
    for (int i = 0; v && i < b->n_cameras; i++, v = v->next) {
        pv_robot_camera *c = &b->camera[i];
        place p = at("cameras", i);
        if (!object(r, v, p.text, "slot key layout order float optional"))
            return;
        const cJSON *key = get(v, "key");
        c->slot = text(r, get(v, "slot"), p.text, "slot");
        c->key = cJSON_IsNull(key) ? NULL : text(r, key, p.text, "key");
        c->layout = (pv_layout)word(r, get(v, "layout"), p.text, "layout", layouts, 3);
        c->bgr = word(r, get(v, "order"), p.text, "order", orders, 2) == 1;
        c->is_signed = word(r, get(v, "float"), p.text, "float", ranges, 2) == 1;
        c->optional = flag(r, get(v, "optional"), p.text, "optional");
        c->nearest = b->f32;
        any = any || c->key;
        for (int k = 0; !r->status && k < i; k++)
            if (!strcmp(b->camera[k].slot, c->slot))
                r->status = pv_fail(PV_E_FILE, "%s: %s.slot: '%s' was named before", r->where, p.text, c->slot);
    }
    if (!r->status && !any)
        r->status = pv_fail(PV_E_FILE, "%s: cameras: expected at least one with a key", r->where);
}

static const char **read_keys(reader *r, const cJSON *list, const char *name, int *n)
{
    *n = list ? array(r, list, "", name, 0, MAX_KEYS) : 0;
    const char **keys = room(r, sizeof *keys * (size_t)(*n + 1));
    const cJSON *v = *n ? list->child : NULL;
    for (int i = 0; keys && v && i < *n; i++, v = v->next)
        keys[i] = text(r, v, at(name, i).text, "");
    return keys;
}

static void read_dims(reader *r, const cJSON *list, const char *in, int size, pv_convert *c)
{
    bool seen[PV_ROBOT_MAX_DIM] = {false};
    c->n = list ? array(r, list, in, "dims", 1, size) : size;
    c->dim = room(r, sizeof *c->dim * (size_t)(c->n + 1));
    const cJSON *v = list && c->n ? list->child : NULL;
    for (int i = 0; !r->status && i < c->n; i++, v = v ? v->next : NULL) {
        c->dim[i] = list ? integer(r, v, in, "dims", 0, size - 1) : i;
        if (!r->status && seen[c->dim[i]])
            r->status = pv_fail(PV_E_FILE, "%s: %s.dims: %d is there twice", r->where, in, c->dim[i]);
        seen[c->dim[i]] = true;
    }
}

static void read_by(reader *r, const cJSON *list, const char *in, pv_convert *c)
{
    array(r, list, in, "by", c->n, c->n);
    c->by = room(r, sizeof *c->by * (size_t)(c->n + 1));
    const cJSON *v = r->status ? NULL : list->child;
    for (int i = 0; !r->status && i < c->n; i++, v = v->next)
        c->by[i] = number(r, v, in, "by");
}

static void read_range(reader *r, const cJSON *v, const char *in, pv_convert *c)
{
    c->a = number(r, get(v, "min"), in, "min");
    c->b = number(r, get(v, "max"), in, "max");
    if (!r->status && !(c->a < c->b && isfinite(c->b - c->a)))
        r->status = pv_fail(PV_E_FILE, "%s: %s: expected min < max, came %.17g and %.17g", r->where, in, c->a, c->b);
}

static void read_lengths(reader *r, const cJSON *v, const char *in, pv_convert *c)
{
    c->a = number(r, get(v, "arm"), in, "arm");
    c->b = number(r, get(v, "horn"), in, "horn");
    if (!r->status && !(c->a > 0 && c->b > 0))
        r->status = pv_fail(PV_E_FILE, "%s: %s: expected arm and horn above 0, came %.17g and %.17g", r->where, in, c->a,
                            c->b);
}

static void read_convert(reader *r, const cJSON *list, const char *name, int size, pv_converts *out)
{
    static const char *const ops[] = {"multiply", "add", "normalize", "unnormalize", "linear_to_radian"};
    static const char *const keys[] = {"op dims by", "op dims value", "op dims min max", "op dims min max",
                                       "op dims arm horn"};
    out->n = list ? array(r, list, "", name, 0, PV_ROBOT_MAX_CONVERT) : 0;
    const cJSON *v = out->n ? list->child : NULL;
    for (int i = 0; !r->status && v && i < out->n; i++, v = v->next) {
        pv_convert *c = &out->op[i];
        place p = at(name, i);
        if (!get(v, "op"))
            wrong(r, p.text, "op", "the name of an operation", NULL);
        c->op = (pv_convert_op)word(r, get(v, "op"), p.text, "op", ops, PV_CONVERT_COUNT);
        if (!object(r, v, p.text, keys[c->op]))
            return;
        read_dims(r, get(v, "dims"), p.text, size, c);
        if (c->op == PV_CONVERT_MULTIPLY)
            read_by(r, get(v, "by"), p.text, c);
        else if (c->op == PV_CONVERT_ADD)
            c->a = number(r, get(v, "value"), p.text, "value");
        else if (c->op == PV_CONVERT_LINEAR_TO_RADIAN)
            read_lengths(r, v, p.text, c);
        else
            read_range(r, v, p.text, c);
    }
}

static void read_state(reader *r, const cJSON *state)
{
    pv_robot *b = r->robot;
    if (!object(r, state, "state", "fields convert"))
        return;
    const cJSON *list = get(state, "fields");
    b->n_state_keys = array(r, list, "state", "fields", 1, PV_MAX_STATE_KEYS);
    const cJSON *v = b->n_state_keys ? list->child : NULL;
    for (int i = 0; v && i < b->n_state_keys; i++, v = v->next) {
        place p = at("state.fields", i);
        if (!object(r, v, p.text, "key size"))
            return;
        b->state_key[i] = text(r, get(v, "key"), p.text, "key");
        b->state_key_dim[i] = integer(r, get(v, "size"), p.text, "size", 1, PV_ROBOT_MAX_DIM);
        b->state_dim += b->state_key_dim[i];
    }
    if (!r->status && b->state_dim > PV_ROBOT_MAX_DIM)
        r->status = pv_fail(PV_E_FILE, "%s: state.fields: %d numbers in all, expected at most %d", r->where, b->state_dim,
                            PV_ROBOT_MAX_DIM);
    read_convert(r, get(state, "convert"), "state.convert", b->state_dim, &b->state_convert);
}

static void read_prompt(reader *r, const cJSON *prompt)
{
    if (!object(r, prompt, "prompt", "key default"))
        return;
    r->robot->prompt_key = text(r, get(prompt, "key"), "prompt", "key");
    const cJSON *words = get(prompt, "default");
    r->robot->default_prompt = words ? text(r, words, "prompt", "default") : NULL;
}

static void read_actions(reader *r, const cJSON *actions)
{
    pv_robot *b = r->robot;
    if (!object(r, actions, "actions", "size delta convert"))
        return;
    b->action_dim = integer(r, get(actions, "size"), "actions", "size", 1, PV_ROBOT_MAX_DIM);
    const cJSON *delta = get(actions, "delta");
    int n = delta ? array(r, delta, "actions", "delta", 0, b->action_dim) : 0;
    const cJSON *v = n ? delta->child : NULL;
    for (; !r->status && v; v = v->next) {
        int d = integer(r, v, "actions", "delta", 0, b->action_dim - 1);
        if (!r->status && (d >= b->state_dim || b->delta[d]))
            r->status = pv_fail(PV_E_FILE, "%s: actions.delta: %d %s", r->where, d,
                                b->delta[d] ? "is there twice" : "has no number of the state to be relative to");
        b->delta[d] = b->relative = true;
    }
    read_convert(r, get(actions, "convert"), "actions.convert", b->action_dim, &b->action_convert);
}

/* Each key has one use. */
static void check_keys(reader *r)
{
    const pv_robot *b = r->robot;
    const char *key[PV_MAX_CAMERAS + PV_MAX_STATE_KEYS + MAX_KEYS + 1];
    int n = 0;
    if (r->status)
        return;
    for (int i = 0; i < b->n_cameras; i++)
        if (b->camera[i].key)
            key[n++] = b->camera[i].key;
    for (int i = 0; i < b->n_state_keys; i++)
        key[n++] = b->state_key[i];
    for (int i = 0; i < b->n_ignore; i++)
        key[n++] = b->ignore[i];
    key[n++] = b->prompt_key;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            if (!strcmp(key[i], key[k])) {
                r->status = pv_fail(PV_E_FILE, "%s: the key '%s' has two uses", r->where, key[i]);
                return;
            }
}

static void read_robot(reader *r, const cJSON *root)
{
    static const char *const rules[] = {"openpi", "lerobot"};
    pv_robot *b = r->robot;
    if (!object(r, root, "", "about rules cameras ignore closed state prompt actions"))
        return;
    b->about = get(root, "about") ? text(r, get(root, "about"), "", "about") : "";
    b->f32 = word(r, get(root, "rules"), "", "rules", rules, 2) == 1;
    read_cameras(r, get(root, "cameras"));
    b->ignore = read_keys(r, get(root, "ignore"), "ignore", &b->n_ignore);
    b->closed = read_keys(r, get(root, "closed"), "closed", &b->n_closed);
    read_state(r, get(root, "state"));
    read_prompt(r, get(root, "prompt"));
    read_actions(r, get(root, "actions"));
    check_keys(r);
}

pv_status pv_robot_parse(const char *json, size_t n, const char *name, const char *where, pv_robot **out)
{
    cJSON *root;
    *out = NULL;
    pv_status st = pv_json_parse(json, n, PV_ROBOT_MAX_BYTES, where, &root);
    if (st)
        return st;
    reader r = {where, pv_alloc_zero(sizeof *r.robot), PV_OK};
    if (!r.robot) {
        cJSON_Delete(root);
        return pv_fail_in(PV_E_MEMORY, "%s", where);
    }
    r.robot->name = copy(&r, name);
    char *kept = room(&r, n + 1); /* zeroed: it ends */
    if (kept)
        memcpy(kept, json, n);
    r.robot->json = kept;
    if (!r.status)
        read_robot(&r, root);
    cJSON_Delete(root);
    if (r.status)
        pv_robot_free(&r.robot);
    *out = r.robot;
    return r.status;
}
