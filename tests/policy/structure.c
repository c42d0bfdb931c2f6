/* structure.c - what a mask would have had to do, bit for bit: what is absent changes nothing, what is there does. */
#include "base/memory.h"
#include "session/runner.h"
#include "session/schedule.h"
#include "test.h"
#include "tools/trace.h"

#define STEPS 10

typedef struct policy {
    pv_backend *be;
    pv_model *m;
    pv_weights *weights;
    size_t chunk, pixels;
    float times[STEPS + 1], dt[STEPS];
} policy;

static bool open_policy(policy *p, const char *backend, const char *device)
{
    *p = (policy){0};
    bool ok = CHECK_OK(pv_backend_open(backend, &(pv_backend_params){.device = device, .cache = ""}, &p->be)) &&
              CHECK_OK(pv_model_load(PV_SOURCE_DIR "/tests/data/tiny_f32.safetensors",
                                     &(pv_model_params){.config = PV_SOURCE_DIR "/tests/data/B.json"}, &p->m)) &&
              CHECK_OK(pv_model_embedding(p->m, NULL, NULL)) &&
              CHECK_OK(pv_weights_create(p->be, &p->m->source, &p->weights)) &&
              CHECK_OK(pv_schedule_times("openpi", STEPS, p->times, p->dt));
    if (ok) {
        p->chunk = (size_t)p->m->config.horizon * (size_t)p->m->config.action_dim;
        p->pixels = (size_t)p->m->config.vision.image * (size_t)p->m->config.vision.image * 3;
    }
    return ok;
}

static pv_runner *runner(policy *p, int views, int tokens)
{
    pv_runner *r = NULL;
    CHECK_OK(pv_runner_create(p->m, p->be, &(pv_runner_params){.shape = {views, tokens, false}, .steps = STEPS}, &r));
    CHECK_OK(pv_weights_load(p->weights, r->plan->graph, NULL, NULL));
    CHECK_OK(pv_runner_start(r, p->weights));
    return r;
}

static void feed(pv_runner *r, const trace_inputs *in)
{
    CHECK_OK(pv_runner_prompt(r, in->tokens, in->n_valid));
    CHECK_OK(pv_runner_images(r, in->images));
    CHECK_OK(pv_runner_noise(r, in->noise));
}

static void denoise(const policy *p, pv_runner *r, float *actions)
{
    CHECK_OK(pv_runner_denoise(r, p->times, p->dt, STEPS, NULL, NULL, NULL));
    CHECK_OK(pv_runner_actions(r, actions));
}

static void run(const policy *p, pv_runner *r, const trace_inputs *in, float *actions)
{
    feed(r, in);
    CHECK_OK(pv_runner_prefix(r, NULL));
    denoise(p, r, actions);
}

static bool same(const policy *p, const float *a, const float *b)
{
    return !memcmp(a, b, sizeof *a * p->chunk);
}

static double apart(const policy *p, const float *a, const float *b)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < p->chunk; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / norm);
}

static bool read_inputs(const policy *p, const char *path, trace_inputs *in)
{
    pv_safetensors *st = NULL;
    bool ok = CHECK_OK(pv_safetensors_open(path, &st)) && CHECK_OK(trace_read_inputs(st, &p->m->config, in));
    pv_safetensors_close(&st);
    return ok;
}

/* A copy of case B (right wrist masked, prompt 14 of 23) with `garbage` over all that the masks hide. */
static void write_garbage(const char *path, uint8_t garbage)
{
    static const char *const names[] = {"in.image.base_0_rgb.u8", "in.image.left_wrist_0_rgb.u8",
                                        "in.image.right_wrist_0_rgb.u8", "in.image_mask", "in.tokens", "in.token_mask",
                                        "in.noise"};
    enum { N = sizeof names / sizeof *names };
    pv_safetensors *st = NULL;
    pv_st_writer *w = NULL;
    CHECK_OK(pv_safetensors_open(PV_SOURCE_DIR "/tests/data/B.safetensors", &st));
    CHECK_OK(pv_st_writer_begin(path, &w));
    for (int i = 0; i < N; i++) {
        const pv_st_tensor *t = pv_safetensors_find(st, names[i]);
        CHECK_OK(pv_st_writer_declare(w, names[i], t->dtype, t->n_dims, t->dim));
    }
    for (int i = 0; i < N; i++) {
        const pv_st_tensor *t = pv_safetensors_find(st, names[i]);
        uint8_t *raw = pv_alloc((size_t)t->bytes);
        CHECK_OK(pv_safetensors_read(st, t, 0, t->n_elements, raw));
        if (i == 2)
            memset(raw, garbage, (size_t)t->bytes);
        for (int k = 14; i == 4 && k < 23; k++)
            ((int32_t *)(void *)raw)[k] = garbage + k;
        CHECK_OK(pv_st_writer_data(w, raw, (size_t)t->bytes));
        pv_free(raw);
    }
    CHECK_OK(pv_st_writer_end(&w));
    pv_safetensors_close(&st);
}

