/* replay.c - `pivot replay`: recordings run again, and what came of it beside what came then. */
#include "cli.h"
#include "verify_trace.h"
#include "base/memory.h"
#include "record/record.h"
#include "robot/robot.h"
#include "session/session.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { N_OUTPUTS = 2, MAX_DIFFERENCES = 16, VALUE = 80 };

typedef struct difference {
    const char *what;
    char then[VALUE], now[VALUE];
} difference;

typedef struct outcome { /* of one file */
    const char *file;
    bool same, ok;
    compare output[N_OUTPUTS]; /* model_actions, actions */
    double bound;              /* of relative L2; 0: none */
    difference difference[MAX_DIFFERENCES];
    int n_differences;
    double then_ms, now_ms;
} outcome;

static const char *const output_name[N_OUTPUTS] = {"model_actions", "actions"};

typedef struct replay {
    cli_options common;
    cli_list operands;
    const char *robot_name;
    double bound;
    bool bytes;
    char **file;
    int n_files, cap_files;

    /* what is loaded, for the recordings that want the same */
    char *key;
    pv_model *model;
    pv_backend *backend;
    pv_session *session;
    pv_robot *robot;
    pv_frame *frame;
    pv_identity identity;
    pv_device_info device;
    pv_model_info info;
    char *config;

    int n_same, n_within, n_out, n_failed;
} replay;

/* ---- which files ---- */

static pv_status add_file(replay *r, const char *folder, const char *name)
{
    if (r->n_files == r->cap_files) {
        int cap = r->cap_files ? 2 * r->cap_files : 64;
        char **more = pv_alloc(sizeof *more * (size_t)cap);
        if (!more)
            return PV_E_MEMORY;
        if (r->n_files)
            memcpy(more, r->file, sizeof *more * (size_t)r->n_files);
        pv_free(r->file);
        r->file = more;
        r->cap_files = cap;
    }
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = pv_alloc(n);
    if (!path)
        return PV_E_MEMORY;
    snprintf(path, n, "%s%s%s", folder, *folder ? "/" : "", name);
    r->file[r->n_files++] = path;
    return PV_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static pv_status add_folder(replay *r, const char *folder)
{
    int first = r->n_files;
    pv_status st = PV_OK;
    DIR *dir = opendir(folder);
    if (!dir)
        return pv_fail(PV_E_FILE, "%s: the folder cannot be read", folder);
    for (struct dirent *e; !st && (e = readdir(dir));) {
        const char *end = strrchr(e->d_name, '.');
        if (end && !strcmp(end, ".safetensors"))
            st = add_file(r, folder, e->d_name);
    }
    closedir(dir);
    if (r->n_files > first)
        qsort(r->file + first, (size_t)(r->n_files - first), sizeof *r->file, by_name);
    return st || r->n_files > first ? st : pv_fail(PV_E_FILE, "%s: holds no .safetensors files", folder);
}

static pv_status list_files(replay *r)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && i < r->operands.n; i++) {
        struct stat s;
        const char *path = r->operands.item[i];
        st = !stat(path, &s) && S_ISDIR(s.st_mode) ? add_folder(r, path) : add_file(r, "", path);
    }
    return st;
}

/* ---- what runs them ---- */

static void unload(replay *r)
{
    pv_session_destroy(&r->session);
    pv_model_free(&r->model);
    pv_backend_close(&r->backend);
    pv_free(r->config);
    pv_free(r->key);
    r->config = r->key = NULL;
}

