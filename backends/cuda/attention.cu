/* attention.cu - the whole of attention for bf16: softmax(scale q k^T) v, without the scores ever being in memory.
 *
 * Computes: o[i, h] = sum over the first len keys of softmax(scale q[i, h] . k[first + j, h / group]) v[first + j, h / group],
 *   with the softmax formed along the way (running maximum and sum). No mask: `rows` and `len` are read on the device;
 *   rows from there on are not computed, keys from there on not read (shared memory holds zeros, their weight is 0).
 * Layout: q, result [batch rows, heads head]; k, v [batch keys, kv_heads head]; q, k, v bf16, result bf16 or f32; head a
 *   multiple of 8 up to 256, filled up with zeros to 48, 64, 80, 128 or 256 in shared memory, where a line is 16 bytes
 *   longer than that so that eight lines' same columns lie in eight different bank groups. The heads of one kv head are
 *   one matrix: line m is row m / group, head m % group.
 * Launch: three kernels. `flash`, for all devices: blocks of 64 lines x 256 threads; two groups of four warps take turns at
 *   tiles of keys, each with its own K and V in shared memory (cp.async: the next K comes while V is used and the other way
 *   round) and its own maximum, sum and result, added up at the end, so that one works while the other waits. `flash_wide`,
 *   head 256 with 188 KB of shared memory: the same with groups of eight warps that share lines and hand the weights round.
 *   Few lines: both split the keys over blocks (`splits`), which leave their parts in work memory for `combine`, so that the
 *   device is full. `flash_few`, from sm_90 on, up to 1024 keys at head 256: the splits are the blocks of a cluster, hold
 *   all their keys at once and add up through one another's shared memory.
 * Numerics: products and sums f32; maximum, sum and scale f32; weights exp2(s - max) are rounded to bf16 before they meet V
 *   (the sum that divides has them unrounded); one rounding on store. All orders are fixed: same input, same device, same
 *   bytes.
 * Bound: shared-memory reads; latency for the suffix. */
#include "attention.cuh"
#include "cluster.cuh"

#define LINES      64 /* of q in a block: 16 a warp */
#define GROUPS     2
#define GROUP_SIZE 128
#define MAX_SPLITS 16

/* ---- how a node is cut ---- */

typedef struct cut {
    int padded;    /* head size in shared memory */
    int keys;      /* of a tile */
    int splits;    /* blocks that share the keys */
    int64_t lines; /* of all batches and kv heads */
} cut;

static cut pick(const pv_node *n, int sms)
{
    const pv_attention_attr *a = &n->attr.attention;
    int64_t head = pv_width(n->in[0]) / a->heads, all = (int64_t)a->batch * a->kv_heads;
    int64_t lines = n->in[0]->dim[0] / a->batch * (a->heads / a->kv_heads);
    int64_t keys = n->in[1]->dim[0] / a->batch - a->first;
    cut c;
    c.padded = head <= 48 ? 48 : head <= 64 ? 64 : head <= 80 ? 80 : head <= 128 ? 128 : 256;
    c.keys = c.padded == 128 ? 64 : 32;
    c.lines = all * lines;
    int64_t splits = sms / (all * cuda_ceil(lines, LINES)), most = cuda_ceil(keys, GROUPS * c.keys);
    splits = splits < most ? splits : most;
    c.splits = (int)(splits < 1 ? 1 : splits < MAX_SPLITS ? splits : MAX_SPLITS);
    return c;
}

/* ---- the kernel ---- */

/* One tile of K or V, `keys` lines from line t * KEYS on, by the threads of a group. */
template <int HEAD, int KEYS>
static __device__ inline void fetch_tile(bf16 *to, const bf16 *from, int t, int len, int head, int64_t line_width,
                                         int thread)
{
    constexpr int chunks = HEAD / 8, unroll = HEAD == 80 ? 1 : KEYS; /* 80: else registers are short */
#pragma unroll unroll
    for (int i = thread; i < KEYS * chunks; i += GROUP_SIZE) {
        int line = i / chunks, column = i % chunks * 8, key = t * KEYS + line;
        bool there = key < len && column < head;
        cuda_copy16(to + line * (HEAD + 8) + column, there ? from + key * line_width + column : from, there);
    }
}

