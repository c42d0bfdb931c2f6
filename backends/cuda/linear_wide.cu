/* linear_wide.cu - products of one input with up to three weights of different widths, each with its bias and its result
 * (q, k, v), on Hopper's own tensor instructions, for hundreds of rows: what cuBLASLt does not do in one. And of one weight, through
 * GELU.
 *
 * Computes: y_i = x w_i^T (+ b_i); y = gelu(x w^T (+ b)). x [M, K], w_i [N_i, K], b_i [N_i], y_i [M, N_i], all bf16. Every row up
 *   to the capacity.
 * Launch: a block has a tile of 128 rows by COLUMNS columns; two warpgroups multiply, 64 rows each, and one warp keeps the
 *   copy engine busy, some steps of 64 features ahead. COLUMNS is the one of three that takes the least time: 2560 and 3456
 *   columns by 128, 160 or 192 fill the device once, twice or almost. Clusters are of two blocks: those with the same columns
 *   read half of the weights' tile each, for both; where row tiles do not go in pairs, those with the same rows read half of
 *   x. Rows run first, so that a weight is read from memory once. Its first weights a block asks for before the kernel in
 *   front has ended, where no kernel writes them.
 * Numerics: f32 sums in the order of k, one rounding. Fixed order.
 * Bound: the tensor cores. */
#include "small.h"
#include "tma.cuh"
#include "util.cuh"

#define GROUP 128 /* threads of a warpgroup */
#define BLOCK (3 * GROUP)
#define ROWS  128 /* of a tile */
#define STEP  64  /* features: a box is as wide */
#define PAIR  2   /* blocks of a cluster */
#define RING  (200 << 10)
#define GROUP_BOX 32 /* columns that belong to one weight, where there are some */
#define GELU_LESS 144 /* columns of a tile: 4304 of them with 512 and 768 rows are 120 and 132 tiles */
#define GELU_MORE 200

typedef struct wide_args {
    CUtensorMap x, w[CUDA_WIDE_MOST];
    const __nv_bfloat16 *bias[CUDA_WIDE_MOST];
    __nv_bfloat16 *y[CUDA_WIDE_MOST];
    int boxes[CUDA_WIDE_MOST], width[CUDA_WIDE_MOST]; /* of each weight */
    int m, steps, row_groups;  /* row groups: pairs of row tiles, or row tiles where x is shared */
    bool ahead;                /* weights may be fetched before the kernel in front has ended */
} wide_args;

template <int COLUMNS> struct wide_memory {
    static constexpr int stages = RING / ((ROWS + COLUMNS) * STEP * 2);
    unsigned char x[stages][ROWS * STEP * 2], w[stages][COLUMNS * STEP * 2];
    uint64_t full[stages], empty[stages];
};

#if CUDA_WGMMA

/* Which weight has box `u` of all, and which of its own that is. Beyond the last: the last, which has no such. */
static __device__ inline int owner(const wide_args &a, int u, int *own)
{
    int i = 0;
    while (i + 1 < CUDA_WIDE_MOST && a.boxes[i + 1] && u >= a.boxes[i])
        u -= a.boxes[i++];
    *own = u;
    return i;
}

#endif

