/* attention_wgmma.cu - the whole of attention on Hopper's own tensor instructions: the same as attention.cu computes, for
 * the two shapes that take the time: many lines at head sizes above 128, and pictures (SigLIP: a few hundred keys of a small
 * head).
 *
 * Layout, counts, numerics: as in attention.cu; all orders are fixed.
 * Launch: `stream`, head up to 256: clusters of two blocks, 128 lines a cluster; each block takes half the tiles of 64
 *   keys. Two warpgroups hold 64 lines each, their result in registers; a third fetches K and V by cp.async (so that
 *   what is behind `len` is never read) into a ring of five tiles in the order of use. Scores of the next tile are computed while
 *   the weights of this one meet V, and the two warpgroups fill one another's gaps. At the end each block hands the
 *   half that the other finishes over through shared memory.
 *   `picture`, head up to 80 and up to 256 keys: a warpgroup a block, 64 lines; all keys and values at once in shared memory, all
 *   scores of a line in registers: a softmax in one pass.
 * Bound: the tensor cores and shared memory; reads of K and V from the L2 cache. */
#include "attention.cuh"
#include "cluster.cuh"
#include "wgmma.cuh"

#define GROUP 128 /* threads of a warpgroup */

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

/* ---- stream ---- */

#define HEAD      256
#define LINES     64 /* of a warpgroup */
#define KEYS      64 /* of a tile */
#define SLOTS     5  /* tiles of K and V in the ring */
#define BEHIND    2  /* tiles that a producer leaves under way */
#define TILE      (KEYS * HEAD * 2)
#define SUB       (KEYS * 128) /* 64 columns of a tile: lines of 128 bytes */
#define BLOCK     (3 * GROUP)
#define Q_BYTES   (2 * LINES * HEAD * 2)
#define HAND_LINE (HEAD / 8) /* float4 of a thread's results */

static_assert(LINES == KEYS, "q of a warpgroup is laid out as a tile");
static_assert(TILE * SLOTS >= (HAND_LINE + 1) * GROUP * (int)sizeof(float4), "what is handed over fits the ring");

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
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(read ? 16 : 0) : "memory");
        from += 4 * width;
    }
}
#endif

