/* robot.c - robots: what openpi's numpy computes (data/robot.inc, by make_robot_fixtures.py) to the bit, pictures in every
 * layout, descriptions and observations that are wrong in each way, and a whole call of the tiny model. */
#include "test.h"
#include "base/memory.h"
#include "io/file.h"
#include "model/model.h"
#include "robot/robot.h"
#include "data/robot.inc"

#include <unistd.h>

enum { SIDE_W = 5, SIDE_H = 4, BYTES = SIDE_W * SIDE_H * 3 };

static uint8_t picture_u8[BYTES]; /* HWC, RGB: every byte another */

static pv_field field(const char *key, pv_field_type type, const void *data, int n_dims, int64_t a, int64_t b, int64_t c)
{
    return (pv_field){key, type, n_dims, {a, b, c}, data};
}

static pv_field words(const char *key, const char *text)
{
    return field(key, PV_FIELD_TEXT, text, 1, (int64_t)strlen(text), 0, 0);
}

static pv_field hwc(const char *key)
{
    return field(key, PV_FIELD_U8, picture_u8, 3, SIDE_H, SIDE_W, 3);
}

static pv_field vector(const char *key, const double *data, int n)
{
    return field(key, PV_FIELD_F64, data, 1, n, 0, 0);
}

static pv_robot *load(const char *name)
{
    pv_robot *b = NULL;
    CHECK_OK(pv_robot_load(name, &b));
    return b;
}

static pv_robot *from_json(const char *json)
{
    pv_robot *b = NULL;
    CHECK_OK(pv_robot_parse(json, strlen(json), "test", "test.json", &b));
    return b;
}

/* ---- against numpy ---- */

/* The C library's asin may differ by a bit from one processor to the next; what is computed with it is near, all else equal. */
static bool equal(const double *got, const double *want, int n, bool near)
{
    for (int i = 0; i < n; i++) {
        bool gripper = near && (i % 14 == 6 || i % 14 == 13);
        if (gripper ? !(fabs(got[i] - want[i]) <= 1e-15 * fmax(1, fabs(want[i]))) : memcmp(&got[i], &want[i], sizeof *got) != 0) {
            printf("    number %d: expected %.17g, came %.17g\n", i, want[i], got[i]);
            return false;
        }
    }
    return true;
}

