/* vulkan_selftest.c - the self-test of a device at first use, on llvmpipe, with variants that are wrong on
 * purpose: each is found, switched off by name, and what stands below it is used; what came of it is kept;
 * and a device that a variant takes with it is one that the next opening does without. */
#define _GNU_SOURCE
#include "backends/vulkan/vk.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "plan/instance.h"
#include "plan/selftest.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

static char folder[] = "/tmp/pivot-selftest-XXXXXX";
static char said[4096];
static int warnings, messages;

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user;
    if (level >= PV_LOG_WARN) {
        snprintf(said, sizeof said, "%s", text);
        warnings++;
    }
    messages += strstr(text, "vulkan: ") != NULL;
}

static pv_status opening(const char *cache, pv_backend **be)
{
    *said = 0;
    warnings = 0;
    return pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe", .cache = cache}, be);
}

/* What `pivot devices` tells of llvmpipe. */
static const char *told(void)
{
    static pv_device_info info[16];
    int n = 16;
    memset(info, 0, sizeof info);
    CHECK_OK(pv_devices("vulkan", info, &n));
    for (int i = 0; i < n; i++)
        if (strstr(info[i].name, "llvmpipe"))
            return info[i].supports;
    return "";
}

static bool tells(const char *words)
{
    bool ok = strstr(told(), words) != NULL;
    if (!CHECK(ok))
        printf("    told: %s\n    expected: %s\n", told(), words);
    return ok;
}

/* ---- tables of variants ---- */

static const vk_variant *real;
static int n_real;
static vk_variant table[VK_MOST_VARIANTS];

static const vk_variant *row(pv_op op)
{
    for (int i = 0; i < n_real; i++)
        if (real[i].op == op)
            return &real[i];
    return NULL;
}

/* The real table with `first` above all and without the real rows of `without` (PV_OP_COUNT: with all). */
static void use(const vk_variant *first, pv_op without)
{
    vk_n_variants = 0;
    if (first)
        table[vk_n_variants++] = *first;
    for (int i = 0; i < n_real; i++)
        if (real[i].op != without)
            table[vk_n_variants++] = real[i];
    vk_variants = table;
}

/* So few variants that the test of all of them is quick. */
static void use_few(const vk_variant *first, const pv_op *ops, int n)
{
    vk_n_variants = 0;
    if (first)
        table[vk_n_variants++] = *first;
    for (int i = 0; i < n; i++)
        table[vk_n_variants++] = *row(ops[i]);
    vk_variants = table;
}

static const pv_op few[] = {PV_OP_GELU, PV_OP_MUL};

/* ---- the op at work ---- */

/* op(x, ...) of one or two inputs that are all 2; the number of nodes that the plan made of it. */
static pv_status act(pv_backend *be, pv_op op, float *result, int *nodes)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *in[2];
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    float two[24], out[24];
    for (int i = 0; i < 24; i++)
        two[i] = 2;
    for (int i = 0; i < 2; i++)
        in[i] = pv_input(g, i ? "y" : "x", PV_F32, 2, (int64_t[]){3, 8}, NULL);
    pv_node *n = pv_node_add(g, "out", op, pv_ops[op].min_in, in, &(pv_attr){0});
    const pv_tensor *y = n->out[0];
    n->out[0]->output = true;
    pv_status st = pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &plan);
    if (!st) {
        *nodes = plan->graph->n_nodes;
        st = pv_instance_create(plan, NULL, &inst);
    }
    for (int i = 0; !st && i < pv_ops[op].min_in; i++)
        st = pv_instance_write(inst, in[i], 0, two, sizeof two);
    if (!st)
        st = pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL);
    if (!st)
        st = pv_instance_read(inst, y, 0, out, sizeof out);
    if (!st)
        *result = out[23];
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    return st;
}

static const pv_variant *variant(pv_backend *be, const char *name)
{
    int n;
    pv_variant *v = be->vt->variants(be, &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(v[i].name, name))
            return &v[i];
    CHECK(!"such a variant");
    return v;
}

