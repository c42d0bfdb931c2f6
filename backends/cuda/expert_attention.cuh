/* expert_attention.cuh - the phase of attention in expert.cu.
 *
 * All (head, row) stand in one line, head by head; a cluster has `per` of them, and each of its blocks an eighth of the keys. A warp
 * scores 16 keys, then multiplies 32 columns of V; what a block has of these 32 columns goes to the block of the cluster
 * whose rank is the warp's index. That one adds up the shares, divides, and publishes.
 * q in shared memory: [16 of K][piece of 8][lane][2 words], mma.sync's second operand; its columns d and d + 128 stand
 * side by side, so those of K do too. Keys that nobody may see are not read: lines of them are zeros in the ring. */

/* Where in the exchange this lane's (head, row) goes, and columns of this warp's; -1: nowhere. */
static __device__ inline int attention_place(const self &s, int rows)
{
    int line = s.warp % 4 * 8 + s.lane / 4, flat = s.cluster * mem().per + line, head = flat / rows,
        row = flat - head * rows;
    int k = head * 16 + s.rank * 2 + s.warp / 4; /* of 16 columns */
    return line < mem().count ? ((k * 4 + row / 16) * 32 + row % 8 * 4 + s.lane % 4) * 4 + row % 16 / 8 : -1;
}

/* P: pieces that are computed. */
template <int P>
static __device__ inline void attend(const expert_args &a, const self &s, uint32_t *now, uint32_t *old,
                                     turn &n, uint32_t parity, int attn_to)
{
    constexpr int vectors = HEAD / 8; /* of a line of k or v */
    const int slots = (mem().key_tiles + 1) / 2, fresh = mem().fresh;
    unsigned char *q = (unsigned char *)mem().parts, *probability = q + 16 * PIECES * 256;

    /* q, and the suffix's own keys and values, which this layer makes: lines of the share's first slot of each */
    const int line = s.thread() / (2 * vectors), is_v = s.thread() / vectors % 2,
              column = s.thread() % vectors;
    uint4 v[4], k[2];
    const bool there_q =
        s.thread() / 16 % 4 * 8 + s.thread() % 16 / 2 < mem().count; /* two lanes' words, of one row */
    const uint32_t *q_from = now + place::q + s.cluster * (16 * PIECES * 64) + s.thread() * 4;
    const uint32_t *k_from =
        now + place::keys + ((is_v * a.rows + s.rank + line * SHARES) * vectors + column) * 4;
    auto wanted_q = [&](int) { return there_q; };
    auto wanted_k = [&](int i) { return line + 4 * i < fresh; };
    auto q_at = [&](int i) { return q_from + i * WARPS * 32 * 4; };
    auto k_at = [&](int i) { return k_from + i * 4 * SHARES * vectors * 4; };
    exchange_ask(v, wanted_q, q_at);
    exchange_ask(k, wanted_k, k_at);
    exchange_settle(v, q_at);
    together(); /* sums that lay there have been read */
#pragma unroll
    for (int i = 0; i < 4; i++)
        *(uint4 *)(q + (s.thread() + i * WARPS * 32) * 16) = v[i];
    exchange_settle(k, k_at);
    auto put = [&](turn slot) {
        unsigned char *to =
            weights().take(slot) + line * KEY_LINE + column * 16; /* what else is in there has come */
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (wanted_k(i))
                *(uint4 *)(to + i * 4 * KEY_LINE) = k[i];
    };
    if (!is_v && line < fresh)
        put(n);
    together();

    /* a warp has 16 keys; without any the maximum is -inf and the sum 0 */
    float score[P][4] = {}, low[P], high[P];
    if (s.warp < mem().key_tiles) {
        const unsigned char *key_line = weights().take(n.plus(s.warp / 2)) +
                                        (s.warp % 2 * 16 + s.lane % 16) * KEY_LINE + s.lane / 16 * HEAD;
#pragma unroll 4
        for (int i = 0; i < 16; i++) {
            uint32_t key[4];
            cuda_ldmatrix(key, key_line + i * 16);
#pragma unroll
            for (int t = 0; t < P; t++) {
                uint2 x = *(const uint2 *)(q + (i * PIECES + t) * 256 + s.lane * 8);
                cuda_mma(score[t], key, x.x, x.y);
            }
        }
    }
#pragma unroll 1
    for (int i = 0; i < slots; i++, n.next())
        weights().give_back(n, s.lane);
    const int valid = mem().keys - s.warp * 16 - s.lane / 4;
#pragma unroll
    for (int t = 0; t < P; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            score[t][i] = i / 2 * 8 < valid ? score[t][i] * a.scale : -INFINITY;
        low[t] = fmaxf(score[t][0], score[t][2]);
        high[t] = fmaxf(score[t][1], score[t][3]);
    }
    const int number = P == 1 ? s.lane / 16 : s.lane / 4, of = number / 2 * 8 + s.lane % 4 * 2 + number % 2;
    {
        float v[2 * P];
#pragma unroll
        for (int t = 0; t < P; t++)
            v[2 * t] = low[t], v[2 * t + 1] = high[t];
        mem().top[s.warp][of] = reduce_scatter(v, s.lane, [](float x, float y) { return fmaxf(x, y); });
    }
    together();
    float line_top = -FLT_MAX; /* of (head, row) `lane`; no keys: all weights are 0 */
    if (s.lane < P * 8)
#pragma unroll
        for (int i = 0; i < SHARE; i++)
            line_top = fmaxf(line_top, mem().top[i][s.lane]);
#pragma unroll
    for (int t = 0; t < P; t++) {
        float top[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            top[i] = __shfl_sync(~0u, line_top, t * 8 + s.lane % 4 * 2 + i);
#pragma unroll
        for (int i = 0; i < 4; i++)
            score[t][i] = cuda_exp2(score[t][i] - top[i % 2]);
        low[t] = score[t][0] + score[t][2];
        high[t] = score[t][1] + score[t][3];
        uint2 p = make_uint2(turn_over(cuda_pack_bf16(score[t][0], score[t][1])),
                             turn_over(cuda_pack_bf16(score[t][2], score[t][3])));
        *(uint2 *)(probability + ((s.warp * PIECES + t) * 32 + s.lane) * 8) = p;
    }
    {
        float v[2 * P];
#pragma unroll
        for (int t = 0; t < P; t++)
            v[2 * t] = low[t], v[2 * t + 1] = high[t];
        mem().sum[s.warp][of] = reduce_scatter(v, s.lane, [](float x, float y) { return x + y; });
    }
    if (is_v && line < fresh)
        put(n);
    together();

    float acc[2][P][4] = {}; /* 16 columns of the head each */
#pragma unroll 1
    for (int i = 0; i < slots; i++) { /* of 32 keys */
        const unsigned char *key_line = weights().take(n.plus(i)) +
                                        (s.lane % 8 + s.lane / 16 * 8) * KEY_LINE + s.warp * 64 +
                                        s.lane / 8 % 2 * 16;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t value[2][4];
            cuda_ldmatrix_trans(value[0], key_line + j * 16 * KEY_LINE);
            cuda_ldmatrix_trans(value[1], key_line + j * 16 * KEY_LINE + 32);
#pragma unroll
            for (int t = 0; t < P; t++) {
                uint2 p = *(const uint2 *)(probability + (((2 * i + j) * PIECES + t) * 32 + s.lane) * 8);
                cuda_mma(acc[0][t], value[0], p.x, p.y);
                cuda_mma(acc[1][t], value[1], p.x, p.y);
            }
        }
    }
    const uint32_t barrier = cuda_cluster_at(there(AREA_ATTN), s.warp),
                   to = cuda_cluster_shared(&mem().parts_attn[s.rank][0][s.lane * 4], s.warp);
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int t = 0; t < P; t++)
            cuda_cluster_put4(to + (half * PIECES + t) * 512, acc[half][t], barrier);
    if (s.lane < P * 8) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < SHARE; i++)
            sum += mem().sum[i][s.lane];
        cuda_cluster_put2(cuda_cluster_shared(&mem().sums[s.rank][s.lane], s.warp), line_top, sum, barrier);
    }