template <int HEAD, int KEYS, int STAGES>
static __global__ void __launch_bounds__(GROUPS *GROUP_SIZE, HEAD <= 80 ? 2 : 1) flash(flash_args a)
{
    cuda_begin();
    constexpr int ld = HEAD + 8, n_tiles = HEAD / 8;
    extern __shared__ __align__(16) unsigned char memory[];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x % GROUP_SIZE / 32, group = (int)threadIdx.x / GROUP_SIZE;
    int thread = (int)threadIdx.x % GROUP_SIZE, z = (int)blockIdx.z;
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * LINES;
    if (m0 >= lines)
        return;
    int len = cuda_count(a.len, a.key_cap), tiles = (len + KEYS - 1) / KEYS;
    int begin = tiles * (int)blockIdx.y / a.splits, end = tiles * ((int)blockIdx.y + 1) / a.splits;

    bf16 *q_s = (bf16 *)memory, *k_s = q_s + (LINES + group * STAGES * 2 * KEYS) * ld, *v_s = k_s + STAGES * KEYS * ld;
    int64_t kv_width = (int64_t)a.kv_heads * a.head;
    int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
    const bf16 *k = a.k + kv_at, *v = a.v + kv_at;
    const bf16 *q = a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;

    for (int i = (int)threadIdx.x; i < LINES * (HEAD / 8); i += GROUPS * GROUP_SIZE) {
        int line = i / (HEAD / 8), column = i % (HEAD / 8) * 8, m = m0 + line;
        bool there = m < lines && column < a.head;
        int64_t at = ((int64_t)(m / a.group) * a.kv_heads * a.group + m % a.group) * a.head + column;
        cuda_copy16(q_s + line * ld + column, there ? q + at : q, there);
    }
    cuda_copy_commit();

    /* This group's tiles: begin + group, and so on by GROUPS. `i` counts them. Empty commits keep the waits uniform. */
    auto fetch_k = [&](int i) {
        int t = begin + group + i * GROUPS;
        if (t < end)
            fetch_tile<HEAD, KEYS>(k_s + i % STAGES * KEYS * ld, k, t, len, a.head, kv_width, thread);
        cuda_copy_commit();
    };
    auto fetch_v = [&](int i) {
        int t = begin + group + i * GROUPS;
        if (t < end)
            fetch_tile<HEAD, KEYS>(v_s + i % STAGES * KEYS * ld, v, t, len, a.head, kv_width, thread);
        cuda_copy_commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
        fetch_k(i);
        if (i + 1 < STAGES)
            fetch_v(i);
    }
    cuda_copy_wait<2 * STAGES - 1>();
    __syncthreads(); /* q is there, for both groups */

    float o[n_tiles][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    const bf16 *q_row = q_s + (warp * 16 + lane % 16) * ld + lane / 16 * 8;
    int k_row = (lane % 8 + lane / 16 * 8) * ld + lane / 8 % 2 * 8, v_row = lane % 16 * ld + lane / 16 * 8;

    for (int i = 0, t = begin + group; t < end; i++, t += GROUPS) {
        const bf16 *k_tile = k_s + i % STAGES * KEYS * ld, *v_tile = v_s + i % STAGES * KEYS * ld;
        cuda_copy_wait<2 * STAGES - 2>();
        cuda_barrier(1 + group, GROUP_SIZE); /* k is there; the last v has been used */
        fetch_v(i + STAGES - 1);

        float s[KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < HEAD; d += 16) {
            uint32_t qa[4], kb[4];
            cuda_ldmatrix(qa, q_row + d);
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                cuda_ldmatrix(kb, k_tile + k_row + n * 16 * ld + d);
                cuda_mma(s[2 * n], qa, kb[0], kb[1]);
                cuda_mma(s[2 * n + 1], qa, kb[2], kb[3]);
            }
        }

        /* c[0], c[1] of each product belong to line lane / 4, c[2], c[3] to eight lines below. */
        float most[2] = {top[0], top[1]}, scale[2];
        int left = len - t * KEYS - lane % 4 * 2; /* keys from this thread's first on */
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[n][e] = n * 8 + e % 2 < left ? s[n][e] * a.scale : -INFINITY;
                most[e / 2] = fmaxf(most[e / 2], s[n][e]);
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
            most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
            scale[r] = cuda_share(top[r], most[r]);
            top[r] = most[r];
            sum[r] *= scale[r];
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[n][e] = cuda_exp2(s[n][e] - top[e / 2]);
                sum[e / 2] += s[n][e];
            }
        if (__any_sync(~0u, scale[0] != 1.0f || scale[1] != 1.0f)) {
#pragma unroll
            for (int n = 0; n < n_tiles; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    o[n][e] *= scale[e / 2];
        }

        cuda_copy_wait<2 * STAGES - 2>();
        cuda_barrier(1 + group, GROUP_SIZE); /* v is there; k has been used */
        fetch_k(i + STAGES);
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            /* C of two products side by side is A of the next. */
            const uint32_t pa[4] = {cuda_pack_bf16(s[2 * j][0], s[2 * j][1]), cuda_pack_bf16(s[2 * j][2], s[2 * j][3]),
                                    cuda_pack_bf16(s[2 * j + 1][0], s[2 * j + 1][1]),
                                    cuda_pack_bf16(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
            for (int n = 0; n < HEAD / 16; n++) {
                uint32_t vb[4];
                cuda_ldmatrix_trans(vb, v_tile + v_row + j * 16 * ld + n * 16);
                cuda_mma(o[2 * n], pa, vb[0], vb[1]);
                cuda_mma(o[2 * n + 1], pa, vb[2], vb[3]);
            }
        }
    }

    /* The second group hands over through shared memory, thread to thread: both hold the same places of the result. */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
    cuda_copy_wait<0>();
    __syncthreads(); /* nobody uses q, k, v any more */
    float4 *hand = (float4 *)memory + thread;
    if (group) {
#pragma unroll
        for (int n = 0; n < n_tiles; n++)
            hand[n * GROUP_SIZE] = make_float4(o[n][0], o[n][1], o[n][2], o[n][3]);
        hand[n_tiles * GROUP_SIZE] = make_float4(top[0], sum[0], top[1], sum[1]);
    }
    __syncthreads();
    if (group)
        return;
    float4 other = hand[n_tiles * GROUP_SIZE];
    float mine[2], theirs[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float other_top = r ? other.z : other.x, all = fmaxf(top[r], other_top);
        mine[r] = cuda_share(top[r], all);
        theirs[r] = cuda_share(other_top, all);
        top[r] = all;
        sum[r] = sum[r] * mine[r] + (r ? other.w : other.y) * theirs[r];
        if (a.splits == 1 && sum[r] != 0.0f) { /* 0: there are no keys, and the result is 0 */
            mine[r] /= sum[r];
            theirs[r] /= sum[r];
        }
    }
    int m = m0 + warp * 16 + lane / 4;
    int64_t line_cap = (int64_t)a.row_cap * a.group;
    const flash_line to[2] = {cuda_line(a, z, m, line_cap, m < lines), cuda_line(a, z, m + 8, line_cap, m + 8 < lines)};
#pragma unroll
    for (int n = 0; n < n_tiles; n++) {
        float4 p = hand[n * GROUP_SIZE];
        int column = n * 8 + lane % 4 * 2;
        cuda_put_pair(to[0], column, a.head, o[n][0] * mine[0] + p.x * theirs[0], o[n][1] * mine[0] + p.y * theirs[0]);
        cuda_put_pair(to[1], column, a.head, o[n][2] * mine[1] + p.z * theirs[1], o[n][3] * mine[1] + p.w * theirs[1]);
    }
    for (int r = 0; r < 2; r++)
        if (a.splits > 1 && lane % 4 == 0 && m + 8 * r < lines)
            a.part_sums[((int64_t)blockIdx.y * gridDim.z + z) * line_cap + m + 8 * r] = make_float2(top[r], sum[r]);
}

/* Adds the parts of all splits, split by split: a thread two numbers of a line. */
static __global__ void combine(flash_args a, int64_t all_lines)
{
    cuda_begin();
    int pairs = a.head / 2;
    int64_t line_cap = (int64_t)a.row_cap * a.group, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t line = i / pairs;
    int m = (int)(line % line_cap), z = (int)(line / line_cap), column = (int)(i % pairs) * 2;
    if (line >= all_lines || m >= cuda_count(a.rows, a.row_cap) * a.group)
        return;
    float2 sums[MAX_SPLITS], part[MAX_SPLITS];
    float top = -INFINITY, sum = 0, x = 0, y = 0;
#pragma unroll
    for (int s = 0; s < MAX_SPLITS; s++)
        if (s < a.splits) {
            sums[s] = a.part_sums[s * all_lines + line];
            part[s] = *(const float2 *)(a.part + (s * all_lines + line) * a.head + column);
            top = fmaxf(top, sums[s].x);
        }
#pragma unroll
    for (int s = 0; s < MAX_SPLITS; s++)
        if (s < a.splits) {
            float w = cuda_share(sums[s].x, top);
            sum += sums[s].y * w;
            x += part[s].x * w;
            y += part[s].y * w;
        }
    float by = sum != 0.0f ? 1.0f / sum : 0.0f;
    a.splits = 1;
    cuda_put_pair(cuda_line(a, z, m, line_cap, true), column, a.head, x * by, y * by);
}

/* ---- head 256 where shared memory is large: warps share lines ---- */

#define WIDE_KEYS  64 /* of a tile */
#define WIDE_HEAD  256
#define WIDE_SIZE  256 /* threads of a group */
#define WIDE_LD    (WIDE_HEAD + 8)
#define WIDE_WARPS (WIDE_KEYS / 16) /* that share a line's scores */

typedef struct wide_group {
    bf16 k[WIDE_KEYS][WIDE_LD], v[WIDE_KEYS][WIDE_LD], p[LINES][WIDE_KEYS + 8];
    float most[WIDE_WARPS][LINES], scale[LINES];
} wide_group;

typedef struct wide {
    bf16 q[LINES][WIDE_LD];
    union {
        wide_group group[GROUPS];
        float4 hand[WIDE_HEAD / 16][WIDE_SIZE]; /* what the second group hands over at the end */
    };
    float top[GROUPS][LINES], sum[GROUPS][WIDE_WARPS][LINES];
} wide;

/* A warp computes the scores of 32 lines with 16 keys, and, when the weights have gone through shared memory, 32 columns of
 * the result of all 64 lines: so that K and V are read by few, and four warps on each scheduler hide one another's waits. */
static __global__ void __launch_bounds__(GROUPS *WIDE_SIZE, 1) flash_wide(flash_args a)
{
    cuda_begin();
    extern __shared__ __align__(16) unsigned char memory[];
    wide *mem = (wide *)memory;
    int group = (int)threadIdx.x / WIDE_SIZE, thread = (int)threadIdx.x % WIDE_SIZE, z = (int)blockIdx.z;
    int lane = thread % 32, warp = thread / 32, warp_line = warp % 2 * 32, warp_key = warp / 2 * 16;
    wide_group *g = &mem->group[group];
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * LINES;
    if (m0 >= lines)
        return;
    int len = cuda_count(a.len, a.key_cap), tiles = (len + WIDE_KEYS - 1) / WIDE_KEYS;
    int begin = tiles * (int)blockIdx.y / a.splits, end = tiles * ((int)blockIdx.y + 1) / a.splits;

    int kv_width = a.kv_heads * a.head;
    int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
    const bf16 *q = a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;
    int column = lane * 8; /* a warp copies a line */
    for (int line = (int)threadIdx.x / 32; line < LINES; line += GROUPS * WIDE_SIZE / 32) {
        int m = m0 + line;
        bool there = m < lines && column < a.head;
        int64_t at = ((int64_t)(m / a.group) * a.kv_heads * a.group + m % a.group) * a.head + column;
        cuda_copy16(&mem->q[line][column], there ? q + at : q, there);
    }
    auto fetch = [&](bf16(*to)[WIDE_LD], const bf16 *from, int t) {
        if (t < end) {
            const bf16 *line = from + kv_at + (int64_t)(t * WIDE_KEYS + warp) * kv_width + column;
            int left = column < a.head ? len - t * WIDE_KEYS - warp : 0;
#pragma unroll
            for (int i = 0; i < WIDE_KEYS; i += WIDE_SIZE / 32) {
                cuda_copy16(&to[warp + i][column], i < left ? line : from, i < left);
                line += (int64_t)(WIDE_SIZE / 32) * kv_width;
            }
        }
        cuda_copy_commit(); /* also an empty one: the waits count them */
    };
    fetch(g->k, a.k, begin + group);
    if (thread < LINES)
        for (int w = 0; w < WIDE_WARPS; w++)
            mem->sum[group][w][thread] = 0.0f;
    cuda_copy_wait<0>();
    __syncthreads(); /* q is there, for both groups */

    float o[LINES / 16][4][4] = {}, top[2][2];
    top[0][0] = top[0][1] = top[1][0] = top[1][1] = -INFINITY;
    const bf16 *q_row = &mem->q[warp_line + lane % 16][lane / 16 * 8];
    const bf16 *k_row = &g->k[warp_key + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8];
    const bf16 *p_row = &g->p[lane % 16][lane / 16 * 8];
    const bf16 *v_row = &g->v[lane % 16][warp * 32 + lane / 16 * 8];
    int key = warp_key + lane % 4 * 2;

    for (int t = begin + group; t < end; t += GROUPS) {
        cuda_copy_wait<0>();
        cuda_barrier(1 + group, WIDE_SIZE); /* k is there; the last v, weights and scales have been used */
        fetch(g->v, a.v, t);

        float s[2][2][4] = {};
#pragma unroll
        for (int d = 0; d < WIDE_HEAD; d += 16) {
            uint32_t qa[4], kb[4];
            cuda_ldmatrix(kb, k_row + d);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                cuda_ldmatrix(qa, q_row + i * 16 * WIDE_LD + d);
                cuda_mma(s[i][0], qa, kb[0], kb[1]);
                cuda_mma(s[i][1], qa, kb[2], kb[3]);
            }
        }
        /* s[i][n][e]: line warp_line + 16 i + lane / 4 + e / 2 * 8, key `key` + 8 n + e % 2 of the tile */
        int left = len - t * WIDE_KEYS - key;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float most = -INFINITY;
#pragma unroll
                for (int n = 0; n < 2; n++)
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; e++) {
                        s[i][n][e] = n * 8 + e % 2 < left ? s[i][n][e] * a.scale : -INFINITY;
                        most = fmaxf(most, s[i][n][e]);
                    }
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
                if (lane % 4 == 0)
                    g->most[warp / 2][warp_line + i * 16 + r * 8 + lane / 4] = most;
            }
        cuda_barrier(1 + group, WIDE_SIZE); /* the maxima are there; k has been used */
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int line = warp_line + i * 16 + r * 8 + lane / 4;
                float most = top[i][r];
