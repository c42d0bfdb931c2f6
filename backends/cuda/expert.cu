/* expert.cu - expert_block: layers of the action expert, as many as stand in a row, in one kernel. Hopper alone; elsewhere the
 * block is taken apart into the kernels of its body.
 *
 * Computes, for each layer of Gemma-300M with adaRMS: h = rms(x) (1 + scale) + shift; q, k, v = h w^T, q and k turned by
 *   RoPE, k and v stored in the cache; attention of 8 heads over one K/V head; x += gate (attn w_o^T); the same norm by the
 *   second modulation; x += gate' ((gelu(gate) up) w_down^T).
 * Launch: 15 clusters of 8 blocks that all run at once (cooperative), one block a multiprocessor; 8 warps in two warpgroups
 *   multiply, one warp fetches weights, and later K and V of the prefix, into a ring in shared memory, in the order in which they
 *   will be used and as far ahead as there is room: so the stream of weights does not stop while a phase waits for the
 *   one before it. One thread announces bytes, one warp fences.
 * A layer has five phases. Each splits its weights over all blocks, along the columns of the product and along K:
 *
 *   phase     a block's columns                   of K         a warpgroup's     sums go to
 *   qkv       48 + 48 of a head (cluster, half)   256 of 1024  24 + 24           one block of 4: 16 rows
 *   attention 1/15 of (head, row), 1/8 of the keys                               one block of 8: 32 columns of the head
 *   o         72 (cluster)                        256 of 2048  40, 32            one block of 8: 16 rows, 40 or 32 columns
 *   gate, up  72 + 72 (cluster, quarter)          512 of 1024  40 + 40, 32 + 32  one block of 2: 32 rows
 *   down      72 (cluster)                        512 of 4096  40, 32            as o
 *
 *   The 16 rows x 8 columns of sums that a warp has of each of its groups of columns go to the shared memory of the block of
 *   its cluster that owns them, which knows from a barrier that all are there, adds them up, does what follows (norm,
 *   RoPE, GeGLU, residual) and publishes the result in global memory. Blocks of different clusters tell one another
 *   through words that say by themselves that they are there (exchange.cuh).
 * Layout: weights as stored; the copy engine swizzles them. Rows of activations are wgmma's 64: row 16 w + g is warp w's. They
 *   are published as the registers of its first operand, and go from global memory right into these:
 *   [K / 16][row / 16][lane][4 words]. RoPE's halves, and gate and up, are two products, so they meet in one thread.
 * The norm without a pass of its own: the owner of x publishes x (1 + scale) and its share of the sum of squares; who adds
 *   up a product multiplies it by 1 / rms, which it finds while the parts are on their way. The shift rides along as row 63: its
 *   product is what has to be added to all rows.
 * Two generations of what several blocks read lie side by side, and the writer of a word clears the one before when it
 *   writes the next. It may: to write, it needed sums over all K of this layer's or the last layer's o, which every block
 *   could only give after it had read what is cleared. For the same reason nobody's sums come before those that lay in
 *   their place have been read: between two uses of a place lies a result that needs all blocks'.
 *   What is put into another block's shared memory is there when the barrier there has counted its bytes.
 * Numerics: f32 sums in a fixed order; x (1 + scale), shift, q, k, v, weights of attention, its result and gelu(gate) up
 *   rounded to bf16; h, gate, up and q, k before RoPE are not rounded (the body rounds them). Same input, same device: same bytes.
 * Bound: latency of handing over (ten times a layer), then bytes of the weights. */
#include "exchange.cuh"
#include "mma.cuh"
#include "ring.cuh"
#include "util.cuh"

#include <float.h>

typedef __nv_bfloat16 bf16;

#define CLUSTERS  15
#define RANKS     8 /* blocks of a cluster */
#define BLOCKS    (CLUSTERS * RANKS)
#define WARPS     8 /* that multiply */
#define THREADS   (WARPS * 32 + 128)
#define WIDTH     1024
#define MLP       4096
#define HEADS     8
#define HEAD      256
#define ROWS      60 /* at most: HEADS times as many (head, row) are CLUSTERS x PIECES x 8 at most */
#define SHIFT_ROW 63
#define COLUMNS   72 /* of a block in o, gate, up, down: 9 groups of 8, 5 of the first warpgroup */
#define TURNED    48 /* of a block in q, k, v, and as many half a head further: 6 groups, 3 of each warpgroup */
#define SHARES    RANKS /* of the keys */
#define SHARE     8     /* tiles of 16 keys in one, at most */
#define MAX_KEYS  (SHARES * SHARE * 16)
#define PIECES    4 /* of 8 (head, row) that a cluster has, at most */
#define KEY_LINE                                                                                             \
    (HEAD * 2 +                                                                                              \
     16) /* bytes of a line of K or V in the ring: eight lines' same columns in eight bank groups */
#define MAX_LAYERS 24
#define SQUARES                                                                                              \
    29 /* shares of the sum of squares: half of a cluster's columns each; the last half has none */

/* The layer's weights and tables; what a launch does. */
typedef struct layer {
    CUtensorMap q, k, v, o, gate, up, down;
    const float *mod, *mod_mlp; /* scale | shift | gate */
    bf16 *k_cache, *v_cache;
} layer;

typedef struct expert_args {
    layer layers[MAX_LAYERS];
    int n, rows, key_cap, table_rows;
    const float *x;
    float *out;
    const float *table;
    const int32_t *positions, *len;
    uint32_t *own;    /* the exchange, and before it the number of the layer that was run last: -1, 0, 1 .. */
    float eps, scale; /* scale: of the scores, times log2(e) */
} expert_args;

