/* device.c - the loader, opened when it is asked for; instances, devices, and what becomes of a VkResult.
 *
 * The first device that is not a processor in disguise is taken unless one is named. A software device (llvmpipe) is taken only by name,
 * index or UUID: on a robot it would be a fault found too late. Where the debug extension is there, what validation layers say goes to
 * the log; layers are the user's choice (VK_INSTANCE_LAYERS), none is loaded from here. */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "features.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define LEAST_VERSION VK_API_VERSION_1_2
#define TIME_OUT_NS   (600ull * 1000000000ull) /* a chunk takes seconds at most, on a software device minutes */
#define MOST_DEVICES  16

/* ---- results ---- */

static const char *result_name(VkResult r)
{
    switch (r) {
    case VK_NOT_READY:
        return "not ready";
    case VK_TIMEOUT:
        return "no answer within ten minutes";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "out of host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "out of device memory";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "initialisation failed";
    case VK_ERROR_DEVICE_LOST:
        return "the device is lost";
    case VK_ERROR_MEMORY_MAP_FAILED:
        return "memory cannot be mapped";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "a layer that is asked for is not installed";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "an extension is not there";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "a feature is not there";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "the driver does not fit";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "too many allocations";
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
        return "a pool is exhausted";
    default:
        return "failed";
    }
}

static pv_status status_of(VkResult r)
{
    switch (r) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
        return PV_E_MEMORY;
    case VK_ERROR_INCOMPATIBLE_DRIVER:
    case VK_ERROR_LAYER_NOT_PRESENT:
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return PV_E_UNAVAILABLE;
    default:
        return PV_E_DEVICE;
    }
}

pv_status vk_check(vk_device *d, VkResult r, const char *what)
{
    if (r == VK_SUCCESS)
        return PV_OK;
    if ((r == VK_ERROR_DEVICE_LOST || r == VK_TIMEOUT) && !d->lost) {
        snprintf(d->lost_words, sizeof d->lost_words, "%s on %s: %s (%d)", what, d->info.name, result_name(r), (int)r);
        d->hung = r == VK_TIMEOUT;
        __atomic_store_n(&d->lost, true, __ATOMIC_RELEASE);
    }
    return pv_fail(status_of(r), "%s on %s: %s (%d)", what, d->info.name, result_name(r), (int)r);
}

pv_status vk_usable(const vk_device *d)
{
    if (!__atomic_load_n(&d->lost, __ATOMIC_ACQUIRE))
        return PV_OK;
    return pv_fail(PV_E_DEVICE, "the device was lost: %s; open the backend anew", d->lost_words);
}

/* ---- instance ---- */

static PFN_vkGetInstanceProcAddr loader(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static PFN_vkGetInstanceProcAddr get;
    pthread_mutex_lock(&lock);
    if (!get) {
        void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
        void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
        if (symbol)
            memcpy(&get, &symbol, sizeof get);
        else
            pv_fail(PV_E_UNAVAILABLE, "Vulkan's loader cannot be opened: %s", dlerror());
    }
    pthread_mutex_unlock(&lock);
    return get;
}

PFN_vkVoidFunction vk_instance_function(const vk_instance *inst, const char *name)
{
    PFN_vkGetInstanceProcAddr get = loader();
    return get ? get(inst->handle, name) : NULL;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL heard(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                            VkDebugUtilsMessageTypeFlagsEXT types,
                                            const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)types, (void)user;
    pv_log(severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT ? PV_LOG_ERROR : PV_LOG_WARN, "vulkan: %s", data->pMessage);
    return VK_FALSE;
}

static const VkDebugUtilsMessengerCreateInfoEXT ears = {
    .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
    .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
    .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
    .pfnUserCallback = heard,
};

