/* cuda.c - the CUDA module that was built here: without driver or GPU it says so and nothing else happens;
 * with one, what the backend promises beyond what the op tests see: choosing a device, memory, running out of
 * it, stages and steps. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "plan/plans.h"
#include "tests/test.h"

#define TINY_CHUNK (10 * 7) /* of synth:tiny, in robot units */

static void no_device(void)
{
    pv_backend *be = (pv_backend *)&be;
    int n = 0;
    CHECK_STATUS(pv_backend_open("cuda", NULL, &be), PV_E_UNAVAILABLE);
    CHECK(be == NULL && !strstr(pv_error_text(), "is not installed") &&
          !strstr(pv_error_text(), "cannot be loaded"));
    printf("no device here: %s\n", pv_error_text());
    CHECK_STATUS(pv_devices("cuda", NULL, &n), PV_E_UNAVAILABLE);
}

static void choosing(pv_backend *be)
{
    pv_device_info first = {0}, mine = {0};
    int n = 1;
    CHECK_OK(pv_devices("cuda", &first, &n));
    CHECK_OK(pv_backend_device(be, &mine));
    CHECK(n >= 1 && !strcmp(first.name, mine.name) && !strcmp(first.uuid, mine.uuid) &&
          !strcmp(first.library, mine.library));
    CHECK(*mine.name && !strncmp(mine.uuid, "GPU-", 4) && strlen(mine.uuid) == 40 && mine.memory_bytes > 0);
    printf("%s, %s, %s\n", mine.name, mine.uuid, mine.library);
    printf("driver %s, %d MHz, memory %d MHz, %d W; not known: %s\n", mine.driver, mine.clock_mhz, mine.memory_clock_mhz,
           mine.power_limit_watts, mine.unknown);
    CHECK(*mine.unknown || (mine.clock_mhz > 0 && mine.memory_clock_mhz > 0 && mine.power_limit_watts > 0));
    CHECK(*mine.unknown || *mine.driver);
    const char *const ways[] = {"0", mine.name, mine.uuid};
    for (int i = 0; i < 3; i++) {
        pv_backend *again = NULL;
        CHECK_OK(pv_backend_open("cuda", &(pv_backend_params){.device = ways[i], .cache = ""}, &again));
        pv_backend_close(&again);
    }
    pv_backend *none = (pv_backend *)&none;
    CHECK_STATUS(pv_backend_open("cuda", &(pv_backend_params){.device = "99", .cache = ""}, &none), PV_E_UNAVAILABLE);
    CHECK_TEXT("device '99': there are 0 (");
    CHECK(none == NULL);
}

/* Writes that nobody waits for, many more than there is room for on their way; and inputs written from their own place. */
static void in_a_row(pv_backend *be, unsigned char *a, unsigned char *b, size_t n)
{
    enum { PART = 3001, TIMES = 200 };
    pv_buffer *buf = NULL;
    for (int usage = PV_IO; usage <= PV_STATE; usage++) {
        if (!CHECK_OK(be->vt->alloc(be, n, (pv_usage)usage, &buf)))
            return;
        unsigned char *place = be->vt->map(be, buf);
        CHECK((place != NULL) == (usage == PV_IO));
        memset(a, 0, n);
        CHECK_OK(be->vt->write(be, buf, 0, a, n));
        for (int i = 0; i < TIMES; i++) {
            unsigned char part[PART];
            size_t at = (size_t)i * 7919 % (n - PART);
            memset(part, i + 1, sizeof part);
            memset(a + at, i + 1, sizeof part);
            if (place && i % 2)
                memset(place + at, i + 1, sizeof part);
            CHECK_OK(be->vt->write(be, buf, at, place && i % 2 ? place + at : part, sizeof part));
            memset(part, 0, sizeof part); /* it was taken */
        }
        CHECK_OK(be->vt->read(be, buf, 0, b, n));
        CHECK(!memcmp(a, b, n));
        be->vt->release(be, buf);
    }
}

static void memory(pv_backend *be)
{
    enum { N = 100001 };
    unsigned char *a = malloc(N), *b = malloc(N);
    pv_buffer *buf = NULL;
    for (int i = 0; i < N; i++)
        a[i] = (unsigned char)(i * 7 + i / 251);
    if (CHECK_OK(be->vt->alloc(be, N, PV_STATE, &buf))) {
        CHECK_OK(be->vt->write(be, buf, 0, a, N));
        CHECK_OK(be->vt->write(be, buf, 3, a, 1000)); /* the later write wins */
        memmove(a + 3, a, 1000);
        CHECK_OK(be->vt->read(be, buf, 0, b, N));
        CHECK(!memcmp(a, b, N));
        be->vt->release(be, buf);
    }
    in_a_row(be, a, b, N);
    buf = NULL;
    CHECK_STATUS(be->vt->alloc(be, (size_t)1 << 46, PV_SCRATCH, &buf), PV_E_MEMORY);
    CHECK_TEXT("out of device memory: 70368744177664 bytes are needed for scratch");
    CHECK(buf == NULL);
    if (CHECK_OK(be->vt->alloc(be, 16, PV_IO, &buf))) /* and goes on */
        be->vt->release(be, buf);
    free(a);
    free(b);
}

