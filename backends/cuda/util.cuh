/* util.cuh - what every kernel needs: elements of any dtype as f32, row counts, sums in a fixed order, exp, launches.
 *
 * Dtypes are read from the tensors when a kernel runs: the branch is the same for all threads, so it costs an
 * instruction, where a template for every mix of three operands would cost 27 kernels. A load is taken apart into `fetch`
 * (bits into registers) and `widen` (to f32), so that the loads of all operands are under way before the first is used. */
#ifndef PV_CUDA_UTIL_CUH
#define PV_CUDA_UTIL_CUH

#include "cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* ---- host ---- */

static inline bool cuda_is_float(const pv_tensor *t)
{
    return t->dtype == PV_F32 || t->dtype == PV_BF16 || t->dtype == PV_F16;
}

static inline int64_t cuda_elements(const pv_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->dim[i];
    return n;
}

/* Rows of all matrices together. */
static inline int64_t cuda_all_rows(const pv_tensor *t)
{
    return cuda_elements(t) / pv_width(t);
}

/* Rows and columns are counted in 32 bits inside kernels; rows and pieces of them make the grid. */
static inline bool cuda_fits(const pv_tensor *t)
{
    return pv_width(t) > 0 && pv_width(t) <= 1 << 23 && cuda_all_rows(t) <= 1 << 27;
}

/* Every input a float, but for those whose bit is set in `whole` (counts, positions: i32); every output a float. */
static inline bool cuda_floats(const pv_node *n, unsigned whole)
{
    bool ok = true;
    for (int k = 0; k < n->n_in; k++)
        ok = ok && cuda_fits(n->in[k]) && cuda_is_float(n->in[k]) == !(whole >> k & 1);
    for (int k = 0; k < n->n_out; k++)
        ok = ok && cuda_fits(n->out[k]) && cuda_is_float(n->out[k]);
    return ok;
}

static inline bool cuda_aligned(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

static inline unsigned cuda_ceil(int64_t n, int64_t by)
{
    return (unsigned)((n + by - 1) / by);
}

/* Threads for `n` things to do: whole warps, at most `most`. */
static inline unsigned cuda_threads(int64_t n, unsigned most)
{
    unsigned t = cuda_ceil(n < (int64_t)most ? n : (int64_t)most, 32) * 32;
    return t ? t : 32;
}

/* Programmatic dependent launch: a kernel may be brought onto the device while its predecessor still runs. So the first
 * thing that every block of every kernel does is to let its successor come, and to wait until its predecessor has
 * ended and what it wrote can be seen. Nothing is read or written before, so the order of effects is that of the stream.
 * (Some kernels set up barriers in their own shared memory first, which nobody else sees, or ask for weights, which no kernel
 * writes.) */
static __device__ inline void cuda_begin(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <class... P, class... A>
static cudaError_t cuda_launch(const cuda_call *c, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared,
                               A... args)
{
    if (!grid.x || !grid.y || !grid.z)
        return cudaSuccess;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = c->stream;
    cudaLaunchAttribute dependent = {};
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &dependent;
    config.numAttrs = c->dependent;
    return cudaLaunchKernelEx(&config, kernel, P(args)...);
}

/* ---- counts on the device ---- */

/* What `count` says, within 0 .. most; `most` where there is no count. */
static __device__ inline int cuda_count(const int32_t *count, int most)
{
    if (!count)
        return most;
    int n = *count;
    return n < 0 ? 0 : n < most ? n : most;
}

/* Is `row` of all matrices, one after the other, a valid one? */
static __device__ inline bool cuda_valid(unsigned row, const int32_t *count, int per_matrix)
{
    return !count || (int)(row % (unsigned)per_matrix) < cuda_count(count, per_matrix);
}

/* ---- elements ---- */

/* V elements as they stand in memory. V is 8 (16-byte vectors; `at` a multiple of 8) or 1. */
template <int V> struct cuda_bits;
template <> struct cuda_bits<8> {
    uint4 lo, hi; /* hi: elements 4 .. 7 of f32 */
};
template <> struct cuda_bits<1> {
    uint32_t lo;
};

template <int V> static __device__ inline cuda_bits<V> cuda_fetch(const void *data, pv_dtype dtype, int64_t at)
{
    cuda_bits<V> b = {};
    if constexpr (V == 8) {
        if (dtype == PV_F32) {
            b.lo = ((const uint4 *)data)[at / 4];
            b.hi = ((const uint4 *)data)[at / 4 + 1];
        } else {
            b.lo = ((const uint4 *)data)[at / 8];
        }
    } else {
        b.lo = dtype == PV_F32 ? ((const uint32_t *)data)[at] : ((const uint16_t *)data)[at];
    }
    return b;
}

static __device__ inline float cuda_half_word(uint32_t bits, pv_dtype dtype)
{
    if (dtype == PV_BF16)
        return __uint_as_float(bits << 16);
    return __half2float(__ushort_as_half((unsigned short)bits));
}

template <int V> static __device__ inline void cuda_widen(float (&v)[V], const cuda_bits<V> &b, pv_dtype dtype)
{
    if constexpr (V == 8) {
        const uint32_t w[8] = {b.lo.x, b.lo.y, b.lo.z, b.lo.w, b.hi.x, b.hi.y, b.hi.z, b.hi.w};
        if (dtype == PV_F32) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = __uint_as_float(w[i]);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = cuda_half_word(i & 1 ? w[i / 2] >> 16 : w[i / 2] & 0xffff, dtype);
        }
    } else {
        v[0] = dtype == PV_F32 ? __uint_as_float(b.lo) : cuda_half_word(b.lo, dtype);
    }
}

template <int V> static __device__ inline void cuda_get(float (&v)[V], const void *data, pv_dtype dtype, int64_t at)
{
    cuda_widen<V>(v, cuda_fetch<V>(data, dtype, at), dtype);
}

static __device__ inline uint32_t cuda_narrow(float v, pv_dtype dtype)
{
    return dtype == PV_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(v)) : __half_as_ushort(__float2half_rn(v));
}

