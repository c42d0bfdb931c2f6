/* expert.cu - expert_block: layers of the action expert, as many as stand in a row, in one kernel.
 *
 * Computes, for each layer of Gemma-300M with adaRMS: h = rms(x) (1 + scale) + shift; q, k, v = h w^T, q and k turned by
 *   RoPE, k and v stored in the cache; attention of 8 heads over one K/V head; x += gate (attn w_o^T); the same norm by the
 *   second modulation; x += gate' ((gelu(gate) up) w_down^T).
 * Launch: 128 blocks that all run at once (cooperative), one a multiprocessor; 8 warps multiply, 2 fetch weights, and later K
 *   and V of the prefix, into a ring in shared memory, in the order in which they will be used and as far ahead as there is
 *   room: so the stream of weights does not stop while a phase waits for the one before it.
 * A layer has five phases. Each splits its weights over all blocks, along the columns of the product and along K:
 *
 *   phase     tiles of 16 columns    K      blocks            a block's share
 *   qkv       160                    1024   32 x 4 along K     5 tiles x 256
 *   attention 8 heads x 8 shares of the keys x 2 halves of the rows: up to 128 keys
 *   o         64                     2048   16 x 8             4 x 256
 *   gate, up  512 (8 of each)        1024   64 x 2             8 x 512
 *   down      64                     4096   16 x 8             4 x 512
 *
 *   The blocks that share columns hand their partial sums to one owner of each piece of 16 columns x 8 rows, which adds them
 *   two by two in the order of the blocks, does what follows (norm, RoPE, GeGLU, residual) and publishes the result. Blocks tell
 *   one another through words that say by themselves that they are there (exchange.cuh).
 * Layout: weights as stored. Everything that is multiplied next is published the way mma.sync wants its second operand:
 *   [K / 16][row / 8][lane][2 words]; the first operand are the weights, so an accumulator piece, turned over by movmatrix, is
 *   just one such group of 256 bytes. RoPE's halves and GeGLU's pairs are put into lines g and g + 8 of one tile, so that
 *   they meet in one thread.
 * The norm without a pass of its own: the owner of x publishes x (1 + scale) and its share of the sum of squares; each
 *   block multiplies its part of the product by 1 / rms. The shift rides along as one more row of x: its product is what has
 *   to be added to all rows.
 * Two generations of what several blocks read lie side by side, and the writer of a word clears the one before when it
 *   writes the next. It may: to write, it needed sums over all K of this layer's or the last layer's o, which every block
 *   could only give after it had read what is cleared. Of partial sums, which are all written anew in each layer, the last
 *   bit tells the generation, and nothing is cleared.
 * Numerics: f32 sums in a fixed order; x (1 + scale), shift, q, k, v, weights of attention, its result and gelu(gate) up
 *   rounded to bf16; h, gate, up and q, k before RoPE are not rounded (the body rounds them). Same input, same device: same bytes.
 * Size: the loop over phases is kept small, every function that is not tiny stands in it once: unrolled or inlined more often it
 *   outgrows the instruction cache, which costs more than all else (docs/cuda.md).
 * Bound: latency of handing over (ten times a layer), then bytes of the weights. */
#include "exchange.cuh"
#include "mma.cuh"
#include "ring.cuh"
#include "util.cuh"

#include <float.h>

typedef __nv_bfloat16 bf16;

#define BLOCKS     128
#define WARPS      8 /* that multiply */
#define FEEDERS    2 /* that fetch, one tile each at a time: more on their way would keep all else waiting */
#define THREADS    ((WARPS + FEEDERS) * 32)
#define WIDTH      1024
#define MLP        4096
#define HEADS      8
#define HEAD       256
#define MAX_LAYERS 32
#define SHARES     8 /* of the keys */
#define SHARE      8 /* tiles of 16 keys in one, at most */
#define MAX_KEYS   (SHARES * SHARE * 16)

