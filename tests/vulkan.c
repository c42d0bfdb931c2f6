/* vulkan.c - the Vulkan backend on the software device llvmpipe, validation layers on: openpi's own outputs, what is absent, failing
 * calls, and that not one message comes. Ops are tested in ops/, as on every backend. Skipped where there is no llvmpipe. */
#include "backends/vulkan/vk.h"
#include "base/memory.h"
#include "plan/instance.h"
#include "session/rig.h"
#include "tools/verify.h"

#include <stdatomic.h>

#define SOFTWARE "llvmpipe"
#define LAYER    "VK_LAYER_KHRONOS_validation"

static atomic_int messages;

static void count(void *user, pv_log_level level, const char *text)
{
    (void)user;
    messages += strstr(text, "vulkan: ") != NULL;
    printf("    log %d: %.400s\n", (int)level, text);
}

static vk_device *device(void)
{
    pv_backend *be = NULL;
    CHECK_OK(pv_backend_open("vulkan", &(pv_backend_params){.device = SOFTWARE, .cache = ""}, &be));
    return (vk_device *)be;
}

static void put_away(vk_device *d)
{
    pv_backend *be = &d->base;
    pv_backend_close(&be);
}

/* ---- choosing ---- */

static void chosen_by_name(void)
{
    pv_device_info info[16] = {{0}};
    pv_backend *be = NULL;
    int n = 16, software = -1, hardware = 0;
    CHECK_OK(pv_devices("vulkan", info, &n));
    for (int i = 0; i < n && i < 16; i++) {
        if (info[i].software)
            software = i;
        else
            hardware++;
    }
    if (!CHECK(software >= 0))
        return;
    if (!hardware) {
        CHECK_STATUS(pv_backend_open("vulkan", NULL, &be), PV_E_UNAVAILABLE);
        CHECK_TEXT("nothing but software");
        CHECK_TEXT(info[software].name);
    }
    CHECK_STATUS(pv_backend_open("vulkan", &(pv_backend_params){.device = "no such device"}, &be), PV_E_UNAVAILABLE);
    CHECK_TEXT("no such device");
    CHECK_STATUS(pv_backend_open("vulkan", &(pv_backend_params){.device = SOFTWARE, .sms = 4}, &be), PV_E_UNAVAILABLE);
    char number[16];
    snprintf(number, sizeof number, "%d", software);
    const char *const names[] = {number, info[software].name, info[software].uuid, SOFTWARE};
    for (int i = 0; i < 4; i++) {
        pv_device_info opened = {0};
        if (CHECK_OK(pv_backend_open("vulkan", &(pv_backend_params){.device = names[i]}, &be))) {
            CHECK_OK(pv_backend_device(be, &opened));
            CHECK(!strcmp(opened.uuid, info[software].uuid) && opened.memory_bytes > 0 && opened.unified);
        }
        pv_backend_close(&be);
    }
}

/* ---- openpi's outputs ---- */

static void golden(pv_backend *be, const char *label, const char *weights, int least)
{
    char model[512], config[512], trace[512];
    snprintf(model, sizeof model, PV_SOURCE_DIR "/tests/data/%s", weights);
    snprintf(config, sizeof config, PV_SOURCE_DIR "/tests/data/%s.json", label);
    snprintf(trace, sizeof trace, PV_SOURCE_DIR "/tests/data/%s.safetensors", label);
    pv_model *m = NULL;
    verify_report r = {0};
    if (CHECK_OK(pv_model_load(model, &(pv_model_params){.config = config}, &m)) &&
        CHECK_OK(verify_trace(m, be, &(verify_params){.trace = trace}, NULL, NULL, &r))) {
        double worst = 0;
        for (int i = 0; i < r.n_entries; i++)
            if (r.entries[i].state == VERIFY_COMPARED && !r.entries[i].absolute && r.entries[i].relative_l2 > worst)
                worst = r.entries[i].relative_l2;
        printf("%s: %d tensors compared, worst relative L2 %.3g\n", label, r.n_compared, worst);
        CHECK(r.n_compared >= least && r.production_equal && !r.first_failed);
        CHECK(worst <= 1e-5);
    }
    verify_free(&r);
    pv_model_free(&m);
}

/* ---- sessions ---- */

