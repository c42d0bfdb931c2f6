/* vulkan_attention.c - the whole attention on a Vulkan device by each cut that flash_matrix.comp can be
 * given, and by the one that is chosen. Each result is held against flash.comp's; with a further argument
 * each is timed, in a chain of nodes, each of which has the result of the one before as its q. Skipped where
 * no device has matrices of bf16 or f16. test_vulkan_attention [DEVICE] [bench [SHAPE [CUT...]]] SHAPE:
 * sequences, rows, heads, heads of k and v, keys, size of a head, nodes of the chain; CUT: subgroups across
 * and along, keys of a tile, parts; each as numbers with commas. */
#include "backends/vulkan/vk.h"
#include "plan/instance.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

#define MOST_CHAIN 32

static bool benching;

typedef struct shape {
    int batch, rows, heads, kv_heads, keys, head, nodes;
} shape;

typedef struct way {
    const char *name;
    vk_cut cut; /* across 0: chosen */
} way;

static void fill(void *to, size_t n, pv_dtype dtype, uint64_t seed, float size)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float v = (float)(int32_t)(seed >> 32) * 0x1p-31f * size;
        pv_from_f32((char *)to + 2 * i, &v, dtype, 1);
    }
}

/* The result of the last node of a chain, and the least milliseconds that one took. w NULL: flash.comp. */
static float *run(vk_device *d, const way *w, const shape *s, pv_dtype dtype, double *ms, bool *matrices)
{
    const vk_matrix bf16 = d->bf16, f16 = d->f16;
    pv_graph *g = pv_graph_create();
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    int n = benching ? s->nodes : 1;
    pv_tensor *in[3] = {pv_state(g, "q", dtype, (int64_t)s->batch * s->rows, (int64_t)s->heads * s->head),
                        pv_state(g, "k", dtype, (int64_t)s->batch * s->keys, (int64_t)s->kv_heads * s->head),
                        pv_state(g, "v", dtype, (int64_t)s->batch * s->keys, (int64_t)s->kv_heads * s->head)};
    pv_tensor *out = NULL, *q = in[0];
    for (int i = 0; i < n; i++) {
        pv_tensor *of_node[] = {out ? out : q, in[1], in[2]};
        pv_attr attr = {.attention = {.batch = s->batch,
                                      .heads = s->heads,
                                      .kv_heads = s->kv_heads,
                                      .scale = 1 / sqrtf((float)s->head)}};
        pv_node *node = pv_node_add(g, pv_graph_printf(g, "y%d", i), PV_OP_ATTENTION, 3, of_node, &attr);
        if (!CHECK(node))
            break;
        out = node->out[0];
        out->dtype = benching ? dtype : PV_F32;
    }
    if (out)
        out->output = true;
    if (!w)
        d->bf16.m = d->f16.m = 0;
    d->cut = w && w->cut.across ? &w->cut : NULL;
    bool ok = out && CHECK_OK(pv_plan_create(&d->base, &g, &(pv_plan_params){.steps = 1}, &plan)) &&
              CHECK_OK(pv_instance_create(plan, NULL, &inst));
    vk_call calls[VK_CALLS];
    if (ok)
        vk_calls_make(d, plan->graph->nodes[0], calls);
    *matrices = ok && calls[0].shader != VK_FLASH;
    for (int i = 0; ok && i < 3; i++) {
        size_t bytes = pv_tensor_bytes(in[i]);
        void *numbers = malloc(bytes);
        fill(numbers, bytes / 2, dtype, (uint64_t)i + 1, i == 0 ? 8 : 2);
        ok = CHECK_OK(pv_instance_write(inst, in[i], 0, numbers, bytes));
        free(numbers);
    }
    double node_ms[MOST_CHAIN];
    *ms = INFINITY;
    for (int k = 0; ok && k < (benching ? 8 : 1); k++) {
        memset(node_ms, 0, sizeof node_ms);
        pv_run_timing t = {.node_ms = node_ms};
        ok = CHECK_OK(pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, &t));
        double sum = 0;
        for (int i = 0; i < plan->graph->n_nodes; i++)
            sum += node_ms[i];
        *ms = fmin(*ms, sum / plan->graph->n_nodes);
    }
    d->bf16 = bf16; /* nodes are timed by buffers that the first such run records */
    d->f16 = f16;
    d->cut = NULL;
    size_t elements = (size_t)s->batch * (size_t)s->rows * (size_t)s->heads * (size_t)s->head;
    float *result = ok ? malloc(sizeof *result * elements) : NULL;
    void *stored = ok ? malloc(pv_tensor_bytes(out)) : NULL;
    if (ok && CHECK_OK(pv_instance_read(inst, out, 0, stored, pv_tensor_bytes(out))))
        pv_to_f32(result, stored, out->dtype, elements);
    free(stored);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    return result;
}