/* Where everything lies in a generation of the exchange, in words. */
#define ACT(k) ((k) / 16 * 512)
struct place {
    static constexpr int x = 0, x_mlp = x + ACT(WIDTH), squares = x_mlp + ACT(WIDTH),
                         squares_mlp = squares + SQUARES * 64, q = squares_mlp + SQUARES * 64,
                         attn = q + CLUSTERS * 16 * PIECES * 64, hidden = attn + ACT(HEADS * HEAD),
                         keys = hidden + ACT(MLP); /* then k and v: [row][head / 2] each */
    __host__ __device__ static constexpr int words(int rows)
    {
        return keys + 2 * rows * (HEAD / 2);
    }
};
#define COUNTER_WORDS 64 /* before the exchange */

/* Shared memory. */
typedef struct block_memory {
    unsigned char slots[RING_SLOTS * RING_SLOT_BYTES]; /* on a multiple of 1024 */
    float parts[8 * 10 * 128]; /* of q, k, v, and of gate, up; between them q and the weights of attention */
    float parts_o[RANKS * 5 * 128]; /* of o, and of down */
    float parts_attn[SHARES][2 * PIECES][128];
    float2 sums[SHARES][PIECES * 8];                      /* maximum and sum of each (head, row) */
    float top[SHARE][PIECES * 8], sum[SHARE][PIECES * 8]; /* by 16 keys */
    float shift[8 * 6 * 8], shift_mlp[4 * 10 * 8];        /* beside parts: the same of the shift's row */
    float rstd[WARPS][16], squares[5][16];
    uint64_t full[RING_SLOTS], empty[RING_SLOTS], there[3], fenced; /* there: of parts, parts_o, parts_attn */
    int bytes[4];                                                   /* that come to this block, by PARTS_ */
    int per, count, pieces; /* (head, row) of a cluster; of this one; in pieces of 8: PIECES, one or none */
    int keys, key_tiles;    /* of this block's share: keys, and tiles with one */
    int fresh,
        first; /* of these keys the first are the suffix's rank, rank + 8, ..; then the prefix's from `first` on */
} block_memory;

#if CUDA_WGMMA
static __device__ inline block_memory &mem(void)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    return *(block_memory *)memory;
}

static __device__ inline ring weights(void)
{
    return ring{mem().slots, cuda_shared(mem().full), cuda_shared(mem().empty)};
}

static __device__ inline uint32_t there(int area)
{
    return cuda_shared(mem().there + area);
}

/* Who a thread is. */
typedef struct self {
    int lane, warp, cluster, rank;

    __device__ int thread(void) const
    {
        return warp * 32 + lane;
    }
    __device__ int side(void) const /* its warpgroup */
    {
        return warp / 4;
    }
    __device__ int rows(void) const /* of 16: those that its warp multiplies */
    {
        return warp % 4;
    }
    __device__ int own(void) const /* the 16 rows whose sums come to this block in q, k, v, o and down */
    {
        return rank % 4;
    }
} self;

enum { AREA_QKV, AREA_O, AREA_ATTN };               /* where parts come to: parts, parts_o, parts_attn */
enum { PARTS_QKV, PARTS_MLP, PARTS_O, PARTS_ATTN }; /* of q, k, v; gate, up; o, and of down; attention */

/* ---- the fetching warp: the stream of a layer ---- */

/* 32 keys from `at` on of this block's share of K or V into a slot: the suffix's are left alone, this layer makes them; those
 * beyond the last are zeros. */
static __device__ inline void feed_keys(unsigned char *to, const bf16 *cache, int at, int lane)
{
    const bf16 *from = cache + (int64_t)(mem().first - mem().fresh + at) * HEAD + lane * 8;
    const int keys = mem().keys - at;
#pragma unroll 4
    for (int i = max(mem().fresh - at, 0); i < 32; i++)
        cuda_copy16(to + i * KEY_LINE + lane * 16, i < keys ? from + i * HEAD : cache, i < keys);
}

static __device__ inline void feed(const expert_args &a, const self &s)
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    turn n = {}, landed = {};
    int ahead = 0;
    auto claim = [&]() {
        unsigned char *to = weights().claim(n, landed, ahead == RING_FLIGHT);
        if (ahead == RING_FLIGHT)
            landed.next();
        else
            ahead++;
        return cuda_shared(to);
    };
    const int unit = s.cluster * 2 + s.rank / 4, head = unit / 3, at = unit % 3 * TURNED;
    const int hidden = (s.cluster * 4 + s.rank / 2) * COLUMNS, column = s.cluster * COLUMNS;
    const bool one = s.lane == 0;
#pragma unroll 1
    for (int l = 0; l < a.n; l++) {
        const layer &w = a.layers[l];
        const CUtensorMap *map = head < HEADS ? &w.q : head == HEADS ? &w.k : &w.v;
        int plane = head < HEADS ? head * 2 : 0;
#pragma unroll 1
        for (int i = 0; i < 4; i++, n.next()) {
            uint32_t to = claim(), bar = weights().full + 8 * n.index;
            weights().expect(n, 2 * TURNED * 128, s.lane);
            if (one)
                cuda_planes_once(to, map, s.rank % 4 * 256 + i * 64, at, plane, bar, policy);
        }
#pragma unroll 1
        for (int v = 0; v < 2; v++)
#pragma unroll 1
            for (int i = 0; i < mem().key_tiles; i += 2, n.next()) {
                claim();
                feed_keys(weights().slots + n.index * RING_SLOT_BYTES, v ? w.v_cache : w.k_cache, i * 16,
                          s.lane);
                weights().copied(n);
            }
#pragma unroll 1
        for (int i = 0; i < 14;
             i++, n.next()) { /* o: 2 slots of 128 of K; gate, up: 8 of 64; down: 4 of 128 */
            uint32_t to = claim(), bar = weights().full + 8 * n.index;
            weights().expect(n, 2 * COLUMNS * 128, s.lane);
            if (!one)
                continue;
            bool mlp = i >= 2 && i < 10;
            const CUtensorMap *first = i < 2 ? &w.o : mlp ? &w.gate : &w.down, *second = mlp ? &w.up : first;
            int k = i < 2 ? s.rank * 256 + i * 128
                    : mlp ? s.rank % 2 * 512 + (i - 2) * 64
                          : s.rank * 512 + (i - 10) * 128;
            int row = mlp ? hidden : column;
            cuda_box_once(to, first, k, row, bar, policy);
            cuda_box_once(to + COLUMNS * 128, second, mlp ? k : k + 64, row, bar, policy);
        }
    }
}