static rig open_rig(void)
{
    rig r = {NULL};
    r.backend = &device()->base;
    CHECK_OK(pv_model_load(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, &r.model));
    CHECK_OK(pv_session_create(r.model, r.backend, NULL, &r.session));
    return r;
}

/* Other ways through the backend: memory that the host does not see, and a queue without timestamps. Equal bytes. */
static void other_ways(const chunk *want)
{
    const pv_observation obs = rig_observation(20);
    for (int way = 0; way < 2; way++) {
        rig r = {.backend = &device()->base};
        if (way)
            ((vk_device *)r.backend)->timestamps = false;
        else
            ((vk_device *)r.backend)->info.unified = false;
        CHECK_OK(pv_model_load(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, &r.model));
        CHECK_OK(pv_session_create(r.model, r.backend, NULL, &r.session));
        chunk c = rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
        CHECK(same(&c, want));
        rig_close(&r);
    }
}

static uint32_t buffers; /* of the largest submission */
static PFN_vkQueueSubmit real_submit;

static VKAPI_ATTR VkResult VKAPI_CALL counted(VkQueue q, uint32_t n, const VkSubmitInfo *info, VkFence fence)
{
    if (n && info->commandBufferCount > buffers)
        buffers = info->commandBufferCount;
    return real_submit(q, n, info, fence);
}

/* A run whose schedule is there is one buffer between the first and the last, one whose schedule is not is a
 * buffer for each stage and step. Equal bytes. */
static void whole_runs(void)
{
    rig r = open_rig();
    const pv_observation obs = rig_observation(20);
    real_submit = ((vk_device *)r.backend)->fn.QueueSubmit;
    ((vk_device *)r.backend)->fn.QueueSubmit = counted;
    chunk by_stage = rig_infer(&r, &obs, (pv_infer_params){.seed = 5});
    CHECK(buffers > 10);
    buffers = 0;
    chunk whole = rig_infer(&r, &obs, (pv_infer_params){.seed = 5});
    CHECK(buffers == 3 && same(&by_stage, &whole));
    buffers = 0;
    chunk fewer = rig_infer(&r, &obs, (pv_infer_params){.seed = 5, .steps = 4});
    CHECK(buffers > 4 && !same(&by_stage, &fewer));
    ((vk_device *)r.backend)->fn.QueueSubmit = real_submit;
    rig_close(&r);
}

static void sessions(void)
{
    rig r = open_rig(), cpu = rig_open(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, NULL, 1);
    pv_session *second = NULL;
    const pv_observation obs = rig_observation(20), other = rig_observation(9);
    CHECK_OK(pv_session_create(r.model, r.backend, NULL, &second));
    const pv_infer_params p = {.seed = 3};
    chunk first = rig_infer(&r, &obs, p), on_cpu = rig_infer(&cpu, &obs, p);
    double apart = 0, size = 0;
    for (int i = 0; i < CHUNK; i++) {
        apart += pow((double)first.model[i] - (double)on_cpu.model[i], 2);
        size += pow((double)on_cpu.model[i], 2);
    }
    printf("beside the CPU: relative L2 %.3g\n", sqrt(apart / size));
    CHECK(sqrt(apart / size) <= 1e-5);

    rig two = {r.backend, r.model, second};
    chunk there = rig_infer(&two, &obs, p), between = rig_infer(&two, &other, p), again = rig_infer(&r, &obs, p);
    CHECK(same(&first, &there) && same(&first, &again) && !same(&first, &between));
    int64_t before = pv_alloc_count();
    again = rig_infer(&r, &obs, p);
    CHECK(pv_alloc_count() == before);
    pv_timing t = {0};
    CHECK_OK(pv_session_timing(r.session, &t));
    CHECK(t.run_ms > 0 && t.vision_ms > 0 && t.prefix_ms > 0 && t.denoise_ms > 0 && t.run_ms <= t.total_ms);
    pv_session_destroy(&second);
    rig_close(&cpu);
    rig_close(&r);
    other_ways(&first);
}

/* ---- failing calls ---- */

static VKAPI_ATTR VkResult VKAPI_CALL lost(VkQueue q, uint32_t n, const VkSubmitInfo *info, VkFence fence)
{
    (void)q, (void)n, (void)info, (void)fence;
    return VK_ERROR_DEVICE_LOST;
}

