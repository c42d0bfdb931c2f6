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

/* Where line m of the result begins: divided in `out`, or as it is in the part of this split. Made once a line, and without
 * branches where it is used: what is written out for each number makes a kernel so long that it waits for its own code. */
typedef struct flash_line {
    char *at;
    bool bf16, f32; /* neither: the line is not there */
} flash_line;

static __device__ inline flash_line cuda_line(const flash_args &a, int z, int m, int64_t lines, bool there)
{
    if (a.splits > 1) {
        int64_t at = (((int64_t)blockIdx.y * gridDim.z + z) * lines + m) * a.head;
        return {(char *)(a.part + at), false, there};
    }
    int row = z / a.kv_heads * a.row_cap + m / a.group, head = z % a.kv_heads * a.group + m % a.group;
    int64_t at = ((int64_t)row * a.kv_heads * a.group + head) * a.head;
    return {(char *)a.out + at * (a.out_f32 ? 4 : 2), there && !a.out_f32, there && a.out_f32};
}

/* Two neighbours, the first at `column`. */
static __device__ inline void cuda_put_pair(const flash_line &to, int column, int head, float x, float y)
{
    if (to.bf16 && column < head)
        asm volatile("st.global.b32 [%0], %1;" ::"l"(to.at + column * 2), "r"(cuda_pack_bf16(x, y)) : "memory");
    if (to.f32 && column < head)
        asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to.at + column * 4), "f"(x), "f"(y) : "memory");
}

/* The share of a partial sum with maximum m in one whose maximum is `top`. No keys: m is -inf, and `top` may be. */
static __device__ inline float cuda_share(float m, float top)
{
    return m == top ? 1.0f : cuda_exp2(m - top);
}

/* attention_wgmma.cu: does the device do better with it (cudaSuccess and *done), or not (cudaSuccess alone)? */
cudaError_t cuda_attention_wgmma(const cuda_call *c, const flash_args &a, bool *done);

#endif