#pragma unroll
                for (int w = 0; w < WIDE_WARPS; w++)
                    most = fmaxf(most, g->most[w][line]);
                float scale = cuda_share(top[i][r], most);
                top[i][r] = most;
                float sum = 0;
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    float x = cuda_exp2(s[i][n][2 * r] - most), y = cuda_exp2(s[i][n][2 * r + 1] - most);
                    sum += x + y;
                    *(uint32_t *)&g->p[line][key + n * 8] = cuda_pack_bf16(x, y);
                }
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                if (lane % 4 == 0) {
                    float *all = &mem->sum[group][warp / 2][line];
                    *all = *all * scale + sum;
                    if (warp < 2)
                        g->scale[line] = scale;
                }
            }
        fetch(g->k, a.k, t + GROUPS);
        cuda_copy_wait<1>();
        cuda_barrier(1 + group, WIDE_SIZE); /* weights and scales are there, and v */
#pragma unroll
        for (int i = 0; i < LINES / 16; i++) {
            float scale[2] = {g->scale[i * 16 + lane / 4], g->scale[i * 16 + lane / 4 + 8]};
            if (__any_sync(~0u, scale[0] != 1.0f || scale[1] != 1.0f)) {
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        o[i][n][e] *= scale[e / 2];
            }
        }
