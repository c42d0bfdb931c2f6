/* linear_blocks.cu - y = (x (w b)^T) s with weights of 4 bits, which become bf16 in registers: weight-only quantisation (W4A16).
 *
 * Layout: x [M, K] bf16; w [N, K] e2m1, two to a byte, the even element low; b [N, K / 32] e4m3, a scale for 32 neighbours; s one
 *   f32; y [M, N] f32, bf16 or f16. K a multiple of 128, N of 8. Every row up to the capacity is computed.
 * Launch: a block makes BM x BN of y. x goes through shared memory, in stages of 128 features a warp along K; weights go from
 *   global memory to the registers of the warp that needs them, a stage ahead. Up to 64 rows: 2 warps for 32 columns, 4 such pairs
 *   along K (2 where shared memory is less), and several blocks where tiles are few: each puts its sums into the work memory, the
 *   last to come adds them all in order. More rows: 8 warps for 128 x 128.
 * Order of K: a lane of mma.m16n8k16 holds pairs of neighbours, and a sum does not mind which. So a lane takes 32 neighbours of a
 *   row of w, which are 16 bytes and one scale, and of x the same 32: four times 16 bytes, used as they come. That is why w is
 *   the side of 16 and y comes out by columns; as the side of 8 it took three moves a product.
 * Numerics: an e2m1 has 2 significant bits and an e4m3 has 4: w b is exact in bf16. It is made from the bits as a bf16 that is 2^126
 *   too small, times b 2^110: so sums are 2^16 too small, which the factor of the result mends. f32 sums, one rounding on store.
 * Bound: should be bytes of w for tens of rows, for hundreds the tensor cores and the instructions that make bf16. It is neither yet:
 *   docs/experiments.md. */
#include "mma.cuh"
#include "util.cuh"

#include <cuda_fp8.h>

#define FEATURES   128 /* of a slab, 32 a lane of four */
#define FEW_ROWS   64
#define MOST_PARTS 8 /* of K, in blocks */

typedef struct blocks_args {
    const __nv_bfloat16 *x;
    const uint8_t *w, *b;
    const float *s;
    void *y;
    float *sums;       /* [parts, M, N] */
    unsigned *arrived; /* ~0 between runs, one for each tile */
    pv_dtype y_dtype;
    int m, n, k, parts;
} blocks_args;

/* Two neighbours of each half of a register, at bits 0 .. 3 and 16 .. 19 (shift 0) or 8 .. 11 and 24 .. 27
 * (shift 8). */
template <int SHIFT> static __device__ uint32_t spread(uint32_t v, __nv_bfloat162 scale)
{
    uint32_t sign = (SHIFT ? v << 4 : v << 12) & 0x80008000u, rest = (SHIFT ? v >> 2 : v << 6) & 0x01c001c0u;
    uint32_t bits = sign | rest;
    __nv_bfloat162 y = __hmul2(*(__nv_bfloat162 *)&bits, scale);
    return *(uint32_t *)&y;
}

/* Eight of them as four pairs. */
static __device__ void expand(uint32_t (&pair)[4], uint32_t q, __nv_bfloat162 scale)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t half = h ? q >> 16 : q & 0xffff, v = half | (half << 12 & 0xffff0000u);
        pair[2 * h] = spread<0>(v, scale);
        pair[2 * h + 1] = spread<8>(v, scale);
    }
}

static __device__ __nv_bfloat162 scale_of(uint32_t e4m3)
{
    float v = __half2float(__half(__nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)e4m3, __NV_E4M3)));
    return __float2bfloat162_rn(v * 0x1p110f);
}

/* MT tiles of 8 rows and NT of 16 columns a warp; WM x WN x WK warps. */
template <int MT, int NT, int WM, int WN, int WK, int STAGES> struct shape {
    static constexpr int BM = 8 * MT * WM, BN = 16 * NT * WN, THREADS = 32 * WM * WN * WK;
    static constexpr int SLAB = BM * FEATURES * 2, STAGE = SLAB * WK; /* bytes */
    static constexpr int PITCH = BN + 4; /* of the sums: a warp's are in banks of their own */
    static constexpr size_t SHARED = (size_t)STAGE * STAGES;
    static_assert(SHARED >= (size_t)WK * BM * PITCH * sizeof(float), "the sums of all warps along K fit");
};