/* ---- the announcing warp ---- */

/* Tells each barrier, as soon as a phase of it is over, how many bytes the next is for; one thread. Parts that nobody sends to
 * this block (rows beyond the last) are left out. */
static __device__ inline void announce(const expert_args &a)
{
    const int area[5] = {AREA_QKV, AREA_ATTN, AREA_O, AREA_QKV, AREA_O};
    const int bytes[5] = {mem().bytes[PARTS_QKV], mem().bytes[PARTS_ATTN], mem().bytes[PARTS_O],
                          mem().bytes[PARTS_MLP], mem().bytes[PARTS_O]};
    unsigned parities = 0;
    cuda_expect_bytes(there(AREA_QKV), bytes[0] ? bytes[0] : bytes[3]);
    cuda_expect_bytes(there(AREA_ATTN), bytes[1]);
    cuda_expect_bytes(there(AREA_O), bytes[2]);
    for (int l = 0; l < a.n; l++)
#pragma unroll
        for (int i = 0; i < 5; i++)
            if (bytes[i]) {
                int next = area[i] == AREA_QKV && bytes[3 - i] ? 3 - i : i; /* q, k, v and gate, up in turn */
                cuda_mbarrier_wait(there(area[i]), parities >> area[i] & 1);
                parities ^= 1u << area[i];
                cuda_expect_bytes(there(area[i]), bytes[next]);
            }
}

/* ---- the fencing warp ---- */

/* What was cleared is so before it is written again: for that a fence has to stand between what a thread clears in a layer and
 * what it gives others in the next. It takes as long as all that is under way, so a warp of its own does it, twice a layer: the
 * others tell it, go on, and look whether it is done before they next give something. */
static __device__ inline void fence_ask(void)
{
    asm volatile("bar.arrive 2, %0;" ::"n"(WARPS * 32 + 32) : "memory");
}

static __device__ inline void fence_await(uint32_t parity)
{
    cuda_mbarrier_wait(cuda_shared(&mem().fenced), parity);
}

static __device__ inline void fence(const expert_args &a, const self &s)
{
    for (int i = 0; i < 2 * a.n; i++) {
        cuda_barrier(2, WARPS * 32 + 32);
        exchange_fence();
        if (s.lane == 0)
            cuda_mbarrier_arrive(cuda_shared(&mem().fenced));
    }
}

/* ---- the multiplying warps ---- */

static __device__ inline void together(void)
{
    cuda_barrier(1, WARPS * 32);
}

static __device__ inline uint32_t turn_over(uint32_t v)
{
    uint32_t t;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(v));
    return t;
}

/* acc[.] (+)= x w^T for this warpgroup's N columns of one or two sets, 128 of K. A slot has 64 of K of two sets, or 128 of one, in
 * boxes of COLUMNS or TURNED lines. */
template <int N, int SETS>
static __device__ inline void multiply(const self &s, turn &n, float (&acc)[SETS][N / 2], const uint4 (&x)[8],
                                       bool add)
{
    constexpr int per = 8 / SETS, box = (N == 24 ? TURNED : COLUMNS) * 128;
    turn before = n;
#pragma unroll
    for (int i = 0; i < SETS; i++) {
        uint64_t w = cuda_operand_at(cuda_shared(weights().take(n)) + (N == 24 ? 3 : 5) * 1024 * s.side(), 16,
                                     1024, WGMMA_128);
        w = (w & 0xffffffff00000000ull) |
            __shfl_sync(~0u, (uint32_t)w, 0); /* the same for the warp: uniform registers */
        cuda_wgmma_begin();
#pragma unroll
        for (int k = 0; k < per; k++)
#pragma unroll
            for (int set = 0; set < SETS; set++)
                cuda_wgmma_by<N>(acc[set], x[i * per + k],
                                 w + (uint64_t)(((SETS == 2 ? set : k / 4) * box >> 4) + k % 4 * 2),
                                 add || i || k);
        cuda_wgmma_commit();
        n.next();
    }
    cuda_wgmma_wait<0>();
#pragma unroll
    for (int set = 0; set < SETS; set++)
        cuda_settle(acc[set]);
#pragma unroll
    for (int i = 0; i < SETS; i++, before.next())
        weights().give_back(before, s.lane);
}

/* The same for HALVES x 256 of K, from the words at `from` on (of this lane), if the warp has `any` rows. While 128 of K are
 * multiplied the next are on their way. Rows g and g + 8 that are not (`low`, `high`): see exchange_settle. */
template <int N, int SETS, int HALVES>
static __device__ inline void product(const self &s, turn &n, float (&acc)[SETS][N / 2], const uint32_t *from,
                                      int any, uint32_t low = ~0u, uint32_t high = ~0u)
{
    uint4 x[2][8];
    auto wanted = [&](int) { return any; };
    auto at = [&](int eighth) { return [=](int i) { return from + (eighth * 8 + i) * 512; }; };
    exchange_ask(x[0], wanted, at(0));
    exchange_ask(x[1], wanted, at(1));
#pragma unroll
    for (int i = 0; i < 2 * HALVES; i++) {
        exchange_settle(x[i % 2], at(i), low, high);
        multiply<N, SETS>(s, n, acc, x[i % 2], i > 0);
        if (i + 2 < 2 * HALVES)
            exchange_ask(x[i % 2], wanted, at(i + 2));
    }
}