template <int V> static __device__ inline void cuda_put(void *data, pv_dtype dtype, int64_t at, const float (&v)[V])
{
    if constexpr (V == 8) {
        if (dtype == PV_F32) {
            ((float4 *)data)[at / 4] = make_float4(v[0], v[1], v[2], v[3]);
            ((float4 *)data)[at / 4 + 1] = make_float4(v[4], v[5], v[6], v[7]);
        } else {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = cuda_narrow(v[2 * i], dtype) | cuda_narrow(v[2 * i + 1], dtype) << 16;
            ((uint4 *)data)[at / 8] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    } else {
        if (dtype == PV_F32)
            ((float *)data)[at] = v[0];
        else
            ((uint16_t *)data)[at] = (uint16_t)cuda_narrow(v[0], dtype);
    }
}

static __device__ inline float cuda_get1(const void *data, pv_dtype dtype, int64_t at)
{
    float v[1];
    cuda_get<1>(v, data, dtype, at);
    return v[0];
}

static __device__ inline void cuda_put1(void *data, pv_dtype dtype, int64_t at, float v)
{
    const float one[1] = {v};
    cuda_put<1>(data, dtype, at, one);
}

/* ---- formulas: expf is the accurate one (2 ulp), never __expf, whose argument is rounded once more ---- */

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), which does not cancel for negative x; u = sqrt(2 / pi) (x + 0.044715 x^3). e^(-2u)
 * is made as 2^t, whose t has no more roundings than u; 1 / (1 + e^(-2u)) is within 2 ulp, and 0 from 2^126 on. So it is few
 * instructions: where it is done tens of millions of times, more would take longer than the bytes. */
static __device__ inline float cuda_gelu_of(float x)
{
    float e, by;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * fmaf(x * x, -0.10294324f, -2.3022082f)));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(by) : "f"(1.0f + e));
    return x * by;
}

/* Of two at once, with one reciprocal: 1 / a = b / (a b). Special functions, 16 a clock, are what bounds the end of a product with
 * GELU. a b has to be finite: from 2^62 on the result is 0. */
static __device__ inline float2 cuda_gelu_of_two(float x, float y)
{
    const float most = 62.0f, s = x * fmaf(x * x, -0.10294324f, -2.3022082f),
                t = y * fmaf(y * y, -0.10294324f, -2.3022082f);
    float a, b, by;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(a) : "f"(fminf(s, most)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(b) : "f"(fminf(t, most)));
    a += 1.0f;
    b += 1.0f;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(by) : "f"(a * b));
    return make_float2(s > most ? 0.0f : x * (b * by), t > most ? 0.0f : y * (a * by));
}

static __device__ inline float cuda_silu_of(float x)
{
    return x / (1.0f + expf(-x));
}

/* ---- reductions: every thread of the block calls, every thread gets the result, always added in the same order ---- */

struct cuda_plus {
    static constexpr float none = 0.0f;
    static __device__ float of(float a, float b)
    {
        return a + b;
    }
};

struct cuda_larger {
    static constexpr float none = -INFINITY;
    static __device__ float of(float a, float b)
    {
        return fmaxf(a, b);
    }
};

template <class F> static __device__ inline float cuda_over_warp(float v)
{
#pragma unroll
    for (int step = 16; step; step >>= 1)
        v = F::of(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

template <class F> static __device__ inline float cuda_over_block(float v)
{
    __shared__ float warps[32];
    int n = (int)blockDim.x / 32;
    v = cuda_over_warp<F>(v);
    if (n == 1)
        return v;
    __syncthreads(); /* the last reduction's numbers have been read */
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    float all = F::none;
    for (int i = 0; i < n; i++)
        all = F::of(all, warps[i]);
    return all;
}

#endif
