/* verify_report.c - see verify_report.h. */
#include "verify_report.h"
#include "base/memory.h"
#include "expand.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what follows from the entries ---- */

bool verify_entry_ok(const verify_entry *e)
{
    return e->ok && (e->local.ok || !e->local.there);
}

static double share(double error, double limit)
{
    return error == 0 ? 0 : isnan(error) ? INFINITY : error / limit;
}

double verify_used(const verify_entry *e)
{
    if (e->local.there)
        return share(e->local.d.relative_l2, e->local.limit);
    if (e->state != VERIFY_COMPARED || e->op)
        return NAN;
    return share(e->absolute ? e->max_abs : e->relative_l2, e->bound);
}

double verify_used_in(const verify_entry *e, int step)
{
    const double *own = e->local.there ? e->curve[VERIFY_LOCAL] : NULL;
    return own ? share(own[step], e->local.limit) : !e->op && e->what.step == step ? verify_used(e) : NAN;
}

const verify_entry *verify_worst_in(const verify_report *r, int step)
{
    const verify_entry *worst = NULL;
    double most = -1;
    for (int i = 0; i < r->n_entries; i++) {
        double used = verify_used_in(&r->entries[i], step);
        if (used > most) {
            most = used;
            worst = &r->entries[i];
        }
    }
    return worst;
}

double verify_after_step(const verify_report *r, int step, int curve)
{
    for (int i = r->n_entries - 1; i >= 0; i--) {
        const verify_entry *e = &r->entries[i];
        if (e->state != VERIFY_COMPARED)
            continue;
        if (e->curve[curve]) /* the last tensor of a step: x */
            return e->curve[curve][step];
        if (!e->op && e->what.step == step && !strcmp(e->what.tensor, "step.v_t"))
            return curve == VERIFY_SUM ? e->relative_l2 : NAN;
    }
    return NAN;
}

/* "step.layer3.attn/softmax" and "step9.layer3.out" -> "step.layer3", "vision.post_ln" -> "vision". */
static void group_name(const verify_entry *e, char *name, size_t size)
{
    const char *dot = strchr(e->name, '.');
    size_t stage = dot ? (size_t)(dot - e->name) : strlen(e->name), layer = 0;
    if (dot && !strncmp(dot, ".layer", 6))
        layer = 1 + strcspn(dot + 1, ".");
    if (dot && !strncmp(e->name, "step", 4))
        stage = 4;
    if (e->input) /* their names are of the stages that read them */
        snprintf(name, size, "inputs");
    else
        snprintf(name, size, "%.*s%.*s", (int)stage, e->name, (int)layer, dot ? dot : "");
}

pv_status verify_groups(const verify_report *r, verify_group **out, int *n)
{
    *n = 0;
    *out = pv_alloc_zero(sizeof **out * (size_t)(r->n_entries + 1));
    if (!*out)
        return PV_E_MEMORY;
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        char name[64];
        group_name(e, name, sizeof name);
        verify_group *g = NULL;
        for (int k = 0; k < *n && !g; k++)
            g = strcmp((*out)[k].name, name) ? NULL : &(*out)[k];
        if (!g) {
            g = &(*out)[(*n)++];
            snprintf(g->name, sizeof g->name, "%s", name);
        }
        if (e->state == VERIFY_COMPARED && !e->absolute)
            g->last = e;
        g->judged += !isnan(verify_used(e));
        if (!isnan(verify_used(e)) && (!g->worst || verify_used(e) > verify_used(g->worst)))
            g->worst = e;
    }
    return PV_OK;
}

static int by_use(const void *a, const void *b)
{
    const verify_entry *x = *(const verify_entry *const *)a, *y = *(const verify_entry *const *)b;
    double p = verify_used(x), q = verify_used(y);
    return p != q ? (p < q ? 1 : -1) : x < y ? -1 : x > y;
}