#define GELU_2 1.9545977f

/* ---- all right ---- */

static void all_right(void)
{
    pv_backend *be = NULL;
    pv_device_info info = {0};
    double begun = pv_now_ms();
    tells("self-test: not run yet");
    if (!CHECK_OK(opening(folder, &be)))
        return;
    printf("the self-test took %.1f s\n", (pv_now_ms() - begun) / 1e3);
    CHECK(warnings == 0);
    CHECK_OK(pv_backend_device(be, &info));
    static const char words[] = "ways to do an op are right, none is wrong\n";
    const char *line = strstr(info.supports, "self-test: ");
    if (!CHECK(strstr(info.supports, words)) ||
        !CHECK(line && atoi(line + 11) >= 22 && atoi(line + 11) <= n_real))
        printf("    %s\n", info.supports);
    tells(words);
    vk_device *d = (vk_device *)be;
    CHECK(d->n_pipelines == 0); /* nothing is left of it */
    pv_backend_close(&be);

    begun = pv_now_ms();
    CHECK_OK(opening("", &be)); /* known in this process */
    pv_backend_close(&be);
    pv_selftest_forget();
    tells(words);
    CHECK_OK(opening(folder, &be)); /* and in the next */
    pv_backend_close(&be);
    CHECK(pv_now_ms() - begun < 1000);
}

/* ---- wrong in many ways ---- */

static void (*real_fill)(const pv_node *n, vk_call *c);

static void last_group_missing(const pv_node *n, vk_call *c)
{
    real_fill(n, c);
    c->grid[0]--;
}

static void one_element_missing(const pv_node *n, vk_call *c)
{
    real_fill(n, c);
    c->push.total--;
}

static void length_ignored(const pv_node *n, vk_call *c)
{
    real_fill(n, c);
    c->constant[6] &= ~2u;
}

static void scaled(const pv_node *n, vk_call *c)
{
    real_fill(n, c);
    c->push.number *= 1.01f;
}

static void found(pv_op op, const char *name, void (*fill)(const pv_node *, vk_call *), uint32_t shader_op,
                  const char *words)
{
    vk_variant wrong = *row(op);
    pv_backend *be = NULL;
    wrong.name = name;
    wrong.shader_op = shader_op;
    real_fill = wrong.fill;
    if (fill)
        wrong.fill = fill;
    use_few(&wrong, few, 2);
    if (CHECK_OK(opening(folder, &be)) && CHECK(variant(be, name)->off && !variant(be, "mul")->off)) {
        CHECK(warnings == 1 && strstr(said, name) && strstr(said, words));
        tells(name);
        tells(words);
    }
    if (strlen(said))
        printf("    %s\n", said);
    pv_backend_close(&be);
}

static void wrong_results(void)
{
    found(PV_OP_GELU, "gelu.is_silu", NULL, 4, "wrong on random inputs: output 0, f32: [");
    found(PV_OP_GELU, "gelu.short", last_group_missing, 3, "wrong on random");
    found(PV_OP_MUL, "mul.one_less", one_element_missing, 1, "wrong on random");
    found(PV_OP_SCALE, "scale.more", scaled, 2, "wrong on random");
    found(PV_OP_SOFTMAX, "softmax.all", length_ignored, 0, "expected");
    found(PV_OP_ATTENTION_SCORES, "attention_scores.short", last_group_missing, 0, "wrong on random");
}

/* ---- what is used instead ---- */

