/* features.c - what a device has beyond Vulkan 1.2's least, in words: all of it asked for, none taken from a
 * vendor's or a device's name. */
#include "features.h"
#include "base/memory.h"
#include "extensions.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *component(int type)
{
    static const char *const name[] = {"f16", "f32", "f64", "s8",  "s16", "s32",
                                       "s64", "u8",  "u16", "u32", "u64"};
    if (type == COMPONENT_BF16)
        return "bf16";
    return type >= 0 && type < (int)(sizeof name / sizeof *name) ? name[type] : "other";
}

/* A line of what the device supports; one that finds no room is left out whole. */
static void PV_PRINTF(3, 4) line(char *out, size_t size, const char *fmt, ...)
{
    size_t used = strlen(out);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + used, size - used, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size - used)
        out[used] = 0;
}

static bool has(const VkExtensionProperties *some, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(some[i].extensionName, name))
            return true;
    return false;
}

/* "16x16x16 f16*f16+f32=f32" for each; shapes of workgroups say so. */
static void tell_shapes(list_matrices ask, VkPhysicalDevice device, char *out, size_t size)
{
    matrix_properties shape[MOST_SHAPES];
    uint32_t n = MOST_SHAPES;
    for (uint32_t i = 0; i < MOST_SHAPES; i++)
        shape[i] = (matrix_properties){.type = TYPE_MATRIX_PROPERTIES};
    *out = 0;
    if (!ask || ask(device, &n, shape) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++) {
        const matrix_properties *p = &shape[i];
        line(out, size, "%s%ux%ux%u %s*%s+%s=%s%s%s", i ? ", " : "", p->m, p->n, p->k, component(p->a),
             component(p->b), component(p->c), component(p->result), p->saturating ? " saturating" : "",
             p->scope == SUBGROUP ? "" : " (not of a subgroup)");
    }
}

/* What runs groups, at most INT_MAX of them: no version of Vulkan tells, extensions of some vendors do. */
static int units(const vk_instance *inst, VkPhysicalDevice device, const VkExtensionProperties *some,
                 uint32_t n)
{
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nv = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceShaderCorePropertiesAMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD};
    VkPhysicalDeviceShaderCoreBuiltinsPropertiesARM arm = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_BUILTINS_PROPERTIES_ARM};
    void *next = NULL;
    if (has(some, n, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME))
        next = &nv;
    else if (has(some, n, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME))
        next = &amd;
    else if (has(some, n, VK_ARM_SHADER_CORE_BUILTINS_EXTENSION_NAME))
        next = &arm;
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = next};
    if (next)
        inst->fn.GetPhysicalDeviceProperties2(device, &p);
    uint64_t of_amd = (uint64_t)amd.shaderEngineCount * amd.shaderArraysPerEngineCount;
    of_amd = of_amd > INT_MAX ? INT_MAX : of_amd * amd.computeUnitsPerShaderArray;
    uint64_t all = of_amd + nv.shaderSMCount + arm.shaderCoreCount;
    return all > INT_MAX ? INT_MAX : (int)all;
}

void vk_features_tell(const vk_instance *inst, VkPhysicalDevice device, pv_device_info *info)
{
    char *out = info->supports;
    const size_t size = sizeof info->supports;
    PFN_vkEnumerateDeviceExtensionProperties list =
        (PFN_vkEnumerateDeviceExtensionProperties)vk_instance_function(
            inst, "vkEnumerateDeviceExtensionProperties");
    PFN_vkGetPhysicalDeviceFeatures2 ask =
        (PFN_vkGetPhysicalDeviceFeatures2)vk_instance_function(inst, "vkGetPhysicalDeviceFeatures2");
    *out = 0;
    VkExtensionProperties *some =
        pv_alloc(sizeof *some * MOST_EXTENSIONS); /* 130 KiB: too much for a small thread's stack */
    if (!some)
        return;
    uint32_t n = MOST_EXTENSIONS;
    if (!list || list(device, NULL, &n, some) < 0)
        n = 0;
    info->sms = units(inst, device, some, n);
    bool can_matrix = has(some, n, COOPERATIVE_MATRIX), can_bfloat16 = has(some, n, BFLOAT16);
    pv_free(some);

    VkPhysicalDeviceSubgroupProperties subgroup = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                     .pNext = &subgroup};
    inst->fn.GetPhysicalDeviceProperties2(device, &p);
    VkPhysicalDeviceVulkan11Features v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES};
    VkPhysicalDeviceVulkan12Features v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                            .pNext = &v11};
    matrix_features matrix = {.type = TYPE_MATRIX_FEATURES, .next = &v12};
    bfloat16_features bfloat16 = {.type = TYPE_BFLOAT16_FEATURES,
                                  .next = can_matrix ? (void *)&matrix : &v12};
    VkPhysicalDeviceFeatures2 f = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                   .pNext = bfloat16.next};
    if (can_bfloat16)
        f.pNext = &bfloat16;
    if (p.properties.apiVersion >= VK_API_VERSION_1_2 && ask)
        ask(device, &f);

    uint32_t version = p.properties.apiVersion;
    char shapes[768] = "";
    if (matrix.matrix)
        tell_shapes(
            (list_matrices)vk_instance_function(inst, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"),
            device, shapes, sizeof shapes);
    line(out, size, "Vulkan: %u.%u.%u\n", VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version),
         VK_API_VERSION_PATCH(version));
    line(out, size, "subgroup size: %u\n", subgroup.subgroupSize);
    if (info->sms)
        line(out, size, "multiprocessors: %d\n", info->sms);
    line(out, size, "largest storage range: %u\n", p.properties.limits.maxStorageBufferRange);
    line(out, size, "shared memory of a group: %u\n", p.properties.limits.maxComputeSharedMemorySize);
    line(out, size, "16-bit storage: %s\n", v11.storageBuffer16BitAccess ? "yes" : "no");
    line(out, size, "float16: %s\n", v12.shaderFloat16 ? "yes" : "no");
    line(out, size, "bfloat16: %s\n", bfloat16.type_16 ? "yes" : "no");
    line(out, size, "cooperative matrix: %s\n", !matrix.matrix ? "no" : *shapes ? shapes : "yes, no shapes");
}