pv_status verify_ranking(const verify_report *r, const verify_entry ***out, int *n)
{
    *n = 0;
    *out = pv_alloc(sizeof **out * (size_t)(r->n_entries + 1));
    if (!*out)
        return PV_E_MEMORY;
    for (int i = 0; i < r->n_entries; i++)
        if (!isnan(verify_used(&r->entries[i])))
            (*out)[(*n)++] = &r->entries[i];
    qsort((void *)*out, (size_t)*n, sizeof **out, by_use);
    return PV_OK;
}

bool verify_passed(const verify_subject *s, const verify_report *r)
{
    return !r->first_failed && !s->not_kept && r->n_compared > 0 &&
           (s->against || r->production_equal || !s->same_bytes);
}

/* ---- text ---- */

static void judged_by(const verify_report *r, const verify_entry *e, char *text, size_t size)
{
    if (r->first_local && e->local.d.relative_l2 <= e->local.limit)
        snprintf(text, size, "other bytes on the same inputs, own error %.2e", e->local.d.relative_l2);
    else if (r->first_local)
        snprintf(text, size, "own error %.2e, budget %.2e", e->local.d.relative_l2, e->local.limit);
    else if (e->absolute)
        snprintf(text, size, "max abs %.2e, bound %.2e", e->max_abs, e->bound);
    else if (!e->gated && (r->exact || e->input || e->bound == 0))
        snprintf(text, size, "other bytes, relative L2 %.2e", e->relative_l2);
    else
        snprintf(text, size, "relative L2 %.2e, bound %.2e", e->relative_l2, e->bound);
}

void verify_verdict(const verify_subject *s, const verify_report *r, char *text, size_t size)
{
    const verify_entry *e = r->first_failed;
    char why[96], step[32] = "";
    if (s->against && e && r->first_step >= 0)
        snprintf(step, sizeof step, " in step %d", r->first_step);
    if (e && !r->first_local && e->state == VERIFY_NO_COUNTERPART) {
        snprintf(text, size, "%d of %d out of bounds; first: %s (no counterpart: %s)", r->n_failed,
                 r->n_compared, e->name, e->why);
    } else if (e) {
        judged_by(r, e, why, sizeof why);
        snprintf(text, size, "%d of %d out of bounds; first: %s%s%s%s (%s, worst at element %lld)",
                 r->n_failed, r->n_compared, e->name, e->op ? ", by " : "", e->op ? e->op : "", step, why,
                 (long long)(r->first_local ? e->local.d.worst : e->worst));
    } else if (s->not_kept) {
        snprintf(text, size, "%d tensors compared; gate %s bounds '%s', which was not", r->n_compared,
                 s->gate, s->not_kept);
    } else if (s->against) {
        snprintf(text, size, "%d tensors compared, %d of them with equal bytes, all within bounds",
                 r->n_compared, r->n_same);
    } else {
        snprintf(text, size, "%d tensors compared, all within bounds%s", r->n_compared,
                 r->production_equal || !s->same_bytes ? "" : ", but the two plans differ");
    }
}

static void print_head(const verify_subject *s, const verify_report *r)
{
    if (s->against)
        printf("%s (%s) against %s (%s), %s: ", s->backend, s->recipe, s->against, s->ref_recipe,
               s->trace ? s->trace : "made-up inputs");
    else
        printf("%s: ", s->trace);
    printf("%d cameras, %d prompt tokens, prefix of %d", r->views, r->prompt_tokens, r->prefix_tokens);
    if (s->against)
        printf(", %d steps", r->steps);
    if (r->rounds > 1)
        printf("; in %d rounds", r->rounds);
    printf("\n\n");
}

static void print_number(double v, bool there, int width)
{
    if (there)
        printf(" %*.2e", width, v);
    else
        printf(" %*s", width, "-");
}

static int name_width(const verify_report *r) /* of a column that holds them */
{
    int width = 34;
    for (int i = 0; i < r->n_entries; i++)
        if ((int)strlen(r->entries[i].name) > width)
            width = (int)strlen(r->entries[i].name);
    return width < 48 ? width : 48;
}

