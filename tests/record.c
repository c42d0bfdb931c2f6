/* record.c - recordings: what went in comes back and runs to the same bytes; a slow disk, a full folder and a
 * broken disk cost recordings, which are counted, and nothing else; files that lie are refused. */
#include "io/file.h"
#include "io/safetensors.h"
#include "record/record.h"
#include "tests/faults.h"
#include "tests/session/rig.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the disk ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* held: the disk is slow */
static int disk_is;                                      /* an errno that fsync answers; 0: none */

int fsync(int fd)
{
    (void)fd;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    errno = disk_is;
    return disk_is ? -1 : 0;
}

static const pv_infer_params once = {.seed = 7};
static char folder[64];

/* An empty folder that is not there yet. */
static void fresh(void)
{
    static int n;
    snprintf(folder, sizeof folder, "/tmp/pv-record-%ld-%d", (long)getpid(), n++);
}

/* Files in the folder, the last one's path in `path`, their bytes in `bytes`; with `clear` they and the
 * folder go. */
static int files(char path[512], uint64_t *bytes, bool clear)
{
    int n = 0;
    DIR *d = opendir(folder);
    if (!CHECK(d != NULL))
        return -1;
    *bytes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat s;
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, 512, "%s/%s", folder, e->d_name);
        n++;
        if (CHECK(!stat(path, &s)))
            *bytes += (uint64_t)s.st_size;
        if (clear)
            CHECK(!unlink(path));
    }
    closedir(d);
    if (clear)
        CHECK(!rmdir(folder));
    return n;
}

static int clear(void)
{
    char path[512];
    uint64_t bytes;
    return files(path, &bytes, true);
}

static pv_recorder_info about(pv_recorder *r)
{
    pv_recorder_info info = {0};
    CHECK_OK(pv_recorder_describe(r, &info));
    return info;
}

static pv_recorder *open_recorder(rig *r, uint64_t limit, int queue)
{
    pv_recorder *out = NULL;
    if (!CHECK_OK(pv_recorder_open(folder, r->session,
                                   &(pv_recorder_params){.limit_bytes = limit, .queue = queue}, &out)))
        exit(test_done());
    return out;
}

/* ---- there and back ---- */

/* Closes the recorder and opens the one recording that it wrote. */
static pv_recording *only(pv_recorder **recorder)
{
    char path[512];
    uint64_t bytes;
    pv_recording *got = NULL;
    CHECK_OK(pv_recorder_flush(*recorder, 20000));
    pv_recorder_info info = about(*recorder);
    pv_recorder_close(recorder);
    CHECK(files(path, &bytes, false) == 1);
    CHECK(info.written == 1 && info.waiting == 0 && info.bytes == bytes && !*info.error);
    CHECK_OK(pv_recording_open(path, &got));
    if (!got)
        exit(test_done());
    return got;
}

static bool says(const pv_recording *r, const char *key, const char *value)
{
    const char *text = pv_recording_text(r, key);
    return text && !strcmp(text, value);
}

