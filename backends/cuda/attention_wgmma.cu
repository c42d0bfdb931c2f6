/* attention_wgmma.cu - the whole of attention on Hopper's own tensor instructions: what attention.cu computes, for the two
 * shapes that take the time: many lines at head sizes above 128, and pictures (SigLIP).
 *
 * Layout, counts, numerics: as in attention.cu; all orders are fixed.
 * Launch: `stream`, head up to 256: clusters of two blocks, 128 lines a cluster; each block takes half the tiles of 64
 *   keys. Two warpgroups hold 64 lines each, their result in registers; a third has K and V fetched into a ring of five
 *   tiles in the order of use: by the copy engine, or, where a tile ends behind `len` or the head is below 256, by cp.async,
 *   so that nothing behind is read. Scores of the next tile are computed while the weights of this one meet V, and the two
 *   warpgroups fill one another's gaps. At the end each block finishes 64 lines: what the other has for them, it puts into
 *   this one's shared memory. With lines for two thirds of the device at most a block is ALONE: it has 64 lines, its warpgroups take
 *   turns at the tiles of keys, each with a ring of three, and hand over half of the columns.
 *   `picture`, 256 keys of head 72: 128 lines a block, two warpgroups, all keys at once in shared memory, by the copy engine
 *   where lines are long. All scores of a line are in registers, so the softmax is one pass; the second half of the keys is
 *   weighed while the first meets V.
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
#define OF_GROUP  3  /* of a warpgroup with a ring of its own */
#define TILE      (KEYS * HEAD * 2)
#define SUB       (KEYS * 128) /* 64 columns of a tile: lines of 128 bytes */
#define BLOCK     (3 * GROUP)
#define Q_BYTES   (2 * LINES * HEAD * 2)
#define HAND_LINE (HEAD / 8) /* float4 of a thread's results */

#define HAND_BYTES ((HAND_LINE + 1) * GROUP * (int)sizeof(float4))

static_assert(LINES == KEYS, "q of a warpgroup is laid out as a tile");

typedef struct stream_args {
    CUtensorMap q, k, v; /* where the head is HEAD; q where its lines lie in a row, too */
    bool q_in_a_row;
    flash_args a;
} stream_args;

/* From a block's shared memory, rounded up to 1024. At the end the ring's place is used again. */
typedef struct stream_memory {
    unsigned char q[2][TILE];
    union {
        unsigned char ring[SLOTS][TILE];
        struct {
            float4 handed[HAND_LINE + 1][GROUP]; /* what the other block's warpgroup found for the same lines */
            float out[LINES][HEAD];              /* in the result's dtype */
        } end;
    };
    uint64_t full[2 * OF_GROUP], empty[2 * OF_GROUP], q_there[2], handed;
} stream_memory;

static_assert(2 * OF_GROUP == SLOTS + 1, "a block alone has one q and one slot more");

/* In a warpgroup's own ring at the end. */
typedef struct alone_end {
    float4 handed[HAND_LINE / 2 + 1][GROUP]; /* what it found for the other's columns */
    float out[LINES][HEAD / 2];              /* in the result's dtype */
} alone_end;

static_assert(sizeof(alone_end) <= OF_GROUP * TILE, "they fit");

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

#if CUDA_WGMMA
/* Each warpgroup has half of the keys for the same lines: it finishes half of the columns, and hands over what it has for the others. */
static __device__ inline void finish_alone(const flash_args &a, const float (&o)[HEAD / 2], const float (&top)[2], const float (&sum)[2],
                                           alone_end *own, const alone_end *other, int role, int thread, int m, int lines, int z)
{
    const int lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
    float x[HEAD / 4], mine[2], theirs[2];
    cuda_barrier(1 + role, GROUP); /* its ring is used no more */
#pragma unroll
    for (int i = 0; i < HAND_LINE / 2; i++) {
        float4 give;
        float *const v[4] = {&give.x, &give.y, &give.z, &give.w};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            x[4 * i + e] = role ? o[HEAD / 4 + 4 * i + e] : o[4 * i + e];
            *v[e] = role ? o[4 * i + e] : o[HEAD / 4 + 4 * i + e];
        }
        own->handed[i][thread] = give;
    }
    own->handed[HAND_LINE / 2][thread] = make_float4(top[0], sum[0], top[1], sum[1]);
    cuda_barrier(3, 2 * GROUP);
    merge(top, sum, other->handed[HAND_LINE / 2][thread], mine, theirs);

    /* By way of shared memory, so that a warp stores whole lines: 16 bytes at place c of line r are at c ^ r % 8. */
    const uint32_t line_bytes = a.out_f32 ? HEAD / 2 * 4 : HEAD / 2 * 2, warp_at = cuda_shared(own->out) + (uint32_t)warp * 16 * line_bytes;