/* Words of activations from `k` on, of this warp's rows, as wgmma takes them. */
static __device__ inline const uint32_t *act_at(const self &s, const uint32_t *from, int k)
{
    return from + ((k / 16 * 4 + s.rows()) * 32 + s.lane) * 4;
}

/* This warp's COUNT groups of columns, one after the other from `at` (of this lane) on, into the block `rank` of the cluster. */
template <int COUNT>
static __device__ inline void push(const self &s, const float *acc, const void *at, int rank, int area)
{
    uint32_t to = cuda_cluster_shared(at, rank), barrier = cuda_cluster_at(there(area), rank);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        cuda_cluster_put4(to + i * 512, acc + 4 * i, barrier);
}

/* The shift's row of COUNT groups of columns, which the last warp has, likewise: [group][column]. It is added to all rows, so all
 * that own rows get it: `blocks` of them, from `rank` on. */
template <int COUNT>
static __device__ inline void push_shift(const self &s, const float *acc, const void *at, int rank,
                                         int blocks)
{
#pragma unroll 1
    for (int i = 0; i < blocks; i++) {
        uint32_t to = cuda_cluster_shared(at, rank + i), barrier = cuda_cluster_at(there(AREA_QKV), rank + i);
#pragma unroll
        for (int k = 0; k < COUNT; k++)
            cuda_cluster_put2(to + k * 32, acc[4 * k + 2], acc[4 * k + 3], barrier);
    }
}

/* y = what N blocks or warps sent, `stride` numbers apart, two by two. */
template <int N> static __device__ inline void add_up(float (&y)[4], const float *at, int stride)
{
    float4 v[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = *(const float4 *)(at + i * stride);
#pragma unroll
    for (int step = 1; step < N; step *= 2)
#pragma unroll
        for (int i = 0; i < N; i += 2 * step) {
            v[i].x += v[i + step].x;
            v[i].y += v[i + step].y;
            v[i].z += v[i + step].z;
            v[i].w += v[i + step].w;
        }
    y[0] = v[0].x;
    y[1] = v[0].y;
    y[2] = v[0].z;
    y[3] = v[0].w;
}

/* N numbers of each lane, over the eight lanes that differ in bits 2, 3 and 4 alone: `join`ed, each lane gets one of them: number
 * lane / 4 of 8, lane / 8 of 4, lane / 16 of 2. Half of what a lane has goes to the other lane of its pair each time. */
template <int N, class F> static __device__ inline float reduce_scatter(float (&v)[N], int lane, F join)
{
#pragma unroll
    for (int step = 16, n = N; step >= 4; step /= 2) {
        bool upper = lane & step;
        if (n == 1)
            v[0] = join(v[0], __shfl_xor_sync(~0u, v[0], step));
        else
#pragma unroll
            for (int i = 0; i < n / 2; i++) {
                float keep = upper ? v[i + n / 2] : v[i], give = upper ? v[i] : v[i + n / 2];
                v[i] = join(keep, __shfl_xor_sync(~0u, give, step));
            }
        n = n > 1 ? n / 2 : 1;
    }
    return v[0];
}

/* 1 / rms of rows g and g + 8 of 16, from the shares of their sums of squares: asked for, while something else goes out; then
 * awaited. A whole warp calls. */
struct norm_words {
    uint4 v[4]; /* four rows of each share */
    const uint32_t *from;

    __device__ const uint32_t *at(int i) const
    {
        return from + i * 8 * 64;
    }
    __device__ void ask(const self &s, const uint32_t *squares, int rows, bool any)
    {
        from = squares + ((s.lane / 4 * 4 + rows) * 4 + s.lane % 4) * 4;
        exchange_ask(
            v, [&](int i) { return any && i * 32 + s.lane < SQUARES * 4; }, [&](int i) { return at(i); });
    }
    __device__ float2 await(const self &s, float eps)
    {
        exchange_settle(v, [&](int i) { return at(i); });
        float r[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            r[0] += __uint_as_float(v[i].x);
            r[1] += __uint_as_float(v[i].y);
            r[2] += __uint_as_float(v[i].z);
            r[3] += __uint_as_float(v[i].w);
        }
        float sum = reduce_scatter(r, s.lane, [](float x, float y) { return x + y; });
        __syncwarp();
        mem().rstd[s.warp][s.lane % 4 * 4 + s.lane / 8] = rsqrtf(sum / WIDTH + eps);
        __syncwarp();
        return make_float2(mem().rstd[s.warp][s.lane / 4], mem().rstd[s.warp][s.lane / 4 + 8]);
    }
};

/* y = x w^T / rms + what the shift gave, which N blocks sent in parts. */
template <int N>
static __device__ inline void add_norm(const self &s, float (&y)[4], const float *at, int stride,
                                       const float *shift, int shift_stride, float2 norm)
{
    add_up<N>(y, at, stride);
    float2 z = {};
#pragma unroll
    for (int i = 0; i < N; i++) {
        float2 v = *(const float2 *)(shift + i * shift_stride + s.lane % 4 * 2);
        z.x += v.x;
        z.y += v.y;
    }
    y[0] = y[0] * norm.x + z.x;
    y[1] = y[1] * norm.x + z.y;
    y[2] = y[2] * norm.y + z.x;
    y[3] = y[3] * norm.y + z.y;
}

/* Columns 8 k .. of 16 rows as the next product reads them. y: rows g, g + 8, columns 2 t, 2 t + 1. */
static __device__ inline void publish(const self &s, uint32_t *to, uint32_t *old, int k, int rows,
                                      const float (&y)[4])
{
    int at = ((k / 2 * 4 + rows) * 32 + s.lane) * 4 + k % 2 * 2;
    exchange_store2(to + at, cuda_pack_bf16(y[0], y[1]), cuda_pack_bf16(y[2], y[3]));
    exchange_store2(old + at, NOTHING, NOTHING);
}

/* x (1 + scale) of columns 8 k .., and the shift in row 63; by the five warps that own x, of which not all have columns
 * (`mine`): the sums of their squares. */
static __device__ inline void publish_norm(const self &s, uint32_t *x_to, uint32_t *x_old,
                                           uint32_t *squares_to, uint32_t *squares_old, int k, bool mine,
                                           const float (&x)[4], const float (&scale)[2],
                                           const float (&shift)[2], int rows)
{
    const int row = s.own() * 16 + s.lane / 4;
    if (mine) {
        float u[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = row + i / 2 * 8;
            u[i] = at < rows ? x[i] * (1.0f + scale[i % 2]) : at == SHIFT_ROW ? shift[i % 2] : 0.0f;
        }
        publish(s, x_to, x_old, k, s.own(), u);
    }
    float low = x[0] * x[0] + x[1] * x[1], high = x[2] * x[2] + x[3] * x[3];
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        low += __shfl_xor_sync(~0u, low, step);
        high += __shfl_xor_sync(~0u, high, step);
    }
    if (s.lane % 4 == 0) {
        mem().squares[s.warp][s.lane / 4] = low;
        mem().squares[s.warp][s.lane / 4 + 8] = high;
    }
    cuda_barrier(4, 5 * 32);
    int share = s.cluster * 2 + s.rank / 4;
    if (s.warp == 0 && s.lane < 16 && share < SQUARES) {
        float all = 0;
#pragma unroll
        for (int i = 0; i < 5; i++)
            all += mem().squares[i][s.lane];
        int at = (share * 4 + s.own()) * 16 + s.lane;
        exchange_store(squares_to + at, __float_as_uint(all));
        exchange_store(squares_old + at, NOTHING);
    }
}