#pragma unroll 2 /* four: more registers than there are */
        for (int j = 0; j < WIDE_KEYS; j += 16) {
            uint32_t pa[4], vb[2][4];
            cuda_ldmatrix_trans(vb[0], v_row + j * WIDE_LD);
            cuda_ldmatrix_trans(vb[1], v_row + j * WIDE_LD + 16);
#pragma unroll
            for (int i = 0; i < LINES / 16; i++) {
                cuda_ldmatrix(pa, p_row + i * 16 * (WIDE_KEYS + 8) + j);
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    cuda_mma(o[i][2 * n], pa, vb[n][0], vb[n][1]);
                    cuda_mma(o[i][2 * n + 1], pa, vb[n][2], vb[n][3]);
                }
            }
        }
    }

    /* The second group hands over, thread to thread: both hold the same places of the result. */
    cuda_copy_wait<0>();
    __syncthreads(); /* nobody uses k, v and weights any more */
    if (warp < 2 && lane % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            mem->top[group][warp_line + i * 8 + lane / 4] = top[i / 2][i % 2];
    }
    if (group) {
#pragma unroll
        for (int i = 0; i < LINES / 16; i++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                mem->hand[i * 4 + n][thread] = make_float4(o[i][n][0], o[i][n][1], o[i][n][2], o[i][n][3]);
    }
    __syncthreads();
    if (group)
        return;
    int64_t line_cap = (int64_t)a.row_cap * a.group;
#pragma unroll
    for (int i = 0; i < LINES / 16; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int line = i * 16 + r * 8 + lane / 4, m = m0 + line;
            float tops[GROUPS] = {mem->top[0][line], mem->top[1][line]}, sums[GROUPS] = {}, w[GROUPS];
            float most = fmaxf(tops[0], tops[1]);
#pragma unroll
            for (int k = 0; k < GROUPS; k++) {
                w[k] = cuda_share(tops[k], most);
#pragma unroll
                for (int part = 0; part < WIDE_WARPS; part++)
                    sums[k] += mem->sum[k][part][line];
            }
            float all = sums[0] * w[0] + sums[1] * w[1];
            if (a.splits == 1 && all != 0.0f) { /* 0: there are no keys, and the result is 0 */
                w[0] /= all;
                w[1] /= all;
            }
            const flash_line to = cuda_line(a, z, m, line_cap, m < lines);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const float2 p = *((const float2 *)&mem->hand[i * 4 + n][thread] + r);
                int at = warp * 32 + n * 8 + lane % 4 * 2;
                cuda_put_pair(to, at, a.head, o[i][n][2 * r] * w[0] + p.x * w[1], o[i][n][2 * r + 1] * w[0] + p.y * w[1]);
            }
            if (a.splits > 1 && warp == 0 && lane % 4 == 0 && m < lines)
                a.part_sums[((int64_t)blockIdx.y * gridDim.z + z) * line_cap + m] = make_float2(most, all);
        }
}

