/* processors.c - checkpoints of lerobot: their processors' arithmetic to the bit of what numpy computes in
 * float32 (data/processors.inc, by make_processor_fixtures.py), the robot that they describe, and folders
 * that are wrong in each way. */
#include "test.h"
#include "faults.h"
#include "model/files.h"
#include "robot/robot.h"
#include "data/processors.inc"

static const char config_text[] =
    "{\"type\": \"pi05\", \"chunk_size\": 10, \"tokenizer_max_length\": 23, \"input_features\": {"
    "\"observation.images.front\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
    "\"observation.state\": {\"type\": \"STATE\", \"shape\": [12]},"
    "\"observation.images.wrist\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
    "\"observation.images.empty_camera_0\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]}},"
    "\"output_features\": {\"action\": {\"type\": \"ACTION\", \"shape\": [12]}}}";
static const char pre_text[] =
    "{\"name\": \"policy_preprocessor\", \"steps\": ["
    "{\"registry_name\": \"rename_observations_processor\", \"config\": {\"rename_map\": {}}},"
    "{\"registry_name\": \"to_batch_processor\", \"config\": {}},"
    "{\"registry_name\": \"relative_actions_processor\", \"config\": {\"enabled\": false, "
    "\"exclude_joints\": [],"
    " \"action_names\": null}},"
    "{\"registry_name\": \"normalizer_processor\", \"config\": {\"eps\": 1e-08, \"features\": {"
    "\"observation.state\": {\"type\": \"STATE\", \"shape\": [12]}, \"action\": {\"type\": \"ACTION\", "
    "\"shape\": [12]}},"
    "\"norm_map\": {\"VISUAL\": \"IDENTITY\", \"STATE\": \"QUANTILES\", \"ACTION\": \"QUANTILES\"}},"
    "\"state_file\": \"pre.safetensors\"},"
    "{\"registry_name\": \"pi05_prepare_state_tokenizer_processor_step\", \"config\": {}},"
    "{\"registry_name\": \"tokenizer_processor\", \"config\": {\"max_length\": 23, \"task_key\": \"task\","
    "\"padding_side\": \"right\", \"padding\": \"max_length\", \"truncation\": true, \"tokenizer_name\": "
    "\"x\"}},"
    "{\"registry_name\": \"device_processor\", \"config\": {\"device\": \"cuda\", \"float_dtype\": null}}]}";
static const char post_text[] =
    "{\"name\": \"policy_postprocessor\", \"steps\": ["
    "{\"registry_name\": \"unnormalizer_processor\", \"config\": {\"eps\": 1e-08, \"features\": {"
    "\"action\": {\"type\": \"ACTION\", \"shape\": [12]}}, \"norm_map\": {\"ACTION\": \"QUANTILES\"}},"
    "\"state_file\": \"post.safetensors\"},"
    "{\"registry_name\": \"absolute_actions_processor\", \"config\": {\"enabled\": false}},"
    "{\"registry_name\": \"device_processor\", \"config\": {\"device\": \"cpu\", \"float_dtype\": null}}]}";

/* A copy of `text` with each `from` made `to`; there has to be one. */
static char *bent(const char *text, const char *from, const char *to)
{
    size_t n = 0, part = strlen(from);
    char *out = malloc(1 << 17);
    CHECK(strstr(text, from));
    for (const char *at; (at = strstr(text, from)); text = at + part)
        n += (size_t)sprintf(out + n, "%.*s%s", (int)(at - text), text, to);
    strcpy(out + n, text);
    return out;
}

static void put(const char *name, const char *text, const char *from, const char *to)
{
    char *out = from ? bent(text, from, to) : NULL;
    files_text(name, out ? out : text);
    free(out);
}

