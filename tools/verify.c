/* verify.c - `pivot verify`: options. The work is in verify_trace.c (a trace of openpi's against this
 * implementation) and verify_against.c (one backend against another), the output in verify_report.c. */
#include "expand.h"
#include "verify_gate.h"
#include "verify_html.h"
#include "verify_report.h"
#include "verify_structure.h"

#include <stdio.h>
#include <string.h>

#define HOLD_MIB 1024 /* activations on each side: a full-size model takes six of these */

typedef struct verify {
    cli_options common;
    /* as on the command line */
    verify_params p;
    const char *against, *ref_device, *gate_file, *write_gate, *html;
    cli_list expand;
    bool structure;
    int views, tokens, steps, hold_mib;
    /* against a backend */
    char reference[32];
    const char *ref_recipe;
    against_params a;
    trace_inputs in;
    verify_gate gate;
} verify;

static const char *backend_of(const verify *v)
{
    return v->common.backend ? v->common.backend : "cpu";
}

static const char *recipe_of(const verify *v)
{
    return v->common.recipe ? v->common.recipe : "f32";
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
        return cli_usage(&v->common,
                         "--views and --prompt-tokens are of made-up inputs; --trace brings its own");
    return CLI_GO;
}

static int check(verify *v)
{
    int code = expand_parse(&v->common, &v->expand, &v->p.expand);
    if (code == CLI_GO && v->structure &&
        (v->against || v->p.dump || v->gate_file || v->write_gate || v->html || v->hold_mib ||
         v->p.bound > 0))
        return cli_usage(&v->common, "--structure is judged to the bit: no --against, --dump, --hold, "
                                     "--bound, --html or gate goes with it");
    if (code == CLI_GO && v->structure && v->p.trace && (v->views || v->tokens))
        return cli_usage(&v->common,
                         "--views and --prompt-tokens are of made-up inputs; --trace brings its own");
    if (code != CLI_GO || v->structure)
        return code;
    if (!v->p.trace && !v->against)
        code = cli_usage(
            &v->common,
            "expected a trace (--trace FILE), a backend to compare with (--against cpu) or --structure");
    if (code == CLI_GO && v->against)
        code = parse_against(v);
    else if (code == CLI_GO && (v->views || v->tokens || v->steps || v->hold_mib || v->ref_device))
        code = cli_usage(&v->common, "--views, --prompt-tokens, --steps, --hold and --against-device belong to --against");
    if (code != CLI_GO)
        return code;
    v->p.recipe = v->common.recipe;
    if (v->against || !strcmp(recipe_of(v), "f32") || v->p.bound > 0 || v->gate_file)
        return CLI_GO;
    return cli_usage(&v->common,
                     "recipe %s has no bounds of its own; give one (--bound X) or a gate (--gate FILE)",
                     recipe_of(v));
}

