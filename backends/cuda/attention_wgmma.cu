/* attention_wgmma.cu - the whole of attention on Hopper's own tensor instructions: what attention.cu computes, for the two
 * shapes that take the time: many lines at head sizes above 128, and pictures (SigLIP).
 *
 * Layout, counts, numerics: as in attention.cu; all orders are fixed.
 * Launch: `stream`, head up to 256: clusters of two blocks, 128 lines a cluster; each block takes half the tiles of 64
 *   keys. Two warpgroups hold 64 lines each, their result in registers; a third has K and V fetched into a ring of five
 *   tiles in the order of use: by the copy engine, or, where a tile ends behind `len` or the head is below 256, by cp.async,
 *   so that nothing behind is read. Scores of the next tile are computed while the weights of this one meet V, and the two
 *   warpgroups fill one another's gaps. At the end each block hands over the half that the other finishes.
 *   `picture`, 256 keys of head 72: 64 lines a block, two warpgroups with half the keys each, all of them at once in shared
 *   memory, by the copy engine where lines are long. All scores of a line are in registers, so the softmax is one pass; the
 *   halves are added up at the end.
 * Bound: the tensor cores and shared memory; `picture`: latency. */
#include "attention.cuh"
#include "tma.cuh"

#define GROUP 128 /* threads of a warpgroup */

#if CUDA_WGMMA

/* The weights of a thread's scores become A of the next product: 16 keys of the warp's 16 lines. */
template <int N> static __device__ inline void pack(uint32_t (&p)[N / 8][4], const float (&s)[N])
{
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            p[j][e] = cuda_pack_bf16(s[8 * j + 2 * e], s[8 * j + 2 * e + 1]);
}

/* Scores to weights, for the two lines of a thread: `top` and `sum` run along, `scale` is what older sums are worth now.
 * `left`: keys from the thread's first on. factor > 0. */
template <int N>
static __device__ inline void weigh(float (&s)[N], float factor, int left, float (&top)[2], float (&sum)[2],
                                    float (&scale)[2])
{
    if (left < N * 2 - 6) {
#pragma unroll
        for (int i = 0; i < N; i++)
            s[i] = i / 4 * 8 + i % 2 < left ? s[i] : -INFINITY;
    }
    float most[2] = {s[0], s[2]};
#pragma unroll
    for (int i = 0; i < N; i++)
        most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
        most[r] = fmaxf(top[r], factor * fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2)));
        scale[r] = cuda_share(top[r], most[r]);
        top[r] = most[r];
        sum[r] *= scale[r];
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        s[i] = cuda_exp2(fmaf(s[i], factor, -top[i / 2 % 2]));
        sum[i / 2 % 2] += s[i];
    }
}

/* Two halves of the keys: what each result is worth in the whole, divided already. `other`: maximum and sum of the other
 * half, for both lines. */
static __device__ inline void merge(const float (&top)[2], const float (&sum)[2], const float4 &other, float (&mine)[2],
                                    float (&theirs)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float other_top = r ? other.z : other.x, top_of_all = fmaxf(top[r], other_top);
        mine[r] = cuda_share(top[r], top_of_all);
        theirs[r] = cuda_share(other_top, top_of_all);
        float all = sum[r] * mine[r] + (r ? other.w : other.y) * theirs[r];
        if (all != 0.0f) { /* 0: there are no keys, and the result is 0 */
            mine[r] /= all;
            theirs[r] /= all;
        }
    }
}

#endif

/* ---- stream ---- */

#define HEAD      256
#define LINES     64 /* of a warpgroup */
#define KEYS      64 /* of a tile */
#define SLOTS     5  /* tiles of K and V in the ring */
#define TILE      (KEYS * HEAD * 2)
#define SUB       (KEYS * 128) /* 64 columns of a tile: lines of 128 bytes */
#define BLOCK     (3 * GROUP)
#define Q_BYTES   (2 * LINES * HEAD * 2)
#define HAND_LINE (HEAD / 8) /* float4 of a thread's results */

