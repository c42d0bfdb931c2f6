/* bench_compare.c - see bench_compare.h. The files may be anybody's: every key is looked for before it is
 * used. */
#include "bench_compare.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_BYTES ((size_t)16 << 20)

/* ---- reading ---- */

static pv_status number_at(const char *where, const char *path, const cJSON *object, const char *key,
                           double *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!v)
        return pv_fail(PV_E_FILE, "%s: '%s%s' is missing: expected what `pivot bench --json` writes", where,
                       path, key);
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble) || fabs(v->valuedouble) > 1e12)
        return pv_fail(PV_E_FILE, "%s: '%s%s': expected a number of milliseconds or runs", where, path, key);
    *out = v->valuedouble;
    return PV_OK;
}

static pv_status read_time(const char *where, const cJSON *times, const char *name, bool quartiles,
                           summary *out)
{
    char path[64];
    snprintf(path, sizeof path, "time_ms.%s.", name);
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(times, name);
    if (!cJSON_IsObject(t))
        return pv_fail(PV_E_FILE, "%s: 'time_ms.%s' is missing: expected what `pivot bench --json` writes",
                       where, name);
    pv_status st = number_at(where, path, t, "p50", &out->p50);
    if (!st && quartiles)
        st = number_at(where, path, t, "p25", &out->p25);
    if (!st && quartiles)
        st = number_at(where, path, t, "p75", &out->p75);
    if (!st && quartiles && !(out->p25 <= out->p50 && out->p50 <= out->p75))
        st = pv_fail(PV_E_FILE, "%s: 'time_ms.%s': p25, p50 and p75 are not in order", where, name);
    return st;
}

pv_status bench_read(const char *where, const cJSON *json, bool quartiles, int *runs, summary out[N_TIMES])
{
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(json, "schema");
    if (!cJSON_IsString(schema) || strncmp(schema->valuestring, "pivot.bench/", 12))
        return pv_fail(PV_E_FILE,
                       "%s: 'schema' is %s: expected what `pivot bench --json` writes (pivot.bench/...)",
                       where,
                       !schema                  ? "missing"
                       : cJSON_IsString(schema) ? "another"
                                                : "no text");
    double n = 0;
    pv_status st = number_at(where, "", json, "runs", &n);
    if (!st && (n < 1 || n > 1e9 || n != floor(n)))
        st = pv_fail(PV_E_FILE, "%s: 'runs': expected a whole number from 1 on", where);
    const cJSON *times = cJSON_GetObjectItemCaseSensitive(json, "time_ms");
    if (!st && !cJSON_IsObject(times))
        st = pv_fail(PV_E_FILE, "%s: 'time_ms' is missing: expected what `pivot bench --json` writes", where);
    for (int i = 0; !st && i < N_TIMES; i++)
        st = read_time(where, times, bench_time_names[i], quartiles, &out[i]);
    *runs = st ? 0 : (int)n;
    return st;
}

/* ---- telling ---- */

const char *const verdict_words[] = {"within the noise", "larger than the noise", "too few runs to say"};
static const char *const verdict_names[] = {"noise", "different", "too_few_runs"};

static const char *const conditions[] = {"version",       "git",           "model",   "layout",  "backend",
                                         "device",        "library",       "recipe",  "threads", "views",
                                         "prompt_tokens", "prefix_tokens", "horizon", "steps",   "warmup",
                                         "same_prompt",   "expanded"};

static void shown(const cJSON *v, char *out, size_t size)
{
    char *text = v ? cJSON_PrintUnformatted(v) : NULL;
    snprintf(out, size, "%.100s", text ? text : "not told");
    cJSON_free(text);
}

/* Where both came as reports: what is not the same in them. Calls say(), or only counts. */
static int differences(const duel *d, void (*say)(void *user, const char *key, const char *a, const char *b),
                       void *user)
{
    int n = 0;
    for (size_t i = 0; d->report[0] && d->report[1] && i < sizeof conditions / sizeof *conditions; i++) {
        char text[2][128];
        for (int s = 0; s < 2; s++)
            shown(cJSON_GetObjectItemCaseSensitive(d->report[s], conditions[i]), text[s], sizeof text[s]);
        if (!strcmp(text[0], text[1]))
            continue;
        say(user, conditions[i], text[0], text[1]);
        n++;
    }
    return n;
}

static void print_difference(void *user, const char *key, const char *a, const char *b)
{
    (void)user;
    printf("  %-14s A %s, B %s\n", key, a, b);
}