/* What o and down need behind their sums: two columns' gate, and scale and shift of the norm that follows. */
static __device__ inline void residual_needs(const float *mod, const float *next, int column,
                                             float (&gate)[2], float (&scale)[2], float (&shift)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        gate[i] = mod[2 * WIDTH + column + i];
        scale[i] = next[column + i];
        shift[i] = next[WIDTH + column + i];
    }
}

static __device__ inline void add_residual(const self &s, float (&x)[4], const float (&gate)[2])
{
    float y[4];
    add_up<RANKS>(y, mem().parts_o + s.warp * 128 + s.lane * 4, 5 * 128);
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] += y[i] * gate[i % 2];
}

/* q, k or v of a tile: columns d .. d + 7 of a head (`low`) and d + 128 .. (`high`), rows g and g + 8. */
static __device__ inline void publish_turned(const expert_args &a, const self &s, const layer &w,
                                             uint32_t *now, uint32_t *old, int head, int tile,
                                             const float (&low)[4], const float (&high)[4],
                                             const float2 (&cosine)[2], const float2 (&sine)[2],
                                             const int (&q_to)[2], int row)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (row + i * 8 >= a.rows)
            continue;
        float2 l = make_float2(low[2 * i], low[2 * i + 1]), h = make_float2(high[2 * i], high[2 * i + 1]);
        uint32_t lower =
                     cuda_pack_bf16(l.x * cosine[i].x - h.x * sine[i].x, l.y * cosine[i].y - h.y * sine[i].y),
                 upper =
                     cuda_pack_bf16(h.x * cosine[i].x + l.x * sine[i].x, h.y * cosine[i].y + l.y * sine[i].y);
        if (head < HEADS) {
            exchange_store2(now + place::q + q_to[i], lower, upper);
            exchange_store2(old + place::q + q_to[i], NOTHING, NOTHING);
            continue;
        }
        int word = (row + i * 8) * (HEAD / 2) + tile * 4 + s.lane % 4;
        int to = place::keys + (head == HEADS ? 0 : a.rows * (HEAD / 2)) + word;
        exchange_store(now + to, lower);
        exchange_store(now + to + HEAD / 4, upper);
        exchange_store(old + to, NOTHING);
        exchange_store(old + to + HEAD / 4, NOTHING);
        uint32_t *cache = (uint32_t *)(head == HEADS ? w.k_cache : w.v_cache) + word;
        cache[0] = lower;
        cache[HEAD / 4] = upper;
    }
}

#include "expert_attention.cuh"

/* gelu(x) as in cuda_gelu_of, by the fast quotient (2 ulp; 0 where the divisor is huge, as it should be). */
static __device__ inline float gelu_times(float x, float up)
{
    float u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + cuda_exp2(-2.8853900818f * u)) * up;
}