static bool has_debug(PFN_vkGetInstanceProcAddr get)
{
    PFN_vkEnumerateInstanceExtensionProperties list =
        (PFN_vkEnumerateInstanceExtensionProperties)get(NULL, "vkEnumerateInstanceExtensionProperties");
    VkExtensionProperties some[64];
    uint32_t n = 64;
    bool found = false;
    if (list && list(NULL, &n, some) >= 0)
        for (uint32_t i = 0; i < n; i++)
            found |= !strcmp(some[i].extensionName, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    return found;
}

static bool load_functions(PFN_vkGetInstanceProcAddr get, vk_instance *inst, bool debug)
{
    bool all = true;
#define X(name) \
    inst->fn.name = (PFN_vk##name)get(inst->handle, "vk" #name); \
    all &= inst->fn.name != NULL;
    VK_FUNCTIONS(X)
#undef X
    if (debug) {
        inst->fn.CreateMessenger = (PFN_vkCreateDebugUtilsMessengerEXT)get(inst->handle, "vkCreateDebugUtilsMessengerEXT");
        inst->fn.DestroyMessenger = (PFN_vkDestroyDebugUtilsMessengerEXT)get(inst->handle, "vkDestroyDebugUtilsMessengerEXT");
    }
    return all;
}

pv_status vk_instance_open(vk_instance *out)
{
    *out = (vk_instance){0};
    PFN_vkGetInstanceProcAddr get = loader();
    if (!get)
        return PV_E_UNAVAILABLE;
    PFN_vkEnumerateInstanceVersion version = (PFN_vkEnumerateInstanceVersion)get(NULL, "vkEnumerateInstanceVersion");
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)get(NULL, "vkCreateInstance");
    uint32_t has = 0;
    if (!version || !create || version(&has) || has < LEAST_VERSION)
        return pv_fail(PV_E_UNAVAILABLE, "Vulkan's loader knows Vulkan %u.%u; 1.2 is needed", VK_API_VERSION_MAJOR(has),
                       VK_API_VERSION_MINOR(has));
    bool debug = has_debug(get);
    const char *extension = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pEngineName = "pivot", .apiVersion = LEAST_VERSION};
    VkResult r = create(&(VkInstanceCreateInfo){.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                                .pNext = debug ? &ears : NULL,
                                                .pApplicationInfo = &app,
                                                .enabledExtensionCount = debug,
                                                .ppEnabledExtensionNames = &extension},
                        NULL, &out->handle);
    if (r)
        return pv_fail(r == VK_ERROR_OUT_OF_HOST_MEMORY ? PV_E_MEMORY : PV_E_UNAVAILABLE, "vkCreateInstance: %s (%d)",
                       result_name(r), (int)r);
    if (!load_functions(get, out, debug)) {
        if (out->fn.DestroyInstance)
            out->fn.DestroyInstance(out->handle, NULL);
        return pv_fail(PV_E_UNAVAILABLE, "Vulkan's loader lacks functions of Vulkan 1.2");
    }
    if (out->fn.CreateMessenger && out->fn.DestroyMessenger)
        out->fn.CreateMessenger(out->handle, &ears, NULL, &out->messenger);
    return PV_OK;
}

void vk_instance_close(vk_instance *inst)
{
    if (inst->messenger)
        inst->fn.DestroyMessenger(inst->handle, inst->messenger, NULL);
    if (inst->handle)
        inst->fn.DestroyInstance(inst->handle, NULL);
    *inst = (vk_instance){0};
}

/* ---- devices ---- */

typedef struct found {
    VkPhysicalDevice handle;
    VkPhysicalDeviceProperties properties;
    pv_device_info info;
    size_t most_bytes;
    uint32_t version;
} found;

static void look_at(const vk_instance *inst, VkPhysicalDevice handle, found *f)
{
    VkPhysicalDeviceMaintenance3Properties sizes = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &sizes};
    VkPhysicalDeviceIDProperties ids = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES, .pNext = &driver};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &ids};
    VkPhysicalDeviceMemoryProperties memory;
    inst->fn.GetPhysicalDeviceProperties2(handle, &p);
    inst->fn.GetPhysicalDeviceMemoryProperties(handle, &memory);
    VkPhysicalDeviceType type = p.properties.deviceType;
    *f = (found){.handle = handle, .properties = p.properties, .version = p.properties.apiVersion};
    bool software = type == VK_PHYSICAL_DEVICE_TYPE_CPU;
    f->most_bytes = sizes.maxMemoryAllocationSize < SIZE_MAX ? (size_t)sizes.maxMemoryAllocationSize : SIZE_MAX;
    pv_device_info *i = &f->info;
    *i = (pv_device_info){.size = sizeof *i, .backend = "vulkan", .software = software};
    i->unified = software || type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    snprintf(i->name, sizeof i->name, "%s", p.properties.deviceName);
    snprintf(i->driver, sizeof i->driver, "%s", driver.driverInfo);
    snprintf(i->library, sizeof i->library, "Vulkan %u.%u, %s%s", VK_API_VERSION_MAJOR(f->version),
             VK_API_VERSION_MINOR(f->version), driver.driverName, software ? ", a software device" : "");
    snprintf(i->unknown, sizeof i->unknown, "clocks and power: Vulkan does not tell them");
    for (int k = 0; k < (int)VK_UUID_SIZE; k++)
        snprintf(i->uuid + strlen(i->uuid), sizeof i->uuid - strlen(i->uuid), "%s%02x",
                 k == 4 || k == 6 || k == 8 || k == 10 ? "-" : "", ids.deviceUUID[k]);
    for (uint32_t k = 0; k < memory.memoryHeapCount; k++)
        if (memory.memoryHeaps[k].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            i->memory_bytes += memory.memoryHeaps[k].size;
    vk_key(&p.properties, &ids, i->identity);
    vk_features_tell(inst, handle, i);
}