#pragma unroll 1
    for (int i = 0; i < slots; i++, n.next())
        weights().give_back(n, s.lane);

    /* the shares of 16 columns of 8 (head, row), added up and divided */
    cuda_mbarrier_wait(there(AREA_ATTN), parity);
    if (s.warp % 4 >= P)
        return;
    float top[2] = {-FLT_MAX, -FLT_MAX}, sum[2] = {}, o[4] = {};
    float4 share[SHARES]; /* maximum and sum, of two (head, row) */
#pragma unroll
    for (int i = 0; i < SHARES; i++) {
        share[i] = *(const float4 *)&mem().sums[i][s.warp % 4 * 8 + s.lane % 4 * 2];
        top[0] = fmaxf(top[0], share[i].x);
        top[1] = fmaxf(top[1], share[i].z);
    }
#pragma unroll
    for (int i = 0; i < SHARES; i++) {
        float f0 = cuda_exp2(share[i].x - top[0]), f1 = cuda_exp2(share[i].z - top[1]);
        float4 v = *(const float4 *)&mem().parts_attn[i][s.warp][s.lane * 4];
        sum[0] += f0 * share[i].y;
        sum[1] += f1 * share[i].w;
        o[0] += f0 * v.x;
        o[1] += f1 * v.y;
        o[2] += f0 * v.z;
        o[3] += f1 * v.w;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) /* no keys at all: zeros */
        o[i] = sum[i % 2] == 0 ? 0 : __fdividef(o[i], sum[i % 2]);
    uint32_t upper = turn_over(cuda_pack_bf16(o[0], o[1])), lower = turn_over(cuda_pack_bf16(o[2], o[3]));
    if (attn_to >= 0) {
        exchange_store(now + place::attn + attn_to, upper);
        exchange_store(now + place::attn + attn_to + 2, lower);
        exchange_store(old + place::attn + attn_to, NOTHING);
        exchange_store(old + place::attn + attn_to + 2, NOTHING);
    }
}