static __device__ inline void run_layers(const expert_args &a, const self &s)
{
    typedef place at;
    const int g = s.lane / 4, t = s.lane % 4, R = a.rows;
    uint32_t *exchange = a.own + COUNTER_WORDS, generation = a.own[0] + 1;
    const int words = at::words(R);
    turn n = {};
    const bool live = s.own() * 16 < R, live_mlp = s.rank % 2 * 32 < R;
    const bool shifts = s.rows() == 3 && s.lane >= 28; /* has row 63 */
    int rows16 = s.rows() * 16 < R, any = rows16 || shifts;
    asm volatile("" : "+r"(rows16), "+r"(any)); /* kept, too */

    /* x of the columns that this warp owns in o and down, if it owns any */
    const int group = s.rank / 4 * 5 + s.warp, column8 = s.cluster * 9 + group;
    const bool owner = s.warp < 5, mine = owner && group < 9 && column8 * 8 < WIDTH;
    const int column = (mine ? column8 : 0) * 8 + 2 * t, row = s.own() * 16 + g;
    float x[4] = {};
    if (owner && (live || s.own() == 3)) {
        uint32_t *now = exchange + (generation & 1) * words, *old = exchange + (~generation & 1) * words;
        float scale[2] = {}, shift[2] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = mine && row + i / 2 * 8 < R ? a.x[(row + i / 2 * 8) * WIDTH + column + i % 2] : 0.0f;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            scale[i] = a.layers[0].mod[column + i];
            shift[i] = a.layers[0].mod[WIDTH + column + i];
        }
        publish_norm(s, now + at::x, old + at::x, now + at::squares, old + at::squares, column8, mine, x,
                     scale, shift, R);
    }

    /* of q, k, v: the tile of 8 + 8 columns that this warp owns; cos and sin of its two rows; where its q goes */
    const int unit = s.cluster * 2 + s.rank / 4, head = unit / 3, tile = unit % 3 * 6 + s.warp;
    const bool turns = s.warp < 6 && tile < 16;
    int q_to[2] = {}, turn_at[2] = {};
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (turns && row + i * 8 < R) {
            turn_at[i] = cuda_count(a.positions + row + i * 8, a.table_rows - 1) * HEAD + tile * 8 + 2 * t;
            int flat = head * R + row + i * 8, to = flat / mem().per, line = flat - to * mem().per;
            q_to[i] = (((to * 16 + tile) * PIECES + line / 8) * 32 + line % 8 * 4 + t) * 2;
        }
    const int attn_to = attention_place(s, R);

#pragma unroll 1
    for (int l = 0; l < a.n; l++) {
        const layer &w = a.layers[l];
        uint32_t *now = exchange + ((generation + (unsigned)l) & 1) * words,
                 *old = exchange + (~(generation + (unsigned)l) & 1) * words;
        { /* q, k, v */
            float acc[2][12], low[4], high[4];
            float2 cosine[2] = {make_float2(1, 1), make_float2(1, 1)}, sine[2] = {};
            if (turns && head <= HEADS)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    cosine[i] = *(const float2 *)(a.table + turn_at[i]);
                    sine[i] = *(const float2 *)(a.table + turn_at[i] + HEAD / 2);
                }
            product<24, 2, 1>(s, n, acc, act_at(s, now + at::x, s.rank % 4 * 256), any);
            norm_words squares;
            squares.ask(s, now + at::squares, s.own(), live && turns);
            if (l)
                fence_await(1);
            /* [part of K][warpgroup][set][group] */
            const int part = (s.rank % 4 * 2 + s.side()) * 6;
            float *to = mem().parts + part * 128 + s.lane * 4,
                  *shift_to = mem().shift + part * 8 + s.lane % 4 * 2;
            if (shifts) {
                push_shift<3>(s, acc[0], shift_to, s.rank / 4 * 4, min((R + 15) / 16, 4));
                push_shift<3>(s, acc[1], shift_to + 3 * 8, s.rank / 4 * 4, min((R + 15) / 16, 4));
            }
            if (rows16) {
                push<3>(s, acc[0], to, s.rank / 4 * 4 + s.rows(), AREA_QKV);
                push<3>(s, acc[1], to + 3 * 128, s.rank / 4 * 4 + s.rows(), AREA_QKV);
            }
            float2 norm = {};
            if (live && turns)
                norm = squares.await(s, a.eps);
            if (live)
                cuda_mbarrier_wait(there(AREA_QKV), live_mlp ? 0 : l & 1);
            if (live && turns) {
                const int from = s.warp / 3 * 6 + s.warp % 3;
                const float *sums = mem().parts + from * 128 + s.lane * 4, *shift = mem().shift + from * 8;
                add_norm<4>(s, low, sums, 2 * 6 * 128, shift, 2 * 6 * 8, norm);
                add_norm<4>(s, high, sums + 3 * 128, 2 * 6 * 128, shift + 3 * 8, 2 * 6 * 8, norm);
                publish_turned(a, s, w, now, old, head, tile, low, high, cosine, sine, q_to, row);
            }
        }
        if (mem().pieces == 1)
            attend<1>(a, s, now, old, n, l & 1, attn_to);
        else if (mem().pieces)
            attend<PIECES>(a, s, now, old, n, l & 1, attn_to);
        { /* o */
            float acc[1][20], gate[2], scale[2], shift[2];
            uint32_t low = s.rows() * 16 + g < R ? ~0u : 0, high = s.rows() * 16 + g + 8 < R ? ~0u : 0;
            residual_needs(w.mod, w.mod_mlp, column, gate, scale, shift);
            product<40, 1, 1>(s, n, acc, act_at(s, now + at::attn, s.rank * 256), low != 0, low, high);
            if (rows16)
                push<5>(s, acc[0], mem().parts_o + s.rank * 5 * 128 + s.lane * 4, s.side() * 4 + s.rows(),
                        AREA_O);
            if (live)
                cuda_mbarrier_wait(there(AREA_O), 0);
            if (owner && (live || s.own() == 3)) {
                if (live && mine)
                    add_residual(s, x, gate);
                publish_norm(s, now + at::x_mlp, old + at::x_mlp, now + at::squares_mlp,
                             old + at::squares_mlp, column8, mine, x, scale, shift, R);
            }
            fence_ask();
        }
        { /* gate, up */
            float acc[2][20];
            product<40, 2, 2>(s, n, acc, act_at(s, now + at::x_mlp, s.rank % 2 * 512), any);
            const int rows = s.rank % 2 * 2 + s.warp % 2, first = (s.cluster * 4 + s.rank / 2) * 9;
            norm_words squares;
            squares.ask(s, now + at::squares_mlp, rows, rows * 16 < R);
            fence_await(0);
            /* [part of K][warpgroup][16 rows of 32][set][group] */
            const int part = s.rank % 2 * 2 + s.side();
            float *to = mem().parts + (part * 2 + s.rows() % 2) * 10 * 128 + s.lane * 4,
                  *shift_to = mem().shift_mlp + part * 10 * 8 + s.lane % 4 * 2;
            if (shifts) {
                push_shift<5>(s, acc[0], shift_to, s.rank / 2 * 2, R > 32 ? 2 : 1);
                push_shift<5>(s, acc[1], shift_to + 5 * 8, s.rank / 2 * 2, R > 32 ? 2 : 1);
            }
            if (rows16) {
                push<5>(s, acc[0], to, s.rank / 2 * 2 + s.rows() / 2, AREA_QKV);
                push<5>(s, acc[1], to + 5 * 128, s.rank / 2 * 2 + s.rows() / 2, AREA_QKV);
            }
            float2 norm = {};
            if (rows * 16 < R)
                norm = squares.await(s, a.eps);
            if (live_mlp)
                cuda_mbarrier_wait(there(AREA_QKV), live ? 1 : l & 1);
            if (rows * 16 < R)
#pragma unroll 1
                for (int i = s.warp / 2; i < 9 && first + i < MLP / 8; i += 4) {
                    float y[4], up[4];
                    const float *sums =
                                    mem().parts + ((i / 5 * 2 + s.warp % 2) * 10 + i % 5) * 128 + s.lane * 4,
                                *shift = mem().shift_mlp + (i / 5 * 10 + i % 5) * 8;
                    add_norm<2>(s, y, sums, 4 * 10 * 128, shift, 2 * 10 * 8, norm);
                    add_norm<2>(s, up, sums + 5 * 128, 4 * 10 * 128, shift + 5 * 8, 2 * 10 * 8, norm);
#pragma unroll
                    for (int k = 0; k < 4; k++)
                        y[k] = rows * 16 + g + k / 2 * 8 < R ? gelu_times(y[k], up[k]) : 0.0f;
                    publish(s, now + at::hidden, old + at::hidden, first + i, rows, y);
                }
        }
        { /* down */
            float acc[1][20], gate[2], scale[2], shift[2];
            const float *mod = l + 1 < a.n ? a.layers[l + 1].mod : NULL;
            residual_needs(w.mod_mlp, mod ? mod : w.mod, column, gate, scale, shift);
            product<40, 1, 2>(s, n, acc, act_at(s, now + at::hidden, s.rank * 512), rows16);
            if (rows16)
                push<5>(s, acc[0], mem().parts_o + s.rank * 5 * 128 + s.lane * 4, s.side() * 4 + s.rows(),
                        AREA_O);
            if (live)
                cuda_mbarrier_wait(there(AREA_O), 1);
            if (owner && (live || s.own() == 3)) {
                if (live && mine)
                    add_residual(s, x, gate);
                if (mod) /* the next layer's: the other generation */
                    publish_norm(s, old + at::x, now + at::x, old + at::squares, now + at::squares, column8,
                                 mine, x, scale, shift, R);
            }
            fence_ask();
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (mine && row + i / 2 * 8 < R)
            a.out[(row + i / 2 * 8) * WIDTH + column + i % 2] = x[i];
}
#endif