/* The layer's weights and tables; what a launch does. */
typedef struct layer {
    const bf16 *q, *k, *v, *o, *gate, *up, *down;
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

/* Where everything lies in the exchange, in words. `NT`: pieces of 8 rows. */
template <int NT> struct place {
    static constexpr int act(int k)
    {
        return k / 16 * NT * 64;
    }
    /* twice: two generations */
    static constexpr int x = 0, x_mlp = x + act(WIDTH), squares = x_mlp + act(WIDTH),
                         squares_mlp = squares + NT * 512, q = squares_mlp + NT * 512,
                         k = q + act(HEADS * HEAD), v = k + NT * 8 * HEAD / 2, attn = v + NT * 8 * HEAD / 2,
                         hidden = attn + act(HEADS * HEAD), sums = hidden + act(MLP),
                         generation = sums + HEADS * SHARES * NT * 16;
    /* once: partial sums, whose last bit tells the generation */
    static constexpr int part_qkv = 2 * generation, part_o = part_qkv + 160 * NT * 4 * 128,
                         part_mlp = part_o + 64 * NT * 8 * 128, part_down = part_mlp + 512 * NT * 2 * 128,
                         part_attn = part_down + 64 * NT * 8 * 128,
                         words = part_attn + HEADS * 16 * NT * SHARES * 128;
};
#define COUNTER_WORDS 64 /* before the exchange */

template <int NT> struct shape {
    static constexpr int slots = NT > 2 ? 20 : 25;
    static constexpr int acts = 32 * NT * 256; /* bytes: 512 of K */
    static constexpr int shared =
        slots * TILE_BYTES + acts + (NT + 2 * SHARE * ((NT + 1) / 2)) * 8 * 4 + 2 * slots * 8;
};

/* What a block's threads share. */
template <int NT> struct block {
    ring<shape<NT>::slots> weights;
    unsigned char *acts;
    float *top, *sum; /* [SHARE][half of the rows]: of attention, by 16 keys */
    float *rstd;      /* [NT * 8]: 1 / rms of x's rows */
};

/* ---- the fetching warps: the stream of a layer ---- */

/* Where a tile comes from: lines 0 .. 7 and 8 .. 15, `ld` numbers from one to the next. Lines before `from` are left alone, those
 * from `to` on are zeros. */
typedef struct source {
    const bf16 *upper, *lower;
    int ld, from, to;
} source;

/* Keys that each share holds, a multiple of 16; and of block `share` how many tiles of 16 have a valid key. */
static __device__ inline int share_keys(int len)
{
    return (len + SHARES * 16 - 1) / (SHARES * 16) * 16;
}

static __device__ inline int share_tiles(int len, int share)
{
    int keys = share_keys(len), left = len - share * keys;
    return left <= 0 ? 0 : ((left < keys ? left : keys) + 15) / 16;
}

/* Tile `i` of what this block takes of a layer. */
static __device__ inline source find(const expert_args &a, const layer &w, int i, int key_tiles, int keys,
                                     int len)
{
    int b = (int)blockIdx.x;
    const bf16 *at;
    if (i < 5) { /* q, k, v: lines g and g + 8 are the columns d and d + 128 of a head */
        int tile = b / 4 * 5 + i;
        at = tile < 128 ? w.q + tile / 16 * HEAD * WIDTH : tile < 144 ? w.k : w.v;
        at += tile % 16 * 8 * WIDTH + b % 4 * 256;
        return source{at, at + HEAD / 2 * WIDTH, WIDTH, 0, 16};
    }
    i -= 5;
    if (i < 2 * key_tiles) { /* the prefix's; this layer makes those of the suffix */
        int first = b / 2 % SHARES * keys + i % key_tiles * 16;
        at = (i < key_tiles ? w.k_cache : w.v_cache) + first * HEAD;
        return source{at, at + 8 * HEAD, HEAD, a.rows - first, len - first};
    }
    i -= 2 * key_tiles;
    if (i < 4) {
        at = w.o + (b / 8 * 64 + i * 16) * (HEADS * HEAD) + b % 8 * 256;
        return source{at, at + 8 * HEADS * HEAD, HEADS * HEAD, 0, 16};
    }
    i -= 4;
    if (i < 16) {
        int from = (b / 2 * 64 + i % 8 * 8) * WIDTH + b % 2 * 512 + i / 8 * 256;
        return source{w.gate + from, w.up + from, WIDTH, 0, 16};
    }
    i -= 16;
    at = w.down + (b / 8 * 64 + i % 4 * 16) * MLP + b % 8 * 512 + i / 4 * 256;
    return source{at, at + 8 * MLP, MLP, 0, 16};
}

template <int NT>
static __device__ void feed(const expert_args &a, const block<NT> &s, int feeder, int lane, int len)
{
    int share = (int)blockIdx.x / 2 % SHARES, key_tiles = share_tiles(len, share), keys = share_keys(len);
    int each = 5 + 2 * key_tiles + 4 + 16 + 8;
    uint64_t policy = ring_policy();
    unsigned n = (unsigned)feeder;
#pragma unroll 1
    for (int l = 0, i = feeder; l < a.n; n += FEEDERS) {
        source from = find(a, a.layers[l], i, key_tiles, keys, len);
        const bf16 *upper = from.upper + lane * 8, *lower = from.lower + lane * 8;
        unsigned char *to = s.weights.claim(n) + lane * 16;
        if (from.to >= TILE_LINES && from.from <= 0) {
#pragma unroll
            for (int line = 0; line < 8; line++)
                ring_copy16(to + line * TILE_LINE, upper + line * from.ld, true, policy);
#pragma unroll
            for (int line = 0; line < 8; line++)
                ring_copy16(to + (8 + line) * TILE_LINE, lower + line * from.ld, true, policy);
        } else {
#pragma unroll 1
            for (int line = from.from < 0 ? 0 : from.from; line < TILE_LINES; line++)
                ring_copy16(to + line * TILE_LINE, line < from.to ? upper + line * from.ld : upper,
                            line < from.to, policy);
        }
        s.weights.filled(n);
        cuda_copy_commit();
        cuda_copy_wait<0>();
        for (i += FEEDERS; i >= each; i -= each)
            l++;
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

/* `halves` x 256 of K of what is multiplied next into shared memory, by all warps; with `squares` (of x, 64 shares a row) 1 / rms of
 * the rows as well, by a warp for each piece of 8. */
template <int NT>
static __device__ inline void gather(const block<NT> &s, const uint32_t *from, int halves,
                                     const uint32_t *squares, float eps)
{
    constexpr int threads = WARPS * 32; /* NT vectors a thread make a half */
    int thread = (int)threadIdx.x, lane = thread % 32, piece = thread / 32;
    bool norm = squares && piece < NT;
    uint4 v[2 * NT + 4];
    from += thread * 4;
    squares += piece * 512 + lane * 4;
    exchange_wait(
        v, [&](int i) { return i < NT || (i < 2 * NT ? halves == 2 : norm); },
        [&](int i) { return i < 2 * NT ? from + i * threads * 4 : squares + (i - 2 * NT) * 128; });
    together(); /* nobody still reads what was there */
#pragma unroll
    for (int i = 0; i < 2 * NT; i++)
        if (i < NT || halves == 2)
            *(uint4 *)(s.acts + (thread + i * threads) * 16) = v[i];
    if (norm) {
        float r[4] = {};
#pragma unroll
        for (int i = 2 * NT; i < 2 * NT + 4; i++) {
            r[0] += __uint_as_float(v[i].x);
            r[1] += __uint_as_float(v[i].y);
            r[2] += __uint_as_float(v[i].z);
            r[3] += __uint_as_float(v[i].w);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int step = 2; step < 32; step *= 2)
                r[i] += __shfl_xor_sync(~0u, r[i], step);
            r[i] = rsqrtf(r[i] / WIDTH + eps);
        }
        if (lane < 2) /* even lanes have rows 0 .. 3, odd ones 4 .. 7 */
            *(float4 *)(s.rstd + piece * 8 + lane * 4) = make_float4(r[0], r[1], r[2], r[3]);
    }
    together();
}

/* acc[t] += tile x acts for the pieces n0 .. n0 + T of 8 rows; 16 steps of 16. The second 8 numbers of a step stand LOWER bytes
 * behind the first 8: side by side, or, of keys, half a head apart, as q has them. */
template <int NT, int T, int LOWER, int ROOM>
static __device__ inline void multiply(float (&acc)[ROOM][4], const unsigned char *tile,
                                       const unsigned char *acts, int n0, int lane)
{
    constexpr int step = LOWER == 16 ? 32 : 16;
    const unsigned char *line = tile + lane % 16 * TILE_LINE + lane / 16 * LOWER,
                        *x = acts + n0 * 256 + lane * 8;
#pragma unroll 2
    for (int k = 0; k < 16; k++) {
        uint32_t w[4];
        cuda_ldmatrix(w, line + k * step);
#pragma unroll
        for (int t = 0; t < T; t++) {
            uint2 v = *(const uint2 *)(x + (k * NT + t) * 256);
            cuda_mma(acc[t], w, v.x, v.y);
        }
    }
}

/* The phases of a layer: how many blocks share K, and a block's part: tiles of 16 columns, and of K halves of 256. Attention
 * reads q of one head. */
enum { QKV, ATTENTION, O, GATE_UP, DOWN, PHASES };
typedef struct cut {
    int split, tiles, halves;
} cut;
static __constant__ cut cuts[PHASES] = {{4, 5, 1}, {HEADS, 0, 1}, {8, 4, 1}, {2, 8, 2}, {8, 4, 2}};

/* Which pieces of its block's part a warp computes: all of one tile, or half of it. */
struct mine {
    int m, n0, count;
    template <int NT> static __device__ mine of(int tiles, int warp)
    {
        const int half = (NT + 1) / 2;
        mine p = {warp, 0, warp < tiles ? NT : 0};
        if (tiles == 4)
            p = {warp / 2, warp % 2 * half, warp % 2 ? NT - half : half};
        return p;
    }
};

/* Hands out a warp's `count` pieces, in as many parts as blocks share K, and brings what this block owns of them: piece `owned`,
 * `owned` + split and so on. y[j]: the sums of all parts, added two by two in the order of the blocks. The parts of a piece
 * lie side by side. */
template <int NT>
static __device__ inline void add_parts(uint32_t *parts, const float (&acc)[NT][4], int split, int mine,
                                        int owned, int count, unsigned generation, float (&y)[4][4])
{
#pragma unroll
    for (int t = 0; t < NT; t++)
        if (t < count)
            exchange_store_f32(parts + (t * split + mine) * 128, acc[t], generation);
    uint4 v[8];
    int shift = __ffs(split) - 1;
    /* pieces that there are not: the first one again */
    auto at = [&](int i) {
        int piece = owned + (i >> shift << shift);
        return parts + (((piece < count ? piece : owned) << shift) + (i & (split - 1))) * 128;
    };
    if (owned >= count)
        return;
    exchange_wait_f32(v, generation, at);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float two[4], four[2];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint4 &p = v[2 * j], &q = v[2 * j + 1];
            two[j] = __uint_as_float(k == 0   ? p.x
                                     : k == 1 ? p.y
                                     : k == 2 ? p.z
                                              : p.w) +
                     __uint_as_float(k == 0   ? q.x
                                     : k == 1 ? q.y
                                     : k == 2 ? q.z
                                              : q.w);
        }
        four[0] = two[0] + two[1];
        four[1] = two[2] + two[3];
        y[0][k] = split == 2 ? two[0] : split == 4 ? four[0] : four[0] + four[1];
        y[1][k] = split == 2 ? two[1] : four[1];
        y[2][k] = two[2];
        y[3][k] = two[3];
    }
}

