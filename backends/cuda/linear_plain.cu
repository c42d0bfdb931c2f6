/* linear_plain.cu - what linear.c needs beside cuBLASLt: weights or activations expanded to f32, bias, GELU and
 * rounding where the library has no epilogue for the dtypes, a product for shapes that it has no algorithm
 * for, and reading memory into the cache before a product is timed.
 *
 * widen, touch: a thread an element (16 bytes), grid-stride; finish: each.cuh; all bound by memory.
 * product: y[m, n], a block of 256 threads makes 16 x 16 of them, tiles of 16 features through shared memory,
 * sums in f32 in the order of k. Meant to be right, not fast: cuBLASLt has an algorithm for every shape of
 * the model. */
#include "each.cuh"
#include "small.h"

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
template <> __device__ __half narrow<__half>(float x)
{
    return __float2half_rn(x);
}
template <> __device__ __nv_bfloat16 narrow<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
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

/* Volatile for the assembler, which else drops a load that nobody needs. */
static __global__ void touch(const uint4 *data, size_t n)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (size_t)gridDim.x * THREADS)
        asm volatile("{ .reg .u32 a, b, c, d; ld.volatile.global.v4.u32 {a, b, c, d}, [%0]; }" ::"l"(data + i));
}

cudaError_t cuda_touch(const void *data, size_t bytes, cudaStream_t s)
{
    if (bytes >= sizeof(uint4))
        touch<<<blocks((int64_t)(bytes / sizeof(uint4))), THREADS, 0, s>>>((const uint4 *)data,
                                                                          bytes / sizeof(uint4));
    return cudaGetLastError();
}

struct plus_bias {
    __device__ float operator()(const float *a) const
    {
        return a[0] + a[1];
    }
};
struct gelu {
    __device__ float operator()(const float *a) const
    {
        return cuda_gelu_of(a[0]);
    }
};
struct gelu_with_bias {
    __device__ float operator()(const float *a) const
    {
        return cuda_gelu_of(__fadd_rn(a[0], a[1]));
    }
};

cudaError_t cuda_finish_product(const cuda_call *c, const void *product, int bias, bool through_gelu)
{
    const pv_tensor *y = c->node->out[0];
    cuda_operand sum = {(void *)product, PV_F32, (unsigned)cuda_all_rows(y), (unsigned)pv_width(y), 0, 0, NULL};
    if (!bias)
        return through_gelu ? cuda_each_of<1>(c, gelu(), {{sum}}) : cuda_each_of<1>(c, cuda_same(), {{sum}});
    cuda_operand b = cuda_of(c->node->in[bias], c->in[bias]);
    return through_gelu ? cuda_each_of<2>(c, gelu_with_bias(), {{sum, b}})
                        : cuda_each_of<2>(c, plus_bias(), {{sum, b}});
}

template <typename T, typename Y>
__global__ void product(cuda_plain p, int64_t row_tiles)
{
    const T *x = (const T *)p.x, *w = (const T *)p.w;
    const Y *bias = (const Y *)p.bias;
    const float *onto = (const float *)p.onto;
    const int64_t m = p.m, n = p.n, k = p.k;
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
    if (row < m && col < n) {
        sum += bias ? wide(bias[col]) : 0.0f;
        sum += onto ? onto[row * n + col] : 0.0f;
        ((Y *)p.y)[row * n + col] = narrow<Y>(p.gelu ? cuda_gelu_of(sum) : sum);
    }
}

cudaError_t cuda_plain_product(const cuda_plain *p, cudaStream_t s)
{
    int64_t row_tiles = (p->m + TILE - 1) / TILE, tiles = row_tiles * ((p->n + TILE - 1) / TILE);
    if (tiles > INT32_MAX)
        return cudaErrorInvalidValue;
    if (p->in == PV_F32)
        product<float, float><<<(unsigned)tiles, THREADS, 0, s>>>(*p, row_tiles);
    else if (p->in == PV_F16 && p->out == PV_F32)
        product<__half, float><<<(unsigned)tiles, THREADS, 0, s>>>(*p, row_tiles);
    else if (p->in == PV_F16)
        product<__half, __half><<<(unsigned)tiles, THREADS, 0, s>>>(*p, row_tiles);
    else if (p->out == PV_F32)
        product<__nv_bfloat16, float><<<(unsigned)tiles, THREADS, 0, s>>>(*p, row_tiles);
    else
        product<__nv_bfloat16, __nv_bfloat16><<<(unsigned)tiles, THREADS, 0, s>>>(*p, row_tiles);
    return cudaGetLastError();
}