/* Up to MOST_DEVICES of them. */
static pv_status list_devices(const vk_instance *inst, found *f, int *n)
{
    VkPhysicalDevice handle[MOST_DEVICES];
    uint32_t count = MOST_DEVICES;
    VkResult r = inst->fn.EnumeratePhysicalDevices(inst->handle, &count, handle);
    if (r < 0)
        return pv_fail(r == VK_ERROR_OUT_OF_HOST_MEMORY ? PV_E_MEMORY : PV_E_UNAVAILABLE,
                       "vkEnumeratePhysicalDevices: %s (%d)", result_name(r), (int)r);
    for (uint32_t i = 0; i < count; i++)
        look_at(inst, handle[i], &f[i]);
    *n = (int)count;
    return PV_OK;
}

pv_status vk_devices(pv_device_info *out, int *n)
{
    vk_instance inst;
    found f[MOST_DEVICES];
    int count = 0;
    pv_status st = vk_instance_open(&inst);
    if (st)
        return st;
    st = list_devices(&inst, f, &count);
    vk_instance_close(&inst);
    for (int i = 0; !st && i < count && i < *n; i++)
        out[i] = f[i].info;
    if (!st)
        *n = count;
    return st;
}

static pv_status choose(const found *f, int n, const char *wanted, const found **out)
{
    pv_device_info info[MOST_DEVICES];
    int index = -1;
    for (int i = 0; i < n; i++)
        info[i] = f[i].info;
    if (!n)
        return pv_fail(PV_E_UNAVAILABLE, "Vulkan is installed and has no device here");
    pv_status st = pv_choose_device(info, n, wanted, &index);
    *out = st ? NULL : &f[index];
    return st;
}

static pv_status check_limits(const found *f)
{
    const VkPhysicalDeviceLimits *l = &f->properties.limits;
    if (f->version < LEAST_VERSION)
        return pv_fail(PV_E_UNAVAILABLE, "%s: its driver has Vulkan %u.%u; 1.2 is needed", f->info.name,
                       VK_API_VERSION_MAJOR(f->version), VK_API_VERSION_MINOR(f->version));
    if (l->maxPerStageDescriptorStorageBuffers < VK_BINDINGS || l->maxPushConstantsSize < sizeof(vk_push) ||
        l->minStorageBufferOffsetAlignment > 256)
        return pv_fail(PV_E_UNAVAILABLE, "%s: %u storage buffers, %u bytes of push constants, alignment %u; needed: %d, %zu, 256",
                       f->info.name, l->maxPerStageDescriptorStorageBuffers, l->maxPushConstantsSize,
                       (unsigned)l->minStorageBufferOffsetAlignment, VK_BINDINGS, sizeof(vk_push));
    return PV_OK;
}

/* ---- one of them, opened ---- */

static pv_status find_queue(vk_device *d)
{
    VkQueueFamilyProperties family[16];
    uint32_t n = 16;
    d->fn.GetPhysicalDeviceQueueFamilyProperties(d->physical, &n, family);
    for (uint32_t i = 0; i < n; i++)
        if (family[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
            d->family = i;
            d->timestamps = family[i].timestampValidBits == 64; /* fewer bits run over */
            return PV_OK;
        }
    return pv_fail(PV_E_UNAVAILABLE, "%s: no queue that computes", d->info.name);
}

static pv_status make_device(vk_device *d)
{
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = d->family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    vk_extras extras;
    vk_matrix_find(d, &extras);
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = extras.chain,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = extras.n,
                               .ppEnabledExtensionNames = extras.extension};
    pv_status st = VK_CHECK(d, CreateDevice, d->physical, &info, NULL, &d->handle);
    if (st)
        return st;
    d->fn.GetDeviceQueue(d->handle, d->family, 0, &d->queue);
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                    .queueFamilyIndex = d->family};
    st = VK_CHECK(d, CreateCommandPool, d->handle, &pool, NULL, &d->pool);
    VkCommandBufferAllocateInfo one = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                       .commandPool = d->pool,
                                       .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                       .commandBufferCount = 1};
    if (!st)
        st = VK_CHECK(d, AllocateCommandBuffers, d->handle, &one, &d->copy);
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    if (!st)
        st = VK_CHECK(d, CreateFence, d->handle, &fence, NULL, &d->settled);
    return st ? st : vk_pipelines_begin(d);
}