/* Where 16 bytes of x stand in a slab: four such pieces are one lane's, piece i of all lanes side by side. The turn by i keeps the
 * banks of both ways apart. */
template <int BM> static __device__ int place(int row, int lane, int i)
{
    return (i * BM * 4 + ((row * 4 + lane) ^ i << 1)) * 16;
}

template <class S> static __device__ void fetch_x(const blocks_args &a, char *stage, int row0, int k0)
{
    constexpr int CHUNKS = S::STAGE / 16;
#pragma unroll 4
    for (int c = (int)threadIdx.x; c < CHUNKS; c += S::THREADS) {
        int slab = c / (S::SLAB / 16), row = c % (S::SLAB / 16) / 16, piece = c % 16,
            k = k0 + slab * FEATURES;
        bool there = row0 + row < a.m && k < a.k;
        const __nv_bfloat16 *from = there ? a.x + (int64_t)(row0 + row) * a.k + k + piece * 8 : a.x;
        cuda_copy16(stage + slab * S::SLAB + place<S::BM>(row, piece / 4, piece % 4), from, there);
    }
}

/* A lane's: of rows g and g + 8 of each tile. */
template <int NT> struct weights {
    uint4 q[NT][2];
    uint32_t scale[NT][2];
};

template <int NT> static __device__ void fetch_w(const blocks_args &a, weights<NT> &w, int column0, int k)
{
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < 2 * NT; j++) {
        int n = column0 + 8 * j + g;
        bool there = n < a.n && k < a.k;
        int64_t block = there ? ((int64_t)n * a.k + k) / 32 + t : 0; /* 32 neighbours: 16 bytes and a scale */
        w.q[j / 2][j % 2] = there ? __ldg((const uint4 *)a.w + block) : make_uint4(0, 0, 0, 0);
        w.scale[j / 2][j % 2] = there ? __ldg(a.b + block) : 0;
    }
}

/* The weights are the side of 16, whose registers are made one by one anyway; of x two neighbours at a time are as they come. */
template <int MT, int NT, int BM>
static __device__ void multiply(float (&sum)[MT][NT][4], const char *slab, const weights<NT> &w, int row0)
{
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    __nv_bfloat162 scale[NT][2];
#pragma unroll
    for (int j = 0; j < 2 * NT; j++)
        scale[j / 2][j % 2] = scale_of(w.scale[j / 2][j % 2]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t first[NT][4], second[NT][4];
#pragma unroll
        for (int j = 0; j < 2 * NT; j++) {
            const uint4 &q = w.q[j / 2][j % 2];
            uint32_t pair[4];
            expand(pair, i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w, scale[j / 2][j % 2]);
            first[j / 2][j % 2] = pair[0];
            first[j / 2][j % 2 + 2] = pair[1];
            second[j / 2][j % 2] = pair[2];
            second[j / 2][j % 2 + 2] = pair[3];
        }
#pragma unroll
        for (int m = 0; m < MT; m++) {
            uint4 x = *(const uint4 *)(slab + place<BM>(row0 + 8 * m + g, t, i));
#pragma unroll
            for (int j = 0; j < NT; j++) {
                cuda_mma(sum[m][j], first[j], x.x, x.y);
                cuda_mma(sum[m][j], second[j], x.z, x.w);
            }
        }
    }
}

static __device__ void put_pair(const blocks_args &a, int row, int column, float2 v)
{
    int64_t at = (int64_t)row * a.n + column;
    if (a.y_dtype == PV_BF16) {
        *(uint32_t *)((__nv_bfloat16 *)a.y + at) = cuda_pack_bf16(v.x, v.y);
    } else {
        cuda_put1(a.y, a.y_dtype, at, v.x);
        cuda_put1(a.y, a.y_dtype, at + 1, v.y);
    }
}

