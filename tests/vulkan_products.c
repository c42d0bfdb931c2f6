/* vulkan_products.c - products on a Vulkan device by each way there is: the tiles that dense_matrix.comp can
 * be given, those that are chosen, and dense.comp. Each result is held against dense.comp's; with a further
 * argument each is timed, in a chain of nodes whose weights are larger than a GPU's cache together. Skipped
 * where no device has matrices of bf16 or f16.
 *   test_vulkan_products [DEVICE] [bench [M,N,K,WEIGHTS[,OP] [TILE...]]]
 * OP: linear_add where there is none; it and linear_gated wait for the node before, others may overlap.
 * linear_geglu takes two weights. A tile as below: six numbers with commas. Times of one process grow from
 * tile to tile on an H200, whatever the tile: take a process for each. */
#include "backends/vulkan/vk.h"
#include "plan/instance.h"
#include "tests/test.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define MOST_CHAIN 16

static bool benching;

typedef struct shape {
    int64_t m, n, k;
    int weights; /* in a chain */
    const char *op;
} shape;

typedef struct way {
    const char *name;
    vk_tile tile; /* across_m 0: chosen */
    bool plain;   /* dense.comp */
} way;

static uint16_t *numbers(size_t n, pv_dtype dtype, uint64_t seed)
{
    uint16_t *out = malloc(n * sizeof *out);
    for (size_t i = 0; out && i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float v = (float)(int32_t)(seed >> 32) * 0x1p-31f;
        out[i] = dtype == PV_BF16 ? pv_f32_to_bf16(v) : 0;
        if (dtype == PV_F16)
            pv_from_f32(&out[i], &v, dtype, 1);
    }
    return out;
}

static pv_op op_of(const shape *s)
{
    int op = 0;
    while (op < PV_OP_COUNT && strcmp(pv_ops[op].name, s->op))
        op++;
    return (pv_op)op;
}

/* x is used in turn for what follows a product. */
static bool write_small(pv_instance *inst, pv_tensor *const t[3], const uint16_t *x, pv_dtype dtype, size_t n)
{
    bool ok = true;
    for (int i = 0; ok && i < 3; i++) {
        size_t many = t[i] ? (size_t)pv_elements(t[i]) : 0;
        if (!many)
            continue;
        float *v = malloc(sizeof *v * many);
        for (size_t e = 0; v && e < many; e++)
            pv_to_f32(&v[e], &x[(e + (size_t)i) % n], dtype, 1);
        ok = CHECK(v) && CHECK_OK(pv_instance_write(inst, t[i], 0, v, sizeof *v * many));
        free(v);
    }
    return ok;
}

