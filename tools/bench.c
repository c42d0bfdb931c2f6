/* bench.c - time and memory of inferences on made-up inputs, of the same plan that `run` uses. */
#include "cli.h"
#include "cost.h"
#include "expand.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/thread.h"
#include "session/schedule.h"
#include "session/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS "F" /* the case whose made-up inputs these are; see model/synthetic.h */

enum { OBSERVE, VISION, PREFIX, DENOISE, TOTAL, N_TIMES };
static const char *const time_names[N_TIMES] = {"observe", "vision", "prefix", "denoise", "total"};

typedef struct summary {
    double min, p50, p95, p99, max;
} summary;

typedef struct bench {
    cli_options common;
    int views, tokens, steps, runs, warmup;
    bool ops;
    cli_list expand_list;
    uint64_t expand;
    pv_model *model;
    pv_backend *backend;
    pv_session *session;
    pv_model_info info;
    pv_device_info device;
    pv_memory_info memory;
    uint8_t *pixels[PV_MAX_CAMERAS];
    pv_image image[PV_MAX_CAMERAS];
    int32_t *ids;
    float *noise, *actions;
    double *ms[N_TIMES]; /* [runs] */
    double load_ms, schedule_ms;
    int prefix_tokens;
    cost_row *costs;
    int n_costs;
} bench;

/* ---- running ---- */

static pv_status make_inputs(bench *b)
{
    size_t pixels = (size_t)b->info.image_size * (size_t)b->info.image_size * 3;
    size_t chunk = (size_t)b->info.horizon * (size_t)b->info.model_dim;
    b->ids = pv_alloc(sizeof *b->ids * (size_t)b->tokens);
    b->noise = pv_alloc(sizeof *b->noise * chunk);
    b->actions = pv_alloc(sizeof *b->actions * chunk);
    bool ok = b->ids && b->noise && b->actions;
    for (int i = 0; ok && i < N_TIMES; i++)
        ok = (b->ms[i] = pv_alloc(sizeof(double) * (size_t)b->runs)) != NULL;
    for (int v = 0; ok && v < b->views; v++) {
        ok = (b->pixels[v] = pv_alloc(pixels)) != NULL;
        if (ok)
            pv_synthetic_image(INPUTS, b->info.camera[v], (int64_t)pixels, b->pixels[v]);
        b->image[v] = (pv_image){b->info.camera[v], b->pixels[v], b->info.image_size, b->info.image_size, 0};
    }
    if (!ok)
        return PV_E_MEMORY;
    pv_synthetic_tokens(INPUTS, b->tokens, b->model->config.vocab, b->ids);
    pv_synthetic_noise(INPUTS, (int64_t)chunk, b->noise);
    return PV_OK;
}

static pv_status infer(bench *b, pv_timing *t)
{
    pv_observation o = {
        .size = sizeof o, .images = b->image, .n_images = b->views, .tokens = b->ids, .n_tokens = b->tokens};
    pv_infer_params p = {.size = sizeof p, .noise = b->noise, .steps = b->steps};
    pv_status st = pv_session_infer(b->session, &o, &p, b->actions);
    return st ? st : pv_session_timing(b->session, t);
}

static pv_status time_runs(bench *b)
{
    cli_progress_bar bar = {.off = b->common.json};
    for (int i = -b->warmup; i < b->runs; i++) {
        pv_timing t = {0};
        if (i < 0)
            cli_note(&bar, "warming up");
        else
            cli_note(&bar, "run %d of %d", i + 1, b->runs);
        pv_status st = infer(b, &t);
        cli_progress_end(&bar);
        if (st)
            return st;
        if (t.schedule_ms > b->schedule_ms)
            b->schedule_ms = t.schedule_ms; /* the tables are filled by the first run alone */
        b->prefix_tokens = t.prefix_tokens;
        if (i < 0)
            continue;
        b->ms[OBSERVE][i] = t.observe_ms;
        b->ms[VISION][i] = t.vision_ms;
        b->ms[PREFIX][i] = t.prefix_ms;
        b->ms[DENOISE][i] = t.denoise_ms;
        b->ms[TOTAL][i] = t.total_ms;
    }
    return PV_OK;
}