/* A piece of 16 columns x 8 rows as the next product reads it. */
template <int NT>
static __device__ inline void publish(uint32_t *to, uint32_t *old, int k, int n, uint32_t upper,
                                      uint32_t lower, int lane)
{
    int at = ((k * NT + n) * 32 + lane) * 2;
    exchange_store2(to + at, turn_over(upper), turn_over(lower));
    exchange_store2(old + at, NOTHING, NOTHING);
}

/* x (1 + scale), its squares, and the shift in the last row of all. x: columns g, g + 8 of tile `tile`, rows 2t, 2t + 1. */
template <int NT>
static __device__ inline void
publish_norm(uint32_t *to, uint32_t *old, uint32_t *squares, uint32_t *old_squares, int tile, int n,
             const float (&x)[4], const float (&scale)[2], const float (&shift)[2], int rows, int lane)
{
    float u[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = n * 8 + lane % 4 * 2 + i % 2;
        u[i] = row < rows ? x[i] * (1.0f + scale[i / 2]) : row == NT * 8 - 1 ? shift[i / 2] : 0.0f;
    }
    publish<NT>(to, old, tile, n, cuda_pack_bf16(u[0], u[1]), cuda_pack_bf16(u[2], u[3]), lane);
    float s0 = x[0] * x[0] + x[2] * x[2], s1 = x[1] * x[1] + x[3] * x[3];
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
        s0 += __shfl_xor_sync(~0u, s0, step);
        s1 += __shfl_xor_sync(~0u, s1, step);
    }
    if (lane < 4) {
        int at = (n * 64 + tile) * 8 + lane * 2;
        exchange_store2(squares + at, __float_as_uint(s0), __float_as_uint(s1));
        exchange_store2(old_squares + at, NOTHING, NOTHING);
    }
}