#pragma unroll
    for (int i = 0; i < HAND_LINE / 2; i++) {
        const float4 v = other->handed[i][thread];
        const float low[2] = {x[4 * i] * mine[0] + v.x * theirs[0], x[4 * i + 1] * mine[0] + v.y * theirs[0]},
                    high[2] = {x[4 * i + 2] * mine[1] + v.z * theirs[1], x[4 * i + 3] * mine[1] + v.w * theirs[1]};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float(&pair)[2] = r ? high : low;
            const uint32_t at = warp_at + (uint32_t)(g + 8 * r) * line_bytes;
            if (a.out_f32)
                asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at + ((2 * i + t / 2) ^ g) * 16 + t % 2 * 8), "f"(pair[0]),
                             "f"(pair[1])
                             : "memory");
            else
                asm volatile("st.shared.b32 [%0], %1;" ::"r"(at + (i ^ g) * 16 + t * 4), "r"(cuda_pack_bf16(pair[0], pair[1]))
                             : "memory");
        }
    }
    __syncwarp();
    m += warp * 16 + lane % 16;
    const flash_line to = cuda_line(a, z, m, 0, m < lines); /* of line `lane` of the warp */
    const uint64_t to_at = to.bf16 || to.f32 ? (uint64_t)to.at + role * line_bytes : 0;
    const uint4 *from = (const uint4 *)own->out + warp * 16 * (int)(line_bytes / 16);
    const int chunks = (int)line_bytes / 16, c = lane % chunks, lines_at_once = 32 / chunks;
    for (int first = 0; first < 16; first += 8 * lines_at_once) {
        uint4 v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int r = first + i * lines_at_once + lane / chunks;
            v[i] = from[r * chunks + (c ^ r % 8)];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            char *line_at = (char *)__shfl_sync(~0u, to_at, first + i * lines_at_once + lane / chunks);
            if (line_at)
                *(uint4 *)(line_at + c * 16) = v[i];
        }
    }
}
#endif

