/* refusals.c - bad input at the door: each a status and words with names and numbers, no caller's buffer
 * touched, and the next good call answers as if nothing had been. */
#include "rig.h"

enum { MORE = 64 }; /* elements behind the chunk */

typedef struct poisoned {
    float actions[CHUNK + MORE], model[CHUNK + MORE];
    double exact[CHUNK + MORE];
} poisoned;

static rig r;
static chunk fresh;
static pv_observation good;

static void refuse(const pv_observation *obs, pv_infer_params p, pv_status want, const char *words)
{
    static poisoned before, after;
    memset(&before, 0xA5, sizeof before);
    after = before;
    p.model_actions = after.model;
    p.actions_f64 = after.exact;
    if (!CHECK_STATUS(pv_session_infer(r.session, obs, &p, after.actions), want) || !CHECK_TEXT(words) ||
        !CHECK(!memcmp(&before, &after, sizeof after)))
        printf("    where \"%s\" was expected\n", words);
    chunk c = rig_infer(&r, &good, (pv_infer_params){.seed = 7});
    CHECK(same(&c, &fresh));
}

static void pictures(void)
{
    pv_image image[4];
    pv_observation obs = good;
    obs.images = image;
#define WITH(change, status, words)                                                                          \
    do {                                                                                                     \
        memcpy(image, rig_images, sizeof rig_images);                                                        \
        image[3] = rig_images[0];                                                                            \
        change;                                                                                              \
        refuse(&obs, (pv_infer_params){.seed = 7}, status, words);                                           \
        obs.images = image;                                                                                  \
        obs.n_images = 3;                                                                                    \
    } while (0)
    const char *range = "expected RGB pixels of 1 to 8192 a side";
    WITH(obs.n_images = 0, PV_E_ARG, "at least one camera");
    WITH(obs.n_images = -1, PV_E_ARG, "at least one camera");
    WITH(obs.images = NULL, PV_E_ARG, "at least one camera");
    WITH(obs.n_images = 4, PV_E_ARG, "camera 'base_0_rgb' has two pictures");
    WITH(image[1].camera = "base_1_rgb", PV_E_ARG,
         "camera 'base_1_rgb': the model has base_0_rgb, left_wrist_0_rgb, right_wrist_0_rgb");
    WITH(image[1].camera = "", PV_E_ARG, "camera ''");
    WITH(image[1].camera = NULL, PV_E_ARG, "camera '(null)'");
    WITH(image[1].pixels = NULL, PV_E_SHAPE, "camera 'left_wrist_0_rgb'");
    WITH(image[1].pixels = NULL, PV_E_SHAPE, "no pixels");
    WITH(image[1].width = 0, PV_E_SHAPE, range);
    WITH(image[1].height = 0, PV_E_SHAPE, range);
    WITH(image[1].width = -20, PV_E_SHAPE, "came -20 x 20");
    WITH(image[1].height = -1, PV_E_SHAPE, range);
    WITH(image[1].width = INT32_MIN, PV_E_SHAPE, range);
    WITH(image[1].width = 8193, PV_E_SHAPE, "came 8193 x 20");
    WITH(image[1].height = 8193, PV_E_SHAPE, range);
    WITH(image[1].width = INT32_MAX, PV_E_SHAPE, range);
    WITH(image[1].stride = SMALL * 3 - 1, PV_E_SHAPE, "stride 59");
#undef WITH
}

static void tokens(void)
{
    pv_observation obs = good;
    int32_t ids[24];
    memcpy(ids, rig_tokens, sizeof ids);
    obs.tokens = ids;
    const pv_infer_params p = {.seed = 7}, cut = {.seed = 7, .allow_truncation = true};
    obs.n_tokens = 24;
    refuse(&obs, p, PV_E_ARG, "tokens: expected 1 to 23, came 24");
    obs.n_tokens = 0;
    refuse(&obs, p, PV_E_ARG, "tokens: expected 1 to 23, came 0");
    refuse(&obs, cut, PV_E_ARG, "came 0");
    obs.n_tokens = -5;
    refuse(&obs, cut, PV_E_ARG, "came -5");
    obs.n_tokens = 11;
    ids[10] = 503;
    refuse(&obs, p, PV_E_ARG, "token 10 is 503; the vocabulary has 0 to 502");
    ids[10] = -1;
    refuse(&obs, p, PV_E_ARG, "token 10 is -1");
    ids[10] = INT32_MIN;
    refuse(&obs, p, PV_E_ARG, "token 10");
    obs.tokens = NULL;
    refuse(&obs, p, PV_E_ARG, "prompt: expected words or token ids, came neither");
}