/* q, k or v of one piece: columns d and d + 128 of a head in lines g and g + 8; cos and sin of two rows (v's: 1 and 0). */
template <int NT>
static __device__ inline void turn_and_publish(const expert_args &a, const layer &w, uint32_t *now,
                                               uint32_t *old, int tile, int n, const float (&y)[4],
                                               float4 turn, int lane)
{
    typedef place<NT> at;
    float upper[2], lower[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float c = i ? turn.z : turn.x, s = i ? turn.w : turn.y;
        bool there = n * 8 + lane % 4 * 2 + i < a.rows;
        upper[i] = there ? y[i] * c - y[2 + i] * s : 0;
        lower[i] = there ? y[2 + i] * c + y[i] * s : 0;
    }
    uint32_t hi = cuda_pack_bf16(upper[0], upper[1]), lo = cuda_pack_bf16(lower[0], lower[1]);
    if (tile < 128) {
        publish<NT>(now + at::q, old + at::q, tile, n, hi, lo, lane);
        return;
    }
    hi = turn_over(hi);
    lo = turn_over(lo);
    int key = n * 8 + lane / 4, word = key * (HEAD / 2) + tile % 16 * 4 + lane % 4;
    int to = tile < 144 ? at::k : at::v;
    exchange_store(now + to + word, hi); /* of all rows: the next launch may have more */
    exchange_store(now + to + word + HEAD / 4, lo);
    exchange_store(old + to + word, NOTHING);
    exchange_store(old + to + word + HEAD / 4, NOTHING);
    if (key >= a.rows)
        return;
    uint32_t *cache = (uint32_t *)(tile < 144 ? w.k_cache : w.v_cache);
    cache[word] = hi;
    cache[word + HEAD / 4] = lo;
}

/* The suffix's own keys and values, into the tiles of this share that they belong to. */
template <int NT>
static __device__ inline void bring_suffix(const block<NT> &s, const uint32_t *k, const uint32_t *v,
                                           unsigned n, int key_tiles, int first, int rows, int thread)
{
    int keys = rows - first < key_tiles * 16 ? rows - first : key_tiles * 16;
    constexpr int vectors = HEAD / 8; /* of a line of k or v */
    uint4 x[NT * 2];
    auto there = [&](int i) { return thread + i * WARPS * 32 < keys * 2 * vectors; };
    auto line = [&](int i) { return thread / (2 * vectors) + i * (WARPS * 32 / (2 * vectors)); };
    int column = thread % vectors;
    bool is_v = thread / vectors % 2;
    exchange_wait(x, there,
                  [&](int i) { return (is_v ? v : k) + ((first + line(i)) * vectors + column) * 4; });
    for (int i = 0; i < 2 * key_tiles; i++)
        s.weights.take(n + (unsigned)i); /* a slot is the tile's own as soon as what else is in it has come */
#pragma unroll
    for (int i = 0; i < NT * 2; i++)
        if (there(i))
            *(uint4 *)(s.weights.tile(n + (unsigned)(line(i) / 16 + (is_v ? key_tiles : 0))) +
                       line(i) % 16 * TILE_LINE + column * 16) = x[i];
}