/* ---- few lines: a cluster ---- */

#define FEW_LINES   32 /* of q in a block and its cluster */
#define FEW_SPLITS  8  /* blocks of a cluster: as many as every device with clusters takes */
#define FEW_KEYS    128
#define FEW_THREADS 256
#define FEW_WARPS   (FEW_THREADS / 32)
#define FEW_HEAD    256

/* The shared memory of a block of `flash_few`. */
typedef struct few {
    bf16 q[FEW_LINES][FEW_HEAD + 8];
    union {
        bf16 k[FEW_KEYS][FEW_HEAD + 8];
        float o[FEW_LINES][FEW_HEAD + 8]; /* once k has been used: what the cluster's other blocks read */
    };
    bf16 v[FEW_KEYS][FEW_HEAD + 8];
    bf16 p[FEW_LINES][FEW_KEYS + 8];
    float most[FEW_WARPS][FEW_LINES], sum[FEW_WARPS][FEW_LINES]; /* of a warp's keys */
    float2 all[FEW_LINES];                                       /* maximum and sum over all keys of the block */
} few;

/* Block y of a cluster takes the y-th part of the keys. All of K and V that it needs is asked for at once; a warp computes
 * the scores of 16 keys with all lines, and, when the weights have gone through shared memory, 32 columns of the result.
 * Then each block adds up the eight parts of four lines. */
