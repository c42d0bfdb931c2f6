/* linear_wide.cu - products of one input with up to three weights on Hopper's own tensor instructions, for hundreds of
 * rows: what cuBLASLt does not do in one. Weights of different widths, each with its bias and its result (q, k, v).
 *
 * Computes: y_i = x w_i^T (+ b_i). x [M, K], w_i [N_i, K], b_i [N_i], y_i [M, N_i], all bf16. Every row up to the capacity.
 * Launch: clusters of two blocks with a tile each, 128 rows by 192 columns. The two have the same columns and each reads
 *   half of the weights' tile for both; where row tiles do not go in pairs, they have the same rows and share x. As many
 *   clusters as the device holds go through all tiles, rows first, so that a weight is read from memory once. In a block two
 *   warpgroups multiply, 64 rows each; one warp keeps the copy engine busy, four steps of 64 features ahead, across tiles.
 *   Its first weights it asks for before the kernel in front has ended, where no kernel writes them.
 * Numerics: f32 sums in the order of k, one rounding. Fixed order.
 * Bound: the tensor cores. */
#include "small.h"
#include "tma.cuh"
#include "util.cuh"

#define GROUP  128 /* threads of a warpgroup */
#define BLOCK  (3 * GROUP)
#define ROWS   128 /* of a tile */
#define STEP   64  /* features: a box is as wide */
#define BOX    32  /* rows of a weight in one copy */
#define UNIT   64  /* columns that belong to one weight */
#define STAGES 4
#define COLUMNS 192 /* of a tile */
#define PAIR   2 /* blocks of a cluster */

typedef struct wide_args {
    CUtensorMap x, w[CUDA_WIDE_MOST];
    const __nv_bfloat16 *bias[CUDA_WIDE_MOST];
    __nv_bfloat16 *y[CUDA_WIDE_MOST];
    int units[CUDA_WIDE_MOST];       /* of each weight */
    int m, steps, row_groups, tiles; /* row groups: pairs of row tiles, or row tiles where x is shared */
    bool share_x;
    bool ahead; /* weights may be fetched before the kernel in front has ended */
} wide_args;

typedef struct place {
    int row, column; /* tiles */
} place;

typedef struct wide_memory {
    unsigned char x[STAGES][ROWS * STEP * 2], w[STAGES][COLUMNS * STEP * 2];
    uint64_t full[STAGES], empty[STAGES];
} wide_memory;

#if CUDA_WGMMA

/* Which weight has column unit `u` of all, and which of its own that is. Beyond the last: the last, which has no such. */
static __device__ inline int owner(const wide_args &a, int u, int *own)
{
    int i = 0;
    while (i + 1 < CUDA_WIDE_MOST && a.units[i + 1] && u >= a.units[i])
        u -= a.units[i++];
    *own = u;
    return i;
}

static __device__ inline place place_of(const wide_args &a, int tile, int rank)
{
    int group = tile % a.row_groups, column = tile / a.row_groups;
    return {a.share_x ? group : group * PAIR + rank, a.share_x ? column * PAIR + rank : column};
}

/* Four threads of a row hold pairs of columns of four times eight: after, each holds eight columns in a row. */
static __device__ inline uint4 gather(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3, int t)
{
    bool odd = t & 1, high = t & 2;
    uint32_t a = __shfl_xor_sync(~0u, odd ? w0 : w1, 1), b = __shfl_xor_sync(~0u, odd ? w2 : w3, 1);
    (odd ? w0 : w1) = a;
    (odd ? w2 : w3) = b;
    a = __shfl_xor_sync(~0u, high ? w0 : w2, 2);
    b = __shfl_xor_sync(~0u, high ? w1 : w3, 2);
    (high ? w0 : w2) = a;
    (high ? w1 : w3) = b;
    return make_uint4(w0, w1, w2, w3);
}
#endif

