/* linear_parts.cu - a long product onto a residual on Hopper's tensor instructions, whose tiles are far fewer than
 * multiprocessors: K is cut into parts, each of them a block's.
 *
 * Computes: y = h + x w^T; x [M, K], w [N, K] bf16, h and y [M, N] f32, and may be the same. Every row up to the capacity.
 * Launch: as linear_geglu.cu has it the weights are wgmma's side of 64: a tile is 256 columns of y by R rows, R the one of three that
 *   takes the least time, so that 532 rows are four times 136. A cluster is two row tiles of the same columns and part of K, and
 *   reads their weights once; one warp keeps the copy engine busy, four steps of 64 features ahead. All blocks fit the device at once.
 * Sums: of a tile each part's block adds up a piece, from its own sums, which stay in shared memory, and those that the others leave for it
 *   in memory (in L2), in the order in which threads have them. A ticket a piece counts who has left something for it. A block waits
 *   for the others only so long; then it leaves its own as well, and whoever finds by the ticket that it was the last adds them up.
 *   So no block depends on another's being on the device at the same time.
 * Numerics: f32 sums in the order of k within a part, then parts in order, whoever adds them, then h: the same bytes each time.
 * Bound: the tensor cores; at the end L2. */
#include "small.h"
#include "tma.cuh"
#include "util.cuh"

#define GROUP    128 /* threads of a warpgroup */
#define WORKERS  (2 * GROUP)
#define BLOCK    (3 * GROUP)
#define TILE     256 /* columns of y */
#define BOX      64  /* rows of w in one copy: those of one wgmma */
#define BOXES    (TILE / BOX)
#define STEP     64 /* features: a box is as wide */
#define STAGES   4
#define AT_ONCE  5    /* vectors of a piece that a thread has under way, of each part */
#define PATIENCE 32   /* looks at a ticket, each half a microsecond or more */
#define LEAST    2048 /* features of a part */
#define FEWEST   3    /* parts; of two the library's products are as fast */
#define PAIR     2    /* blocks of a cluster */

typedef struct parts_args {
    CUtensorMap x, w;
    const float *h;
    float *y;
    float4 *sums;      /* of each place (tile) and part; there R / 4 times WORKERS */
    unsigned *tickets; /* of each place and piece: all ones when nobody has left that piece */
    int m, n, steps, parts;
    int groups; /* pairs of row tiles */
} parts_args;

template <int R> struct parts_memory {
    union {
        struct {
            unsigned char w[STAGES][TILE * STEP * 2], x[STAGES][R * STEP * 2];
        };
        float4 own[R / 4][WORKERS]; /* the block's piece of its own sums */
    };
    uint64_t full[STAGES], empty[STAGES];
    bool last[CUDA_PARTS_MOST]; /* to leave that piece */
};

#if CUDA_WGMMA

static __device__ inline void workers_meet(void)
{
    asm volatile("bar.sync 1, %0;" ::"n"(WORKERS) : "memory");
}

/* What this thread has left for others can be read by all. */
static __device__ inline void left(void)
{
    __threadfence();
    workers_meet();
}

/* Another part has left a piece. Was it the last? The first finds -1. */
static __device__ inline bool count(unsigned *ticket, int parts)
{
    return (int)atomicAdd(ticket, 1u) == parts - 2;
}

/* Have all others left theirs, after some patience? */
static __device__ inline bool others_left(const unsigned *ticket, int parts)
{
    int found = -1;
    for (int tries = 0; tries < PATIENCE && found != parts - 2; tries++)
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(ticket) : "memory");
    return found == parts - 2;
}

/* Vectors [from, to) of a place: all parts of them, `own` as it is, the residual, and away. `column` and `row` are those of the thread's
 * first. */
static __device__ inline void add_up(const parts_args &a, const float4 *sums, int own,
                                     const float4 (*kept)[WORKERS], int vectors, int from, int to, int row,
                                     int column)
{
    for (int first = from; first < to; first += AT_ONCE) {
        float4 part[AT_ONCE][CUDA_PARTS_MOST];
        float h[AT_ONCE][4];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int v = first + i;
#pragma unroll
            for (int p = 0; p < CUDA_PARTS_MOST; p++)
                if (p < a.parts && p != own && v < to)
                    part[i][p] = __ldcg(sums + ((int64_t)p * vectors + v) * WORKERS + threadIdx.x);
        }
        auto place = [&](int i, int e, int64_t *at) {
            const int v = first + i, r = row + v / 2 * 8 + e % 2, c = column + v % 2 * BOX + e / 2 * 8;
            *at = (int64_t)r * a.n + c;
            return v < to && r < a.m && c < a.n;
        };
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t at;
                h[i][e] = place(i, e, &at) ? a.h[at] : 0;
            }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int v = first + i;
            float all[4] = {};
#pragma unroll
            for (int p = 0; p < CUDA_PARTS_MOST; p++)
                if (p < a.parts && v < to) {
                    const float4 one = p == own ? kept[v - from][threadIdx.x] : part[i][p];
                    all[0] += one.x;
                    all[1] += one.y;
                    all[2] += one.z;
                    all[3] += one.w;
                }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t at;
                if (place(i, e, &at))
                    a.y[at] = h[i][e] + all[e];
            }
        }
    }
}
#endif