static void check_masked(policy *p, const trace_inputs *b, const float *want)
{
    float actions[512];
    for (int g = 0; g < 2; g++) {
        trace_inputs in = {0};
        write_garbage("structure_garbage.safetensors", g ? 255 : 7);
        if (read_inputs(p, "structure_garbage.safetensors", &in)) {
            pv_runner *r = runner(p, in.views, in.n_valid);
            run(p, r, &in, actions);
            CHECK(same(p, actions, want));
            pv_runner_destroy(&r);
        }
        trace_free_inputs(&in);
    }
    remove("structure_garbage.safetensors");
    CHECK(b->views == 2 && b->n_valid == 14);
}

/* Every visible thing matters: one pixel, one token, one element of the noise. */
static void check_visible(policy *p, trace_inputs *in, const float *want)
{
    float actions[512];
    pv_runner *r = runner(p, in->views, in->n_valid);
    for (int k = 0; k < 4; k++) {
        uint8_t *pixel = &in->images[k * 7919 % (int)(p->pixels * 2)], was = *pixel;
        *pixel = (uint8_t)(was > 127 ? was - 1 : was + 1);
        run(p, r, in, actions);
        CHECK(!same(p, actions, want));
        *pixel = was;
    }
    for (int k = 0; k < in->n_valid; k++) {
        in->tokens[k] = (in->tokens[k] + 1) % 503;
        run(p, r, in, actions);
        CHECK(!same(p, actions, want));
        in->tokens[k] = (in->tokens[k] + 502) % 503;
    }
    float was = in->noise[77];
    in->noise[77] = nextafterf(was, 9) + 1e-3f;
    run(p, r, in, actions);
    CHECK(!same(p, actions, want));
    in->noise[77] = was;
    run(p, r, in, actions);
    CHECK(same(p, actions, want));
    pv_runner_destroy(&r);
}

/* Rooms of any size: the valid rows alone are computed, so not one bit depends on the capacity. */
static void check_capacity(policy *p, const trace_inputs *in, const float *want)
{
    float actions[512];
    static const int capacity[] = {14, 15, 16, 20, 23};
    for (int k = 0; k < 5; k++) {
        pv_runner *r = runner(p, in->views, capacity[k]);
        run(p, r, in, actions);
        CHECK(apart(p, actions, want) < 1e-6);
        CHECK(same(p, actions, want));
        pv_runner_destroy(&r);
    }
}

static void fill(pv_runner *r, const pv_tensor *t, int64_t first_row, int64_t rows, float value)
{
    size_t n = (size_t)(rows * pv_width(t)), at = (size_t)(first_row * pv_width(t));
    float *values = pv_alloc(sizeof value * n);
    for (size_t i = 0; i < n; i++)
        values[i] = value;
    CHECK_OK(pv_instance_write(r->inst, t, sizeof value * at, values, sizeof value * n));
    pv_free(values);
}

/* All scratch, every stage-crossing tensor and all of the cache become NaN: what a run needs it makes itself. */
static void poison(pv_runner *r)
{
    const pv_graph *g = r->plan->graph;
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i];
        bool made = t->producer && t->producer->stage != PV_STAGE_SCHEDULE;
        if (t->offset == PV_NOWHERE || t->dtype != PV_F32)
            continue;
        if (!(t->usage == PV_SCRATCH && made) && !(t->usage == PV_STATE && (made || !strncmp(t->name, "cache.", 6))))
            continue;
        fill(r, t, 0, pv_elements(t) / pv_width(t), NAN);
    }
}