static void aloha_as_numpy(void)
{
    static uint8_t chw[BYTES];
    pv_robot *b = load("aloha");
    pv_frame *frame = NULL;
    const int n = (int)(sizeof aloha_cases / sizeof *aloha_cases);
    double mean[14] = {0}, q01[14], q99[14];
    memcpy(q01, aloha_q01, sizeof q01);
    memcpy(q99, aloha_q99, sizeof q99);
    pv_stats stats = {.state = {14, 14, mean, mean, q01, q99}};
    const pv_model model = {.stats = &stats, .rule = PV_NORM_QUANTILE};
    for (int i = 0; i < n; i++) {
        const struct aloha_case *c = &aloha_cases[i];
        const pv_field in[] = {field("images/cam_high", PV_FIELD_U8, chw, 3, 3, SIDE_H, SIDE_W), vector("state", c->state, 14),
                               words("prompt", "fold")};
        double out[4 * 14];
        CHECK_OK(pv_robot_observe(b, in, 3, &frame));
        const pv_observation *o = pv_frame_observation(frame);
        if (!CHECK(o && o->n_state == 14))
            break;
        CHECK(equal(o->state, c->policy_state, 14, true));
        CHECK_OK(pv_robot_act(b, NULL, frame, c->actions, 4, 16, out));
        CHECK(equal(out, c->plain, 4 * 14, false));
        CHECK_OK(pv_robot_act(b, &model, frame, c->actions, 4, 16, out));
        CHECK(equal(out, c->with_statistics, 4 * 14, false));
    }
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

static void floats_as_numpy(void)
{
    pv_robot *b = load("libero");
    pv_frame *frame = NULL;
    double state[8] = {0};
    const struct {
        pv_field_type type;
        const void *in;
        const uint8_t *out;
        int n;
    } of[] = {{PV_FIELD_F32, float_in, float_out, float_n}, {PV_FIELD_F64, double_in, double_out, double_n}};
    for (int i = 0; i < 2; i++) {
        size_t bytes = (of[i].type == PV_FIELD_F32 ? 4u : 8u) * (size_t)of[i].n;
        char *odd = malloc(bytes + 1); /* nothing says that it is aligned */
        memcpy(odd + 1, of[i].in, bytes);
        const pv_field in[] = {field("observation/image", of[i].type, odd + 1, 3, 1, of[i].n / 3, 3),
                               hwc("observation/wrist_image"), vector("observation/state", state, 8), words("prompt", "a")};
        CHECK_OK(pv_robot_observe(b, in, 4, &frame));
        CHECK(!memcmp(pv_frame_observation(frame)->images[0].pixels, of[i].out, (size_t)of[i].n));
        free(odd);
    }
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

/* ---- pictures ---- */

#define ROBOT(camera)                                                                                                  \
    "{\"cameras\":[{\"slot\":\"base_0_rgb\",\"key\":\"eye\"" camera "}],\"state\":{\"fields\":[{\"key\":\"s\",\"size\":1}]}," \
    "\"prompt\":{\"key\":\"p\",\"default\":\"wait\"},\"actions\":{\"size\":2}}"

/* The picture, permuted as the declaration says, must come out as picture_u8. */
static void one_layout(const char *json, bool chw, bool bgr, pv_field_type type, bool is_signed)
{
    static uint8_t u8[BYTES];
    static float f32[BYTES];
    static double f64[BYTES], s = 0;
    for (int y = 0; y < SIDE_H; y++)
        for (int x = 0; x < SIDE_W; x++)
            for (int k = 0; k < 3; k++) {
                int c = bgr ? 2 - k : k;
                int at = chw ? (c * SIDE_H + y) * SIDE_W + x : (y * SIDE_W + x) * 3 + c;
                uint8_t v = picture_u8[(y * SIDE_W + x) * 3 + k];
                u8[at] = v;
                f64[at] = is_signed ? v / 255.0 * 2 - 1 : (v + 0.5) / 255 > 1 ? 1 : (v + 0.5) / 255;
                f32[at] = is_signed ? (float)v / 255 * 2 - 1 : (float)f64[at];
            }
    const void *data = type == PV_FIELD_U8 ? (const void *)u8 : type == PV_FIELD_F32 ? (const void *)f32 : f64;
    pv_robot *b = from_json(json);
    pv_frame *frame = NULL;
    const pv_field in[] = {chw ? field("eye", type, data, 3, 3, SIDE_H, SIDE_W) : field("eye", type, data, 3, SIDE_H, SIDE_W, 3),
                           field("s", PV_FIELD_F64, &s, 0, 0, 0, 0)};
    CHECK_OK(pv_robot_observe(b, in, 2, &frame));
    const pv_observation *o = pv_frame_observation(frame);
    if (CHECK(o && o->n_images == 1)) {
        const pv_image *image = o->images;
        CHECK(image->width == SIDE_W && image->height == SIDE_H && !image->stride && !strcmp(image->camera, "base_0_rgb"));
        CHECK(!memcmp(image->pixels, picture_u8, BYTES));
        CHECK(!strcmp(o->prompt, "wait"));
    }
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

static void layouts(void)
{
    const pv_field_type types[] = {PV_FIELD_U8, PV_FIELD_F32, PV_FIELD_F64};
    for (int t = 0; t < 3; t++)
        for (int chw = 0; chw < 2; chw++) {
            one_layout(ROBOT(""), chw, false, types[t], false);
            one_layout(ROBOT(",\"order\":\"bgr\""), chw, true, types[t], false);
            one_layout(ROBOT(",\"float\":\"-1..1\",\"order\":\"bgr\""), chw, true, types[t], true);
            one_layout(chw ? ROBOT(",\"layout\":\"chw\"") : ROBOT(",\"layout\":\"hwc\""), chw, false, types[t], false);
        }
}

/* ---- the state, and what may be missing ---- */

static void droid_state(void)
{
    const float joints[7] = {0.1f, -0.2f, 0.3f, -0.4f, 0.5f, -0.6f, 0.7f};
    const int64_t whole = 1;
    const int32_t half[1] = {-3};
    pv_robot *b = load("droid");
    pv_frame *frame = NULL;
    pv_field in[] = {hwc("observation/exterior_image_1_left"), hwc("observation/wrist_image_left"),
                     field("observation/joint_position", PV_FIELD_F32, joints, 1, 7, 0, 0),
                     field("observation/gripper_position", PV_FIELD_I64, &whole, 0, 0, 0, 0), words("prompt", "pick"),
                     words("unasked", "passed over")};
    CHECK_OK(pv_robot_observe(b, in, 6, &frame));
    const pv_observation *o = pv_frame_observation(frame);
    if (CHECK(o && o->n_state == 8)) {
        for (int i = 0; i < 7; i++)
            CHECK(o->state[i] == (double)joints[i]);
        CHECK(o->state[7] == 1);
        CHECK(o->n_images == 2 && !strcmp(o->images[1].camera, "left_wrist_0_rgb"));
    }
    in[3] = field("observation/gripper_position", PV_FIELD_I32, half, 1, 1, 0, 0);
    CHECK_OK(pv_robot_observe(b, in, 6, &frame)); /* the same frame again */
    CHECK(pv_frame_observation(frame)->state[7] == -3);
    const double wide[2][10] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {10, 11, 12, 13, 14, 15, 16, 17, 18, 19}};
    double out[2][8];
    CHECK_OK(pv_robot_act(b, NULL, frame, &wide[0][0], 2, 10, &out[0][0]));
    for (int d = 0; d < 8; d++)
        CHECK(out[0][d] == d && out[1][d] == 10 + d);
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

static void aloha_cameras(void)
{
    const double state[14] = {0};
    pv_robot *b = load("aloha");
    pv_frame *frame = NULL;
    pv_field in[] = {vector("state", state, 14), words("prompt", "fold"),
                     field("images/cam_high", PV_FIELD_U8, picture_u8, 3, 3, SIDE_H, SIDE_W),
                     field("images/cam_low", PV_FIELD_U8, picture_u8, 3, 3, SIDE_H, SIDE_W),
                     field("images/cam_right_wrist", PV_FIELD_U8, picture_u8, 3, 3, SIDE_H, SIDE_W)};
    CHECK_OK(pv_robot_observe(b, in, 5, &frame));
    const pv_observation *o = pv_frame_observation(frame);
    CHECK(o && o->n_images == 2 && !strcmp(o->images[0].camera, "base_0_rgb") &&
          !strcmp(o->images[1].camera, "right_wrist_0_rgb"));
    in[4].key = "images/cam_front";
    CHECK_STATUS(pv_robot_observe(b, in, 5, &frame), PV_E_ARG);
    CHECK_TEXT("'images/cam_front': robot 'aloha' does not know it; expected some of: images/cam_high, images/cam_left_wrist, "
               "images/cam_right_wrist, images/cam_low");
    CHECK(frame && !pv_frame_observation(frame));
    in[2] = hwc("images/cam_high"); /* ALOHA's are CHW, always */
    CHECK_STATUS(pv_robot_observe(b, in, 3, &frame), PV_E_SHAPE);
    CHECK_TEXT("'images/cam_high': expected a picture u8, f32 or f64 [3, height, width] with sides of 1 to 8192, came u8 [4, 5, 3]");
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

#define CAMERAS "\"cameras\":[{\"slot\":\"base_0_rgb\",\"key\":\"eye\"}]"
#define STATE   "\"state\":{\"fields\":[{\"key\":\"s\",\"size\":2}]}"
#define PROMPT  "\"prompt\":{\"key\":\"p\"}"
#define ACTIONS "\"actions\":{\"size\":3}"

/* numpy adds where(mask, state, 0): what is not relative loses the sign of its zero. Nothing is added where nothing is relative. */
static void zeros(void)
{
    const double s[2] = {4, 5}, actions[3] = {-0.0, -0.0, 1};
    const pv_field in[] = {hwc("eye"), vector("s", s, 2), words("p", "a")};
    for (int relative = 0; relative < 2; relative++) {
        double out[3];
        pv_robot *b = from_json(relative ? "{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"delta\":[1]}}"
                                         : "{" CAMERAS "," STATE "," PROMPT "," ACTIONS "}");
        pv_frame *frame = NULL;
        CHECK_OK(pv_robot_observe(b, in, 3, &frame));
        CHECK_OK(pv_robot_act(b, NULL, frame, actions, 1, 3, out));
        CHECK(out[0] == 0 && (signbit(out[0]) == 0) == relative && out[1] == (relative ? 5 : 0) && out[2] == 1);
        pv_frame_free(&frame);
        pv_robot_free(&b);
    }
}

/* ---- observations that are wrong ---- */

static pv_robot *strict;

static void refuse(const pv_field *in, int n, pv_status want, const char *text)
{
    pv_frame *frame = NULL;
    CHECK_STATUS(pv_robot_observe(strict, in, n, &frame), want);
    CHECK_TEXT(text);
    CHECK(!frame);
}

static void refusals(void)
{
    double state[8] = {0};
    float pixels[3] = {0, 0.5f, 1};
    pv_field good[5] = {hwc("observation/image"), hwc("observation/wrist_image"), vector("observation/state", state, 8),
                        words("prompt", "a")};
    pv_field in[5];
    strict = load("libero");
#define WITH(change, n, status, words_)                                                                                \
    do {                                                                                                               \
        memcpy(in, good, sizeof in);                                                                                   \
        change;                                                                                                        \
        refuse(in, n, status, words_);                                                                                 \
    } while (0)
    WITH((void)0, 0, PV_E_ARG, "'observation/image': expected a picture, it is missing; came nothing");
    WITH(in[1].key = "observation/wrist", 4, PV_E_ARG, "'observation/wrist_image': expected a picture, it is missing; came observation/image, observation/wrist,");
    WITH((void)0, 2, PV_E_ARG, "'observation/state': expected numbers of the state");
    WITH((void)0, 3, PV_E_ARG, "'prompt': expected text, it is missing");
    WITH(in[4] = in[0], 5, PV_E_ARG, "'observation/image': came twice");
    WITH(in[0].key = NULL, 4, PV_E_ARG, "field 0 ('(null)')");
    WITH(in[0].type = PV_FIELD_TYPE_COUNT, 4, PV_E_ARG, "came type 7");
    WITH(in[0].n_dims = 5, 4, PV_E_ARG, "5 dims");
    WITH(in[0].n_dims = -1, 4, PV_E_ARG, "-1 dims");
    WITH(in[3].n_dims = 0, 4, PV_E_ARG, "(text: 1)");
    WITH(in[0].data = NULL, 4, PV_E_SHAPE, "no data");
    WITH(in[0].dim[0] = -4, 4, PV_E_SHAPE, "dim 0 is -4");
    WITH((in[0].dim[0] = INT64_MAX, in[0].dim[1] = INT64_MAX), 4, PV_E_SHAPE, "more bytes than there is memory");
    WITH(in[0].dim[0] = 0, 4, PV_E_SHAPE, "came u8 [0, 5, 3]");
    WITH(in[0].dim[1] = 8193, 4, PV_E_SHAPE, "came u8 [4, 8193, 3]");
    WITH(in[0].dim[0] = 8193, 4, PV_E_SHAPE, "came u8 [8193, 5, 3]");
    WITH(in[0].dim[2] = 4, 4, PV_E_SHAPE, "came u8 [4, 5, 4]");
    WITH(in[0].n_dims = 2, 4, PV_E_SHAPE, "[height, width, 3] or [3, height, width] with sides of 1 to 8192, came u8 [4, 5]");
    WITH(in[0].type = PV_FIELD_BOOL, 4, PV_E_SHAPE, "came bool");
    const float bad[] = {NAN, INFINITY, -INFINITY, 1.01f, -0.01f, 200};
    for (int i = 0; i < 6; i++) {
        pixels[1] = bad[i];
        WITH(in[0] = field("observation/image", PV_FIELD_F32, pixels, 3, 1, 1, 3), 4, i < 3 ? PV_E_NOT_FINITE : PV_E_ARG,
             "'observation/image': row 0, column 0, channel 1");
    }
    CHECK_TEXT("expected a value in [0, 1], came 200");
    WITH(in[2].dim[0] = 7, 4, PV_E_SHAPE, "'observation/state': expected numbers [8], came f64 [7]");
    WITH((in[2].n_dims = 2, in[2].dim[1] = 1), 4, PV_E_SHAPE, "came f64 [8, 1]");
    WITH(in[2].n_dims = 0, 4, PV_E_SHAPE, "came f64 []");
    WITH(in[2].type = PV_FIELD_BOOL, 4, PV_E_SHAPE, "came bool [8]");
    WITH(in[2] = words("observation/state", "01234567"), 4, PV_E_SHAPE, "came text [8]");
    state[3] = NAN;
    WITH((void)0, 4, PV_E_NOT_FINITE, "'observation/state': number 3 is");
    state[3] = 0;
    WITH(in[3].type = PV_FIELD_U8, 4, PV_E_SHAPE, "'prompt': expected text, came u8 [1]");
    WITH((in[3].data = "a\0b", in[3].dim[0] = 3), 4, PV_E_ARG, "zero byte");
    WITH(in[3].dim[0] = 1 << 20, 4, PV_E_ARG, "expected at most 65536 bytes, came 1048576");
#undef WITH
    refuse(good, 1025, PV_E_ARG, "at most 1024 fields");
    refuse(good, -1, PV_E_ARG, "must be given");
    pv_robot_free(&strict);
}

static void act_refusals(void)
{
    const double state[14] = {0};
    double actions[14] = {0}, out[14] = {42};
    pv_robot *b = load("aloha"), *other = load("libero");
    pv_frame *frame = NULL;
    const pv_field in[] = {vector("state", state, 14), words("prompt", "fold"),
                           field("images/cam_high", PV_FIELD_U8, picture_u8, 3, 3, SIDE_H, SIDE_W)};
    CHECK_OK(pv_robot_observe(b, in, 3, &frame));
    CHECK_STATUS(pv_robot_act(b, NULL, frame, actions, 1, 13, out), PV_E_SHAPE);
    CHECK_TEXT("robot 'aloha' has 14, the model's have 13");
    CHECK_STATUS(pv_robot_act(other, NULL, frame, actions, 1, 14, out), PV_E_ARG);
    CHECK_TEXT("not one that robot 'libero' observed");
    actions[13] = NAN;
    CHECK_STATUS(pv_robot_act(b, NULL, frame, actions, 1, 14, out), PV_E_NOT_FINITE);
    CHECK_TEXT("step 0, dim 13");
    CHECK_STATUS(pv_robot_act(b, NULL, frame, actions, 0, 14, out), PV_E_ARG);
    CHECK(out[0] == 42);
    pv_frame_free(&frame);
    pv_robot_free(&b);
    pv_robot_free(&other);
}

/* ---- descriptions that are wrong ---- */

static void bad(const char *json, const char *text)
{
    pv_robot *b = NULL;
    int64_t live = pv_alloc_live();
    CHECK_STATUS(pv_robot_parse(json, strlen(json), "test", "test.json", &b), PV_E_FILE);
    if (!CHECK_TEXT(text))
        printf("    of %s\n", json);
    CHECK(!b && pv_alloc_live() == live);
}

static void descriptions(void)
{
    pv_robot_free(&(pv_robot *){from_json("{" CAMERAS "," STATE "," PROMPT "," ACTIONS "}")});
    bad("", "not valid JSON");
    bad("[]", "expected an object, came an array");
    bad("{}", "cameras: expected an array of 1 to 16 values, came nothing");
    bad("{" CAMERAS "," STATE "," PROMPT "," ACTIONS ",\"camera\":1}", "key 'camera' is not known here; expected some of: about rules cameras");
    bad("{\"cameras\":[]," STATE "," PROMPT "," ACTIONS "}", "cameras: expected an array of 1 to 16 values, came 0");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":null}]," STATE "," PROMPT "," ACTIONS "}", "at least one with a key");
    bad("{\"cameras\":[{\"slot\":\"a\"}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0].key: expected text of 1 to 256 bytes, came nothing");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\",\"mask\":1}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0]: key 'mask' is not known");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\"},{\"slot\":\"a\",\"key\":\"y\"}]," STATE "," PROMPT "," ACTIONS "}", "'a' was named before");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"s\"}]," STATE "," PROMPT "," ACTIONS "}", "the key 's' has two uses");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\",\"layout\":\"cwh\"}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0].layout: expected one of \"auto\" \"hwc\" \"chw\", came \"cwh\"");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\",\"order\":1}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0].order: expected one of \"rgb\" \"bgr\", came 1");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\",\"float\":\"0..255\"}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0].float");
    bad("{\"cameras\":[{\"slot\":\"a\",\"key\":\"x\",\"optional\":1}]," STATE "," PROMPT "," ACTIONS "}", "cameras[0].optional: expected true or false, came 1");
    bad("{" CAMERAS "," PROMPT "," ACTIONS "}", "state: expected an object, came nothing");
    bad("{" CAMERAS ",\"state\":{\"fields\":[{\"key\":\"s\",\"size\":0}]}," PROMPT "," ACTIONS "}", "state.fields[0].size: expected a whole number from 1 to 256, came 0");
    bad("{" CAMERAS ",\"state\":{\"fields\":[{\"key\":\"s\",\"size\":2.5}]}," PROMPT "," ACTIONS "}", "came 2.5");
    bad("{" CAMERAS ",\"state\":{\"fields\":[{\"key\":\"s\",\"size\":200},{\"key\":\"t\",\"size\":200}]}," PROMPT "," ACTIONS "}", "400 numbers in all");
    bad("{" CAMERAS "," STATE "," ACTIONS "}", "prompt: expected an object");
    bad("{" CAMERAS "," STATE ",\"prompt\":{\"key\":\"p\",\"default\":\"\"}," ACTIONS "}", "prompt.default");
    bad("{" CAMERAS "," STATE "," PROMPT "}", "actions: expected an object");
    bad("{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"delta\":[3]}}", "actions.delta: expected a whole number from 0 to 2, came 3");
    bad("{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"delta\":[2]}}", "actions.delta: 2 has no number of the state");
    bad("{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"delta\":[1,1]}}", "actions.delta: 1 is there twice");
    bad("{" CAMERAS "," STATE "," PROMPT "," ACTIONS ",\"ignore\":\"x\"}", "ignore: expected an array");
    bad("{" CAMERAS "," STATE "," PROMPT "," ACTIONS ",\"closed\":[7]}", "closed[0]: expected text");