static __global__ void __launch_bounds__(BLOCK, 1) stream(flash_args a)
{
#if CUDA_WGMMA
    cuda_begin();
    extern __shared__ __align__(16) unsigned char memory[];
    int z = (int)blockIdx.z, part = (int)blockIdx.y, role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP;
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * 2 * LINES;
    if (m0 >= lines) /* the whole cluster */
        return;
    stream_memory *mem = (stream_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    uint32_t ring = cuda_shared(mem->ring), full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    int len = cuda_count(a.len, a.key_cap), tiles = (len + KEYS - 1) / KEYS;
    int begin = tiles * part / 2, n = tiles * (part + 1) / 2 - begin;

    if (threadIdx.x == 0)
        for (int i = 0; i < SLOTS; i++) {
            cuda_mbarrier_init(full + 8 * i, GROUP / 32);
            cuda_mbarrier_init(empty + 8 * i, 2 * GROUP / 32);
        }
    __syncthreads();

    /* The ring holds, as they are used: K 0, K 1, V 0, K 2, V 1, .. V last. */
    if (role == 2) {
        cuda_registers_fewer<40>();
        int kv_width = a.kv_heads * a.head;
        int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
        int slot = 0, done = 0, items = 2 * n;
        uint32_t parity = 1;
        for (int i = 0; i < items + BEHIND; i++) {
            if (i < items) {
                bool is_k = i == 0 || (i % 2 && i != items - 1);
                int t = begin + (is_k ? (i + 1) / 2 : (i - 1) / 2);
                cuda_mbarrier_wait(empty + 8 * slot, parity);
                fetch_lines(ring + slot * TILE, (is_k ? a.k : a.v) + kv_at + (int64_t)t * KEYS * kv_width, kv_width,
                            len - t * KEYS, a.head, thread);
                if (++slot == SLOTS) {
                    slot = 0;
                    parity ^= 1;
                }
            }
            cuda_copy_commit();
            if (i < BEHIND)
                continue;
            cuda_copy_wait<BEHIND>();
            cuda_shared_for_wgmma();
            __syncwarp();
            if (thread % 32 == 0)
                cuda_mbarrier_arrive(full + 8 * done);
            done = done + 1 == SLOTS ? 0 : done + 1;
        }
        cuda_cluster_barrier();
        cuda_cluster_barrier();
    } else {
        cuda_registers_more<232>();
        int lane = thread % 32, warp = thread / 32, m = m0 + role * LINES;
        {
            const bf16 *q = a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;
            int chunk = lane;
            for (int line = warp; line < LINES; line += 4) {
                int at = m + line;
                bool there = at < lines && chunk * 8 < a.head;
                const bf16 *from = q + ((int64_t)(at / a.group) * a.kv_heads * a.group + at % a.group) * a.head + chunk * 8;
                cuda_copy16(mem->q[role] + chunk / 8 * SUB + line * 128 + (chunk ^ line) % 8 * 16, there ? from : q, there);
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
        uint32_t p[KEYS / 16][4];
        int slot = 0, left = len - begin * KEYS - lane % 4 * 2;
        uint32_t parity = 0;
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++)
            o[i] = 0;

        auto filled = [&]() { cuda_mbarrier_wait(full + 8 * slot, parity); };
        auto free_slot = [&](int which) {
            if (lane == 0)
                cuda_mbarrier_arrive(empty + 8 * which);
        };
        auto next = [&]() {
            int was = slot++;
            if (slot == SLOTS) {
                slot = 0;
                parity ^= 1;
            }
            return was;
        };
        auto scores = [&]() {
            uint64_t tile = k_at + (uint64_t)(slot * (TILE >> 4));
            cuda_wgmma_begin();
#pragma unroll
            for (int d = 0; d < HEAD / 16; d++)
                cuda_wgmma<KEYS>(s, q_at + d / 4 * (SUB >> 4) + d % 4 * 2, tile + d / 4 * (SUB >> 4) + d % 4 * 2, d != 0);
            cuda_wgmma_commit();
        };
        auto values = [&]() {
            uint64_t tile = v_at + (uint64_t)(slot * (TILE >> 4));
            cuda_wgmma_begin();
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++)
                cuda_wgmma_of<HEAD>(o, p[j], tile + j * (2048 >> 4), true);
            cuda_wgmma_commit();
        };

        if (n) {
            filled();
            scores();
            cuda_wgmma_wait<0>();
            cuda_settle(s);
            free_slot(next());
            weigh(s, a.scale, left, top, sum, scale);
            pack(p, s);
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
                pack(p, s);
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
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float other_top = r ? other.z : other.x, all = fmaxf(top[r], other_top);
                mine[r] = cuda_share(top[r], all);
                theirs[r] = cuda_share(other_top, all);
                sum[r] = sum[r] * mine[r] + (r ? other.w : other.y) * theirs[r];
                if (sum[r] != 0.0f) { /* 0: there are no keys, and the result is 0 */
                    mine[r] /= sum[r];
                    theirs[r] /= sum[r];
                }
            }
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

#define SMALL_HEAD 80
#define SMALL_KEYS 256
#define CHUNKS     (SMALL_HEAD / 8)

/* Columns 8 c .. 8 c + 7 of all lines side by side: cores of eight lines; 16 bytes more, so that a line's pieces lie in
 * different banks. */
typedef struct picture_memory {
    bf16 q[CHUNKS][(LINES + 1) * 8], k[CHUNKS][(SMALL_KEYS + 1) * 8], v[CHUNKS][(SMALL_KEYS + 1) * 8];
} picture_memory;

static __global__ void __launch_bounds__(GROUP, 2) picture(flash_args a)
{
#if CUDA_WGMMA
    cuda_begin();
    extern __shared__ __align__(16) unsigned char memory[];
    picture_memory *mem = (picture_memory *)memory;
    int thread = (int)threadIdx.x, lane = thread % 32, z = (int)blockIdx.z;
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m = (int)blockIdx.x * LINES;
    if (m >= lines)
        return;
    int len = cuda_count(a.len, a.key_cap), kv_width = a.kv_heads * a.head;
    int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
    const bf16 *q = a.q + ((int64_t)(z / a.kv_heads) * a.row_cap * a.kv_heads + z % a.kv_heads) * a.group * a.head;

    /* A thread's next piece is GROUP further: so many lines and chunks. */
    constexpr int line_step = GROUP / CHUNKS, chunk_step = GROUP % CHUNKS;
    const int first_line = thread / CHUNKS, first_chunk = thread % CHUNKS;
    int line = first_line, chunk = first_chunk;
    auto step = [&]() {
        line += line_step;
        chunk += chunk_step;
        if (chunk >= CHUNKS) {
            chunk -= CHUNKS;
            line++;
        }
    };
#pragma unroll 1
    for (; line < LINES; step()) {
        int at = m + line;
        bool there = at < lines && chunk * 8 < a.head;
        const bf16 *from = q + ((int64_t)(at / a.group) * a.kv_heads * a.group + at % a.group) * a.head + chunk * 8;
        cuda_copy16(&mem->q[chunk][line * 8], there ? from : q, there);
    }
    auto fetch = [&](bf16(*to)[(SMALL_KEYS + 1) * 8], const bf16 *from) {
        line = first_line;
        chunk = first_chunk;
        from += kv_at;
#pragma unroll 4
        for (int i = 0; i < SMALL_KEYS * CHUNKS / GROUP; i++, step()) {
            bool there = line < len && chunk * 8 < a.head;
            cuda_copy16(&to[chunk][line * 8], there ? from + line * kv_width + chunk * 8 : from, there);
        }
        cuda_copy_commit();
    };
    fetch(mem->k, a.k);
    fetch(mem->v, a.v);
    cuda_copy_wait<1>();
    cuda_shared_for_wgmma();
    __syncthreads(); /* q and k are there */

    const int q_lead = (int)sizeof mem->q[0], kv_lead = (int)sizeof mem->k[0];
    const uint64_t q_at = cuda_operand_at(cuda_shared(mem->q), q_lead, 128, WGMMA_PLAIN);
    const uint64_t k_at = cuda_operand_at(cuda_shared(mem->k), kv_lead, 128, WGMMA_PLAIN);
    const uint64_t v_at = cuda_operand_at(cuda_shared(mem->v), 128, kv_lead, WGMMA_PLAIN);
    float s[SMALL_KEYS / 2], o[SMALL_HEAD / 2], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale[2];
    cuda_wgmma_begin();
#pragma unroll
    for (int d = 0; d < CHUNKS; d += 2)
        cuda_wgmma<SMALL_KEYS>(s, q_at + (uint64_t)(d * q_lead >> 4), k_at + (uint64_t)(d * kv_lead >> 4), d != 0);
    cuda_wgmma_commit();
    cuda_wgmma_wait<0>();
    cuda_settle(s);
    weigh(s, a.scale, len - lane % 4 * 2, top, sum, scale);
    uint32_t p[SMALL_KEYS / 16][4];
    pack(p, s);
    cuda_copy_wait<0>();
    cuda_shared_for_wgmma();
    __syncthreads(); /* v is there */
    cuda_wgmma_begin();
#pragma unroll
    for (int j = 0; j < SMALL_KEYS / 16; j++)
        cuda_wgmma_of<SMALL_HEAD>(o, p[j], v_at + (uint64_t)(j * 256 >> 4), j != 0);
    cuda_wgmma_commit();
    cuda_wgmma_wait<0>();
    cuda_settle(o);

    m += thread / 32 * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        float by = len ? 1.0f / sum[r] : 0.0f; /* no keys: 0 */
        const flash_line to = cuda_line(a, z, m + 8 * r, 0, m + 8 * r < lines);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int column = i * 8 + lane % 4 * 2;
            cuda_put_pair(to, column, a.head, o[4 * i + 2 * r] * by, o[4 * i + 2 * r + 1] * by);
        }
    }
#endif
}

/* ---- the choice ---- */

static cudaError_t stream_run(const cuda_call *c, const flash_args &a, int64_t lines, unsigned matrices)
{
    cudaError_t e = cudaFuncSetAttribute(stream, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)STREAM_BYTES);
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
    return e ? e : cudaLaunchKernelEx(&config, stream, a);
}

