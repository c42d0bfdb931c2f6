/* pipeline.c - shaders (in the library, made at build time) and the pipelines of them, one for each choice of constants.
 * All have the same bindings and push constants, so there is one layout. */
#include "base/memory.h"
#include "vk.h"

#include <string.h>

_Static_assert(sizeof(vk_push) <= 128, "more than every device has");

static bool of_bf16(int shader)
{
    return shader == VK_DENSE_BF16 || shader == VK_FLASH_BF16;
}

static bool of_f16(int shader)
{
    return shader == VK_DENSE_F16 || shader == VK_FLASH_F16;
}

pv_status vk_pipelines_begin(vk_device *d)
{
    VkDescriptorSetLayoutBinding binding[VK_BINDINGS];
    for (uint32_t i = 0; i < VK_BINDINGS; i++)
        binding[i] = (VkDescriptorSetLayoutBinding){i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, NULL};
    VkDescriptorSetLayoutCreateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                           .bindingCount = VK_BINDINGS,
                                           .pBindings = binding};
    pv_status st = VK_CHECK(d, CreateDescriptorSetLayout, d->handle, &set, NULL, &d->set_layout);
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(vk_push)};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .setLayoutCount = 1,
                                         .pSetLayouts = &d->set_layout,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &push};
    if (!st)
        st = VK_CHECK(d, CreatePipelineLayout, d->handle, &layout, NULL, &d->layout);
    if (!st)
        st = vk_cache_open(d);
    for (int i = 0; !st && i < VK_SHADERS; i++) {
        if ((of_bf16(i) && !d->bf16.m) || (of_f16(i) && !d->f16.m))
            continue; /* the device may not even be told of them */
        VkShaderModuleCreateInfo module = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                           .codeSize = vk_shaders[i].bytes,
                                           .pCode = vk_shaders[i].words};
        st = VK_CHECK(d, CreateShaderModule, d->handle, &module, NULL, &d->module[i]);
    }
    return st;
}

void vk_pipelines_end(vk_device *d)
{
    for (int i = 0; i < d->n_pipelines; i++)
        d->fn.DestroyPipeline(d->handle, d->pipelines[i].handle, NULL);
    for (int i = 0; i < VK_SHADERS; i++)
        d->fn.DestroyShaderModule(d->handle, d->module[i], NULL);
    d->fn.DestroyPipelineCache(d->handle, d->cache, NULL);
    d->fn.DestroyPipelineLayout(d->handle, d->layout, NULL);
    d->fn.DestroyDescriptorSetLayout(d->handle, d->set_layout, NULL);
}

static pv_status make_pipeline(vk_device *d, int shader, const uint32_t *constant, VkPipeline *out)
{
    VkSpecializationMapEntry entry[VK_CONSTANTS];
    for (uint32_t i = 0; i < VK_CONSTANTS; i++)
        entry[i] = (VkSpecializationMapEntry){i, i * (uint32_t)sizeof *constant, sizeof *constant};
    VkSpecializationInfo special = {VK_CONSTANTS, entry, VK_CONSTANTS * sizeof *constant, constant};
    bool matrices = of_bf16(shader) || of_f16(shader); /* which whole subgroups share */
    VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                  .flags = matrices ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT : 0,
                                                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                  .module = d->module[shader],
                                                  .pName = "main",
                                                  .pSpecializationInfo = &special},
                                        .layout = d->layout};
    pv_status st = VK_CHECK(d, CreateComputePipelines, d->handle, d->cache, 1, &info, NULL, out);
    return st ? pv_fail_in(st, "shader %s", vk_shaders[shader].name) : PV_OK;
}

pv_status vk_pipeline_get(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS], VkPipeline *out)
{
    size_t bytes = sizeof *constant * VK_CONSTANTS;
    for (int i = 0; i < d->n_pipelines; i++)
        if (d->pipelines[i].shader == shader && !memcmp(d->pipelines[i].constant, constant, bytes)) {
            *out = d->pipelines[i].handle;
            return PV_OK;
        }
    vk_pipeline *more = pv_alloc(sizeof *more * (size_t)(d->n_pipelines + 1));
    if (!more)
        return PV_E_MEMORY;
    vk_pipeline *made = &more[d->n_pipelines];
    *made = (vk_pipeline){.shader = shader};
    memcpy(made->constant, constant, bytes);
    pv_status st = make_pipeline(d, shader, constant, &made->handle);
    if (st) {
        pv_free(more);
        return st;
    }
    if (d->n_pipelines)
        memcpy(more, d->pipelines, sizeof *more * (size_t)d->n_pipelines);
    pv_free(d->pipelines);
    d->pipelines = more;
    d->n_pipelines++;
    *out = made->handle;
    return PV_OK;
}