/* One head's attention of half of the rows over this block's share of the keys: what comes out is not yet divided. */
template <int NT>
static __device__ inline void attend(const expert_args &a, const block<NT> &s, uint32_t *now, uint32_t *old,
                                     uint32_t *parts, unsigned generation, unsigned &n, int len)
{
    typedef place<NT> at;
    constexpr int most = (NT + 1) / 2, line = most * 8; /* of top and sum */
    int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32, b = (int)blockIdx.x;
    int head = b / (2 * SHARES), share = b / 2 % SHARES, n0 = b % 2 * most, count = b % 2 ? NT - most : most;
    int key_tiles = share_tiles(len, share), first = share * share_keys(len);
    if (first < a.rows && key_tiles) {
        bring_suffix<NT>(s, now + at::k, now + at::v, n, key_tiles, first, a.rows, thread);
        together();
    }

    /* a warp has 16 keys; of the rows' second half one piece too many may be nobody's */
    float score[most][4] = {}, low[most], high[most];
    if (warp < key_tiles)
        multiply<NT, most, HEAD>(score, s.weights.take(n + (unsigned)warp), s.acts, n0, lane);
    int valid = warp < key_tiles ? len - first - warp * 16 - lane / 4
                                 : 0; /* without keys the maximum is -inf and the sum 0 */
#pragma unroll
    for (int t = 0; t < most; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            score[t][i] = i / 2 * 8 < valid ? score[t][i] * a.scale : -INFINITY;
        low[t] = fmaxf(score[t][0], score[t][2]);
        high[t] = fmaxf(score[t][1], score[t][3]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            low[t] = fmaxf(low[t], __shfl_xor_sync(~0u, low[t], step));
            high[t] = fmaxf(high[t], __shfl_xor_sync(~0u, high[t], step));
        }
        if (lane < 4)
            *(float2 *)(s.top + warp * line + t * 8 + lane * 2) = make_float2(low[t], high[t]);
    }
    s.weights.give_back(n, key_tiles, lane);
    together();
    unsigned char *weights = s.acts + 16 * NT * 256; /* of attention, as the second operand */
#pragma unroll
    for (int t = 0; t < most; t++) {
        float2 top = make_float2(-FLT_MAX, -FLT_MAX); /* no keys: all weights are 0 */
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            float2 v = *(const float2 *)(s.top + i * line + t * 8 + lane % 4 * 2);
            top.x = fmaxf(top.x, v.x);
            top.y = fmaxf(top.y, v.y);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            score[t][i] = cuda_exp2(score[t][i] - (i % 2 ? top.y : top.x));
        low[t] = score[t][0] + score[t][2];
        high[t] = score[t][1] + score[t][3];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            low[t] += __shfl_xor_sync(~0u, low[t], step);
            high[t] += __shfl_xor_sync(~0u, high[t], step);
        }
        if (lane < 4)
            *(float2 *)(s.sum + warp * line + t * 8 + lane * 2) = make_float2(low[t], high[t]);
        uint2 p = make_uint2(turn_over(cuda_pack_bf16(score[t][0], score[t][1])),
                             turn_over(cuda_pack_bf16(score[t][2], score[t][3])));
        *(uint2 *)(weights + ((warp * most + t) * 32 + lane) * 8) = p;
    }
    together();
    if (thread < count * 8) {
        float top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            top = fmaxf(top, s.top[i * line + thread]);
            sum += s.sum[i * line + thread];
        }
        int to = ((head * SHARES + share) * NT * 8 + n0 * 8 + thread) * 2;
        exchange_store2(now + at::sums + to, __float_as_uint(top), __float_as_uint(sum));
        exchange_store2(old + at::sums + to, NOTHING, NOTHING);
    }

    float acc[2][most][4] = {}; /* 16 columns of the head each */
#pragma unroll 1
    for (int i = 0; i < key_tiles; i++) {
        const unsigned char *tile = s.weights.take(n + (unsigned)(key_tiles + i));
        uint32_t w[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++)
            cuda_ldmatrix_trans(w[half], tile + (lane % 8 + lane / 16 * 8) * TILE_LINE +
                                             (warp * 2 + half) * 32 + lane / 8 % 2 * 16);
#pragma unroll
        for (int t = 0; t < most; t++) {
            uint2 p = *(const uint2 *)(weights + ((i * most + t) * 32 + lane) * 8);
            cuda_mma(acc[0][t], w[0], p.x, p.y);
            cuda_mma(acc[1][t], w[1], p.x, p.y);
        }
    }
    s.weights.give_back(n + (unsigned)key_tiles, key_tiles, lane);
    n += 2 * (unsigned)key_tiles;
    parts += (((head * 16 + warp * 2) * NT + n0) * SHARES + share) * 128 + lane * 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int t = 0; t < most; t++)
            if (t < count)
                exchange_store_f32(parts + (half * NT + t) * SHARES * 128, acc[half][t], generation);
}