/* ALONE: no cluster; a block has 64 lines and its warpgroups take turns at the tiles of keys, each with a ring of its own. */
template <bool ALONE> static __global__ void __launch_bounds__(BLOCK, 1) stream(const __grid_constant__ stream_args p)
{
#if CUDA_WGMMA
    const flash_args &a = p.a;
    extern __shared__ __align__(16) unsigned char memory[];
    constexpr int slots = ALONE ? OF_GROUP : SLOTS, rings = ALONE ? 2 : 1, every = rings; /* every: so many tiles */
    int z = (int)blockIdx.z, part = (int)blockIdx.y, role = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP;
    stream_memory *mem = (stream_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    uint32_t ring = cuda_shared(ALONE ? mem->q[1] : mem->ring[0]), full = cuda_shared(mem->full), empty = cuda_shared(mem->empty);
    uint32_t q_there = cuda_shared(mem->q_there), handed = cuda_shared(&mem->handed);
    if (threadIdx.x == 0) {
        for (int i = 0; i < rings * slots; i++) {
            cuda_mbarrier_init(full + 8 * i, GROUP / 32);
            cuda_mbarrier_init(empty + 8 * i, 2 / rings * GROUP / 32);
        }
        for (int i = 0; i < 2; i++)
            cuda_mbarrier_init(q_there + 8 * i, 1);
        cuda_mbarrier_init(handed, 1);
        cuda_shared_for_wgmma(); /* for the copy engine */
        cuda_expect_bytes(handed, HAND_BYTES);
        if (a.head == HEAD) {
            cuda_map_ahead(&p.k);
            cuda_map_ahead(&p.v);
        }
        if (p.q_in_a_row)
            cuda_map_ahead(&p.q);
    }
    __syncthreads();
    cuda_begin(); /* so far: its own shared memory, and its arguments */
    int lines = cuda_count(a.rows, a.row_cap) * a.group, m0 = (int)blockIdx.x * 2 / rings * LINES;
    if (m0 >= lines) /* the whole cluster */
        return;
    int len = cuda_count(a.len, a.key_cap), tiles = (len + KEYS - 1) / KEYS;
    auto begins = [&](int who) { return ALONE ? who : tiles * part / 2; };
    auto count = [&](int who) { return ALONE ? (tiles + 1 - who) / 2 : tiles * (part + 1) / 2 - tiles * part / 2; };

    /* The ring holds, as they are used: K 0, K 1, V 0, K 2, V 1, .. V last. */
    if (role == 2) {
        cuda_registers_fewer<40>();
        int kv_width = a.kv_heads * a.head;
        int64_t kv_at = ((int64_t)(z / a.kv_heads) * a.key_rows + a.first) * kv_width + z % a.kv_heads * a.head;
        int column = z % a.kv_heads * a.head, row = z / a.kv_heads * a.key_rows + a.first;
        cuda_slot<slots> slot = {0, 1}; /* new slots are free */
        if (p.q_in_a_row && thread == 0) {
#pragma unroll 1
            for (int i = 0; i < 2 / rings; i++) {
                cuda_expect_bytes(q_there + 8 * i, TILE);
                for (int j = 0; j < HEAD / 64; j++)
                    cuda_box(cuda_shared(mem->q[i]) + j * SUB, &p.q, 64 * j, z * a.row_cap * a.group + m0 + i * LINES,
                             q_there + 8 * i);
            }
        }
        __syncwarp();
        for (int i = 0; i < 2 * count(0); i++) {
#pragma unroll
            for (int who = 0; who < rings; who++) {
                const int items = 2 * count(who);
                if (i >= items)
                    continue;
                bool is_k = i == 0 || (i % 2 && i != items - 1);
                int t = begins(who) + every * (is_k ? (i + 1) / 2 : (i - 1) / 2), at = who * slots + slot.index;
                uint32_t to = ring + at * TILE, barrier = full + 8 * at;
                bool whole = a.head == HEAD && (t + 1) * KEYS <= len;
                cuda_mbarrier_wait(empty + 8 * at, slot.parity);
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
            }
            slot.next();
        }
        if (!ALONE)
            cuda_cluster_barrier();
    } else {
        cuda_registers_more<232>();
        const int lane = thread % 32, warp = thread / 32, n = count(role), mine = ALONE ? role : 0, of_q = ALONE ? 0 : role;
        int m = m0 + of_q * LINES;
        if (ALONE || p.q_in_a_row) {
            cuda_mbarrier_wait(q_there + 8 * of_q, 0);
        } else {
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
        ring += mine * slots * TILE;
        full += mine * slots * 8;
        empty += mine * slots * 8;
        const uint64_t q_at = cuda_operand_at(cuda_shared(mem->q[of_q]), 16, 1024, WGMMA_128);
        const uint64_t k_at = cuda_operand_at(ring, 16, 1024, WGMMA_128);
        const uint64_t v_at = cuda_operand_at(ring, SUB, 1024, WGMMA_128); /* lead: to the next 64 columns */
        float s[KEYS / 2], o[HEAD / 2], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale[2];
        uint32_t w[KEYS / 16][4];
        int left = len - begins(role) * KEYS - lane % 4 * 2;
        cuda_slot<slots> slot = {};
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
                left -= every * KEYS;
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

        if (ALONE) {
            auto end_of = [&](int who) { return (alone_end *)((unsigned char *)mem + (1 + who * slots) * TILE); };
            finish_alone(a, o, top, sum, end_of(role), end_of(1 - role), role, thread, m, lines, z);
            return;
        }
        cuda_cluster_barrier(); /* nobody in either block uses the ring any more */
        if (role != part) {
            const uint32_t there = cuda_cluster_at(cuda_shared(mem->end.handed[0] + thread), role),
                           barrier = cuda_cluster_at(handed, role);
            const float sums[4] = {top[0], sum[0], top[1], sum[1]};
            constexpr uint32_t next_line = GROUP * sizeof(float4);
#pragma unroll
            for (int i = 0; i < HAND_LINE; i++)
                cuda_cluster_put4(there + i * next_line, o + 4 * i, barrier);
            cuda_cluster_put4(there + HAND_LINE * next_line, sums, barrier);
        } else {
            float mine[2], theirs[2];
            cuda_mbarrier_wait(handed, 0);
            merge(top, sum, mem->end.handed[HAND_LINE][thread], mine, theirs);
#pragma unroll
            for (int i = 0; i < HAND_LINE; i++) {
                const float4 v = mem->end.handed[i][thread];
                o[4 * i] = o[4 * i] * mine[0] + v.x * theirs[0];
                o[4 * i + 1] = o[4 * i + 1] * mine[0] + v.y * theirs[0];
                o[4 * i + 2] = o[4 * i + 2] * mine[1] + v.z * theirs[1];
                o[4 * i + 3] = o[4 * i + 3] * mine[1] + v.w * theirs[1];
            }
            /* By way of shared memory, so that a warp stores whole lines: 16 bytes at place c of line r are at c ^ r % 8. */
            const uint32_t line_bytes = a.out_f32 ? HEAD * 4 : HEAD * 2;
            const uint32_t warp_at = cuda_shared(mem->end.out) + (uint32_t)warp * 16 * line_bytes;
            const int g = lane / 4, t = lane % 4;
#pragma unroll
            for (int i = 0; i < HAND_LINE; i++) {
                const float *x = o + 4 * i;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const uint32_t at = warp_at + (uint32_t)(g + 8 * r) * line_bytes;
                    if (a.out_f32)
                        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at + ((2 * i + t / 2) ^ g) * 16 + t % 2 * 8),
                                     "f"(x[2 * r]), "f"(x[2 * r + 1])
                                     : "memory");
                    else
                        asm volatile("st.shared.b32 [%0], %1;" ::"r"(at + (i ^ g) * 16 + t * 4),
                                     "r"(cuda_pack_bf16(x[2 * r], x[2 * r + 1]))
                                     : "memory");
                }
            }
            __syncwarp();
            const int chunks = a.head * (a.out_f32 ? 4 : 2) / 16;
            m += warp * 16 + lane % 16;
            const flash_line to = cuda_line(a, z, m, 0, m < lines); /* of line `lane` of the warp */
            const uint64_t to_at = to.bf16 || to.f32 ? (uint64_t)to.at : 0;
            const uint4 *from = (const uint4 *)mem->end.out + warp * 16 * (int)(line_bytes / 16);
            for (int c = lane; c - lane < chunks; c += 32)
#pragma unroll
                for (int first = 0; first < 16; first += 8) { /* so many lines under way */
                    uint4 v[8];
#pragma unroll
                    for (int r = 0; r < 8; r++)
                        v[r] = from[(first + r) * (int)(line_bytes / 16) + (c ^ r)];
#pragma unroll
                    for (int r = 0; r < 8; r++) {
                        char *line_at = (char *)__shfl_sync(~0u, to_at, first + r);
                        if (line_at && c < chunks)
                            *(uint4 *)(line_at + c * 16) = v[r];
                    }
                }
        }
    }
