/* verify_gate.c - see verify_gate.h. */
#include "verify_gate.h"
#include "io/json.h"
#include "plan/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SCHEMA   "pivot.gate/1"
#define MOST     ((size_t)64 << 20) /* bytes of a gate */
#define ROOM     2.0                /* a bound over what was measured */
#define SMALLEST 0x1p-22            /* bound: below lies the noise of f32, whatever came out the first time */

static const char *const parts[] = {[VERIFY_LOCAL] = "own", [VERIFY_SUM] = "from_start"};

/* ---- reading ---- */

static pv_status check_bound(const char *path, const cJSON *b)
{
    if (!cJSON_IsObject(b) || !b->child)
        return pv_fail(PV_E_FILE, "%s: bounds.'%s': expected an object with \"own\", \"from_start\" or both",
                       path, b->string);
    for (const cJSON *v = b->child; v; v = v->next) {
        if (strcmp(v->string, parts[VERIFY_LOCAL]) && strcmp(v->string, parts[VERIFY_SUM]))
            return pv_fail(PV_E_FILE, "%s: bounds.'%s'.'%s': expected \"own\" or \"from_start\"", path,
                           b->string, v->string);
        if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0))
            return pv_fail(PV_E_FILE, "%s: bounds.'%s'.%s: expected a number of at least 0", path, b->string,
                           v->string);
    }
    return PV_OK;
}

static pv_status check_recipe(const char *path, const cJSON *json, const char *key, const char *want)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(json, key);
    if (!v)
        return PV_OK;
    if (!cJSON_IsString(v))
        return pv_fail(PV_E_FILE, "%s: %s: expected the name of a recipe", path, key);
    if (!want || strcmp(v->valuestring, want))
        return pv_fail(PV_E_ARG, "%s: the gate is for %s %s, this run has %s", path, key, v->valuestring,
                       want ? want : "a trace");
    return PV_OK;
}

pv_status verify_gate_read(const char *path, const char *recipe, const char *ref_recipe, verify_gate *out)
{
    *out = (verify_gate){NULL};
    pv_status st = pv_json_read(path, MOST, &out->json);
    const cJSON *schema = st ? NULL : cJSON_GetObjectItemCaseSensitive(out->json, "schema");
    if (!st && (!cJSON_IsString(schema) || strcmp(schema->valuestring, SCHEMA)))
        st = pv_fail(PV_E_FILE, "%s: schema: expected \"" SCHEMA "\"", path);
    out->bounds = st ? NULL : cJSON_GetObjectItemCaseSensitive(out->json, "bounds");
    if (!st && (!cJSON_IsObject(out->bounds) || !out->bounds->child))
        st = pv_fail(PV_E_FILE, "%s: bounds: expected an object with a bound or more", path);
    if (!st)
        st = check_recipe(path, out->json, "recipe", recipe);
    if (!st)
        st = check_recipe(path, out->json, "against_recipe", ref_recipe);
    for (const cJSON *b = st ? NULL : out->bounds->child; !st && b; b = b->next)
        st = check_bound(path, b);
    if (st)
        verify_gate_free(out);
    return st;
}

void verify_gate_free(verify_gate *g)
{
    cJSON_Delete(g->json);
    *g = (verify_gate){NULL};
}

/* ---- asking ---- */

bool verify_gate_bound(const verify_gate *g, const char *name, int part, double *bound)
{
    const cJSON *found = g ? cJSON_GetObjectItemCaseSensitive(g->bounds, name) : NULL;
    const cJSON *v = found ? cJSON_GetObjectItemCaseSensitive(found, parts[part]) : NULL;
    for (const cJSON *b = g ? g->bounds->child : NULL; !v && b; b = b->next)
        if (pv_pattern_match(b->string, name))
            v = cJSON_GetObjectItemCaseSensitive(b, parts[part]);
    if (v)
        *bound = v->valuedouble;
    return v;
}

static bool there(const verify_entry *e, const char *part)
{
    return strcmp(part, parts[VERIFY_LOCAL]) ? e->state == VERIFY_COMPARED : e->local.there;
}

const char *verify_gate_missing(const verify_gate *g, const verify_report *r)
{
    for (const cJSON *b = g->bounds->child; b; b = b->next)
        for (const cJSON *v = b->child; v; v = v->next) {
            bool found = false;
            for (int i = 0; i < r->n_entries && !found; i++)
                found = there(&r->entries[i], v->string) && pv_pattern_match(b->string, r->entries[i].name);
            if (!found)
                return b->string;
        }
    return NULL;
}

/* ---- writing ---- */

/* Several tensors may have one name: the largest counts. */
static bool add_bound(cJSON *bounds, const char *name, const char *part, double measured, double smallest)
{
    double bound = fmax(ROOM * measured, smallest);
    if (!isfinite(bound))
        return true;
    cJSON *b = cJSON_GetObjectItemCaseSensitive(bounds, name);
    if (!b)
        b = cJSON_AddObjectToObject(bounds, name);
    cJSON *v = cJSON_GetObjectItemCaseSensitive(b, part);
    if (!v)
        return cJSON_AddNumberToObject(b, part, bound);
    if (v->valuedouble < bound)
        cJSON_SetNumberValue(v, bound);
    return true;
}

pv_status verify_gate_write(const char *path, const char *recipe, const char *ref_recipe,
                            const verify_report *r)
{
    cJSON *json = cJSON_CreateObject();
    bool ok = cJSON_AddStringToObject(json, "schema", SCHEMA) &&
              cJSON_AddStringToObject(json, "recipe", recipe) &&
              (!ref_recipe || cJSON_AddStringToObject(json, "against_recipe", ref_recipe));
    cJSON *bounds = cJSON_AddObjectToObject(json, "bounds");
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        if (e->local.there)
            ok &= add_bound(bounds, e->name, parts[VERIFY_LOCAL], e->local.d.relative_l2, SMALLEST);
        if (e->state == VERIFY_COMPARED && !e->input)
            ok &= add_bound(bounds, e->name, parts[VERIFY_SUM], e->absolute ? e->max_abs : e->relative_l2,
                            SMALLEST);
    }
    char *text = ok ? cJSON_Print(json) : NULL;
    cJSON_Delete(json);
    pv_status st =
        text ? pv_file_write(path, text, strlen(text)) : pv_fail(PV_E_MEMORY, "%s: out of memory", path);
    cJSON_free(text);
    return st;
}