static pv_status load(replay *r, const cli_options *options, const pv_recorded *seen)
{
    cli_progress_bar bar = {.off = r->common.json};
    pv_session_params params = {.size = sizeof params,
                                .recipe = options->recipe,
                                .max_steps = seen->max_steps,
                                .rope_bf16 = seen->rope_bf16,
                                .progress = cli_progress,
                                .progress_user = &bar};
    r->device.size = sizeof r->device;
    r->info.size = sizeof r->info;
    pv_status st = cli_open_model(options, &r->model);
    if (!st)
        st = cli_open_backend(options, &r->backend);
    if (!st)
        st = pv_backend_device(r->backend, &r->device);
    if (!st)
        st = pv_model_describe(r->model, &r->info);
    if (!st)
        st = pv_model_identity(r->model, &r->identity);
    if (!st && !(r->config = pv_config_text(&r->model->config)))
        st = PV_E_MEMORY;
    if (!st)
        st = pv_session_create(r->model, r->backend, &params, &r->session);
    cli_progress_end(&bar);
    return st;
}

/* A session as the recording had it, but for what the command line says. */
static pv_status need_session(replay *r, const pv_recording *recording)
{
    const pv_recorded *seen = pv_recording_look(recording);
    cli_options options = r->common;
    const char **said[] = {&options.model, &options.backend, &options.recipe};
    static const char *const keys[] = {"model", "backend", "recipe"};
    for (int i = 0; i < 3; i++)
        if (!*said[i])
            *said[i] = pv_recording_text(recording, keys[i]);
    char key[4096];
    int n = snprintf(key, sizeof key, "%d %d %s|%s|%s", seen->max_steps, seen->rope_bf16, options.backend,
                     options.recipe, options.model);
    if (n >= (int)sizeof key)
        return pv_fail(PV_E_FILE, "model: a path of more than %zu bytes", sizeof key);
    if (r->key && !strcmp(r->key, key))
        return PV_OK;
    unload(r);
    pv_status st = load(r, &options, seen);
    if (!st && !(r->key = pv_strdup(key)))
        st = PV_E_MEMORY;
    if (st)
        unload(r);
    return st;
}

static pv_status need_robot(replay *r, const pv_recording *recording)
{
    const char *json = pv_recording_text(recording, "robot"),
               *name = pv_recording_text(recording, "robot_name");
    pv_robot_free(&r->robot);
    if (r->robot_name)
        return json ? pv_robot_load(r->robot_name, &r->robot)
                    : pv_fail(PV_E_ARG, "recorded without a robot: --robot does not go with it");
    return json
               ? pv_robot_parse(json, strlen(json), name ? name : "recorded", "the recorded robot", &r->robot)
               : PV_OK;
}

/* ---- what differs ---- */

static void note(outcome *o, const char *what, const char *then, const char *now)
{
    if (!strcmp(then, now) || o->n_differences == MAX_DIFFERENCES)
        return;
    difference *d = &o->difference[o->n_differences++];
    d->what = what;
    snprintf(d->then, sizeof d->then, "%s", then);
    snprintf(d->now, sizeof d->now, "%s", now);
}

/* Long texts: that they differ is all there is to print. */
static void note_text(outcome *o, const char *what, const char *then, const char *now)
{
    if (strcmp(then, now))
        note(o, what, "as recorded", "another");
}

static void note_hash(outcome *o, const char *what, const char *then, uint64_t now, bool none)
{
    char text[20];
    snprintf(text, sizeof text, none ? "none" : "%016" PRIx64, now);
    note(o, what, then, text);
}

static void differences(const replay *r, const pv_recording *recording, const pv_inference *f, outcome *o)
{
#define THEN(key) pv_recording_text(recording, key)
    const pv_recorded *seen = pv_recording_look(recording);
    const char *json = THEN("robot"), *version = THEN("version");
    note_hash(o, "weights", THEN("weights"), r->identity.weights, false);
    note_text(o, "config", THEN("config"), r->config);
    note_hash(o, "stats", THEN("stats"), r->identity.stats, !r->info.has_stats);
    if (json)
        note_text(o, "robot", json, r->robot->json);
    if (seen->n_tokens != f->n_tokens ||
        memcmp(seen->tokens, f->tokens, sizeof *f->tokens * (size_t)f->n_tokens))
        note(o, "tokens", "as recorded", "others: another tokenizer, or another state");
    note(o, "recipe", THEN("recipe"), f->recipe);
    note(o, "backend", THEN("backend"), r->device.backend);
    note(o, "device", THEN("device"), r->device.name);
    note(o, "library", THEN("library"), r->device.library);
    note(o, "version", version ? version : "", pv_version());
    note_hash(o, "plan", THEN("plan"), f->plan, false);
#undef THEN
}

