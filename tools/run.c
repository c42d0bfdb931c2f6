/* run.c - one inference, from files and words to a table of actions. All that can be wrong with the inputs is
 * found before the weights are read. */
#include "cli.h"
#include "dump.h"
#include "expand.h"
#include "inputs.h"
#include "plot.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/schedule.h"
#include "session/session.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct run {
    cli_options common;
    /* as on the command line */
    cli_list image, expand_list;
    const char *prompt, *tokens, *state, *noise_file, *schedule, *dump_inputs, *dump, *plot;
    uint64_t seed;
    int steps;
    bool allow_truncation;
    uint64_t expand;
    /* as the library takes it */
    pv_model *model;
    pv_backend *backend;
    pv_session *session;
    pv_observer *observer; /* what the model sees, known before there is a session */
    uint8_t *pictures;     /* of the cameras that are there, as it sees them */
    pv_model_info info;
    pv_device_info device;
    input_images images;
    pv_observation observation;
    pv_robot *robot; /* of lerobot's folder, where its actions are relative to the state; else NULL */
    pv_robot_info about;
    pv_frame *frame;
    int32_t *ids;
    double *numbers;
    float *noise, *actions, *model_actions;
    double *exact, *absolute;  /* of the robot */
    float *times;              /* [steps + 1] */
    const char *schedule_name; /* "custom": times from a file */
    double load_ms;
    pv_timing timing;
} run;

/* ---- inputs ---- */

static const char *units(const run *r)
{
    return r->info.has_stats ? "robot units" : "model units (no statistics)";
}

static bool is_file(const char *path)
{
    struct stat s;
    return !stat(path, &s) && S_ISREG(s.st_mode);
}

static bool known_schedule(const char *name)
{
    for (int i = 0; pv_schedule_list(i); i++)
        if (!strcmp(name, pv_schedule_list(i)))
            return true;
    return false;
}

