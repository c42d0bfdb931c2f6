/* linear_plain.cu - what linear.c needs beside cuBLASLt: weights or activations expanded to f32, bias and
 * rounding where the library has no epilogue for the dtypes, and a product for shapes that it has no
 * algorithm for.
 *
 * widen, add_bias: a thread an element, grid-stride; bound by memory.
 * product: y[m, n], a block of 256 threads makes 16 x 16 of them, tiles of 16 features through shared memory,
 * sums in f32 in the order of k. Meant to be right, not fast: cuBLASLt has an algorithm for every shape of
 * the model. */
#include "small.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define THREADS 256
#define TILE    16

static __device__ float wide(float x)
{
    return x;
}
static __device__ float wide(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
static __device__ float wide(__half x)
{
    return __half2float(x);
}

template <typename T> __device__ T narrow(float x);
template <> __device__ float narrow<float>(float x)
{
    return x;
}
template <> __device__ __nv_bfloat16 narrow<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ __half narrow<__half>(float x)
{
    return __float2half_rn(x);
}

static unsigned blocks(int64_t n)
{
    int64_t b = (n + THREADS - 1) / THREADS;
    return (unsigned)(b < 65536 ? b : 65536);
}

template <typename T> __global__ void widen(float *dst, const T *src, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        dst[i] = wide(src[i]);
}

cudaError_t cuda_widen(float *dst, const void *src, pv_dtype dtype, int64_t n, cudaStream_t s)
{
    if (dtype == PV_BF16)
        widen<<<blocks(n), THREADS, 0, s>>>(dst, (const __nv_bfloat16 *)src, n);
    else
        widen<<<blocks(n), THREADS, 0, s>>>(dst, (const __half *)src, n);
    return cudaGetLastError();
}

template <typename T, typename B>
__global__ void add_bias(T *y, const float *x, const B *bias, int64_t total, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS)
        y[i] = narrow<T>(bias ? x[i] + wide(bias[i % n]) : x[i]);
}

template <typename T>
static void add_bias_of(T *y, const float *x, const void *bias, pv_dtype dtype, int64_t m, int64_t n,
                        cudaStream_t s)
{
    if (dtype == PV_F32)
        add_bias<<<blocks(m * n), THREADS, 0, s>>>(y, x, (const float *)bias, m * n, n);
    else if (dtype == PV_BF16)
        add_bias<<<blocks(m * n), THREADS, 0, s>>>(y, x, (const __nv_bfloat16 *)bias, m * n, n);
    else
        add_bias<<<blocks(m * n), THREADS, 0, s>>>(y, x, (const __half *)bias, m * n, n);
}

cudaError_t cuda_add_bias(void *y, pv_dtype y_dtype, const float *x, const void *bias, pv_dtype bias_dtype,
                          int64_t m, int64_t n, cudaStream_t s)
{
    if (y_dtype == PV_F32)
        add_bias_of((float *)y, x, bias, bias_dtype, m, n, s);
    else if (y_dtype == PV_BF16)
        add_bias_of((__nv_bfloat16 *)y, x, bias, bias_dtype, m, n, s);
    else
        add_bias_of((__half *)y, x, bias, bias_dtype, m, n, s);
    return cudaGetLastError();
}

template <typename T, typename Y>
__global__ void product(Y *y, const T *x, const T *w, const Y *bias, int64_t m, int64_t n, int64_t k,
                        int64_t row_tiles)
{
    __shared__ float xs[TILE][TILE + 1], ws[TILE][TILE + 1];
    int tx = threadIdx.x % TILE, ty = threadIdx.x / TILE;
    int64_t row0 = (int64_t)blockIdx.x % row_tiles * TILE, col0 = (int64_t)blockIdx.x / row_tiles * TILE;
    int64_t row = row0 + ty, col = col0 + tx;
    float sum = 0;
    for (int64_t k0 = 0; k0 < k; k0 += TILE) {
        int64_t at = k0 + tx;
        xs[ty][tx] = row < m && at < k ? wide(x[row * k + at]) : 0.0f;
        ws[ty][tx] = col0 + ty < n && at < k ? wide(w[(col0 + ty) * k + at]) : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++)
            sum += xs[ty][i] * ws[tx][i];
        __syncthreads();
    }
    if (row < m && col < n)
        y[row * n + col] = narrow<Y>(bias ? sum + wide(bias[col]) : sum);
}

cudaError_t cuda_plain_product(void *y, pv_dtype y_dtype, const void *x, const void *w, pv_dtype dtype,
                               const void *bias, int64_t m, int64_t n, int64_t k, cudaStream_t s)
{
    int64_t row_tiles = (m + TILE - 1) / TILE, tiles = row_tiles * ((n + TILE - 1) / TILE);
    if (tiles > INT32_MAX)
        return cudaErrorInvalidValue;
    if (dtype == PV_F32)
        product<<<(unsigned)tiles, THREADS, 0, s>>>((float *)y, (const float *)x, (const float *)w,
                                                    (const float *)bias, m, n, k, row_tiles);
    else if (y_dtype == PV_F32)
        product<<<(unsigned)tiles, THREADS, 0, s>>>((float *)y, (const __nv_bfloat16 *)x,
                                                    (const __nv_bfloat16 *)w, (const float *)bias, m, n, k,
                                                    row_tiles);
    else
        product<<<(unsigned)tiles, THREADS, 0, s>>>((__nv_bfloat16 *)y, (const __nv_bfloat16 *)x,
                                                    (const __nv_bfloat16 *)w, (const __nv_bfloat16 *)bias, m,
                                                    n, k, row_tiles);
    return cudaGetLastError();
}