/* ---- one file ---- */

static double bound_of(const replay *r, const pv_recording *recording, const pv_inference *f)
{
    const trace_name actions = {.kind = TRACE_ACTIONS};
    if (r->bound > 0)
        return r->bound;
    bool f32 = !strcmp(f->recipe, "f32") && !strcmp(pv_recording_text(recording, "recipe"), "f32");
    return f32 ? verify_bound(&r->model->config, &actions) : 0;
}

static pv_status check_fit(const replay *r, const pv_recorded *seen)
{
    int dims = r->robot ? r->robot->action_dim : r->info.action_dim;
    if (seen->horizon != r->info.horizon || seen->model_dim != r->info.model_dim)
        return pv_fail(PV_E_SHAPE, "recorded with chunks of [%d, %d], the model's are [%d, %d]",
                       seen->horizon, seen->model_dim, r->info.horizon, r->info.model_dim);
    if (seen->action_dim != dims)
        return pv_fail(PV_E_SHAPE, "recorded with actions of %d numbers, now they have %d", seen->action_dim,
                       dims);
    if (r->robot && r->robot->action_dim > r->info.action_dim)
        return pv_fail(PV_E_SHAPE, "robot '%s' has actions of %d numbers, the model of %d", r->robot->name,
                       r->robot->action_dim, r->info.action_dim);
    return PV_OK;
}

static void judge(const replay *r, const pv_recording *recording, const pv_inference *f,
                  const double *actions, outcome *o)
{
    const pv_recorded *seen = pv_recording_look(recording);
    int n[N_OUTPUTS] = {seen->horizon * seen->model_dim, seen->horizon * seen->action_dim};
    for (int i = 0; i < N_OUTPUTS; i++)
        o->output[i] = compare_begin();
    for (int i = 0; i < n[0]; i++)
        compare_add(&o->output[0], i, (double)f->model_actions[i], (double)seen->model_actions[i]);
    for (int i = 0; i < n[1]; i++)
        compare_add(&o->output[1], i, actions[i], seen->actions[i]);
    o->same = !memcmp(f->model_actions, seen->model_actions, sizeof(float) * (size_t)n[0]) &&
              !memcmp(actions, seen->actions, sizeof(double) * (size_t)n[1]);
    o->bound = bound_of(r, recording, f);
    o->ok = o->same;
    if (!o->same && !r->bytes && o->bound > 0)
        o->ok = compare_end(&o->output[0], false).relative_l2 <= o->bound &&
                compare_end(&o->output[1], false).relative_l2 <= o->bound;
}

static pv_status run(replay *r, pv_recording *recording, double *exact, float *rounded, double *robot,
                     outcome *o)
{
    const pv_recorded *seen = pv_recording_look(recording);
    pv_observation plain;
    pv_inference f;
    pv_infer_params params = {.size = sizeof params,
                              .noise = seen->noise,
                              .steps = seen->steps,
                              .schedule = seen->schedule,
                              .timesteps = seen->schedule ? NULL : seen->times,
                              .allow_truncation = seen->allow_truncation,
                              .actions_f64 = exact};
    const char *then_ms = pv_recording_text(recording, "ms.inference");
    pv_status st = r->robot ? pv_robot_observe(r->robot, seen->fields, seen->n_fields, &r->frame)
                            : pv_recording_plain(recording, &plain);
    if (!st)
        st = pv_session_infer(r->session, r->robot ? pv_frame_observation(r->frame) : &plain, &params,
                              rounded);
    if (!st && r->robot)
        st = pv_robot_act(r->robot, r->model, r->frame, exact, seen->horizon, r->info.action_dim, robot);
    if (!st)
        st = pv_session_last(r->session, &f);
    if (st)
        return st;
    o->then_ms = then_ms ? strtod(then_ms, NULL) : 0;
    o->now_ms = f.timing.total_ms;
    judge(r, recording, &f, r->robot ? robot : exact, o);
    differences(r, recording, &f, o);
    return PV_OK;
}

