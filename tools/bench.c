/* bench.c - time and memory of inferences on made-up inputs, of the same plan that `run` uses. */
#include "bench.h"
#include "bench_compare.h"
#include "expand.h"
#include "power_mode.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define INPUTS "F" /* the case whose made-up inputs these are; see model/synthetic.h */

/* ---- running ---- */

pv_status bench_make_inputs(bench *b)
{
    size_t pixels = (size_t)b->info.image_size * (size_t)b->info.image_size * 3;
    size_t chunk = (size_t)b->info.horizon * (size_t)b->info.model_dim;
    b->ids = pv_alloc(sizeof *b->ids * (size_t)b->tokens);
    b->noise = pv_alloc(sizeof *b->noise * chunk);
    b->actions = pv_alloc(sizeof *b->actions * chunk);
    bool ok = b->ids && b->noise && b->actions;
    for (int i = 0; ok && i < N_TIMES; i++)
        ok = (b->ms[i] = pv_alloc(sizeof(double) * (size_t)b->runs)) != NULL;
    ok = ok && (b->sorted = pv_alloc(sizeof(double) * (size_t)b->runs)) != NULL;
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
void bench_turn_prompt(bench *b)
{
    int32_t first = b->ids[0];
    memmove(b->ids, b->ids + 1, sizeof *b->ids * (size_t)(b->tokens - 1));
    b->ids[b->tokens - 1] = first;
}

pv_status bench_infer(const bench *b, pv_session *s, pv_timing *t)
{
    pv_observation o = {
        .size = sizeof o, .images = b->image, .n_images = b->views, .tokens = b->ids, .n_tokens = b->tokens};
    pv_infer_params p = {.size = sizeof p, .noise = b->noise, .steps = b->steps};
    pv_status st = pv_session_infer(s, &o, &p, b->actions);
    return st ? st : pv_session_timing(s, t);
}

void bench_take(const pv_timing *t, double *const ms[N_TIMES], int i)
{
    ms[OBSERVE][i] = t->observe_ms;
    ms[VISION][i] = t->vision_ms;
    ms[PREFIX][i] = t->prefix_ms;
    ms[DENOISE][i] = t->denoise_ms;
    ms[RUN][i] = t->run_ms;
    ms[HOST][i] = t->total_ms - t->run_ms;
    ms[TOTAL][i] = t->total_ms;
}

void bench_await(bench *b)
{
    double now = pv_now_ms(), wait = b->due - now;
    if (b->every > 0 && wait > 0)
        nanosleep(
            &(struct timespec){.tv_sec = (time_t)(wait / 1e3), .tv_nsec = (long)(fmod(wait, 1e3) * 1e6)},
            NULL);
    b->due = (wait > 0 ? b->due : now) + b->every;
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
            bench_turn_prompt(b);
        bench_await(b);
        double start = pv_now_ms();
        pv_status st = bench_infer(b, b->session, &t);
        cli_progress_end(&bar);
        if (st)
            return st;
        if (i == -b->warmup)
            b->cold_ms[COLD_FIRST] = pv_now_ms() - start;
        if (t.schedule_ms > b->schedule_ms)
            b->schedule_ms = t.schedule_ms; /* the tables are filled by the first run alone */
        b->prefix_tokens = t.prefix_tokens;
        if (i >= 0)
            bench_take(&t, b->ms, i);
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
    const pv_recipe *recipe = NULL;
    bool narrow = !pv_recipe_find(b->common.recipe, &recipe) && pv_recipe_narrow(recipe);
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
                            .max_steps = cli_max_steps(b->steps),
                            .progress = cli_progress,
                            .progress_user = &bar};
    pv_status st = bench_make_inputs(b);
    double start = pv_now_ms();
    if (!st)
        st = pv_session_create_expanded(b->model, b->backend, &sp, b->expand, &b->session);
    cli_progress_end(&bar);
    if (!st) {
        pv_opening o = pv_session_opening(b->session);
        b->cold_ms[COLD_PLAN] = o.plan_ms;
        b->cold_ms[COLD_WEIGHTS] = o.weights_ms;
        b->cold_ms[COLD_RECORD] = o.record_ms;
        b->cold_ms[COLD_REST] = pv_now_ms() - start - o.plan_ms - o.weights_ms - o.record_ms;
        b->load_peak_bytes = peak_bytes();
        st = time_runs(b);
    }
    if (!st)
        st = pv_session_memory(b->session, &b->memory);
    if (!st)
        st = pv_backend_device(b->backend, &b->device);
    if (st)
        return st;
    b->power_mode = power_mode(POWER_MODE_FILE);
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
        {"every", "MS",
         "begin an inference MS after the one before, as a robot does (default: as soon\nas that has ended, "
         "which is when a device is hottest)",
         CLI_NUMBER, &b->every, 1e-3, 1e5},
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
        {"html", "FILE", "the report as one page, with a waterfall of the stages", CLI_TEXT, &b->html},
        {"compare", "A.json B.json", "no run: two reports of --json beside each other, ratio and noise",
         CLI_TEXT, &b->compare},
        {"ab", "recipe=A,B",
         "two recipes in one process, an inference of each in turn; or program=A,B:\ntwo builds of pivot, "
         "each started --rounds times, in turn",
         CLI_TEXT, &b->ab},
        {"rounds", "N", "with --ab program=...: starts of each (default: 5)", CLI_INT, &b->rounds, 1, 10000},
        {NULL},
    };
    const cli_command command = {
        .name = "bench",
        .purpose = "time and memory of an inference, by stage and by op",
        .usage = "--model MODEL [options] | --compare A.json B.json",
        .example =
            "pivot bench --model synth:full --prompt-tokens 200 --runs 30 --ops --json=a.json --html a.html\n"
            "pivot bench --compare a.json b.json\n"
            "pivot bench --model synth:tiny --runs 30 --ab recipe=f32,bf16\n"
            "pivot bench --model synth:tiny --runs 30 --ab program=before/pivot,after/pivot",
        .notes =
            "Pictures, prompt and noise are made up. Percentiles lie between the two nearest runs,\n"
            "linearly. Stages and run (all of them) are by the device's clock, observe, host and total by\n"
            "the wall's; host is what total has more than run. The floor is, op by op, the larger of bytes\n"
            "and operations at their rates: bytes of weights, inputs and what is kept, as what a stage\n"
            "makes for itself may stay in a cache. Percent of floor: 100 where no time is lost. What counts "
            "as\n"
            "noise is said below the table.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON_FILE,
        .model_optional = true,
    };
    int code = cli_parse(&command, argc, argv, &b->common);
    if (code == CLI_GO && b->compare && !b->common.model)
        return cli_usage(&b->common, "--compare: expected two files, A.json B.json");
    if (code == CLI_GO && !b->common.model)
        return cli_usage(&b->common, "expected a model: --model MODEL");
    if (code == CLI_GO && b->ops && (b->compare || b->ab))
        return cli_usage(&b->common, "--ops is of one bench, not of two beside each other");
    if (code == CLI_GO && b->compare && b->ab)
        return cli_usage(&b->common, "--compare runs nothing, --ab does: one of them");
    if (code == CLI_GO && b->ab && !bench_ab_of(b, "recipe") && !bench_ab_of(b, "program"))
        return cli_usage(&b->common, "--ab: expected recipe=A,B or program=A,B, came '%s'", b->ab);
    if (code == CLI_GO && b->ab && b->common.recipe && bench_ab_of(b, "recipe"))
        return cli_usage(&b->common, "--ab names the recipes; --recipe another");
    return code == CLI_GO ? expand_parse(&b->common, &b->expand_list, &b->expand) : code;
}