template <int COLUMNS, int BOX, bool SHARE_X, bool GELU>
static __global__ void __launch_bounds__(BLOCK, 1) wide(const __grid_constant__ wide_args a)
{
#if CUDA_WGMMA
    typedef wide_memory<COLUMNS> shared;
    constexpr int stages = shared::stages, boxes = COLUMNS / BOX;
    static_assert(COLUMNS % BOX == 0 && BOX % 8 == 0, "boxes are whole atoms");
    constexpr int x_bytes = ROWS * STEP * 2, w_bytes = COLUMNS * STEP * 2, box_bytes = BOX * STEP * 2;
    extern __shared__ __align__(16) unsigned char memory[];
    shared *mem = (shared *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const uint32_t full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    const uint32_t x_at = cuda_shared(mem->x), w_at = cuda_shared(mem->w);
    const int role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP, rank = (int)blockIdx.x % PAIR;
    const int group = (int)blockIdx.x / PAIR % a.row_groups, next = (int)blockIdx.x / PAIR / a.row_groups;
    const int row = (SHARE_X ? group : group * PAIR + rank) * ROWS, column = (SHARE_X ? next * PAIR + rank : next) * boxes;

    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; i++) {
            cuda_mbarrier_init(full + 8 * i, 1);
            cuda_mbarrier_init(empty + 8 * i, PAIR * 2 * GROUP / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        cuda_map_ahead(&a.x);
        for (int i = 0; i < CUDA_WIDE_MOST && a.boxes[i]; i++)
            cuda_map_ahead(&a.w[i]);
    }
    cuda_cluster_barrier();
    if (role < 2 || !a.ahead) /* else the warp that fetches does so when it has begun with the weights */
        cuda_begin();         /* so far: its own shared memory, and its arguments */

    if (role == 2) {
        cuda_registers_fewer<40>();
        if (thread < 32) {
            /* Lane 0: x, all of this block's or half of both blocks'; the others a box of weights each, all or every other. */
            const bool is_x = thread == 0, for_both = is_x == SHARE_X;
            const bool mine = is_x || (thread <= boxes && (SHARE_X || thread % PAIR == rank));
            const CUtensorMap *map = &a.x;
            uint32_t to = x_at + (SHARE_X ? rank * (x_bytes / PAIR) : 0);
            int from = row + (SHARE_X ? rank * (ROWS / PAIR) : 0);
            if (!is_x) {
                int at, which = owner(a, column + thread - 1, &at);
                map = &a.w[mine ? which : 0];
                from = at * BOX;
                to = w_at + (thread - 1) * box_bytes;
            }
            auto fetch = [&](int k, int into) {
                const uint32_t barrier = full + 8 * into, there = to + into * (is_x ? x_bytes : w_bytes);
                if (for_both)
                    cuda_box_to_all(there, map, k * STEP, from, barrier, (1 << PAIR) - 1);
                else
                    cuda_box(there, map, k * STEP, from, barrier);
            };
            cuda_slot<stages> slot = {};
            int k = 0;
            if (a.ahead) {
                for (; k < stages && k < a.steps; k++) {
                    if (is_x)
                        cuda_expect_bytes(full + 8 * k, x_bytes + w_bytes);
                    __syncwarp();
                    if (mine && !is_x)
                        fetch(k, k);
                    slot.next();
                }
                cuda_begin();
                for (int i = 0; is_x && i < k; i++)
                    fetch(i, i);
            }
            for (; k < a.steps; k++) {
                cuda_mbarrier_wait(empty + 8 * slot.index, slot.parity ^ 1);
                if (is_x)
                    cuda_expect_bytes(full + 8 * slot.index, x_bytes + w_bytes);
                __syncwarp();
                if (mine)
                    fetch(k, slot.index);
                slot.next();
            }
        }
        __syncwarp();
        cuda_cluster_arrive();
    } else {
        cuda_registers_more<232>();
        const int lane = thread % 32, warp = thread / 32, t = lane % 4;
        const uint64_t x_operand = cuda_operand_at(x_at + role * (x_bytes / 2), 16, 1024, WGMMA_128);
        const uint64_t w_operand = cuda_operand_at(w_at, 16, 1024, WGMMA_128);
        auto used = [&](int which) {
            if (lane < PAIR)
                cuda_arrive_at(empty + 8 * which, lane);
        };
        const int line = row + role * 64 + warp * 16 + lane / 4;
        float d[COLUMNS / 2];
        uint32_t bias[COLUMNS / 8]; /* asked for before the products, not to wait for it behind them */
#pragma unroll
        for (int u = 0; u < boxes; u++) {
            int at, which = owner(a, column + u, &at);
            const uint32_t *from = (const uint32_t *)(a.bias[which] + at * BOX) + t;
            const int left = a.bias[which] ? a.width[which] - at * BOX : 0;
#pragma unroll
            for (int i = 0; i < BOX / 8; i++)
                bias[u * (BOX / 8) + i] = 8 * i < left ? from[4 * i] : 0;
        }
        cuda_slot<stages> slot = {};
        int before = 0;
        for (int k = 0; k < a.steps; k++) {
            cuda_mbarrier_wait(full + 8 * slot.index, slot.parity);
            cuda_wgmma_begin();
#pragma unroll
            for (int i = 0; i < STEP / 16; i++)
                cuda_wgmma<COLUMNS>(d, x_operand + (uint64_t)(slot.index * (x_bytes >> 4) + 2 * i),
                                    w_operand + (uint64_t)(slot.index * (w_bytes >> 4) + 2 * i), k || i);
            cuda_wgmma_commit();
            cuda_wgmma_wait<1>();
            if (k)
                used(before);
            before = slot.index;
            slot.next();
        }
        cuda_wgmma_wait<0>();
        cuda_settle(d);
        used(before);
        __syncwarp();
        cuda_cluster_arrive();

        /* Eight columns of a thread at a time; of fewer than 32 that are left, two. */
        auto pair = [&](int i, int r) {
            const float v0 = d[4 * i + 2 * r] + __uint_as_float(bias[i] << 16);
            const float v1 = d[4 * i + 2 * r + 1] + __uint_as_float(bias[i] & 0xffff0000);
            const float2 v = GELU ? cuda_gelu_of_two(v0, v1) : make_float2(v0, v1);
            return cuda_pack_bf16(v.x, v.y);
        };
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i += 4) {
            int at, which = owner(a, column + i * 8 / BOX, &at);
            const int width = a.width[which], first = at * BOX + i * 8 % BOX;
            __nv_bfloat16 *to = a.y[which] + (int64_t)line * width + first;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const bool there = line + 8 * r < a.m;
                if (i + 4 <= COLUMNS / 8) {
                    const uint4 all = cuda_gather(pair(i, r), pair(i + 1, r), pair(i + 2, r), pair(i + 3, r), t);
                    if (there && first + 8 * t < width)
                        *(uint4 *)(to + (int64_t)8 * r * width + 8 * t) = all;
                } else {
#pragma unroll
                    for (int j = i; j < COLUMNS / 8; j++)
                        if (there && first + 8 * (j - i) < width)
                            *(uint32_t *)(to + (int64_t)8 * r * width + 8 * (j - i) + 2 * t) = pair(j, r);
                }
            }
        }
    }
    cuda_cluster_wait(); /* nobody writes to this block any more, or counts here */