static __global__ void __launch_bounds__(BLOCK, 1) wide(const __grid_constant__ wide_args a)
{
#if CUDA_WGMMA
    constexpr int boxes = COLUMNS / BOX; /* of weights in a tile */
    constexpr int x_bytes = ROWS * STEP * 2, w_bytes = COLUMNS * STEP * 2;
    extern __shared__ __align__(16) unsigned char memory[];
    wide_memory *mem = (wide_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const uint32_t full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    const uint32_t x_at = cuda_shared(mem->x), w_at = cuda_shared(mem->w);
    const int role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP, rank = (int)blockIdx.x % PAIR;
    const int first = (int)blockIdx.x / PAIR, stride = (int)gridDim.x / PAIR;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cuda_mbarrier_init(full + 8 * i, 1);
            cuda_mbarrier_init(empty + 8 * i, PAIR * 2 * GROUP / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        cuda_map_ahead(&a.x);
        for (int i = 0; i < CUDA_WIDE_MOST && a.units[i]; i++)
            cuda_map_ahead(&a.w[i]);
    }
    cuda_cluster_barrier();
    if (role < 2 || !a.ahead) /* else the warp that fetches does so when it has begun with the weights */
        cuda_begin();         /* so far: its own shared memory, and its arguments */

    cuda_slot<STAGES> at_slot = {};
    if (role == 2) {
        cuda_registers_fewer<40>();
        if (thread < 32) {
            /* A lane a box: first those of x, all of this block's or half of both blocks', then of the weights likewise. */
            const int of_x = a.share_x ? 1 : 2, of_w = a.share_x ? boxes : boxes / PAIR;
            const bool is_x = thread < of_x, mine = thread < of_x + of_w, for_both = is_x == a.share_x;
            const int box = is_x ? thread + (a.share_x ? rank : 0) : thread - of_x + (a.share_x ? 0 : rank * of_w);
            for (int tile = first; tile < a.tiles; tile += stride) {
                place at_tile = place_of(a, tile, rank);
                const CUtensorMap *map = &a.x;
                int row = at_tile.row * ROWS + box * (ROWS / 2);
                uint32_t to = x_at + box * (x_bytes / 2);
                if (!is_x) {
                    int at, part = owner(a, at_tile.column * (COLUMNS / UNIT) + box / (UNIT / BOX), &at);
                    map = &a.w[mine ? part : 0];
                    row = at * UNIT + box % (UNIT / BOX) * BOX;
                    to = w_at + box * (BOX * STEP * 2);
                }
                auto fetch = [&](int k, int into) {
                    uint32_t barrier = full + 8 * into, there = to + into * (is_x ? x_bytes : w_bytes);
                    if (for_both)
                        cuda_box_to_all(there, map, k * STEP, row, barrier, (1 << PAIR) - 1);
                    else
                        cuda_box(there, map, k * STEP, row, barrier);
                };
                int k = 0;
                if (a.ahead && tile == first) {
                    for (; k < STAGES && k < a.steps; k++) {
                        if (thread == 0)
                            cuda_expect_bytes(full + 8 * k, x_bytes + w_bytes);
                        __syncwarp();
                        if (mine && !is_x)
                            fetch(k, k);
                        at_slot.next();
                    }
                    cuda_begin();
                    for (int i = 0; is_x && i < k; i++)
                        fetch(i, i);
                }
                for (; k < a.steps; k++) {
                    cuda_mbarrier_wait(empty + 8 * at_slot.index, at_slot.parity ^ 1);
                    if (thread == 0)
                        cuda_expect_bytes(full + 8 * at_slot.index, x_bytes + w_bytes);
                    __syncwarp();
                    if (mine)
                        fetch(k, at_slot.index);
                    at_slot.next();
                }
            }
        }
        __syncwarp();
    } else {
        cuda_registers_more<232>();
        const int lane = thread % 32, warp = thread / 32;
        const uint64_t x_operand = cuda_operand_at(x_at + role * (x_bytes / 2), 16, 1024, WGMMA_128);
        const uint64_t w_operand = cuda_operand_at(w_at, 16, 1024, WGMMA_128);
        auto used = [&](int which) {
            if (lane < PAIR)
                cuda_arrive_at(empty + 8 * which, lane);
        };
        for (int tile = first; tile < a.tiles; tile += stride) {
            place at_tile = place_of(a, tile, rank);
            int row = at_tile.row * ROWS + role * 64 + warp * 16 + lane / 4, column = at_tile.column, before = 0;
            const int t = lane % 4;
            float d[COLUMNS / 2];
            uint32_t bias[COLUMNS / 8]; /* asked for before the products, not to wait for it behind them */
#pragma unroll
            for (int u = 0; u < COLUMNS / UNIT; u++) {
                int at, part = owner(a, column * (COLUMNS / UNIT) + u, &at);
                const uint32_t *from = (const uint32_t *)(a.bias[part] + at * UNIT) + t;
                bool there = at < a.units[part] && a.bias[part];
#pragma unroll
                for (int i = 0; i < UNIT / 8; i++)
                    bias[u * (UNIT / 8) + i] = there ? from[4 * i] : 0;
            }
            for (int k = 0; k < a.steps; k++) {
                cuda_mbarrier_wait(full + 8 * at_slot.index, at_slot.parity);
                cuda_wgmma_begin();
#pragma unroll
                for (int i = 0; i < STEP / 16; i++)
                    cuda_wgmma<COLUMNS>(d, x_operand + (uint64_t)(at_slot.index * (x_bytes >> 4) + 2 * i),
                                        w_operand + (uint64_t)(at_slot.index * (w_bytes >> 4) + 2 * i), k || i);
                cuda_wgmma_commit();
                cuda_wgmma_wait<1>();
                if (k)
                    used(before);
                before = at_slot.index;
                at_slot.next();
            }
            cuda_wgmma_wait<0>();
            cuda_settle(d);
            used(before);

            /* Eight columns of a thread at a time. */
#pragma unroll
            for (int g = 0; g < COLUMNS / 32; g++) {
                int at, part = owner(a, column * (COLUMNS / UNIT) + g / 2, &at);
                const int width = a.units[part] * UNIT;
                at = at * UNIT + g % 2 * 32;
                const bool there = at < width;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    uint32_t w[4];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const float *v = d + 16 * g + 4 * j + 2 * r;
                        w[j] = cuda_pack_bf16(v[0] + __uint_as_float(bias[4 * g + j] << 16),
                                              v[1] + __uint_as_float(bias[4 * g + j] & 0xffff0000));
                    }
                    uint4 all = gather(w[0], w[1], w[2], w[3], t);
                    if (there && row + 8 * r < a.m)
                        *(uint4 *)(a.y[part] + (int64_t)(row + 8 * r) * width + at + 8 * t) = all;
                }
            }
        }
    }
    cuda_cluster_barrier(); /* nobody writes to this block any more, or counts here */