/* The running step's row of a table is added to a state: steps alone and in a row, and measuring nodes keeps
 * the result. */
static void steps(pv_backend *be, int width)
{
    enum { STEPS = 4 };
    pv_graph *g = pv_graph_create();
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    g->stage = PV_STAGE_DENOISE;
    pv_tensor *each = pv_input_per_step(g, "each", width),
              *one = pv_input(g, "one", PV_F32, 1, (int64_t[]){1}, NULL);
    pv_tensor *x = pv_state(g, "x", PV_F32, 1, width);
    pv_tensor *y = pv_axpy(g, "y", x, one, each);
    keep(y);
    CHECK_OK(pv_plan_create(be, &g, &(pv_plan_params){.steps = STEPS}, &plan));
    if (!plan || !CHECK_OK(pv_instance_create(plan, NULL, &inst))) {
        pv_plan_destroy(&plan);
        return;
    }
    size_t bytes = sizeof(float) * (size_t)width;
    float *table = malloc(STEPS * bytes), *got = malloc(bytes), *came = malloc(bytes), *zero = calloc((size_t)width, sizeof *zero);
    float unit = 1;
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < width; k++)
            table[i * width + k] = (float)(1 << 4 * i) + (float)(k % 8) / 16;
    const pv_graph *planned = plan->graph;
    const pv_tensor *at = pv_graph_find(planned, "x");
    CHECK_OK(pv_instance_write(inst, pv_graph_find(planned, "each"), 0, table, STEPS * bytes));
    CHECK_OK(pv_instance_write(inst, pv_graph_find(planned, "one"), 0, &unit, sizeof unit));
    for (int first = 0; first < STEPS; first++)
        for (int n = 0; n <= STEPS - first; n++) {
            double *node_ms = calloc((size_t)planned->n_nodes, sizeof *node_ms);
            pv_run_timing t = {.node_ms = first ? node_ms : NULL};
            pv_run run = {.stages = 1u << PV_STAGE_DENOISE, .first_step = first, .n_steps = n, .result = at, .to = came};
            CHECK_OK(pv_instance_write(inst, at, 0, zero, bytes));
            CHECK_OK(pv_instance_run(inst, run, &t));
            CHECK_OK(pv_instance_read(inst, at, 0, got, bytes));
            CHECK(!memcmp(got, came, bytes)); /* the run brought it along */
            for (int k = 0; k < width; k++) {
                float want = 0;
                for (int i = first; i < first + n; i++)
                    want += table[i * width + k];
                CHECK(got[k] == want);
            }
            CHECK(!n || t.stage_ms[PV_STAGE_DENOISE] > 0);
            CHECK(t.run_ms >= t.stage_ms[PV_STAGE_DENOISE]);
            double sum = 0;
            for (int i = 0; i < planned->n_nodes; i++)
                sum += node_ms[i];
            CHECK((sum > 0) == (first && n));
            free(node_ms);
        }
    free(table), free(got), free(came), free(zero);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
}

/* The whole policy, often: the same bytes each time, those of `want` if given. The actions, which the caller frees. `model`: the
 * full one takes a GPU with 7 GiB. */