/* Each warp's sums into shared memory, then rows of the tile, the warps along K added in order. */
template <class S, int MT, int NT, int WK>
static __device__ void hand_over(const blocks_args &a, float *all, const float (&sum)[MT][NT][4], int along_k,
                                 int wm, int wn, int row0, int column0, float factor)
{
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    float *mine = all + along_k * S::BM * S::PITCH + (wm * 8 * MT + 2 * t) * S::PITCH + wn * 16 * NT + g;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                mine[(8 * m + i % 2) * S::PITCH + 16 * j + i / 2 * 8] = sum[m][j][i];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < S::BM * S::BN / 2; i += S::THREADS) {
        int r = i / (S::BN / 2), c = i % (S::BN / 2) * 2;
        if (row0 + r >= a.m || column0 + c >= a.n)
            continue;
        float2 v = make_float2(0, 0);
#pragma unroll
        for (int k = 0; k < WK; k++) {
            float2 part = *(const float2 *)(all + (k * S::BM + r) * S::PITCH + c);
            v.x += part.x;
            v.y += part.y;
        }
        if (a.parts > 1)
            *(float2 *)(a.sums + ((int64_t)blockIdx.z * a.m + row0 + r) * a.n + column0 + c) = v;
        else
            put_pair(a, row0 + r, column0 + c, make_float2(__fmul_rn(v.x, factor), __fmul_rn(v.y, factor)));
    }
}

/* Sums of all parts of a tile, in order; of numbers that other blocks wrote. */
template <class S> static __device__ void add_parts(const blocks_args &a, int row0, int column0, float factor)
{
    for (int i = (int)threadIdx.x; i < S::BM * S::BN / 2; i += S::THREADS) {
        int row = row0 + i / (S::BN / 2), column = column0 + i % (S::BN / 2) * 2;
        if (row >= a.m || column >= a.n)
            continue;
        float2 sum = make_float2(0, 0);
        for (int p = 0; p < a.parts; p++) {
            float2 v = __ldcg((const float2 *)(a.sums + ((int64_t)p * a.m + row) * a.n + column));
            sum.x += v.x;
            sum.y += v.y;
        }
        put_pair(a, row, column, make_float2(__fmul_rn(sum.x, factor), __fmul_rn(sum.y, factor)));
    }
}

template <int MT, int NT, int WM, int WN, int WK, int STAGES>
static __global__ void __launch_bounds__(32 * WM * WN * WK) product(blocks_args a)
{
    typedef shape<MT, NT, WM, WN, WK, STAGES> S;
    extern __shared__ __align__(16) char shared[];
    __shared__ bool last;
    cuda_begin();
    int warp = (int)threadIdx.x / 32, along_k = warp / (WM * WN), wn = warp / WM % WN, wm = warp % WM;
    int row0 = (int)blockIdx.x * S::BM, column0 = (int)blockIdx.y * S::BN, my_column = column0 + wn * 16 * NT;
    int all = (a.k + FEATURES * WK - 1) / (FEATURES * WK), part = (int)blockIdx.z;
    int begin = all * part / a.parts, end = all * (part + 1) / a.parts;
    float sum[MT][NT][4] = {};
    weights<NT> now, next;

    fetch_w<NT>(a, next, my_column, (begin * WK + along_k) * FEATURES);
    for (int i = 0; i < STAGES - 1; i++) {
        if (begin + i < end)
            fetch_x<S>(a, shared + i * S::STAGE, row0, (begin + i) * WK * FEATURES);
        cuda_copy_commit();
    }
    for (int at = begin; at < end; at++) {
        cuda_copy_wait<STAGES - 2>();
        __syncthreads(); /* the stage is there for all, and the one before has been read by all */
        if (at + STAGES - 1 < end)
            fetch_x<S>(a, shared + (at - begin + STAGES - 1) % STAGES * S::STAGE, row0,
                       (at + STAGES - 1) * WK * FEATURES);
        cuda_copy_commit();
        now = next;
        if (at + 1 < end)
            fetch_w<NT>(a, next, my_column, ((at + 1) * WK + along_k) * FEATURES);
        multiply<MT, NT, S::BM>(sum, shared + (at - begin) % STAGES * S::STAGE + along_k * S::SLAB, now,
                                wm * MT * 8);
    }
    cuda_copy_wait<0>();
    __syncthreads();

    float factor = *a.s * 0x1p16f;
    hand_over<S, MT, NT, WK>(a, (float *)shared, sum, along_k, wm, wn, row0, column0, factor);
    if (a.parts == 1)
        return;
    __threadfence();
    __syncthreads();
    unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
    if (threadIdx.x == 0)
        last = atomicAdd(a.arrived + tile, 1) == (unsigned)a.parts - 2; /* from ~0 on */
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    add_parts<S>(a, row0, column0, factor);
    if (threadIdx.x == 0)
        a.arrived[tile] = ~0u;
}