#if CUDA_WGMMA || !defined(__CUDA_ARCH__)
#define TOGETHER __cluster_dims__(RANKS)
#else
#define TOGETHER /* an empty kernel, which is never launched */
#endif

static __global__ void TOGETHER __launch_bounds__(THREADS, 1) expert(const __grid_constant__ expert_args a)
{
#if CUDA_WGMMA
    self s = {(int)threadIdx.x % 32, (int)threadIdx.x / 32, (int)blockIdx.x / RANKS, (int)blockIdx.x % RANKS};
    cuda_begin();
    if (s.thread() == 0) {
        weights().init(WARPS);
        for (int i = 0; i < 3; i++)
            cuda_mbarrier_init(there(i), 1);
        cuda_mbarrier_init(cuda_shared(&mem().fenced), 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        const int R = a.rows, len = cuda_count(a.len, a.key_cap), own = min(R, len),
                  share = (len + SHARES - 1) / SHARES;
        mem().per = (HEADS * R + CLUSTERS - 1) / CLUSTERS;
        mem().count = max(0, min(mem().per, HEADS * R - s.cluster * mem().per));
        mem().pieces = mem().count > 8 ? PIECES : mem().count > 0; /* one is worth code of its own */
        mem().fresh = own / SHARES + (s.rank < own % SHARES);
        mem().first = R + s.rank * share - (own / SHARES * s.rank + min(own % SHARES, s.rank));
        mem().keys = mem().fresh + max(0, min(share - mem().fresh, len - mem().first));
        mem().key_tiles = mem().pieces ? (mem().keys + 15) / 16 : 0;
        mem().bytes[PARTS_QKV] = s.own() * 16 < R ? 8 * 6 * (512 + 32) : 0;
        mem().bytes[PARTS_MLP] =
            s.rank % 2 * 32 < R ? 4 * 10 * ((s.rank % 2 * 32 + 16 < R ? 2 : 1) * 512 + 32) : 0;
        mem().bytes[PARTS_O] = s.own() * 16 < R ? 8 * 5 * 512 : 0;
        mem().bytes[PARTS_ATTN] = mem().pieces * (8 * 1024 + 8 * 64);
    }
    cuda_cluster_barrier();
    if (threadIdx.x >= WARPS * 32) {
        cuda_registers_fewer<40>();
        if (s.warp == WARPS)
            feed(a, s);
        else if (s.warp == WARPS + 1 && s.lane == 0)
            announce(a);
        else if (s.warp == WARPS + 2)
            fence(a, s);
    } else {
        cuda_registers_more<176>(); /* from 192 on ptxas spills, with 240 the layer took 3 us longer */
        /* kept, not computed anew in every phase */
        asm volatile("" : "+r"(s.lane), "+r"(s.warp), "+r"(s.cluster), "+r"(s.rank));
        run_layers(a, s);
    }
    __syncwarp();
    cuda_cluster_barrier(); /* nobody counts at this block's barriers any more */
    if (threadIdx.x == 0 && blockIdx.x == 0)
        a.own[0] += (uint32_t)a.n;
#endif
}

/* ---- host ---- */

static bool is(const pv_tensor *t, pv_dtype dtype, int64_t rows, int64_t width)
{
    return t->dtype == dtype && t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == width;
}

#define SHARED ((int)sizeof(block_memory))

static bool accepts(const cuda_device *device, const pv_node *n)
{
    const pv_expert_attr *a = &n->attr.expert;
    int64_t rows = n->in[0]->dim[0], keys = n->in[12]->dim[0];
    return a->heads == HEADS && a->kv_heads == 1 && a->store == 0 && a->first == 0 && rows <= ROWS &&
           rows <= keys && keys <= MAX_KEYS && is(n->in[0], PV_F32, rows, WIDTH) &&
           n->in[1]->dtype == PV_F32 && n->in[2]->dtype == PV_F32 && n->in[10]->dtype == PV_F32 &&
           is(n->in[3], PV_BF16, HEADS * HEAD, WIDTH) && is(n->in[4], PV_BF16, HEAD, WIDTH) &&
           is(n->in[5], PV_BF16, HEAD, WIDTH) && is(n->in[6], PV_BF16, WIDTH, HEADS * HEAD) &&
           is(n->in[7], PV_BF16, MLP, WIDTH) && is(n->in[8], PV_BF16, MLP, WIDTH) &&
           is(n->in[9], PV_BF16, WIDTH, MLP) && n->in[12]->dtype == PV_BF16 && n->in[13]->dtype == PV_BF16 &&
           n->out[0]->dtype == PV_F32 &&
           cuda_at_once(device, (const void *)expert, CLUSTERS, RANKS, THREADS, SHARED);
}

static size_t own(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return sizeof(uint32_t) * (COUNTER_WORDS + 2 * (size_t)place::words((int)n->in[0]->dim[0]));
}

/* The same in everything but weights, modulation and caches, which are of one size. */
static bool joins(const cuda_call *c, const cuda_call *next)
{
    return c->node->in[12]->dim[0] == next->node->in[12]->dim[0] &&
           c->node->in[10]->dim[0] == next->node->in[10]->dim[0] &&
           c->node->attr.expert.eps == next->node->attr.expert.eps &&
           c->node->attr.expert.scale == next->node->attr.expert.scale && c->in[10] == next->in[10] &&
           c->in[11] == next->in[11] && c->in[14] == next->in[14];
}

static cudaError_t maps_of(layer *l, const cuda_call *c)
{
    struct {
        CUtensorMap *map;
        int64_t planes, rows, width;
        int box_planes, box_rows;
    } maps[] = {
        {&l->q, 2 * HEADS, HEAD / 2, WIDTH, 2,
         TURNED}, /* half a head's columns and the other half's in one box */
        {&l->k, 2, HEAD / 2, WIDTH, 2, TURNED},
        {&l->v, 2, HEAD / 2, WIDTH, 2, TURNED},
        {&l->o, 1, WIDTH, HEADS * HEAD, 1, COLUMNS},
        {&l->gate, 1, MLP, WIDTH, 1, COLUMNS},
        {&l->up, 1, MLP, WIDTH, 1, COLUMNS},
        {&l->down, 1, WIDTH, MLP, 1, COLUMNS},
    };
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 7 && e == cudaSuccess; i++)
        e = cuda_tensor_planes(maps[i].map, c->in[3 + i], maps[i].planes, maps[i].rows, maps[i].width,
                               maps[i].box_planes, maps[i].box_rows);
    l->mod = (const float *)c->in[1];
    l->mod_mlp = (const float *)c->in[2];
    l->k_cache = (bf16 *)c->out[1];
    l->v_cache = (bf16 *)c->out[2];
    return e;
}

