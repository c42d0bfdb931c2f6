/* folder.c - what lies around the weights: config.json, statistics, tokenizer; found, chosen by flag, or
 * missed with words that name the flag. */
#include "files.h"
#include "tests/faults.h"

static file_list list;

static const char stats[] =
    "{\"norm_stats\": {"
    "\"state\": {\"mean\": [0, 1], \"std\": [1, 2], \"q01\": [-1, -3], \"q99\": [1, 5]},"
    "\"actions\": {\"mean\": [%d], \"std\": [1], \"q01\": [-1], \"q99\": [1]}}}";

static void put_stats(const char *name, int mean)
{
    char text[512], path[512], *slash;
    snprintf(text, sizeof text, stats, mean);
    snprintf(path, sizeof path, "%s", in_folder(name));
    for (slash = path + strlen(files_folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0777);
    }
    files_text(name, text);
}

static void put_config(const char *name, int horizon)
{
    pv_config c;
    pv_config_tiny(&c);
    c.horizon = horizon;
    char *text = pv_config_text(&c);
    if (!horizon) { /* as if it had not been said */
        char *line = strstr(text, "\"horizon\"");
        memcpy(line, "\"nothing\"", 9);
    }
    files_text(name, text);
    pv_free(text);
}

static void fresh(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    files_write(&list, in_folder("model.safetensors"), 0, 1);
    put_config("config.json", 10);
}

static pv_model_info info;

/* Loads, keeps what pv_model_describe says and the first mean of the actions (-1: no statistics). */
static pv_status load(const pv_model_params *p, double *mean)
{
    pv_model *m = NULL;
    pv_status st = pv_model_load(files_folder, p, &m);
    if (!st) {
        CHECK_OK(pv_model_describe(m, &info));
        *mean = m->stats ? m->stats->actions.mean[0] : -1;
    } else {
        CHECK(m == NULL);
    }
    pv_model_free(&m);
    CHECK(pv_alloc_live() == 0);
    return st;
}

static void statistics(void)
{
    double mean = 0;
    fresh();
    CHECK_OK(load(NULL, &mean));
    CHECK(mean == -1 && !info.has_stats && info.action_dim == 32 && info.state_dim == 32);
    CHECK(!strcmp(info.layout, "openpi") && info.horizon == 10 && info.n_cameras == 3 &&
          info.parameters == 1340096);

    put_stats("assets/lab/arm/norm_stats.json", 3); /* an id may have a slash */
    CHECK_OK(load(NULL, &mean));
    CHECK(mean == 3 && info.has_stats && info.action_dim == 1 && info.state_dim == 2 && !info.zscore);
    CHECK_OK(load(&(pv_model_params){.zscore = PV_ON}, &mean));
    CHECK(info.zscore);

    put_stats("assets/droid/norm_stats.json", 4);
    CHECK_STATUS(load(NULL, &mean), PV_E_ARG);
    CHECK_TEXT("droid");
    CHECK_TEXT("lab/arm");
    CHECK_TEXT("--asset-id");
    CHECK_OK(load(&(pv_model_params){.asset_id = "droid"}, &mean));
    CHECK(mean == 4);
    CHECK_OK(load(&(pv_model_params){.asset_id = "lab/arm"}, &mean));
    CHECK(mean == 3);
    CHECK_STATUS(load(&(pv_model_params){.asset_id = "libero"}, &mean), PV_E_FILE);
    CHECK_TEXT("assets/libero/norm_stats.json");
    CHECK_TEXT("no such file");

    put_stats("own.json", 5); /* a flag wins over all of them */
    CHECK_OK(load(&(pv_model_params){.norm_stats = in_folder("own.json")}, &mean));
    CHECK(mean == 5);
    CHECK_STATUS(load(&(pv_model_params){.norm_stats = in_folder("none.json")}, &mean), PV_E_FILE);
    CHECK_TEXT("none.json");
}

