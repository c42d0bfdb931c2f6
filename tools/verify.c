/* verify.c - `pivot verify`: options and output. The work is in verify_trace.c (a trace of openpi's against this
 * implementation) and verify_against.c (one backend against another). */
#include "verify.h"
#include "cli.h"
#include "expand.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define HOLD_MIB 1024 /* activations on each side: a full-size model takes six of these */

typedef struct verify {
    cli_options common;
    /* as on the command line */
    verify_params p;
    const char *against, *ref_device;
    cli_list expand;
    int views, tokens, steps, hold_mib;
    /* against a backend */
    char reference[32];
    const char *ref_recipe;
    against_params a;
    trace_inputs in;
} verify;

static void judged_by(const verify_report *r, const verify_entry *e, char *text, size_t size)
{
    if (e->absolute)
        snprintf(text, size, "max abs %.2e, bound %.2e", e->max_abs, e->bound);
    else if (r->exact)
        snprintf(text, size, "other bytes, relative L2 %.2e", e->relative_l2);
    else
        snprintf(text, size, "relative L2 %.2e, bound %.2e", e->relative_l2, e->bound);
}

static void print_table(const verify_report *r, bool ops)
{
    printf("%-34s ", "tensor");
    if (ops)
        printf("%-16s ", "op");
    printf("%11s %11s %13s %10s%s\n", "relative L2", "max/spread", "centred cos", "worst at", ops ? " step" : "");
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        if (e->state == VERIFY_NOT_COMPARED)
            continue;
        printf("%-34s ", e->name);
        if (ops)
            printf("%-16s ", e->op);
        if (e->state == VERIFY_NO_COUNTERPART) {
            printf("no counterpart: %s\n", e->why);
            continue;
        }
        if (e->absolute)
            printf("%11s %11.2e %13s", "(max abs)", e->max_abs, "");
        else
            printf("%11.2e %11.2e %13.9f", e->relative_l2, e->max_spread, e->centred_cosine);
        printf(" %10lld", (long long)e->worst);
        if (ops && e->step >= 0)
            printf(" %4d", e->step);
        printf("%s\n", e->ok ? "" : "  <-- out of bounds");
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

static void print_verdict(const verify *v, const verify_report *r, bool same_bytes)
{
    const verify_entry *e = r->first_failed;
    char why[96], step[32] = "";
    if (!v->against)
        printf("production plan: action bytes %s the probe's%s\n", r->production_equal ? "equal" : "differ from",
               r->production_equal || same_bytes ? "" : " (other kernels; its actions are held to the same bounds)");
    if (v->against && e && r->first_step >= 0)
        snprintf(step, sizeof step, " in step %d", r->first_step);
    if (e && e->state == VERIFY_NO_COUNTERPART) {
        printf("%d of %d out of bounds; first: %s (no counterpart: %s)\n", r->n_failed, r->n_compared, e->name, e->why);
    } else if (e) {
        judged_by(r, e, why, sizeof why);
        printf("%d of %d out of bounds; first: %s%s%s%s (%s, worst at element %lld)\n", r->n_failed, r->n_compared, e->name,
               e->op ? ", by " : "", e->op ? e->op : "", step, why, (long long)e->worst);
    } else if (v->against) {
        printf("%d tensors compared, %d of them with equal bytes, all within bounds\n", r->n_compared, r->n_same);
    } else {
        printf("%d tensors compared, all within bounds%s\n", r->n_compared,
               r->production_equal || !same_bytes ? "" : ", but the two plans differ");
    }
}

static void add_number(cJSON *o, const char *key, double v) /* JSON has no NaN */
{
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key);
}

static const char *backend_of(const verify *v)
{
    return v->common.backend ? v->common.backend : "cpu";
}

static const char *recipe_of(const verify *v)
{
    return v->common.recipe ? v->common.recipe : "f32";
}

static void json_inputs(cJSON *json, const verify *v, const verify_report *r)
{
    if (v->p.trace)
        cJSON_AddStringToObject(json, "trace", v->p.trace);
    cJSON_AddStringToObject(json, "backend", backend_of(v));
    cJSON_AddStringToObject(json, "recipe", recipe_of(v));
    if (v->against) {
        cJSON_AddStringToObject(json, "against", v->reference);
        cJSON_AddStringToObject(json, "against_recipe", v->ref_recipe);
        cJSON_AddNumberToObject(json, "steps", v->steps);
        cJSON_AddNumberToObject(json, "rounds", r->rounds);
    }
    if (v->p.expand)
        expand_json(json, v->p.expand);
    cJSON_AddNumberToObject(json, "views", r->views);
    cJSON_AddNumberToObject(json, "prompt_tokens", r->prompt_tokens);
    cJSON_AddNumberToObject(json, "prefix_tokens", r->prefix_tokens);
}