static pv_status replay_file(replay *r, pv_recording *recording, outcome *o)
{
    const pv_recorded *seen = pv_recording_look(recording);
    pv_status st = need_session(r, recording);
    if (!st)
        st = need_robot(r, recording);
    if (!st)
        st = check_fit(r, seen);
    if (st)
        return st;
    size_t n = (size_t)seen->horizon * (size_t)r->info.action_dim;
    double *exact = pv_alloc(sizeof *exact * n),
           *robot = pv_alloc(sizeof *robot * (size_t)(seen->horizon * seen->action_dim));
    float *rounded = pv_alloc(sizeof *rounded * n);
    st = exact && robot && rounded ? run(r, recording, exact, rounded, robot, o) : PV_E_MEMORY;
    pv_free(exact);
    pv_free(robot);
    pv_free(rounded);
    return st;
}

/* ---- telling ---- */

static void print_outcome(const outcome *o)
{
    cli_text then, now;
    if (o->same) {
        printf("%s: bytes agree", o->file);
    } else {
        printf("%s: bytes differ, %s", o->file,
               o->ok          ? "within bounds"
               : o->bound > 0 ? "OUT OF BOUNDS"
                              : "no bound (--bound X)");
        for (int i = 0; i < N_OUTPUTS; i++)
            printf("%s %s relative L2 %.2e, max/spread %.2e", i ? ";" : ":", output_name[i],
                   compare_end(&o->output[i], false).relative_l2,
                   compare_end(&o->output[i], false).max_spread);
        if (o->bound > 0)
            printf("; bound %.2e", o->bound);
    }
    printf(" (%s, then %s)\n", cli_ms(&now, o->now_ms), cli_ms(&then, o->then_ms));
    for (int i = 0; i < o->n_differences; i++)
        printf("    %s differs: %s, now %s\n", o->difference[i].what, o->difference[i].then,
               o->difference[i].now);
    if (!o->same && !o->n_differences)
        printf("    nothing that is known differs: another build, or a device that does not repeat itself\n");
}

static void add_json(cJSON *files, const outcome *o)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddItemToArray(files, j);
    cJSON_AddStringToObject(j, "file", o->file);
    cJSON_AddBoolToObject(j, "same_bytes", o->same);
    cJSON_AddBoolToObject(j, "ok", o->ok);
    if (o->bound > 0)
        cJSON_AddNumberToObject(j, "bound", o->bound);
    for (int i = 0; i < N_OUTPUTS; i++) {
        cJSON *c = cJSON_AddObjectToObject(j, output_name[i]);
        cJSON_AddNumberToObject(c, "relative_l2", compare_end(&o->output[i], false).relative_l2);
        cJSON_AddNumberToObject(c, "max_spread", compare_end(&o->output[i], false).max_spread);
        cJSON_AddNumberToObject(c, "max_abs", o->output[i].max_abs);
    }
    cJSON *d = cJSON_AddObjectToObject(j, "differs");
    for (int i = 0; i < o->n_differences; i++) {
        cJSON *pair = cJSON_AddObjectToObject(d, o->difference[i].what);
        cJSON_AddStringToObject(pair, "then", o->difference[i].then);
        cJSON_AddStringToObject(pair, "now", o->difference[i].now);
    }
    cJSON *ms = cJSON_AddObjectToObject(j, "inference_ms");
    cli_json_add_ms(ms, "then", o->then_ms);
    cli_json_add_ms(ms, "now", o->now_ms);
}

