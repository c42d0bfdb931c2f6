/* config.c - three dialects of JSON over the defaults; values that make no model, each refused by key. */
#include "model/config.h"
#include "base/memory.h"
#include "tests/test.h"

static pv_status apply(pv_config *c, const char *json, bool *lerobot)
{
    cJSON *v = NULL;
    if (!CHECK_OK(pv_json_parse(json, strlen(json), 1 << 20, "here.json", &v)))
        return PV_E_FILE;
    pv_status st = pv_config_apply(c, v, "here.json", lerobot);
    cJSON_Delete(v);
    return st ? st : pv_config_check(c, "here.json");
}

static void same(const pv_config *a, const pv_config *b)
{
    char *x = pv_config_text(a), *y = pv_config_text(b);
    if (!CHECK(x && y && !strcmp(x, y)))
        printf("    %s\n    %s\n", x, y);
    pv_free(x);
    pv_free(y);
}

static void own_keys(void)
{
    pv_config tiny, c;
    bool lerobot = true;
    pv_config_tiny(&tiny);
    tiny.rms_norm_eps = 3e-5f;
    tiny.layer_norm_eps = 2e-5f;
    tiny.rope_theta = 5000;
    tiny.time_min_period = 0.01;
    tiny.time_max_period = 2;
    tiny.num_steps = 7;
    tiny.action_dim = 14;
    tiny.discrete_state = false;
    tiny.zscore = true;
    tiny.n_cameras = 2;
    strcpy(tiny.camera[1], "wrist");
    char *text = pv_config_text(&tiny);
    pv_config_full(&c);
    CHECK_OK(apply(&c, text, &lerobot));
    CHECK(!lerobot);
    same(&c, &tiny);
    CHECK(c.rms_norm_eps == 3e-5f && c.vision.patch == 14 && c.expert.mlp_dim == 208 &&
          !strcmp(c.camera[1], "wrist"));
    pv_free(text);
}

static void openpi(void)
{
    pv_config c, full;
    pv_config_full(&full);
    pv_config_full(&c);
    CHECK_OK(apply(&c,
                   "{\"action_dim\": 32, \"action_horizon\": 15, \"paligemma_variant\": \"gemma_2b\", "
                   "\"action_expert_variant\": \"gemma_300m\", \"precision\": \"bfloat16\"}",
                   NULL));
    full.horizon = 15;
    same(&c, &full);
    CHECK_OK(apply(&c, "{\"discrete_state_input\": false, \"max_token_len\": 180, \"action_horizon\": null}",
                   NULL));
    CHECK(!c.discrete_state && c.max_tokens == 180 && c.horizon == 15);
    CHECK_STATUS(apply(&c, "{\"paligemma_variant\": \"gemma_2b_lora\"}", NULL), PV_E_FILE);
    CHECK_TEXT("here.json: 'paligemma_variant': expected \"gemma_2b\", came \"gemma_2b_lora\"");
    CHECK_STATUS(apply(&c, "{\"action_expert_variant\": 3}", NULL), PV_E_FILE);
    CHECK_TEXT("'action_expert_variant'");
    CHECK_OK(apply(&c, "{\"paligemma_variant\": \"small\", \"gemma\": {\"mlp_dim\": 64}}", NULL));
    CHECK(c.gemma.mlp_dim == 64);
}