static void bad_statistics(void)
{
    double mean;
    fresh();
    mkdir(in_folder("assets"), 0777);
    mkdir(in_folder("assets/a"), 0777);
    files_text("assets/a/norm_stats.json",
               "{\"norm_stats\": {\"state\": {\"mean\": [0], \"std\": [1], \"q01\": [1], \"q99\": [1]},"
               "\"actions\": {\"mean\": [0], \"std\": [1], \"q01\": [-1], \"q99\": [1]}}}");
    CHECK_STATUS(load(NULL, &mean), PV_E_FILE);
    CHECK_TEXT("assets/a/norm_stats.json");
    CHECK_TEXT("state");
    CHECK_TEXT("q01");
    files_text("assets/a/norm_stats.json", "{\"norm_stats\": {\"state\": {\"mean\": [0], \"std\": [1]},"
                                           "\"actions\": {\"mean\": [0], \"std\": [1]}}}");
    CHECK(load(NULL, &mean) != PV_OK); /* no quantiles */
    CHECK_TEXT("assets/a/norm_stats.json");
    CHECK_TEXT("q01");
    CHECK_OK(load(&(pv_model_params){.zscore = PV_ON}, &mean));
    char many[2048] = "{\"norm_stats\": {\"state\": {\"mean\": [0], \"std\": [1], \"q01\": [-1], \"q99\": "
                      "[1]},\"actions\": {";
    static const char *const keys[] = {"mean", "std", "q01", "q99"};
    for (int k = 0; k < 4; k++) {
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s\"%s\": [", k ? "," : "", keys[k]);
        for (int i = 0; i < 33; i++) /* one more than the model has */
            snprintf(many + strlen(many), sizeof many - strlen(many), i ? ",%d" : "%d", k);
        strcat(many, "]");
    }
    strcat(many, "}}}");
    files_text("assets/a/norm_stats.json", many);
    CHECK_STATUS(load(NULL, &mean), PV_E_FILE);
    CHECK_TEXT("33 action dims; the model has 32");
    files_text("assets/a/norm_stats.json", "{");
    CHECK_STATUS(load(NULL, &mean), PV_E_FILE);
    CHECK_TEXT("assets/a/norm_stats.json");
}

static void horizon(void)
{
    double mean;
    fresh();
    put_config("config.json", 0);
    CHECK_STATUS(load(NULL, &mean), PV_E_ARG);
    CHECK_TEXT("--horizon");
    CHECK_OK(load(&(pv_model_params){.horizon = 7}, &mean));
    CHECK(info.horizon == 7);
    put_config("own.json", 9);
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json")}, &mean));
    CHECK(info.horizon == 9);
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json"), .horizon = 8}, &mean));
    CHECK(info.horizon == 8);
    CHECK_STATUS(load(&(pv_model_params){.horizon = -2}, &mean), PV_E_ARG);
    CHECK_TEXT("horizon");
    CHECK_STATUS(load(&(pv_model_params){.horizon = 100000}, &mean), PV_E_FILE);
    CHECK_TEXT("'horizon': expected 1 to 4096, came 100000");
}

static void discrete_state(void)
{
    double mean;
    fresh();
    CHECK_OK(load(NULL, &mean));
    CHECK(info.discrete_state);
    CHECK_OK(load(&(pv_model_params){.discrete_state = PV_OFF}, &mean));
    CHECK(!info.discrete_state);
}

static void tokenizer(void)
{
    double mean;
    fresh();
    CHECK_OK(load(NULL, &mean));
    CHECK(!info.has_tokenizer);
    files_text("tokenizer.model", "no model");
    pv_status st = load(NULL, &mean);
#ifdef PV_HAVE_SENTENCEPIECE
    CHECK(st == PV_E_FILE);
    CHECK_TEXT("tokenizer.model");
    char *data;
    size_t n;
    CHECK_OK(pv_file_read(PV_SOURCE_DIR "/core/model/tiny/tokenizer.model", 1 << 20, &data, &n));
    CHECK_OK(pv_file_write(in_folder("paligemma_tokenizer.model"), data, n)); /* comes first */
    CHECK_OK(pv_file_write(in_folder("third.model"), data, n));
    pv_free(data);
    CHECK_OK(load(NULL, &mean));
    CHECK(info.has_tokenizer);
    CHECK_STATUS(load(&(pv_model_params){.tokenizer = in_folder("none.model")}, &mean), PV_E_FILE);
    CHECK_TEXT("none.model");
    CHECK_OK(load(&(pv_model_params){.tokenizer = in_folder("third.model")}, &mean));
    files_text("small.json", "{\"vocab\": 502}");
    CHECK(load(&(pv_model_params){.config = in_folder("small.json")}, &mean) !=
          PV_OK); /* the table has 503 rows */
    CHECK_TEXT("expected shape [502, 160], came [503, 160]");
#else
    CHECK(st == PV_OK && !info.has_tokenizer); /* token ids still work */
    CHECK_STATUS(load(&(pv_model_params){.tokenizer = in_folder("tokenizer.model")}, &mean),
                 PV_E_UNSUPPORTED);
#endif
}