static void print_entry(const verify_report *r, const verify_entry *e, bool ops, int width)
{
    bool own = e->local.there, sum = e->state == VERIFY_COMPARED;
    printf("%-*s", width, e->name);
    if (ops) {
        printf(" %-16s", e->op);
        print_number(e->local.d.relative_l2, own, 9);
        print_number(e->local.limit, own, 9);
        printf(" |");
        print_number(e->relative_l2, sum, 11);
        if (r->has_recipe)
            print_number(e->recipe.d.relative_l2, e->recipe.there, 9);
    } else if (e->state == VERIFY_NO_COUNTERPART) {
        printf(" no counterpart: %s\n", e->why);
        return;
    } else {
        print_number(e->relative_l2, !e->absolute, 11);
    }
    if (sum && e->absolute)
        printf(" %11s %12s %12s %9.2e %9.2e %9lld", "-", "-", "-", e->max_abs, e->mean_abs,
               (long long)e->worst);
    else if (sum)
        printf(" %11.2e %12.9f %12.9f %9.2e %9.2e %9lld", e->max_spread, e->centred_cosine, e->cosine,
               e->max_abs, e->mean_abs, (long long)e->worst);
    if (ops && sum && e->step >= 0)
        printf(" %4d", e->step);
    printf("%s%s\n", own && !e->local.ok ? "  <-- beyond its budget" : "",
           e->ok ? "" : "  <-- out of bounds");
}

static void print_table(const verify_report *r, bool ops)
{
    int width = name_width(r);
    printf("%-*s", width, "tensor");
    if (ops)
        printf(" %-16s %9s %9s | %11s%s", "op", "own error", "budget", "from start",
               r->has_recipe ? "    recipe" : "");
    else
        printf(" %11s", "relative L2");
    printf(" %11s %12s %12s %9s %9s %9s%s\n", "max/spread", "centred cos", "cosine", "max abs", "mean abs",
           "worst at", ops ? " step" : "");
    for (int i = 0; i < r->n_entries; i++)
        if (r->entries[i].state != VERIFY_NOT_COMPARED || r->entries[i].local.there)
            print_entry(r, &r->entries[i], ops, width);
    printf("\n");
}

/* "step.layer1.q (linear)"; a trace knows no ops. */
static const char *named(const verify_entry *e, char *text, size_t size)
{
    snprintf(text, size, e && e->op ? "%s (%s)" : "%s", e ? e->name : "", e ? e->op : "");
    return text;
}

static void print_groups(const verify_subject *s, const verify_report *r)
{
    verify_group *g = NULL;
    char worst[160];
    int n = 0;
    if (verify_groups(r, &g, &n))
        return; /* the tables above say all of it */
    printf("%-16s %7s %9s  %-44s %11s%s\n", "layer", s->against ? "ops" : "tensors",
           s->against ? "of budget" : "of bound",
           s->against ? "nearest to its budget" : "nearest to its bound",
           s->against ? "from start" : "relative L2", r->has_recipe ? "    recipe" : "");
    for (int i = 0; i < n; i++) {
        const verify_entry *w = g[i].worst, *l = g[i].last;
        if (!w)
            continue;
        printf("%-16s %7d %8.1f%%  %-44s", g[i].name, g[i].judged, 100 * verify_used(w),
               named(w, worst, sizeof worst));
        print_number(l ? l->relative_l2 : 0, l, 11);
        if (r->has_recipe)
            print_number(l ? l->recipe.d.relative_l2 : 0, l && l->recipe.there, 9);
        printf("\n");
    }
    printf("\n");
    pv_free(g);
}

static void print_steps(const verify_subject *s, const verify_report *r)
{
    char worst[160];
    bool begun = false;
    for (int k = 0; k < r->steps; k++) {
        const verify_entry *e = verify_worst_in(r, k);
        double sum = verify_after_step(r, k, VERIFY_SUM), recipe = verify_after_step(r, k, VERIFY_RECIPE);
        if (!e && isnan(sum))
            continue;
        if (!begun)
            printf("%-16s %7s %9s  %-44s %11s%s\n", "step", "", s->against ? "of budget" : "of bound",
                   s->against ? "nearest to its budget" : "nearest to its bound",
                   s->against ? "from start" : "its v_t", r->has_recipe ? "    recipe" : "");
        begun = true;
        printf("%-16d %7s %8.1f%%  %-44s", k, "", e ? 100 * verify_used_in(e, k) : 0,
               named(e, worst, sizeof worst));
        print_number(sum, !isnan(sum), 11);
        if (r->has_recipe)
            print_number(recipe, !isnan(recipe), 9);
        printf("\n");
    }
    if (begun)
        printf("\n");
}