static void next_one(void)
{
    vk_variant wrong = *row(PV_OP_GELU);
    pv_backend *be = NULL;
    float y = 0;
    int nodes = 0;
    wrong.name = "gelu.wrong";
    wrong.shader_op = 4;
    use(&wrong, PV_OP_COUNT);
    CHECK_OK(opening(folder, &be));
    CHECK(variant(be, "gelu.wrong")->off && !variant(be, "gelu")->off);
    CHECK_OK(act(be, PV_OP_GELU, &y, &nodes));
    CHECK(nodes == 1 && fabsf(y - GELU_2) < 1e-5f);
    ((pv_variant *)variant(be, "gelu.wrong"))->off = false; /* and so it would have been */
    CHECK_OK(act(be, PV_OP_GELU, &y, &nodes));
    CHECK(fabsf(y - GELU_2) > 0.1f);
    pv_backend_close(&be);
    tells("switched off: gelu.wrong (wrong on random inputs");

    pv_selftest_forget(); /* a new process is told, and tests nothing */
    double begun = pv_now_ms();
    CHECK_OK(opening(folder, &be));
    CHECK(variant(be, "gelu.wrong")->off && !variant(be, "gelu")->off && warnings == 0 &&
          pv_now_ms() - begun < 1000);
    pv_backend_close(&be);
    tells("switched off: gelu.wrong (wrong on random inputs");
}

static void body(void)
{
    vk_variant wrong = *row(PV_OP_GEGLU);
    pv_backend *be = NULL;
    float y = 0;
    int nodes = 0;
    wrong.name = "geglu.wrong";
    wrong.shader_op = 1; /* a product alone */
    use_few(&wrong, few, 2);
    CHECK_OK(opening(folder, &be));
    CHECK(variant(be, "geglu.wrong")->off);
    CHECK_OK(act(be, PV_OP_GEGLU, &y, &nodes));
    CHECK(nodes == 2 && fabsf(y - 2 * GELU_2) < 1e-5f);
    pv_backend_close(&be);
}

static void nothing(void)
{
    vk_variant wrong = *row(PV_OP_GELU);
    pv_backend *be = NULL;
    float y;
    int nodes;
    wrong.name = "gelu.alone";
    wrong.shader_op = 4;
    use_few(&wrong, few + 1, 1);
    CHECK_OK(opening(folder, &be));
    CHECK_STATUS(act(be, PV_OP_GELU, &y, &nodes), PV_E_NO_KERNEL);
    CHECK_TEXT("backend 'vulkan' has no kernel for: gelu (f32, as 'out' of f32; switched off by the self-test)");
    CHECK_OK(act(be, PV_OP_MUL, &y, &nodes)); /* the others work */
    CHECK(y == 4);
    pv_backend_close(&be);
}

/* ---- variants that cannot be tested, or cannot be run ---- */

static bool nowhere(const vk_device *d, const pv_node *n)
{
    (void)d, (void)n;
    return false;
}

#define STRANGE 77 /* of the shader's family: no such op */
static PFN_vkCreateComputePipelines real_make;

static VKAPI_ATTR VkResult VKAPI_CALL no_pipeline(VkDevice d, VkPipelineCache c, uint32_t n,
                                                  const VkComputePipelineCreateInfo *i,
                                                  const VkAllocationCallbacks *a, VkPipeline *out)
{
    const uint32_t *constant = i->stage.pSpecializationInfo->pData;
    if (constant[0] != STRANGE)
        return real_make(d, c, n, i, a, out);
    *out = VK_NULL_HANDLE;
    return VK_ERROR_UNKNOWN;
}

static VKAPI_ATTR VkResult VKAPI_CALL lost(VkQueue q, uint32_t n, const VkSubmitInfo *info, VkFence fence)
{
    (void)q, (void)n, (void)info, (void)fence;
    return VK_ERROR_DEVICE_LOST;
}

static bool refuses(const vk_device *d, const pv_node *n) /* what the driver does with its shader */
{
    (void)n;
    if (d->fn.CreateComputePipelines != no_pipeline) { /* before anything is compiled: its variant is the first */
        real_make = d->fn.CreateComputePipelines;
        ((vk_device *)d)->fn.CreateComputePipelines = no_pipeline;
    }
    return true;
}

static bool loses(const vk_device *d, const pv_node *n)
{
    (void)n;
    ((vk_device *)d)->fn.QueueSubmit = lost;
    return true;
}