#define CONVERT(op) "{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"convert\":[" op "]}}"
    bad(CONVERT("7"), "actions.convert[0]");
    bad(CONVERT("{}"), "actions.convert[0].op: expected the name of an operation, came nothing");
    bad(CONVERT("{\"op\":\"divide\"}"), "actions.convert[0].op: expected one of \"multiply\"");
    bad(CONVERT("{\"op\":\"multiply\",\"by\":[1,2]}"), "actions.convert[0].by: expected an array of 3 to 3 values, came 2");
    bad(CONVERT("{\"op\":\"multiply\",\"by\":[1,2,\"x\"]}"), "actions.convert[0].by: expected a number, came \"x\"");
    bad(CONVERT("{\"op\":\"add\",\"value\":1,\"min\":0}"), "key 'min' is not known here; expected some of: op dims value");
    bad(CONVERT("{\"op\":\"add\"}"), "actions.convert[0].value: expected a number, came nothing");
    bad(CONVERT("{\"op\":\"add\",\"value\":1,\"dims\":[0,3]}"), "actions.convert[0].dims: expected a whole number from 0 to 2, came 3");
    bad(CONVERT("{\"op\":\"add\",\"value\":1,\"dims\":[1,1]}"), "actions.convert[0].dims: 1 is there twice");
    bad(CONVERT("{\"op\":\"normalize\",\"min\":1,\"max\":1}"), "expected min < max, came 1 and 1");
    bad(CONVERT("{\"op\":\"unnormalize\",\"min\":-1e308,\"max\":1e308}"), "expected min < max");
    bad(CONVERT("{\"op\":\"linear_to_radian\",\"arm\":1,\"horn\":0}"), "expected arm and horn above 0");
}