static void print_not_compared(const verify_report *r)
{
    for (int i = 0; i < r->n_entries; i++) {
        const char *why = r->entries[i].why;
        bool seen = r->entries[i].state != VERIFY_NOT_COMPARED;
        for (int k = 0; k < i && !seen; k++)
            seen = r->entries[k].state == VERIFY_NOT_COMPARED && !strcmp(r->entries[k].why, why);
        if (seen)
            continue;
        printf("not compared (%s):", why);
        for (int k = i; k < r->n_entries; k++)
            if (r->entries[k].state == VERIFY_NOT_COMPARED && !strcmp(r->entries[k].why, why))
                printf(" %s", r->entries[k].name);
        printf("\n");
    }
}

void verify_print(const verify_subject *s, const verify_report *r)
{
    char verdict[512];
    print_head(s, r);
    print_table(r, s->against);
    print_groups(s, r);
    print_steps(s, r);
    print_not_compared(r);
    if (s->against)
        printf("%d ops on the inputs they had: %d beyond their budgets%s\n", r->n_local, r->n_local_failed,
               r->exact ? " (equal bytes)" : "");
    else
        printf("production plan: action bytes %s the probe's%s\n",
               r->production_equal ? "equal" : "differ from",
               r->production_equal || s->same_bytes
                   ? ""
                   : " (other kernels; its actions are held to the same bounds)");
    verify_verdict(s, r, verdict, sizeof verdict);
    printf("%s\n", verdict);
}

/* ---- JSON ---- */

static void add_number(cJSON *o, const char *key, double v) /* JSON has no NaN */
{
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key);
}

static void add_distance(cJSON *o, const distance *d)
{
    add_number(o, "relative_l2", d->relative_l2);
    add_number(o, "max_abs_over_spread", d->max_spread);
    add_number(o, "centred_cosine", d->centred_cosine);
    add_number(o, "cosine", d->cosine);
    add_number(o, "max_abs", d->max_abs);
    add_number(o, "mean_abs", d->mean_abs);
    cJSON_AddNumberToObject(o, "worst_index", (double)d->worst);
}

static void add_curve(cJSON *o, const double *curve, int steps)
{
    if (!curve)
        return;
    cJSON *list = cJSON_AddArrayToObject(o, "steps");
    for (int k = 0; k < steps; k++)
        cJSON_AddItemToArray(list, isfinite(curve[k]) ? cJSON_CreateNumber(curve[k]) : cJSON_CreateNull());
}

static void add_part(cJSON *o, const char *key, const verify_part *p, const double *curve, int steps)
{
    if (!p->there)
        return;
    cJSON *part = cJSON_AddObjectToObject(o, key);
    add_distance(part, &p->d);
    if (p->limit > 0 || !p->ok) {
        add_number(part, "budget", p->limit);
        cJSON_AddBoolToObject(part, "ok", p->ok);
    }
    if (p->step >= 0)
        cJSON_AddNumberToObject(part, "step", p->step);
    add_curve(part, curve, steps);
}

static void json_inputs(cJSON *json, const verify_subject *s, const verify_report *r)
{
    if (s->trace)
        cJSON_AddStringToObject(json, "trace", s->trace);
    cJSON_AddStringToObject(json, "backend", s->backend);
    cJSON_AddStringToObject(json, "recipe", s->recipe);
    if (s->against) {
        cJSON_AddStringToObject(json, "against", s->against);
        cJSON_AddStringToObject(json, "against_recipe", s->ref_recipe);
        cJSON_AddNumberToObject(json, "steps", r->steps);
        cJSON_AddNumberToObject(json, "rounds", r->rounds);
    }
    if (s->gate)
        cJSON_AddStringToObject(json, "gate", s->gate);
    if (s->not_kept)
        cJSON_AddStringToObject(json, "gate_not_compared", s->not_kept);
    if (s->expand)
        expand_json(json, s->expand);
    cJSON_AddNumberToObject(json, "views", r->views);
    cJSON_AddNumberToObject(json, "prompt_tokens", r->prompt_tokens);
    cJSON_AddNumberToObject(json, "prefix_tokens", r->prefix_tokens);
}