/* A long prompt with huge activations, NaN in every tail, then a short prompt: the bytes of a fresh session. */
static void check_history(policy *p, trace_inputs *in, const float *want)
{
    float actions[512];
    int32_t long_prompt[23];
    for (int i = 0; i < 23; i++)
        long_prompt[i] = i * 17 % 503;
    pv_runner *r = runner(p, in->views, 23);
    trace_inputs huge = *in;
    huge.tokens = long_prompt;
    huge.n_valid = 23;
    feed(r, &huge);
    fill(r, r->prompt, 0, 23, 3e7f);
    CHECK_OK(pv_runner_prefix(r, NULL));
    denoise(p, r, actions);
    CHECK(!same(p, actions, want));

    run(p, r, in, actions);
    CHECK(same(p, actions, want));
    poison(r);
    fill(r, r->prompt, in->n_valid, 23 - in->n_valid, NAN); /* rows past the prompt; those of the prompt are not written anew */
    run(p, r, in, actions);
    CHECK(same(p, actions, want));
    pv_runner_destroy(&r);
}

/* The last valid key of every cache counts, the first one behind it does not. */
static void check_keys(policy *p, const trace_inputs *in, const float *want)
{
    float actions[512];
    pv_runner *r = runner(p, in->views, 23);
    run(p, r, in, actions);
    CHECK(same(p, actions, want));
    int64_t last = p->m->config.horizon + r->n_prefix - 1;
    for (int layer = 0; layer < p->m->config.gemma.depth; layer++)
        for (int v = 0; v < 2; v++) {
            char name[48];
            snprintf(name, sizeof name, "cache.layer%d.%c", layer, v ? 'v' : 'k');
            const pv_tensor *cache = pv_graph_find(r->plan->graph, name);
            if (!CHECK(cache != NULL))
                continue;
            float kept[64];
            size_t at = sizeof *kept * (size_t)(last * pv_width(cache)), bytes = sizeof *kept * (size_t)pv_width(cache);
            CHECK(bytes <= sizeof kept);
            fill(r, cache, last + 1, 1, 1e6f);
            CHECK_OK(pv_runner_noise(r, in->noise));
            denoise(p, r, actions);
            CHECK(same(p, actions, want));
            CHECK_OK(pv_instance_read(r->inst, cache, at, kept, bytes));
            fill(r, cache, last, 1, 0.5f);
            CHECK_OK(pv_runner_noise(r, in->noise));
            denoise(p, r, actions);
            CHECK(!same(p, actions, want));
            CHECK_OK(pv_instance_write(r->inst, cache, at, kept, bytes));
        }
    CHECK_OK(pv_runner_noise(r, in->noise));
    denoise(p, r, actions); /* the prefix kept, denoised again */
    CHECK(same(p, actions, want));
    pv_runner_destroy(&r);
}

static void check(const char *backend, const char *device)
{
    policy p;
    trace_inputs in = {0};
    float want[512];
    if (open_policy(&p, backend, device) && CHECK(p.chunk <= 512) &&
        read_inputs(&p, PV_SOURCE_DIR "/tests/data/B.safetensors", &in)) {
        pv_runner *r = runner(&p, in.views, in.n_valid);
        run(&p, r, &in, want);
        pv_runner_destroy(&r);
        check_masked(&p, &in, want);
        check_visible(&p, &in, want);
        check_capacity(&p, &in, want);
        check_history(&p, &in, want);
        check_keys(&p, &in, want);
    }
    trace_free_inputs(&in);
    pv_weights_destroy(&p.weights);
    pv_model_free(&p.m);
    pv_backend_close(&p.be);
    CHECK(pv_alloc_live() == 0);
}

/* On the CPU; with the arguments `vulkan llvmpipe`, say, on another backend and device, if they are there. */
int main(int argc, char **argv)
{
    pv_backend *there = NULL;
    const char *backend = argc > 1 ? argv[1] : "cpu", *device = argc > 2 ? argv[2] : NULL;
    if (argc > 1 && pv_backend_open(backend, &(pv_backend_params){.device = device}, &there)) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    pv_backend_close(&there);
    check(backend, device);
    return test_done();
}
