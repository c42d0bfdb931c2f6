/* bench.c - time and memory of inferences on made-up inputs, of the same plan that `run` uses. */
#include "bench.h"
#include "expand.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/schedule.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define INPUTS "F" /* the case whose made-up inputs these are; see model/synthetic.h */

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

/* Another prompt each time, as that of a robot whose state is told in it: so that its rows do travel. */
static void turn_prompt(bench *b)
{
    int32_t first = b->ids[0];
    memmove(b->ids, b->ids + 1, sizeof *b->ids * (size_t)(b->tokens - 1));
    b->ids[b->tokens - 1] = first;
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
        if (!b->same_prompt)
            turn_prompt(b);
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
        b->ms[RUN][i] = t.run_ms;
        b->ms[HOST][i] = t.total_ms - t.run_ms;
        b->ms[TOTAL][i] = t.total_ms;
    }
    return PV_OK;
}

/* One more inference, with a clock at each node. */
static pv_status time_nodes(bench *b, pv_runner *r, double *node_ms)
{
    pv_run_timing t = {.node_ms = node_ms};
    float *times = pv_alloc(sizeof *times * (size_t)(b->steps + 1) * 2);
    pv_status st = times ? pv_schedule_times(NULL, b->steps, times, times + b->steps + 1) : PV_E_MEMORY;
    if (!st)
        st = pv_runner_noise(r, b->noise);
    if (!st)
        st = pv_runner_prefix(r, &t);
    if (!st) {
        r->n_filled = 0; /* the tables once more, to have them timed */
        st = pv_runner_denoise(r, times, times + b->steps + 1, b->steps, &t, NULL, NULL);
    }
    pv_free(times);
    return st;
}

static pv_status tell_costs(bench *b)
{
    pv_runner *r = pv_session_runner(b->session, b->views, b->tokens);
    if (!r)
        return PV_E_MEMORY;
    double *node_ms = b->ops ? pv_alloc_zero(sizeof *node_ms * (size_t)r->plan->graph->n_nodes) : NULL;
    pv_status st = b->ops && !node_ms ? PV_E_MEMORY : PV_OK;
    if (!st && b->ops)
        st = time_nodes(b, r, node_ms);
    if (!st)
        st = cost_table(r, node_ms, b->steps, &b->rates, &b->costs, &b->n_costs);
    pv_free(node_ms);
    return st;
}

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

/* Behind the runs: in the state in which they left the device, and without a part in the memory they took. */
static void measure_rates(bench *b)
{
    cli_progress_bar bar = {.off = b->common.json};
    bool narrow = b->common.recipe && !strcmp(b->common.recipe, "bf16");
    b->rates = (rates){b->bandwidth * 1e9, b->flops * 1e12};
    cli_note(&bar, "measuring what the device can do");
    pv_status st = rates_measure(b->backend, narrow ? PV_BF16 : PV_F32, &b->rates);
    cli_progress_end(&bar);
    if (st) {
        cli_warn(&b->common, "no floor, as the rates of the device cannot be measured: %s", pv_error_text());
        b->rates = (rates){0, 0};
    }
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
    if (!st)
        st = pv_backend_device(b->backend, &b->device);
    if (st)
        return st;
    b->peak_bytes = peak_bytes();
    measure_rates(b);
    return tell_costs(b);
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
        {"sms", "N", "multiprocessors of a CUDA device to run on, no others (default: all)", CLI_INT,
         &b->common.sms, 1, 100000},
        {"ops", NULL, "a table of time and floor by op, with GFLOP/s of the products", CLI_FLAG, &b->ops},
        {"expand", "OP", EXPAND_HELP, CLI_LIST, &b->expand_list},
        {"same-prompt", NULL, "the same prompt in all runs; else each has another, of as many tokens",
         CLI_FLAG, &b->same_prompt},
        {"bandwidth", "GB/S", "bytes a second for the floor (default: measured with a copy)", CLI_NUMBER,
         &b->bandwidth, 1e-3, 1e6},
        {"flops", "TFLOP/S", "rate of products for the floor (default: measured with one)", CLI_NUMBER,
         &b->flops, 1e-6, 1e6},
        {NULL},
    };
    const cli_command command = {
        .name = "bench",
        .purpose = "time and memory of an inference, by stage and by op",
        .usage = "--model MODEL [options]",
        .example = "pivot bench --model synth:full --prompt-tokens 200 --runs 3 --ops",
        .notes =
            "Pictures, prompt and noise are made up. Percentiles lie between the two nearest runs,\n"
            "linearly. Stages and run (all of them) are by the device's clock, observe, host and total by\n"
            "the wall's; host is what total has more than run. The floor is, op by op, the larger of bytes\n"
            "and operations at their rates: bytes of weights, inputs and what is kept, as what a stage\n"
            "makes for itself may stay in a cache.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON_FILE,
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
    if (!b->common.json)
        bench_print(b);
    return b->common.json || b->common.json_file.value ? bench_print_json(b) : CLI_OK;
}

int bench_main(int argc, char **argv)
{
    bench b = {.runs = 5, .warmup = 1};
    time_t now = time(NULL);
    struct tm utc;
    strftime(b.date, sizeof b.date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
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