/* The result of the last product of a chain, and the least milliseconds that one took. */
static float *run(vk_device *d, const way *w, const shape *s, pv_dtype dtype, const uint16_t *x,
                  const uint16_t *weight, double *ms, bool *matrices)
{
    const vk_matrix bf16 = d->bf16, f16 = d->f16;
    pv_graph *g = pv_graph_create();
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    pv_tensor *in = pv_state(g, "x", dtype, s->m, s->k), *of[MOST_CHAIN], *out = NULL;
    const pv_op op = op_of(s);
    const bool two = op == PV_OP_LINEAR_GEGLU, adds = op == PV_OP_LINEAR_ADD || op == PV_OP_LINEAR_GATED;
    pv_tensor *last = adds ? pv_state(g, "residual", PV_F32, s->m, s->n) : NULL;
    pv_tensor *bias = op != PV_OP_LINEAR && !two ? pv_state(g, "bias", PV_F32, 1, s->n) : NULL;
    pv_tensor *mod = op == PV_OP_LINEAR_GATED ? pv_state(g, "mod", PV_F32, 1, 3 * s->n) : NULL;
    pv_tensor *const small[] = {last, bias, mod};
    int n = benching ? s->weights : 1;
    for (int i = 0; i < n; i++)
        of[i] = pv_state(g, pv_graph_printf(g, "w%d", i), dtype, s->n, s->k);
    for (int i = 0; i < n; i += 1 + two) {
        pv_tensor *of_node[5] = {in, of[i], last, mod};
        int n_in = mod ? 4 : adds ? 3 : 2;
        pv_attr attr = {.linear_geglu = {.between = dtype}};
        if (two)
            of_node[n_in++] = of[n > 1 ? i + 1 : i];
        if (bias)
            of_node[n_in++] = bias;
        pv_node *node = pv_node_add(g, pv_graph_printf(g, "y%d", i), op, n_in, of_node, two ? &attr : NULL);
        if (node) {
            out = node->out[0];
            if (adds)
                last = out; /* each waits for the one before, as in a model */
            else
                out->dtype = benching ? dtype : PV_F32;
            out->output = true;
        }
    }
    if (w->plain)
        d->bf16.m = d->f16.m = 0;
    d->tile = w->tile.across_m ? &w->tile : NULL;
    bool ok = CHECK_OK(pv_plan_create(&d->base, &g, &(pv_plan_params){.steps = 1}, &plan)) &&
              CHECK_OK(pv_instance_create(plan, NULL, &inst));
    vk_call calls[VK_CALLS];
    if (ok)
        vk_calls_make(d, plan->graph->nodes[0], calls);
    *matrices = ok && (calls[0].shader == VK_DENSE_BF16 || calls[0].shader == VK_DENSE_F16);
    ok = ok && CHECK_OK(pv_instance_write(inst, in, 0, x, pv_tensor_bytes(in)));
    ok = ok && write_small(inst, small, x, dtype, (size_t)(s->m * s->k));
    for (int i = 0; ok && i < n; i++)
        ok = CHECK_OK(pv_instance_write(inst, of[i], 0, weight, pv_tensor_bytes(of[i])));
    double node_ms[MOST_CHAIN];
    *ms = INFINITY;
    for (int k = 0; ok && k < (benching ? 8 : 1); k++) {
        memset(node_ms, 0, sizeof node_ms);
        pv_run_timing t = {.node_ms = node_ms};
        ok = CHECK_OK(pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, &t));
        double sum = 0;
        for (int i = 0; i < plan->graph->n_nodes; i++)
            sum += node_ms[i];
        *ms = fmin(*ms, sum * (1 + two) / n); /* linears of one x may have become one node */
    }
    d->bf16 = bf16; /* nodes are timed by buffers that the first such run records */
    d->f16 = f16;
    d->tile = NULL;
    float *result = ok ? malloc(sizeof *result * (size_t)(s->m * s->n)) : NULL;
    void *stored = ok ? malloc(pv_tensor_bytes(out)) : NULL;
    if (ok && CHECK_OK(pv_instance_read(inst, out, 0, stored, pv_tensor_bytes(out))))
        pv_to_f32(result, stored, out->dtype, (size_t)(s->m * s->n));
    free(stored);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    return result;
}

static void compare(vk_device *d, const way *ways, int n, const shape *s, pv_dtype dtype)
{
    uint16_t *x = numbers((size_t)(s->m * s->k), dtype, 1), *w = numbers((size_t)(s->n * s->k), dtype, 2);
    const way plain = {.name = "dense.comp", .plain = true};
    const bool two = op_of(s) == PV_OP_LINEAR_GEGLU;
    float *want = NULL;
    printf("M %lld N %lld K %lld %s %s\n", (long long)s->m, (long long)s->n, (long long)s->k,
           pv_dtype_name(dtype), s->op);
    for (int i = -1; i < n; i++) {
        const way *one = i < 0 ? &plain : &ways[i];
        double ms, apart = 0, size = 0;
        bool matrices;
        float *got = run(d, one, s, dtype, x, w, &ms, &matrices);
        if (matrices == one->plain)
            printf("  %-28s not on this device\n", one->name);
        else if (benching)
            printf("  %-28s %9.2f us %8.1f TFLOP/s %8.1f GB/s of weights\n", one->name, ms * 1e3,
                   2e-9 * (1 + two) * (double)s->m * (double)s->n * (double)s->k / ms,
                   2e-6 * (1 + two) * (double)s->n * (double)s->k / ms);
        for (int64_t e = 0; want && got && e < s->m * s->n; e++) {
            double by = (double)got[e] - (double)want[e];
            apart += by * by;
            size += (double)want[e] * (double)want[e];
        }
        if (want && !CHECK(got && sqrt(apart / size) <
                                      (benching || two ? 1e-3 : 1e-6))) /* roundings to 16 bits may differ */
            printf("  %s: relative L2 %g\n", one->name, sqrt(apart / size));
        fflush(stdout);
        if (i < 0)
            want = got;
        else
            free(got);
    }
    free(want);
    free(x);
    free(w);
}