static_assert(LINES == KEYS, "q of a warpgroup is laid out as a tile");
static_assert(TILE * SLOTS >= (HAND_LINE + 1) * GROUP * (int)sizeof(float4), "what is handed over fits the ring");

typedef struct stream_args {
    CUtensorMap k, v; /* where the head is HEAD */
    flash_args a;
} stream_args;

/* From a block's shared memory, rounded up to 1024. */
typedef struct stream_memory {
    unsigned char q[2][TILE], ring[SLOTS][TILE];
    uint64_t full[SLOTS], empty[SLOTS];
} stream_memory;

#define STREAM_BYTES (sizeof(stream_memory) + 1024)

#if CUDA_WGMMA
/* Lines of 512 bytes, 64 of them, four at a time, by the threads of a warpgroup; line i is from[i * width], where there. */
static __device__ inline void fetch_lines(uint32_t to, const bf16 *from, int64_t width, int there, int head, int thread)
{
    int chunk = thread % 32, line = thread / 32;
    from += line * width + chunk * 8;
    to += (uint32_t)(chunk / 8 * SUB + line * 128);
    bool inside = chunk * 8 < head;
#pragma unroll 4
    for (int i = 0; i < KEYS; i += 4) {
        bool read = inside && line + i < there;
        uint32_t at = to + (uint32_t)(i * 128 + ((chunk ^ (line + i)) % 8 * 16));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(read ? 16 : 0)
                     : "memory");
        from += 4 * width;
    }
}
#endif

