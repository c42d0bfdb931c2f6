/* features.h - what a device has beyond Vulkan 1.2's least, for people: pv_device_info.supports. What kernels
 * need they ask for themselves. */
#ifndef PV_VK_FEATURES_H
#define PV_VK_FEATURES_H

#include "vk.h"

/* Lines "name: value\n"; empty where there is no memory. */
void vk_features_tell(const vk_instance *inst, VkPhysicalDevice device, char *out, size_t size);

#endif