static __global__ void __launch_bounds__(FEW_THREADS, 1) flash_few(flash_args a)
{
#if CUDA_CLUSTERS
    cuda_begin();
    extern __shared__ __align__(16) unsigned char memory[];
    few *mem = (few *)memory;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, z = (int)blockIdx.z, part = (int)blockIdx.y;
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * FEW_LINES;
    if (m0 >= lines) /* the whole cluster */
        return;
    int len = cuda_count(a.len, a.key_cap), share_of_keys = (len + FEW_SPLITS - 1) / FEW_SPLITS;
    int begin = part * share_of_keys, left = len - begin, keys = left < share_of_keys ? left : share_of_keys;
    int64_t kv_width = (int64_t)a.kv_heads * a.head;
    int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first + begin) * kv_width + z % a.kv_heads * a.head;
    const bf16 *q = a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;

    int column = lane * 8; /* a warp copies a line */
    for (int line = warp; line < FEW_LINES; line += FEW_WARPS) {
        int m = m0 + line;
        bool there = m < lines && column < a.head;
        int64_t at = ((int64_t)(m / a.group) * a.kv_heads * a.group + m % a.group) * a.head + column;
        cuda_copy16(&mem->q[line][column], there ? q + at : q, there);
    }
    auto fetch = [&](bf16(*to)[FEW_HEAD + 8], const bf16 *from) {
#pragma unroll
        for (int key = warp; key < FEW_KEYS; key += FEW_WARPS) {
            bool there = key < keys && column < a.head;
            cuda_copy16(&to[key][column], there ? from + kv_at + key * kv_width + column : from, there);
        }
        cuda_copy_commit();
    };
    fetch(mem->k, a.k);
    fetch(mem->v, a.v);
    cuda_copy_wait<1>();
    __syncthreads(); /* q and k are there */

    float s[FEW_LINES / 16][2][4] = {};
    const bf16 *k_row = &mem->k[warp * 16 + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8];
    const bf16 *q_row = &mem->q[lane % 16][lane / 16 * 8];
#pragma unroll
    for (int d = 0; d < FEW_HEAD; d += 16) {
        uint32_t qa[4], kb[4];
        cuda_ldmatrix(kb, k_row + d);
#pragma unroll
        for (int i = 0; i < FEW_LINES / 16; i++) {
            cuda_ldmatrix(qa, q_row + i * 16 * (FEW_HEAD + 8) + d);
            cuda_mma(s[i][0], qa, kb[0], kb[1]);
            cuda_mma(s[i][1], qa, kb[2], kb[3]);
        }
    }

    /* s[i][n][e]: line 16 i + lane / 4 + e / 2 * 8, key 16 warp + 8 n + lane % 4 * 2 + e % 2. First the maxima. */
    int key = warp * 16 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < FEW_LINES / 16; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = -INFINITY;
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[i][n][e] = key + n * 8 + e % 2 < keys ? s[i][n][e] * a.scale : -INFINITY;
                    most = fmaxf(most, s[i][n][e]);
                }
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            if (lane % 4 == 0)
                mem->most[warp][i * 16 + r * 8 + lane / 4] = most;
        }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < FEW_LINES / 16; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int line = i * 16 + r * 8 + lane / 4;
            float top = -INFINITY, sum = 0;
#pragma unroll
            for (int w = 0; w < FEW_WARPS; w++)
                top = fmaxf(top, mem->most[w][line]);
            float base = top == -INFINITY ? 0.0f : top; /* no keys: all weights are 0 */
