/* bench_report.c - what `pivot bench` found, as a page and as JSON. */
#include "bench.h"
#include "expand.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const bench_time_names[N_TIMES] = {"observe", "vision", "prefix", "denoise",
                                               "run",     "host",   "total"};
const char *const bench_cold_names[N_COLD] = {"open", "model", "plan", "weights", "record", "rest", "first"};
static const char *const cold_words[N_COLD] = {"backend and device",
                                               "headers, config, tokenizer, statistics",
                                               "passes, placing",
                                               "read, converted, brought to the device",
                                               "memory, kernels, recording",
                                               "the session's own",
                                               "the first inference, with its schedule"};

/* ---- numbers ---- */

summary bench_summary(const bench *b, int time)
{
    memcpy(b->sorted, b->ms[time], sizeof *b->sorted * (size_t)b->runs);
    return summarise(b->sorted, b->runs);
}

double bench_floor(const bench *b, int time)
{
    static const pv_stage stage[N_TIMES] = {[VISION] = PV_STAGE_VISION,
                                            [PREFIX] = PV_STAGE_PREFIX,
                                            [DENOISE] = PV_STAGE_DENOISE,
                                            [RUN] = PV_STAGE_COUNT};
    bool has = time == VISION || time == PREFIX || time == DENOISE || time == RUN;
    return has && b->rates.bytes_per_s > 0 ? cost_floor_ms(b->costs, b->n_costs, stage[time]) : 0;
}

double bench_percent(double ms, double floor_ms)
{
    return floor_ms > 0 && ms > 0 ? 100 * floor_ms / ms : 0;
}

cost_row bench_stage(const bench *b, pv_stage stage)
{
    cost_row sum = {.stage = stage};
    for (int i = 0; i < b->n_costs; i++)
        if (b->costs[i].stage == stage ||
            (stage == PV_STAGE_COUNT && b->costs[i].stage != PV_STAGE_SCHEDULE)) {
            sum.count += b->costs[i].count;
            sum.flops += b->costs[i].flops;
            sum.bytes += b->costs[i].bytes;
            sum.floor_ms += b->costs[i].floor_ms;
        }
    return sum;
}

double bench_cold(const bench *b)
{
    double sum = 0;
    for (int i = 0; i < N_COLD; i++)
        sum += b->cold_ms[i];
    return sum;
}

const char *bench_recipe(const bench *b)
{
    return b->common.recipe ? b->common.recipe : "f32";
}

/* The stages that an inference runs, and behind them all of it. */
static const struct {
    pv_stage stage;
    int time;
} stages[] = {
    {PV_STAGE_VISION, VISION}, {PV_STAGE_PREFIX, PREFIX}, {PV_STAGE_DENOISE, DENOISE}, {PV_STAGE_COUNT, RUN}};
#define N_STAGES (int)(sizeof stages / sizeof *stages)

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
    cJSON_AddItemToObject(memory, "peak", cli_json_u64(b->peak_bytes));
    cJSON_AddItemToObject(memory, "load_peak", cli_json_u64(b->load_peak_bytes));
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
        cJSON_AddNumberToObject(op, "bytes", c->bytes);
        if (b->rates.bytes_per_s > 0) {
            cli_json_add_ms(op, "floor_ms", c->floor_ms);
            cJSON_AddNumberToObject(op, "percent_of_floor", bench_percent(c->ms, c->floor_ms));
        }
        cJSON_AddItemToArray(ops, op);
    }
}

/* A session's making: weights, plan. */
static double load_ms(const bench *b)
{
    return b->cold_ms[COLD_PLAN] + b->cold_ms[COLD_WEIGHTS] + b->cold_ms[COLD_RECORD] + b->cold_ms[COLD_REST];
}

