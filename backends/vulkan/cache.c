/* cache.c - what is kept on disk about a device: pipelines that its driver has made. The key tells device,
 * driver and shaders, so another one of any of them begins anew. The bytes are the driver's own; before it
 * gets them back they must have been kept whole (base/kept.h) and begin with the header that Vulkan gives
 * them, with this device's numbers in it. */
#include "base/kept.h"
#include "base/log.h"
#include "base/memory.h"
#include "vk.h"

#include <stdio.h>
#include <string.h>

#define KIND "vulkan-pipelines"
#define MOST ((size_t)64 << 20)

/* Of the shaders and of the names of variants; PV_VULKAN_SOURCES (CMakeLists.txt) is the sum of what feeds them. */
static uint64_t kernels_sum(void)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a, a sum at a time */
    for (int i = 0; i < VK_SHADERS; i++)
        h = (h ^ pv_kept_sum(vk_shaders[i].words, vk_shaders[i].bytes)) * 1099511628211u;
    for (int i = 0; i < vk_n_variants; i++)
        h = (h ^ pv_kept_sum(vk_variants[i].name, strlen(vk_variants[i].name))) * 1099511628211u;
    return h;
}

static void hex(char *out, const uint8_t *uuid)
{
    for (int i = 0; i < (int)VK_UUID_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", uuid[i]);
}

void vk_key(const VkPhysicalDeviceProperties *p, const VkPhysicalDeviceIDProperties *ids, char out[256])
{
    char device[33], driver[33], cache[33];
    hex(device, ids->deviceUUID);
    hex(driver, ids->driverUUID);
    hex(cache, p->pipelineCacheUUID);
    snprintf(out, 256, "device %s (%04x:%04x, Vulkan %x), driver %s %x, its pipelines %s, kernels %016llx " PV_VULKAN_SOURCES,
             device, p->vendorID, p->deviceID, p->apiVersion, driver, p->driverVersion, cache,
             (unsigned long long)kernels_sum());
}

static bool has_our_header(const vk_device *d, const void *bytes, size_t n)
{
    VkPipelineCacheHeaderVersionOne h;
    if (n < sizeof h)
        return false;
    memcpy(&h, bytes, sizeof h);
    return h.headerSize >= sizeof h && h.headerSize <= n &&
           h.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           h.vendorID == d->properties.vendorID && h.deviceID == d->properties.deviceID &&
           !memcmp(h.pipelineCacheUUID, d->properties.pipelineCacheUUID, VK_UUID_SIZE);
}

pv_status vk_cache_open(vk_device *d)
{
    size_t n = 0;
    void *bytes = pv_kept_load(d->folder, KIND, d->info.identity, MOST, &n);
    if (bytes && !has_our_header(d, bytes, n)) {
        pv_log(PV_LOG_WARN, "%s: pipelines were kept that are not of this driver; they are made anew",
               d->info.name);
        n = 0;
    }
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, .initialDataSize = n, .pInitialData = bytes};
    VkResult r = n ? d->fn.CreatePipelineCache(d->handle, &info, NULL, &d->cache) : VK_INCOMPLETE;
    d->cache_bytes = r == VK_SUCCESS ? n : 0;
    info.initialDataSize = 0;
    pv_status st =
        r == VK_SUCCESS ? PV_OK : VK_CHECK(d, CreatePipelineCache, d->handle, &info, NULL, &d->cache);
    pv_free(bytes);
    return st;
}

void vk_cache_save(vk_device *d)
{
    const int made = d->n_pipelines;
    VkResult r = made == d->n_kept || !*d->folder ? VK_SUCCESS : VK_INCOMPLETE;
    for (int i = 0; r == VK_INCOMPLETE && i < 4; i++) { /* more may be made meanwhile */
        size_t n = 0;
        r = d->fn.GetPipelineCacheData(d->handle, d->cache, &n, NULL);
        void *bytes = !r && n && n <= MOST ? pv_alloc(n) : NULL;
        if (!bytes)
            return;
        r = d->fn.GetPipelineCacheData(d->handle, d->cache, &n, bytes);
        if (!r && has_our_header(d, bytes, n)) {
            pv_kept_save(d->folder, KIND, d->info.identity, bytes, n);
            d->n_kept = made;
        }
        pv_free(bytes);
    }
}