/* ---- the command ---- */

static int parse(replay *r, int argc, char **argv)
{
    const cli_option options[] = {
        {"robot", "NAME|FILE", "this robot in place of the recorded description", CLI_TEXT, &r->robot_name},
        {"bound", "X",
         "relative L2 that both outputs must keep where bytes differ; without it that of\nactions in recipe "
         "f32 "
         "(docs/precision.md), where both are f32",
         CLI_NUMBER, &r->bound, 1e-12, 1e6},
        {"bytes", NULL, "bytes must agree", CLI_FLAG, &r->bytes},
        {NULL},
    };
    const cli_command command = {
        .name = "replay",
        .purpose = "recordings run again, beside what came of them",
        .usage = "FILE|FOLDER... [options]",
        .example =
            "pivot replay recordings/\npivot replay recordings/ --backend cuda --recipe bf16 --bound 0.02",
        .notes =
            "Recordings are made by `pivot serve --record`. Model, backend, recipe and robot are the "
            "recorded\n"
            "ones, unless told otherwise; options of the model that a recording cannot know (--tokenizer,\n"
            "--norm-stats, ...) have to be given again. Exit code 3 when a file is out of bounds, 1 when "
            "one\n"
            "could not be read or run.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
        .operand_name = "FILE",
        .operands = &r->operands,
        .model_optional = true,
        .recorded = true,
    };
    int code = cli_parse(&command, argc, argv, &r->common);
    if (code != CLI_GO)
        return code;
    return r->operands.n ? CLI_GO : cli_usage(&r->common, "expected a recording or a folder of recordings");
}

static int work(replay *r)
{
    int code = CLI_OK;
    pv_status st = list_files(r);
    if (st)
        return cli_fail(&r->common, st);
    cJSON *json = r->common.json ? cli_json("pivot.replay/1") : NULL;
    cJSON *files = json ? cJSON_AddArrayToObject(json, "files") : NULL;
    for (int i = 0; i < r->n_files; i++) {
        outcome o = {.file = r->file[i]};
        pv_recording *recording = NULL;
        st = pv_recording_open(r->file[i], &recording);
        if (!st)
            st = pv_fail_in(replay_file(r, recording, &o), "%s", r->file[i]);
        pv_recording_close(&recording);
        if (st) {
            r->n_failed++;
            code = cli_fail(&r->common, st);
            continue;
        }
        r->n_same += o.same;
        r->n_within += !o.same && o.ok;
        r->n_out += !o.ok;
        if (json)
            add_json(files, &o);
        else
            print_outcome(&o);
    }
    if (code == CLI_OK && r->n_out)
        code = CLI_GATE;
    if (!json && r->n_files > 1)
        printf("%d recordings: %d with equal bytes, %d within bounds, %d out of bounds, %d not run\n",
               r->n_files, r->n_same, r->n_within, r->n_out, r->n_failed);
    if (!json)
        return code;
    cJSON_AddNumberToObject(json, "same_bytes", r->n_same);
    cJSON_AddNumberToObject(json, "within", r->n_within);
    cJSON_AddNumberToObject(json, "out", r->n_out);
    cJSON_AddNumberToObject(json, "not_run", r->n_failed);
    int printed = cli_json_print(&r->common, json);
    return printed ? printed : code;
}

int replay_main(int argc, char **argv)
{
    replay r = {.bound = 0};
    int code = parse(&r, argc, argv);
    if (code == CLI_GO)
        code = work(&r);
    pv_frame_free(&r.frame);
    pv_robot_free(&r.robot);
    unload(&r);
    for (int i = 0; i < r.n_files; i++)
        pv_free(r.file[i]);
    pv_free(r.file);
    return code;
}
