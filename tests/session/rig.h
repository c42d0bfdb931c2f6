/* rig.h - a model, a backend and a session, and observations to give them. */
#ifndef PV_TESTS_SESSION_RIG_H
#define PV_TESTS_SESSION_RIG_H

#include "tests/test.h"

#define TINY_F32    PV_SOURCE_DIR "/tests/data/tiny_f32.safetensors"
#define TINY_CONFIG PV_SOURCE_DIR "/tests/data/A.json"
#define HORIZON     10 /* of synth:tiny, as the two below */
#define DIM         32
#define ROBOT       7
#define CHUNK       (HORIZON * DIM)

typedef struct rig {
    pv_backend *backend;
    pv_model *model;
    pv_session *session;
} rig;

static inline pv_status rig_try(rig *r, const char *model, const pv_model_params *mp,
                                const pv_session_params *sp, int threads)
{
    *r = (rig){NULL};
    pv_status st = pv_backend_open("cpu", &(pv_backend_params){.threads = threads}, &r->backend);
    if (!st)
        st = pv_model_load(model, mp, &r->model);
    return st ? st : pv_session_create(r->model, r->backend, sp, &r->session);
}

static inline void rig_close(rig *r)
{
    pv_session_destroy(&r->session);
    pv_model_free(&r->model);
    pv_backend_close(&r->backend);
}

/* Exits when there is no session to test: everything behind would fail for that one reason. */
static inline rig rig_open(const char *model, const pv_model_params *mp, const pv_session_params *sp,
                           int threads)
{
    rig r;
    if (!CHECK_OK(rig_try(&r, model, mp, sp, threads)))
        exit(test_done());
    return r;
}

/* Three cameras of different sizes, one of them padded and shrunk, one enlarged, one as the model wants it.
 */
#define N_CAMERAS 3
enum { WIDE_W = 80, WIDE_H = 60, SMALL = 20, FIT = 56 };
static uint8_t rig_pixels[N_CAMERAS][WIDE_W * WIDE_H * 3];
static pv_image rig_images[N_CAMERAS] = {{"base_0_rgb", rig_pixels[0], WIDE_W, WIDE_H, 0},
                                         {"left_wrist_0_rgb", rig_pixels[1], SMALL, SMALL, 0},
                                         {"right_wrist_0_rgb", rig_pixels[2], FIT, FIT, 0}};
static const int32_t rig_tokens[] = {2,  71, 8,   402, 19, 333, 250, 5,  64, 108, 31,  7,
                                     90, 41, 222, 3,   17, 61,  480, 12, 9,  77,  100, 6};
static const double rig_state[8] = {0.1, -0.2, 0.9, 3.0, 0.3, -0.1, 0.02, -0.02};

/* All cameras and the first n tokens of rig_tokens (up to 24; the tiny model takes 23). */
static inline pv_observation rig_observation(int n)
{
    for (int c = 0; c < N_CAMERAS; c++)
        for (int i = 0; i < (int)sizeof rig_pixels[c]; i++)
            rig_pixels[c][i] = (uint8_t)((i * 2654435761u >> 7) + (unsigned)(i / 240 * (c + 3)));
    return (pv_observation){.images = rig_images,
                            .n_images = N_CAMERAS,
                            .tokens = rig_tokens,
                            .n_tokens = n,
                            .state = rig_state,
                            .n_state = 8};
}

typedef struct chunk {
    float actions[CHUNK], model[CHUNK]; /* robot units use the first HORIZON * ROBOT */
    double exact[CHUNK];
} chunk;

/* One inference that must succeed; equal inputs give equal bytes of the whole struct. */
static inline chunk rig_infer(rig *r, const pv_observation *obs, pv_infer_params p)
{
    chunk c = {{0}};
    p.model_actions = c.model;
    p.actions_f64 = c.exact;
    CHECK_OK(pv_session_infer(r->session, obs, &p, c.actions));
    return c;
}

static inline bool same(const chunk *a, const chunk *b)
{
    return !memcmp(a, b, sizeof *a);
}

#endif