/* One more inference, with a clock at each node. */
static pv_status time_ops(bench *b)
{
    pv_runner *r = pv_session_runner(b->session, b->views, b->tokens);
    if (!r)
        return PV_E_MEMORY;
    pv_run_timing t = {.node_ms = pv_alloc_zero(sizeof(double) * (size_t)r->plan->graph->n_nodes)};
    float *times = pv_alloc(sizeof *times * (size_t)(b->steps + 1) * 2);
    pv_status st =
        t.node_ms && times ? pv_schedule_times(NULL, b->steps, times, times + b->steps + 1) : PV_E_MEMORY;
    if (!st)
        st = pv_runner_noise(r, b->noise);
    if (!st)
        st = pv_runner_prefix(r, &t);
    if (!st) {
        r->n_filled = 0; /* the tables once more, to have them timed */
        st = pv_runner_denoise(r, times, times + b->steps + 1, b->steps, &t, NULL, NULL);
    }
    if (!st)
        st = cost_table(r, t.node_ms, b->steps, &b->costs, &b->n_costs);
    pv_free(t.node_ms);
    pv_free(times);
    return st;
}

static pv_status work(bench *b)
{
    cli_progress_bar bar = {.off = b->common.json};
    pv_session_params sp = {.size = sizeof sp,
                            .recipe = b->common.recipe,
                            .max_steps = b->steps < 1000 ? b->steps : 1000,
                            .progress = cli_progress,
                            .progress_user = &bar};
    pv_status st = make_inputs(b);
    double start = pv_now_ms();
    if (!st)
        st = pv_session_create_expanded(b->model, b->backend, &sp, b->expand, &b->session);
    cli_progress_end(&bar);
    b->load_ms = pv_now_ms() - start;
    if (!st)
        st = time_runs(b);
    if (!st)
        st = pv_session_memory(b->session, &b->memory);
    return st || !b->ops ? st : time_ops(b);
}

/* ---- numbers ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const double *sorted, int n, double p) /* between the two nearest, linearly */
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static summary summarise(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    return (summary){ms[0], percentile(ms, n, 0.5), percentile(ms, n, 0.95), percentile(ms, n, 0.99),
                     ms[n - 1]};
}