pv_status vk_open(const pv_backend_params *p, pv_backend **out)
{
    if (p->sms)
        return pv_fail(PV_E_UNAVAILABLE, "%d multiprocessors: Vulkan cannot set some apart", p->sms);
    vk_device *d = pv_alloc_zero(sizeof *d);
    if (!d)
        return PV_E_MEMORY;
    d->base.vt = &pv_vulkan_backend;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->making, NULL);
    pthread_cond_init(&d->asked, NULL);
    pthread_cond_init(&d->made, NULL);
    d->most_makers = pv_cpu_count() - 1 < VK_MAKERS ? pv_cpu_count() - 1 : VK_MAKERS;
    found f[MOST_DEVICES];
    const found *chosen = NULL;
    int n = 0;
    pv_status st = vk_instance_open(&d->instance);
    if (!st)
        st = list_devices(&d->instance, f, &n);
    if (!st)
        st = choose(f, n, p->device, &chosen);
    if (!st)
        st = check_limits(chosen);
    if (!st) {
        d->fn = d->instance.fn;
        d->physical = chosen->handle;
        d->properties = chosen->properties;
        d->limits = chosen->properties.limits;
        snprintf(d->folder, sizeof d->folder, "%s", p->cache ? p->cache : "");
        d->n_variants = vk_n_variants < VK_MOST_VARIANTS ? vk_n_variants : VK_MOST_VARIANTS;
        for (int i = 0; i < d->n_variants; i++)
            d->variants[i] = (pv_variant){.name = vk_variants[i].name, .op = vk_variants[i].op};
        d->most_bytes = chosen->most_bytes;
        d->info = chosen->info;
        d->fn.GetPhysicalDeviceMemoryProperties(d->physical, &d->memory);
        st = find_queue(d);
    }
    if (!st)
        st = make_device(d);
    if (st)
        vk_close(&d->base);
    else
        *out = &d->base;
    return st;
}

void vk_close(pv_backend *be)
{
    vk_device *d = (vk_device *)be;
    vk_settle(d);
    vk_pipelines_end(d);
    if (!d->hung) { /* else all of it goes with the process */
        if (d->handle) {
            vk_buffer_drop(d, &d->staging);
            d->fn.DestroyFence(d->handle, d->settled, NULL);
            d->fn.DestroyCommandPool(d->handle, d->pool, NULL);
            d->fn.DestroyDevice(d->handle, NULL);
        }
        vk_instance_close(&d->instance);
    }
    pthread_cond_destroy(&d->asked);
    pthread_cond_destroy(&d->made);
    pthread_mutex_destroy(&d->making);
    pthread_mutex_destroy(&d->lock);
    pv_free(d);
}

pv_status vk_describe(pv_backend *be, pv_device_info *out)
{
    *out = ((vk_device *)be)->info;
    return PV_OK;
}

pv_variant *vk_variants_of(pv_backend *be, int *n)
{
    vk_device *d = (vk_device *)be;
    *n = d->n_variants;
    return d->variants;
}

pv_status vk_wait_fence(vk_device *d, VkFence fence)
{
    return VK_CHECK(d, WaitForFences, d->handle, 1, &fence, VK_TRUE, TIME_OUT_NS);
}

pv_status vk_submit(vk_device *d, uint32_t n, const VkCommandBuffer *buffers, VkFence fence)
{
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = n, .pCommandBuffers = buffers};
    pthread_mutex_lock(&d->lock);
    pv_status st = VK_CHECK(d, ResetFences, d->handle, 1, &fence);
    if (!st)
        st = VK_CHECK(d, QueueSubmit, d->queue, 1, &info, fence);
    d->busy |= !st;
    pthread_mutex_unlock(&d->lock);
    return st;
}
