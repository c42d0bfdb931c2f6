/* linear_group.cu - products of one input with up to three weights of different widths, each with its bias and its result
 * (q, k, v), on Hopper's tensor instructions, for hundreds of rows: what cuBLASLt does not do in one. For numbers of rows that
 * fit its tiles better than those of linear_wide.cu, to which it leaves the others.
 *
 * Computes: y_i = x w_i^T (+ b_i). x [M, K], w_i [N_i, K], b_i [N_i], y_i [M, N_i], all bf16. Every row up to the capacity.
 * Launch: roles turned as in linear_geglu.cu. A tile is 128 columns of all results by R rows of x; R is the one of four that
 *   takes the least time. Tiles are few and small, so what counts is how much is read: clusters of two by two tiles, in which
 *   a block reads half of the x that it shares with the one beside it and half of the weights that it shares with the one
 *   below. In a block two warpgroups multiply, 64 columns each; one warp keeps the copy engine busy, some steps of 64
 *   features ahead, across tiles.
 * Numerics: f32 sums in the order of k, one rounding. Fixed order.
 * Bound: the tensor cores. */
#include "small.h"
#include "tma.cuh"
#include "util.cuh"

#define GROUP 128 /* threads of a warpgroup */
#define BLOCK (3 * GROUP)
#define UNIT  64 /* columns that belong to one weight: of one wgmma, and of a copy */
#define STEP  64 /* features: a box is as wide */
#define SIDE  2  /* tiles of a cluster, each way */

typedef struct group_args {
    CUtensorMap x, w[CUDA_WIDE_MOST];
    const __nv_bfloat16 *bias[CUDA_WIDE_MOST];
    __nv_bfloat16 *y[CUDA_WIDE_MOST];
    int units[CUDA_WIDE_MOST];   /* of each weight */
    int m, steps, groups, tiles; /* groups: of SIDE row tiles; tiles: of clusters */
} group_args;

template <int R> struct group_memory {
    static constexpr int stages = (200 << 10) / (2 * UNIT * STEP * 2 + R * STEP * 2);
    static constexpr int half =
        (R + 15) / 16 * 8; /* rows of x in a copy: atoms are 8, so two halves may have 8 in common */
    unsigned char w[stages][2 * UNIT * STEP * 2], x[stages][R * STEP * 2];
    uint64_t full[stages], empty[stages];
};

#if CUDA_WGMMA

/* Which weight has column unit `u` of all, and which of its own that is. Beyond the last: the last, which has no such. */
static __device__ inline int owner(const group_args &a, int u, int *own)
{
    int i = 0;
    while (i + 1 < CUDA_WIDE_MOST && a.units[i + 1] && u >= a.units[i])
        u -= a.units[i++];
    *own = u;
    return i;
}
#endif