static void prompts(void)
{
    pv_model_info info = {.size = sizeof info};
    CHECK_OK(pv_model_describe(r.model, &info));
    pv_observation obs = good;
    obs.tokens = NULL;
    const pv_infer_params p = {.seed = 7}, cut = {.seed = 7, .allow_truncation = true};
    if (!info.has_tokenizer) {
        obs.prompt = "pick up the cup";
        refuse(&obs, p, PV_E_ARG, "no tokenizer");
        return;
    }
    obs.prompt = "";
    refuse(&obs, p, PV_E_ARG, "came an empty text");
    obs.prompt = " \n\t_ ";
    refuse(&obs, p, PV_E_ARG, "blanks alone");
    obs.prompt = "pick up \xc3";
    refuse(&obs, p, PV_E_ARG, "expected UTF-8");
    obs.prompt = "pick up the red cup from the table and put it gently into the blue bowl, then close the "
                 "drawer, then wait";
    refuse(&obs, p, PV_E_ARG, "at most 23 fit");
    float actions[CHUNK];
    pv_timing t = {.size = sizeof t};
    CHECK_OK(pv_session_infer(r.session, &obs, &cut, actions));
    CHECK_OK(pv_session_timing(r.session, &t));
    CHECK(t.truncated && t.prompt_tokens == 23);

    static char huge[1 << 20];
    memset(huge, 'a', sizeof huge - 1);
    obs.prompt = huge;
    refuse(&obs, p, PV_E_ARG, "prompt: ");
}

static void states(void)
{
    pv_observation obs = good;
    double state[9] = {0.1, -0.2, 0.9, 3.0, 0.3, -0.1, 0.02, -0.02, 0};
    obs.state = state;
    const pv_infer_params p = {.seed = 7};
    obs.n_state = 9;
    refuse(&obs, p, PV_E_SHAPE, "state: expected 1 to 8 numbers (as in the statistics), came 9");
    obs.n_state = -1;
    refuse(&obs, p, PV_E_SHAPE, "came -1");
    obs.n_state = 8;
    obs.state = NULL;
    refuse(&obs, p, PV_E_SHAPE, "state: ");
    obs.state = state;
    state[7] = NAN;
    refuse(&obs, p, PV_E_NOT_FINITE, "state: number 7 is nan");
    state[7] = -INFINITY;
    refuse(&obs, p, PV_E_NOT_FINITE, "state: number 7 is -inf");
}

static void noises(void)
{
    static float noise[CHUNK];
    const pv_infer_params p = {.noise = noise};
    noise[CHUNK - 1] = NAN;
    refuse(&good, p, PV_E_NOT_FINITE, "noise: element 319 is nan");
    noise[CHUNK - 1] = 0;
    noise[0] = INFINITY;
    refuse(&good, p, PV_E_NOT_FINITE, "noise: element 0 is inf");
}

