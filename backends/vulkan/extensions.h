/* extensions.h - extensions that are newer than Debian 12's headers (1.3.239), as the registry has them,
 * under names of our own, so that they stand beside the headers' where those have them too:
 * VK_KHR_cooperative_matrix and VK_KHR_shader_bfloat16. */
#ifndef PV_VK_EXTENSIONS_H
#define PV_VK_EXTENSIONS_H

#include <vulkan/vulkan.h>

#define COOPERATIVE_MATRIX "VK_KHR_cooperative_matrix"
#define BFLOAT16           "VK_KHR_shader_bfloat16"

#define TYPE_MATRIX_FEATURES   ((VkStructureType)1000506000)
#define TYPE_MATRIX_PROPERTIES ((VkStructureType)1000506001)
#define TYPE_BFLOAT16_FEATURES ((VkStructureType)1000141000)

typedef struct matrix_features { /* VkPhysicalDeviceCooperativeMatrixFeaturesKHR */
    VkStructureType type;
    void *next;
    VkBool32 matrix, robust_access;
} matrix_features;

typedef struct bfloat16_features { /* VkPhysicalDeviceShaderBfloat16FeaturesKHR */
    VkStructureType type;
    void *next;
    VkBool32 type_16, dot_product, matrix;
} bfloat16_features;

enum { COMPONENT_F16 = 0, COMPONENT_F32 = 1, COMPONENT_BF16 = 1000141000 }; /* of VkComponentTypeKHR */
#define SUBGROUP 3                                                          /* of VkScopeKHR */

typedef struct matrix_properties { /* VkCooperativeMatrixPropertiesKHR */
    VkStructureType type;
    void *next;
    uint32_t m, n, k;
    int a, b, c, result; /* VkComponentTypeKHR */
    VkBool32 saturating;
    int scope; /* VkScopeKHR */
} matrix_properties;

typedef VkResult(VKAPI_PTR *list_matrices)(VkPhysicalDevice, uint32_t *, matrix_properties *);

/* Of lists longer than this the rest is not looked at. */
#define MOST_EXTENSIONS 512
#define MOST_SHAPES     64

#endif