static int unknown_schedule(const run *r)
{
    const char *names[16] = {NULL};
    for (int i = 0; i < 15 && pv_schedule_list(i); i++)
        names[i] = pv_schedule_list(i);
    const char *near = cli_nearest(r->schedule, names);
    return cli_usage(
        &r->common,
        "--schedule '%s': neither a file nor openpi, lerobot, linear, cosine, quadratic, sigmoid%s%s%s",
        r->schedule, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* CLI_GO, or the exit code. */
static int read_schedule(run *r)
{
    const char *name = r->schedule ? r->schedule : "openpi";
    pv_status st;
    if (known_schedule(name)) {
        r->schedule_name = name;
        if (!r->steps)
            r->steps = r->info.steps;
        r->times = pv_alloc(sizeof(float) * (size_t)(r->steps + 1) * 2);
        st = r->times ? pv_schedule_times(name, r->steps, r->times, r->times + r->steps + 1) : PV_E_MEMORY;
        return st ? cli_fail(&r->common, st) : CLI_GO;
    }
    if (!is_file(name))
        return unknown_schedule(r);
    int steps = 0;
    r->schedule_name = "custom";
    st = input_times_read(name, &r->times, &steps);
    if (!st && r->steps && r->steps != steps)
        return cli_usage(&r->common, "--steps %d, but %s has the %d times of %d steps", r->steps, name,
                         steps + 1, steps);
    r->steps = steps;
    float *dt = st ? NULL : pv_alloc(sizeof *dt * (size_t)steps);
    if (!st)
        st = dt ? pv_fail_in(pv_schedule_custom(r->times, steps, dt), "%s", name) : PV_E_MEMORY;
    pv_free(dt);
    return st ? cli_fail(&r->common, st) : CLI_GO;
}

static pv_status read_noise(run *r)
{
    size_t n = (size_t)r->info.horizon * (size_t)r->info.model_dim;
    r->noise = pv_alloc(sizeof *r->noise * n);
    r->model_actions = pv_alloc(sizeof *r->model_actions * n);
    r->actions = pv_alloc(sizeof *r->actions * n);
    r->exact = pv_alloc(sizeof *r->exact * n);
    r->absolute = pv_alloc(sizeof *r->absolute * n);
    if (!r->noise || !r->model_actions || !r->actions || !r->exact || !r->absolute)
        return PV_E_MEMORY;
    if (r->noise_file)
        return input_noise_read(r->noise_file, r->info.horizon, r->info.model_dim, r->noise);
    pv_session_noise(r->seed, r->noise, n);
    return PV_OK;
}

/* The key under which the robot has a camera's picture; a camera that it does not have keeps its name, and is
 * refused. */
static const char *picture_key(const run *r, const char *camera)
{
    for (int i = 0; i < r->about.n_cameras; i++)
        if (r->about.key[i] && !strcmp(r->about.slot[i], camera))
            return r->about.key[i];
    return NULL;
}

/* What came, as the robot of the folder sends it. */
static pv_status through_robot(run *r)
{
    pv_observation *o = &r->observation;
    pv_field field[PV_MAX_CAMERAS + 2];
    int n = 0;
    for (int i = 0; i < o->n_images; i++) {
        const pv_image *image = &o->images[i];
        const char *key = picture_key(r, image->camera);
        if (key)
            field[n++] = (pv_field){key, PV_FIELD_U8, 3, {image->height, image->width, 3}, image->pixels};
        else
            return pv_fail(PV_E_ARG, "camera '%s': the robot of %s has no picture for it", image->camera,
                           r->common.model);
    }
    if (o->n_state)
        field[n++] = (pv_field){r->about.state_key[0], PV_FIELD_F64, 1, {o->n_state}, o->state};
    const char *words = o->prompt ? o->prompt : "";
    field[n++] = (pv_field){r->about.prompt_key, PV_FIELD_TEXT, 1, {(int64_t)strlen(words)}, words};
    pv_status st = pv_robot_observe(r->robot, field, n, &r->frame);
    if (st)
        return st;
    const int32_t *tokens = o->tokens;
    const int n_tokens = o->n_tokens;
    *o = *pv_frame_observation(r->frame);
    o->tokens = tokens;
    o->n_tokens = n_tokens;
    return PV_OK;
}

static pv_status read_observation(run *r)
{
    pv_observation *o = &r->observation;
    pv_status st = input_images_read(&r->image, &r->images);
    o->images = r->images.image;
    o->n_images = r->images.n;
    if (!st && r->robot)
        st = through_robot(r);
    if (!st)
        st = pv_observer_create(r->model, &r->observer);
    if (!st)
        st = pv_observe(r->observer, o, r->allow_truncation);
    size_t side = (size_t)r->info.image_size;
    if (!st && !(r->pictures = pv_alloc(side * side * 3 * (size_t)r->observer->views)))
        st = PV_E_MEMORY;
    return st ? st : pv_observe_pictures(r->observer, r->pictures);
}

static void warn(const run *r)
{
    const pv_observer *o = r->observer;
    if (r->times[r->steps] > (r->times[r->steps - 1] - r->times[r->steps]) / 2) /* openpi's loop would go on */
        cli_warn(&r->common, "the last of %d times is %g, not 0: what comes is actions and noise still mixed", r->steps + 1,
                 (double)r->times[r->steps]);
    if (o->truncated)
        cli_warn(&r->common, "the prompt is too long: cut at its end to %d tokens", o->n_ids);
    if (!o->state_outside)
        return;
    const pv_norm *norm = &r->model->stats->state;
    char text[160] = "";
    for (int i = 0, told = 0; i < r->observation.n_state && told < 3; i++) {
        double x = r->numbers[i];
        if (x >= norm->q01[i] && x <= norm->q99[i])
            continue;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%snumber %d is %g, not in %g..%g", told++ ? "; " : "", i,
                 x, norm->q01[i], norm->q99[i]);
    }
    cli_warn(&r->common, "%d of %d numbers of the state lie outside q01..q99 of the statistics: %s%s",
             o->state_outside, r->observation.n_state, text, o->state_outside > 3 ? "; ..." : "");
}

/* ---- the work ---- */

static pv_status infer(run *r)
{
    cli_progress_bar bar = {.off = r->common.json};
    pv_session_params sp = {
        .size = sizeof sp,
        .recipe = r->common.recipe,
        .max_steps = cli_max_steps(r->steps),
        .progress = cli_progress,
        .progress_user = &bar,
    };
    pv_infer_params ip = {.size = sizeof ip,
                          .noise = r->noise,
                          .steps = r->steps,
                          .allow_truncation = r->allow_truncation,
                          .model_actions = r->model_actions};
    if (!strcmp(r->schedule_name, "custom"))
        ip.timesteps = r->times;
    else
        ip.schedule = r->schedule_name;
    double start = pv_now_ms();
    pv_status st = pv_session_create_expanded(r->model, r->backend, &sp, r->expand, &r->session);
    cli_progress_end(&bar);
    r->load_ms = pv_now_ms() - start;
    ip.actions_f64 = r->exact;
    if (!st)
        st = pv_session_infer(r->session, &r->observation, &ip, r->actions);
    if (!st && r->robot) {
        const int rows = r->info.horizon, dims = r->info.action_dim;
        st = pv_robot_act(r->robot, r->model, r->frame, r->exact, rows, dims, r->absolute);
        r->info.action_dim = r->about.action_dim;
        for (int i = 0; !st && i < rows * r->about.action_dim; i++)
            r->actions[i] = (float)r->absolute[i];
    }
    return st ? st : pv_session_timing(r->session, &r->timing);
}

static pv_status write_files(run *r)
{
    char source[256], title[256], unit[64];
    snprintf(source, sizeof source, "pivot %s run, %s", pv_version(), r->common.model);
    dump_result d = {r->noise, r->model_actions, r->schedule_name, r->times, r->steps, source};
    pv_status st = r->dump ? dump_trace(r->dump, r->observer, r->pictures, &d) : PV_OK;
    snprintf(title, sizeof title, "%s", r->prompt ? r->prompt : r->common.model);
    snprintf(unit, sizeof unit, "%s", units(r));
    if (!st && r->plot)
        st = plot_actions(r->plot, r->actions, r->info.horizon, r->info.action_dim, title, unit);
    return st;
}

/* ---- the answer, for programs ---- */

static void json_times(cJSON *json, const run *r)
{
    const pv_timing *t = &r->timing;
    cJSON *ms = cJSON_AddObjectToObject(json, "time_ms");
    cli_json_add_ms(ms, "load", r->load_ms);
    cli_json_add_ms(ms, "observe", t->observe_ms);
    cli_json_add_ms(ms, "vision", t->vision_ms);
    cli_json_add_ms(ms, "prefix", t->prefix_ms);
    cli_json_add_ms(ms, "schedule", t->schedule_ms);
    cli_json_add_ms(ms, "denoise", t->denoise_ms);
    cli_json_add_ms(ms, "total", t->total_ms);
}

static int print_json(const run *r)
{
    const pv_model_info *m = &r->info;
    cJSON *json = cli_json("pivot.run/1");
    cJSON_AddStringToObject(json, "version", pv_version());
    cJSON_AddStringToObject(json, "model", r->common.model);
    cJSON_AddStringToObject(json, "layout", m->layout);
    cJSON_AddStringToObject(json, "backend", r->device.backend);
    cJSON_AddStringToObject(json, "device", r->device.name);
    cJSON_AddStringToObject(json, "library", r->device.library);
    cJSON_AddStringToObject(json, "recipe", r->common.recipe ? r->common.recipe : "f32");
    if (r->expand)
        expand_json(json, r->expand);
    cJSON *cameras = cJSON_AddArrayToObject(json, "cameras");
    for (int v = 0; v < r->observer->views; v++)
        cJSON_AddItemToArray(cameras, cJSON_CreateString(m->camera[r->observer->camera[v]]));
    cJSON_AddNumberToObject(json, "prompt_tokens", r->timing.prompt_tokens);
    cJSON_AddNumberToObject(json, "prefix_tokens", r->timing.prefix_tokens);
    cJSON_AddBoolToObject(json, "truncated", r->timing.truncated);
    cJSON_AddNumberToObject(json, "state_outside", r->timing.state_outside);
    cJSON_AddStringToObject(json, "schedule", r->schedule_name);
    cJSON_AddItemToObject(json, "timesteps", cli_json_floats(r->times, r->steps + 1));
    if (r->noise_file)
        cJSON_AddStringToObject(json, "noise", r->noise_file);
    else
        cJSON_AddItemToObject(json, "seed", cli_json_u64(r->seed));
    cJSON_AddStringToObject(json, "units", m->has_stats ? "robot" : "model");
    cJSON_AddNumberToObject(json, "horizon", m->horizon);
    cJSON_AddNumberToObject(json, "action_dim", m->action_dim);
    cJSON *actions = cJSON_AddArrayToObject(json, "actions");
    for (int h = 0; h < m->horizon; h++)
        cJSON_AddItemToArray(actions,
                             cli_json_floats(r->actions + (size_t)h * (size_t)m->action_dim, m->action_dim));
    json_times(json, r);
    return cli_json_print(&r->common, json);
}

/* ---- the answer, for people ---- */

enum { STEP_WIDTH = 5, CELL = 11 };

static int columns(void)
{
    struct winsize w;
    return !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col ? w.ws_col : 100;
}

/* Digits behind the point, so that a column shows about five digits of its largest number. */
static int decimals(const run *r, int dim)
{
    double most = 0;
    for (int h = 0; h < r->info.horizon; h++)
        most = fmax(most, fabs((double)r->actions[h * r->info.action_dim + dim]));
    int before = most > 0 ? (int)floor(log10(most)) : 0;
    return before >= 4 ? 0 : before < -2 ? 6 : 4 - (before > 0 ? before : before < 0 ? -1 : 0);
}

static void print_cell(float value, int places)
{
    if (fabsf(value) >= 1e7f)
        printf("%*.3e", CELL, (double)value);
    else
        printf("%*.*f", CELL, places, (double)value);
}

static void print_actions(const run *r)
{
    int dims = r->info.action_dim, most = (columns() - STEP_WIDTH) / CELL;
    int blocks = (dims + (most > 1 ? most : 1) - 1) / (most > 1 ? most : 1),
        each = (dims + blocks - 1) / blocks;
    for (int first = 0; first < dims; first += each) {
        int end = first + each < dims ? first + each : dims;
        printf("\n%*s", STEP_WIDTH, "step");
        for (int d = first; d < end; d++)
            printf("%*s%d", CELL - (d < 10 ? 1 : 2), "dim ", d);
        putchar('\n');
        for (int h = 0; h < r->info.horizon; h++) {
            printf("%*d", STEP_WIDTH, h);
            for (int d = first; d < end; d++)
                print_cell(r->actions[h * dims + d], decimals(r, d));
            putchar('\n');
        }
    }
}

static void print_time(const char *stage, double ms, const char *fmt, ...) PV_PRINTF(3, 4);
static void print_time(const char *stage, double ms, const char *fmt, ...)
{
    cli_text text;
    va_list ap;
    printf("  %-9s %11s", stage, cli_ms(&text, ms));
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static void print_report(const run *r)
{
    const pv_timing *t = &r->timing;
    const pv_observer *o = r->observer;
    cli_text count, step;
    printf("model     %s: %s, %s parameters\n", r->common.model, r->info.layout,
           cli_count(&count, r->info.parameters));
    printf("backend   %s, recipe %s: %s, %s\n", r->device.backend,
           r->common.recipe ? r->common.recipe : "f32", r->device.library, r->device.name);
    printf("pictures ");
    for (int v = 0; v < o->views; v++)
        for (int i = 0; i < r->images.n; i++)
            if (!strcmp(r->images.camera[i], r->info.camera[o->camera[v]]))
                printf("%s %s (%d x %d)", v ? "," : "", r->images.camera[i], r->images.picture[i].width,
                       r->images.picture[i].height);
    printf("; the model sees %d x %d\n", r->info.image_size, r->info.image_size);
    printf("prefix    %d tokens, %d of them of the prompt (room for %d)\n", t->prefix_tokens,
           t->prompt_tokens, r->info.max_tokens);
    if (strcmp(r->schedule_name, "custom"))
        printf("schedule  %s, %d steps; ", r->schedule_name, r->steps);
    else
        printf("schedule  %d times read from %s: %d steps; ", r->steps + 1, r->schedule, r->steps);
    if (r->noise_file)
        printf("noise from %s\n", r->noise_file);
    else
        printf("noise drawn from seed %llu\n", (unsigned long long)r->seed);

    printf("\nactions in %s: %d steps, %d dims\n", units(r), r->info.horizon, r->info.action_dim);
    print_actions(r);

    printf("\ntime\n");
    print_time("load", r->load_ms, "   once");
    print_time("observe", t->observe_ms, "   checks, pictures, words");
    print_time("vision", t->vision_ms, "   %d pictures", o->views);
    print_time("prefix", t->prefix_ms, "   %d tokens", t->prefix_tokens);
    print_time("schedule", t->schedule_ms, "   when the times change");
    print_time("denoise", t->denoise_ms, "   %d steps of %s", t->steps,
               cli_ms(&step, t->denoise_ms / t->steps));
    print_time("total", t->total_ms, "   without load");
    const char *written[] = {r->dump_inputs, r->dump, r->plot};
    for (int i = 0; i < 3; i++)
        if (written[i])
            printf("%swritten   %s\n", i == 0 || (!written[0] && (i == 1 || !written[1])) ? "\n" : "",
                   written[i]);
}

/* ---- the command ---- */

static int parse(run *r, int argc, char **argv)
{
    const cli_option options[] = {
        {"image", "CAM=FILE", "a camera's picture, JPEG or PNG; once for each camera there is", CLI_LIST,
         &r->image},
        {"prompt", "TEXT", "the task in words", CLI_TEXT, &r->prompt},
        {"tokens", "N,N,...", "token ids in place of --prompt, used as they are", CLI_TEXT, &r->tokens},
        {"state", "X,X,...", "the robot's state, in the units of the statistics", CLI_TEXT, &r->state},
        {"noise", "FILE", "start from tensor 'noise' (f32 [horizon, action_dim]) of FILE.safetensors",
         CLI_TEXT, &r->noise_file},
        {"seed", "N", "start from noise drawn from N (default: 0)", CLI_U64, &r->seed},
        {"steps", "N", "denoising steps (default: the model's)", CLI_INT, &r->steps, 1, PV_MAX_STEPS},
        {"schedule", "NAME|FILE",
         "openpi (default), lerobot, linear, cosine, quadratic, sigmoid, or a file\n"
         "of times from 1 (noise) down to 0 (actions), steps + 1 of them",
         CLI_TEXT, &r->schedule},
        {"allow-truncation", NULL, "cut a prompt that is too long, in place of refusing it", CLI_FLAG,
         &r->allow_truncation},
        {"expand", "OP", EXPAND_HELP, CLI_LIST, &r->expand_list},
        {"dump-inputs", "DIR", "write the exact pictures (PNG) and token ids the model sees", CLI_TEXT,
         &r->dump_inputs},
        {"dump", "FILE", "write inputs, noise and actions as a trace, for 'pivot verify'", CLI_TEXT,
         &r->dump},
        {"plot", "FILE.svg", "draw each action dimension over the horizon", CLI_TEXT, &r->plot},
        {NULL},
    };
    const cli_command command = {
        .name = "run",
        .purpose = "one inference: pictures, words and state in, an action chunk out",
        .usage = "--model MODEL --image CAM=FILE ... --prompt TEXT [--state X,X,...] [options]",
        .example = "pivot run --model pi05_libero --image base_0_rgb=front.jpg --image "
                   "left_wrist_0_rgb=wrist.png \\\n"
                   "    --prompt \"put the bowl on the plate\" --state 0.1,-0.2,0.3,0,0,0,0.04,-0.04 --plot "
                   "actions.svg",
        .notes = "Cameras without a picture count as absent. Actions come in the units of the checkpoint's\n"
                 "statistics (robot units), or as the model makes them where there are none (model units); "
                 "those of\n"
                 "lerobot that are relative to the state are made absolute.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
    };
    int code = cli_parse(&command, argc, argv, &r->common);
    if (code == CLI_GO)
        code = expand_parse(&r->common, &r->expand_list, &r->expand);
    if (code != CLI_GO)
        return code;
    if (!r->image.n)
        return cli_usage(&r->common, "expected --image CAM=FILE, at least once");
    for (int i = 0; i < r->image.n; i++) {
        const char *sign = strchr(r->image.item[i], '=');
        if (!sign || sign == r->image.item[i] || !sign[1])
            return cli_usage(&r->common, "--image: expected CAM=FILE, came '%s'", r->image.item[i]);
    }
    if (!r->prompt == !r->tokens)
        return cli_usage(&r->common,
                         r->prompt ? "--prompt and --tokens exclude each other" : "expected --prompt TEXT");
    if (r->dump && r->plot && !strcmp(r->dump, r->plot))
        return cli_usage(&r->common, "--dump and --plot name the same file '%s'", r->dump);
    pv_observation *o = &r->observation;
    *o = (pv_observation){.size = sizeof *o, .prompt = r->prompt};
    pv_status st = r->tokens ? cli_integers("--tokens", r->tokens, &r->ids, &o->n_tokens) : PV_OK;
    if (!st && r->state)
        st = cli_numbers("--state", r->state, &r->numbers, &o->n_state);
    o->tokens = r->ids;
    o->state = r->numbers;
    return st == PV_E_ARG ? cli_usage(&r->common, "%s", pv_error_text())
           : st           ? cli_fail(&r->common, st)
                          : CLI_GO;
}

static int work(run *r)
{
    pv_status st = cli_open_model(&r->common, &r->model);
    if (!st)
        st = pv_model_describe(r->model, &r->info);
    if (!st && cli_folder_robot(&r->common))
        st = pv_robot_load(cli_folder_robot(&r->common), &r->robot);
    if (!st && r->robot)
        st = pv_robot_describe(r->robot, &r->about);
    if (!st && r->robot && !r->about.delta) /* then the session's actions are the robot's */
        pv_robot_free(&r->robot);
    if (!st)
        st = cli_open_backend(&r->common, &r->backend);
    if (!st)
        st = pv_backend_device(r->backend, &r->device);
    if (st)
        return cli_fail(&r->common, st);
    int code = read_schedule(r);
    if (code != CLI_GO)
        return code;
    st = read_noise(r);
    if (!st)
        st = read_observation(r);
    if (st)
        return cli_fail(&r->common, st);
    warn(r);
    if (r->dump_inputs)
        st = dump_inputs(r->dump_inputs, r->observer, r->pictures);
    if (!st)
        st = infer(r);
    if (!st)
        st = write_files(r);
    if (st)
        return cli_fail(&r->common, st);
    if (r->common.json)
        return print_json(r);
    print_report(r);
    return CLI_OK;
}

int run_main(int argc, char **argv)
{
    run r = {.seed = 0};
    int code = parse(&r, argc, argv);
    if (code == CLI_GO)
        code = work(&r);
    pv_session_destroy(&r.session);
    pv_observer_destroy(&r.observer);
    pv_free(r.pictures);
    pv_model_free(&r.model);
    pv_backend_close(&r.backend);
    input_images_free(&r.images);
    pv_free(r.ids);
    pv_free(r.numbers);
    pv_free(r.noise);
    pv_free(r.actions);
    pv_free(r.model_actions);
    pv_free(r.exact);
    pv_free(r.absolute);
    pv_frame_free(&r.frame);
    pv_robot_free(&r.robot);
    pv_free(r.times);
    return code;
}