static void plain(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, &(pv_session_params){.max_steps = 3}, 1);
    pv_recorder *recorder = open_recorder(&r, 0, 0);
    pv_observation seen = rig_observation(5);
    pv_image images[2] = {rig_images[2], rig_images[0]};
    images[0].stride = 3 * FIT + 7; /* rows with something between them, which is not recorded */
    images[0].height = 40;
    seen.images = images;
    seen.n_images = 2;
    seen.id = 77;
    const float times[] = {1, 0.75f, 0.5f, 0.125f, 0};
    chunk c = rig_infer(&r, &seen, (pv_infer_params){.seed = 5, .steps = 4, .timesteps = times});
    CHECK_OK(
        pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen, .source = "the \"test\"\n"}));
    pv_recording *got = only(&recorder);
    const pv_recorded *look = pv_recording_look(got);
    CHECK(look->horizon == HORIZON && look->model_dim == DIM && look->action_dim == ROBOT &&
          look->steps == 4);
    CHECK(!look->robot && !look->schedule && !look->rope_bf16 && !look->allow_truncation &&
          look->max_steps == 3);
    CHECK(!memcmp(look->times, times, sizeof times) && look->n_tokens == 5 &&
          look->tokens[1] == rig_tokens[1]);
    CHECK(!memcmp(look->model_actions, c.model, sizeof c.model));
    CHECK(!memcmp(look->actions, c.exact, sizeof *c.exact * HORIZON * ROBOT));
    CHECK(says(got, "seed", "5") && says(got, "observation", "77") && says(got, "source", "the \"test\"\n"));
    CHECK(says(got, "model", "synth:tiny") && says(got, "backend", "cpu") && says(got, "recipe", "f32"));
    CHECK(!pv_recording_text(got, "robot") && pv_recording_text(got, "ms.vision"));

    pv_observation back;
    CHECK_OK(pv_recording_plain(got, &back));
    CHECK(back.n_images == 2 && back.n_tokens == 5 && !back.prompt && back.n_state == 8);
    chunk again =
        rig_infer(&r, &back, (pv_infer_params){.noise = look->noise, .steps = 4, .timesteps = look->times});
    CHECK(same(&c, &again));
    pv_recording_close(&got);
    CHECK(clear() == 1);
    rig_close(&r);
}

/* Fields of every type, aligned or not, come back as they came. */
static void of_robot(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_model_info m = {0};
    CHECK_OK(pv_model_describe(r.model, &m));
    if (!m.has_tokenizer) { /* a build without words */
        rig_close(&r);
        return;
    }
    pv_recorder *recorder = open_recorder(&r, 0, 0);
    static uint8_t pixels[2][12 * 16 * 3 + 1];
    for (size_t i = 0; i < sizeof pixels[0]; i++)
        pixels[0][i] = (uint8_t)(i * 7), pixels[1][i] = (uint8_t)(i * 5 + 1);
    float state[9] = {0};
    for (int i = 0; i < 8; i++)
        state[i + 1] = 0.1f * (float)i;
    const int64_t big = INT64_MIN;
    const bool yes[2] = {true, false};
    const pv_field fields[] = {
        {"observation/wrist_image", PV_FIELD_U8, 3, {12, 16, 3}, pixels[1] + 1},
        {"more", PV_FIELD_I64, 0, {0}, &big},
        {"observation/state", PV_FIELD_F32, 1, {8}, state + 1},
        {"truths", PV_FIELD_BOOL, 2, {1, 2}, yes},
        {"prompt", PV_FIELD_TEXT, 1, {10}, "die Stra\xc3\x9f"},
        {"nothing", PV_FIELD_F64, 2, {0, 3}, state},
        {"observation/image", PV_FIELD_U8, 3, {12, 16, 3}, pixels[0]},
    };
    enum { N = sizeof fields / sizeof *fields };
    pv_robot *robot = NULL;
    pv_frame *frame = NULL;
    float rounded[HORIZON * ROBOT];
    double exact[HORIZON * ROBOT], actions[HORIZON * ROBOT], again[HORIZON * ROBOT];
    pv_infer_params p = {.actions_f64 = exact, .schedule = "cosine", .allow_truncation = true};
    CHECK_OK(pv_robot_load("libero", &robot));
    CHECK_OK(pv_robot_observe(robot, fields, N, &frame));
    CHECK_OK(pv_session_infer(r.session, pv_frame_observation(frame), &p, rounded));
    CHECK_OK(pv_robot_act(robot, r.model, frame, exact, HORIZON, ROBOT, actions));
    const pv_stage_time times[] = {{"queue", 0.25}};
    pv_record whole = {
        .robot = robot, .fields = fields, .n_fields = N, .actions = actions, .times = times, .n_times = 1};
    CHECK_OK(pv_recorder_put(recorder, r.session, &whole));
    pv_recording *got = only(&recorder);
    const pv_recorded *look = pv_recording_look(got);
    CHECK(look->robot && look->n_fields == N && look->schedule && !strcmp(look->schedule, "cosine") &&
          look->allow_truncation);
    CHECK(says(got, "robot_name", "libero") && says(got, "ms.queue", "0.25"));
    for (int i = 0; i < N; i++) {
        const pv_field *want = &fields[i], *came = NULL;
        int64_t n = 1;
        for (int k = 0; k < look->n_fields; k++)
            if (!strcmp(look->fields[k].key, want->key))
                came = &look->fields[k];
        if (!CHECK(came && came->type == want->type && came->n_dims == want->n_dims))
            continue;
        for (int d = 0; d < want->n_dims; d++) {
            CHECK(came->dim[d] == want->dim[d]);
            n *= want->dim[d];
        }
        static const size_t width[] = {1, 4, 8, 4, 8, 1, 1};
        CHECK(!memcmp(came->data, want->data, (size_t)n * width[want->type]));
    }
    p.noise = look->noise;
    CHECK_OK(pv_robot_observe(robot, look->fields, look->n_fields, &frame));
    CHECK_OK(pv_session_infer(r.session, pv_frame_observation(frame), &p, rounded));
    CHECK_OK(pv_robot_act(robot, r.model, frame, exact, HORIZON, ROBOT, again));
    CHECK(!memcmp(again, actions, sizeof actions) && !memcmp(again, look->actions, sizeof again));
    pv_recording_close(&got);
    CHECK(clear() == 1);
    pv_frame_free(&frame);
    pv_robot_free(&robot);
    rig_close(&r);
}