static VKAPI_ATTR VkResult VKAPI_CALL never(VkDevice d, uint32_t n, const VkFence *fences, VkBool32 all, uint64_t ns)
{
    (void)d, (void)n, (void)fences, (void)all, (void)ns;
    return VK_TIMEOUT;
}

static int full_after; /* allocations that still succeed */
static PFN_vkAllocateMemory real_allocate;
static vk_functions real; /* what was replaced */

static VKAPI_ATTR VkResult VKAPI_CALL full(VkDevice d, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *a,
                                           VkDeviceMemory *out)
{
    return full_after-- > 0 ? real_allocate(d, info, a, out) : VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

/* A lost device, and one that does not answer: a status at once, all that follows refuses, and a new one works. */
static void losses(bool hangs)
{
    rig r = open_rig();
    vk_device *d = (vk_device *)r.backend;
    const pv_observation obs = rig_observation(20);
    float actions[CHUNK];
    real = d->fn;
    rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
    if (hangs)
        d->fn.WaitForFences = never;
    else
        d->fn.QueueSubmit = lost;
    CHECK_STATUS(pv_session_infer(r.session, &obs, NULL, actions), PV_E_DEVICE);
    CHECK_TEXT(hangs ? "vkWaitForFences" : "the device is lost");
    if (hangs) { /* it answers after all, so that this test can give everything back */
        CHECK(d->lost && d->hung);
        pthread_mutex_lock(&d->lock);
        real.ResetFences(d->handle, 1, &d->settled);
        CHECK(!real.QueueSubmit(d->queue, 0, NULL, d->settled));
        CHECK(!real.WaitForFences(d->handle, 1, &d->settled, VK_TRUE, UINT64_MAX));
        pthread_mutex_unlock(&d->lock);
        d->hung = false;
    }
    d->fn = real;
    CHECK_STATUS(pv_session_infer(r.session, &obs, NULL, actions), PV_E_DEVICE);
    CHECK_TEXT("the device was lost");
    pv_session *more = NULL;
    CHECK_STATUS(pv_session_create(r.model, r.backend, NULL, &more), PV_E_DEVICE);
    rig_close(&r);
    r = open_rig();
    rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
    rig_close(&r);
}

/* No allocation of the device's memory may be the one that brings all down. */
static void no_memory(void)
{
    rig r = {.backend = &device()->base};
    vk_device *d = (vk_device *)r.backend;
    CHECK_OK(pv_model_load(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, &r.model));
    int k = 0;
    real_allocate = d->fn.AllocateMemory;
    d->fn.AllocateMemory = full;
    for (bool met = true; met && k < 1000; k += k < 4 || k > 80 ? 1 : 19) {
        full_after = k;
        pv_status st = pv_session_create(r.model, r.backend, NULL, &r.session);
        met = full_after < 0;
        if (!CHECK_STATUS(st, met ? PV_E_MEMORY : PV_OK))
            break;
        if (met)
            CHECK_TEXT("out of device memory");
        pv_session_destroy(&r.session);
    }
    printf("device memory failed at up to %d allocations\n", k - 1);
    CHECK(k > 5 && k < 1000);
    d->fn.AllocateMemory = real_allocate;
    rig_close(&r);
}

/* Each call that a plan makes on the device, from buffers to the run, fails once for lack of memory. */

static long countdown = -1; /* calls that still succeed; -1: all do */

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

#define FAILING(name, params, ...) \
    static VKAPI_ATTR VkResult VKAPI_CALL fail_##name params \
    { \
        return fails() ? VK_ERROR_OUT_OF_HOST_MEMORY : real.name(__VA_ARGS__); \
    }
#define CREATING(name, info, handle) \
    FAILING(Create##name, (VkDevice d, const info *i, const VkAllocationCallbacks *a, handle *out), d, i, a, out)
CREATING(Buffer, VkBufferCreateInfo, VkBuffer)
CREATING(CommandPool, VkCommandPoolCreateInfo, VkCommandPool)
CREATING(DescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool)
CREATING(QueryPool, VkQueryPoolCreateInfo, VkQueryPool)
CREATING(Fence, VkFenceCreateInfo, VkFence)
FAILING(AllocateMemory, (VkDevice d, const VkMemoryAllocateInfo *i, const VkAllocationCallbacks *a, VkDeviceMemory *out), d, i, a, out)
FAILING(BindBufferMemory, (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize at), d, b, m, at)
FAILING(MapMemory, (VkDevice d, VkDeviceMemory m, VkDeviceSize at, VkDeviceSize n, VkMemoryMapFlags f, void **out), d, m, at, n, f, out)
FAILING(AllocateDescriptorSets, (VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *out), d, i, out)
FAILING(AllocateCommandBuffers, (VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *out), d, i, out)
FAILING(BeginCommandBuffer, (VkCommandBuffer cb, const VkCommandBufferBeginInfo *i), cb, i)
FAILING(ResetCommandBuffer, (VkCommandBuffer cb, VkCommandBufferResetFlags f), cb, f)
FAILING(EndCommandBuffer, (VkCommandBuffer cb), cb)
FAILING(CreateComputePipelines,
        (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i, const VkAllocationCallbacks *a, VkPipeline *out),
        d, c, n, i, a, out)
FAILING(QueueSubmit, (VkQueue q, uint32_t n, const VkSubmitInfo *i, VkFence f), q, n, i, f)
FAILING(ResetFences, (VkDevice d, uint32_t n, const VkFence *f), d, n, f)
FAILING(WaitForFences, (VkDevice d, uint32_t n, const VkFence *f, VkBool32 all, uint64_t ns), d, n, f, all, ns)

/* gelu(x) + x, on a device that was opened for it; call k fails, if there is one (*met). */
static pv_status small_plan(bool unified, long k, bool *met)
{
    vk_device *d = device();
    pv_graph *g = pv_graph_create();
    pv_tensor *x = pv_input(g, "x", PV_F32, 2, (int64_t[]){3, 8}, NULL), *y = NULL;
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    float in[24], out[24] = {0};
    for (int i = 0; i < 24; i++)
        in[i] = 10;
    pv_node *n = pv_node_add(g, "h", PV_OP_GELU, 1, &x, &(pv_attr){0});
    n = pv_node_add(g, "y", PV_OP_ADD, 2, (pv_tensor *[]){n->out[0], x}, &(pv_attr){0});
    y = n->out[0];
    y->output = true;
    real = d->fn;
    d->most_makers = 0; /* calls are counted */
    d->info.unified = unified;
#define USE(name) d->fn.name = fail_##name
    USE(CreateBuffer), USE(CreateCommandPool), USE(CreateDescriptorPool), USE(CreateQueryPool), USE(CreateFence);
    USE(AllocateMemory), USE(BindBufferMemory), USE(MapMemory), USE(AllocateDescriptorSets), USE(AllocateCommandBuffers);
    USE(ResetCommandBuffer), USE(BeginCommandBuffer), USE(EndCommandBuffer), USE(CreateComputePipelines), USE(QueueSubmit), USE(ResetFences);
    USE(WaitForFences);
    pv_status st = pv_plan_create(&d->base, &g, &(pv_plan_params){.steps = 1}, &plan);
    countdown = k;
    if (!st)
        st = pv_instance_create(plan, NULL, &inst);
    if (!st)
        st = pv_instance_write(inst, x, 0, in, sizeof in);
    if (!st)
        st = pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL);
    if (!st)
        st = pv_instance_read(inst, y, 0, out, sizeof out);
    *met = countdown < 0;
    countdown = -1;
    CHECK(st || (out[0] == 20 && out[23] == 20));
    CHECK(!st || strstr(pv_error_text(), "out of host memory"));
    if (st && inst) { /* the next one works */
        CHECK_OK(pv_instance_write(inst, x, 0, in, sizeof in));
        CHECK_OK(pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL));
        CHECK_OK(pv_instance_read(inst, y, 0, out, sizeof out));
        CHECK(out[0] == 20 && out[23] == 20);
    }
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
    put_away(d);
    return st;
}