#endif
}

static cudaError_t launch(const cuda_call *c, wide_args &a, int columns)
{
    constexpr size_t bytes = sizeof(wide_memory) + 1024;
    cudaError_t e = cudaFuncSetAttribute(wide, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    int rows = (a.m + ROWS - 1) / ROWS;
    columns = (columns + COLUMNS - 1) / COLUMNS;
    a.share_x = rows % PAIR != 0;
    a.row_groups = a.share_x ? rows : rows / PAIR;
    a.tiles = a.row_groups * (a.share_x ? (columns + PAIR - 1) / PAIR : columns);
    int room = c->sms < PAIR ? 1 : c->sms / PAIR, clusters = a.tiles < room ? a.tiles : room;
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = PAIR;
    how[0].val.clusterDim.y = how[0].val.clusterDim.z = 1;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(PAIR * clusters));
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = bytes;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e ? e : cudaLaunchKernelEx(&config, wide, a);
}

cudaError_t cuda_pair_products(const cuda_call *c, const cuda_wide *p)
{
    wide_args a = {};
    int columns = 0;
    cudaError_t e = cuda_tensor_map(&a.x, p->x, p->m, p->k, ROWS / 2);
    for (int i = 0; e == cudaSuccess && i < p->count; i++) {
        e = cuda_tensor_map(&a.w[i], p->w[i], p->n[i], p->k, BOX);
        a.bias[i] = (const __nv_bfloat16 *)p->bias[i];
        a.y[i] = (__nv_bfloat16 *)p->y[i];
        a.units[i] = (int)(p->n[i] / UNIT);
        columns += (int)p->n[i];
    }
    a.m = (int)p->m;
    a.ahead = p->ahead;
    a.steps = (int)((p->k + STEP - 1) / STEP);
    return e != cudaSuccess ? e : launch(c, a, columns);
}