/* The most memory that this process ever had in use; 0 where the system does not tell. */
static uint64_t peak_bytes(void)
{
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    for (char line[256]; f && fgets(line, sizeof line, f);)
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

static int threads(const bench *b)
{
    return b->common.threads ? b->common.threads : pv_cpu_count();
}

static double gflops(const cost_row *c)
{
    return c->ms > 0 ? c->flops / c->ms * 1e-6 : 0;
}

/* ---- output ---- */

static void json_memory(cJSON *json, const bench *b)
{
    const pv_memory_info *m = &b->memory;
    cJSON *memory = cJSON_AddObjectToObject(json, "memory_bytes");
    cJSON_AddItemToObject(memory, "peak", cli_json_u64(peak_bytes()));
    cJSON_AddItemToObject(memory, "weights", cli_json_u64(m->weights_bytes));
    cJSON_AddItemToObject(memory, "host", cli_json_u64(m->host_bytes));
    cJSON_AddItemToObject(memory, "state", cli_json_u64(m->state_bytes));
    cJSON_AddItemToObject(memory, "scratch", cli_json_u64(m->scratch_bytes));
    cJSON_AddItemToObject(memory, "io", cli_json_u64(m->io_bytes));
    cJSON_AddItemToObject(memory, "const", cli_json_u64(m->const_bytes));
    cJSON_AddNumberToObject(memory, "plans", m->plans);
}

static void json_ops(cJSON *json, const bench *b)
{
    cJSON *ops = cJSON_AddArrayToObject(json, "ops");
    for (int i = 0; i < b->n_costs; i++) {
        const cost_row *c = &b->costs[i];
        cJSON *op = cJSON_CreateObject();
        cJSON_AddStringToObject(op, "stage", pv_stage_name(c->stage));
        cJSON_AddStringToObject(op, "op", pv_ops[c->op].name);
        cJSON_AddNumberToObject(op, "count", (double)c->count);
        cli_json_add_ms(op, "ms", c->ms);
        cJSON_AddNumberToObject(op, "flops", c->flops);
        cJSON_AddNumberToObject(op, "gflops_per_s", gflops(c));
        cJSON_AddItemToArray(ops, op);
    }
}

static int print_json(bench *b)
{
    cJSON *json = cli_json("pivot.bench/1");
    cJSON_AddStringToObject(json, "version", pv_version());
    cJSON_AddStringToObject(json, "model", b->common.model);
    cJSON_AddStringToObject(json, "layout", b->info.layout);
    cJSON_AddItemToObject(json, "parameters", cli_json_u64(b->info.parameters));
    cJSON_AddStringToObject(json, "backend", b->device.backend);
    cJSON_AddStringToObject(json, "device", b->device.name);
    cJSON_AddStringToObject(json, "library", b->device.library);
    cJSON_AddStringToObject(json, "recipe", b->common.recipe ? b->common.recipe : "f32");
    if (b->expand)
        expand_json(json, b->expand);
    cJSON_AddNumberToObject(json, "threads", threads(b));
    const char *pinned = getenv("OPENBLAS_CORETYPE");
    if (pinned)
        cJSON_AddStringToObject(json, "openblas_coretype", pinned);
    cJSON_AddNumberToObject(json, "views", b->views);
    cJSON_AddNumberToObject(json, "prompt_tokens", b->tokens);
    cJSON_AddNumberToObject(json, "prefix_tokens", b->prefix_tokens);
    cJSON_AddNumberToObject(json, "horizon", b->info.horizon);
    cJSON_AddNumberToObject(json, "steps", b->steps);
    cJSON_AddNumberToObject(json, "runs", b->runs);
    cJSON_AddNumberToObject(json, "warmup", b->warmup);
    cJSON *ms = cJSON_AddObjectToObject(json, "time_ms");
    cli_json_add_ms(ms, "load", b->load_ms);
    cli_json_add_ms(ms, "schedule", b->schedule_ms);
    for (int i = 0; i < N_TIMES; i++) {
        summary s = summarise(b->ms[i], b->runs);
        cJSON *o = cJSON_AddObjectToObject(ms, time_names[i]);
        cli_json_add_ms(o, "min", s.min);
        cli_json_add_ms(o, "p50", s.p50);
        cli_json_add_ms(o, "p95", s.p95);
        cli_json_add_ms(o, "p99", s.p99);
        cli_json_add_ms(o, "max", s.max);
    }
    json_memory(json, b);
    if (b->ops)
        json_ops(json, b);
    return cli_json_print(&b->common, json);
}

static void print_times(bench *b)
{
    cli_text t[5];
    double denoise = 0;
    printf("\n%-10s%11s%11s%11s%11s%11s\n", "time", "median", "p95", "p99", "min", "max");
    for (int i = 0; i < N_TIMES; i++) {
        summary s = summarise(b->ms[i], b->runs);
        denoise = i == DENOISE ? s.p50 : denoise;
        printf("  %-8s%11s%11s%11s%11s%11s\n", time_names[i], cli_ms(&t[0], s.p50), cli_ms(&t[1], s.p95),
               cli_ms(&t[2], s.p99), cli_ms(&t[3], s.min), cli_ms(&t[4], s.max));
    }
    printf("  %-8s%11s   of the denoising\n", "step", cli_ms(&t[0], denoise / b->steps));
    printf("  %-8s%11s   once: when the times change\n", "schedule", cli_ms(&t[0], b->schedule_ms));
    printf("  %-8s%11s   once: weights, plan\n", "load", cli_ms(&t[0], b->load_ms));
}

static void print_bytes(const char *name, uint64_t bytes, const char *words)
{
    cli_text text;
    printf("  %-10s%11s%s%s\n", name, cli_bytes(&text, bytes), *words ? "   " : "", words);
}

static void print_memory(const bench *b)
{
    const pv_memory_info *m = &b->memory;
    uint64_t sum =
        m->weights_bytes + m->host_bytes + m->state_bytes + m->scratch_bytes + m->io_bytes + m->const_bytes;
    printf("\nmemory\n");
    print_bytes("weights", m->weights_bytes, "on the device");
    print_bytes("embedding", m->host_bytes, "table of the host");
    print_bytes("state", m->state_bytes, "K/V cache, tables of the times");
    print_bytes("scratch", m->scratch_bytes, "");
    print_bytes("io", m->io_bytes, "");
    print_bytes("const", m->const_bytes, "");
    printf("  ----------\n");
    print_bytes("planned", sum, m->plans > 1 ? "of all plans: for all cameras, and for this shape" : "");
    if (peak_bytes())
        print_bytes("peak", peak_bytes(), "of the process, as the system saw it");
}

static void print_ops(const bench *b)
{
    double sum = 0;
    for (int i = 0; i < b->n_costs; i++)
        sum += b->costs[i].ms;
    printf("\nops of one inference, schedule included\n  %-9s %-17s%8s%12s%8s%11s%11s\n", "stage", "op",
           "count", "time", "share", "GFLOP", "GFLOP/s");
    for (int i = 0; i < b->n_costs; i++) {
        const cost_row *c = &b->costs[i];
        cli_text ms;
        printf("  %-9s %-17s%8lld%12s%6.1f %%", pv_stage_name(c->stage), pv_ops[c->op].name,
               (long long)c->count, cli_ms(&ms, c->ms), sum > 0 ? 100 * c->ms / sum : 0);
        if (c->flops > 0)
            printf("%11.*f%11.1f", c->flops < 1e9 ? 4 : 1, c->flops * 1e-9, gflops(c));
        putchar('\n');
    }
}

static void print_report(bench *b)
{
    cli_text count;
    const char *pinned = getenv("OPENBLAS_CORETYPE");
    printf("model     %s: %s, %s parameters\n", b->common.model, b->info.layout,
           cli_count(&count, b->info.parameters));
    printf("backend   %s, recipe %s, %d threads: %s%s%s%s, %s\n", b->device.backend,
           b->common.recipe ? b->common.recipe : "f32", threads(b), b->device.library,
           pinned ? " (OPENBLAS_CORETYPE=" : "", pinned ? pinned : "", pinned ? ")" : "", b->device.name);
    printf("shape     prefix of %d tokens: %d views, %d prompt tokens; horizon %d, %d steps\n",
           b->prefix_tokens, b->views, b->tokens, b->info.horizon, b->steps);
    printf("runs      %d, after %d to warm up\n", b->runs, b->warmup);
    print_times(b);
    print_memory(b);
    if (b->ops)
        print_ops(b);
}

/* ---- the command ---- */

static int parse(bench *b, int argc, char **argv)
{
    const cli_option options[] = {
        {"views", "N", "cameras that have a picture (default: all)", CLI_INT, &b->views, 1, PV_MAX_CAMERAS},
        {"prompt-tokens", "N", "length of the prompt (default: the longest)", CLI_INT, &b->tokens, 1,
         1 << 20},
        {"steps", "N", "denoising steps (default: the model's)", CLI_INT, &b->steps, 1, PV_MAX_STEPS},
        {"runs", "N", "timed inferences (default: 5)", CLI_INT, &b->runs, 1, 1000000},
        {"warmup", "N", "inferences before them (default: 1)", CLI_INT, &b->warmup, 0, 1000000},
        {"ops", NULL, "a table of time by op, with GFLOP/s of the products", CLI_FLAG, &b->ops},
        {"expand", "OP", EXPAND_HELP, CLI_LIST, &b->expand_list},
        {NULL},
    };
    const cli_command command = {
        .name = "bench",
        .purpose = "time and memory of an inference, by stage and by op",
        .usage = "--model MODEL [options]",
        .example = "pivot bench --model synth:full --prompt-tokens 200 --runs 3 --ops",
        .notes =
            "Pictures, prompt and noise are made up. Percentiles lie between the two nearest runs, linearly.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
    };
    int code = cli_parse(&command, argc, argv, &b->common);
    return code == CLI_GO ? expand_parse(&b->common, &b->expand_list, &b->expand) : code;
}

static int begin(bench *b)
{
    pv_status st = cli_open_model(&b->common, &b->model);
    if (!st)
        st = pv_model_describe(b->model, &b->info);
    if (!st)
        st = cli_open_backend(&b->common, &b->backend);
    if (!st)
        st = pv_backend_device(b->backend, &b->device);
    if (st)
        return cli_fail(&b->common, st);
    b->views = b->views ? b->views : b->info.n_cameras;
    b->tokens = b->tokens ? b->tokens : b->info.max_tokens;
    b->steps = b->steps ? b->steps : b->info.steps;
    if (b->views > b->info.n_cameras)
        return cli_usage(&b->common, "--views: the model has %d cameras, came %d", b->info.n_cameras,
                         b->views);
    if (b->tokens > b->info.max_tokens)
        return cli_usage(&b->common, "--prompt-tokens: the model has room for %d, came %d",
                         b->info.max_tokens, b->tokens);
    st = work(b);
    if (st)
        return cli_fail(&b->common, st);
    if (b->common.json)
        return print_json(b);
    print_report(b);
    return CLI_OK;
}

int bench_main(int argc, char **argv)
{
    bench b = {.runs = 5, .warmup = 1};
    int code = parse(&b, argc, argv);
    if (code == CLI_GO)
        code = begin(&b);
    pv_session_destroy(&b.session);
    pv_model_free(&b.model);
    pv_backend_close(&b.backend);
    for (int i = 0; i < PV_MAX_CAMERAS; i++)
        pv_free(b.pixels[i]);
    for (int i = 0; i < N_TIMES; i++)
        pv_free(b.ms[i]);
    pv_free(b.ids);
    pv_free(b.noise);
    pv_free(b.actions);
    pv_free(b.costs);
    return code;
}