static void json_stages(cJSON *json, const bench *b)
{
    cJSON *all = cJSON_AddObjectToObject(json, "stages");
    for (int i = 0; i < N_STAGES; i++) {
        cost_row c = bench_stage(b, stages[i].stage);
        double ms = bench_summary(b, stages[i].time).p50;
        cJSON *o = cJSON_AddObjectToObject(all, bench_time_names[stages[i].time]);
        cJSON_AddNumberToObject(o, "bytes", c.bytes);
        cJSON_AddNumberToObject(o, "flops", c.flops);
        if (ms > 0) {
            cJSON_AddNumberToObject(o, "bytes_per_s", c.bytes / ms * 1e3);
            cJSON_AddNumberToObject(o, "flops_per_s", c.flops / ms * 1e3);
        }
    }
}

static void json_cold(cJSON *json, const bench *b)
{
    cJSON *cold = cJSON_AddObjectToObject(json, "cold_start_ms");
    for (int i = 0; i < N_COLD; i++)
        cli_json_add_ms(cold, bench_cold_names[i], b->cold_ms[i]);
    cli_json_add_ms(cold, "all", bench_cold(b));
}

static void json_device(cJSON *json, const bench *b)
{
    const pv_device_info *d = &b->device;
    cJSON_AddStringToObject(json, "backend", d->backend);
    cJSON_AddStringToObject(json, "device", d->name);
    cJSON_AddStringToObject(json, "library", d->library);
    cJSON *o = cJSON_AddObjectToObject(json, "conditions");
    cJSON_AddStringToObject(o, "uuid", d->uuid);
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddNumberToObject(o, "clock_mhz", d->clock_mhz);
    cJSON_AddNumberToObject(o, "memory_clock_mhz", d->memory_clock_mhz);
    cJSON_AddNumberToObject(o, "power_limit_watts", d->power_limit_watts);
    if (b->power_mode >= 0)
        cJSON_AddNumberToObject(o, "power_mode", b->power_mode);
    cJSON_AddStringToObject(o, "unknown", d->unknown);
    cJSON_AddNumberToObject(o, "sms", d->sms);
    cJSON_AddNumberToObject(o, "sms_asked_for", b->common.sms);
    cJSON *reached = cJSON_AddObjectToObject(json, "rates");
    cJSON_AddNumberToObject(reached, "bytes_per_s", b->rates.bytes_per_s);
    cJSON_AddNumberToObject(reached, "flops_per_s", b->rates.flops_per_s);
    cJSON_AddBoolToObject(reached, "bytes_given", b->bandwidth > 0);
    cJSON_AddBoolToObject(reached, "flops_given", b->flops > 0);
}

int bench_print_json(const bench *b)
{
    cJSON *json = cli_json("pivot.bench/2");
    cJSON_AddStringToObject(json, "version", pv_version());
    cJSON_AddStringToObject(json, "git", PV_GIT_ID);
    cJSON_AddStringToObject(json, "date", b->date);
    cJSON_AddStringToObject(json, "model", b->common.model);
    cJSON_AddStringToObject(json, "layout", b->info.layout);
    cJSON_AddItemToObject(json, "parameters", cli_json_u64(b->info.parameters));
    json_device(json, b);
    cJSON_AddStringToObject(json, "recipe", bench_recipe(b));
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
    if (b->every > 0)
        cJSON_AddNumberToObject(json, "every_ms", b->every);
    cJSON *ms = cJSON_AddObjectToObject(json, "time_ms");
    cli_json_add_ms(ms, "load", load_ms(b));
    cli_json_add_ms(ms, "schedule", b->schedule_ms);
    for (int i = 0; i < N_TIMES; i++) {
        summary s = bench_summary(b, i);
        cJSON *o = cJSON_AddObjectToObject(ms, bench_time_names[i]);
        cli_json_add_ms(o, "min", s.min);
        cli_json_add_ms(o, "p25", s.p25);
        cli_json_add_ms(o, "p50", s.p50);
        cli_json_add_ms(o, "p75", s.p75);
        cli_json_add_ms(o, "p95", s.p95);
        cli_json_add_ms(o, "p99", s.p99);
        cli_json_add_ms(o, "p999", s.p999);
        cli_json_add_ms(o, "max", s.max);
        if (bench_floor(b, i) > 0) {
            cli_json_add_ms(o, "floor", bench_floor(b, i));
            cJSON_AddNumberToObject(o, "percent_of_floor", bench_percent(s.p50, bench_floor(b, i)));
        }
    }
    double total = bench_summary(b, TOTAL).p50;
    cJSON_AddNumberToObject(json, "hz", total > 0 ? 1e3 / total : 0);
    json_stages(json, b);
    json_cold(json, b);
    cJSON_AddBoolToObject(json, "same_prompt", b->same_prompt);
    json_memory(json, b);
    if (b->ops)
        json_ops(json, b);
    return cli_json_print(&b->common, json);
}