static __global__ void __launch_bounds__(BLOCK, 1) stream(const __grid_constant__ stream_args p)
{
#if CUDA_WGMMA
    const flash_args &a = p.a;
    extern __shared__ __align__(16) unsigned char memory[];
    int z = (int)blockIdx.z, part = (int)blockIdx.y, role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP;
    stream_memory *mem = (stream_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    uint32_t ring = cuda_shared(mem->ring), full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; i++) {
            cuda_mbarrier_init(full + 8 * i, GROUP / 32);
            cuda_mbarrier_init(empty + 8 * i, 2 * GROUP / 32);
        }
        cuda_shared_for_wgmma(); /* for the copy engine */
    }
    __syncthreads();
    cuda_begin(); /* so far: its own shared memory */
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * 2 * LINES;
    if (m0 >= lines) /* the whole cluster */
        return;
    int len = cuda_count(a.len, a.key_cap), tiles = (len + KEYS - 1) / KEYS;
    int begin = tiles * part / 2, n = tiles * (part + 1) / 2 - begin;

    /* The ring holds, as they are used: K 0, K 1, V 0, K 2, V 1, .. V last. */
    if (role == 2) {
        cuda_registers_fewer<40>();
        int kv_width = a.kv_heads * a.head;
        int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
        int items = 2 * n, column = z % a.kv_heads * a.head, row = z / a.kv_heads * a.key_rows + a.first;
        cuda_slot<SLOTS> slot = {0, 1}; /* new slots are free */
        for (int i = 0; i < items; i++) {
            bool is_k = i == 0 || (i % 2 && i != items - 1);
            int t = begin + (is_k ? (i + 1) / 2 : (i - 1) / 2);
            uint32_t to = ring + slot.index * TILE, barrier = full + 8 * slot.index;
            bool whole = a.head == HEAD && (t + 1) * KEYS <= len;
            cuda_mbarrier_wait(empty + 8 * slot.index, slot.parity);
            if (!whole) {
                fetch_lines(to, (is_k ? a.k : a.v) + kv_at + (int64_t)t * KEYS * kv_width, kv_width, len - t * KEYS,
                            a.head, thread);
                cuda_copy_commit();
                cuda_copy_wait<0>();
                cuda_shared_for_wgmma();
                __syncwarp();
            }
            if (whole && thread == 0) {
                cuda_expect_bytes(barrier, TILE);
#pragma unroll
                for (int j = 0; j < HEAD / 64; j++)
                    cuda_box(to + j * SUB, is_k ? &p.k : &p.v, column + 64 * j, row + t * KEYS, barrier);
            } else if (thread % 32 == 0) {
                cuda_mbarrier_arrive(barrier);
            }
            __syncwarp();
            slot.next();
        }
        cuda_cluster_barrier();
        cuda_cluster_barrier();
    } else {
        cuda_registers_more<232>();
        int lane = thread % 32, warp = thread / 32, m = m0 + role * LINES;
        {
            const bf16 *q =
                a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;
            int chunk = lane;
            for (int line = warp; line < LINES; line += 4) {
                int at = m + line;
                bool there = at < lines && chunk * 8 < a.head;
                const bf16 *from =
                    q + ((int64_t)(at / a.group) * a.kv_heads * a.group + at % a.group) * a.head + chunk * 8;
                cuda_copy16(mem->q[role] + chunk / 8 * SUB + line * 128 + (chunk ^ line) % 8 * 16, there ? from : q,
                            there);
            }
            cuda_copy_commit();
            cuda_copy_wait<0>();
            cuda_shared_for_wgmma();
            cuda_barrier(1 + role, GROUP);
        }
        const uint64_t q_at = cuda_operand_at(cuda_shared(mem->q[role]), 16, 1024, WGMMA_128);
        const uint64_t k_at = cuda_operand_at(ring, 16, 1024, WGMMA_128);
        const uint64_t v_at = cuda_operand_at(ring, SUB, 1024, WGMMA_128); /* lead: to the next 64 columns */
        float s[KEYS / 2], o[HEAD / 2], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale[2];
        uint32_t w[KEYS / 16][4];
        int left = len - begin * KEYS - lane % 4 * 2;
        cuda_slot<SLOTS> slot = {};
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++)
            o[i] = 0;

        auto filled = [&]() { cuda_mbarrier_wait(full + 8 * slot.index, slot.parity); };
        auto free_slot = [&](int which) {
            if (lane == 0)
                cuda_mbarrier_arrive(empty + 8 * which);
        };
        auto next = [&]() {
            int was = slot.index;
            slot.next();
            return was;
        };
        auto scores = [&]() {
            uint64_t tile = k_at + (uint64_t)(slot.index * (TILE >> 4));
            cuda_wgmma_begin();
#pragma unroll
            for (int d = 0; d < HEAD / 16; d++)
                cuda_wgmma<KEYS>(s, q_at + d / 4 * (SUB >> 4) + d % 4 * 2, tile + d / 4 * (SUB >> 4) + d % 4 * 2,
                                 d != 0);
            cuda_wgmma_commit();
        };
        auto values = [&]() {
            uint64_t tile = v_at + (uint64_t)(slot.index * (TILE >> 4));
            cuda_wgmma_begin();
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++)
                cuda_wgmma_of<HEAD>(o, w[j], tile + j * (2048 >> 4), true);
            cuda_wgmma_commit();
        };

        if (n) {
            filled();
            scores();
            cuda_wgmma_wait<0>();
            cuda_settle(s);
            free_slot(next());
            weigh(s, a.scale, left, top, sum, scale);
            pack(w, s);
            for (int t = 1; t < n; t++) {
                filled();
                scores();
                int k_slot = next();
                filled();
                values();
                cuda_wgmma_wait<1>();
                cuda_settle(s);
                free_slot(k_slot);
                left -= KEYS;
                weigh(s, a.scale, left, top, sum, scale);
                cuda_wgmma_wait<0>();
                cuda_settle(o);
                cuda_settle(s); /* or the weights might go where the last ones are being read */
                free_slot(next());
                pack(w, s);
                if (__any_sync(~0u, scale[0] != 1.0f || scale[1] != 1.0f)) {
#pragma unroll
                    for (int i = 0; i < HEAD / 2; i++)
                        o[i] *= scale[i / 2 % 2];
                }
            }
            filled();
            values();
            cuda_wgmma_wait<0>();
            cuda_settle(o);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
            sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        }

        cuda_barrier(3, 2 * GROUP); /* nobody uses the ring any more */
        float4 *hand = (float4 *)mem->ring + thread;
        if (role != part) {
#pragma unroll
            for (int i = 0; i < HAND_LINE; i++)
                hand[i * GROUP] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
            hand[HAND_LINE * GROUP] = make_float4(top[0], sum[0], top[1], sum[1]);
        }
        cuda_cluster_barrier();
        if (role == part) {
            uint32_t there = cuda_cluster_shared(hand, 1 - part);
            float4 other = cuda_cluster_get4(there + HAND_LINE * GROUP * (uint32_t)sizeof(float4));
            float mine[2], theirs[2];
            merge(top, sum, other, mine, theirs);
            m += warp * 16 + lane / 4;
            const flash_line to[2] = {cuda_line(a, z, m, 0, m < lines), cuda_line(a, z, m + 8, 0, m + 8 < lines)};
#pragma unroll
            for (int i = 0; i < HAND_LINE; i += 8) { /* eight reads under way */
                float4 v[8];
#pragma unroll
                for (int k = 0; k < 8; k++)
                    v[k] = cuda_cluster_get4(there + (i + k) * GROUP * (uint32_t)sizeof(float4));
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    const float *mine_at = o + 4 * (i + k);
                    int column = (i + k) * 8 + lane % 4 * 2;
                    cuda_put_pair(to[0], column, a.head, mine_at[0] * mine[0] + v[k].x * theirs[0],
                                  mine_at[1] * mine[0] + v[k].y * theirs[0]);
                    cuda_put_pair(to[1], column, a.head, mine_at[2] * mine[1] + v[k].z * theirs[1],
                                  mine_at[3] * mine[1] + v[k].w * theirs[1]);
                }
            }
        }
        cuda_cluster_barrier(); /* nobody reads this block's memory any more */
    }