static void steps(void)
{
    refuse(&good, (pv_infer_params){.seed = 7, .steps = -1}, PV_E_ARG,
           "steps: expected 1 to 100000, came -1");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = 100001}, PV_E_ARG, "came 100001");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = INT32_MAX}, PV_E_ARG, "steps: ");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = INT32_MIN}, PV_E_ARG, "steps: ");
    refuse(&good, (pv_infer_params){.seed = 7, .schedule = "cubic"}, PV_E_ARG,
           "schedule 'cubic': expected openpi");
    refuse(&good, (pv_infer_params){.seed = 7, .schedule = ""}, PV_E_ARG, "schedule ''");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = 2, .timesteps = (float[]){1, 1, 0}}, PV_E_ARG,
           "timestep 1 of 3");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = 2, .timesteps = (float[]){1, NAN, 0}}, PV_E_ARG,
           "is nan");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = 1, .timesteps = (float[]){2, 0}}, PV_E_ARG,
           "timestep 0 of 2 is 2");
    refuse(&good, (pv_infer_params){.seed = 7, .steps = -2, .timesteps = (float[]){1, 0}}, PV_E_ARG,
           "steps: ");
}

/* ---- the doors ---- */

static void nothing_given(void)
{
    float actions[CHUNK];
    pv_session *s = (pv_session *)&s;
    pv_model *m = (pv_model *)&m;
    pv_backend *b = (pv_backend *)&b;
    pv_timing timing = {.size = sizeof timing};
    pv_memory_info memory = {.size = sizeof memory};
    pv_model_info info = {.size = sizeof info};
    pv_device_info device = {.size = sizeof device};
    CHECK_STATUS(pv_session_infer(NULL, &good, NULL, actions), PV_E_ARG);
    CHECK_STATUS(pv_session_infer(r.session, NULL, NULL, actions), PV_E_ARG);
    CHECK_STATUS(pv_session_infer(r.session, &good, NULL, NULL), PV_E_ARG);
    CHECK_TEXT("pv_session_infer");
    CHECK_STATUS(pv_session_create(NULL, r.backend, NULL, &s), PV_E_ARG);
    CHECK_STATUS(pv_session_create(r.model, NULL, NULL, &s), PV_E_ARG);
    CHECK_STATUS(pv_session_create(r.model, r.backend, NULL, NULL), PV_E_ARG);
    CHECK_STATUS(pv_session_timing(NULL, &timing), PV_E_ARG);
    CHECK_STATUS(pv_session_timing(r.session, NULL), PV_E_ARG);
    CHECK_STATUS(pv_session_memory(NULL, &memory), PV_E_ARG);
    CHECK_STATUS(pv_session_memory(r.session, NULL), PV_E_ARG);
    CHECK_STATUS(pv_model_load(NULL, NULL, &m), PV_E_ARG);
    CHECK_STATUS(pv_model_load("synth:tiny", NULL, NULL), PV_E_ARG);
    CHECK_STATUS(pv_model_describe(NULL, &info), PV_E_ARG);
    CHECK_STATUS(pv_model_describe(r.model, NULL), PV_E_ARG);
    CHECK_STATUS(pv_backend_open("cpu", NULL, NULL), PV_E_ARG);
    CHECK_STATUS(pv_backend_open(NULL, NULL, &b), PV_E_UNAVAILABLE);
    CHECK(b == NULL);
    CHECK_STATUS(pv_backend_device(NULL, &device), PV_E_ARG);
    CHECK_STATUS(pv_backend_device(r.backend, NULL), PV_E_ARG);
    int n = 1;
    CHECK_STATUS(pv_devices("cpu", NULL, &n), PV_E_ARG);
    CHECK_STATUS(pv_devices("cpu", &device, NULL), PV_E_ARG);
    CHECK_STATUS(pv_devices(NULL, &device, &n), PV_E_UNAVAILABLE);
    CHECK(!strcmp(pv_backend_name(NULL), "none"));
    pv_session_destroy(NULL);
    pv_model_free(NULL);
    pv_backend_close(NULL);
    s = NULL, m = NULL, b = NULL;
    pv_session_destroy(&s);
    pv_model_free(&m);
    pv_backend_close(&b);
}

static void refuse_session(const pv_session_params *p, pv_status want, const char *words)
{
    pv_session *s = (pv_session *)&s;
    CHECK_STATUS(pv_session_create(r.model, r.backend, p, &s), want);
    CHECK_TEXT(words);
    CHECK(s == NULL);
}