static int begin(bench *b)
{
    double start = pv_now_ms();
    pv_status st = cli_open_model(&b->common, &b->model);
    double opened = pv_now_ms();
    b->cold_ms[COLD_MODEL] = opened - start;
    if (!st)
        st = pv_model_describe(b->model, &b->info);
    if (!st)
        st = cli_open_backend(&b->common, &b->backend);
    b->cold_ms[COLD_OPEN] = pv_now_ms() - opened;
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
    if (b->ab)
        return bench_ab_recipes(b);
    st = work(b);
    if (st)
        return cli_fail(&b->common, st);
    if (!b->common.json)
        bench_print(b);
    int code = b->common.json || b->common.json_file.value ? bench_print_json(b) : CLI_OK;
    st = b->html ? bench_html(b) : PV_OK;
    return st ? cli_fail(&b->common, st) : code;
}

int bench_main(int argc, char **argv)
{
    bench b = {.runs = 5, .warmup = 1, .rounds = 5};
    time_t now = time(NULL);
    struct tm utc;
    strftime(b.date, sizeof b.date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    int code = parse(&b, argc, argv);
    if (code == CLI_GO)
        code = b.compare                            ? bench_compare(&b)
               : b.ab && bench_ab_of(&b, "program") ? bench_ab_programs(&b)
                                                    : begin(&b);
    pv_session_destroy(&b.session);
    pv_model_free(&b.model);
    pv_backend_close(&b.backend);
    for (int i = 0; i < PV_MAX_CAMERAS; i++)
        pv_free(b.pixels[i]);
    for (int i = 0; i < N_TIMES; i++)
        pv_free(b.ms[i]);
    pv_free(b.sorted);
    pv_free(b.ids);
    pv_free(b.noise);
    pv_free(b.actions);
    pv_free(b.costs);
    return code;
}