/* ---- host ---- */

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    const pv_tensor *x = n->in[0], *w = n->in[1], *b = n->in[2], *s = n->in[3];
    return x->dtype == PV_BF16 && w->dtype == PV_E2M1 && b->dtype == PV_E4M3 && s->dtype == PV_F32 &&
           cuda_is_float(n->out[0]) && cuda_fits(x) && cuda_fits(w) && cuda_fits(n->out[0]) &&
           pv_row_count(x) <= 1 << 20 && w->dim[0] <= 1 << 20 && w->dim[1] % FEATURES == 0 &&
           w->dim[0] % 8 == 0 && b->dim[0] == w->dim[0] && b->dim[1] * 32 == w->dim[1];
}

static size_t need(const cuda_device *device, const pv_node *n)
{
    (void)device;
    const pv_tensor *y = n->out[0];
    return pv_row_count(y) > FEW_ROWS ? 0 : MOST_PARTS * sizeof(float) * (size_t)cuda_elements(y);
}

static size_t own(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return pv_row_count(n->out[0]) > FEW_ROWS ? 0 : sizeof(unsigned) * (size_t)(n->in[1]->dim[0] / 8);
}

template <int MT, int NT, int WM, int WN, int WK, int STAGES>
static cudaError_t launch(const cuda_call *c, blocks_args a, bool split)
{
    typedef shape<MT, NT, WM, WN, WK, STAGES> S;
    auto kernel = product<MT, NT, WM, WN, WK, STAGES>;
    unsigned down = cuda_ceil(a.m, S::BM), across = cuda_ceil(a.n, S::BN);
    int stages = (a.k + FEATURES * WK - 1) / (FEATURES * WK), room = c->sms / (int)(down * across);
    int most = stages < MOST_PARTS ? stages : MOST_PARTS;
    a.parts = !split || room < 1 ? 1 : room < most ? room : most;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)S::SHARED);
    return e ? e : cuda_launch(c, kernel, dim3(down, across, (unsigned)a.parts), S::THREADS, S::SHARED, a);
}

static cudaError_t run(const cuda_call *c)
{
    const pv_node *n = c->node;
    blocks_args a = {};
    a.x = (const __nv_bfloat16 *)c->in[0];
    a.w = (const uint8_t *)c->in[1];
    a.b = (const uint8_t *)c->in[2];
    a.s = (const float *)c->in[3];
    a.y = c->out[0];
    a.sums = (float *)c->work;
    a.arrived = (unsigned *)c->own;
    a.y_dtype = n->out[0]->dtype;
    a.m = (int)pv_row_count(n->in[0]);
    a.n = (int)n->in[1]->dim[0];
    a.k = (int)n->in[1]->dim[1];
    if (a.m > FEW_ROWS)
        return launch<8, 2, 2, 4, 1, 3>(c, a, false);
    const bool roomy = cuda_block_room(c->device) >= (int)shape<8, 1, 1, 2, 4, 2>::SHARED + 64;
    return roomy ? launch<8, 1, 1, 2, 4, 2>(c, a, true) : launch<8, 1, 1, 2, 2, 2>(c, a, true);
}

extern "C" {
const cuda_kernel cuda_linear_blocks = {accepts, run, need, own, NULL};
}