static int print_json(const verify *v, const verify_report *r, bool passed)
{
    static const char *const states[] = {"not compared", "no counterpart", "compared"};
    cJSON *json = cli_json("pivot.verify/1");
    json_inputs(json, v, r);
    cJSON *list = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", e->name);
        if (e->op)
            cJSON_AddStringToObject(o, "op", e->op);
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
            if (e->op && e->step >= 0)
                cJSON_AddNumberToObject(o, "step", e->step);
            if (e->op)
                cJSON_AddBoolToObject(o, "same_bytes", e->same_bytes);
            cJSON_AddBoolToObject(o, "ok", e->ok);
        }
        cJSON_AddItemToArray(list, o);
    }
    cJSON_AddNumberToObject(json, "compared", r->n_compared);
    cJSON_AddNumberToObject(json, "failed", r->n_failed);
    if (!v->against)
        cJSON_AddBoolToObject(json, "production_equal", r->production_equal);
    if (r->first_failed)
        cJSON_AddStringToObject(json, "first_failed", r->first_failed->name);
    if (v->against && r->first_failed && r->first_step >= 0)
        cJSON_AddNumberToObject(json, "first_failed_step", r->first_step);
    cJSON_AddBoolToObject(json, "passed", passed);
    return cli_json_print(&v->common, json);
}

/* ---- the command ---- */

/* "cpu", "cpu:f32": the reference and its recipe, which is else the one under test. */
static int parse_against(verify *v)
{
    const char *colon = strchr(v->against, ':');
    size_t n = colon ? (size_t)(colon - v->against) : strlen(v->against);
    if (!n || n >= sizeof v->reference || (colon && !colon[1]))
        return cli_usage(&v->common, "--against: expected BACKEND or BACKEND:RECIPE, came '%s'", v->against);
    snprintf(v->reference, sizeof v->reference, "%.*s", (int)n, v->against);
    v->ref_recipe = colon ? colon + 1 : recipe_of(v);
    if (v->p.dump)
        return cli_usage(&v->common, "--dump is of a comparison with a trace, not with a backend");
    if (v->p.trace && (v->views || v->tokens))
        return cli_usage(&v->common, "--views and --prompt-tokens are of made-up inputs; --trace brings its own");
    return CLI_GO;
}

static int check(verify *v)
{
    int code = expand_parse(&v->common, &v->expand, &v->p.expand);
    if (code == CLI_GO && !v->p.trace && !v->against)
        code = cli_usage(&v->common, "expected a trace (--trace FILE) or a backend to compare with (--against cpu)");
    if (code == CLI_GO && v->against)
        code = parse_against(v);
    else if (code == CLI_GO && (v->views || v->tokens || v->steps || v->hold_mib || v->ref_device))
        code = cli_usage(&v->common, "--views, --prompt-tokens, --steps, --hold and --against-device belong to --against");
    if (code != CLI_GO)
        return code;
    v->p.recipe = v->common.recipe;
    bool f32 = !strcmp(recipe_of(v), "f32") && (!v->against || !strcmp(v->ref_recipe, "f32"));
    if (f32 || v->p.bound > 0 || (v->against && verify_exact(backend_of(v), recipe_of(v), v->reference, v->ref_recipe)))
        return CLI_GO;
    return cli_usage(&v->common, "recipe %s has no bounds of its own; give one (--bound X)",
                     strcmp(recipe_of(v), "f32") ? recipe_of(v) : v->ref_recipe);
}

static int parse(verify *v, int argc, char **argv)
{
    const cli_option options[] = {
        {"trace", "FILE", "the trace (safetensors), see docs/traces.md; with --against, only\nits inputs are used",
         CLI_TEXT, &v->p.trace, 0, 0},
        {"against", "B[:RECIPE]",
         "another backend, cpu say, in place of a trace: both run the same inputs\n"
         "and each op's result is compared; RECIPE is its own (default: the same)",
         CLI_TEXT, &v->against, 0, 0},
        {"against-device", "X", "the device of B, by index, name or UUID (default: the first that is not\nsoftware; that of --device where B is --backend)",
         CLI_TEXT, &v->ref_device, 0, 0},
        {"views", "N", "made-up inputs: cameras that have a picture (default: all)", CLI_INT, &v->views, 1,
         PV_MAX_CAMERAS},
        {"prompt-tokens", "N", "made-up inputs: length of the prompt (default: the longest)", CLI_INT, &v->tokens, 1,
         1 << 20},
        {"steps", "N", "denoising steps with --against (default: the model's)", CLI_INT, &v->steps, 1, TRACE_MAX_STEPS},
        {"hold", "MIB",
         "with --against, activations held at once on each side; more rounds are\nrun where they do not fit (default: 1024)",
         CLI_INT, &v->hold_mib, 1, 1 << 20},
        {"expand", "OP", EXPAND_HELP, CLI_LIST, &v->expand, 0, 0},
        {"bound", "X",
         "relative L2 that every tensor must keep; without it the bounds of\nrecipe f32 (docs/precision.md), and of the CPU "
         "with itself equal bytes",
         CLI_NUMBER, &v->p.bound, 1e-12, 1e6},
        {"dump", "FILE", "write what was computed here, in trace format", CLI_TEXT, &v->p.dump, 0, 0},
        {0}};
    const cli_command command = {
        .name = "verify",
        .purpose = "compare with a trace of openpi, or with another backend, tensor by tensor",
        .usage = "--model MODEL --trace FILE | --against B[:RECIPE] [options]",
        .example = "pivot verify --model pi05_libero/ --trace libero_trace.safetensors\n"
                   "pivot verify --model tiny_f32.safetensors --config A.json --trace A.safetensors --json\n"
                   "pivot verify --model synth:tiny --backend cuda --against cpu --expand linear_group,attention",
        .notes = "Exit code 3 when a tensor is out of bounds or has no counterpart in the trace: the first one\n"
                 "in order of execution is named on the last line. With --against, the tensors are those that\n"
                 "the plan of --backend makes, each with its op; what the other makes no tensor of is listed.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
    };
    int code = cli_parse(&command, argc, argv, &v->common);
    return code == CLI_GO ? check(v) : code;
}