#endif
}

/* ---- picture ---- */

/* 64 columns in lines of 128 bytes, and 8 in cores, with another 8 of zeros where products go along them. */
#define SMALL_HEAD 72
#define SMALL_KEYS 256
#define HALF_KEYS  (SMALL_KEYS / 2)

typedef struct picture_args {
    CUtensorMap q, k, v; /* columns 0 .. 63 of a head; K half the keys, V all */
    flash_args a;
} picture_args;

/* From a block's shared memory, rounded up to 1024. */
typedef struct picture_memory {
    bf16 k[2][HALF_KEYS][64], v[SMALL_KEYS][64], q[2][LINES][64];
    bf16 q_rest[2][2][LINES][8], k_rest[2][SMALL_KEYS][8], v_rest[SMALL_KEYS][8];
    uint64_t k_there[2], v_there;
} picture_memory;

#define PICTURE_BYTES (sizeof(picture_memory) + 1024)

static __global__ void __launch_bounds__(2 * GROUP, 1) picture(const __grid_constant__ picture_args p)
{
#if CUDA_WGMMA
    extern __shared__ __align__(16) unsigned char memory[];
    picture_memory *mem = (picture_memory *)(memory + (1024 - cuda_shared(memory) % 1024) % 1024);
    const flash_args &a = p.a;
    const int group = (int)threadIdx.x / GROUP, thread = (int)threadIdx.x % GROUP, lane = thread % 32, t = lane % 4;
    const int z = (int)blockIdx.z, m0 = (int)blockIdx.x * 2 * LINES, width = a.kv_heads * a.head;
    const int column = z % a.kv_heads * a.head, row = z / a.kv_heads * a.row_cap + m0;
    const int key = z / a.kv_heads * a.key_rows + a.first;
    const uint32_t k_there = cuda_shared(mem->k_there), v_there = cuda_shared(&mem->v_there);

    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++)
            cuda_mbarrier_init(k_there + 8 * i, 1);
        cuda_mbarrier_init(v_there, 1);
        cuda_map_ahead(&p.q);
        cuda_map_ahead(&p.k);
        cuda_map_ahead(&p.v);
    }
    *(uint4 *)mem->k_rest[1][threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (thread < LINES)
        *(uint4 *)mem->q_rest[group][1][thread] = make_uint4(0, 0, 0, 0);
    cuda_shared_for_wgmma(); /* and for the copy engine: the barriers */
    __syncthreads();
    cuda_begin(); /* so far: its own shared memory, and its arguments */
    if (threadIdx.x == 0) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            cuda_expect_bytes(k_there + 8 * i, HALF_KEYS * 128 + (i ? 0 : 2 * LINES * 128));
            if (i == 0)
                for (int j = 0; j < 2; j++)
                    cuda_box(cuda_shared(mem->q[j]), &p.q, column, row + j * LINES, k_there);
            cuda_box(cuda_shared(mem->k[i]), &p.k, column, key + i * HALF_KEYS, k_there + 8 * i);
        }
        cuda_expect_bytes(v_there, SMALL_KEYS * 128);
        cuda_box(cuda_shared(mem->v), &p.v, column, key, v_there);
    }
    __syncwarp();
    /* Boxes of lines as short as the rest of a head take the copy engine as long as whole ones: a thread a line. */
    const int64_t rest = (int64_t)(key + (int)threadIdx.x) * width + column + 64;
    if (thread < LINES) {
        const int line = group * LINES + thread;
        const bool there = m0 + line < a.row_cap;
        cuda_copy16(mem->q_rest[group][0][thread], there ? a.q + (int64_t)(row + line) * width + column + 64 : a.q, there);
    }
    cuda_copy16(mem->k_rest[0][threadIdx.x], a.k + rest, true);
    cuda_copy16(mem->v_rest[threadIdx.x], a.v + rest, true);
    cuda_copy_commit();
    const int line = group * LINES + thread / 32 * 16 + lane / 4;
    char *const out = (char *)a.out + ((int64_t)(row + line) * width + column) * (a.out_f32 ? 4 : 2);
    cuda_copy_wait<0>();
    cuda_shared_for_wgmma();
    __syncthreads(); /* the rests are there */

    float s[2][HALF_KEYS / 2], o[32], o_rest[4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    uint32_t w[HALF_KEYS / 16][4];
    const uint64_t q_at = cuda_operand_at(cuda_shared(mem->q[group]), 16, 1024, WGMMA_128);
    const uint64_t k_at = cuda_operand_at(cuda_shared(mem->k), 16, 1024, WGMMA_128);
    const uint64_t v_at = cuda_operand_at(cuda_shared(mem->v), 16, 1024, WGMMA_128);
    const uint64_t q_rest = cuda_operand_at(cuda_shared(mem->q_rest[group]), sizeof mem->q_rest[0][0], 128, WGMMA_PLAIN);
    const uint64_t k_rest = cuda_operand_at(cuda_shared(mem->k_rest), sizeof mem->k_rest[0], 128, WGMMA_PLAIN);
    const uint64_t v_rest = cuda_operand_at(cuda_shared(mem->v_rest), 128, 128, WGMMA_PLAIN);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        cuda_mbarrier_wait(k_there + 8 * h, 0);
        cuda_wgmma_begin();
#pragma unroll
        for (int d = 0; d < 4; d++)
            cuda_wgmma<HALF_KEYS>(s[h], q_at + 2 * d, k_at + h * (sizeof mem->k[0] >> 4) + 2 * d, d != 0);
        cuda_wgmma<HALF_KEYS>(s[h], q_rest, k_rest + h * (HALF_KEYS * 16 >> 4), true);
        cuda_wgmma_commit();
    }
    cuda_wgmma_wait<1>();
    cuda_settle(s[0]);
