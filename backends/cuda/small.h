/* small.h - small kernels of the host side: the running step, and the parts of a product that cuBLASLt leaves
 * over. Like every kernel entry they enqueue and do nothing else. */
#ifndef PV_CUDA_SMALL_H
#define PV_CUDA_SMALL_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* step.cu: *at = step, for the kernels that follow. And whether this build has code for the thread's device.
 */
cudaError_t cuda_set_step(int32_t *at, int32_t step, cudaStream_t stream);
cudaError_t cuda_has_code(void);

/* linear_plain.cu. dst[i] = src[i] as f32; src bf16 or f16. Exact. */
cudaError_t cuda_widen(float *dst, const void *src, pv_dtype dtype, int64_t n, cudaStream_t stream);

/* y[m, n] = x[m, n] + bias[n] in f32, rounded once; bias NULL: none. y f32 (may be x), bf16 or f16. */
cudaError_t cuda_add_bias(void *y, pv_dtype y_dtype, const float *x, const void *bias, pv_dtype bias_dtype,
                          int64_t m, int64_t n, cudaStream_t stream);

/* y[m, n] = x[m, k] w[n, k]^T (+ bias[n] of y's dtype), sums in f32. x and w f32 or both bf16, y f32 or bf16.
 */
cudaError_t cuda_plain_product(void *y, pv_dtype y_dtype, const void *x, const void *w, pv_dtype dtype,
                               const void *bias, int64_t m, int64_t n, int64_t k, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