static void lerobot(void)
{
    pv_config c;
    bool is = false;
    pv_config_full(&c);
    CHECK_OK(apply(
        &c,
        "{\"type\": \"pi05\", \"chunk_size\": 20, \"n_action_steps\": 5, \"num_inference_steps\": 4,"
        " \"max_action_dim\": 24, \"max_state_dim\": 32, \"min_period\": 0.002, \"max_period\": 8.0,"
        " \"image_resolution\": [112, 112], \"tokenizer_max_length\": 150, \"dtype\": \"float32\","
        " \"normalization_mapping\": {\"VISUAL\": \"IDENTITY\", \"STATE\": \"MEAN_STD\", \"ACTION\": "
        "\"MEAN_STD\"},"
        " \"input_features\": {\"observation.images.top\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
        " \"observation.state\": {\"type\": \"STATE\", \"shape\": [8]},"
        " \"side\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]}}}",
        &is));
    CHECK(is && c.horizon == 20 && c.num_steps == 4 && c.action_dim == 24 && c.max_tokens == 150 && c.zscore);
    CHECK(c.time_min_period == 0.002 && c.time_max_period == 8 && c.vision.image == 112 && c.discrete_state);
    CHECK(c.n_cameras == 2 && !strcmp(c.camera[0], "top") && !strcmp(c.camera[1], "side"));
    CHECK_OK(apply(&c,
                   "{\"type\": \"pi05\", \"normalization_mapping\": {\"STATE\": \"QUANTILES\", \"ACTION\": "
                   "\"QUANTILES\"}}",
                   NULL));
    CHECK(!c.zscore && c.n_cameras == 2);
    CHECK(!*c.own_rules);
    CHECK_OK(apply(&c, "{\"type\": \"pi05\", \"normalization_mapping\": {\"STATE\": \"MIN_MAX\"}}", NULL));
    CHECK(!strcmp(c.own_rules, "STATE MIN_MAX, ACTION MIN_MAX"));
    CHECK_OK(apply(&c,
                   "{\"type\": \"pi05\", \"normalization_mapping\": {\"STATE\": \"MEAN_STD\", "
                   "\"ACTION\": \"QUANTILES\"}}",
                   NULL));
    CHECK(!strcmp(c.own_rules, "STATE MEAN_STD, ACTION QUANTILES"));
    CHECK_STATUS(apply(&c, "{\"type\": \"pi05\", \"normalization_mapping\": {\"STATE\": 1}}", NULL),
                 PV_E_FILE);
    CHECK_TEXT("normalization_mapping.STATE");
    CHECK_STATUS(apply(&c, "{\"type\": \"pi05\", \"image_resolution\": [224, 320]}", NULL), PV_E_FILE);
    CHECK_TEXT("'image_resolution'");
    CHECK_STATUS(apply(&c,
                       "{\"type\": \"pi05\", \"input_features\": {\"a.top\": {\"type\": \"VISUAL\"}, "
                       "\"b.top\": {\"type\": "
                       "\"VISUAL\"}}}",
                       NULL),
                 PV_E_FILE);
    CHECK_TEXT("'top' stands there twice");
    CHECK_STATUS(apply(&c, "{\"type\": \"pi0\"}", NULL), PV_E_CHECKPOINT);
    CHECK_TEXT("'type': expected \"pi05\", came pi0");
    CHECK_STATUS(apply(&c, "{\"type\": 5}", NULL), PV_E_CHECKPOINT);
}

/* What a robot has to be told: that its actions are not positions. */
static char logged[512];
static void keep(void *user, pv_log_level level, const char *text)
{
    (void)user, (void)level;
    snprintf(logged, sizeof logged, "%s", text);
}

static void relative_actions(void)
{
    pv_config c;
    pv_config_full(&c);
    c.horizon = 1;
    pv_set_log(keep, NULL, PV_LOG_WARN);
    CHECK_OK(apply(&c, "{\"type\": \"pi05\", \"use_relative_actions\": false}", NULL));
    CHECK(!*logged);
    CHECK_OK(apply(&c, "{\"type\": \"pi05\", \"use_relative_actions\": true}", NULL));
    CHECK(strstr(logged, "use_relative_actions"));
    pv_set_log(NULL, NULL, PV_LOG_WARN);
}

