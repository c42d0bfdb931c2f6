/* synth.c - writes a checkpoint folder as published, with made-up weights (docs/synthetic.md), so that
 * everything can be tried without a download. It is built beside its final place and renamed: the folder is
 * there whole or not at all. */
#include "cli.h"
#include "picture.h"
#include "scene.h"
#include "synth_weights.h"
#include "base/clock.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/processors.h"
#include "model/model.h"
#include "model/tiny.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ASSET_ID "synthetic"
#define WIDTH    320
#define HEIGHT   240

typedef struct synth {
    cli_options common;
    const char *kind, *layout, *out, *dtype;
    int shards;
    bool full, lerobot;
    pv_stats *stats; /* those of the tiny model */
    pv_config config;
    char part[4096]; /* the folder until it is whole */
    synth_weights_params weights;
    cli_progress_bar bar;
} synth;

/* ---- stopping ---- */

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    signalled = number;
}

static bool stopped(void)
{
    return signalled != 0;
}

static void watch(bool on, struct sigaction old[2])
{
    const int numbers[] = {SIGINT, SIGTERM};
    struct sigaction ours = {.sa_handler = on_signal};
    sigemptyset(&ours.sa_mask);
    for (int i = 0; i < 2; i++)
        sigaction(numbers[i], on ? &ours : &old[i], on ? &old[i] : NULL);
}

/* ---- folders ---- */

static pv_status in_part(const synth *s, char *path, size_t size, const char *name)
{
    if ((size_t)snprintf(path, size, "%s/%s", s->part, name) >= size)
        return pv_fail(PV_E_ARG, "%s/%s: this path is too long", s->part, name);
    return PV_OK;
}

static pv_status make_folder(const synth *s, const char *name)
{
    char path[4200];
    pv_status st = in_part(s, path, sizeof path, name);
    if (!st && mkdir(path, 0777))
        st = pv_fail(PV_E_FILE, "%s: cannot be made: %s", path, strerror(errno));
    return st;
}

