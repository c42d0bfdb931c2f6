/* push.h - the numbers of a dispatch, once for C and for GLSL: 4-byte words, at most the 128 bytes that every device has.
 * What they mean is said by the shader of the family; elements count 4-byte or 2-byte numbers as the tensor's dtype says. */
#ifndef PV_SHADERS_PUSH_H
#define PV_SHADERS_PUSH_H

#ifdef VULKAN
#define VK_UINT uint
layout(push_constant) uniform push_block {
#else
#include <stdint.h>
#define VK_UINT uint32_t
typedef struct vk_push {
#endif
    /* rows: the first `row_cap` rows of each matrix are told apart by `width`; total: elements of the result */
    VK_UINT total, width, row_cap, rows_in_all;
    VK_UINT n1, n2;      /* elements of the second and third input, where they repeat */
    VK_UINT first, from; /* where a range begins; the width that is read */
    float number;        /* eps, factor, scale */
    /* products: c[m, n] = number sum over k of a[m, k] b(n, k), `heads` of them for each sequence */
    VK_UINT m, n, k, lda, ldb_n, ldb_k, ldc;
    VK_UINT heads, group;
    VK_UINT a_sequence, a_head, b_first, b_sequence, b_head, c_sequence, c_head;
#ifdef VULKAN
} push;
#else
} vk_push;
#endif

#undef VK_UINT
#endif