template <int R>
static __global__ void __launch_bounds__(BLOCK, 1) parts(const __grid_constant__ parts_args a)
{
#if CUDA_WGMMA
    constexpr int x_bytes = R * STEP * 2, box_bytes = BOX * STEP * 2, w_bytes = BOXES * box_bytes,
                  vectors = R / 4;
    extern __shared__ __align__(16) unsigned char memory[];
    parts_memory<R> *mem = (parts_memory<R> *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const uint32_t full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    const uint32_t x_at = cuda_shared(mem->x), w_at = cuda_shared(mem->w);
    const int role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP;
    const int rank = (int)blockIdx.x % PAIR, cluster = (int)blockIdx.x / PAIR;
    const int part = cluster % a.parts, tile = cluster / a.parts;
    const int row = (tile % a.groups * PAIR + rank) * R, column = tile / a.groups * TILE;
    const int begin = part * a.steps / a.parts, end = (part + 1) * a.steps / a.parts;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cuda_mbarrier_init(full + 8 * i, 1);
            cuda_mbarrier_init(empty + 8 * i, PAIR * WORKERS / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        cuda_map_ahead(&a.x);
        cuda_map_ahead(&a.w);
    }
    cuda_cluster_barrier();
    cuda_begin(); /* so far: its own shared memory, and its arguments */

    cuda_slot<STAGES> at_slot = {};
    if (role == 2) {
        cuda_registers_fewer<40>();
        if (thread < 32) {
            /* A lane a box: that of x, then this block's two of the weights for both. */
            constexpr int of_w = BOXES / PAIR;
            const int box = rank * of_w + thread - 1;
            const bool is_x = thread == 0, mine = thread <= of_w;
            const CUtensorMap *map = is_x ? &a.x : &a.w;
            const uint32_t to = is_x ? x_at : w_at + box * box_bytes;
            const int from = is_x ? row : column + box * BOX;
            for (int k = begin; k < end; k++) {
                const uint32_t barrier = full + 8 * at_slot.index,
                               there = to + at_slot.index * (is_x ? x_bytes : w_bytes);
                cuda_mbarrier_wait(empty + 8 * at_slot.index, at_slot.parity ^ 1);
                if (thread == 0)
                    cuda_expect_bytes(barrier, x_bytes + w_bytes);
                __syncwarp();
                if (is_x)
                    cuda_box(there, map, k * STEP, from, barrier);
                else if (mine)
                    cuda_box_to_all(there, map, k * STEP, from, barrier, (1 << PAIR) - 1);
                at_slot.next();
            }
        }
        __syncwarp();
        cuda_cluster_arrive();
    } else {
        cuda_registers_more<232>();
        const int lane = thread % 32, warp = thread / 32, place = tile * PAIR + rank;
        const uint64_t x_operand = cuda_operand_at(x_at, 16, 1024, WGMMA_128);
        const uint64_t w_operand = cuda_operand_at(w_at + role * 2 * box_bytes, 16, 1024, WGMMA_128);
        auto used = [&](int which) {
            if (lane < PAIR)
                cuda_arrive_at(empty + 8 * which, lane);
        };
        int before = 0;
        float low[R / 2], high[R / 2];
        for (int k = begin; k < end; k++) {
            cuda_mbarrier_wait(full + 8 * at_slot.index, at_slot.parity);
            cuda_wgmma_begin();
            const uint64_t x = x_operand + (uint64_t)(at_slot.index * (x_bytes >> 4));
            const uint64_t w = w_operand + (uint64_t)(at_slot.index * (w_bytes >> 4));
#pragma unroll
            for (int i = 0; i < STEP / 16; i++) {
                cuda_wgmma<R>(low, w + (uint64_t)(2 * i), x + (uint64_t)(2 * i), k > begin || i);
                cuda_wgmma<R>(high, w + (uint64_t)((box_bytes >> 4) + 2 * i), x + (uint64_t)(2 * i),
                              k > begin || i);
            }
            cuda_wgmma_commit();
            cuda_wgmma_wait<1>();
            if (k > begin)
                used(before);
            before = at_slot.index;
            at_slot.next();
        }
        cuda_wgmma_wait<0>();
        cuda_settle(low);
        cuda_settle(high);
        used(before);
        __syncwarp();
        cuda_cluster_arrive();

        float4 *const sums = a.sums + (int64_t)place * a.parts * vectors * WORKERS;
        unsigned *const tickets = a.tickets + place * CUDA_PARTS_MOST;
        const int own = part * vectors / a.parts, behind = (part + 1) * vectors / a.parts;
        float4 *const mine = sums + (int64_t)part * vectors * WORKERS + threadIdx.x;
        workers_meet(); /* nobody reads weights or x any more */
#pragma unroll
        for (int v = 0; v < vectors; v++) {
            const float(&d)[R / 2] = v % 2 ? high : low;
            const float4 four =
                make_float4(d[v / 2 * 4], d[v / 2 * 4 + 1], d[v / 2 * 4 + 2], d[v / 2 * 4 + 3]);
            if (v >= own && v < behind)
                mem->own[v - own][threadIdx.x] = four;
            else
                __stcg(mine + v * WORKERS, four);
        }
        left();
        if (threadIdx.x < a.parts && threadIdx.x != part)
            mem->last[threadIdx.x] = count(tickets + threadIdx.x, a.parts);
        if (threadIdx.x == GROUP) /* of another warp: what waits here keeps no other's ticket back */
            mem->last[part] = others_left(tickets + part, a.parts);
        workers_meet();
        if (!mem->last[part]) {
            for (int v = own; v < behind; v++)
                __stcg(mine + v * WORKERS, mem->own[v - own][threadIdx.x]);
            left();
            if (threadIdx.x == 0)
                mem->last[part] = count(tickets + part, a.parts);
            workers_meet();
        }
        __threadfence();
        for (int i = 0; i < a.parts; i++) {
            if (!mem->last[i])
                continue;
            add_up(a, sums, i == part ? part : -1, mem->own, vectors, i * vectors / a.parts,
                   (i + 1) * vectors / a.parts, row + lane % 4 * 2,
                   column + role * 2 * BOX + warp * 16 + lane / 4);
            if (threadIdx.x == 0)
                tickets[i] = ~0u;
        }
    }
    cuda_cluster_wait(); /* nobody writes to this block any more, or counts here */
#endif
}

/* ---- host ---- */

typedef struct cut {
    int groups, tiles, parts; /* tiles: of pairs */
    int64_t cost;             /* rows that a block goes through, times steps */
} cut;

/* By tiles of `r` rows, where they go in pairs. */
static cut cut_of(int sms, int64_t m, int64_t n, int64_t k, int r)
{
    cut c = {};
    const int64_t rows = (m + r - 1) / r, steps = (k + STEP - 1) / STEP;
    c.groups = (int)(rows / PAIR);
    c.tiles = c.groups * (int)((n + TILE - 1) / TILE);
    c.parts = rows % PAIR ? 0 : sms / PAIR / c.tiles;
    c.parts = c.parts > CUDA_PARTS_MOST ? CUDA_PARTS_MOST : c.parts;
    c.parts = c.parts > k / LEAST ? (int)(k / LEAST) : c.parts;
    c.cost = c.parts ? (steps + c.parts - 1) / c.parts * r : INT64_MAX;
    return c;
}

static const int heights[] = {128, 136, 144};

static cut best_cut(int sms, int64_t m, int64_t n, int64_t k, int *r)
{
    cut best = {};
    best.cost = INT64_MAX;
    for (int h : heights) {
        const cut c = cut_of(sms, m, n, k, h);
        if (c.cost < best.cost) {
            best = c;
            *r = h;
        }
    }
    return best;
}

size_t cuda_parts_bytes(int sms, int64_t m, int64_t n, int64_t k)
{
    int r = 0;
    const cut c = best_cut(sms, m, n, k, &r);
    const int64_t places = (int64_t)c.tiles * PAIR;
    bool gains = c.parts >= FEWEST && 8 * places * c.parts >= 7 * sms; /* the device is full */
    if (!gains || places * CUDA_PARTS_MOST * sizeof(unsigned) > CUDA_PARTS_TICKETS)
        return 0;
    return (size_t)(places * c.parts * r * TILE) * sizeof(float);
}

template <int R>
static cudaError_t launch(const cuda_call *c, const cut &by, parts_args &a, const void *x, int64_t k)
{
    constexpr size_t bytes = sizeof(parts_memory<R>) + 1024;
    cudaError_t e = cudaFuncSetAttribute(parts<R>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e == cudaSuccess)
        e = cuda_tensor_map(&a.x, x, a.m, k, R);
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = PAIR;
    how[0].val.clusterDim.y = how[0].val.clusterDim.z = 1;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(PAIR * by.tiles * by.parts));
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = bytes;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e != cudaSuccess ? e : cudaLaunchKernelEx(&config, parts<R>, a);
}

cudaError_t cuda_parts_product(const cuda_call *c, const cuda_parts *p)
{
    int r = 0;
    const cut by = best_cut(c->sms, p->m, p->n, p->k, &r);
    parts_args a = {};
    cudaError_t e = cuda_tensor_map(&a.w, p->w, p->n, p->k, BOX);
    if (e != cudaSuccess)
        return e;
    a.h = p->h;
    a.y = p->y;
    a.sums = (float4 *)c->work;
    a.tickets = (unsigned *)c->own;
    a.m = (int)p->m;
    a.n = (int)p->n;
    a.steps = (int)((p->k + STEP - 1) / STEP);
    a.groups = by.groups;
    a.parts = by.parts;
    return r == 128   ? launch<128>(c, by, a, p->x, p->k)
           : r == 136 ? launch<136>(c, by, a, p->x, p->k)
                      : launch<144>(c, by, a, p->x, p->k);
}