/* ---- weights larger than a binding ---- */

/* residual + x w^T + b, where a binding holds `limit` bytes; `calls` dispatches. Bytes of the result, NULL:
 * no kernel. */
static float *bounded(vk_device *d, uint32_t limit, int m, int n, int k, int *calls)
{
    const uint32_t before = d->limits.maxStorageBufferRange;
    pv_graph *g = pv_graph_create();
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    pv_tensor *in[4] = {pv_state(g, "x", PV_F32, m, k), pv_state(g, "w", PV_BF16, n, k),
                        pv_state(g, "r", PV_F32, m, n), pv_input(g, "b", PV_F32, 1, (int64_t[]){n}, NULL)};
    pv_node *node = pv_node_add(g, "y", PV_OP_LINEAR_ADD, 4, in, NULL);
    pv_tensor *out = node->out[0];
    out->output = true;
    d->limits.maxStorageBufferRange = limit;
    pv_status st = pv_plan_create(&d->base, &g, &(pv_plan_params){.steps = 1}, &plan);
    vk_call c[VK_CALLS];
    *calls = st ? 0 : vk_calls_make(d, plan->graph->nodes[0], c);
    for (int i = 0; i < *calls; i++)
        for (int b = 0; b < VK_BINDINGS; b++)
            CHECK(!c[i].bind[b] || (c[i].bytes[b] ? c[i].bytes[b] : pv_tensor_bytes(c[i].bind[b])) <= limit);
    if (!st)
        st = pv_instance_create(plan, NULL, &inst);
    d->limits.maxStorageBufferRange = before;
    for (int i = 0; !st && i < 4; i++) {
        size_t bytes = pv_tensor_bytes(in[i]);
        void *numbers_in = calloc(1, bytes);
        for (size_t e = 0; e < bytes / pv_dtype_bytes(in[i]->dtype, 1); e++) {
            float v = (float)((e * 7919 + (size_t)i) % 255) / 64.0f - 2;
            pv_from_f32((char *)numbers_in + pv_dtype_bytes(in[i]->dtype, e), &v, in[i]->dtype, 1);
        }
        st = pv_instance_write(inst, in[i], 0, numbers_in, bytes);
        free(numbers_in);
    }
    if (!st)
        st = pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL);
    float *result = st ? NULL : malloc(pv_tensor_bytes(out));
    if (!st)
        CHECK_OK(pv_instance_read(inst, out, 0, result, pv_tensor_bytes(out)));
    CHECK(!st || st == PV_E_NO_KERNEL);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    return result;
}

static void pieces(vk_device *d)
{
    int calls;
    float *want = bounded(d, 1u << 27, 5, 700, 72, &calls);
    CHECK(want && calls == 1);
    float *got = bounded(d, 40000, 5, 700, 72, &calls); /* 256 rows fill 36864 bytes */
    CHECK(got && calls == 3 && !memcmp(got, want, sizeof *got * 5 * 700));
    free(got);
    free(want);
    want = bounded(d, 40000, 200, 16, 72, &calls); /* x itself is larger */
    CHECK(!want && calls == 0);
    CHECK_TEXT("linear");
    want = bounded(d, 40000, 2, 256 * (VK_CALLS + 1), 72, &calls); /* too many of them */
    CHECK(!want && calls == 0);
}