#endif
}

/* ---- picture ---- */

/* 64 columns in lines of 128 bytes, and 8 in cores, with another 8 of zeros where products go along them. */
#define SMALL_HEAD 72
#define SMALL_KEYS 256
#define HALF_KEYS  (SMALL_KEYS / 2) /* of a warpgroup */

typedef struct picture_args {
    CUtensorMap q, k, v; /* columns 0 .. 63 of a head; K and V half the keys */
    flash_args a;
} picture_args;

/* From a block's shared memory, rounded up to 1024. */
typedef struct picture_memory {
    bf16 q[LINES][64], k[2][HALF_KEYS][64], v[2][HALF_KEYS][64];
    bf16 q_rest[2][LINES][8], k_rest[2][2][HALF_KEYS][8], v_rest[2][HALF_KEYS][8];
    float4 hand[SMALL_HEAD / 8 + 1][GROUP]; /* what the second warpgroup hands over */
    uint64_t k_there[2], v_there[2];
} picture_memory;

#define PICTURE_BYTES (sizeof(picture_memory) + 1024)

static __global__ void __launch_bounds__(2 * GROUP, 2) picture(const __grid_constant__ picture_args p)
{
#if CUDA_WGMMA
    extern __shared__ __align__(16) unsigned char memory[];
    picture_memory *mem = (picture_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const flash_args &a = p.a;
    int half = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP, lane = thread % 32, z = (int)blockIdx.z;
    int m = (int)blockIdx.x * LINES, width = a.kv_heads * a.head, column = z % a.kv_heads * a.head;
    int row = z / a.kv_heads * a.row_cap + m, key = z / a.kv_heads * a.key_rows + a.first + half * HALF_KEYS;
    uint32_t k_there = cuda_shared(mem->k_there), v_there = cuda_shared(mem->v_there);

    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            cuda_mbarrier_init(k_there + 8 * i, 1);
            cuda_mbarrier_init(v_there + 8 * i, 1);
        }
        cuda_map_ahead(&p.q);
        cuda_map_ahead(&p.k);
        cuda_map_ahead(&p.v);
    }
    *(uint4 *)mem->k_rest[half][1][thread] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < LINES)
        *(uint4 *)mem->q_rest[1][thread] = make_uint4(0, 0, 0, 0);
    cuda_shared_for_wgmma(); /* and for the copy engine: the barriers */
    __syncthreads();
    cuda_begin();      /* so far: its own shared memory, and its arguments */
    if (thread == 0) { /* each half asks for its own, the first also for q, which both wait for */
        uint32_t k_bar = k_there + 8 * half, v_bar = v_there + 8 * half;
        cuda_expect_bytes(k_bar, HALF_KEYS * 128 + (half ? 0 : LINES * 128));
        if (half == 0)
            cuda_box(cuda_shared(mem->q), &p.q, column, row, k_bar);
        cuda_box(cuda_shared(mem->k[half]), &p.k, column, key, k_bar);
        cuda_expect_bytes(v_bar, HALF_KEYS * 128);
        cuda_box(cuda_shared(mem->v[half]), &p.v, column, key, v_bar);
    }
    __syncwarp();
    /* Boxes of lines as short as the rest of a head take the copy engine as long as whole ones: a thread a line. */
    const int64_t rest = (int64_t)(key + thread) * width + column + 64;
    if (threadIdx.x < LINES) {
        bool there = m + thread < a.row_cap;
        cuda_copy16(mem->q_rest[0][thread], there ? a.q + (int64_t)(row + thread) * width + column + 64 : a.q, there);
    }
    cuda_copy16(mem->k_rest[half][0][thread], a.k + rest, true);
    cuda_copy16(mem->v_rest[half][thread], a.v + rest, true);
    cuda_copy_commit();
    cuda_copy_wait<0>();
    cuda_shared_for_wgmma();
    __syncthreads(); /* the rests are there */

    float s[HALF_KEYS / 2], o[32], o_rest[4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale[2];
    uint32_t w[HALF_KEYS / 16][4];
    const uint64_t q_at = cuda_operand_at(cuda_shared(mem->q), 16, 1024, WGMMA_128);
    const uint64_t k_at = cuda_operand_at(cuda_shared(mem->k[half]), 16, 1024, WGMMA_128);
    const uint64_t v_at = cuda_operand_at(cuda_shared(mem->v[half]), 16, 1024, WGMMA_128);
    const uint64_t q_rest = cuda_operand_at(cuda_shared(mem->q_rest), sizeof mem->q_rest[0], 128, WGMMA_PLAIN);
    const uint64_t k_rest = cuda_operand_at(cuda_shared(mem->k_rest[half]), sizeof mem->k_rest[0][0], 128, WGMMA_PLAIN);
    const uint64_t v_rest = cuda_operand_at(cuda_shared(mem->v_rest[half]), 128, 128, WGMMA_PLAIN);
    cuda_mbarrier_wait(k_there, 0);
    cuda_mbarrier_wait(k_there + 8 * half, 0);
    cuda_wgmma_begin();
#pragma unroll
    for (int d = 0; d < 4; d++)
        cuda_wgmma<HALF_KEYS>(s, q_at + 2 * d, k_at + 2 * d, d != 0);
    cuda_wgmma<HALF_KEYS>(s, q_rest, k_rest, true);
    cuda_wgmma_commit();
    cuda_wgmma_wait<0>();
    cuda_settle(s);
    weigh(s, a.scale, SMALL_KEYS, top, sum, scale);
    pack(w, s);
    cuda_mbarrier_wait(v_there + 8 * half, 0);
    cuda_wgmma_begin();
#pragma unroll
    for (int j = 0; j < HALF_KEYS / 16; j++) {
        cuda_wgmma_of<64>(o, w[j], v_at + j * (2048 >> 4), j != 0);
        cuda_wgmma_of<8>(o_rest, w[j], v_rest + j * (256 >> 4), j != 0);
    }
    cuda_wgmma_commit();
    cuda_wgmma_wait<0>();
    cuda_settle(o);
    cuda_settle(o_rest);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }

    if (half) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            mem->hand[i][thread] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
        mem->hand[8][thread] = make_float4(o_rest[0], o_rest[1], o_rest[2], o_rest[3]);
        mem->hand[9][thread] = make_float4(top[0], sum[0], top[1], sum[1]);
    }
    __syncthreads();
    if (half)
        return;
    float4 other = mem->hand[9][thread];
    float mine[2], theirs[2];
    merge(top, sum, other, mine, theirs);
    m += thread / 32 * 16 + lane / 4;
    const flash_line to[2] = {cuda_line(a, z, m, 0, m < a.row_cap), cuda_line(a, z, m + 8, 0, m + 8 < a.row_cap)};
