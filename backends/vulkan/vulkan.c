/* vulkan.c - the Vulkan backend as the core sees it. */
#include "vk.h"

const pv_backend_vt pv_vulkan_backend = {
    .name = "vulkan",
    .devices = vk_devices,
    .open = vk_open,
    .close = vk_close,
    .describe = vk_describe,
    .alloc = vk_alloc,
    .release = vk_release,
    .write = vk_write,
    .read = vk_read,
    .map = vk_map,
    .claims = vk_claims,
    .variants = vk_variants_of,
    .foresee = vk_foresee,
    .record = vk_record,
    .submit = vk_run,
    .wait = vk_wait,
    .discard = vk_discard,
};
