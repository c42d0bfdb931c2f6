/* stats.c - normalisation statistics. Formulas and rules: stats.h. */
#include "stats.h"
#include "base/memory.h"
#include "json.h"

#include <string.h>

#define MAX_FILE_BYTES ((size_t)4 << 20)
#define MAX_DIM        1024
#define EPSILON        1e-6

/* The four vectors of a pv_norm as the file names them. */
enum { MEAN, STD, Q01, Q99, N_VECTORS };
static const char *const names[N_VECTORS] = {"mean", "std", "q01", "q99"};

typedef struct spot {
    const char *where, *which; /* the file; "state" or "actions" */
} spot;

static pv_status find_vectors(const cJSON *norm, spot at, const cJSON *found[N_VECTORS])
{
    for (int k = 0; k < N_VECTORS; k++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(norm, names[k]);
        const bool optional = k == Q01 || k == Q99;
        found[k] = optional && cJSON_IsNull(v) ? NULL : v;
        if (found[k] ? !cJSON_IsArray(v) : !optional)
            return pv_fail(PV_E_FILE, "%s: %s.%s: expected an array of numbers%s", at.where, at.which,
                           names[k], v ? "" : ", it is missing");
    }
    if (!found[Q01] != !found[Q99])
        return pv_fail(PV_E_FILE, "%s: %s: %s is there, %s is not: expected both or none", at.where, at.which,
                       names[found[Q01] ? Q01 : Q99], names[found[Q01] ? Q99 : Q01]);
    return PV_OK;
}

/* Numbers of the vectors into norm. */
static pv_status fill(const cJSON *const found[N_VECTORS], spot at, pv_norm *norm)
{
    double **const to[N_VECTORS] = {&norm->mean, &norm->std, &norm->q01, &norm->q99};
    const int n = cJSON_GetArraySize(found[MEAN]);
    if (n < 1 || n > MAX_DIM)
        return pv_fail(PV_E_FILE, "%s: %s.mean has %d numbers, expected 1..%d", at.where, at.which, n,
                       MAX_DIM);
    double *block = pv_alloc(N_VECTORS * (size_t)n * sizeof *block);
    if (!block)
        return pv_fail_in(PV_E_MEMORY, "%s", at.where);
    norm->block = block;
    norm->padded_dim = n;
    for (int k = 0; k < N_VECTORS; k++) {
        if (!found[k])
            continue;
        if (cJSON_GetArraySize(found[k]) != n)
            return pv_fail(PV_E_FILE, "%s: %s.%s has %d numbers, mean has %d", at.where, at.which, names[k],
                           cJSON_GetArraySize(found[k]), n);
        *to[k] = block + k * n;
        int i = 0;
        for (const cJSON *v = found[k]->child; v; v = v->next, i++) {
            if (!cJSON_IsNumber(v))
                return pv_fail(PV_E_FILE, "%s: %s.%s[%d]: expected a number", at.where, at.which, names[k],
                               i);
            (*to[k])[i] = v->valuedouble; /* finite: json.c refuses others */
        }
    }
    return PV_OK;
}

static bool is_padding(const pv_norm *norm, int i)
{
    return norm->mean[i] == 0 && norm->std[i] == 0 &&
           (!norm->q01 || (norm->q01[i] == 0 && norm->q99[i] == 0));
}

static pv_status check(pv_norm *norm, spot at)
{
    norm->dim = norm->padded_dim;
    while (norm->dim > 0 && is_padding(norm, norm->dim - 1))
        norm->dim--;
    if (norm->dim == 0)
        return pv_fail(PV_E_FILE, "%s: %s: all %d dims are zero", at.where, at.which, norm->padded_dim);
    for (int i = 0; i < norm->dim; i++) {
        if (norm->std[i] < 0)
            return pv_fail(PV_E_FILE, "%s: %s.std[%d] is %g, expected 0 or more", at.where, at.which, i,
                           norm->std[i]);
        if (norm->q01 && !(norm->q01[i] < norm->q99[i]))
            return pv_fail(PV_E_FILE, "%s: %s[%d]: q01 is %.17g and q99 is %.17g, expected q01 < q99",
                           at.where, at.which, i, norm->q01[i], norm->q99[i]);
    }
    return PV_OK;
}

static pv_status read_norm(const cJSON *all, spot at, pv_norm *norm)
{
    const cJSON *found[N_VECTORS], *entry = cJSON_GetObjectItemCaseSensitive(all, at.which);
    if (!cJSON_IsObject(entry))
        return pv_fail(PV_E_FILE, "%s: norm_stats.%s: expected an object%s", at.where, at.which,
                       entry ? "" : ", it is missing");
    pv_status st = find_vectors(entry, at, found);
    if (!st)
        st = fill(found, at, norm);
    return st ? st : check(norm, at);
}

static pv_status from_tree(const cJSON *root, const char *where, pv_stats **out)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(root, "norm_stats");
    if (!cJSON_IsObject(all))
        return pv_fail(PV_E_FILE, "%s: expected an object with the key 'norm_stats', which holds an object",
                       where);
    pv_stats *s = pv_alloc_zero(sizeof *s);
    if (!s)
        return pv_fail_in(PV_E_MEMORY, "%s", where);
    pv_status st = read_norm(all, (spot){where, "state"}, &s->state);
    if (!st)
        st = read_norm(all, (spot){where, "actions"}, &s->actions);
    if (st)
        pv_stats_free(&s);
    *out = s;
    return st;
}