/* Adds up the shares of 16 columns of a head, a warp for each 8 rows, and divides. */
template <int NT>
static __device__ inline void combine(uint32_t *now, uint32_t *old, uint32_t *parts, unsigned generation)
{
    typedef place<NT> at;
    int lane = (int)threadIdx.x % 32, n = (int)threadIdx.x / 32, head = (int)blockIdx.x / 16,
        columns = (int)blockIdx.x % 16;
    if (n >= NT)
        return;
    int t = lane % 4;
    const uint32_t *sums = now + at::sums + ((head * SHARES + lane / 4) * NT * 8 + n * 8 + t * 2) * 2;
    uint32_t *part = parts + (((head * 16 + columns) * NT + n) * SHARES * 32 + lane) * 4;
    uint4 v[SHARES], ms[1]; /* ms: maximum and sum of share lane / 4, for two rows */
    auto one = [](int) { return true; };
    auto sums_at = [&](int) { return sums; };
    exchange_load(ms, one, sums_at);
    exchange_wait_f32(v, generation, [&](int i) { return part + i * 128; });
    exchange_settle(ms, one, sums_at);
    float share[2], o[4] = {};
#pragma unroll
    for (int q = 0; q < 2; q++) {
        float mine = __uint_as_float(q ? ms[0].z : ms[0].x), top = fmaxf(mine, -FLT_MAX);
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
            top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
        share[q] = cuda_exp2(mine - top);
        float sum = share[q] * __uint_as_float(q ? ms[0].w : ms[0].y);
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
            sum += __shfl_xor_sync(~0u, sum, step);
        share[q] = sum == 0 ? 0 : __fdividef(share[q], sum); /* no keys at all: zeros */
    }
#pragma unroll
    for (int i = 0; i < SHARES; i++) {
        float f0 = __shfl_sync(~0u, share[0], i * 4 + t), f1 = __shfl_sync(~0u, share[1], i * 4 + t);
        o[0] += f0 * __uint_as_float(v[i].x);
        o[1] += f1 * __uint_as_float(v[i].y);
        o[2] += f0 * __uint_as_float(v[i].z);
        o[3] += f1 * __uint_as_float(v[i].w);
    }
    publish<NT>(now + at::attn, old + at::attn, head * 16 + columns, n, cuda_pack_bf16(o[0], o[1]),
                cuda_pack_bf16(o[2], o[3]), lane);
}

/* The sums of this warp's pieces, the norm applied: y = x w^T / rms + shift w^T. With `norm` a warp has all rows of its tile, and
 * in the last of them the product of the shift. */
template <int NT>
static __device__ inline void multiply_all(const block<NT> &s, float (&acc)[NT][4], const cut &c,
                                           const mine &my, unsigned n, bool norm, int lane)
{
    for (int h = 0; h < c.halves && my.count; h++) {
        const unsigned char *tile = s.weights.take(n + (unsigned)(h * c.tiles + my.m)),
                            *acts = s.acts + h * 16 * NT * 256;
        if (c.tiles == 4) /* the odd warps' last piece is one too many, and nobody's */
            multiply<NT, (NT + 1) / 2, 16>(acc, tile, acts, my.n0, lane);
        else
            multiply<NT, NT, 16>(acc, tile, acts, 0, lane);
    }
    s.weights.give_back(n, c.tiles * c.halves, lane);
    if (!norm)
        return;
    float shift[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        shift[i] = __shfl_sync(~0u, acc[NT - 1][2 * i + 1], lane | 3);
#pragma unroll
    for (int t = 0; t < NT; t++) {
        float2 r = *(const float2 *)(s.rstd + t * 8 + lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[t][i] = acc[t][i] * (i % 2 ? r.y : r.x) + shift[i / 2];
    }
}

/* gelu(x) as in cuda_gelu_of, by the fast quotient (2 ulp; 0 where the divisor is huge, as it should be). */
static __device__ inline float gelu_times(float x, float up)
{
    float u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + cuda_exp2(-2.8853900818f * u)) * up;
}

/* gelu(gate) up: 8 columns of the hidden layer, half of what the next product takes at a time. Pieces n, n + 2, .. together. */
template <int NT>
static __device__ inline void gate_and_publish(uint32_t *now, uint32_t *old, int tile, int n, int pieces,
                                               const float (&y)[4][4], int rows, int lane)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float h[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            h[i] = (n + 2 * j) * 8 + lane % 4 * 2 + i < rows ? gelu_times(y[j][i], y[j][2 + i]) : 0.0f;
        uint32_t word = turn_over(cuda_pack_bf16(h[0], h[1]));
        int to = place<NT>::hidden + ((tile / 2 * NT + n + 2 * j) * 32 + lane) * 2 + tile % 2;
        if (j < pieces) {
            exchange_store(now + to, word);
            exchange_store(old + to, NOTHING);
        }
    }
}

