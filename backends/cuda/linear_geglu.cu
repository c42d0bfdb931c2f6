/* linear_geglu.cu - gate and up with GeGLU behind them on Hopper's tensor instructions, for hundreds of rows: neither is
 * ever in memory.
 *
 * Computes: y = gelu(x w_0^T) (x w_1^T) with both factors rounded to bf16 first, as they would be apart. x [M, K],
 *   w_0 = gate, w_1 = up [N, K], y [M, N], all bf16. Every row up to the capacity.
 * Launch: the weights are wgmma's side of 64 and the rows of x its side that may be any multiple of 8, so that 532 rows are
 *   four times 136 and not five times 128. A tile is 128 rows of gate and of up by R rows of x; R is the one of three that
 *   takes the least time. In a block two warpgroups multiply, 64 rows of gate and the same of up each, so that GeGLU meets
 *   both in one thread; one warp keeps the copy engine busy, four steps of 64 features ahead, across tiles. Clusters of two
 *   blocks have the same weights, and each reads half of them for both; where row tiles do not go in pairs, the same rows, and
 *   half of x. As many blocks as the device holds go through all tiles, rows first, so that a weight is read from memory once.
 * Numerics: f32 sums in the order of k, rounded as said. Fixed order.
 * Bound: the tensor cores. */
#include "small.h"
#include "tma.cuh"
#include "util.cuh"

#define GROUP  128 /* threads of a warpgroup */
#define BLOCK  (3 * GROUP)
#define TILE   128 /* columns of y */
#define BOX    64  /* rows of a weight in one copy: those of one wgmma */
#define STEP   64  /* features: a box is as wide */
#define STAGES 4
#define PAIR   2 /* blocks of a cluster */

typedef struct geglu_args {
    CUtensorMap x, gate, up;
    __nv_bfloat16 *y;
    int m, n, steps, groups,
        tiles; /* groups: pairs of row tiles, or row tiles where x is shared; tiles: pairs */
} geglu_args;

template <int R> struct geglu_memory {
    unsigned char w[STAGES][2 * TILE * STEP * 2],
        x[STAGES][R * STEP * 2]; /* w: gate and up in turn, a box each */
    uint64_t full[STAGES], empty[STAGES];
};

/* Of x in one copy. Halves are of whole atoms of 8 rows; where that makes them overlap, both bring the same. */
template <int R, bool SHARE_X> constexpr int x_rows = SHARE_X ? (R / PAIR + 7) / 8 * 8 : R;

#if CUDA_WGMMA

static __device__ inline float rounded(float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}
#endif