static void add_difference(void *json, const char *key, const char *a, const char *b)
{
    cJSON *o = cJSON_AddObjectToObject(json, key);
    cJSON_AddStringToObject(o, "a", a);
    cJSON_AddStringToObject(o, "b", b);
}

static void print_duel(const duel *d)
{
    cli_text t[4];
    printf("A         %s, %d runs\nB         %s, %d runs\n", d->label[0], d->runs[0], d->label[1],
           d->runs[1]);
    if (d->report[0] && d->report[1]) {
        printf("differs\n");
        if (!differences(d, print_difference, NULL))
            printf("  nothing of what the reports say\n");
    }
    printf("\n%-10s%11s%11s%8s%13s%11s\n", "median", "A", "B", "B/A", "B - A", "noise");
    for (int i = 0; i < N_TIMES; i++) {
        const duel_row *r = &d->row[i];
        if (!r->there)
            continue;
        printf("  %-8s%11s%11s%8.3f%13s%11s   %s\n", bench_time_names[i], cli_ms(&t[0], r->a),
               cli_ms(&t[1], r->b), r->ratio, cli_ms(&t[2], r->difference), cli_ms(&t[3], r->noise),
               verdict_words[r->verdict]);
    }
    printf("\nnoise: %s\n", d->how);
}

static int print_duel_json(const cli_options *common, const duel *d)
{
    cJSON *json = cli_json("pivot.bench-compare/1");
    cJSON *sides = cJSON_AddArrayToObject(json, "sides");
    for (int s = 0; s < 2; s++) {
        cJSON *side = cJSON_CreateObject();
        cJSON_AddStringToObject(side, "name", d->label[s]);
        cJSON_AddNumberToObject(side, "runs", d->runs[s]);
        cJSON_AddItemToArray(sides, side);
    }
    if (d->report[0] && d->report[1])
        differences(d, add_difference, cJSON_AddObjectToObject(json, "differs"));
    cJSON_AddStringToObject(json, "noise", d->how);
    cJSON *times = cJSON_AddObjectToObject(json, "time_ms");
    for (int i = 0; i < N_TIMES; i++) {
        const duel_row *r = &d->row[i];
        if (!r->there)
            continue;
        cJSON *o = cJSON_AddObjectToObject(times, bench_time_names[i]);
        cli_json_add_ms(o, "a", r->a);
        cli_json_add_ms(o, "b", r->b);
        if (r->ratio > 0)
            cJSON_AddNumberToObject(o, "ratio", r->ratio);
        cli_json_add_ms(o, "difference", r->difference);
        cli_json_add_ms(o, "noise", r->noise);
        cJSON_AddStringToObject(o, "verdict", verdict_names[r->verdict]);
    }
    return cli_json_print(common, json);
}

int duel_tell(const cli_options *common, const duel *d, const char *html)
{
    if (!common->json)
        print_duel(d);
    int code = common->json || common->json_file.value ? print_duel_json(common, d) : CLI_OK;
    pv_status st = html ? duel_html(d, html) : PV_OK;
    return st ? cli_fail(common, st) : code;
}

/* ---- two files ---- */

int bench_compare(const bench *b)
{
    duel d = {.how = "half notches of both medians, 1.57 quartile ranges over sqrt(runs), added up; of runs "
                     "within one process. Another\n"
                     "start of the program, another clock or a neighbour may move a median by more: --ab "
                     "runs both in turn",
              .label = {b->compare, b->common.model}};
    summary s[2][N_TIMES];
    pv_status st = PV_OK;
    for (int i = 0; !st && i < 2; i++) {
        st = pv_json_read(d.label[i], MOST_BYTES, &d.report[i]);
        if (!st)
            st = bench_read(d.label[i], d.report[i], true, &d.runs[i], s[i]);
    }
    for (int i = 0; !st && i < N_TIMES; i++)
        d.row[i] =
            (duel_row){.there = true,
                       .a = s[0][i].p50,
                       .b = s[1][i].p50,
                       .ratio = s[0][i].p50 > 0 ? s[1][i].p50 / s[0][i].p50 : 0,
                       .difference = s[1][i].p50 - s[0][i].p50,
                       .noise = summary_notch(&s[0][i], d.runs[0]) + summary_notch(&s[1][i], d.runs[1]),
                       .verdict = summary_differ(&s[0][i], d.runs[0], &s[1][i], d.runs[1])};
    int code = st ? cli_fail(&b->common, st) : duel_tell(&b->common, &d, b->html);
    cJSON_Delete(d.report[0]);
    cJSON_Delete(d.report[1]);
    return code;
}