static void put_stats(const char *name, const char *feature, const char *low, const float *a,
                      const char *high, const float *b, int n)
{
    pv_st_writer *w = NULL;
    char tensor[2][64];
    const int64_t dim = n;
    snprintf(tensor[0], sizeof *tensor, "%s.%s", feature, low);
    snprintf(tensor[1], sizeof *tensor, "%s.%s", feature, high);
    CHECK_OK(pv_st_writer_begin(in_folder(name), &w));
    for (int i = 0; i < 2; i++)
        CHECK_OK(pv_st_writer_declare(w, tensor[i], PV_F32, 1, &dim));
    CHECK_OK(pv_st_writer_data(w, a, sizeof *a * (size_t)n));
    CHECK_OK(pv_st_writer_data(w, b, sizeof *b * (size_t)n));
    CHECK_OK(pv_st_writer_end(&w));
}

static void put_all(void)
{
    float low[DIM], high[DIM];
    for (int i = 0; i < DIM; i++) {
        low[i] = (float)-i;
        high[i] = (float)(i + 1);
    }
    files_fresh();
    put("config.json", config_text, NULL, NULL);
    put(PV_PROCESSORS_PRE, pre_text, NULL, NULL);
    put(PV_PROCESSORS_POST, post_text, NULL, NULL);
    put_stats("pre.safetensors", "observation.state", "q01", low, "q99", high, DIM);
    put_stats("post.safetensors", "action", "q01", low, "q99", high, DIM);
}

/* ---- against numpy ---- */

static bool equal(const char *what, const double *got, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got)) {
            printf("    %s: number %d: expected %.17g, came %.17g\n", what, i, want[i], got[i]);
            return false;
        }
    return true;
}

static const char *text_of(double x)
{
    static char text[40];
    snprintf(text, sizeof text, "%.17g", x);
    return text;
}

/* Every third action but the first of three is relative, by its name. */
#define NAMES                                                                                                \
    "[\"a\", \"B.Grip\", \"a\", \"a\", \"x_GRIP\", \"a\", \"a\", \"grip\", \"a\", \"a\", \"grip_1\"]"

static void one_as_numpy(const struct norm_case *c)
{
    char mode[64], relative[512];
    put_all();
    snprintf(mode, sizeof mode, "\"STATE\": \"%s\"", c->mode);
    char *pre = bent(pre_text, "\"STATE\": \"QUANTILES\"", mode),
         *with_eps = bent(pre, "1e-08", text_of(c->eps));
    snprintf(relative, sizeof relative,
             "\"enabled\": true, \"exclude_joints\": [\"Grip\", \"\"], \"action_names\": " NAMES "}");
    put(PV_PROCESSORS_PRE, with_eps, "\"enabled\": false, \"exclude_joints\": [], \"action_names\": null}",
        relative);
    snprintf(mode, sizeof mode, "\"ACTION\": \"%s\"", c->mode);
    char *post = bent(post_text, "\"ACTION\": \"QUANTILES\"", mode),
         *post_eps = bent(post, "1e-08", text_of(c->eps));
    put(PV_PROCESSORS_POST, post_eps, "\"enabled\": false", "\"enabled\": true");
    free(pre);
    free(with_eps);
    free(post);
    free(post_eps);
    put_stats("pre.safetensors", "observation.state", c->low, c->a, c->high, c->b, DIM);
    put_stats("post.safetensors", "action", c->low, c->a, c->high, c->b, DIM);

    pv_processors *p = NULL;
    pv_robot *b = NULL;
    pv_frame *frame = NULL;
    double out[ROWS * DIM];
    static const uint8_t picture[3];
    if (!CHECK_OK(pv_processors_read(files_folder, &p)) || !CHECK(p->stats != NULL)) {
        pv_processors_free(&p);
        return;
    }
    for (int row = 0; row < ROWS; row++) /* the rule of the caller does not count */
        pv_normalize(&p->stats->state, row % 2 ? PV_NORM_ZSCORE : PV_NORM_QUANTILE, c->x + row * DIM,
                     out + row * DIM, DIM);
    CHECK(equal(c->mode, out, c->in, ROWS * DIM));
    for (int row = 0; row < ROWS; row++)
        pv_unnormalize(&p->stats->actions, PV_NORM_QUANTILE, c->x + row * DIM, out + row * DIM, DIM);
    CHECK(equal(c->mode, out, c->out, ROWS * DIM));

    CHECK_OK(pv_robot_load(files_folder, &b));
    const pv_field in[] = {{"observation.images.front", PV_FIELD_U8, 3, {1, 1, 3}, picture},
                           {"observation.state", PV_FIELD_F64, 1, {DIM}, c->x + 5 * DIM},
                           {"task", PV_FIELD_TEXT, 1, {4}, "fold"}};
    const pv_model model = {.stats = p->stats};
    double absolute[ROWS * DIM];
    CHECK_OK(pv_robot_observe(b, in, 3, &frame));
    CHECK_OK(pv_robot_act(b, &model, frame, out, ROWS, DIM, absolute));
    CHECK(equal("absolute", absolute, c->absolute, ROWS * DIM));
    pv_frame_free(&frame);
    pv_robot_free(&b);
    pv_processors_free(&p);
}