static void print_times(const bench *b)
{
    cli_text t[6];
    double denoise = 0, total = 0;
    bool floors = b->rates.bytes_per_s > 0;
    printf("\n%-10s%11s%11s%11s%11s%11s%11s%s\n", "time", "median", "p95", "p99", "p99.9", "min", "max",
           floors ? "      floor of floor" : "");
    for (int i = 0; i < N_TIMES; i++) {
        summary s = bench_summary(b, i);
        double floor_ms = bench_floor(b, i);
        denoise = i == DENOISE ? s.p50 : denoise;
        total = i == TOTAL ? s.p50 : total;
        printf("  %-8s%11s%11s%11s%11s%11s%11s", bench_time_names[i], cli_ms(&t[0], s.p50),
               cli_ms(&t[1], s.p95), cli_ms(&t[2], s.p99), cli_ms(&t[3], s.p999), cli_ms(&t[4], s.min),
               cli_ms(&t[5], s.max));
        if (floor_ms > 0)
            printf("%11s%7.0f %%", cli_ms(&t[0], floor_ms), bench_percent(s.p50, floor_ms));
        putchar('\n');
    }
    printf("  %-8s%11s   of the denoising\n", "step", cli_ms(&t[0], denoise / b->steps));
    printf("  %-8s%11s   once: when the times change\n", "schedule", cli_ms(&t[0], b->schedule_ms));
    if (total > 0)
        printf("  %-8s%8.1f Hz   chunks of %d actions, one after the other\n", "rate", 1e3 / total,
               b->info.horizon);
}

static void print_stages(const bench *b)
{
    cli_text t[2];
    printf("\n%-10s%13s%11s%11s%11s\n", "moved", "bytes", "GFLOP", "GB/s", "TFLOP/s");
    for (int i = 0; i < N_STAGES; i++) {
        cost_row c = bench_stage(b, stages[i].stage);
        double ms = bench_summary(b, stages[i].time).p50;
        printf("  %-8s%13s%11.*f", bench_time_names[stages[i].time], cli_bytes(&t[0], (uint64_t)c.bytes),
               c.flops < 1e9 ? 4 : 1, c.flops * 1e-9);
        if (ms > 0)
            printf("%11.1f%11.3f", c.bytes / ms * 1e-6, c.flops / ms * 1e-9);
        putchar('\n');
    }
}

static void print_cold(const bench *b)
{
    cli_text t;
    printf("\ncold start\n");
    for (int i = 0; i < N_COLD; i++)
        printf("  %-8s%11s   %s\n", bench_cold_names[i], cli_ms(&t, b->cold_ms[i]), cold_words[i]);
    printf("  %-8s%11s   from nothing to actions\n", "all", cli_ms(&t, bench_cold(b)));
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
    if (b->load_peak_bytes) {
        char words[96];
        cli_text loaded;
        snprintf(words, sizeof words, "of the process while it loaded; weights and embedding are %s",
                 cli_bytes(&loaded, m->weights_bytes + m->host_bytes));
        print_bytes("load peak", b->load_peak_bytes, words);
    }
    if (b->peak_bytes)
        print_bytes("peak", b->peak_bytes, "of the process, as the system saw it");
}