static void untested(void)
{
    vk_variant strange = *row(PV_OP_GELU);
    pv_backend *be = NULL;
    strange.name = "gelu.strange";
    strange.accepts = nowhere;
    use_few(&strange, few, 2);
    CHECK_OK(opening(folder, &be));
    CHECK(!variant(be, "gelu.strange")->off && warnings == 0);
    pv_backend_close(&be);
    tells("none is wrong\nnot tested, as no case fits: gelu.strange\n");
}

static void not_compiled(void)
{
    vk_variant strange = *row(PV_OP_GELU);
    pv_backend *be = NULL;
    const pv_op mul = PV_OP_MUL;
    strange.name = "mul.refused";
    strange.op = PV_OP_MUL;
    strange.accepts = refuses;
    strange.fill = row(PV_OP_MUL)->fill;
    strange.shader_op = STRANGE;
    use_few(&strange, &mul, 1);
    CHECK_OK(opening(folder, &be));
    CHECK(variant(be, "mul.refused")->off && !variant(be, "mul")->off);
    CHECK(strstr(said, "cannot be run: ") && strstr(said, "vkCreateComputePipelines"));
    pv_backend_close(&be);
}

static void device_lost(void)
{
    vk_variant strange = *row(PV_OP_GELU);
    pv_backend *be = NULL;
    float y = 0;
    int nodes = 0;
    strange.name = "gelu.loses";
    strange.accepts = loses;
    use_few(&strange, few, 2);
    CHECK_STATUS(opening(folder, &be), PV_E_DEVICE);
    CHECK_TEXT("the self-test of gelu.loses took the device with it");
    CHECK(!be);
    pv_selftest_forget();
    CHECK_OK(opening(folder, &be)); /* the others are tested now */
    CHECK(variant(be, "gelu.loses")->off && !variant(be, "gelu")->off);
    CHECK_OK(act(be, PV_OP_GELU, &y, &nodes));
    CHECK(fabsf(y - GELU_2) < 1e-5f);
    pv_backend_close(&be);
    tells("switched off: gelu.loses (cannot be run: ");
}

/* ---- memory ---- */

static void no_memory(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    const pv_op mul = PV_OP_MUL;
    pv_backend *be = NULL;
    long k = 0;
    use_few(NULL, &mul, 1);
    CHECK_OK(pv_set_allocator(&failing));
    for (bool met = true; met && k < 5000; k += k < 40 ? 1 : 37) {
        pv_selftest_forget();
        fault_countdown = k;
        pv_status st = opening("", &be);
        met = fault_countdown < 0;
        fault_countdown = -1;
        CHECK(st == PV_OK || (st == PV_E_MEMORY && !be));
        pv_backend_close(&be);
        if (!CHECK(pv_alloc_live() == 0 && warnings == 0))
            printf("    allocation %ld: %s\n", k, said);
    }
    printf("memory failed at up to %ld allocations\n", k);
    CHECK(k > 100 && k < 5000);
    CHECK_OK(pv_set_allocator(NULL));
}

int main(void)
{
    setenv("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation", 1);
    pv_device_info info[16] = {{0}};
    int n = 16, software = 0;
    if (!pv_devices("vulkan", info, &n))
        for (int i = 0; i < n && i < 16; i++)
            software += strstr(info[i].name, "llvmpipe") != NULL;
    if (!software) {
        printf("SKIPPED: no llvmpipe here\n");
        return 77;
    }
    if (!CHECK(mkdtemp(folder)))
        return test_done();
    setenv("PIVOT_CACHE", folder, 1);
    pv_set_log(hear, NULL, PV_LOG_INFO);
    real = vk_variants;
    n_real = vk_n_variants;
    all_right();
    wrong_results();
    next_one();
    body();
    nothing();
    untested();
    not_compiled();
    device_lost();
    no_memory();
    CHECK(messages == 0 && pv_alloc_live() == 0);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    CHECK(system(command) == 0);
    return test_done();
}