/* across rows and columns, matrices of a subgroup, along k, parts of k */
static const way large[] = {
    {"chosen", {0}, false},
    {"2x2 of 4x4, 3 deep", {2, 2, 4, 4, 3, 1}, false},
    {"2x4 of 4x3, 4 deep", {2, 4, 4, 3, 4, 1}, false},
    {"4x3 of 3x3, 4 deep, 2 parts", {4, 3, 3, 3, 4, 2}, false},
};
static const way small[] = {
    {"chosen", {0}, false},
    {"2x2 of 2x2, 2 deep, 6 parts", {2, 2, 2, 2, 2, 6}, false},
    {"4x2 of 1x1, 8 deep", {4, 2, 1, 1, 8, 1}, false},
};
#define COUNT_OF(list) ((int)(sizeof(list) / sizeof *(list)))

/* The shape and the tiles of the command line. */
static void chosen(vk_device *d, int n, char **words)
{
    char op[32] = "linear_add";
    shape s = {.op = op};
    way ways[64] = {{.name = "chosen"}};
    int count = 1;
    int got =
        sscanf(words[0], "%" SCNd64 ",%" SCNd64 ",%" SCNd64 ",%d,%31s", &s.m, &s.n, &s.k, &s.weights, op);
    if (!CHECK(got >= 4 && s.weights > 0 && s.weights <= MOST_CHAIN && s.weights % 2 == 0 &&
               op_of(&s) < PV_OP_COUNT))
        return;
    for (int i = 1; i < n && count < COUNT_OF(ways); i++) {
        way *w = &ways[count++];
        vk_tile *t = &w->tile;
        w->name = words[i];
        CHECK(sscanf(words[i], "%u,%u,%u,%u,%u,%u", &t->across_m, &t->across_n, &t->fm, &t->fn, &t->depth,
                     &t->parts) == 6);
    }
    compare(d, ways, count, &s, PV_BF16);
}

int main(int argc, char **argv)
{
    pv_backend *be = NULL;
    pv_device_info info = {0};
    const char *device = argc > 1 ? argv[1] : "llvmpipe";
    benching = argc > 2 && !strcmp(argv[2], "bench");
    if (pv_backend_open(
            "vulkan", &(pv_backend_params){.device = *device ? device : NULL, .cache = benching ? NULL : ""},
            &be)) {
        printf("not tested here: %s\n", pv_error_text());
        return 77;
    }
    vk_device *d = (vk_device *)be;
    pv_backend_device(be, &info);
    printf("%s: bf16 %ux%ux%u, f16 %ux%ux%u, subgroups of %u\n", info.name, d->bf16.m, d->bf16.n, d->bf16.k,
           d->f16.m, d->f16.n, d->f16.k, d->subgroup);
    if (argc > 2 && !strcmp(argv[2], "open")) {
        pv_backend_close(&be);
        return 0;
    }
    if (!benching)
        pieces(d);
    if (!d->bf16.m && !d->f16.m)
        printf("not tested here: matrices\n");
    if (benching && argc > 3) {
        chosen(d, argc - 3, argv + 3);
    } else if (benching) {
        static const shape shapes[] = {{50, 4096, 1024, 16, "linear_geglu"},
                                       {968, 16384, 2048, 4, "linear_geglu"},
                                       {50, 1024, 4096, 16, "linear_gated"},
                                       {768, 1152, 4304, 16, "linear_add"},
                                       {968, 2048, 16384, 4, "linear_add"}};
        for (int i = 0; i < COUNT_OF(shapes); i++)
            compare(d, shapes[i].m > 64 ? large : small, shapes[i].m > 64 ? COUNT_OF(large) : COUNT_OF(small),
                    &shapes[i], PV_BF16);
    } else {
        static const shape shapes[] = {{130, 148, 136, 2, "linear_add"},
                                       {130, 148, 136, 2, "linear_geglu"},
                                       {50, 68, 1032, 2, "linear_gated"}};
        for (int dtype = PV_BF16; dtype <= PV_F16; dtype++)
            for (int i = 0; i < COUNT_OF(shapes) && (dtype == PV_BF16 ? d->bf16.m : d->f16.m); i++) {
                compare(d, large, COUNT_OF(large), &shapes[i], (pv_dtype)dtype);
                compare(d, small, COUNT_OF(small), &shapes[i], (pv_dtype)dtype);
            }
    }
    pv_backend_close(&be);
    return test_done();
}
