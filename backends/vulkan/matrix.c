/* matrix.c - which cooperative matrices a device has: VK_KHR_cooperative_matrix, and of bf16
 * VK_KHR_shader_bfloat16 too. Asked for, never taken from a name; a shape is used only as the device lists
 * it, since some drivers do not survive another. They want
 * subgroups without gaps (VK_EXT_subgroup_size_control) and the memory model; a device without these is used
 * without matrices. */
#include "base/memory.h"
#include "extensions.h"
#include "vk.h"

#include <string.h>

static void look_for_extensions(vk_device *d, bool *matrix, bool *bfloat16, bool *full)
{
    PFN_vkEnumerateDeviceExtensionProperties list =
        (PFN_vkEnumerateDeviceExtensionProperties)vk_instance_function(
            &d->instance, "vkEnumerateDeviceExtensionProperties");
    VkExtensionProperties *some = pv_alloc(sizeof *some * MOST_EXTENSIONS);
    uint32_t n = MOST_EXTENSIONS;
    if (!list || !some || list(d->physical, NULL, &n, some) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++) {
        *matrix |= !strcmp(some[i].extensionName, COOPERATIVE_MATRIX);
        *bfloat16 |= !strcmp(some[i].extensionName, BFLOAT16);
        *full |= !strcmp(some[i].extensionName, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    }
    pv_free(some);
}

/* The largest one listed that shaders can take: whole 16 bytes along k, a power of two each way. */
static vk_matrix largest(const matrix_properties *p, uint32_t n, int component)
{
    vk_matrix best = {0};
    for (uint32_t i = 0; i < n; i++) {
        bool fits = p[i].scope == SUBGROUP && p[i].a == component && p[i].b == component &&
                    p[i].c == COMPONENT_F32 && p[i].result == COMPONENT_F32 && !p[i].saturating &&
                    p[i].m >= 8 && p[i].n >= 8 && p[i].k >= 8 && p[i].m <= 16 && p[i].n <= 16 && p[i].k <= 32;
        fits = fits && !(p[i].m & (p[i].m - 1)) && !(p[i].n & (p[i].n - 1)) && !(p[i].k & (p[i].k - 1));
        if (fits && p[i].m * p[i].n * p[i].k > best.m * best.n * best.k)
            best = (vk_matrix){p[i].m, p[i].n, p[i].k};
    }
    return best;
}

void vk_matrix_find(vk_device *d, vk_extras *out)
{
    bool matrix = false, bfloat16 = false, full = false;
    *out = (vk_extras){.n = 0};
    out->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    out->matrix.type = TYPE_MATRIX_FEATURES;
    out->bfloat16.type = TYPE_BFLOAT16_FEATURES;
    out->full.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT;
    out->full.pNext = &out->v12;
    out->matrix.next = &out->full;
    out->bfloat16.next = &out->matrix;
    look_for_extensions(d, &matrix, &bfloat16, &full);
    PFN_vkGetPhysicalDeviceFeatures2 features =
        (PFN_vkGetPhysicalDeviceFeatures2)vk_instance_function(&d->instance, "vkGetPhysicalDeviceFeatures2");
    list_matrices list = (list_matrices)vk_instance_function(
        &d->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    if (!matrix || !full || !features || !list)
        return;
    VkPhysicalDeviceFeatures2 asked = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = bfloat16 ? (void *)&out->bfloat16 : (void *)&out->matrix};
    features(d->physical, &asked);
    if (!out->matrix.on[0] || !out->full.computeFullSubgroups || !out->v12.vulkanMemoryModel ||
        !out->v12.vulkanMemoryModelDeviceScope)
        return;

    VkPhysicalDeviceSubgroupProperties subgroup = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &subgroup};
    d->fn.GetPhysicalDeviceProperties2(d->physical, &properties);
    d->subgroup = subgroup.subgroupSize;
    const VkSubgroupFeatureFlags wanted = VK_SUBGROUP_FEATURE_SHUFFLE_BIT | VK_SUBGROUP_FEATURE_VOTE_BIT;
    d->neighbours = (subgroup.supportedOperations & wanted) == wanted;
    matrix_properties shape[MOST_SHAPES];
    uint32_t n = MOST_SHAPES;
    for (uint32_t i = 0; i < MOST_SHAPES; i++)
        shape[i] = (matrix_properties){.type = TYPE_MATRIX_PROPERTIES};
    if (list(d->physical, &n, shape) < 0)
        n = 0;
    if (bfloat16 && out->bfloat16.on[0] && out->bfloat16.on[2])
        d->bf16 = largest(shape, n, COMPONENT_BF16);
    if (out->v12.shaderFloat16)
        d->f16 = largest(shape, n, COMPONENT_F16);

    bool f16 = d->f16.m != 0;
    out->v12 = (VkPhysicalDeviceVulkan12Features){.sType = out->v12.sType,
                                                  .shaderFloat16 = f16,
                                                  .vulkanMemoryModel = VK_TRUE,
                                                  .vulkanMemoryModelDeviceScope = VK_TRUE};
    out->full.subgroupSizeControl = VK_FALSE;
    out->matrix.on[1] = out->bfloat16.on[1] = VK_FALSE;
    out->extension[out->n++] = COOPERATIVE_MATRIX;
    out->extension[out->n++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    out->chain = &out->matrix;
    if (d->bf16.m) {
        out->extension[out->n++] = BFLOAT16;
        out->chain = &out->bfloat16;
    } else if (!f16) {
        *out = (vk_extras){.n = 0};
    }
}