static void names(void)
{
    pv_robot *b = NULL;
    pv_robot_info info = {0};
    char path[] = "/tmp/pv_robot_XXXXXX";
    int n = 0;
    for (const char *name; (name = pv_robot_list(n)); n++) {
        CHECK_OK(pv_robot_load(name, &b));
        CHECK_OK(pv_robot_describe(b, &info));
        CHECK(!strcmp(info.name, name) && *info.about && info.n_cameras == 3 && !strcmp(info.prompt_key, "prompt"));
        pv_robot_free(&b);
    }
    CHECK(n == 3 && !pv_robot_list(-1) && !b);
    CHECK_STATUS(pv_robot_load("panda", &b), PV_E_FILE);
    CHECK_TEXT("robot 'panda': neither built in (libero, droid, aloha) nor a JSON file");
    CHECK_STATUS(pv_robot_load(NULL, &b), PV_E_ARG);
    int fd = mkstemp(path);
    const char json[] = "{" CAMERAS "," STATE "," PROMPT ",\"actions\":{\"size\":3,\"delta\":[0]}}";
    CHECK(fd >= 0 && write(fd, json, sizeof json - 1) == (ssize_t)sizeof json - 1 && !close(fd));
    CHECK_OK(pv_robot_load(path, &b));
    CHECK_OK(pv_robot_describe(b, &info));
    CHECK(!strcmp(info.name, path) && !strcmp(info.json, json) && info.state_dim == 2 && info.action_dim == 3 && info.delta);
    CHECK(!strcmp(info.key[0], "eye") && !strcmp(info.state_key[0], "s") && info.state_key_dim[0] == 2 && !info.default_prompt);
    info.size = 7;
    CHECK_STATUS(pv_robot_describe(b, &info), PV_E_ARG);
    pv_robot_free(&b);
    unlink(path);
}

