/* attention.cuh - what the kernels of the whole attention share: attention.cu, attention_wgmma.cu. */
#ifndef PV_CUDA_ATTENTION_CUH
#define PV_CUDA_ATTENTION_CUH

#include "mma.cuh"
#include "util.cuh"

typedef __nv_bfloat16 bf16;

typedef struct flash_args {
    const bf16 *q, *k, *v;
    void *out;
    float *part;       /* splits > 1: results not yet divided [splits][batch kv_heads][lines][head] */
    float2 *part_sums; /* and their maximum and sum [splits][batch kv_heads][lines] */
    const int32_t *rows, *len;
    int row_cap, key_cap, key_rows, first; /* key_rows: of one sequence; key_cap: from `first` on */
    int kv_heads, group, head, splits;
    float scale; /* times log2(e) */
    bool out_f32;
} flash_args;

/* Two neighbours of the result at line m: divided into `out`, or as they are into the part of this split. */
static __device__ inline void cuda_put_pair(const flash_args &a, int z, int m, int column, float x, float y,
                                            int64_t lines)
{
    if (a.splits > 1) {
        int64_t at = (((int64_t)blockIdx.y * gridDim.z + z) * lines + m) * a.head + column;
        *(float2 *)(a.part + at) = make_float2(x, y);
        return;
    }
    int row = z / a.kv_heads * a.row_cap + m / a.group, head = z % a.kv_heads * a.group + m % a.group;
    int64_t at = ((int64_t)row * a.kv_heads * a.group + head) * a.head + column;
    if (a.out_f32)
        *(float2 *)((float *)a.out + at) = make_float2(x, y);
    else
        *(uint32_t *)((bf16 *)a.out + at) = cuda_pack_bf16(x, y);
}

/* The share of a partial sum with maximum m in one whose maximum is `top`. No keys: m is -inf, and `top` may be. */
static __device__ inline float cuda_share(float m, float top)
{
    return m == top ? 1.0f : cuda_exp2(m - top);
}

/* attention_wgmma.cu: does the device do better with it (cudaSuccess and *done), or not (cudaSuccess alone)? */
cudaError_t cuda_attention_wgmma(const cuda_call *c, const flash_args &a, bool *done);

#endif