static void print_ops(const bench *b)
{
    double sum = 0;
    bool floors = b->rates.bytes_per_s > 0;
    for (int i = 0; i < b->n_costs; i++)
        sum += b->costs[i].ms;
    printf("\nops of one inference, schedule included\n  %-9s %-17s%8s%12s%8s%s%11s%11s\n", "stage", "op",
           "count", "time", "share", floors ? "      floor of floor" : "", "GFLOP", "GFLOP/s");
    for (int i = 0; i < b->n_costs; i++) {
        const cost_row *c = &b->costs[i];
        cli_text ms;
        printf("  %-9s %-17s%8lld%12s%6.1f %%", pv_stage_name(c->stage), pv_ops[c->op].name,
               (long long)c->count, cli_ms(&ms, c->ms), sum > 0 ? 100 * c->ms / sum : 0);
        if (floors && c->floor_ms >= 0.0005) /* less is nothing to measure by */
            printf("%11s%7.0f %%", cli_ms(&ms, c->floor_ms), bench_percent(c->ms, c->floor_ms));
        else if (floors && c->flops > 0)
            printf("%20s", "");
        if (c->flops > 0)
            printf("%11.*f%11.1f", c->flops < 1e9 ? 4 : 1, c->flops * 1e-9, gflops(c));
        putchar('\n');
    }
}

/* What the figures depend on and the program cannot choose. */
static void print_conditions(const bench *b)
{
    const pv_device_info *d = &b->device;
    printf("version   %s%s%s, %s\n", pv_version(), *PV_GIT_ID ? ", git " : "", PV_GIT_ID, b->date);
    if (*d->driver || d->clock_mhz || d->power_limit_watts || b->power_mode >= 0 || *d->unknown || d->sms) {
        printf("device    ");
        const char *comma = "";
        if (*d->driver)
            printf("driver %s", d->driver), comma = ", ";
        if (d->clock_mhz)
            printf("%s%d MHz, memory %d MHz", comma, d->clock_mhz, d->memory_clock_mhz), comma = ", ";
        if (d->power_limit_watts)
            printf("%s%d W at most", comma, d->power_limit_watts), comma = ", ";
        if (b->power_mode >= 0)
            printf("%spower mode %d (nvpmodel)", comma, b->power_mode), comma = ", ";
        if (d->sms)
            printf("%s%d multiprocessors%s", comma, d->sms, b->common.sms ? " of it" : ""), comma = ", ";
        if (*d->unknown)
            printf("%snot known: %s", comma, d->unknown);
        putchar('\n');
    }
    double gb = b->rates.bytes_per_s * 1e-9, tflop = b->rates.flops_per_s * 1e-12;
    const char *gb_from = b->bandwidth > 0 ? "given" : "measured with a copy";
    const char *tflop_from = b->flops > 0 ? "given" : "measured with a product";
    if (gb > 0)
        printf("rates     %.*f GB/s %s, %.*f TFLOP/s %s\n", gb > 100 ? 0 : 1, gb, gb_from, tflop > 10 ? 0 : 3,
               tflop, tflop_from);
}

void bench_print(const bench *b)
{
    cli_text count;
    const char *pinned = getenv("OPENBLAS_CORETYPE");
    printf("model     %s: %s, %s parameters\n", b->common.model, b->info.layout,
           cli_count(&count, b->info.parameters));
    printf("backend   %s, recipe %s, %d threads: %s%s%s%s, %s\n", b->device.backend, bench_recipe(b),
           threads(b), b->device.library, pinned ? " (OPENBLAS_CORETYPE=" : "", pinned ? pinned : "",
           pinned ? ")" : "", b->device.name);
    print_conditions(b);
    printf("shape     prefix of %d tokens: %d views, %d prompt tokens; horizon %d, %d steps\n",
           b->prefix_tokens, b->views, b->tokens, b->info.horizon, b->steps);
    printf("runs      %d, after %d to warm up, %s prompt, ", b->runs, b->warmup,
           b->same_prompt ? "all with one" : "each with another");
    if (b->every > 0)
        printf("one every %g ms\n", b->every);
    else
        printf("one right after the other\n");
    print_times(b);
    print_stages(b);
    print_cold(b);
    print_memory(b);
    if (b->ops)
        print_ops(b);
}