static cudaError_t picture_run(const cuda_call *c, const flash_args &a, int64_t lines, unsigned matrices)
{
    cudaError_t e = cudaFuncSetAttribute(picture, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(picture_memory));
    return e ? e : cuda_launch(c, picture, dim3(cuda_ceil(lines, LINES), 1, matrices), GROUP, sizeof(picture_memory), a);
}

/* `stream` splits keys in two alone: with few lines attention.cu, which splits them further, fills the device better. A
 * `picture` of few keys would compute more zeros than scores. */
cudaError_t cuda_attention_wgmma(const cuda_call *c, const flash_args &args, bool *done)
{
    flash_args a = args;
    int64_t lines = (int64_t)a.row_cap * a.group, matrices = c->node->attr.attention.batch * (int64_t)a.kv_heads;
    bool small = a.head > 48 && a.head <= SMALL_HEAD && a.key_cap > SMALL_KEYS / 2 && a.key_cap <= SMALL_KEYS;
    bool large = a.head > 128 && 4 * matrices * cuda_ceil(lines, 2 * LINES) >= c->sms;
    *done = c->wgmma && lines && a.scale > 0 && (small || large);
    a.splits = 1;
    if (!*done)
        return cudaSuccess;
    return small ? picture_run(c, a, lines, (unsigned)matrices) : stream_run(c, a, lines, (unsigned)matrices);
}