#pragma unroll
            for (int n = 0; n < 2; n++) {
                float x = cuda_exp2(s[i][n][2 * r] - base), y = cuda_exp2(s[i][n][2 * r + 1] - base);
                sum += x;
                sum += y;
                *(uint32_t *)&mem->p[line][key + n * 8] = cuda_pack_bf16(x, y);
            }
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (lane % 4 == 0) {
                mem->sum[warp][line] = sum;
                if (warp == 0)
                    mem->all[line].x = top;
            }
        }
    cuda_copy_wait<0>();
    __syncthreads(); /* the weights are there, and v; k has been used */

    float o[FEW_LINES / 16][4][4] = {};
    const bf16 *v_row = &mem->v[lane % 16][warp * 32 + lane / 16 * 8];
    const bf16 *p_row = &mem->p[lane % 16][lane / 16 * 8];
#pragma unroll
    for (int j = 0; j < FEW_KEYS; j += 16) {
        uint32_t pa[FEW_LINES / 16][4], vb[4];
#pragma unroll
        for (int i = 0; i < FEW_LINES / 16; i++)
            cuda_ldmatrix(pa[i], p_row + i * 16 * (FEW_KEYS + 8) + j);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            cuda_ldmatrix_trans(vb, v_row + j * (FEW_HEAD + 8) + n * 16);
#pragma unroll
            for (int i = 0; i < FEW_LINES / 16; i++) {
                cuda_mma(o[i][2 * n], pa[i], vb[0], vb[1]);
                cuda_mma(o[i][2 * n + 1], pa[i], vb[2], vb[3]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < FEW_LINES / 16; i++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                *(float2 *)&mem->o[i * 16 + r * 8 + lane / 4][warp * 32 + n * 8 + lane % 4 * 2] =
                    make_float2(o[i][n][2 * r], o[i][n][2 * r + 1]);
    if (warp == 0) {
        float sum = 0;
        for (int w = 0; w < FEW_WARPS; w++)
            sum += mem->sum[w][lane];
        mem->all[lane].y = sum;
    }
    cuda_cluster_barrier();

    /* A thread four columns of a line. */
    constexpr int four = FEW_HEAD / 4;
    int line = part * (FEW_LINES / FEW_SPLITS) + (int)threadIdx.x / four, at = (int)threadIdx.x % four * 4;
    float2 all[FEW_SPLITS];
    float4 parts[FEW_SPLITS];
    float top = -INFINITY, sum = 0;
    float x[4] = {};
#pragma unroll
    for (int i = 0; i < FEW_SPLITS; i++) {
        all[i] = cuda_cluster_get2(cuda_cluster_shared(&mem->all[line], i));
        parts[i] = cuda_cluster_get4(cuda_cluster_shared(&mem->o[line][at], i));
        top = fmaxf(top, all[i].x);
    }
    cuda_cluster_barrier(); /* nobody reads this block's memory any more */
#pragma unroll
    for (int i = 0; i < FEW_SPLITS; i++) {
        float w = cuda_share(all[i].x, top);
        sum += all[i].y * w;
        x[0] += parts[i].x * w;
        x[1] += parts[i].y * w;
        x[2] += parts[i].z * w;
        x[3] += parts[i].w * w;
    }
    float by = sum != 0.0f ? 1.0f / sum : 0.0f;
    int m = m0 + line;
    a.splits = 1;
    const flash_line to = cuda_line(a, z, m, 0, m < lines);
    cuda_put_pair(to, at, a.head, x[0] * by, x[1] * by);
    cuda_put_pair(to, at + 2, a.head, x[2] * by, x[3] * by);
#endif
}

/* ---- the op ---- */

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    const pv_attention_attr *a = &n->attr.attention;
    for (int k = 0; k < 3; k++)
        if (n->in[k]->dtype != PV_BF16 || !cuda_fits(n->in[k]))
            return false;
    int64_t head = pv_width(n->in[0]) / a->heads;
    if (cuda_elements(n->in[0]) > INT32_MAX) /* a line is counted in 32 bits */
        return false;
    return (n->out[0]->dtype == PV_BF16 || n->out[0]->dtype == PV_F32) && head % 8 == 0 && head <= 256 &&
           (int64_t)a->batch * a->kv_heads <= 65535;
}

static size_t work_bytes(const cut *c, int64_t head)
{
    return c->splits > 1 ? (size_t)c->splits * (size_t)c->lines * ((size_t)head * sizeof(float) + sizeof(float2)) : 0;
}

static size_t need(const cuda_device *device, const pv_node *n)
{
    cut c = pick(n, cuda_sms(device));
    return work_bytes(&c, pv_width(n->in[0]) / n->attr.attention.heads);
}

template <int HEAD, int KEYS, int STAGES>
static cudaError_t launch(const cuda_call *c, const flash_args &a, const cut &cut)
{
    constexpr size_t shared = (size_t)(LINES + GROUPS * STAGES * 2 * KEYS) * (HEAD + 8) * sizeof(bf16);
    static_assert(shared >= (size_t)GROUP_SIZE * (HEAD / 8 + 1) * sizeof(float4), "what a group hands over must fit");
    cudaError_t e = cudaFuncSetAttribute(flash<HEAD, KEYS, STAGES>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         (int)shared);
    int64_t lines = (int64_t)a.row_cap * a.group;
    dim3 grid(cuda_ceil(lines, LINES), (unsigned)cut.splits, (unsigned)(cut.lines / lines));
    return e ? e : cuda_launch(c, flash<HEAD, KEYS, STAGES>, grid, GROUPS * GROUP_SIZE, shared, a);
}

/* Head 256 takes 188 KB of shared memory; where there is less, 99 KB, which every device has. */
static cudaError_t launch_256(const cuda_call *c, const flash_args &a, const cut &cut)
{
    if (cuda_block_room(c->device) < (int)sizeof(wide))
        return launch<256, 32, 1>(c, a, cut);
    cudaError_t e = cudaFuncSetAttribute(flash_wide, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(wide));
    int64_t lines = (int64_t)a.row_cap * a.group;
    dim3 grid(cuda_ceil(lines, LINES), (unsigned)cut.splits, (unsigned)(cut.lines / lines));
    return e ? e : cuda_launch(c, flash_wide, grid, GROUPS * WIDE_SIZE, sizeof(wide), a);
}

/* Does the device have clusters, and fit all of this node's at the same time? */
static bool is_few(const cuda_call *c, const flash_args &a, const cut &cut)
{
    int64_t lines = (int64_t)a.row_cap * a.group;
    return cut.padded == FEW_HEAD && a.key_cap <= FEW_SPLITS * FEW_KEYS &&
           cut.lines / lines * cuda_ceil(lines, FEW_LINES) * FEW_SPLITS <= c->sms &&
           cuda_clusters(c->device) && cuda_block_room(c->device) >= (int)sizeof(few);
}

static cudaError_t launch_few(const cuda_call *c, const flash_args &a, const cut &cut)
{
    int64_t lines = (int64_t)a.row_cap * a.group;
    cudaError_t e = cudaFuncSetAttribute(flash_few, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(few));
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = how[0].val.clusterDim.z = 1;
    how[0].val.clusterDim.y = FEW_SPLITS;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(cuda_ceil(lines, FEW_LINES), FEW_SPLITS, (unsigned)(cut.lines / lines));
    config.blockDim = dim3(FEW_THREADS);
    config.dynamicSmemBytes = sizeof(few);
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e ? e : cudaLaunchKernelEx(&config, flash_few, a);
}

static cudaError_t run(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_attention_attr *at = &n->attr.attention;
    const cut cut = pick(n, c->sms);
    flash_args a = {};
    a.q = (const bf16 *)c->in[0];
    a.k = (const bf16 *)c->in[1];
    a.v = (const bf16 *)c->in[2];
    a.out = c->out[0];
    a.rows = c->rows[0];
    a.len = n->n_in > 3 ? (const int32_t *)c->in[3] : NULL;
    a.row_cap = (int)(n->in[0]->dim[0] / at->batch);
    a.key_rows = (int)(n->in[1]->dim[0] / at->batch);
    a.key_cap = a.key_rows - (int)at->first;
    a.first = (int)at->first;
    a.kv_heads = at->kv_heads;
    a.group = at->heads / at->kv_heads;
    a.head = (int)(pv_width(n->in[0]) / at->heads);
    a.splits = cut.splits;
    a.scale = at->scale * 1.44269504f;
    a.out_f32 = n->out[0]->dtype == PV_F32;
    a.part = (float *)c->work;
    a.part_sums = (float2 *)(a.part + (int64_t)cut.splits * cut.lines * a.head);

    if (cut.lines && is_few(c, a, cut))
        return launch_few(c, a, cut);
    bool done = false;
    cudaError_t e = cuda_attention_wgmma(c, a, &done);
    if (e || done)
        return e;
    switch (cut.padded) {
    case 48:
        e = launch<48, 32, 2>(c, a, cut);
        break;
    case 64:
        e = launch<64, 32, 2>(c, a, cut);
        break;
    case 80:
        e = launch<80, 32, 2>(c, a, cut);
        break;
    case 128:
        e = launch<128, 64, 1>(c, a, cut);
        break;
    default:
        e = launch_256(c, a, cut);
    }
    if (e || cut.splits == 1)
        return e;
    return cuda_launch(c, combine, dim3(cuda_ceil(cut.lines * a.head / 2, 256)), 256, 0, a, cut.lines);
}

extern "C" {
const cuda_kernel cuda_attention = {accepts, run, need};
}
