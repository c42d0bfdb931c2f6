/* pipeline.c - shaders (in the library, made at build time) and the pipelines of them, one for each choice of constants.
 * All have the same bindings and push constants, so there is one layout.
 *
 * Drivers take a tenth of a second and more for one, and a plan wants dozens: so whoever knows what will be wanted asks for all of it
 * first, and threads of the device's own compile in that order while the first ones are waited for. */
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

static VkResult make_pipeline(vk_device *d, int shader, const uint32_t *constant, VkPipeline *out)
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
    return d->fn.CreateComputePipelines(d->handle, d->cache, 1, &info, NULL, out);
}

/* ---- by several threads: what follows holds d->making ---- */

static vk_pipeline *find(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS])
{
    vk_pipeline *p = d->pipelines;
    while (p && (p->shader != shader || memcmp(p->constant, constant, sizeof p->constant)))
        p = p->next;
    return p;
}

/* NULL: no memory. */
static vk_pipeline *find_or_add(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS])
{
    vk_pipeline *p = find(d, shader, constant), **last = &d->pipelines;
    if (p || !(p = pv_alloc_zero(sizeof *p)))
        return p;
    p->shader = shader;
    memcpy(p->constant, constant, sizeof p->constant);
    while (*last)
        last = &(*last)->next;
    *last = p;
    return p;
}

static void make(vk_device *d, vk_pipeline *p)
{
    p->state = VK_BEING_MADE;
    pthread_mutex_unlock(&d->making);
    VkResult result = make_pipeline(d, p->shader, p->constant, &p->handle);
    pthread_mutex_lock(&d->making);
    p->result = result;
    p->state = VK_MADE;
    d->n_pipelines += result == VK_SUCCESS;
    pthread_cond_broadcast(&d->made);
}

static void drop(vk_device *d, vk_pipeline *p)
{
    vk_pipeline **at = &d->pipelines;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    pv_free(p);
}

static void *makes(void *device)
{
    vk_device *d = device;
    pthread_mutex_lock(&d->making);
    while (!d->no_more) {
        vk_pipeline *p = d->pipelines;
        while (p && p->state != VK_ASKED_FOR)
            p = p->next;
        if (p)
            make(d, p);
        else
            pthread_cond_wait(&d->asked, &d->making);
    }
    pthread_mutex_unlock(&d->making);
    return NULL;
}

void vk_pipeline_ask(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS])
{
    pthread_mutex_lock(&d->making);
    bool known = find(d, shader, constant);
    if (!known && d->most_makers && find_or_add(d, shader, constant)) {
        if (d->n_makers < d->most_makers && !pthread_create(&d->maker[d->n_makers], NULL, makes, d))
            d->n_makers++;
        pthread_cond_signal(&d->asked);
    }
    pthread_mutex_unlock(&d->making);
}

pv_status vk_pipeline_get(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS], VkPipeline *out)
{
    VkResult result = VK_SUCCESS;
    pthread_mutex_lock(&d->making);
    vk_pipeline *p = find_or_add(d, shader, constant);
    const bool own = p && p->state == VK_ASKED_FOR;
    if (own)
        make(d, p);
    while (p && p->state != VK_MADE)
        pthread_cond_wait(&d->made, &d->making);
    if (p && p->result && !own) /* of many at once one may fail that alone is made */
        make(d, p);
    if (p) {
        *out = p->handle;
        result = p->result;
        if (result)
            drop(d, p); /* the next one who wants it tries again */
    }
    pthread_mutex_unlock(&d->making);
    pv_status st = p ? vk_check(d, result, "vkCreateComputePipelines") : PV_E_MEMORY;
    return st ? pv_fail_in(st, "shader %s", vk_shaders[shader].name) : PV_OK;
}

/* Nothing is compiled any more. */
static void stop(vk_device *d)
{
    pthread_mutex_lock(&d->making);
    d->no_more = true;
    pthread_cond_broadcast(&d->asked);
    pthread_mutex_unlock(&d->making);
    for (int i = 0; i < d->n_makers; i++)
        pthread_join(d->maker[i], NULL);
    d->n_makers = 0;
}

void vk_pipelines_end(vk_device *d)
{
    const bool there = d->handle && !d->hung;
    stop(d);
    while (d->pipelines) {
        if (there)
            d->fn.DestroyPipeline(d->handle, d->pipelines->handle, NULL);
        drop(d, d->pipelines);
    }
    if (!there)
        return;
    for (int i = 0; i < VK_SHADERS; i++)
        d->fn.DestroyShaderModule(d->handle, d->module[i], NULL);
    d->fn.DestroyPipelineCache(d->handle, d->cache, NULL);
    d->fn.DestroyPipelineLayout(d->handle, d->layout, NULL);
    d->fn.DestroyDescriptorSetLayout(d->handle, d->set_layout, NULL);
}