#pragma unroll
    for (int i = 0; i < HALF_KEYS / 2; i++)
        top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[0][i]);
    cuda_wgmma_wait<0>();
    cuda_settle(s[1]);
#pragma unroll
    for (int i = 0; i < HALF_KEYS / 2; i++)
        top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[1][i]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = a.scale * fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    }
    /* The second half's weights are made while the first half's meet V. */
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int i = 0; i < HALF_KEYS / 2; i++) {
            s[h][i] = cuda_exp2(fmaf(s[h][i], a.scale, -top[i / 2 % 2]));
            sum[i / 2 % 2] += s[h][i];
        }
        if (h == 0) {
            cuda_mbarrier_wait(v_there, 0);
        } else {
            cuda_wgmma_wait<0>();
            cuda_settle(o);
            cuda_settle(o_rest);
            cuda_settle(s[1]); /* or these weights might go where the last ones are being read */
        }
        pack(w, s[h]);
        cuda_wgmma_begin();
#pragma unroll
        for (int j = 0; j < HALF_KEYS / 16; j++) {
            const int at = h * (HALF_KEYS / 16) + j;
            cuda_wgmma_of<64>(o, w[j], v_at + at * (2048 >> 4), at != 0);
            cuda_wgmma_of<8>(o_rest, w[j], v_rest + at * (256 >> 4), at != 0);
        }
        cuda_wgmma_commit();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] = 1.0f / (sum[r] + __shfl_xor_sync(~0u, sum[r], 2));
    }
    cuda_wgmma_wait<0>();
    cuda_settle(o);
    cuda_settle(o_rest);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const bool there = m0 + line + 8 * r < a.row_cap;
        const flash_line to = {out + (int64_t)r * 8 * width * (a.out_f32 ? 4 : 2), there && !a.out_f32, there && a.out_f32};
        cuda_put_pair(to, 64 + 2 * t, SMALL_HEAD, o_rest[2 * r] * sum[r], o_rest[2 * r + 1] * sum[r]);
        if (a.out_f32) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                cuda_put_pair(to, 8 * i + 2 * t, SMALL_HEAD, o[4 * i + 2 * r] * sum[r], o[4 * i + 2 * r + 1] * sum[r]);
            continue;
        }
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            uint32_t x[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                x[j] = cuda_pack_bf16(o[4 * (i + j) + 2 * r] * sum[r], o[4 * (i + j) + 2 * r + 1] * sum[r]);
            const uint4 all = cuda_gather(x[0], x[1], x[2], x[3], t);
            if (there)
                *(uint4 *)(to.at + (8 * i + 8 * t) * 2) = all;
        }
    }