template <int R>
static __global__ void __launch_bounds__(BLOCK, 1) group(const __grid_constant__ group_args a)
{
#if CUDA_WGMMA
    typedef group_memory<R> shared;
    constexpr int stages = shared::stages, half = shared::half;
    constexpr int x_bytes = R * STEP * 2, unit_bytes = UNIT * STEP * 2, w_bytes = 2 * unit_bytes;
    extern __shared__ __align__(16) unsigned char memory[];
    shared *mem = (shared *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const uint32_t full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    const uint32_t x_at = cuda_shared(mem->x), w_at = cuda_shared(mem->w);
    const int role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP;
    const int rank = (int)blockIdx.x % (SIDE * SIDE), below = rank / SIDE, beside = rank % SIDE;
    const int first = (int)blockIdx.x / (SIDE * SIDE), stride = (int)gridDim.x / (SIDE * SIDE);

    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; i++) {
            cuda_mbarrier_init(full + 8 * i, 1);
            cuda_mbarrier_init(empty + 8 * i,
                               3 * 2 * GROUP / 32); /* this block reads for itself and for two others */
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        cuda_map_ahead(&a.x);
        for (int i = 0; i < CUDA_WIDE_MOST && a.units[i]; i++)
            cuda_map_ahead(&a.w[i]);
    }
    cuda_cluster_barrier();
    cuda_begin(); /* so far: its own shared memory, and its arguments */

    cuda_slot<stages> at_slot = {};
    if (role == 2) {
        cuda_registers_fewer<40>();
        if (thread < 32) {
            /* The first lane: half of x for those with the same rows; the second: one unit for those with the same columns. */
            const uint16_t sharers =
                (uint16_t)(thread ? 1 << beside | 1 << (SIDE + beside) : 3 << SIDE * below);
            const uint32_t to = thread ? w_at + below * unit_bytes : x_at + beside * (R - half) * STEP * 2;
            for (int tile = first; tile < a.tiles; tile += stride) {
                int at, part = owner(a, (tile / a.groups * SIDE + beside) * 2 + below, &at);
                const int row =
                    thread ? at * UNIT : (tile % a.groups * SIDE + below) * R + beside * (R - half);
                const CUtensorMap *map = thread ? &a.w[part] : &a.x;
                for (int k = 0; k < a.steps; k++) {
                    const uint32_t barrier = full + 8 * at_slot.index;
                    cuda_mbarrier_wait(empty + 8 * at_slot.index, at_slot.parity ^ 1);
                    if (thread == 0)
                        cuda_expect_bytes(barrier, 2 * half * STEP * 2 + w_bytes);
                    __syncwarp();
                    if (thread < 2)
                        cuda_box_to_all(to + at_slot.index * (thread ? w_bytes : x_bytes), map, k * STEP, row,
                                        barrier, sharers);
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
        const uint64_t w_operand = cuda_operand_at(w_at + role * unit_bytes, 16, 1024, WGMMA_128);
        auto used = [&](int which) { /* to those who read for this block */
                                     if (lane < 3)
                                         cuda_arrive_at(empty + 8 * which, rank ^ lane);
        };
        for (int tile = first; tile < a.tiles; tile += stride) {
            const int row = (tile % a.groups * SIDE + below) * R + lane / 4;
            int at, part = owner(a, (tile / a.groups * SIDE + beside) * 2 + role, &at), before = 0;
            const int width = a.units[part] * UNIT, column = at * UNIT + warp * 16;
            float d[R / 2],
                bias[2] = {}; /* bias: asked for before the products, not to wait for it behind them */
            if (column < width && a.bias[part])
#pragma unroll
                for (int i = 0; i < 2; i++)
                    bias[i] = __bfloat162float(a.bias[part][column + lane / 4 + 8 * i]);
            for (int k = 0; k < a.steps; k++) {
                cuda_mbarrier_wait(full + 8 * at_slot.index, at_slot.parity);
                cuda_wgmma_begin();
#pragma unroll
                for (int i = 0; i < STEP / 16; i++)
                    cuda_wgmma<R>(d, w_operand + (uint64_t)(at_slot.index * (w_bytes >> 4) + 2 * i),
                                  x_operand + (uint64_t)(at_slot.index * (x_bytes >> 4) + 2 * i), k || i);
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
            if (tile + stride >= a.tiles) {
                __syncwarp();
                cuda_cluster_arrive();
            }
            if (column >= width)
                continue;
#pragma unroll
            for (int i = 0; i < R / 2; i += 4) {
                int from;
                uint2 four = cuda_turn(cuda_pack_bf16(d[i] + bias[0], d[i + 1] + bias[0]),
                                       cuda_pack_bf16(d[i + 2] + bias[1], d[i + 3] + bias[1]), t, &from);
                if (row + 2 * i < a.m)
                    *(uint2 *)(a.y[part] + (int64_t)(row + 2 * i) * width + column + from) = four;
            }
        }
    }
    cuda_cluster_wait(); /* nobody writes to this block any more, or counts here */
#endif
}

/* ---- host ---- */

template <int R>
static cudaError_t prepare(const cuda_call *c, const group_args &a, cudaLaunchConfig_t *config, int columns,
                           int64_t *cost)
{
    constexpr size_t bytes = sizeof(group_memory<R>) + 1024;
    int room = 0;
    cudaError_t e = cudaFuncSetAttribute(group<R>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    config->dynamicSmemBytes = bytes;
    config->gridDim = dim3(SIDE * SIDE);
    cudaLaunchConfig_t alone = *config;
    alone.numAttrs = 1;
    if (e == cudaSuccess) /* not every multiprocessor finds three others for a cluster */
        e = cudaOccupancyMaxActiveClusters(&room, group<R>, &alone);
    room = room * SIDE * SIDE > c->sms ? c->sms / (SIDE * SIDE) : room;
    room = room < 1 ? 1 : room;
    const int groups = (a.m + SIDE * R - 1) / (SIDE * R), tiles = groups * ((columns + SIDE - 1) / SIDE);
    config->gridDim = dim3((unsigned)(SIDE * SIDE * (tiles < room ? tiles : room)));
    *cost = (int64_t)((tiles + room - 1) / room) * R +
            tiles; /* rows of x that a block goes through, and what all read */
    return e;
}

template <int R>
static cudaError_t launch(const cuda_call *c, group_args &a, cudaLaunchConfig_t *config, int columns,
                          const cuda_wide *p)
{
    int64_t cost;
    cudaError_t e = prepare<R>(c, a, config, columns, &cost);
    if (e == cudaSuccess)
        e = cuda_tensor_map(&a.x, p->x, p->m, p->k, group_memory<R>::half);
    a.groups = (a.m + SIDE * R - 1) / (SIDE * R);
    a.tiles = a.groups * ((columns + SIDE - 1) / SIDE);
    return e != cudaSuccess ? e : cudaLaunchKernelEx(config, group<R>, a);
}

cudaError_t cuda_wide_products(const cuda_call *c, const cuda_wide *p)
{
    group_args a = {};
    int units = 0;
    cudaError_t e = cudaSuccess;
    for (int i = 0; e == cudaSuccess && i < p->count; i++) {
        e = cuda_tensor_map(&a.w[i], p->w[i], p->n[i], p->k, UNIT);
        a.bias[i] = (const __nv_bfloat16 *)p->bias[i];
        a.y[i] = (__nv_bfloat16 *)p->y[i];
        a.units[i] = (int)(p->n[i] / UNIT);
        units += a.units[i];
    }
    a.m = (int)p->m;
    a.steps = (int)((p->k + STEP - 1) / STEP);
    const int columns = (units + 1) / 2;
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = SIDE * SIDE;
    how[0].val.clusterDim.y = how[0].val.clusterDim.z = 1;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.blockDim = dim3(BLOCK);
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    int64_t cost[4] = {};
    if (e == cudaSuccess)
        e = prepare<128>(c, a, &config, columns, &cost[0]);
    if (e == cudaSuccess)
        e = prepare<136>(c, a, &config, columns, &cost[1]);
    if (e == cudaSuccess)
        e = prepare<168>(c, a, &config, columns, &cost[2]);
    if (e == cudaSuccess)
        e = prepare<96>(c, a, &config, columns, &cost[3]);
    if (e != cudaSuccess)
        return e;
    int best = 0;
    for (int i = 1; i < 4; i++)
        best = cost[i] < cost[best] ? i : best;
    if (cuda_pair_cost(c, p->m, (int64_t)units * UNIT) <= cost[best])
        return cuda_pair_products(c, p);
    return best == 0   ? launch<128>(c, a, &config, columns, p)
           : best == 1 ? launch<136>(c, a, &config, columns, p)
           : best == 2 ? launch<168>(c, a, &config, columns, p)
                       : launch<96>(c, a, &config, columns, p);
}