#pragma unroll
    for (int i = 0; i < 9; i++) {
        const float *x = i < 8 ? o + 4 * i : o_rest;
        float4 v = mem->hand[i][thread];
        int column = i * 8 + lane % 4 * 2;
        cuda_put_pair(to[0], column, SMALL_HEAD, x[0] * mine[0] + v.x * theirs[0], x[1] * mine[0] + v.y * theirs[0]);
        cuda_put_pair(to[1], column, SMALL_HEAD, x[2] * mine[1] + v.z * theirs[1], x[3] * mine[1] + v.w * theirs[1]);
    }
#endif
}

/* ---- the choice ---- */

static cudaError_t stream_run(const cuda_call *c, const flash_args &a, int64_t lines, unsigned matrices)
{
    stream_args p = {};
    p.a = a;
    const int64_t rows = (int64_t)c->node->attr.attention.batch * a.key_rows, width = (int64_t)a.kv_heads * a.head;
    cudaError_t e = cudaFuncSetAttribute(stream, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)STREAM_BYTES);
    if (e == cudaSuccess && a.head == HEAD)
        e = cuda_tensor_map(&p.k, a.k, rows, width, KEYS);
    if (e == cudaSuccess && a.head == HEAD)
        e = cuda_tensor_map(&p.v, a.v, rows, width, KEYS);
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = how[0].val.clusterDim.z = 1;
    how[0].val.clusterDim.y = 2;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(cuda_ceil(lines, 2 * LINES), 2, matrices);
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = STREAM_BYTES;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e ? e : cudaLaunchKernelEx(&config, stream, p);
}

