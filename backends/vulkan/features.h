/* features.h - what a device has beyond Vulkan 1.2's least, for people, and how many multiprocessors it has. What
 * kernels need they ask for themselves. */
#ifndef PV_VK_FEATURES_H
#define PV_VK_FEATURES_H

#include "vk.h"

/* `supports`: lines "name: value\n", empty where there is no memory; `sms`: 0 where the driver does not tell. */
void vk_features_tell(const vk_instance *inst, VkPhysicalDevice device, pv_device_info *info);

#endif