/* ---- what a folder says ---- */

static void described(void)
{
    pv_robot *b = NULL;
    pv_robot_info info = {0};
    pv_processors *p = NULL;
    put_all();
    put(PV_PROCESSORS_PRE, pre_text, "\"rename_map\": {}",
        "\"rename_map\": {\"observation.images.top\": \"observation.images.front\", \"robot\": "
        "\"observation.state\","
        " \"observation.images.wrist\": \"elsewhere\", \"unused\": \"nothing\"}");
    CHECK_OK(pv_processors_read(files_folder, &p));
    CHECK(p && p->max_tokens == 23 && p->state_dim == DIM && p->action_dim == DIM && !p->relative);
    pv_processors_free(&p);
    if (!CHECK_OK(pv_robot_load(files_folder, &b)))
        return;
    CHECK_OK(pv_robot_describe(b, &info));
    CHECK(info.n_cameras == 3 && !strcmp(info.slot[0], "front") && !strcmp(info.slot[1], "wrist") &&
          !strcmp(info.slot[2], "empty_camera_0"));
    CHECK(!strcmp(info.key[0], "observation.images.top") && !info.key[1] && !info.key[2] && info.optional[0]);
    CHECK(info.n_state_keys == 1 && !strcmp(info.state_key[0], "robot") && info.state_dim == DIM &&
          info.action_dim == DIM);
    CHECK(!strcmp(info.prompt_key, "task") && !info.default_prompt && !info.delta);
    pv_robot *again = NULL; /* what inspect prints may be given back as a file */
    CHECK_OK(pv_robot_parse(info.json, strlen(info.json), "again", "again", &again));
    pv_robot_free(&again);

    /* Floats of lerobot were u8 / 255: each comes back. A name that is none of its cameras' is no slip. */
    float levels[256 * 3];
    double state[DIM] = {0.1};
    pv_frame *frame = NULL;
    for (int i = 0; i < 256 * 3; i++)
        levels[i] = (float)(i % 256) / 255.0f;
    pv_field in[] = {{"observation.images.top", PV_FIELD_F32, 3, {3, 16, 16}, levels},
                     {"robot", PV_FIELD_F64, 1, {DIM}, state},
                     {"task", PV_FIELD_TEXT, 1, {4}, "fold"},
                     {"observation.images.tip", PV_FIELD_F32, 3, {3, 16, 16}, levels}};
    CHECK_OK(pv_robot_observe(b, in, 3, &frame));
    const pv_observation *o = pv_frame_observation(frame);
    for (int i = 0; o && i < 256; i++)
        if (!CHECK(o->images[0].pixels[3 * i] == i && o->images[0].pixels[3 * i + 2] == i))
            break;
    CHECK(o && o->state[0] == (double)0.1f);
    CHECK_STATUS(pv_robot_observe(b, in, 4, &frame), PV_E_ARG);
    CHECK_TEXT("observation.images.tip");
    state[3] = 1e300; /* no float32 */
    CHECK_STATUS(pv_robot_observe(b, in, 3, &frame), PV_E_NOT_FINITE);
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

/* Fewer numbers than a feature that another checkpoint handed down; statistics that are not there; what is
 * not normalised. */
static void sizes(void)
{
    pv_processors *p = NULL;
    float x[6] = {0}, y[6] = {1, 1, 1, 1, 1, 1};
    put_all();
    put_stats("pre.safetensors", "observation.state", "q01", x, "q99", y, 6);
    CHECK_OK(pv_processors_read(files_folder, &p));
    CHECK(p && p->state_dim == 6);
    pv_processors_free(&p);
    put(PV_PROCESSORS_PRE, pre_text, "\"eps\"",
        "\"normalize_observation_keys\": [\"observation.other\"], \"eps\"");
    CHECK_OK(pv_processors_read(files_folder, &p));
    CHECK(p && p->state_dim == DIM && p->stats->state.mode == PV_NORM_IDENTITY &&
          p->stats->actions.mode == PV_NORM_RANGE);
    pv_processors_free(&p);
    put(PV_PROCESSORS_PRE, pre_text, ",\"state_file\": \"pre.safetensors\"", "");
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("QUANTILES needs one");
    put(PV_PROCESSORS_POST, post_text, ",\"state_file\": \"post.safetensors\"", "");
    CHECK_OK(pv_processors_read(files_folder, &p));
    CHECK(p && !p->stats && p->state_dim == DIM);
    pv_processors_free(&p);
    char *pre = bent(pre_text, ",\"state_file\": \"pre.safetensors\"", ""),
         *post = bent(post_text, ",\"state_file\": \"post.safetensors\"", "");
    put(PV_PROCESSORS_PRE, pre, "\"enabled\": false", "\"enabled\": true");
    put(PV_PROCESSORS_POST, post, "\"enabled\": false", "\"enabled\": true");
    free(pre);
    free(post);
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("cannot be added to actions without statistics");
}

/* ---- folders that are wrong ---- */

static const struct wrong {
    const char *file, *from, *to;
    pv_status status;
    const char *words[3];
} wrongs[] = {
    {"c", "{\"type\": \"pi05\"", "[1", PV_E_FILE, {"config.json"}},
    {"c", "\"input_features\"", "\"inputs\"", PV_E_FILE, {"config.json: input_features", "nothing"}},
    {"c", "{\"type\": \"VISUAL\"", "{\"type\": 3", PV_E_FILE, {"observation.images.front", "type"}},
    {"c", "\"VISUAL\"", "\"ENV\"", PV_E_FILE, {"at least one of type VISUAL"}},
    {"c", "images.wrist", "images.x.front", PV_E_FILE, {"two cameras end in '.front'"}},
    {"c", "images.wrist", "images.", PV_E_FILE, {"observation.images.'"}},
    {"c", "\"action\"", "\"actions\"", PV_E_FILE, {"output_features.action"}},
    {"c", "\"ACTION\", \"shape\": [12]", "\"ACTION\", \"shape\": [0]", PV_E_FILE, {"action.shape", "came 0"}},
    {"c",
     "\"ACTION\", \"shape\": [12]",
     "\"ACTION\", \"shape\": [257]",
     PV_E_FILE,
     {"action.shape", "came 257"}},
    {"c",
     "\"ACTION\", \"shape\": [12]",
     "\"ACTION\", \"shape\": [1e15]",
     PV_E_FILE,
     {"action.shape", "came 1000000000000000"}},
    {"c",
     "\"ACTION\", \"shape\": [12]",
     "\"ACTION\", \"shape\": [3, 12]",
     PV_E_FILE,
     {"one number in an array"}},
    {"c", "\"ACTION\", \"shape\": [12]", "\"ACTION\", \"shape\": [[12]]", PV_E_FILE, {"an array"}},
    {"c",
     "\"ACTION\", \"shape\": [12]",
     "\"ACTION\", \"shape\": [11]",
     PV_E_FILE,
     {"action.q01", "F32 [11]"}},
    {"c",
     "\"STATE\", \"shape\": [12]",
     "\"STATE\", \"shape\": \"12\"",
     PV_E_FILE,
     {"observation.state.shape"}},
    {"a", "\"steps\"", "\"stages\"", PV_E_FILE, {PV_PROCESSORS_PRE ": steps", "nothing"}},
    {"a", "\"name\"", "\"steps\": {}, \"name\"", PV_E_FILE, {"steps"}}, /* a key twice */
    {"a",
     "[{\"registry_name\": \"rename_observations_processor\"",
     "[7, {\"registry_name\": \"rename_observations_processor\"",
     PV_E_FILE,
     {"steps[0]", "registry_name"}},
    {"a",
     "\"to_batch_processor\"",
     "\"crop_processor\"",
     PV_E_UNSUPPORTED,
     {"steps[1]", "'crop_processor' is not known"}},
    {"a",
     "\"registry_name\": \"to_batch_processor\"",
     "\"class\": \"mine.Step\"",
     PV_E_UNSUPPORTED,
     {"'mine.Step' is not known"}},
    {"a",
     "\"to_batch_processor\", \"config\": {}",
     "\"to_batch_processor\", \"config\": {\"x\": 1}",
     PV_E_UNSUPPORTED,
     {"steps[1] (to_batch_processor)", "config.x"}},
    {"a",
     "\"to_batch_processor\", \"config\": {}",
     "\"to_batch_processor\", \"config\": []",
     PV_E_FILE,
     {"config: expected an object"}},
    {"a",
     "\"to_batch_processor\", \"config\": {}",
     "\"to_batch_processor\", \"config\": {}, \"state_file\": \"x\"",
     PV_E_FILE,
     {"to_batch_processor", "state_file: expected none"}},
    {"a",
     "\"to_batch_processor\"",
     "\"normalizer_processor\"",
     PV_E_FILE,
     {"steps[1] (normalizer_processor)", "features"}},
    {"a", "\"rename_map\": {}", "\"rename_map\": 1", PV_E_FILE, {"rename_map: expected an object"}},
    {"a",
     "\"rename_map\": {}",
     "\"rename_map\": {\"a\": 1}",
     PV_E_FILE,
     {"rename_observations_processor", "a: expected text"}},
    {"a",
     "\"rename_map\": {}",
     "\"rename_map\": {\"a\": \"observation.state\", \"b\": \"observation.state\"}",
     PV_E_UNSUPPORTED,
     {"'observation.state' has two names before"}},
    {"a",
     "\"rename_map\": {}",
     "\"rename_map\": {\"observation.state\": \"b\"}",
     PV_E_FILE,
     {"'observation.state' is renamed away"}},
    {"a",
     "\"enabled\": false",
     "\"enabled\": \"no\"",
     PV_E_FILE,
     {"relative_actions_processor", "enabled: expected true or false"}},
    {"a",
     "\"enabled\": false",
     "\"enabled\": true",
     PV_E_UNSUPPORTED,
     {"relative_actions_processor is enabled, absolute"}},
    {"a", "\"exclude_joints\": []", "\"exclude_joints\": [1]", PV_E_FILE, {"exclude_joints", "came 1"}},
    {"a",
     "\"exclude_joints\": [], \"action_names\": null",
     "\"exclude_joints\": [\"x\"], \"action_names\": [\"\xc3\x84\"]",
     PV_E_UNSUPPORTED,
     {"expected a name in ASCII"}},
    {"a", "\"eps\": 1e-08", "\"eps\": -1", PV_E_FILE, {"config.eps", "came -1"}},
    {"a", "\"eps\": 1e-08", "\"epsilon\": 1", PV_E_UNSUPPORTED, {"config.epsilon is not known here"}},
    {"a",
     "\"eps\": 1e-08",
     "\"normalize_observation_keys\": \"all\"",
     PV_E_FILE,
     {"normalize_observation_keys"}},
    {"a",
     "{\"type\": \"STATE\"",
     "{\"type\": \"ENV\"",
     PV_E_FILE,
     {"expected 'observation.state' of type STATE"}},
    {"a", "\"norm_map\"", "\"norm_maps\"", PV_E_UNSUPPORTED, {"config.norm_maps"}},
    {"a", "\"STATE\": \"QUANTILES\"", "\"STATE\": \"LOG\"", PV_E_UNSUPPORTED, {"norm_map.STATE", "came LOG"}},
    {"a", "\"STATE\": \"QUANTILES\"", "\"STATE\": {}", PV_E_FILE, {"STATE: expected text", "an object"}},
    {"a",
     "\"STATE\": \"QUANTILES\"",
     "\"STATE\": \"MEAN_STD\"",
     PV_E_FILE,
     {"'observation.state.mean' is missing, MEAN_STD"}},
    {"a", "\"VISUAL\": \"IDENTITY\"", "\"VISUAL\": \"MEAN_STD\"", PV_E_UNSUPPORTED, {"norm_map.VISUAL"}},
    {"a",
     "\"pre.safetensors\"",
     "\"../pre.safetensors\"",
     PV_E_FILE,
     {"steps[3] (normalizer_processor): state_file"}},
    {"a", "\"pre.safetensors\"", "\"/etc/passwd\"", PV_E_FILE, {"state_file", "in the same folder"}},
    {"a",
     "\"pre.safetensors\"",
     "\"gone.safetensors\"",
     PV_E_FILE,
     {"steps[3] (normalizer_processor): state_file", "gone.safetensors"}},
    {"a",
     "\"pre.safetensors\"",
     "\"post.safetensors\"",
     PV_E_FILE,
     {"'observation.state.q01' is missing, QUANTILES"}},
    {"a", "\"pre.safetensors\"", "\"config.json\"", PV_E_FILE, {"state_file", "config.json"}},
    {"a", "\"pre.safetensors\"", "7", PV_E_FILE, {"state_file: expected text"}},
    {"a",
     "pi05_prepare_state_tokenizer_processor_step",
     "pi05_subtask_tokenizer_processor_step",
     PV_E_UNSUPPORTED,
     {"'pi05_subtask_tokenizer_processor_step' is not known"}},
    {"a",
     "{\"registry_name\": \"pi05_prepare_state_tokenizer_processor_step\", \"config\": {}},",
     "",
     PV_E_UNSUPPORTED,
     {"'pi05_prepare_state_tokenizer_processor_step', it is missing"}},
    {"a",
     "{\"registry_name\": \"to_batch_processor\"",
     "{\"registry_name\": \"pi05_prepare_state_tokenizer_processor_step\"",
     PV_E_UNSUPPORTED,
     {"steps[2] (relative_actions_processor)", "come before"}},
    {"a", "\"max_length\": 23", "\"max_length\": 2.5", PV_E_FILE, {"config.max_length", "2.5"}},
    {"a",
     "\"task_key\": \"task\"",
     "\"task_key\": \"goal\"",
     PV_E_FILE,
     {"config.task_key", "expected task", "goal"}},
    {"a", "\"padding_side\": \"right\"", "\"padding_side\": \"left\"", PV_E_FILE, {"padding_side"}},
    {"a", "\"truncation\": true", "\"truncation\": false", PV_E_FILE, {"config.truncation"}},
    {"a",
     "\"float_dtype\": null",
     "\"float_dtype\": \"bfloat16\"",
     PV_E_UNSUPPORTED,
     {"device_processor", "came bfloat16"}},
    {"z",
     "\"unnormalizer_processor\"",
     "\"normalizer_processor\"",
     PV_E_UNSUPPORTED,
     {PV_PROCESSORS_POST ": steps[0]"}},
    {"z",
     "\"ACTION\": \"QUANTILES\"",
     "\"ACTION\": \"quantiles\"",
     PV_E_UNSUPPORTED,
     {"norm_map.ACTION", "came quantiles"}},
    {"z",
     "\"enabled\": false",
     "\"enabled\": true",
     PV_E_UNSUPPORTED,
     {"absolute_actions_processor is enabled"}},
    {"z", "\"post.safetensors\"", "\"gone\"", PV_E_FILE, {PV_PROCESSORS_POST ": steps[0]", "gone"}},
    {"z",
     "\"absolute_actions_processor\", \"config\": {\"enabled\": false}",
     "\"absolute_actions_processor\", \"config\": 0",
     PV_E_FILE,
     {"steps[1] (absolute_actions_processor)"}},
};

static void refused(void)
{
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        const struct wrong *w = &wrongs[i];
        pv_processors *p = (pv_processors *)1;
        pv_robot *b = (pv_robot *)1;
        put_all();
        if (*w->file == 'c')
            put("config.json", config_text, w->from, w->to);
        else if (*w->file == 'a')
            put(PV_PROCESSORS_PRE, pre_text, w->from, w->to);
        else
            put(PV_PROCESSORS_POST, post_text, w->from, w->to);
        bool ok = CHECK_STATUS(pv_processors_read(files_folder, &p), w->status);
        for (int k = 0; k < 3 && w->words[k]; k++)
            ok = CHECK_TEXT(w->words[k]) && ok;
        ok = CHECK(!p) && ok;
        ok = CHECK_STATUS(pv_robot_load(files_folder, &b), w->status) && CHECK(!b) && ok;
        if (!ok)
            printf("    of case %zu: %s\n", i, w->to);
    }
}