static int parse(verify *v, int argc, char **argv)
{
    const cli_option options[] = {
        {"trace", "FILE",
         "the trace (safetensors), see docs/traces.md; with --against, only\nits inputs are used", CLI_TEXT,
         &v->p.trace, 0, 0},
        {"against", "B[:RECIPE]",
         "another backend, cpu say, in place of a trace: both run the same inputs,\n"
         "and each op is judged by itself; RECIPE is its own (default: the same)",
         CLI_TEXT, &v->against, 0, 0},
        {"against-device", "X", "the device of B, by index, name or UUID (default: the first that is not\nsoftware; that of --device where B is --backend)",
         CLI_TEXT, &v->ref_device, 0, 0},
        {"views", "N", "made-up inputs: cameras that have a picture (default: all)", CLI_INT, &v->views, 1,
         PV_MAX_CAMERAS},
        {"prompt-tokens", "N", "made-up inputs: length of the prompt (default: the longest)", CLI_INT,
         &v->tokens, 1, 1 << 20},
        {"steps", "N", "denoising steps without a trace's own (default: the model's)", CLI_INT, &v->steps, 1,
         TRACE_MAX_STEPS},
        {"hold", "MIB",
         "with --against, activations held at once on each side; more rounds are\nrun where they do not fit "
         "(default: 1024)",
         CLI_INT, &v->hold_mib, 1, 1 << 20},
        {"expand", "OP", EXPAND_HELP, CLI_LIST, &v->expand, 0, 0},
        {"bound", "X",
         "relative L2 from the start that every tensor must keep; without it the\nbounds of recipe f32 "
         "(docs/precision.md), and of "
         "the CPU with itself equal\nbytes; each op's own error has its budget in any case",
         CLI_NUMBER, &v->p.bound, 1e-12, 1e6},
        {"structure", NULL,
         "what a mask would have had to do, bit for bit: what is not there changes\nnothing, what is there "
         "does; on made-up "
         "inputs or those of --trace",
         CLI_FLAG, &v->structure, 0, 0},
        {"gate", "FILE", "bounds from a file (JSON, docs/ci.md) in place of all others, for what it names",
         CLI_TEXT, &v->gate_file, 0, 0},
        {"write-gate", "FILE", "write such a file: twice what was measured", CLI_TEXT, &v->write_gate, 0, 0},
        {"html", "FILE", "the report as one page, drawn, that needs nothing else", CLI_TEXT, &v->html, 0, 0},
        {"dump", "FILE", "write what was computed here, in trace format", CLI_TEXT, &v->p.dump, 0, 0},
        {0}};
    const cli_command command = {
        .name = "verify",
        .purpose = "compare with a trace of openpi, or with another backend, tensor by tensor",
        .usage = "--model MODEL --trace FILE | --against B[:RECIPE] | --structure [options]",
        .example =
            "pivot verify --model pi05_libero/ --trace libero_trace.safetensors\n"
            "pivot verify --model tiny_f32.safetensors --config A.json --trace A.safetensors --json\n"
            "pivot verify --model synth:tiny --backend cuda --against cpu --expand linear_group,attention\n"
            "pivot verify --model pi05_libero/ --recipe bf16 --against cpu:f32 --steps 1 --gate "
            "libero.gate.json",
        .notes =
            "Exit code 3 when a tensor is out of bounds or has no counterpart in the trace: the first one\n"
            "in order of execution is named on the last line. With --against, the tensors are those that\n"
            "the plan of --backend makes, each with its op. The CPU runs each op on the inputs that it had\n"
            "(own error, which has a budget); what has come together from the start is a column of its own.",
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
        return pv_fail(PV_E_ARG, "--prompt-tokens: the model has room for %d, came %d", c->max_tokens,
                       v->tokens);
    int tokens = v->structure ? (c->max_tokens + 1) / 2 : c->max_tokens; /* room behind the prompt */
    if (!v->p.trace)
        return trace_made_up(c, v->views ? v->views : c->n_cameras, v->tokens ? v->tokens : tokens, &v->in);
    pv_safetensors *trace = NULL;
    pv_status st = pv_safetensors_open(v->p.trace, &trace);
    if (!st)
        st = pv_fail_in(trace_read_inputs(trace, c, &v->in), "%s", v->p.trace);
    pv_safetensors_close(&trace);
    return st;
}

static pv_status compare_backends(verify *v, pv_model *m, pv_backend *be, cli_progress_bar *bar,
                                  verify_report *r)
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
    v->a = (against_params){.in = &v->in,
                            .recipe = recipe_of(v),
                            .ref_recipe = v->ref_recipe,
                            .expand = v->p.expand,
                            .gate = v->p.gate,
                            .steps = v->steps,
                            .bound = v->p.bound,
                            .hold_bytes = (size_t)(v->hold_mib ? v->hold_mib : HOLD_MIB) << 20};
    if (!st)
        st = verify_against(m, be, ref, &v->a, cli_progress, bar, r);
    pv_backend_close(&opened);
    return st;
}

/* ---- structure ---- */

static void print_structure(const verify *v, const structure_report *s)
{
    printf("%s (%s), %s: %d cameras, %d prompt tokens, %d steps\n\n", backend_of(v), recipe_of(v),
           v->p.trace ? v->p.trace : "made-up inputs", v->in.views, v->in.n_valid, v->steps);
    for (int i = 0; i < s->n; i++) {
        const structure_check *c = &s->check[i];
        printf("%-62s %s%s%s%s%s\n", c->what,
               c->left_out ? "left out: "
               : c->ok     ? "ok      "
                           : "FAILED  ",
               c->then, *c->where ? " (not so: " : "", c->where, *c->where ? ")" : "");
    }
    printf("\n");
    if (s->first_failed)
        printf("%d of %d do not hold; first: %s\n", s->n_failed, s->n - s->n_left_out, s->first_failed->what);
    else
        printf("%d checks, all hold%s\n", s->n - s->n_left_out, s->n_left_out ? "; some left out" : "");
}