/* The description that docs/robots.md shows is one. */
static void the_page(void)
{
    char *page = NULL;
    size_t n;
    pv_robot *b = NULL;
    CHECK_OK(pv_file_read(PV_SOURCE_DIR "/docs/robots.md", 1 << 20, &page, &n));
    char *json = page ? strstr(page, "```json\n") : NULL, *end = json ? strstr(json + 8, "```") : NULL;
    if (CHECK(json && end))
        CHECK_OK(pv_robot_parse(json + 8, (size_t)(end - json - 8), "page", "docs/robots.md", &b));
    pv_robot_free(&b);
    pv_free(page);
}

/* ---- with a model ---- */

static void whole_call(void)
{
    static uint8_t photo[48 * 64 * 3];
    double state[8] = {0.01, -0.1, 0.9, 3, 0.1, 0, 0.02, -0.02}, exact[10 * 7], out[10 * 7];
    float actions[10 * 7];
    pv_backend *cpu = NULL;
    pv_model *model = NULL;
    pv_session *session = NULL;
    pv_frame *frame = NULL;
    pv_robot *b = load("libero");
    for (size_t i = 0; i < sizeof photo; i++)
        photo[i] = (uint8_t)(i * 37);
    const pv_field in[] = {field("observation/image", PV_FIELD_U8, photo, 3, 48, 64, 3),
                           field("observation/wrist_image", PV_FIELD_U8, photo, 3, 3, 48, 64),
                           vector("observation/state", state, 8), words("prompt", "a")};
    const pv_infer_params p = {.seed = 3, .actions_f64 = exact};
    CHECK_OK(pv_backend_open("cpu", NULL, &cpu));
    CHECK_OK(pv_model_load("synth:tiny", &(pv_model_params){.discrete_state = PV_OFF}, &model));
    CHECK_OK(pv_session_create(model, cpu, NULL, &session));
    CHECK_OK(pv_robot_observe(b, in, 4, &frame));
    pv_observation seen = *pv_frame_observation(frame);
    const int32_t ids[] = {2, 7, 9}; /* a build without a tokenizer runs this too */
    seen.tokens = ids;
    seen.n_tokens = 3;
    CHECK_OK(pv_session_infer(session, &seen, &p, actions));
    CHECK_OK(pv_robot_act(b, model, frame, exact, 10, 7, out));
    CHECK(!memcmp(out, exact, sizeof out));
    pv_frame_free(&frame);
    pv_robot_free(&b);
    pv_session_destroy(&session);
    pv_model_free(&model);
    pv_backend_close(&cpu);
}