template <int NT> static __device__ inline void run_layers(const expert_args &a, const block<NT> &s, int len)
{
    typedef place<NT> at;
    int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32, b = (int)blockIdx.x;
    uint32_t *exchange = a.own + COUNTER_WORDS, generation = a.own[0] + 1;
    unsigned n = 0; /* tiles used */

    /* x of the piece that this warp owns in o and down, if it owns one */
    const mine owner = mine::of<NT>(4, warp);
    int own = -1, tile = b / 8 * 4 + owner.m;
    for (int t = 0; t < owner.count; t++)
        if ((owner.m * NT + owner.n0 + t) % 8 == b % 8)
            own = owner.n0 + t;
    float x[4] = {};
    if (own >= 0) {
        uint32_t *now = exchange + (generation & 1) * at::generation,
                 *old = exchange + (~generation & 1) * at::generation;
        float scale[2], shift[2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = own * 8 + lane % 4 * 2 + i % 2, column = tile * 16 + lane / 4 + i / 2 * 8;
            x[i] = row < a.rows ? a.x[row * WIDTH + column] : 0.0f;
            scale[i / 2] = a.layers[0].mod[column];
            shift[i / 2] = a.layers[0].mod[WIDTH + column];
        }
        publish_norm<NT>(now + at::x, old + at::x, now + at::squares, old + at::squares, tile, own, x, scale,
                         shift, a.rows, lane);
    }

    /* cos and sin for the pieces of q and k that this warp owns */
    float4 turned[2] = {make_float4(1, 0, 1, 0), make_float4(1, 0, 1, 0)};
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = (((b % 4 - warp * NT) & 3) + j * 4) * 8 + lane % 4 * 2, tile = b / 4 * 5 + warp;
        if (warp < 5 && tile < 144) {
            const float *p =
                            a.table +
                            (int64_t)cuda_count(a.positions + min(row, a.rows - 1), a.table_rows - 1) * HEAD +
                            tile % 16 * 8 + lane / 4,
                        *q = a.table +
                             (int64_t)cuda_count(a.positions + min(row + 1, a.rows - 1), a.table_rows - 1) *
                                 HEAD +
                             tile % 16 * 8 + lane / 4;
            turned[j] = make_float4(p[0], p[HEAD / 2], q[0], q[HEAD / 2]);
        }
    }
#pragma unroll 1
    for (int i = 0; i < a.n * PHASES; i++) {
        int l = i / PHASES, p = i % PHASES;
        const layer &w = a.layers[l];
        uint32_t *now = exchange + ((generation + (unsigned)l) & 1) * at::generation,
                 *old = exchange + (~(generation + (unsigned)l) & 1) * at::generation;
        const cut c = cuts[p];
        int split = p == ATTENTION ? b / (2 * SHARES) : b % c.split, group = b / c.split;
        bool norm = p == QKV || p == GATE_UP;
        /* what the residual and the norm behind it need, before there is anything to wait for */
        const float *mod = p == O ? w.mod_mlp : l + 1 < a.n ? a.layers[l + 1].mod : NULL;
        float gate[2] = {}, scale[2] = {}, shift[2] = {};
#pragma unroll
        for (int k = 0; k < 2; k++)
            if ((p == O || p == DOWN) && own >= 0) {
                int column = tile * 16 + lane / 4 + k * 8;
                gate[k] = (p == O ? w.mod : w.mod_mlp)[2 * WIDTH + column];
                scale[k] = mod ? mod[column] : 0;
                shift[k] = mod ? mod[WIDTH + column] : 0;
            }

        const uint32_t *from = now + (p == QKV         ? at::x
                                      : p == ATTENTION ? at::q
                                      : p == O         ? at::attn
                                      : p == GATE_UP   ? at::x_mlp
                                                       : at::hidden);
        uint32_t *part = exchange + (p == QKV       ? at::part_qkv
                                     : p == O       ? at::part_o
                                     : p == GATE_UP ? at::part_mlp
                                                    : at::part_down);
        from += split * c.halves * 16 * NT * 64;
        gather<NT>(s, from, c.halves, !norm ? NULL : now + (p == QKV ? at::squares : at::squares_mlp), a.eps);
        if (p == ATTENTION) {
            attend<NT>(a, s, now, old, exchange + at::part_attn, generation + (unsigned)l, n, len);
            combine<NT>(now, old, exchange + at::part_attn, generation + (unsigned)l);
            continue;
        }
        const mine my = mine::of<NT>(c.tiles, warp);
        float acc[NT][4] = {};
        multiply_all<NT>(s, acc, c, my, n, norm, lane);
        n += (unsigned)(c.tiles * c.halves);

        int first = my.m * NT + my.n0,
            owned = (split - first) & (c.split - 1); /* piece `owned` of this warp's is the block's own */
        part += ((group * c.tiles * NT + first) * c.split * 32 + lane) * 4;
        float y[4][4];
        add_parts<NT>(part, acc, c.split, split, owned, my.count, generation + (unsigned)l, y);
        int pieces = my.count - owned + c.split - 1 >> __ffs(c.split) - 1;
        if (p == GATE_UP) {
            gate_and_publish<NT>(now, old, group * 8 + my.m, owned, pieces, y, a.rows, lane);
            continue;
        }
#pragma unroll 1
        for (int j = 0; j < pieces; j++) {
            int piece = my.n0 + owned + j * c.split;
            if (p == QKV) {
                turn_and_publish<NT>(a, w, now, old, group * 5 + my.m, piece, y[0], j ? turned[1] : turned[0],
                                     lane);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++)
                    x[k] += y[0][k] * gate[k / 2];
                uint32_t *to = p == O ? now : old,
                         *gone = p == O ? old : now; /* down's is the next layer's x: the other generation */
                if (mod)
                    publish_norm<NT>(to + (p == O ? at::x_mlp : at::x), gone + (p == O ? at::x_mlp : at::x),
                                     to + (p == O ? at::squares_mlp : at::squares),
                                     gone + (p == O ? at::squares_mlp : at::squares), tile, own, x, scale,
                                     shift, a.rows, lane);
            }
#pragma unroll
            for (int k = 0; k < 4; k++)
                y[0][k] = y[1][k];
        }
        if (p == O || p == DOWN || i == 0)
            __threadfence(); /* what was cleared is so before it is written again (x of the first layer above) */
    }
    if (own >= 0)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = own * 8 + lane % 4 * 2 + i % 2, column = tile * 16 + lane / 4 + i / 2 * 8;
            if (row < a.rows)
                a.out[row * WIDTH + column] = x[i];
        }
}