static void openings(void)
{
    refuse_session(&(pv_session_params){.recipe = "fp3"}, PV_E_ARG, "recipe 'fp3': expected one of f32, bf16, openpi, lerobot");
    refuse_session(&(pv_session_params){.max_steps = -1}, PV_E_ARG,
                   "max_steps: expected 0 to 100000, came -1");
    refuse_session(&(pv_session_params){.max_steps = 100001}, PV_E_ARG, "came 100001");

    pv_backend *b = (pv_backend *)&b;
    CHECK_STATUS(pv_backend_open("npu", NULL, &b), PV_E_UNAVAILABLE);
    CHECK_TEXT("backend 'npu'");
    CHECK(b == NULL);
    CHECK_STATUS(pv_backend_open("cpu", &(pv_backend_params){.device = "1"}, &b), PV_E_UNAVAILABLE);
    CHECK_TEXT("device '1'");
    CHECK_STATUS(pv_backend_open("cpu", &(pv_backend_params){.threads = -1}, &b), PV_E_ARG);
    CHECK_TEXT("threads: expected 0 to 256, came -1");
    CHECK_STATUS(pv_backend_open("cpu", &(pv_backend_params){.threads = INT32_MAX}, &b), PV_E_ARG);
    CHECK_STATUS(pv_backend_open("cpu", &(pv_backend_params){.sms = -1}, &b), PV_E_ARG);
    CHECK_TEXT("sms: expected at least 0, came -1");
    CHECK_STATUS(pv_backend_open("cpu", &(pv_backend_params){.sms = 2}, &b), PV_E_UNAVAILABLE);
    int n = 0;
    CHECK_STATUS(pv_devices("npu", NULL, &n), PV_E_UNAVAILABLE);
    CHECK_OK(pv_devices("cpu", NULL, &n));
    CHECK(n == 1);

    pv_model *m = (pv_model *)&m;
    CHECK_STATUS(pv_model_load("synth:huge", NULL, &m), PV_E_ARG);
    CHECK_TEXT("expected synth:full or synth:tiny");
    CHECK(m == NULL);
    CHECK_STATUS(pv_model_load("no/such/folder", NULL, &m), PV_E_FILE);
    CHECK_TEXT("no/such/folder");
    CHECK_STATUS(pv_model_load("synth:tiny", &(pv_model_params){.horizon = -1}, &m), PV_E_ARG);
    CHECK_STATUS(pv_model_load("synth:tiny", &(pv_model_params){.asset_id = "x"}, &m), PV_E_ARG);
    CHECK_STATUS(pv_model_load(TINY_F32, NULL, &m), PV_E_ARG);
    CHECK_TEXT("--config FILE.json");

    /* What is missing can be told apart at the first prompt that needs it. */
    rig bare =
        rig_open(TINY_F32, &(pv_model_params){.config = TINY_CONFIG, .discrete_state = PV_ON}, NULL, 1);
    float actions[CHUNK];
    pv_observation obs = good;
    obs.tokens = NULL;
    obs.prompt = "pick up the cup";
    CHECK_STATUS(pv_session_infer(bare.session, &obs, NULL, actions), PV_E_ARG);
    CHECK_TEXT("--tokenizer FILE");
    obs.n_state = 0;
    CHECK_STATUS(pv_session_infer(bare.session, &obs, NULL, actions), PV_E_ARG);
    CHECK_TEXT("told its state in the prompt");
    obs.n_state = DIM + 1;
    CHECK_STATUS(pv_session_infer(bare.session, &obs, NULL, actions), PV_E_SHAPE);
    CHECK_TEXT("expected 1 to 32");
    rig_close(&bare);
}

/* ---- sizes of structs ---- */

/* A struct longer than the library's, with a size that says so. */
#define LONGER(type)                                                                                         \
    struct {                                                                                                 \
        type s;                                                                                              \
        char more[8];                                                                                        \
    }