/* Each allocation fails once: a status, and nothing is left. */
static int fail_at;

static void *failing(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return fail_at-- == 0 ? NULL : aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static void no_memory(void)
{
    const double state[14] = {0};
    const pv_field in[] = {vector("state", state, 14), words("prompt", "fold"),
                           field("images/cam_high", PV_FIELD_U8, picture_u8, 3, 3, SIDE_H, SIDE_W)};
    bool whole = false;
    CHECK_OK(pv_set_allocator(&(pv_allocator){.alloc = failing, .release = release}));
    for (int i = 0; !whole && i < 1000; i++) {
        pv_robot *b = NULL;
        pv_frame *frame = NULL;
        fail_at = i;
        pv_status st = pv_robot_load("aloha", &b);
        if (!st)
            st = pv_robot_observe(b, in, 3, &frame);
        whole = st == PV_OK;
        CHECK(whole || (st == PV_E_MEMORY && !frame));
        pv_frame_free(&frame);
        pv_robot_free(&b);
        CHECK(pv_alloc_live() == 0);
    }
    CHECK(whole);
    CHECK_OK(pv_set_allocator(NULL));
}

int main(void)
{
    for (int i = 0; i < BYTES; i++)
        picture_u8[i] = (uint8_t)(i * 255 / (BYTES - 1));
    no_memory();
    aloha_as_numpy();
    floats_as_numpy();
    layouts();
    droid_state();
    aloha_cameras();
    zeros();
    refusals();
    act_refusals();
    descriptions();
    names();
    the_page();
    whole_call();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