pv_status pv_stats_parse(const char *json, size_t n, const char *where, pv_stats **out)
{
    cJSON *root;
    *out = NULL;
    pv_status st = pv_json_parse(json, n, MAX_FILE_BYTES, where, &root);
    if (st)
        return st;
    st = from_tree(root, where, out);
    cJSON_Delete(root);
    return st;
}

pv_status pv_stats_read(const char *path, pv_stats **out)
{
    cJSON *root;
    *out = NULL;
    pv_status st = pv_json_read(path, MAX_FILE_BYTES, &root);
    if (st)
        return st;
    st = from_tree(root, path, out);
    cJSON_Delete(root);
    return st;
}

void pv_stats_free(pv_stats **stats)
{
    if (!*stats)
        return;
    pv_free((*stats)->state.block);
    pv_free((*stats)->actions.block);
    pv_free(*stats);
    *stats = NULL;
}

static pv_status repeat(const pv_norm *from, int dim, pv_norm *to)
{
    const double *const vectors[N_VECTORS] = {from->mean, from->std, from->q01, from->q99};
    double **const at[N_VECTORS] = {&to->mean, &to->std, &to->q01, &to->q99};
    to->dim = to->padded_dim = dim;
    to->block = pv_alloc(N_VECTORS * (size_t)dim * sizeof *to->block);
    if (!to->block)
        return PV_E_MEMORY;
    for (int k = 0; k < N_VECTORS; k++) {
        *at[k] = vectors[k] ? to->block + k * dim : NULL;
        for (int i = 0; vectors[k] && i < dim; i++)
            (*at[k])[i] = vectors[k][i % from->dim];
    }
    return PV_OK;
}

pv_status pv_stats_repeat(const pv_stats *s, int state_dim, int action_dim, pv_stats **out)
{
    *out = pv_alloc_zero(sizeof **out);
    pv_status st = *out ? repeat(&s->state, state_dim, &(*out)->state) : PV_E_MEMORY;
    if (!st)
        st = repeat(&s->actions, action_dim, &(*out)->actions);
    if (st)
        pv_stats_free(out);
    return st;
}

pv_status pv_norm_check(const pv_norm *norm, pv_norm_rule rule, const char *which)
{
    if (norm->mode == PV_NORM_OPENPI && rule == PV_NORM_QUANTILE && !norm->q01)
        return pv_fail(
            PV_E_ARG, "%s: normalising by quantiles needs q01 and q99, the statistics have mean and std only",
            which);
    return PV_OK;
}

/* Elements past the statistics: as they are. */
static int pass(const pv_norm *norm, const double *from, double *to, int n)
{
    if (n <= norm->dim)
        return n;
    if (to != from)
        memcpy(to + norm->dim, from + norm->dim, (size_t)(n - norm->dim) * sizeof *to);
    return norm->dim;
}

/* lerobot's rules, operation by operation as torch computes them on float32. */
static float to_f32(const pv_norm *norm, int i, double x)
{
    const float v = (float)x;
    if (norm->mode == PV_NORM_MEAN_STD)
        return (v - (float)norm->mean[i]) / ((float)norm->std[i] + norm->eps);
    if (norm->mode == PV_NORM_IDENTITY)
        return v;
    const float low = (float)norm->low[i], span = (float)norm->high[i] - low;
    return 2 * (v - low) / (span == 0 ? norm->eps : span) - 1;
}

static float from_f32(const pv_norm *norm, int i, double y)
{
    const float v = (float)y;
    if (norm->mode == PV_NORM_MEAN_STD)
        return v * (float)norm->std[i] + (float)norm->mean[i];
    if (norm->mode == PV_NORM_IDENTITY)
        return v;
    const float low = (float)norm->low[i], span = (float)norm->high[i] - low;
    return (v + 1) * (span == 0 ? norm->eps : span) / 2 + low;
}

void pv_normalize(const pv_norm *norm, pv_norm_rule rule, const double *x, double *y, int n)
{
    n = pass(norm, x, y, n);
    if (norm->mode != PV_NORM_OPENPI)
        for (int i = 0; i < n; i++)
            y[i] = (double)to_f32(norm, i, x[i]);
    else if (rule == PV_NORM_QUANTILE)
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - norm->q01[i]) / (norm->q99[i] - norm->q01[i] + EPSILON) * 2 - 1;
    else
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - norm->mean[i]) / (norm->std[i] + EPSILON);
}

void pv_unnormalize(const pv_norm *norm, pv_norm_rule rule, const double *y, double *x, int n)
{
    n = pass(norm, y, x, n);
    if (norm->mode != PV_NORM_OPENPI)
        for (int i = 0; i < n; i++)
            x[i] = (double)from_f32(norm, i, y[i]);
    else if (rule == PV_NORM_QUANTILE)
        for (int i = 0; i < n; i++)
            x[i] = (y[i] + 1) / 2 * (norm->q99[i] - norm->q01[i] + EPSILON) + norm->q01[i];
    else
        for (int i = 0; i < n; i++)
            x[i] = y[i] * (norm->std[i] + EPSILON) + norm->mean[i];
}

int pv_norm_outside(const pv_norm *norm, const double *x, int n)
{
    int count = 0;
    for (int i = 0; norm->q01 && i < n && i < norm->dim; i++)
        count += !(x[i] >= norm->q01[i] && x[i] <= norm->q99[i]);
    return count;
}