/* ---- what is refused ---- */

static void refusals(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, NULL, 1), other = rig_open("synth:tiny", NULL, NULL, 1);
    pv_recorder *recorder = NULL, *none = NULL;
    pv_observation seen = rig_observation(3), bad = rig_observation(0);
    pv_record whole = {.observation = &seen};
    pv_image half = {.camera = "base_0_rgb", .width = 8, .height = 8};
    pv_observation no_pictures = {.n_images = 2}, half_a_picture = {.n_images = 1, .images = &half};
    float actions[CHUNK];
    const double d = NAN;
    const pv_stage_time nan_time = {"x", NAN};
    pv_robot *robot = NULL;
    CHECK_STATUS(pv_recorder_open("", r.session, NULL, &none), PV_E_ARG);
    CHECK_STATUS(pv_recorder_open("/nowhere/at/all", r.session, NULL, &none), PV_E_FILE);
    CHECK_TEXT("/nowhere/at/all");
    CHECK_STATUS(pv_recorder_open(folder, r.session, &(pv_recorder_params){.queue = 65}, &none), PV_E_ARG);
    CHECK_STATUS(pv_recorder_open(PV_SOURCE_DIR "/README.md", r.session, NULL, &none), PV_E_FILE);
    CHECK(!none);
    recorder = open_recorder(&r, 0, 0);
    CHECK_STATUS(pv_recorder_put(recorder, r.session, &whole), PV_E_ARG);
    CHECK_TEXT("there was none");
    CHECK_OK(pv_session_infer(r.session, &seen, NULL, actions));
    CHECK_STATUS(pv_session_infer(r.session, &bad, NULL, actions), PV_E_ARG);
    CHECK_STATUS(pv_recorder_put(recorder, r.session, &whole), PV_E_ARG);
    CHECK_TEXT("its last inference failed");
    CHECK_OK(pv_session_infer(r.session, &seen, NULL, actions));
    CHECK_OK(pv_session_infer(other.session, &seen, NULL, actions));
    CHECK_STATUS(pv_recorder_put(recorder, other.session, &whole), PV_E_ARG);
    CHECK_TEXT("another model");
    CHECK_OK(pv_robot_load("libero", &robot));
    const pv_record wrong[] = {{.robot = robot},
                               {.observation = &seen, .robot = robot, .actions = &d},
                               {.observation = &seen, .actions = &d},
                               {.observation = &seen, .times = &nan_time, .n_times = 1},
                               {.observation = &seen, .n_times = 1},
                               {.observation = &seen, .n_times = -1},
                               {.observation = &seen, .size = 4},
                               {.observation = &no_pictures},
                               {.observation = &half_a_picture},
                               {.source = "alone"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_STATUS(pv_recorder_put(recorder, r.session, &wrong[i]), PV_E_ARG);
    CHECK_STATUS(pv_recorder_put(NULL, r.session, &whole), PV_E_ARG);
    CHECK_STATUS(pv_recorder_flush(recorder, NAN), PV_E_ARG);
    CHECK(about(recorder).written == 0 && about(recorder).dropped_failed == 0);
    pv_recorder_close(&recorder);
    pv_recorder_close(&recorder);
    CHECK(clear() == 0);
    pv_robot_free(&robot);
    rig_close(&other);
    rig_close(&r);
}

/* ---- a disk that is slow, full or broken ---- */

static void slow(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_recorder *recorder = open_recorder(&r, 0, 3);
    pv_observation seen = rig_observation(3);
    pthread_mutex_lock(&gate);
    double most = 0;
    for (int i = 0; i < 10; i++) {
        rig_infer(&r, &seen, (pv_infer_params){.seed = (uint64_t)i});
        double begin = pv_clock_ms();
        CHECK_OK(pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen}));
        most = fmax(most, pv_clock_ms() - begin);
    }
    pv_recorder_info info = about(recorder);
    CHECK(info.written == 0 && info.waiting == 3 && info.dropped_queue == 7);
    CHECK(most < 1000); /* nobody waited for the disk, which never answered */
    CHECK_STATUS(pv_recorder_flush(recorder, 20), PV_E_UNAVAILABLE);
    CHECK_TEXT("3 still wait");
    pthread_mutex_unlock(&gate);
    CHECK_OK(pv_recorder_flush(recorder, 20000));
    rig_infer(&r, &seen, once);
    CHECK_OK(pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen}));
    pv_recorder_close(&recorder); /* writes what waits */
    CHECK(clear() == 4);
    rig_close(&r);
}