static void every_call(bool unified)
{
    long k = 0;
    for (bool met = true; met && k < 1000; k++) {
        pv_status st = small_plan(unified, k, &met);
        if (!CHECK_STATUS(st, met ? PV_E_MEMORY : PV_OK) || !CHECK(pv_alloc_live() == 0)) {
            printf("    call %ld\n", k);
            break;
        }
    }
    printf("each of %ld calls failed once\n", k - 1);
    CHECK(k > 30);
}

/* ---- pipelines made by several threads ---- */

enum { MANY = 24, REFUSED = 5 /* each fifth, once */ };
static atomic_bool refused[MANY];

static VKAPI_ATTR VkResult VKAPI_CALL refuse(VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i,
                                             const VkAllocationCallbacks *a, VkPipeline *out)
{
    const uint32_t at = ((const uint32_t *)i->stage.pSpecializationInfo->pData)[8] - 8u;
    bool no = at < MANY && at % REFUSED == 0 && !atomic_exchange(&refused[at], true);
    return no ? VK_ERROR_OUT_OF_HOST_MEMORY : real.CreateComputePipelines(d, c, n, i, a, out);
}

/* Many are asked for. One that another thread failed to make is tried again by who wants it; who fails himself says so, and has it the next
 * time. */
static void made_together(void)
{
    vk_device *d = device();
    uint32_t constant[MANY][VK_CONSTANTS] = {{0}};
    VkPipeline got[MANY], again;
    int failed = 0;
    real = d->fn;
    d->most_makers = 3;
    d->fn.CreateComputePipelines = refuse;
    for (int i = 0; i < MANY; i++) {
        constant[i][8] = 8u + (uint32_t)i; /* threads of a group */
        vk_pipeline_ask(d, VK_LAYOUT, constant[i]);
        vk_pipeline_ask(d, VK_LAYOUT, constant[i]);
    }
    CHECK(d->n_makers == 3);
    for (int i = MANY - 1; i >= 0; i--) {
        pv_status st = vk_pipeline_get(d, VK_LAYOUT, constant[i], &got[i]);
        failed += st != PV_OK;
        CHECK(!st || strstr(pv_error_text(), "shader layout"));
        CHECK(!st || !vk_pipeline_get(d, VK_LAYOUT, constant[i], &got[i]));
    }
    CHECK(failed <= REFUSED && d->n_pipelines == MANY);
    for (int i = 0; i < MANY; i++)
        CHECK(atomic_load(&refused[i]) == (i % REFUSED == 0));
    for (int i = 0; i < MANY; i++)
        CHECK_OK(vk_pipeline_get(d, VK_LAYOUT, constant[i], &again)), CHECK(again == got[i]);
    for (int i = 0; i < MANY; i++) { /* and closed while they are made */
        constant[i][8] += MANY;
        vk_pipeline_ask(d, VK_LAYOUT, constant[i]);
    }
    put_away(d);
    CHECK(pv_alloc_live() == 0);
}