/* Statistics that are no numbers, or in the wrong order, or too many; files cut at every byte; and each file
 * missing. */
static void broken_files(void)
{
    pv_processors *p = NULL;
    float low[DIM] = {0}, high[DIM], many[300] = {0};
    for (int i = 0; i < DIM; i++)
        high[i] = 1;
    put_all();
    low[4] = NAN;
    put_stats("pre.safetensors", "observation.state", "q01", low, "q99", high, DIM);
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("'observation.state.q01': number 4 is nan");
    low[4] = 2;
    put_stats("pre.safetensors", "observation.state", "q01", low, "q99", high, DIM);
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("number 4 goes from 2 to 1");
    put_stats("pre.safetensors", "observation.state", "q01", many, "q99", many, 300);
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("300 elements");
    low[4] = -1;
    put_stats("pre.safetensors", "observation.state", "mean", high, "std", low, DIM);
    put(PV_PROCESSORS_PRE, pre_text, "\"STATE\": \"QUANTILES\"", "\"STATE\": \"MEAN_STD\"");
    CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
    CHECK_TEXT("'observation.state.std': number 4 is -1");

    put_all();
    char *bytes = NULL;
    size_t n = 0;
    CHECK_OK(pv_file_read(in_folder("pre.safetensors"), 1 << 20, &bytes, &n));
    for (size_t k = 0; k < n; k++) {
        CHECK_OK(pv_file_write(in_folder("pre.safetensors"), bytes, k));
        CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
        CHECK_TEXT("pre.safetensors");
    }
    pv_free(bytes);
    static const char *const names[] = {"config.json", PV_PROCESSORS_PRE, PV_PROCESSORS_POST,
                                        "pre.safetensors", "post.safetensors"};
    static const char *const texts[] = {config_text, pre_text, post_text};
    for (int i = 0; i < 5; i++) {
        put_all();
        CHECK(!unlink(in_folder(names[i])));
        CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
        CHECK_TEXT(names[i]);
    }
    for (int i = 0; i < 3; i++) {
        put_all();
        for (size_t k = 0; k < strlen(texts[i]); k += 7) {
            CHECK_OK(pv_file_write(in_folder(names[i]), texts[i], k));
            CHECK_STATUS(pv_processors_read(files_folder, &p), PV_E_FILE);
            CHECK_TEXT(names[i]);
        }
    }
    files_fresh();
    pv_robot *b = NULL;
    CHECK_STATUS(pv_robot_load(files_folder, &b), PV_E_FILE);
    CHECK_TEXT("a folder without " PV_PROCESSORS_PRE);
}

/* Each allocation of ours fails once. (cJSON's are its own.) */
static pv_status load_once(void *folder)
{
    pv_robot *b = NULL;
    pv_status st = pv_robot_load(folder, &b);
    CHECK(!st == (b != NULL));
    pv_robot_free(&b);
    return st;
}

int main(void)
{
    for (size_t i = 0; i < sizeof norm_cases / sizeof *norm_cases; i++)
        one_as_numpy(&norm_cases[i]);
    described();
    sizes();
    refused();
    broken_files();
    put_all();
    fault_every(load_once, files_folder, "a robot of lerobot");
    files_clear(files_folder);
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