template <int R, bool SHARE_X>
static __global__ void __launch_bounds__(BLOCK, 1) geglu(const __grid_constant__ geglu_args a)
{
#if CUDA_WGMMA
    constexpr int x_bytes = R * STEP * 2, box_bytes = BOX * STEP * 2, w_bytes = 4 * box_bytes;
    extern __shared__ __align__(16) unsigned char memory[];
    geglu_memory<R> *mem = (geglu_memory<R> *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const uint32_t full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    const uint32_t x_at = cuda_shared(mem->x), w_at = cuda_shared(mem->w);
    const int role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP,
              rank = (int)blockIdx.x % PAIR;
    const int first = (int)blockIdx.x / PAIR, stride = (int)gridDim.x / PAIR;
    auto row_of = [&](int tile) { return (SHARE_X ? tile % a.groups : tile % a.groups * PAIR + rank) * R; };
    auto column_of = [&](int tile) {
        return (SHARE_X ? tile / a.groups * PAIR + rank : tile / a.groups) * TILE;
    };

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cuda_mbarrier_init(full + 8 * i, 1);
            cuda_mbarrier_init(empty + 8 * i, PAIR * 2 * GROUP / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        cuda_map_ahead(&a.x);
        cuda_map_ahead(&a.gate);
        cuda_map_ahead(&a.up);
    }
    cuda_cluster_barrier();
    cuda_begin(); /* so far: its own shared memory, and its arguments */

    cuda_slot<STAGES> at_slot = {};
    if (role == 2) {
        cuda_registers_fewer<40>();
        if (thread < 32) {
            /* A lane a box: x, all of this block's or half of both blocks'; weights, all four or this block's two for both. */
            constexpr int of_w = SHARE_X ? 4 : 4 / PAIR, of_x = x_rows<R, SHARE_X>,
                          bytes = (SHARE_X ? PAIR * of_x : R) * STEP * 2 + w_bytes;
            const int box = (SHARE_X ? 0 : rank * of_w) + thread - 1, half = rank * (R - of_x);
            const bool is_x = thread == 0, mine = thread <= of_w, for_both = is_x == SHARE_X;
            const CUtensorMap *map = is_x ? &a.x : box % 2 ? &a.up : &a.gate;
            const uint32_t to = is_x ? x_at + half * STEP * 2 : w_at + box * box_bytes;
            for (int tile = first; tile < a.tiles; tile += stride) {
                const int row = is_x ? row_of(tile) + half : column_of(tile) + box / 2 * BOX;
                for (int k = 0; k < a.steps; k++) {
                    const uint32_t barrier = full + 8 * at_slot.index,
                                   there = to + at_slot.index * (is_x ? x_bytes : w_bytes);
                    cuda_mbarrier_wait(empty + 8 * at_slot.index, at_slot.parity ^ 1);
                    if (thread == 0)
                        cuda_expect_bytes(barrier, bytes);
                    __syncwarp();
                    if (mine && for_both)
                        cuda_box_to_all(there, map, k * STEP, row, barrier, (1 << PAIR) - 1);
                    else if (mine)
                        cuda_box(there, map, k * STEP, row, barrier);
                    at_slot.next();
                }
            }
        }
        __syncwarp();
        cuda_cluster_arrive();
    } else {
        cuda_registers_more<232>();
        const int lane = thread % 32, warp = thread / 32, t = lane % 4;
        const uint64_t x_operand = cuda_operand_at(x_at, 16, 1024, WGMMA_128);
        const uint64_t w_operand = cuda_operand_at(w_at + role * 2 * box_bytes, 16, 1024, WGMMA_128);
        auto used = [&](int which) {
            if (lane < PAIR)
                cuda_arrive_at(empty + 8 * which, lane);
        };
        for (int tile = first; tile < a.tiles; tile += stride) {
            const int row = row_of(tile) + lane / 4, column = column_of(tile) + role * BOX + warp * 16;
            int before = 0;
            float gate[R / 2], up[R / 2];
            for (int k = 0; k < a.steps; k++) {
                cuda_mbarrier_wait(full + 8 * at_slot.index, at_slot.parity);
                cuda_wgmma_begin();
                const uint64_t x = x_operand + (uint64_t)(at_slot.index * (x_bytes >> 4));
                const uint64_t w = w_operand + (uint64_t)(at_slot.index * (w_bytes >> 4));
#pragma unroll
                for (int i = 0; i < STEP / 16; i++) {
                    cuda_wgmma<R>(gate, w + (uint64_t)(2 * i), x + (uint64_t)(2 * i), k || i);
                    cuda_wgmma<R>(up, w + (uint64_t)((box_bytes >> 4) + 2 * i), x + (uint64_t)(2 * i),
                                  k || i);
                }
                cuda_wgmma_commit();
                cuda_wgmma_wait<1>();
                if (k)
                    used(before);
                before = at_slot.index;
                at_slot.next();
            }
            cuda_wgmma_wait<0>();
            cuda_settle(gate);
            cuda_settle(up);
            used(before);
            if (tile + stride >= a.tiles) {
                __syncwarp();
                cuda_cluster_arrive();
            }
            if (column >= a.n)
                continue;
#pragma unroll
            for (int i = 0; i < R / 2; i += 4) {
                float v[4];
                int at;
#pragma unroll
                for (int e = 0; e < 4; e += 2) {
                    const float2 g = cuda_gelu_of_two(rounded(gate[i + e]), rounded(gate[i + e + 1]));
                    v[e] = __fmul_rn(g.x, rounded(up[i + e]));
                    v[e + 1] = __fmul_rn(g.y, rounded(up[i + e + 1]));
                }
                uint2 four = cuda_turn(cuda_pack_bf16(v[0], v[1]), cuda_pack_bf16(v[2], v[3]), t, &at);
                if (row + 2 * i < a.m)
                    *(uint2 *)(a.y + (int64_t)(row + 2 * i) * a.n + column + at) = four;
            }
        }
    }
    cuda_cluster_wait(); /* nobody writes to this block any more, or counts here */
#endif
}

/* Pairs of tiles. */
static int64_t pairs(int64_t m, int64_t n, int r)
{
    const int64_t rows = (m + r - 1) / r, columns = (n + TILE - 1) / TILE;
    return rows % PAIR ? rows * ((columns + PAIR - 1) / PAIR) : rows / PAIR * columns;
}

static int64_t room(const cuda_call *c)
{
    return c->sms < PAIR ? 1 : c->sms / PAIR;
}

/* How long they all take, in rows of x that a block goes through. */
static int64_t cost(const cuda_call *c, int64_t m, int64_t n, int r)
{
    return (pairs(m, n, r) + room(c) - 1) / room(c) * r;
}

template <int R, bool SHARE_X>
static cudaError_t launch(const cuda_call *c, geglu_args &a, const void *x, int64_t k)
{
    constexpr size_t bytes = sizeof(geglu_memory<R>) + 1024;
    const int rows = (a.m + R - 1) / R;
    auto kernel = geglu<R, SHARE_X>;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e == cudaSuccess)
        e = cuda_tensor_map(&a.x, x, a.m, k, x_rows<R, SHARE_X>);
    a.groups = SHARE_X ? rows : rows / PAIR;
    a.tiles = (int)pairs(a.m, a.n, R);
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = PAIR;
    how[0].val.clusterDim.y = how[0].val.clusterDim.z = 1;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(PAIR * (a.tiles < room(c) ? a.tiles : room(c))));
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = bytes;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e != cudaSuccess ? e : cudaLaunchKernelEx(&config, kernel, a);
}

template <int R> static cudaError_t launch_rows(const cuda_call *c, geglu_args &a, const void *x, int64_t k)
{
    return (a.m + R - 1) / R % PAIR ? launch<R, true>(c, a, x, k) : launch<R, false>(c, a, x, k);
}

cudaError_t cuda_geglu_product(const cuda_call *c, const cuda_wide *p)
{
    geglu_args a = {};
    cudaError_t e = cuda_tensor_map(&a.gate, p->w[0], p->n[0], p->k, BOX);
    if (e == cudaSuccess)
        e = cuda_tensor_map(&a.up, p->w[1], p->n[0], p->k, BOX);
    if (e != cudaSuccess)
        return e;
    a.y = (__nv_bfloat16 *)p->y[0];
    a.m = (int)p->m;
    a.n = (int)p->n[0];
    a.steps = (int)((p->k + STEP - 1) / STEP);
    int64_t few = cost(c, p->m, a.n, 128), more = cost(c, p->m, a.n, 136), most = cost(c, p->m, a.n, 144);
    return few <= more && few <= most ? launch_rows<128>(c, a, p->x, p->k)
           : more <= most             ? launch_rows<136>(c, a, p->x, p->k)
                                      : launch_rows<144>(c, a, p->x, p->k);
}