static int json_structure(const verify *v, const structure_report *s)
{
    cJSON *json = cli_json("pivot.structure/1");
    if (v->p.trace)
        cJSON_AddStringToObject(json, "trace", v->p.trace);
    cJSON_AddStringToObject(json, "backend", backend_of(v));
    cJSON_AddStringToObject(json, "recipe", recipe_of(v));
    cJSON_AddNumberToObject(json, "views", v->in.views);
    cJSON_AddNumberToObject(json, "prompt_tokens", v->in.n_valid);
    cJSON_AddNumberToObject(json, "steps", v->steps);
    cJSON *list = cJSON_AddArrayToObject(json, "checks");
    for (int i = 0; i < s->n; i++) {
        const structure_check *c = &s->check[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "what", c->what);
        cJSON_AddStringToObject(o, c->left_out ? "left_out" : "then", c->then);
        if (*c->where)
            cJSON_AddStringToObject(o, "not_so", c->where);
        if (!c->left_out)
            cJSON_AddBoolToObject(o, "ok", c->ok);
        cJSON_AddItemToArray(list, o);
    }
    cJSON_AddNumberToObject(json, "failed", s->n_failed);
    cJSON_AddBoolToObject(json, "passed", !s->n_failed);
    return cli_json_print(&v->common, json);
}

static int check_structure(verify *v, pv_model *m, pv_backend *be, cli_progress_bar *bar)
{
    structure_report s;
    pv_status st = read_inputs(v, m);
    v->steps = v->steps ? v->steps : m->config.num_steps;
    if (!st)
        st = verify_structure(m, be, &v->in, recipe_of(v), v->p.expand, v->steps, cli_progress, bar, &s);
    cli_progress_end(bar);
    if (st)
        return cli_fail(&v->common, st);
    if (v->common.json) {
        int code = json_structure(v, &s);
        return code == CLI_OK && s.n_failed ? CLI_GATE : code;
    }
    print_structure(v, &s);
    return s.n_failed ? CLI_GATE : CLI_OK;
}

/* ---- all of it ---- */

static int check_closeness(verify *v, pv_model *m, pv_backend *be, cli_progress_bar *bar)
{
    verify_report r = {0};
    pv_status st =
        v->against ? compare_backends(v, m, be, bar, &r) : verify_trace(m, be, &v->p, cli_progress, bar, &r);
    cli_progress_end(bar);
    if (!st && v->write_gate)
        st = verify_gate_write(v->write_gate, recipe_of(v), v->against ? v->ref_recipe : NULL, &r);
    verify_subject subject = {.model = v->common.model,
                              .backend = backend_of(v),
                              .recipe = recipe_of(v),
                              .trace = v->p.trace,
                              .against = v->against ? v->reference : NULL,
                              .ref_recipe = v->ref_recipe,
                              .expand = v->p.expand,
                              .gate = v->gate_file,
                              .not_kept = !st && v->gate_file ? verify_gate_missing(&v->gate, &r) : NULL,
                              .same_bytes = be->vt == &pv_cpu_backend};
    int code = CLI_OK;
    bool passed = !st && verify_passed(&subject, &r);
    if (!st && v->html)
        st = verify_html_write(v->html, &subject, &r);
    if (st)
        code = cli_fail(&v->common, st);
    else if (v->common.json)
        code = cli_json_print(&v->common, verify_json(&subject, &r));
    else
        verify_print(&subject, &r);
    verify_free(&r);
    return code == CLI_OK && !passed ? CLI_GATE : code;
}

int verify_main(int argc, char **argv)
{
    verify v = {.p = {0}};
    int code = parse(&v, argc, argv);
    if (code != CLI_GO)
        return code;
    pv_backend *be = NULL;
    pv_model *m = NULL;
    cli_progress_bar bar = {.off = v.common.json};
    pv_status st = PV_OK;
    if (v.gate_file) {
        st = verify_gate_read(v.gate_file, recipe_of(&v), v.against ? v.ref_recipe : NULL, &v.gate);
        v.p.gate = &v.gate;
    }
    if (!st)
        st = cli_open_backend(&v.common, &be);
    if (!st)
        st = cli_open_model(&v.common, &m);
    if (st)
        code = cli_fail(&v.common, st);
    else
        code = v.structure ? check_structure(&v, m, be, &bar) : check_closeness(&v, m, be, &bar);
    cli_progress_end(&bar);
    verify_gate_free(&v.gate);
    trace_free_inputs(&v.in);
    pv_model_free(&m);
    pv_backend_close(&be);
    return code;
}
