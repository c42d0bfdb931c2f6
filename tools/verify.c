/* verify.c - `pivot verify`: a trace of openpi's against this implementation. The work is in verify_trace.c. */
#include "verify.h"
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void judged_by(const verify_entry *e, char *text, size_t size)
{
    if (e->absolute)
        snprintf(text, size, "max abs %.2e, bound %.2e", e->max_abs, e->bound);
    else
        snprintf(text, size, "relative L2 %.2e, bound %.2e", e->relative_l2, e->bound);
}

static void print_table(const verify_report *r)
{
    printf("%-34s %11s %11s %13s %10s\n", "tensor", "relative L2", "max/spread", "centred cos", "worst at");
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        if (e->state == VERIFY_NO_COUNTERPART)
            printf("%-34s no counterpart: %s\n", e->name, e->why);
        else if (e->state == VERIFY_COMPARED && e->absolute)
            printf("%-34s %11s %11.2e %13s %10lld%s\n", e->name, "(max abs)", e->max_abs, "", (long long)e->worst,
                   e->ok ? "" : "  <-- out of bounds");
        else if (e->state == VERIFY_COMPARED)
            printf("%-34s %11.2e %11.2e %13.9f %10lld%s\n", e->name, e->relative_l2, e->max_spread, e->centred_cosine,
                   (long long)e->worst, e->ok ? "" : "  <-- out of bounds");
    }
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

static void print_verdict(const verify_report *r, bool same_bytes)
{
    printf("production plan: action bytes %s the probe's%s\n", r->production_equal ? "equal" : "differ from",
           r->production_equal || same_bytes ? "" : " (other kernels; its actions are held to the same bounds)");
    const verify_entry *e = r->first_failed;
    char why[96];
    if (!e) {
        printf(r->production_equal || !same_bytes ? "%d tensors compared, all within bounds\n"
                                   : "%d tensors compared, all within bounds, but the two plans differ\n",
               r->n_compared);
    } else if (e->state == VERIFY_NO_COUNTERPART) {
        printf("%d of %d out of bounds; first: %s (no counterpart: %s)\n", r->n_failed, r->n_compared, e->name, e->why);
    } else {
        judged_by(e, why, sizeof why);
        printf("%d of %d out of bounds; first: %s (%s, worst at element %lld)\n", r->n_failed, r->n_compared, e->name, why,
               (long long)e->worst);
    }
}

static void add_number(cJSON *o, const char *key, double v) /* JSON has no NaN */
{
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key);
}

static int print_json(const cli_options *common, const verify_params *p, const verify_report *r, bool passed)
{
    static const char *const states[] = {"not compared", "no counterpart", "compared"};
    cJSON *json = cli_json("pivot.verify/1");
    cJSON_AddStringToObject(json, "trace", p->trace);
    cJSON_AddStringToObject(json, "backend", common->backend ? common->backend : "cpu");
    cJSON_AddStringToObject(json, "recipe", p->recipe ? p->recipe : "f32");
    cJSON_AddNumberToObject(json, "views", r->views);
    cJSON_AddNumberToObject(json, "prompt_tokens", r->prompt_tokens);
    cJSON_AddNumberToObject(json, "prefix_tokens", r->prefix_tokens);
    cJSON *list = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", e->name);
        cJSON_AddStringToObject(o, "state", states[e->state]);
        if (e->why)
            cJSON_AddStringToObject(o, "why", e->why);
        if (e->state == VERIFY_COMPARED) {
            if (!e->absolute) {
                add_number(o, "relative_l2", e->relative_l2);
                add_number(o, "max_abs_over_spread", e->max_spread);
                add_number(o, "centred_cosine", e->centred_cosine);
            }
            add_number(o, "max_abs", e->max_abs);
            cJSON_AddNumberToObject(o, "worst_index", (double)e->worst);
            cJSON_AddNumberToObject(o, "bound", e->bound);
            cJSON_AddBoolToObject(o, "ok", e->ok);
        }
        cJSON_AddItemToArray(list, o);
    }
    cJSON_AddNumberToObject(json, "compared", r->n_compared);
    cJSON_AddNumberToObject(json, "failed", r->n_failed);
    cJSON_AddBoolToObject(json, "production_equal", r->production_equal);
    if (r->first_failed)
        cJSON_AddStringToObject(json, "first_failed", r->first_failed->name);
    cJSON_AddBoolToObject(json, "passed", passed);
    return cli_json_print(common, json);
}

int verify_main(int argc, char **argv)
{
    cli_options common;
    verify_params p = {0};
    const cli_option options[] = {
        {"trace", "FILE", "the trace (safetensors), see docs/traces.md", CLI_TEXT, &p.trace, 0, 0},
        {"bound", "X", "relative L2 that every tensor must keep; without it the bounds of\nrecipe f32 (docs/precision.md)",
         CLI_NUMBER, &p.bound, 1e-12, 1e6},
        {"dump", "FILE", "write what was computed here, in trace format", CLI_TEXT, &p.dump, 0, 0},
        {0}};
    const cli_command command = {
        .name = "verify",
        .purpose = "Compare with a trace of openpi, tensor by tensor",
        .usage = "--model MODEL --trace FILE [options]",
        .example = "pivot verify --model pi05_libero/ --trace libero_trace.safetensors\n"
                   "pivot verify --model tiny_f32.safetensors --config A.json --trace A.safetensors --json",
        .notes = "Exit code 3 when a tensor is out of bounds or has no counterpart: the first one in order of\n"
                 "execution is named on the last line.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
    };
    int code = cli_parse(&command, argc, argv, &common);
    if (code != CLI_GO)
        return code;
    if (!p.trace)
        return cli_usage(&common, "a trace must be given (--trace FILE)");
    p.recipe = common.recipe;
    if (p.recipe && strcmp(p.recipe, "f32") && p.bound == 0)
        return cli_usage(&common, "recipe %s has no bounds of its own; give one (--bound X)", p.recipe);

    pv_backend *be = NULL;
    pv_model *m = NULL;
    verify_report r = {0};
    cli_progress_bar bar = {.off = common.json};
    pv_status st = cli_open_backend(&common, &be);
    if (!st)
        st = cli_open_model(&common, &m);
    if (!st)
        st = verify_trace(m, be, &p, cli_progress, &bar, &r);
    cli_progress_end(&bar);
    bool same_bytes = be && !strcmp(pv_backend_name(be), "cpu"); /* what only the reference promises */
    bool passed = !st && !r.first_failed && (r.production_equal || !same_bytes);
    if (st) {
        code = cli_fail(&common, st);
    } else if (common.json) {
        code = print_json(&common, &p, &r, passed);
    } else {
        printf("%s: %d cameras, %d prompt tokens, prefix of %d\n\n", p.trace, r.views, r.prompt_tokens, r.prefix_tokens);
        print_table(&r);
        printf("\n");
        print_not_compared(&r);
        print_verdict(&r, same_bytes);
        code = CLI_OK;
    }
    verify_free(&r);
    pv_model_free(&m);
    pv_backend_close(&be);
    return code == CLI_OK && !passed ? CLI_GATE : code;
}