static void full(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_observation seen = rig_observation(3);
    char path[512];
    uint64_t one = 0, bytes = 0;
    pv_recorder *recorder = open_recorder(&r, 0, 0);
    rig_infer(&r, &seen, once);
    CHECK_OK(pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen}));
    pv_recorder_close(&recorder);
    CHECK(files(path, &one, false) == 1);
    uint64_t limit = 4 * one + one / 2; /* what is there already counts */
    recorder = open_recorder(&r, limit, 0);
    CHECK(about(recorder).bytes == one);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen}));
        CHECK_OK(pv_recorder_flush(recorder, 20000));
    }
    pv_recorder_info info = about(recorder);
    pv_recorder_close(&recorder);
    int n = files(path, &bytes, false);
    CHECK(n >= 3 && n <= 4 && bytes <= limit && info.bytes == bytes);
    CHECK(info.written == (uint64_t)n - 1 && info.dropped_limit == 11 - (uint64_t)n &&
          info.dropped_queue == 0);
    clear();
    rig_close(&r);
}

static void broken(void)
{
    fresh();
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_observation seen = rig_observation(3);
    pv_recorder *recorder = open_recorder(&r, 0, 0);
    rig_infer(&r, &seen, once);
    for (int i = 0; i < 3; i++) {
        disk_is = i < 2 ? ENOSPC : 0;
        CHECK_OK(pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen}));
        CHECK_OK(pv_recorder_flush(recorder, 20000));
    }
    pv_recorder_info info = about(recorder);
    CHECK(info.dropped_failed == 2 && info.written == 1 && strstr(info.error, "No space"));
    pv_recorder_close(&recorder);
    CHECK(clear() == 1); /* nothing half written stays */
    rig_close(&r);
}

/* Each allocation of opening and recording fails once: a status or a recording that is counted, and nothing
 * is lost. */