/* Two blocks that have the same keys stand side by side. Every device that has room for a block has clusters, but not all that this
 * is compiled for: those get an empty kernel, which is never launched. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define PAIRS  __cluster_dims__(2)
#define LAYERS 1
#else
#define PAIRS
#define LAYERS 0
#endif

template <int NT>
static __global__ void PAIRS __launch_bounds__(THREADS, 1)
    expert(const __grid_constant__ expert_args a)
{
    if (!LAYERS)
        return;
    extern __shared__ __align__(16) unsigned char memory[];
    typedef shape<NT> size;
    block<NT> s;
    s.weights.tiles = memory;
    s.acts = memory + size::slots * TILE_BYTES;
    s.top = (float *)(s.acts + size::acts);
    s.sum = s.top + SHARE * ((NT + 1) / 2) * 8;
    s.rstd = s.sum + SHARE * ((NT + 1) / 2) * 8;
    s.weights.full = (uint64_t *)(s.rstd + NT * 8);
    s.weights.empty = s.weights.full + size::slots;
    if (threadIdx.x == 0)
        s.weights.init(WARPS);
    __syncthreads();
    int warp = (int)threadIdx.x / 32, len = cuda_count(a.len, a.key_cap);
    if (warp >= WARPS) {
        feed<NT>(a, s, warp - WARPS, (int)threadIdx.x % 32, len);
    } else {
        cuda_begin();
        run_layers<NT>(a, s, len);
    }
    __syncthreads();
    if (threadIdx.x == 0 && blockIdx.x == 0)
        a.own[0] += (uint32_t)a.n;
}

/* ---- host ---- */

static int pieces_of(const pv_node *n) /* of 8 rows, one row of which is left for the shift */
{
    return n->in[0]->dim[0] < 16 ? 2 : 7;
}

static bool is(const pv_tensor *t, pv_dtype dtype, int64_t rows, int64_t width)
{
    return t->dtype == dtype && t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == width;
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    const pv_expert_attr *a = &n->attr.expert;
    int64_t rows = n->in[0]->dim[0], keys = n->in[12]->dim[0];
    return a->heads == HEADS && a->kv_heads == 1 && a->store == 0 && a->first == 0 && rows < 56 &&
           rows <= keys && keys <= MAX_KEYS && is(n->in[0], PV_F32, rows, WIDTH) &&
           n->in[1]->dtype == PV_F32 && n->in[2]->dtype == PV_F32 &&
           is(n->in[3], PV_BF16, HEADS * HEAD, WIDTH) && is(n->in[4], PV_BF16, HEAD, WIDTH) &&
           is(n->in[5], PV_BF16, HEAD, WIDTH) && is(n->in[6], PV_BF16, WIDTH, HEADS * HEAD) &&
           is(n->in[7], PV_BF16, MLP, WIDTH) && is(n->in[8], PV_BF16, MLP, WIDTH) &&
           is(n->in[9], PV_BF16, WIDTH, MLP) && n->in[12]->dtype == PV_BF16 && n->in[13]->dtype == PV_BF16 &&
           n->out[0]->dtype == PV_F32 &&
           cuda_at_once(device, BLOCKS,
                        shape<7>::shared > shape<2>::shared ? shape<7>::shared : shape<2>::shared);
}

static size_t own(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return sizeof(uint32_t) *
           (COUNTER_WORDS + (size_t)(pieces_of(n) == 2 ? place<2>::words : place<7>::words));
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

template <int NT> static cudaError_t launch(const expert_args &a, cudaStream_t stream)
{
    cudaError_t e =
        cudaFuncSetAttribute(expert<NT>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape<NT>::shared);
    if (e != cudaSuccess)
        return e;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(BLOCKS);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shape<NT>::shared;
    config.stream = stream;
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    config.attrs = &together;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, expert<NT>, a);
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
        for (a.n = 0; c && a.n < MAX_LAYERS; c = c->then) {
            a.out = (float *)c->out[0];
            a.layers[a.n++] = {(const bf16 *)c->in[3], (const bf16 *)c->in[4],  (const bf16 *)c->in[5],
                               (const bf16 *)c->in[6], (const bf16 *)c->in[7],  (const bf16 *)c->in[8],
                               (const bf16 *)c->in[9], (const float *)c->in[1], (const float *)c->in[2],
                               (bf16 *)c->out[1],      (bf16 *)c->out[2]};
        }
        e = pieces_of(n) == 2 ? launch<2>(a, stream) : launch<7>(a, stream);
        a.x = a.out;
    }
    return e;
}

extern "C" {
const cuda_kernel cuda_expert_block = {accepts, enqueue, NULL, own, joins};
}