static cudaError_t launch(const expert_args &a, cudaStream_t stream)
{
    cudaError_t e = cudaFuncSetAttribute(expert, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (e != cudaSuccess)
        return e;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(BLOCKS);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = SHARED;
    config.stream = stream;
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    config.attrs = &together;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, expert, a);
}

static cudaError_t enqueue(const cuda_call *c)
{
    const pv_node *n = c->node;
    expert_args a = {};
    a.rows = (int)n->in[0]->dim[0];
    a.key_cap = (int)n->in[12]->dim[0];
    a.table_rows = (int)n->in[10]->dim[0];
    a.x = (const float *)c->in[0];
    a.table = (const float *)c->in[10];
    a.positions = (const int32_t *)c->in[11];
    a.len = (const int32_t *)c->in[14];
    a.own = (uint32_t *)c->own;
    a.eps = n->attr.expert.eps;
    a.scale = n->attr.expert.scale * 1.4426950408889634f;
    cudaStream_t stream = c->stream;
    cudaError_t e = cudaSuccess;
    while (c && e == cudaSuccess) { /* MAX_LAYERS at a time */
        for (a.n = 0; c && a.n < MAX_LAYERS && e == cudaSuccess; c = c->then) {
            a.out = (float *)c->out[0];
            e = maps_of(&a.layers[a.n++], c);
        }
        if (e == cudaSuccess)
            e = launch(a, stream);
        a.x = a.out;
    }
    return e;
}

extern "C" {
const cuda_kernel cuda_expert_block = {accepts, enqueue, NULL, own, joins};
}