static void no_memory(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_observation seen = rig_observation(3);
    rig_infer(&r, &seen, once);
    int64_t live = pv_alloc_live();
    long k = 0;
    for (bool met = true; met && k < 2000; k++) {
        fresh();
        pv_recorder *recorder = NULL;
        fault_countdown = k;
        pv_status st = pv_recorder_open(folder, r.session, NULL, &recorder);
        bool opened = recorder;
        CHECK(opened ? !st : st == PV_E_MEMORY);
        if (opened)
            st = pv_recorder_put(recorder, r.session, &(pv_record){.observation = &seen});
        if (opened && !st)
            CHECK_OK(pv_recorder_flush(recorder, 20000));
        met = fault_countdown < 0;
        fault_countdown = -1;
        CHECK(!st || st == PV_E_MEMORY);
        pv_recorder_info info = {0};
        if (opened)
            info = about(recorder);
        CHECK(!opened || info.written + info.dropped_failed == 1);
        CHECK(met || info.written == 1);
        pv_recorder_close(&recorder);
        if (!CHECK(pv_alloc_live() == live)) {
            printf("    allocation %ld\n", k);
            break;
        }
        struct stat s;
        if (!stat(folder, &s))
            CHECK(clear() == (info.written == 1));
    }
    printf("recorder: each of %ld allocations failed once\n", k - 1);
    CHECK(k > 10);
    rig_close(&r);
    CHECK_OK(pv_set_allocator(NULL));
}

/* ---- files that lie ---- */

#define META_ALL                                                                                             \
    "\"format\":\"pivot.record/"                                                                             \
    "1\",\"model\":\"m\",\"weights\":\"0\",\"stats\":\"none\",\"config\":\"{}\",\"backend\":\"cpu\","        \
    "\"device\":\"d\",\"library\":\"l\",\"recipe\":\"f32\",\"plan\":\"0\",\"rope_bf16\":\"0\",\"allow_"      \
    "truncation\":\"0\","                                                                                    \
    "\"max_steps\":\"1\",\"schedule\":\"openpi\""
#define T(name, dtype, shape, at, end)                                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" at "," end "]}"
#define TENSORS                                                                                              \
    T("actions", "F64", "[2,1]", "0", "16")                                                                  \
    "," T("noise", "F32", "[2,3]", "16", "40") "," T("model_actions", "F32", "[2,3]", "40", "64") "," T(     \
        "timesteps", "F32", "[2]", "64", "72") "," T("tokens", "I32", "[1]", "72",                           \
                                                     "76") "," T("text.prompt", "U8", "[4]", "76", "80")
#define WHOLE "{\"__metadata__\":{" META_ALL "}," TENSORS "}"
enum { DATA = 80 };

static char lie_path[64];

static pv_status opens(const char *header, const unsigned char data[DATA])
{
    size_t n = strlen(header);
    char *all = malloc(8 + n + DATA);
    for (int i = 0; i < 8; i++)
        all[i] = (char)((uint64_t)n >> 8 * i);
    memcpy(all + 8, header, n);
    memcpy(all + 8 + n, data, DATA);
    CHECK_OK(pv_file_write(lie_path, all, 8 + n + DATA));
    free(all);
    pv_recording *r = NULL;
    pv_observation o;
    pv_status st = pv_recording_open(lie_path, &r);
    CHECK(st ? !r : r != NULL);
    if (!st)
        st = pv_recording_plain(r, &o);
    if (r)
        pv_recording_close(&r);
    return st;
}

/* `from` in the whole header becomes `to`, which as many bytes of blanks before its end make as long. */
static pv_status altered(const char *from, const char *to)
{
    static const unsigned char zeros[DATA] = {0};
    char header[4096];
    const char *at = strstr(WHOLE, from);
    if (!CHECK(at != NULL))
        return PV_OK;
    snprintf(header, sizeof header, "%.*s%s%s", (int)(at - WHOLE), WHOLE, to, at + strlen(from));
    return opens(header, zeros);
}