#endif
}

/* ---- host ---- */

/* How many pairs of tiles there are. `boxes`: tiles are made of, of all weights. */
static int64_t pairs(int64_t m, int boxes, int of_tile)
{
    const int64_t rows = (m + ROWS - 1) / ROWS, tiles = (boxes + of_tile - 1) / of_tile;
    return rows % PAIR ? rows * ((tiles + PAIR - 1) / PAIR) : rows / PAIR * tiles;
}

static int64_t room(const cuda_call *c)
{
    return c->sms < PAIR ? 1 : c->sms / PAIR;
}

/* How long that takes: columns that a block goes through, and a little for what all read. */
static int64_t cost(const cuda_call *c, int64_t m, int boxes, int of_tile)
{
    const int64_t n = pairs(m, boxes, of_tile);
    return (n + room(c) - 1) / room(c) * of_tile * GROUP_BOX + n / 2;
}

static int best_tile(const cuda_call *c, int64_t m, int boxes)
{
    int best = 6;
    for (int of_tile = 5; of_tile >= 4; of_tile--)
        best = cost(c, m, boxes, of_tile) < cost(c, m, boxes, best) ? of_tile : best;
    return best;
}

int64_t cuda_pair_cost(const cuda_call *c, int64_t m, int64_t columns)
{
    const int boxes = (int)(columns / GROUP_BOX);
    return cost(c, m, boxes, best_tile(c, m, boxes));
}

template <int COLUMNS, int BOX, bool SHARE_X, bool GELU> static cudaError_t launch(const cuda_call *c, const cuda_wide *p)
{
    constexpr size_t bytes = sizeof(wide_memory<COLUMNS>) + 1024;
    auto kernel = wide<COLUMNS, BOX, SHARE_X, GELU>;
    wide_args a = {};
    int boxes = 0;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e == cudaSuccess)
        e = cuda_tensor_map(&a.x, p->x, p->m, p->k, SHARE_X ? ROWS / PAIR : ROWS);
    for (int i = 0; e == cudaSuccess && i < p->count; i++) {
        e = cuda_tensor_map(&a.w[i], p->w[i], p->n[i], p->k, BOX);
        a.bias[i] = (const __nv_bfloat16 *)p->bias[i];
        a.y[i] = (__nv_bfloat16 *)p->y[i];
        a.width[i] = (int)p->n[i];
        a.boxes[i] = (a.width[i] + BOX - 1) / BOX;
        boxes += a.boxes[i];
    }
    const int rows = (int)((p->m + ROWS - 1) / ROWS);
    a.m = (int)p->m;
    a.row_groups = SHARE_X ? rows : rows / PAIR;
    a.ahead = p->ahead;
    a.steps = (int)((p->k + STEP - 1) / STEP);
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = PAIR;
    how[0].val.clusterDim.y = how[0].val.clusterDim.z = 1;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(PAIR * pairs(p->m, boxes, COLUMNS / BOX)));
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = bytes;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e != cudaSuccess ? e : cudaLaunchKernelEx(&config, kernel, a);
}

/* Do row tiles go in pairs? */
static bool even(int64_t m)
{
    return (m + ROWS - 1) / ROWS % PAIR == 0;
}

template <int COLUMNS> static cudaError_t launch_group(const cuda_call *c, const cuda_wide *p)
{
    return even(p->m) ? launch<COLUMNS, GROUP_BOX, false, false>(c, p) : launch<COLUMNS, GROUP_BOX, true, false>(c, p);
}

cudaError_t cuda_pair_products(const cuda_call *c, const cuda_wide *p)
{
    int64_t columns = 0;
    for (int i = 0; i < p->count; i++)
        columns += p->n[i];
    switch (best_tile(c, p->m, (int)(columns / GROUP_BOX))) {
    case 4:  return launch_group<4 * GROUP_BOX>(c, p);
    case 5:  return launch_group<5 * GROUP_BOX>(c, p);
    default: return launch_group<6 * GROUP_BOX>(c, p);
    }
}

/* ---- one weight, through GELU ---- */

/* Do all tiles of so many columns run at once, and fill the device? */
static bool fills(int sms, int64_t m, int64_t n, int columns)
{
    const int64_t count = PAIR * pairs(m, (int)((n + columns - 1) / columns), 1);
    return even(m) && count <= sms && 8 * count >= 7 * sms;
}

bool cuda_gelu_fits(int sms, int64_t m, int64_t n)
{
    return fills(sms, m, n, GELU_LESS) || fills(sms, m, n, GELU_MORE);
}

cudaError_t cuda_gelu_product(const cuda_call *c, const cuda_wide *p)
{
    return fills(c->sms, p->m, p->n[0], GELU_LESS) ? launch<GELU_LESS, GELU_LESS / 2, false, true>(c, p)
                                                  : launch<GELU_MORE, GELU_MORE / 5, false, true>(c, p);
}