static cudaError_t picture_run(const cuda_call *c, const flash_args &a, int64_t lines, unsigned matrices)
{
    picture_args p = {};
    p.a = a;
    const int64_t batch = c->node->attr.attention.batch, width = (int64_t)a.kv_heads * a.head;
    cudaError_t e = cudaFuncSetAttribute(picture, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)PICTURE_BYTES);
    const struct {
        CUtensorMap *map;
        const bf16 *data;
        int64_t rows;
        int box_rows;
    } maps[] = {{&p.q, a.q, batch * a.row_cap, LINES},
                {&p.k, a.k, batch * a.key_rows, HALF_KEYS},
                {&p.v, a.v, batch * a.key_rows, HALF_KEYS}};
    for (const auto &m : maps)
        if (e == cudaSuccess)
            e = cuda_tensor_map(m.map, m.data, m.rows, width, m.box_rows);
    return e ? e : cuda_launch(c, picture, dim3(cuda_ceil(lines, LINES), 1, matrices), 2 * GROUP, PICTURE_BYTES, p);
}

/* `stream` splits keys in two alone: with few lines attention.cu, which splits them further, fills the device better. A
 * `picture` is as SigLIP has it, whole boxes of rows that all count. */
cudaError_t cuda_attention_wgmma(const cuda_call *c, const flash_args &args, bool *done)
{
    flash_args a = args;
    int64_t lines = (int64_t)a.row_cap * a.group, matrices = c->node->attr.attention.batch * (int64_t)a.kv_heads;
    bool small = a.head == SMALL_HEAD && a.group == 1 && a.key_cap == SMALL_KEYS && !a.rows && !a.len;
    bool large = a.head > 128 && 4 * matrices * cuda_ceil(lines, 2 * LINES) >= c->sms;
    *done = c->wgmma && lines && a.scale > 0 && (small || large);
    a.splits = 1;
    if (!*done)
        return cudaSuccess;
    return small ? picture_run(c, a, lines, (unsigned)matrices) : stream_run(c, a, lines, (unsigned)matrices);
}