static cJSON *json_entry(const verify_report *r, const verify_entry *e)
{
    static const char *const states[] = {"not compared", "no counterpart", "compared"};
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", e->name);
    if (e->op)
        cJSON_AddStringToObject(o, "op", e->op);
    cJSON_AddStringToObject(o, "state", states[e->state]);
    if (e->why)
        cJSON_AddStringToObject(o, "why", e->why);
    if (e->state == VERIFY_COMPARED) {
        if (e->absolute) {
            add_number(o, "max_abs", e->max_abs);
            add_number(o, "mean_abs", e->mean_abs);
            cJSON_AddNumberToObject(o, "worst_index", (double)e->worst);
        } else {
            add_distance(o, &(distance){.relative_l2 = e->relative_l2,
                                        .max_spread = e->max_spread,
                                        .cosine = e->cosine,
                                        .centred_cosine = e->centred_cosine,
                                        .max_abs = e->max_abs,
                                        .mean_abs = e->mean_abs,
                                        .worst = e->worst});
        }
        cJSON_AddNumberToObject(o, "bound", e->bound);
        if (e->op && e->step >= 0)
            cJSON_AddNumberToObject(o, "step", e->step);
        if (e->op)
            cJSON_AddBoolToObject(o, "same_bytes", e->same_bytes);
        add_curve(o, e->curve[VERIFY_SUM], r->steps);
    }
    add_part(o, "own", &e->local, e->curve[VERIFY_LOCAL], r->steps);
    add_part(o, "recipe", &e->recipe, e->curve[VERIFY_RECIPE], r->steps);
    if (e->state == VERIFY_COMPARED || e->local.there)
        cJSON_AddBoolToObject(o, "ok", verify_entry_ok(e));
    return o;
}

static void json_groups(cJSON *json, const verify_report *r)
{
    verify_group *g = NULL;
    int n = 0;
    if (verify_groups(r, &g, &n))
        return;
    cJSON *list = cJSON_AddArrayToObject(json, "layers");
    for (int i = 0; i < n; i++) {
        if (!g[i].worst)
            continue;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", g[i].name);
        cJSON_AddNumberToObject(o, "judged", g[i].judged);
        add_number(o, "used", verify_used(g[i].worst));
        cJSON_AddStringToObject(o, "nearest", g[i].worst->name);
        if (g[i].last)
            add_number(o, "relative_l2", g[i].last->relative_l2);
        cJSON_AddItemToArray(list, o);
    }
    pv_free(g);
}

cJSON *verify_json(const verify_subject *s, const verify_report *r)
{
    cJSON *json = cli_json("pivot.verify/1");
    json_inputs(json, s, r);
    cJSON *list = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < r->n_entries; i++)
        cJSON_AddItemToArray(list, json_entry(r, &r->entries[i]));
    json_groups(json, r);
    cJSON_AddNumberToObject(json, "compared", r->n_compared);
    cJSON_AddNumberToObject(json, "failed", r->n_failed);
    if (s->against) {
        cJSON_AddNumberToObject(json, "ops", r->n_local);
        cJSON_AddNumberToObject(json, "ops_failed", r->n_local_failed);
    } else {
        cJSON_AddBoolToObject(json, "production_equal", r->production_equal);
    }
    if (r->first_failed)
        cJSON_AddStringToObject(json, "first_failed", r->first_failed->name);
    if (s->against && r->first_failed && r->first_step >= 0)
        cJSON_AddNumberToObject(json, "first_failed_step", r->first_step);
    cJSON_AddBoolToObject(json, "passed", verify_passed(s, r));
    return json;
}