static void lies(void)
{
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"pivot.record/1", "pivot.record/2", "expected format"},
        {"\"format\":\"pivot.record/1\",", "", "no 'format'"},
        {"\"plan\":\"0\",", "", "no 'plan'"},
        {"\"max_steps\":\"1\"", "\"max_steps\":\"100001\"", "'max_steps'"},
        {"\"max_steps\":\"1\"", "\"max_steps\":\"1x\"", "'max_steps'"},
        {"\"max_steps\":\"1\"", "\"max_steps\":\"\"", "'max_steps'"},
        {"\"max_steps\":\"1\"", "\"max_steps\":\"99999999999999999999\"", "'max_steps'"},
        {"\"rope_bf16\":\"0\"", "\"rope_bf16\":\"2\"", "'rope_bf16'"},
        {"\"schedule\":\"openpi\"", "\"schedule\":\"own\"", "schedule 'own'"},
        {"\"noise\"", "\"nois_\"", "'noise' is missing"},
        {"\"noise\":{\"dtype\":\"F32\"", "\"noise\":{\"dtype\":\"I32\"", "'noise': expected F32"},
        {"\"shape\":[2,3],\"data_offsets\":[16", "\"shape\":[6],\"data_offsets\":[16", "of 1"},
        {"\"shape\":[2,3],\"data_offsets\":[40", "\"shape\":[3,2],\"data_offsets\":[40",
         "'model_actions': dim 0 is 3"},
        {"\"shape\":[2,1]", "\"shape\":[1,2]", "'actions': dim 0 is 1"},
        {"\"shape\":[2],\"data_offsets\":[64,72]", "\"shape\":[1],\"data_offsets\":[64,68]", "lie_recording"},
        {"\"timesteps\":{\"dtype\":\"F32\",\"shape\":[2]", "\"timesteps\":{\"dtype\":\"F32\",\"shape\":[2,1]",
         "of 2"},
        {"text.prompt", "text.task", "no such field"},
        {"\"text.prompt\":{\"dtype\":\"U8\",\"shape\":[4]",
         "\"text.prompt\":{\"dtype\":\"U8\",\"shape\":[2,2]", "no field is"},
        {"\"text.prompt\":{\"dtype\":\"U8\",\"shape\":[4]",
         "\"observation.p\":{\"dtype\":\"I16\",\"shape\":[2]", "no field is"},
        {"\"text.prompt\":{\"dtype\":\"U8\",\"shape\":[4]",
         "\"observation.p\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,4]", "no field is"},
    };
    static unsigned char data[DATA];
    snprintf(lie_path, sizeof lie_path, "/tmp/pv-lie_recording-%ld", (long)getpid());
    memset(data + 76, 'a', 4);
    CHECK_OK(opens(WHOLE, data));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CHECK_STATUS(altered(cases[i].from, cases[i].to), PV_E_FILE))
            printf("    %s -> %s\n", cases[i].from, cases[i].to);
        CHECK_TEXT(cases[i].words);
    }
    CHECK_STATUS(altered("openpi", "custom"), PV_E_FILE); /* the prompt is zeros there */
    CHECK_TEXT("zero byte");
    memset(data + 16, 0xff, 4);
    CHECK_STATUS(opens(WHOLE, data), PV_E_FILE);
    CHECK_TEXT("not finite");
    memset(data + 16, 0, 4);
    memset(data + 8, 0xff, 8);
    CHECK_STATUS(opens(WHOLE, data), PV_E_FILE);
    CHECK_TEXT("actions, element 1");
    unsigned rest = 1;
    for (int i = 0; i < 3000; i++) { /* any byte of the header may be any other */
        char header[] = WHOLE;
        for (int k = 0; k < 1 + i % 3; k++) {
            rest = rest * 1664525u + 1013904223u;
            header[(rest >> 8) % (sizeof header - 1)] = (char)((rest >> 3) % 94 + 32);
        }
        pv_status st = opens(header, data);
        CHECK(st == PV_E_FILE || st == PV_OK);
    }
    CHECK(!unlink(lie_path));
}

static pv_status attempt(void *user)
{
    (void)user;
    pv_recording *r = NULL;
    pv_observation o;
    pv_status st = pv_recording_open(lie_path, &r);
    if (!st)
        st = pv_recording_plain(r, &o);
    if (r)
        pv_recording_close(&r);
    return st;
}

static void reading_without_memory(void)
{
    static unsigned char data[DATA];
    memset(data + 76, 'a', 4);
    CHECK_OK(opens(WHOLE, data));
    fault_every(attempt, NULL, "reading a recording");
    CHECK(!unlink(lie_path));
}

int main(void)
{
    pv_set_log(NULL, NULL, PV_LOG_NONE);
    plain();
    of_robot();
    refusals();
    slow();
    full();
    broken();
    no_memory();
    lies();
    reading_without_memory();
    return test_done();
}