static pv_status read_inputs(verify *v, const pv_model *m)
{
    const pv_config *c = &m->config;
    if (v->views > c->n_cameras)
        return pv_fail(PV_E_ARG, "--views: the model has %d cameras, came %d", c->n_cameras, v->views);
    if (v->tokens > c->max_tokens)
        return pv_fail(PV_E_ARG, "--prompt-tokens: the model has room for %d, came %d", c->max_tokens, v->tokens);
    if (!v->p.trace)
        return trace_made_up(c, v->views ? v->views : c->n_cameras, v->tokens ? v->tokens : c->max_tokens, &v->in);
    pv_safetensors *trace = NULL;
    pv_status st = pv_safetensors_open(v->p.trace, &trace);
    if (!st)
        st = pv_fail_in(trace_read_inputs(trace, c, &v->in), "%s", v->p.trace);
    pv_safetensors_close(&trace);
    return st;
}

static pv_status compare_backends(verify *v, pv_model *m, pv_backend *be, cli_progress_bar *bar, verify_report *r)
{
    cli_options other = v->common;
    pv_backend *opened = NULL, *ref = be;
    other.backend = v->reference;
    pv_status st = read_inputs(v, m);
    if (!st && (v->ref_device || strcmp(v->reference, pv_backend_name(be)))) {
        other.device = v->ref_device;
        st = cli_open_backend(&other, &opened);
        ref = opened;
    }
    if (!v->steps)
        v->steps = m->config.num_steps;
    v->a = (against_params){.in = &v->in, .recipe = recipe_of(v), .ref_recipe = v->ref_recipe, .expand = v->p.expand,
                            .steps = v->steps, .bound = v->p.bound,
                            .hold_bytes = (size_t)(v->hold_mib ? v->hold_mib : HOLD_MIB) << 20};
    if (!st)
        st = verify_against(m, be, ref, &v->a, cli_progress, bar, r);
    pv_backend_close(&opened);
    return st;
}

static void print_head(const verify *v, const verify_report *r)
{
    if (v->against)
        printf("%s (%s) against %s (%s), %s: ", backend_of(v), recipe_of(v), v->reference, v->ref_recipe,
               v->p.trace ? v->p.trace : "made-up inputs");
    else
        printf("%s: ", v->p.trace);
    printf("%d cameras, %d prompt tokens, prefix of %d", r->views, r->prompt_tokens, r->prefix_tokens);
    if (v->against)
        printf(", %d steps", v->steps);
    if (r->rounds > 1)
        printf("; in %d rounds", r->rounds);
    printf("\n\n");
}

int verify_main(int argc, char **argv)
{
    verify v = {.p = {0}};
    int code = parse(&v, argc, argv);
    if (code != CLI_GO)
        return code;
    pv_backend *be = NULL;
    pv_model *m = NULL;
    verify_report r = {0};
    cli_progress_bar bar = {.off = v.common.json};
    pv_status st = cli_open_backend(&v.common, &be);
    if (!st)
        st = cli_open_model(&v.common, &m);
    if (!st)
        st = v.against ? compare_backends(&v, m, be, &bar, &r) : verify_trace(m, be, &v.p, cli_progress, &bar, &r);
    cli_progress_end(&bar);
    bool same_bytes = be && !strcmp(pv_backend_name(be), "cpu"); /* what only the reference promises */
    bool passed = !st && !r.first_failed && r.n_compared > 0 && (v.against || r.production_equal || !same_bytes);
    if (st) {
        code = cli_fail(&v.common, st);
    } else if (v.common.json) {
        code = print_json(&v, &r, passed);
    } else {
        print_head(&v, &r);
        print_table(&r, v.against);
        printf("\n");
        print_not_compared(&r);
        print_verdict(&v, &r, same_bytes);
        code = CLI_OK;
    }
    verify_free(&r);
    trace_free_inputs(&v.in);
    pv_model_free(&m);
    pv_backend_close(&be);
    return code == CLI_OK && !passed ? CLI_GATE : code;
}