static float *replays(pv_backend *be, const char *model, const char *recipe, int times, const float *want)
{
    pv_model *m = NULL;
    pv_session *s = NULL;
    pv_model_info info = {0};
    if (!CHECK_OK(pv_model_load(model, NULL, &m)) || !CHECK_OK(pv_model_describe(m, &info)) ||
        !CHECK_OK(pv_session_create(m, be, &(pv_session_params){.recipe = recipe}, &s))) {
        pv_model_free(&m);
        return NULL;
    }
    size_t n = (size_t)info.horizon * (size_t)info.action_dim, side = (size_t)info.image_size;
    float *first = calloc(n, sizeof *first), *again = calloc(n, sizeof *again);
    uint8_t *pixels = malloc(side * side * 3);
    for (size_t i = 0; i < side * side * 3; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    pv_image image = {.camera = info.camera[0], .pixels = pixels, .width = info.image_size, .height = info.image_size};
    pv_observation seen = {.images = &image, .n_images = 1, .tokens = (int32_t[]){2, 17, 99, 300, 41}, .n_tokens = 5};
    int different = 0;
    CHECK_OK(pv_session_infer(s, &seen, NULL, first));
    different += want && memcmp(first, want, n * sizeof *first);
    for (int i = 1; i < times; i++) {
        if (i % 4 == 1) { /* another picture, prompt and noise between: nothing of them stays */
            seen.n_tokens = 3;
            pixels[i % (side * side * 3)] ^= 255;
            if (pv_session_infer(s, &seen, &(pv_infer_params){.size = sizeof(pv_infer_params), .seed = 7}, again))
                different++;
            different += !memcmp(first, again, n * sizeof *first);
            seen.n_tokens = 5;
            pixels[i % (side * side * 3)] ^= 255;
        }
        if (pv_session_infer(s, &seen, NULL, again))
            different++;
        different += memcmp(first, again, n * sizeof *first) != 0;
    }
    if (!CHECK(different == 0))
        printf("    %s, recipe %s: %d of %d runs differ\n", model, recipe, different, times);
    CHECK(n >= TINY_CHUNK);
    free(again), free(pixels);
    pv_session_destroy(&s);
    pv_model_free(&m);
    return first;
}

/* Kernels launch dependently on one another, and a wait that one of them forgot would show as a run that differs now and then: 1,000 runs
 * with the bytes of one in which each kernel began when the one before had ended. The same algorithms for both. */
static void dependent(const char *model, const char *recipe)
{
    char folder[] = "/tmp/pivot-cuda-XXXXXX", command[96];
    float *apart = NULL;
    if (!CHECK(mkdtemp(folder)))
        return;
    for (int i = 0; i < 2; i++) {
        pv_backend *be = NULL;
        CHECK(!(i ? unsetenv("PIVOT_CUDA_DEPENDENT") : setenv("PIVOT_CUDA_DEPENDENT", "0", 1)));
        if (!CHECK_OK(pv_backend_open("cuda", &(pv_backend_params){.cache = folder}, &be)))
            break;
        float *chunk = replays(be, model, recipe, i ? 1000 : 1, apart);
        free(apart);
        apart = chunk;
        pv_backend_close(&be);
    }
    free(apart);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(!system(command));
}

/* Algorithms from process to process: the same choice, so the same bytes; and a damaged file is as good as none. */
static void kept(void)
{
    char folder[] = "/tmp/pivot-cuda-XXXXXX", command[96];
    float chunk[3][TINY_CHUNK] = {{0}};
    if (!CHECK(mkdtemp(folder)))
        return;
    for (int i = 0; i < 3; i++) {
        pv_backend *be = NULL;
        snprintf(command, sizeof command, "test -s %s/cublaslt-*.algos", folder);
        CHECK(!system(command) == (i > 0));
        snprintf(command, sizeof command, "for f in %s/*; do printf damaged >$f; done", folder);
        CHECK(i < 2 || !system(command));
        if (!CHECK_OK(pv_backend_open("cuda", &(pv_backend_params){.cache = folder}, &be)))
            break;
        double start = pv_now_ms();
        float *actions = replays(be, "synth:tiny", "bf16", 2, i == 1 ? chunk[0] : NULL);
        if (actions)
            memcpy(chunk[i], actions, sizeof chunk[i]);
        free(actions);
        printf("%s: %.0f ms\n", i == 0 ? "algorithms chosen" : i == 1 ? "taken from the file" : "chosen anew", pv_now_ms() - start);
        pv_backend_close(&be);
    }
    CHECK(!memcmp(chunk[0], chunk[1], sizeof *chunk) && chunk[0][0] != 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(!system(command));
}

/* On a part of the device: the policy runs there, again and again alike. */
static void part(int all)
{
    pv_backend *be = NULL;
    CHECK_STATUS(pv_backend_open("cuda", &(pv_backend_params){.sms = all + 1}, &be), PV_E_UNAVAILABLE);
    CHECK_TEXT("multiprocessors are asked for");
    if (pv_backend_open("cuda", &(pv_backend_params){.sms = 16, .cache = ""}, &be)) {
        printf("no part of this device: %s\n", pv_error_text());
        return;
    }
    pv_device_info info = {0};
    CHECK_OK(pv_backend_device(be, &info));
    CHECK(info.sms >= 16 && info.sms < 32 && info.sms < all);
    printf("%d of %d multiprocessors\n", info.sms, all);
    steps(be, 8);
    free(replays(be, "synth:tiny", "f32", 100, NULL));
    free(replays(be, "synth:tiny", "bf16", 100, NULL));
    pv_backend_close(&be);
}

/* With the argument `full`, 1,000 runs of the full-size model in bf16 as well. */
int main(int argc, char **argv)
{
    pv_backend *be = NULL;
    if (pv_backend_open("cuda", &(pv_backend_params){.cache = ""}, &be)) {
        no_device();
        steps(cpu(), 8); /* the process lives, and the test itself is right */
        be = cpu();
        pv_backend_close(&be);
        return test_done();
    }
    choosing(be);
    memory(be);
    steps(be, 8);
    steps(be, 40000); /* a result of 160 KB */
    pv_device_info info = {0};
    CHECK_OK(pv_backend_device(be, &info));
    pv_backend_close(&be);
    dependent("synth:tiny", "f32");
    dependent("synth:tiny", "bf16");
    if (argc > 1 && !strcmp(argv[1], "full"))
        dependent("synth:full", "bf16");
    kept();
    if (info.sms > 16)
        part(info.sms);
    return test_done();
}
