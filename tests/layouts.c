/* layouts.c - one policy in every way it may lie on a disk: openpi's names or lerobot's, the table under
 * either name or both, BF16 or F32, one file or several. Same noise, schedule and statistics: the same
 * actions, byte for byte. */
#include "model/files.h"

#include <fcntl.h>

int synth_main(int argc, char **argv);

enum { HORIZON = 10, DIM = 32, ROBOT = 7, SIDE = 56 };

typedef struct chunk {
    float robot[HORIZON * ROBOT], model[HORIZON * DIM];
    double exact[HORIZON * ROBOT];
} chunk;

static file_list list;
static pv_backend *backend;
static chunk first;
static int n_chunks;

static pv_status infer(const char *path, const pv_model_params *mp, const char *recipe, chunk *out)
{
    static uint8_t pixels[3][SIDE * SIDE * 3];
    static float noise[HORIZON * DIM];
    int32_t tokens[9];
    pv_image images[3];
    pv_model *m = NULL;
    pv_session *s = NULL;
    pv_model_info info = {0};
    memset(out, 0, sizeof *out);
    pv_synthetic_tokens("L", 9, 503, tokens);
    pv_synthetic_noise("L", HORIZON * DIM, noise);
    pv_status st = pv_model_load(path, mp, &m);
    if (!st)
        st = pv_model_describe(m, &info);
    if (!st && !CHECK(info.horizon == HORIZON && info.model_dim == DIM && info.action_dim == ROBOT &&
                      info.n_cameras == 3))
        st = PV_E_SHAPE;
    for (int i = 0; !st && i < 3; i++) {
        pv_synthetic_image("L", info.camera[i], SIDE * SIDE * 3, pixels[i]);
        images[i] = (pv_image){info.camera[i], pixels[i], SIDE, SIDE, 0};
    }
    pv_observation o = {.images = images, .n_images = 3, .tokens = tokens, .n_tokens = 9};
    pv_infer_params p = {.noise = noise,
                         .schedule = "openpi",
                         .steps = 4,
                         .model_actions = out->model,
                         .actions_f64 = out->exact};
    if (!st)
        st = pv_session_create(m, backend, &(pv_session_params){.recipe = recipe}, &s);
    if (!st)
        st = pv_session_infer(s, &o, &p, out->robot);
    pv_session_destroy(&s);
    pv_model_free(&m);
    return st;
}

static void same(const char *what, const char *path, const pv_model_params *mp)
{
    chunk c;
    if (!CHECK_OK(infer(path, mp, "f32", &c)) || !CHECK(n_chunks == 0 || !memcmp(&c, &first, sizeof c)))
        printf("    %s\n", what);
    if (!n_chunks++)
        first = c;
}

/* A folder of lerobot by what its processors say, for which there are no flags. */
static void own_statistics(const char *folder)
{
    chunk c;
    pv_model *m = NULL;
    double want[ROBOT];
    CHECK_OK(infer(folder, NULL, "f32", &c));
    CHECK(n_chunks && !memcmp(c.model, first.model, sizeof c.model) && memcmp(c.exact, first.exact, sizeof c.exact));
    if (!CHECK_OK(pv_model_load(folder, NULL, &m)))
        return;
    CHECK(m->stats->actions.mode == PV_NORM_RANGE && m->stats->state.mode == PV_NORM_RANGE && m->stats->state.dim == 8);
    for (int h = 0; h < HORIZON; h++) {
        for (int d = 0; d < ROBOT; d++)
            want[d] = (double)c.model[h * DIM + d];
        pv_unnormalize(&m->stats->actions, PV_NORM_QUANTILE, want, want, ROBOT);
        CHECK(!memcmp(want, c.exact + h * ROBOT, sizeof want));
    }
    pv_model_free(&m);
    CHECK_STATUS(pv_model_load(folder, &(pv_model_params){.zscore = PV_ON}, &m), PV_E_ARG);
    CHECK_TEXT("its processors say how numbers are normalised");
}

static void synth(const char *layout, const char *dtype, const char *shards)
{
    char out[600], what[64];
    snprintf(out, sizeof out, "%s", in_folder("made"));
    char *argv[] = {"synth",    "tiny",         "--layout", (char *)layout, "--dtype", (char *)dtype,
                    "--shards", (char *)shards, "--json",   "--out",        out,       NULL};
    snprintf(what, sizeof what, "%s, %s, %s file(s)", layout, dtype, shards);
    /* lerobot's own statistics are applied in float32 (test processors); these are openpi's */
    const pv_model_params p = {.norm_stats = PV_SOURCE_DIR "/core/model/tiny/norm_stats.json"};
    bool made = CHECK(synth_main(11, argv) == 0);
    if (made && !strcmp(layout, "lerobot"))
        own_statistics(out);
    if (made)
        same(what, out, strcmp(layout, "lerobot") ? NULL : &p);
    files_clear(out);
}

/* Files of openpi's layout whose table stands under another name. */
static void tables(void)
{
    files_tiny(&list, PV_BF16);
    files_rename(&list, PV_LM_HEAD_NAME, PV_EMBEDDING_NAME);
    files_write(&list, in_folder("table.safetensors"), 0, 1);
    file_tensor *head = files_add(&list, PV_LM_HEAD_NAME, 2, 503, 160);
    strcpy(head->origin, "not the table"); /* other values, which nobody may read */
    files_write(&list, in_folder("both.safetensors"), 0, 1);
    pv_config c;
    pv_config_tiny(&c);
    char *text = pv_config_text(&c);
    files_text("tiny.json", text);
    pv_free(text);
    pv_model_params p = {.config = in_folder("tiny.json"),
                         .norm_stats = PV_SOURCE_DIR "/core/model/tiny/norm_stats.json"};
    same("embed_tokens", in_folder("table.safetensors"), &p);
    same("both names", in_folder("both.safetensors"), &p);

    /* and the test can tell: with one weight changed, the actions are others */
    files_find(&list, "action_out_proj.weight")->origin[0] = 'A';
    files_write(&list, in_folder("other.safetensors"), 0, 1);
    chunk other;
    CHECK_OK(infer(in_folder("other.safetensors"), &p, "f32", &other));
    CHECK(memcmp(other.robot, first.robot, sizeof other.robot));
}

int main(void)
{
    files_fresh();
    CHECK_OK(pv_backend_open("cpu", NULL, &backend));
    same("synth:tiny", "synth:tiny", NULL);
    synth("openpi", "bf16", "1");
    synth("openpi", "f32", "1");
    synth("openpi", "bf16", "4");
    synth("openpi", "f32", "4");
    synth("lerobot", "bf16", "1");
    synth("lerobot", "f32", "1");
    synth("lerobot", "bf16", "4");
    synth("lerobot", "f32", "4");
    tables();
    CHECK(n_chunks == 11);
    pv_backend_close(&backend);
    files_clear(files_folder);
    return test_done();
}