static void newer_callers(void)
{
    float actions[CHUNK];
    LONGER(pv_observation) obs = {.s = good};
    LONGER(pv_infer_params) infer = {.s = {.seed = 7}};
    LONGER(pv_session_params) session = {.s = {.max_steps = 3}};
    LONGER(pv_model_params) model = {.s = {.horizon = 3}};
    LONGER(pv_backend_params) backend = {.s = {.threads = 1}};
    LONGER(pv_device_info) device = {.s = {.unified = true}};
    LONGER(pv_model_info) info = {.s = {.horizon = 1}};
    LONGER(pv_timing) timing = {.s = {.steps = 1}};
    LONGER(pv_memory_info) memory = {.s = {.plans = 1}};
    pv_model *m;
    pv_backend *b;
    int n = 1;
    obs.s.size = sizeof obs;
    infer.s.size = sizeof infer;
    session.s.size = sizeof session;
    model.s.size = sizeof model;
    backend.s.size = sizeof backend;
    device.s.size = sizeof device;
    info.s.size = sizeof info;
    timing.s.size = sizeof timing;
    memory.s.size = sizeof memory;
    refuse(&obs.s, (pv_infer_params){.seed = 7}, PV_E_ARG, "pv_session_infer, observation: a struct of size");
    CHECK_STATUS(pv_session_infer(r.session, &good, &infer.s, actions), PV_E_ARG);
    refuse_session(&session.s, PV_E_ARG, "pv_session_create: a struct of size");
    CHECK_STATUS(pv_model_load("synth:tiny", &model.s, &m), PV_E_ARG);
    CHECK_STATUS(pv_backend_open("cpu", &backend.s, &b), PV_E_ARG);
    CHECK_STATUS(pv_backend_device(r.backend, &device.s), PV_E_ARG);
    CHECK_STATUS(pv_devices("cpu", &device.s, &n), PV_E_ARG);
    CHECK_STATUS(pv_model_describe(r.model, &info.s), PV_E_ARG);
    CHECK_STATUS(pv_session_timing(r.session, &timing.s), PV_E_ARG);
    CHECK_STATUS(pv_session_memory(r.session, &memory.s), PV_E_ARG);
    CHECK_TEXT("pv_session_memory");
    infer.s.size = 3; /* less than the size itself */
    CHECK_STATUS(pv_session_infer(r.session, &good, &infer.s, actions), PV_E_ARG);
}

/* Older callers' structs end earlier: what is behind is neither read nor written. */
static void older_callers(void)
{
    pv_model_info info;
    memset(&info, 0xA5, sizeof info);
    info.size = offsetof(pv_model_info, max_tokens);
    CHECK_OK(pv_model_describe(r.model, &info));
    CHECK(info.state_dim == 8 && info.size == offsetof(pv_model_info, max_tokens));
    CHECK(info.max_tokens == (int)0xA5A5A5A5 && info.parameters == 0xA5A5A5A5A5A5A5A5);
    info.size = 0;
    CHECK_OK(pv_model_describe(r.model, &info));
    CHECK(info.size == sizeof info && info.max_tokens == 23);

    pv_timing timing;
    memset(&timing, 0xA5, sizeof timing);
    timing.size = offsetof(pv_timing, steps);
    CHECK_OK(pv_session_timing(r.session, &timing));
    CHECK(timing.prompt_tokens == 11 && timing.steps == (int)0xA5A5A5A5);

    pv_infer_params p;
    memset(&p, 0xA5, sizeof p); /* wild pointers behind the size */
    p = (pv_infer_params){
        .size = offsetof(pv_infer_params, steps), .seed = 7, .steps = -1, .schedule = "none"};
    float actions[CHUNK];
    CHECK_OK(pv_session_infer(r.session, &good, &p, actions));
    CHECK(!memcmp(actions, fresh.actions, sizeof(float) * HORIZON * ROBOT));
}

int main(void)
{
    r = rig_open("synth:tiny", NULL, NULL, 1);
    good = rig_observation(11);
    fresh = rig_infer(&r, &good, (pv_infer_params){.seed = 7});
    pictures();
    tokens();
    prompts();
    states();
    noises();
    steps();
    nothing_given();
    openings();
    newer_callers();
    older_callers();
    rig_close(&r);
    return test_done();
}
