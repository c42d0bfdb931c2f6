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

/* The call's result of its product as it stands in f32 (maybe where the result goes): plus input `bias` (0:
 * none), through GELU, rounded once. Valid rows alone. */
cudaError_t cuda_finish_product(const cuda_call *c, const void *product, int bias, bool gelu);

/* y[m, n] = x[m, k] w[n, k]^T (+ bias[n] of y's dtype) (+ onto[m, n], f32), through GELU if asked for; sums
 * in f32. x and w both f32, bf16 or f16, y f32 or that. */
typedef struct cuda_plain {
    const void *x, *w, *bias, *onto;
    void *y;
    pv_dtype in, out;
    bool gelu;
    int64_t m, n, k;
} cuda_plain;
cudaError_t cuda_plain_product(const cuda_plain *p, cudaStream_t stream);

/* linear_thin.cu. y[m, n] = x[m, k] w[n, k]^T (+ bias[n]), all f32; k a multiple of 4, up to 64. */
typedef struct cuda_thin {
    const float *x, *w, *bias;
    float *y;
    int64_t m;
    int n, k;
    bool ahead; /* no kernel writes w */
} cuda_thin;
cudaError_t cuda_thin_product(const cuda_call *c, const cuda_thin *p);

/* Reads it all, so that it is in the cache as far as there is room, and nothing else. */
cudaError_t cuda_touch(const void *data, size_t bytes, cudaStream_t stream);

/* For devices with cuda_call.wgmma; all bf16, k multiples of 8. linear_group.cu: y[i] = x w[i]^T (+ bias[i]), n multiples of 64;
 * it leaves some to linear_wide.cu.
 * linear_geglu.cu: y[0] = gelu(x w[0]^T) (x w[1]^T) of two weights alike, whose products are rounded to bf16 before; n of 16. */
#define CUDA_WIDE_MOST 3
typedef struct cuda_wide {
    const void *x, *w[CUDA_WIDE_MOST], *bias[CUDA_WIDE_MOST];
    void *y[CUDA_WIDE_MOST];
    int64_t m, k, n[CUDA_WIDE_MOST];
    int count;
    bool ahead; /* no kernel writes the weights, so they may be read before the kernel in front has ended */
} cuda_wide;
cudaError_t cuda_wide_products(const cuda_call *c, const cuda_wide *p);
cudaError_t cuda_pair_products(const cuda_call *c, const cuda_wide *p);
int64_t cuda_pair_cost(const cuda_call *c, int64_t m, int64_t columns); /* of the latter for so many columns in all */
/* linear_wide.cu: y[0] = gelu(x w[0]^T (+ bias[0])), n a multiple of 8; whether m and n are such that it gains. */
bool cuda_gelu_fits(int sms, int64_t m, int64_t n);
cudaError_t cuda_gelu_product(const cuda_call *c, const cuda_wide *p);
cudaError_t cuda_geglu_product(const cuda_call *c, const cuda_wide *p);

/* linear_parts.cu: y = h + x w^T, x and w bf16, h and y f32 (and maybe the same), k a multiple of 8; with cuda_call.wgmma. */
#define CUDA_PARTS_MOST    4                 /* parts of k */
#define CUDA_PARTS_TICKETS ((size_t)16 << 10) /* bytes of cuda_call.own */
typedef struct cuda_parts {
    const void *x, *w;
    const float *h;
    float *y;
    int64_t m, n, k;
} cuda_parts;
size_t cuda_parts_bytes(int sms, int64_t m, int64_t n, int64_t k); /* of cuda_call.work; 0: not where it gains */
cudaError_t cuda_parts_product(const cuda_call *c, const cuda_parts *p);

#ifdef __cplusplus
}
#endif

#endif