/* ---- validation ---- */

/* Do the layers hear? A shader that names an id beyond its bound, never run. */
static bool heard(void)
{
    vk_device *d = device();
    uint32_t *broken = pv_alloc(vk_shaders[VK_LAYOUT].bytes);
    VkShaderModule module = VK_NULL_HANDLE;
    memcpy(broken, vk_shaders[VK_LAYOUT].words, vk_shaders[VK_LAYOUT].bytes);
    broken[3] = 2; /* the bound */
    VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .codeSize = vk_shaders[VK_LAYOUT].bytes,
                                     .pCode = broken};
    int before = messages;
    d->fn.CreateShaderModule(d->handle, &info, NULL, &module);
    d->fn.DestroyShaderModule(d->handle, module, NULL);
    bool yes = messages > before;
    messages = before;
    pv_free(broken);
    put_away(d);
    return yes;
}

void __lsan_disable(void) __attribute__((weak)); /* there in builds with a leak checker */

int main(void)
{
    setenv("VK_INSTANCE_LAYERS", LAYER, 1);
    if (!__lsan_disable) /* are there barriers enough? What looks for that leaks in layers 1.3.239, which a leak checker would find */
        setenv("VK_LAYER_ENABLES", "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT", 1);
    pv_set_log(count, NULL, PV_LOG_WARN);
    pv_backend *be = NULL;
    if (pv_backend_open("vulkan", &(pv_backend_params){.device = SOFTWARE}, &be)) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    golden(be, "A", "tiny_f32.safetensors", 120);
    golden(be, "B", "tiny_f32.safetensors", 100);
    golden(be, "D", "tiny_bf16.safetensors", 100);
    pv_backend_close(&be);
    chosen_by_name();
    sessions();
    whole_runs();
    losses(false);
    losses(true);
    no_memory();
    every_call(true);
    every_call(false);
    made_together();
    CHECK(messages == 0);
    if (!heard())
        printf("validation layers are not installed (%s): nothing was listened to\n", LAYER);
    return test_done();
}