#endif
}

/* ---- the choice ---- */

static cudaError_t stream_run(const cuda_call *c, const flash_args &a, int64_t lines, unsigned matrices)
{
    stream_args p = {};
    p.a = a;
    const int64_t rows = (int64_t)c->node->attr.attention.batch * a.key_rows, width = (int64_t)a.kv_heads * a.head;
    p.q_in_a_row = a.head == HEAD && a.kv_heads == 1;
    /* Where either way takes no more than two thirds of the device, handing over within a block is faster, though it reads all keys. */
    const bool alone = p.q_in_a_row && 3 * matrices * cuda_ceil(lines, LINES) <= 2 * (unsigned)c->sms;
    auto kernel = alone ? stream<true> : stream<false>;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)STREAM_BYTES);
    if (e == cudaSuccess && a.head == HEAD)
        e = cuda_tensor_map(&p.k, a.k, rows, width, KEYS);
    if (e == cudaSuccess && a.head == HEAD)
        e = cuda_tensor_map(&p.v, a.v, rows, width, KEYS);
    if (e == cudaSuccess && p.q_in_a_row)
        e = cuda_tensor_map(&p.q, a.q, lines * (int64_t)matrices, HEAD, LINES);
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeClusterDimension;
    how[0].val.clusterDim.x = how[0].val.clusterDim.z = 1;
    how[0].val.clusterDim.y = alone ? 1 : 2;
    how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = alone ? dim3(cuda_ceil(lines, LINES), 1, matrices) : dim3(cuda_ceil(lines, 2 * LINES), 2, matrices);
    config.blockDim = dim3(BLOCK);
    config.dynamicSmemBytes = STREAM_BYTES;
    config.stream = c->stream;
    config.attrs = how;
    config.numAttrs = c->dependent ? 2 : 1;
    return e ? e : cudaLaunchKernelEx(&config, kernel, p);
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
                {&p.v, a.v, batch * a.key_rows, SMALL_KEYS}};
    for (const auto &m : maps)
        if (e == cudaSuccess)
            e = cuda_tensor_map(m.map, m.data, m.rows, width, m.box_rows);
    return e ? e : cuda_launch(c, picture, dim3(cuda_ceil(lines, 2 * LINES), 1, matrices), 2 * GROUP, PICTURE_BYTES, p);
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