static void remove_tree(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[4400];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, e->d_name) < sizeof path && unlink(path))
            remove_tree(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

static bool is_empty(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (dir)
        closedir(dir);
    return dir && n == 0;
}

/* Everything that can be known before the first byte is written: the place is free, and there is room. */
static pv_status begin(synth *s)
{
    struct stat there;
    size_t n = strlen(s->out);
    while (n > 1 && s->out[n - 1] == '/')
        n--;
    if ((size_t)snprintf(s->part, sizeof s->part, "%.*s.%ld.part", (int)n, s->out, (long)getpid()) >=
        sizeof s->part)
        return pv_fail(PV_E_ARG, "%s: this path is too long", s->out);
    if (!stat(s->out, &there) && (!S_ISDIR(there.st_mode) || !is_empty(s->out)))
        return pv_fail(PV_E_FILE, "%s: is there already and not an empty folder", s->out);
    if (mkdir(s->part, 0777)) {
        int why = errno;
        *s->part = 0;
        return pv_fail(PV_E_FILE, "%s: a folder beside it cannot be made: %s", s->out, strerror(why));
    }
    struct statvfs disk;
    uint64_t bytes;
    pv_status st = synth_weights_bytes(&s->weights, &bytes);
    if (!st && !statvfs(s->part, &disk) && (uint64_t)disk.f_bavail * disk.f_frsize < bytes) {
        cli_text need, have;
        st = pv_fail(PV_E_FILE, "%s: the weights need %s, the disk has %s left", s->out,
                     cli_bytes(&need, bytes), cli_bytes(&have, (uint64_t)disk.f_bavail * disk.f_frsize));
    }
    return st;
}

/* ---- what lies around the weights ---- */

static pv_status put(const synth *s, const char *name, const void *data, size_t n)
{
    char path[4200];
    pv_status st = in_part(s, path, sizeof path, name);
    return st ? st : pv_file_write(path, data, n);
}

static pv_status put_json(const synth *s, const char *name, cJSON *json)
{
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    pv_status st = text ? put(s, name, text, strlen(text)) : pv_fail(PV_E_MEMORY, "%s: out of memory", name);
    cJSON_free(text);
    return st;
}

/* The keys that openpi's examples/convert_jax_model_to_pytorch.py writes. */
static void openpi_keys(const synth *s, cJSON *json)
{
    cJSON_AddNumberToObject(json, "action_dim", s->config.action_dim);
    cJSON_AddNumberToObject(json, "action_horizon", s->config.horizon);
    cJSON_AddStringToObject(json, "paligemma_variant", s->full ? "gemma_2b" : "tiny");
    cJSON_AddStringToObject(json, "action_expert_variant", s->full ? "gemma_300m" : "tiny");
    cJSON_AddStringToObject(json, "precision", s->weights.dtype == PV_F32 ? "float32" : "bfloat16");
}

static void add_feature(cJSON *features, const char *name, const char *type, const int *shape, int n)
{
    cJSON *f = cJSON_AddObjectToObject(features, name);
    cJSON_AddStringToObject(f, "type", type);
    cJSON_AddItemToObject(f, "shape", cJSON_CreateIntArray(shape, n));
}

static void add_features(const synth *s, cJSON *features, bool inputs, bool outputs)
{
    const pv_config *c = &s->config;
    const int image[] = {3, c->vision.image, c->vision.image};
    for (int i = 0; inputs && i < c->n_cameras; i++) {
        char name[PV_CAMERA_NAME + 32];
        snprintf(name, sizeof name, "observation.images.%s", c->camera[i]);
        add_feature(features, name, "VISUAL", image, 3);
    }
    if (inputs)
        add_feature(features, "observation.state", "STATE", &s->stats->state.dim, 1);
    if (outputs)
        add_feature(features, "action", "ACTION", &s->stats->actions.dim, 1);
}

static void add_rules(cJSON *json, const char *key)
{
    cJSON *rules = cJSON_AddObjectToObject(json, key);
    cJSON_AddStringToObject(rules, "VISUAL", "IDENTITY");
    cJSON_AddStringToObject(rules, "STATE", "QUANTILES");
    cJSON_AddStringToObject(rules, "ACTION", "QUANTILES");
}

/* The keys of lerobot's PI05Config that say something about the model. */
static void lerobot_keys(const synth *s, cJSON *json)
{
    const pv_config *c = &s->config;
    const int side[] = {c->vision.image, c->vision.image};
    cJSON_AddStringToObject(json, "type", "pi05");
    cJSON_AddNumberToObject(json, "n_obs_steps", 1);
    add_features(s, cJSON_AddObjectToObject(json, "input_features"), true, false);
    add_features(s, cJSON_AddObjectToObject(json, "output_features"), false, true);
    add_rules(json, "normalization_mapping");
    cJSON_AddStringToObject(json, "paligemma_variant", s->full ? "gemma_2b" : "tiny");
    cJSON_AddStringToObject(json, "action_expert_variant", s->full ? "gemma_300m" : "tiny");
    cJSON_AddStringToObject(json, "dtype", s->weights.dtype == PV_F32 ? "float32" : "bfloat16");
    cJSON_AddNumberToObject(json, "chunk_size", c->horizon);
    cJSON_AddNumberToObject(json, "n_action_steps", c->horizon);
    cJSON_AddNumberToObject(json, "max_state_dim", c->action_dim);
    cJSON_AddNumberToObject(json, "max_action_dim", c->action_dim);
    cJSON_AddNumberToObject(json, "num_inference_steps", c->num_steps);
    cJSON_AddNumberToObject(json, "min_period", c->time_min_period);
    cJSON_AddNumberToObject(json, "max_period", c->time_max_period);
    cJSON_AddBoolToObject(json, "use_relative_actions", false);
    cJSON_AddItemToObject(json, "image_resolution", cJSON_CreateIntArray(side, 2));
    cJSON_AddNumberToObject(json, "empty_cameras", 0);
    cJSON_AddNumberToObject(json, "tokenizer_max_length", c->max_tokens);
}

/* As published; the tiny model's dimensions are nobody's default, so they are spelled out in our own keys. */
static pv_status put_config(const synth *s)
{
    cJSON *json = cJSON_CreateObject();
    pv_status st = PV_OK;
    if (s->lerobot)
        lerobot_keys(s, json);
    else
        openpi_keys(s, json);
    if (!s->full) {
        cJSON *own = NULL;
        char *text = pv_config_text(&s->config);
        st = text ? pv_json_parse(text, strlen(text), 1 << 20, "config.json", &own) : PV_E_MEMORY;
        for (cJSON *v; own && (v = own->child);) {
            v = cJSON_DetachItemViaPointer(own, v);
            if (cJSON_GetObjectItemCaseSensitive(json, v->string)) /* action_dim has one name in both */
                cJSON_Delete(v);
            else
                cJSON_AddItemToObject(json, v->string, v);
        }
        pv_free(text);
        cJSON_Delete(own);
    }
    if (!st)
        return put_json(s, "config.json", json);
    cJSON_Delete(json);
    return st;
}

static const char *picture_name(const synth *s, int i, char *name, size_t size)
{
    snprintf(name, size, "images/%s.%s", s->config.camera[i],
             i == 1 ? "jpg" : "png"); /* one of each kind at least */
    return name;
}

static pv_status put_pictures(const synth *s)
{
    uint8_t *rgb = pv_alloc((size_t)WIDTH * HEIGHT * 3);
    pv_status st = rgb ? make_folder(s, "images") : PV_E_MEMORY;
    for (int i = 0; !st && i < s->config.n_cameras && i < SCENE_VIEWS; i++) {
        char name[128], path[4200];
        scene_draw(i, WIDTH, HEIGHT, rgb);
        st = in_part(s, path, sizeof path, picture_name(s, i, name, sizeof name));
        if (!st)
            st = i == 1 ? picture_write_jpeg(path, rgb, WIDTH, HEIGHT, 92)
                        : picture_write_png(path, rgb, WIDTH, HEIGHT);
    }
    pv_free(rgb);
    return st;
}

/* ---- statistics: where openpi has them, or in the processors of lerobot ---- */

static cJSON *add_step(cJSON *steps, const char *name, const char *state_file)
{
    cJSON *step = cJSON_CreateObject();
    cJSON_AddItemToArray(steps, step);
    cJSON_AddStringToObject(step, "registry_name", name);
    cJSON *config = cJSON_AddObjectToObject(step, "config");
    if (state_file)
        cJSON_AddStringToObject(step, "state_file", state_file);
    return config;
}

static void add_norm(const synth *s, cJSON *steps, const char *name, const char *state_file, bool inputs)
{
    cJSON *config = add_step(steps, name, state_file);
    cJSON_AddNumberToObject(config, "eps", 1e-8);
    add_features(s, cJSON_AddObjectToObject(config, "features"), inputs, true);
    add_rules(config, "norm_map");
}

#define PRE_STATE  "policy_preprocessor_step_3_normalizer_processor.safetensors"
#define POST_STATE "policy_postprocessor_step_0_unnormalizer_processor.safetensors"

static void add_device(cJSON *steps)
{
    cJSON *device = add_step(steps, "device_processor", NULL);
    cJSON_AddStringToObject(device, "device", "cpu");
    cJSON_AddNullToObject(device, "float_dtype");
}

static pv_status put_pre(const synth *s)
{
    cJSON *pre = cJSON_CreateObject();
    cJSON_AddStringToObject(pre, "name", "policy_preprocessor");
    cJSON *steps = cJSON_AddArrayToObject(pre, "steps");
    cJSON_AddObjectToObject(add_step(steps, "rename_observations_processor", NULL), "rename_map");
    add_step(steps, "to_batch_processor", NULL);
    cJSON *relative = add_step(steps, "relative_actions_processor", NULL);
    cJSON_AddBoolToObject(relative, "enabled", false);
    cJSON_AddArrayToObject(relative, "exclude_joints");
    cJSON_AddNullToObject(relative, "action_names");
    add_norm(s, steps, "normalizer_processor", PRE_STATE, true);
    add_step(steps, "pi05_prepare_state_tokenizer_processor_step", NULL);
    cJSON *tokenizer = add_step(steps, "tokenizer_processor", NULL);
    cJSON_AddNumberToObject(tokenizer, "max_length", s->config.max_tokens);
    cJSON_AddStringToObject(tokenizer, "task_key", "task");
    cJSON_AddStringToObject(tokenizer, "padding_side", "right");
    cJSON_AddStringToObject(tokenizer, "padding", "max_length");
    cJSON_AddBoolToObject(tokenizer, "truncation", true);
    cJSON_AddStringToObject(tokenizer, "tokenizer_name", "google/paligemma-3b-pt-224");
    add_device(steps);
    return put_json(s, PV_PROCESSORS_PRE, pre);
}

static pv_status put_post(const synth *s)
{
    cJSON *post = cJSON_CreateObject();
    cJSON_AddStringToObject(post, "name", "policy_postprocessor");
    cJSON *steps = cJSON_AddArrayToObject(post, "steps");
    add_norm(s, steps, "unnormalizer_processor", POST_STATE, false);
    cJSON_AddBoolToObject(add_step(steps, "absolute_actions_processor", NULL), "enabled", false);
    add_device(steps);
    return put_json(s, PV_PROCESSORS_POST, post);
}

/* Both files hold the statistics of both, as lerobot writes them. */
static pv_status put_numbers(const synth *s, const char *name, const pv_stats *stats)
{
    const pv_norm *norms[] = {&stats->state, &stats->actions};
    static const char *const features[] = {"observation.state", "action"}, *const vectors[] = {"mean", "std",
                                                                                               "q01", "q99"};
    pv_st_writer *w = NULL;
    char path[4200], tensor[64];
    float x[64];
    pv_status st = in_part(s, path, sizeof path, name);
    if (!st)
        st = pv_st_writer_begin(path, &w);
    for (int pass = 0; pass < 2; pass++)
        for (int f = 0; f < 2; f++) {
            const double *from[] = {norms[f]->mean, norms[f]->std, norms[f]->q01, norms[f]->q99};
            const int64_t dim = norms[f]->dim;
            for (int v = 0; v < 4 && !st; v++) {
                snprintf(tensor, sizeof tensor, "%s.%s", features[f], vectors[v]);
                for (int64_t i = 0; i < dim; i++)
                    x[i] = (float)from[v][i];
                st = pass ? pv_st_writer_data(w, x, sizeof *x * (size_t)dim)
                          : pv_st_writer_declare(w, tensor, PV_F32, 1, &dim);
            }
        }
    if (!st)
        return pv_st_writer_end(&w);
    pv_st_writer_abort(&w);
    return st;
}

static pv_status put_stats(const synth *s)
{
    if (s->lerobot) {
        pv_status st = put_pre(s);
        if (!st)
            st = put_post(s);
        if (!st)
            st = put_numbers(s, PRE_STATE, s->stats);
        return st ? st : put_numbers(s, POST_STATE, s->stats);
    }
    pv_status st = make_folder(s, "assets");
    if (!st)
        st = make_folder(s, "assets/" ASSET_ID);
    return st ? st : put(s, "assets/" ASSET_ID "/norm_stats.json", pv_tiny_stats, strlen(pv_tiny_stats));
}

/* ---- the command that runs it ---- */

static void append(char *text, size_t size, const char *fmt, ...) PV_PRINTF(3, 4);
static void append(char *text, size_t size, const char *fmt, ...)
{
    size_t used = strlen(text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + used, size - used, fmt, ap);
    va_end(ap);
}

static void run_command(const synth *s, const char *folder, char *text, size_t size)
{
    snprintf(text, size, "pivot run --model %s \\\n", *folder ? folder : ".");
    for (int i = 0; i < s->config.n_cameras; i++) {
        char name[128];
        append(text, size, "    --image %s=%s%s%s \\\n", s->config.camera[i], folder, *folder ? "/" : "",
               picture_name(s, i, name, sizeof name));
    }
    append(text, size,
           "    --prompt \"pick up the red block\" --state 0.05,-0.02,0.9,3.1,0.1,-0.1,0.025,-0.025 \\\n"
           "    --plot actions.svg\n");
}

static pv_status put_readme(const synth *s)
{
    char text[4096], command[2048];
    run_command(s, "", command, sizeof command);
    snprintf(
        text, sizeof text,
        "A Pi0.5 checkpoint with made-up weights (%s), laid out as %s publishes them. It was written by\n\n"
        "    pivot synth %s --layout %s --dtype %s --shards %d --out ...\n\n"
        "The weights come from a hash: its actions are deterministic and mean nothing. From within this "
        "folder:\n\n%s\n"
        "The statistics (%s) and the tokenizer (paligemma_tokenizer.model, a\n"
        "small one) are made up too. %s\n",
        s->full ? "full size" : "tiny", s->lerobot ? "lerobot" : "openpi's PyTorch exporter", s->kind,
        s->layout, s->dtype, s->shards, command,
        s->lerobot ? "those of " PV_PROCESSORS_PRE : "assets/" ASSET_ID "/norm_stats.json",
        "A published checkpoint has no tokenizer: it is run with\n--tokenizer FILE.");
    return put(s, "README.txt", text, strlen(text));
}

/* ---- all of it ---- */

/* What was written loads: nothing was left out, for lack of memory say. */
static pv_status try_out(const synth *s)
{
    pv_model *m = NULL;
    pv_status st = pv_model_load(s->part, NULL, &m);
    if (!st && m->config.horizon != s->config.horizon)
        st =
            pv_fail(PV_E_FILE, "%s: written, but read back with a horizon of %d", s->part, m->config.horizon);
    pv_model_free(&m);
    return pv_fail_in(st, "what was written does not load");
}

static pv_status write_folder(synth *s)
{
    pv_status st = begin(s);
    if (!st)
        st = put_config(s);
    if (!st)
        st = put_stats(s);
    if (!st)
        st = put(s, "paligemma_tokenizer.model", pv_tiny_tokenizer, pv_tiny_tokenizer_bytes);
    if (!st)
        st = put_pictures(s);
    if (!st)
        st = put_readme(s);
    if (!st)
        st = synth_weights_write(s->part, &s->weights);
    if (!st)
        st = try_out(s);
    if (!st && rename(s->part, s->out))
        st = pv_fail(PV_E_FILE, "%s: cannot be renamed from %s: %s", s->out, s->part, strerror(errno));
    if (st && *s->part)
        remove_tree(s->part);
    return st;
}

static int report(const synth *s, double ms)
{
    uint64_t bytes = 0;
    cli_text a, b;
    pv_status st = synth_weights_bytes(&s->weights, &bytes);
    if (st)
        return cli_fail(&s->common, st);
    if (s->common.json) {
        cJSON *json = cli_json("pivot.synth/1");
        cJSON_AddStringToObject(json, "folder", s->out);
        cJSON_AddStringToObject(json, "model", s->kind);
        cJSON_AddStringToObject(json, "layout", s->layout);
        cJSON_AddStringToObject(json, "dtype", s->dtype);
        cJSON_AddNumberToObject(json, "weights_bytes", (double)bytes);
        cJSON_AddNumberToObject(json, "total_ms", ms);
        return cli_json_print(&s->common, json);
    }
    char command[16384];
    run_command(s, s->out, command, sizeof command);
    printf("%s: %s of weights in %s. To run it:\n\n%s", s->out, cli_bytes(&a, bytes), cli_ms(&b, ms),
           command);
    return CLI_OK;
}

static int parse(synth *s, int argc, char **argv)
{
    const cli_option options[] = {
        {"layout", "NAME", "whose names and files: openpi (default) or lerobot", CLI_TEXT, &s->layout},
        {"out", "DIR", "the folder to make; it must not be there, or be empty", CLI_TEXT, &s->out},
        {"dtype", "NAME", "of the weights: bf16 (default) or f32, the same values", CLI_TEXT, &s->dtype},
        {"shards", "N", "files to spread the weights over, with an index (default: 1)", CLI_INT, &s->shards,
         1, 64},
        {NULL},
    };
    const cli_command command = {
        .name = "synth",
        .purpose = "write a checkpoint folder with made-up weights, as openpi or lerobot lay it out",
        .usage = "full|tiny --out DIR [options]",
        .example = "pivot synth tiny --layout openpi --out tiny",
        .notes = "Weights come from a hash (docs/synthetic.md): the same everywhere, and without meaning. "
                 "full has\n"
                 "Pi0.5's dimensions (6.25 GiB as bf16), tiny is small enough for tests. Sample pictures, a "
                 "tokenizer\n"
                 "and statistics lie beside them; README.txt in the folder has the command that runs it.",
        .options = options,
        .groups = CLI_JSON,
        .operand_name = "full|tiny",
        .operand = &s->kind,
    };
    int code = cli_parse(&command, argc, argv, &s->common);
    if (code != CLI_GO)
        return code;
    if (!s->kind || (strcmp(s->kind, "full") && strcmp(s->kind, "tiny")))
        return cli_usage(&s->common, "expected full or tiny, came %s", s->kind ? s->kind : "neither");
    if (strcmp(s->layout, "openpi") && strcmp(s->layout, "lerobot"))
        return cli_usage(&s->common, "--layout: expected openpi or lerobot, came '%s'", s->layout);
    if (strcmp(s->dtype, "bf16") && strcmp(s->dtype, "f32"))
        return cli_usage(&s->common, "--dtype: expected bf16 or f32, came '%s'", s->dtype);
    if (!s->out || !*s->out)
        return cli_usage(&s->common, "expected --out DIR");
    return CLI_GO;
}

int synth_main(int argc, char **argv)
{
    synth s = {.layout = "openpi", .dtype = "bf16", .shards = 1};
    int code = parse(&s, argc, argv);
    if (code != CLI_GO)
        return code;
    s.full = !strcmp(s.kind, "full");
    s.lerobot = !strcmp(s.layout, "lerobot");
    if (s.full) {
        pv_config_full(&s.config);
        s.config.horizon = 50;
    } else {
        pv_config_tiny(&s.config);
        s.config.discrete_state = false; /* its prompt is too short for one */
    }
    s.bar.off = s.common.json;
    s.weights = (synth_weights_params){
        .config = &s.config,
        .lerobot = s.lerobot,
        .dtype = strcmp(s.dtype, "f32") ? PV_BF16 : PV_F32,
        .shards = s.shards,
        .progress = cli_progress,
        .user = &s.bar,
        .stopped = stopped,
    };
    struct sigaction before[2];
    double start = pv_now_ms();
    signalled = 0;
    watch(true, before);
    pv_status st = pv_stats_parse(pv_tiny_stats, strlen(pv_tiny_stats), "embedded statistics", &s.stats);
    if (!st)
        st = write_folder(&s);
    watch(false, before);
    cli_progress_end(&s.bar);
    pv_stats_free(&s.stats);
    return st ? cli_fail(&s.common, st) : report(&s, pv_now_ms() - start);
}