static void refused(void)
{
    static const struct {
        const char *json, *words;
    } rows[] = {
        {"[]", "expected a JSON object"},
        {"3", "expected a JSON object"},
        {"{\"horizon\": 0}", "'horizon': expected 1 to 4096, came 0"},
        {"{\"horizon\": -1}", "'horizon': expected a whole number from 0 to 16777216, came -1"},
        {"{\"horizon\": 2.5}", "'horizon': expected a whole number"},
        {"{\"horizon\": \"10\"}", "'horizon': expected a whole number from 0 to 16777216, came \"10\""},
        {"{\"horizon\": 1e300}", "'horizon': expected a whole number"},
        {"{\"horizon\": 5000}", "'horizon': expected 1 to 4096, came 5000"},
        {"{\"action_dim\": 0}", "'action_dim': expected 1 to 1024"},
        {"{\"num_steps\": 0}", "'num_steps': expected 1 to"},
        {"{\"max_tokens\": 0}", "'max_tokens'"},
        {"{\"vocab\": 0}", "'vocab'"},
        {"{\"vision\": 4}", "'vision': expected an object"},
        {"{\"vision\": {\"width\": 97}}", "'vision': width must be a multiple of heads, image of patch; came width 97, heads"},
        {"{\"vision\": {\"image\": 57}}", "image of patch"},
        {"{\"vision\": {\"patch\": 0}}", "'vision.patch'"},
        {"{\"vision\": {\"image\": 4096}}", "'vision.image': expected 14 to 2048, came 4096"},
        {"{\"vision\": {\"depth\": 0}}", "'vision.depth'"},
        {"{\"vision\": {\"patch\": 1, \"image\": 2048}}", "expected at most 131072 in all"},
        {"{\"gemma\": []}", "'gemma': expected an object"},
        {"{\"gemma\": {\"width\": 70000}}", "'gemma.width': expected 1 to 65536, came 70000"},
        {"{\"gemma\": {\"head_dim\": 47}}", "head_dim must be even"},
        {"{\"gemma\": {\"heads\": 0}}", "'gemma.heads': expected 1 to 1024, came 0"},
        {"{\"gemma\": {\"heads\": 3, \"kv_heads\": 2}}", "multiple of kv_heads"},
        {"{\"gemma\": {\"depth\": 4}}", "depth, kv_heads and head_dim must agree"},
        {"{\"expert\": {\"width\": 81}}", "'expert.width' must be even"},
        {"{\"cameras\": {}}", "'cameras': expected an array"},
        {"{\"cameras\": []}", "'cameras': expected 1 to 16, came 0"},
        {"{\"cameras\": [\"a\", \"a\"]}", "'a' stands there twice"},
        {"{\"cameras\": [3]}", "'cameras': expected 1 to 16 names"},
        {"{\"cameras\": [\"\"]}", "'cameras': expected 1 to 16 names"},
        {"{\"cameras\": [\"0123456789012345678901234567890123456789012345678901234567890123\"]}",
         "of 1 to 63 bytes"},
        {"{\"cameras\": "
         "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\","
         "\"h\"]}",
         "'cameras': expected 1 to 16 names"},
        {"{\"rms_norm_eps\": 0}", "'rms_norm_eps': expected a number above 0"},
        {"{\"rms_norm_eps\": 1e-60}", "'rms_norm_eps': expected a number from 1e-30 to 1"},
        {"{\"layer_norm_eps\": 1e60}", "'layer_norm_eps': expected a number from 1e-30 to 1"},
        {"{\"layer_norm_eps\": \"small\"}", "'layer_norm_eps': expected a number above 0"},
        {"{\"rope_theta\": 0.5}", "'rope_theta': expected 1 to 1e12, came 0.5"},
        {"{\"rope_theta\": 1e300}", "'rope_theta'"},
        {"{\"time_min_period\": 4}", "'time_min_period' 4 is not below 'time_max_period' 4"},
        {"{\"time_min_period\": 1e-300}", "expected 1e-9 to 1e9"},
        {"{\"time_max_period\": 1e300}", "expected 1e-9 to 1e9"},
        {"{\"discrete_state\": []}", "'discrete_state': expected true or false, came an array"},
        {"{\"zscore\": \"yes\"}", "'zscore': expected true or false"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pv_config c;
        pv_config_tiny(&c);
        if (!CHECK_STATUS(apply(&c, rows[i].json, NULL), PV_E_FILE) || !CHECK_TEXT(rows[i].words) ||
            !CHECK_TEXT("here.json: "))
            printf("    %s\n", rows[i].json);
    }
    pv_config c;
    pv_config_full(&c);
    CHECK_STATUS(pv_config_read(&c, "no such file.json", NULL), PV_E_FILE);
    CHECK_TEXT("no such file.json");
}

int main(void)
{
    own_keys();
    openpi();
    lerobot();
    relative_actions();
    refused();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