static void compare(vk_device *d, const way *ways, int n, const shape *s, pv_dtype dtype)
{
    size_t elements = (size_t)s->batch * (size_t)s->rows * (size_t)s->heads * (size_t)s->head;
    double flop = 4.0 * (double)elements * s->keys, ms;
    bool matrices;
    printf("%d x %d rows, %d / %d heads of %d, %d keys, %s\n", s->batch, s->rows, s->heads, s->kv_heads,
           s->head, s->keys, pv_dtype_name(dtype));
    float *want = run(d, NULL, s, dtype, &ms, &matrices);
    CHECK(want && !matrices);
    for (int i = 0; want && i < n; i++) {
        double apart = 0, size = 0;
        float *got = run(d, &ways[i], s, dtype, &ms, &matrices);
        CHECK(matrices || ways[i].cut.across); /* what is chosen fits the device */
        if (!matrices)
            printf("  %-16s not on this device\n", ways[i].name);
        else if (benching)
            printf("  %-16s %9.2f us %8.1f TFLOP/s\n", ways[i].name, ms * 1e3, 1e-9 * flop / ms);
        for (size_t e = 0; got && e < elements; e++) {
            double by = (double)got[e] - (double)want[e];
            apart += by * by;
            size += (double)want[e] * (double)want[e];
        }
        if (!CHECK(got && sqrt(apart / size) < 1e-2)) /* weights are rounded to 16 bits */
            printf("  %s: relative L2 %g\n", ways[i].name, sqrt(apart / size));
        fflush(stdout);
        free(got);
    }
    free(want);
}

static const way ways[] = {
    {"chosen", {0}},
    {"2,1,16,1", {2, 1, 16, 1}},
    {"2,2,32,3", {2, 2, 32, 3}},
    {"4,2,32,1", {4, 2, 32, 1}},
    {"1,4,64,2", {1, 4, 64, 2}},
};
#define COUNT_OF(list) ((int)(sizeof(list) / sizeof *(list)))

/* The shape and the cuts of the command line. */
static void chosen(vk_device *d, int n, char **words)
{
    shape s = {0};
    way some[64] = {{.name = "chosen"}};
    int count = 1;
    if (!CHECK(sscanf(words[0], "%d,%d,%d,%d,%d,%d,%d", &s.batch, &s.rows, &s.heads, &s.kv_heads, &s.keys,
                      &s.head, &s.nodes) == 7 &&
               s.nodes > 0 && s.nodes <= MOST_CHAIN))
        return;
    for (int i = 1; i < n && count < COUNT_OF(some); i++) {
        vk_cut *c = &some[count].cut;
        some[count++].name = words[i];
        CHECK(sscanf(words[i], "%u,%u,%u,%u", &c->across, &c->along, &c->keys, &c->parts) == 4);
    }
    compare(d, some, count, &s, d->bf16.m ? PV_BF16 : PV_F16);
}

int main(int argc, char **argv)
{
    pv_backend *be = NULL;
    pv_device_info info = {0};
    const char *device = argc > 1 ? argv[1] : "llvmpipe";
    benching = argc > 2 && !strcmp(argv[2], "bench");
    if (pv_backend_open("vulkan", &(pv_backend_params){.device = *device ? device : NULL}, &be)) {
        printf("not tested here: %s\n", pv_error_text());
        return 77;
    }
    vk_device *d = (vk_device *)be;
    pv_backend_device(be, &info);
    printf("%s: bf16 %ux%ux%u, f16 %ux%ux%u, subgroups of %u\n", info.name, d->bf16.m, d->bf16.n, d->bf16.k,
           d->f16.m, d->f16.n, d->f16.k, d->subgroup);
    if (!d->bf16.m && !d->f16.m) {
        printf("not tested here: matrices\n");
        pv_backend_close(&be);
        return 77;
    }
    if (benching && argc > 3) {
        chosen(d, argc - 3, argv + 3);
    } else {
        static const shape small[] = {{3, 37, 2, 2, 50, 72, 1}, {1, 3, 2, 1, 333, 48, 1}};
        static const shape large[] = {
            {1, 50, 8, 1, 1018, 256, 16}, {1, 968, 8, 1, 968, 256, 8}, {3, 256, 16, 16, 256, 72, 16}};
        const shape *shapes = benching ? large : small;
        int n = benching ? COUNT_OF(large) : COUNT_OF(small);
        for (int dtype = PV_BF16; dtype <= PV_F16; dtype++)
            for (int i = 0; i < n && (dtype == PV_BF16 ? d->bf16.m : d->f16.m); i++)
                compare(d, ways, COUNT_OF(ways), &shapes[i], (pv_dtype)dtype);
    }
    pv_backend_close(&be);
    return test_done();
}
