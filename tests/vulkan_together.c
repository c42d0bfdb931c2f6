/* vulkan_together.c - several at once in one process: two sessions of one opened device, each in its own
 * thread; two openings of a device, or two devices; and the CPU beside them. Each gives the bytes that it gives alone.
 *   test_vulkan_together [DEVICE [OTHER]]        llvmpipe; the same once more */
#include "backends/vulkan/vk.h"
#include "base/memory.h"
#include "session/rig.h"

#include <pthread.h>

#define TIMES 4

typedef struct worker {
    rig r;
    int tokens;
    uint64_t seed;
    chunk want;
    int right;
    pthread_t thread;
} worker;

static pv_observation seen[2];
static int messages;

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user, (void)level;
    messages += strstr(text, "vulkan: ") != NULL;
    printf("    %.400s\n", text);
}

static pv_status infer(worker *w, chunk *c)
{
    *c = (chunk){{0}};
    pv_infer_params p = {.seed = w->seed, .model_actions = c->model, .actions_f64 = c->exact};
    return pv_session_infer(w->r.session, &seen[w->tokens > 10], &p, c->actions);
}

static void *work(void *user)
{
    worker *w = user;
    for (int i = 0; i < TIMES; i++) {
        chunk c;
        if (!infer(w, &c))
            w->right += same(&c, &w->want);
    }
    return NULL;
}

static pv_backend *open_device(const char *device)
{
    pv_backend *be = NULL;
    pv_status st = pv_backend_open("vulkan", &(pv_backend_params){.device = device}, &be);
    return st ? NULL : be;
}

int main(int argc, char **argv)
{
    const char *device = argc > 1 ? argv[1] : "llvmpipe";
    setenv("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation",
           1); /* it also says when two threads are where one may be */
    pv_set_log(hear, NULL, PV_LOG_WARN);
    pv_backend *one = open_device(device), *two = NULL, *cpu = NULL;
    pv_model *model = NULL;
    if (!one) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    two = open_device(argc > 2 ? argv[2] : device);
    CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 1}, &cpu));
    if (!CHECK(two && cpu) ||
        !CHECK_OK(pv_model_load(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, &model)))
        return test_done();
    seen[0] = rig_observation(9);
    seen[1] = rig_observation(20);
    worker workers[] = {{.r = {one, model, NULL}, .tokens = 20, .seed = 3},
                        {.r = {one, model, NULL}, .tokens = 9, .seed = 4},
                        {.r = {two, model, NULL}, .tokens = 20, .seed = 5},
                        {.r = {cpu, model, NULL}, .tokens = 20, .seed = 3}};
    enum { N = sizeof workers / sizeof *workers };
    for (int i = 0; i < N; i++) { /* alone */
        CHECK_OK(pv_session_create(model, workers[i].r.backend, NULL, &workers[i].r.session));
        CHECK_OK(infer(&workers[i], &workers[i].want));
    }
    double apart = 0, size = 0;
    for (int i = 0; i < CHUNK; i++) {
        double a = (double)workers[0].want.model[i], b = (double)workers[3].want.model[i];
        apart += (a - b) * (a - b);
        size += b * b;
    }
    CHECK(apart > 0 && sqrt(apart / size) <= 1e-5); /* not the same arithmetic, and the same meaning */
    CHECK(!same(&workers[0].want, &workers[1].want) && !same(&workers[0].want, &workers[2].want));

    for (int i = 0; i < N; i++)
        CHECK(!pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    for (int i = 0; i < N; i++)
        CHECK(!pthread_join(workers[i].thread, NULL));
    for (int i = 0; i < N; i++)
        if (!CHECK(workers[i].right == TIMES))
            printf("    session %d: %d of %d right\n", i, workers[i].right, TIMES);
    for (int i = 0; i < N; i++)
        pv_session_destroy(&workers[i].r.session);
    pv_model_free(&model);
    pv_backend_close(&one);
    pv_backend_close(&two);
    pv_backend_close(&cpu);
    CHECK(pv_alloc_live() == 0 && messages == 0);
    return test_done();
}