static void lerobot(void)
{
    double mean;
    fresh();
    pv_config c;
    pv_config_tiny(&c);
    char *own = pv_config_text(&c);
    files_text(
        "config.json",
        "{\"type\": \"pi05\", \"chunk_size\": 6, \"normalization_mapping\": {\"ACTION\": \"MEAN_STD\"}}");
    put_stats("norm_stats.json", 2);
    char *h = strstr(own, "\"horizon\""), *z = strstr(own, "\"zscore\""), *k = strstr(own, "\"cameras\"");
    memcpy(h, "\"_orizon\"", 9), memcpy(z, "\"_score\"", 8), memcpy(k, "\"_ameras\"", 9);
    files_text("own.json", own);
    pv_free(own);
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json")}, &mean));
    CHECK(!strcmp(info.layout, "lerobot") && info.horizon == 6 && info.zscore && mean == 2);
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json"), .zscore = PV_OFF}, &mean));
    CHECK(!info.zscore);

    /* rules that openpi's statistics do not know */
    files_text("config.json", "{\"type\": \"pi05\", \"chunk_size\": 6, \"normalization_mapping\": {\"ACTION\": \"MIN_MAX\"}}");
    CHECK_STATUS(load(&(pv_model_params){.config = in_folder("own.json")}, &mean), PV_E_UNSUPPORTED);
    CHECK_TEXT("STATE MIN_MAX, ACTION MIN_MAX");
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json"), .zscore = PV_ON}, &mean));

    /* processors, once there, are not passed over */
    files_text("policy_postprocessor.json", "{}");
    CHECK_STATUS(load(&(pv_model_params){.config = in_folder("own.json")}, &mean), PV_E_FILE);
    CHECK_TEXT("policy_preprocessor.json");
    CHECK_OK(load(&(pv_model_params){.config = in_folder("own.json"), .zscore = PV_ON, .norm_stats = in_folder("norm_stats.json")},
                  &mean));
}

static void places(void)
{
    pv_model *m = NULL;
    fresh();
    CHECK_STATUS(pv_model_load(in_folder("nothing"), NULL, &m), PV_E_FILE);
    CHECK_TEXT("nothing: no such folder or file");
    CHECK_STATUS(pv_model_load(in_folder("model.safetensors"), NULL, &m), PV_E_ARG);
    CHECK_TEXT("--config");
    CHECK_STATUS(pv_model_load(in_folder("model.safetensors"),
                               &(pv_model_params){.config = in_folder("config.json"), .asset_id = "x"}, &m),
                 PV_E_ARG);
    CHECK_TEXT("--norm-stats");
    CHECK_OK(pv_model_load(in_folder("model.safetensors"),
                           &(pv_model_params){.config = in_folder("config.json")}, &m));
    if (m)
        CHECK_OK(pv_model_describe(m, &info));
    CHECK(m && !strcmp(info.layout, "file"));
    pv_model_free(&m);
    static const char *const ids[] = {"14x12", "1x1", "32x32", "0x1", "33x7", "8x33", "8", "8x7x", "x7", "8x-1", "99999999999x1"};
    for (int i = 0; i < 11; i++) { /* the first three are some */
        CHECK_STATUS(pv_model_load("synth:tiny", &(pv_model_params){.asset_id = ids[i]}, &m), i < 3 ? PV_OK : PV_E_ARG);
        if (i >= 3)
            CHECK_TEXT("of 1 to 32: 14x14");
        if (i == 0 && m)
            CHECK(m->stats->state.dim == 14 && m->stats->actions.dim == 12 &&
                  m->stats->state.q99[13] == m->stats->state.q99[5] && m->stats->actions.mean[11] == m->stats->actions.mean[4]);
        pv_model_free(&m);
    }
    CHECK_STATUS(pv_model_load("synth:huge", NULL, &m), PV_E_ARG);
    CHECK_TEXT("synth:full or synth:tiny");
    CHECK_STATUS(pv_model_load(NULL, NULL, &m), PV_E_ARG);
    CHECK_STATUS(pv_model_load("synth:tiny", &(pv_model_params){.size = 4096}, &m), PV_E_ARG);
    CHECK_TEXT("from an older pivot.h");
    files_text("config.json", "{\"type\": \"pi0\"}");
    CHECK_STATUS(pv_model_load(files_folder, NULL, &m), PV_E_CHECKPOINT);
    CHECK_TEXT("config.json: 'type'");
}

static pv_status load_once(void *folder)
{
    pv_model *m = NULL;
    pv_status st = pv_model_load(folder, NULL, &m);
    CHECK(!st == (m != NULL));
    pv_model_free(&m);
    return st;
}

static void failing_memory(void)
{
    fresh();
    put_stats("assets/lab/arm/norm_stats.json", 3);
    fault_every(load_once, files_folder, "loading a folder");
}

int main(void)
{
    statistics();
    bad_statistics();
    horizon();
    discrete_state();
    tokenizer();
    lerobot();
    places();
    failing_memory();
    files_clear(files_folder);
    return test_done();
}
