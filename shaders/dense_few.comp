/* dense_few.comp - the linears (dense.glsl says which) for as few rows as four matrices hold, by KHR cooperative matrices: TYPE is
 * bfloat16_t or float16_t, what x and w are stored as; products are added up in f32. What it takes is memory's latency and the bytes of w.
 *
 * A group makes all rows of BN columns. Its subgroups stand in SLICES teams, each with a share of every BK of k; those of a team stand
 * beside each other, FN matrices wide each. A team keeps its share of x and w for itself, so where one subgroup is a team nobody waits for
 * the group before the end. What is fetched at once, 16 bytes a time, is what registers hold: STRETCH times what then comes to shared
 * memory at once. Matrices leave that memory before the next stretch is asked for, since a driver waits for all loads at once, and are
 * multiplied while it is on its way. A row there is 16 bytes longer than it need be, for the banks. Rows of matrices behind BM, of which
 * there may be some, are whatever lies behind x: their sums are nobody's.
 * Sums of the slices come together through shared memory, AT rows of matrices a time, and there four columns of a row become one
 * thread's; those of parts of k (parts.glsl) as such fours through memory.
 * Arrays that are to be registers have literal indices alone (docs/vulkan.md).
 * BM: rows, at most 4 LM. THREADS = SLICES BN / (FN LN) x the subgroup's size. FN at most 4; (BN / LN) (BM / LM) / SLICES ... fours of a
 * thread at most 4. k is a multiple of 8, n and ldc of 4. OP 4: the second half of a group's columns is of the second weight.
 * Sums: f32 within the device's matrix instruction, then slices in order, then parts in order. */
#version 450
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_bfloat16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "push.h"
#include "types.glsl"
#include "dense.glsl"
#include "dense_four.glsl"

layout(constant_id = 13) const uint LM = 16;
layout(constant_id = 14) const uint LN = 16;
layout(constant_id = 15) const uint LK = 16;
layout(constant_id = 16) const uint SLICES = 8;
layout(constant_id = 17) const uint FN = 2;
layout(constant_id = 18) const uint STRETCH = 1;
layout(constant_id = 19) const uint WHOLE = 0; /* every part of k is a multiple of BK */
layout(constant_id = 20) const uint AT = 1;

const uint FM = (BM + LM - 1u) / LM;
const uint EIGHTS = BK / (8u * SLICES * STRETCH);  /* of a row of a team's part: 16 bytes each */
const uint DEEP = EIGHTS * 8u / LK;                /* matrices along them */
const uint STRIDE = EIGHTS + 1u, WITH = BM * STRIDE, OF_TEAM = (BM + BN) * STRIDE;
const uint BESIDE = BN / (FN * LN);
const uint TEAM = THREADS / SLICES;
const uint OF_X = (BM * EIGHTS + TEAM - 1u) / TEAM, OF_W = BN * EIGHTS / TEAM; /* 16 bytes of a thread */
const uint LINE = BN / 4u + 1u;                    /* a row of sums, in 16 bytes */
const uint ACROSS = PAIR ? BN / 8u : BN / 4u;      /* of results, in fours */
const uint OF_ROUND = AT * LM * ACROSS, EACH = (OF_ROUND + THREADS - 1u) / THREADS, ROUNDS = FM / AT;
const uint OF_PATCHES = SLICES * AT * LM * LINE, OF_PARTS = SLICES * OF_TEAM;

shared uvec4 parts[OF_PARTS > OF_PATCHES ? OF_PARTS : OF_PATCHES]; /* of x and w, a team after the other; then rows of sums */

layout(std430, binding = 8) coherent buffer part_fours { uvec4 part_4[]; };

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

void team_barrier()
{
    if (BESIDE == 1u)
        subgroupBarrier();
    else
        barrier();
}

/* Eight numbers of x and of w. Places that are not there are read as the last ones that are: their sums are not stored, and behind the
 * end of k 0 is kept. */
uint along(uint k, uint end) { return WHOLE == 0u ? min(k, end - 8u) : k; }

uvec4 fetch_x(uint m, uint rows, uint k, uint end) { return in0_4[(min(m, rows - 1u) * push.k + along(k, end)) / 8u]; }

uvec4 fetch_w(uint i, uint c, uint k, uint end)
{
    bool second = PAIR && (OF_W % 2u == 0u ? i >= OF_W / 2u : c >= BN / 2u);
    uint n = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN) + (second ? c - BN / 2u : c);
    uint at = (min(n, push.n - 1u) * push.k + along(k, end)) / 8u;
    return second ? in3_4[at] : in1_4[at];
}

#define FOUR(DO)    DO(0u) DO(1u) DO(2u) DO(3u)
#define EIGHT(DO)   FOUR(DO) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO) EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)

/* The n-th 16 bytes of a thread: those of the first part of a stretch, then those of the second. */
#define X_PLACE(n)  min(t + n % OF_X * TEAM, BM * EIGHTS - 1u)
#define W_PLACE(n)  (t + n % OF_W * TEAM)
#define K_OF(place, which) (next + own + (which * EIGHTS + place % EIGHTS) * 8u)
#define FETCH_X(n)  if (n < OF_X * STRETCH) x[n] = fetch_x(X_PLACE(n) / EIGHTS, rows, K_OF(X_PLACE(n), n / OF_X), span.y);
#define FETCH_W(n)  if (n < OF_W * STRETCH) w[n] = fetch_w(n % OF_W, W_PLACE(n) / EIGHTS, K_OF(W_PLACE(n), n / OF_W), span.y);
#define THERE_OF(v, k) mix(v, uvec4(0u), bvec4(WHOLE == 0u && k >= span.y)) /* asked when it has come: to ask before is to wait */
#define KEEP(place, v, k) parts[team + place / EIGHTS * STRIDE + place % EIGHTS] = THERE_OF(v, k);
#define KEEP_X(n)                                                                                         \
    if (n < OF_X * STRETCH && n / OF_X == which && (BM * EIGHTS % TEAM == 0u || t + n % OF_X * TEAM < BM * EIGHTS)) \
        KEEP(X_PLACE(n), x[n], K_OF(X_PLACE(n), which))
#define KEEP_W(n)                                                                                         \
    if (n < OF_W * STRETCH && n / OF_W == which)                                                          \
        KEEP((BM * EIGHTS + W_PLACE(n)), w[n], K_OF(W_PLACE(n), which))

/* Sum i of 16: of row i / 4 and column i % 4 of matrices. Matrices of x and of w: four along k, of each four. */
#define THERE(i)      (i / 4u < FM && i % 4u < FN)
#define NOTHING(i)    sum[i] = SUMS(0.0);
#define LOAD_LEFT(n)  if (n / 4u < DEEP && n % 4u < FM) coopMatLoad(left[n], parts, team + n % 4u * LM * STRIDE + n / 4u * LK / 8u, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define LOAD_RIGHT(n) if (n / 4u < DEEP && n % 4u < FN) coopMatLoad(right[n], parts, team + WITH + (beside * FN + n % 4u) * LN * STRIDE + n / 4u * LK / 8u, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
#define MULTIPLY(d, i) if (d < DEEP && THERE(i)) sum[i] = coopMatMulAdd(left[d * 4u + i / 4u], right[d * 4u + i % 4u], sum[i]);
#define MULTIPLY_0(i) MULTIPLY(0u, i)
#define MULTIPLY_1(i) MULTIPLY(1u, i)
#define MULTIPLY_2(i) MULTIPLY(2u, i)
#define MULTIPLY_3(i) MULTIPLY(3u, i)

#define BRING                                                                                             \
    SIXTEEN(KEEP_X)                                                                                       \
    SIXTEEN(KEEP_W)                                                                                       \
    team_barrier();                                                                                       \
    MATRIX_A left[16];                                                                                    \
    MATRIX_B right[16];                                                                                   \
    SIXTEEN(LOAD_LEFT)                                                                                    \
    SIXTEEN(LOAD_RIGHT)                                                                                   \
    team_barrier();
#define MULTIPLY_ALL                                                                                      \
    SIXTEEN(MULTIPLY_0)                                                                                   \
    SIXTEEN(MULTIPLY_1)                                                                                   \
    SIXTEEN(MULTIPLY_2)                                                                                   \
    SIXTEEN(MULTIPLY_3)

/* Fours of results of a thread, EACH of them in a round. */
#define FOURS(n)     (n < EACH * ROUNDS)
#define OF_ALL(n)    min(t0 + n % EACH * THREADS, OF_ROUND - 1u)
#define M_OF(n)      (n / EACH * AT * LM + OF_ALL(n) / ACROSS)
#define N_OF(n)      (n0 + 4u * (OF_ALL(n) % ACROSS))
#define READ(i)      if (FOURS(i)) read_four(min(M_OF(i), rows - 1u), min(N_OF(i), push.n - 4u), bias[i], before[i], gate[i]);
#define STORE_ROW(i)                                                                                      \
    if (THERE(i) && i / 4u / AT == which)                                                                 \
        coopMatStore(sum[i], parts, ((slice * AT + i / 4u % AT) * LM) * LINE + (beside * FN + i % 4u) * (LN / 4u), LINE, gl_CooperativeMatrixLayoutRowMajor);
#define ADD_SLICES(n)                                                                                     \
    if (FOURS(n) && n / EACH == which) {                                                                  \
        [[unroll]] for (uint z = 0u; z < SLICES; z++) {                                                   \
            uint place = (z * AT * LM + OF_ALL(n) / ACROSS) * LINE + OF_ALL(n) % ACROSS;                  \
            v[n] += uintBitsToFloat(parts[place]);                                                        \
            if (PAIR)                                                                                     \
                up[n] += uintBitsToFloat(parts[place + ACROSS]);                                          \
        }                                                                                                 \
    }
#define ROUND(number)                                                                                     \
    if (number < ROUNDS) {                                                                                \
        const uint which = number;                                                                        \
        SIXTEEN(STORE_ROW)                                                                                \
        barrier();                                                                                        \
        FOUR(ADD_SLICES)                                                                                  \
        barrier();                                                                                        \
    }

/* Fours in memory: those of a part, a thread's beside its neighbour's. */
const uint OF_SUM = PAIR ? 2u : 1u, OF_PART = EACH * ROUNDS * OF_SUM * THREADS;
#define PART_PLACE(z, n) (push.b_first / 4u + ((tile_index() * push.from + z) * EACH * ROUNDS + n) * OF_SUM * THREADS + t0)
#define STORE_PART(n)                                                                                     \
    if (FOURS(n)) {                                                                                       \
        part_4[PART_PLACE(gl_WorkGroupID.z, n)] = floatBitsToUint(v[n]);                                  \
        if (PAIR)                                                                                         \
            part_4[PART_PLACE(gl_WorkGroupID.z, n) + THREADS] = floatBitsToUint(up[n]);                   \
    }
#define LOAD_PART(i) /* of four parts each */                                                             \
    if (FOURS(i / 4u)) {                                                                                  \
        other[i] = uintBitsToFloat(part_4[PART_PLACE(min(z + i % 4u, push.from - 1u), i / 4u)]);          \
        if (PAIR)                                                                                         \
            other_up[i] = uintBitsToFloat(part_4[PART_PLACE(min(z + i % 4u, push.from - 1u), i / 4u) + THREADS]); \
    }
#define ADD_PART(i)                                                                                       \
    if (FOURS(i / 4u)) {                                                                                  \
        v[i / 4u] += mix(vec4(0.0), other[i], bvec4(z + i % 4u < push.from));                             \
        if (PAIR)                                                                                         \
            up[i / 4u] += mix(vec4(0.0), other_up[i], bvec4(z + i % 4u < push.from));                     \
    }
#define LEAVE(i) /* for gated_norm.comp */                                                                \
    if (FOURS(i) && t0 + i % EACH * THREADS < OF_ROUND && M_OF(i) < rows && N_OF(i) < push.n)              \
        part_4[(push.b_first + (gl_WorkGroupID.z * push.m + M_OF(i)) * push.n + N_OF(i)) / 4u] = floatBitsToUint(v[i]);
#define ZERO(n)      v[n] = up[n] = vec4(0.0);
#define FINISH(n)                                                                                         \
    if (FOURS(n) && t0 + n % EACH * THREADS < OF_ROUND)                                                   \
        put_four(v[n], up[n], M_OF(n), rows, N_OF(n), bias[n], before[n], gate[n]);

void main()
{
    uint t0 = gl_LocalInvocationID.x, slice = gl_SubgroupID / BESIDE, beside = gl_SubgroupID % BESIDE;
    uint t = beside * gl_SubgroupSize + gl_SubgroupInvocationID; /* of the team */
    uint team = slice * OF_TEAM, own = slice * STRETCH * EIGHTS * 8u; /* where its memory begins, and its share of BK */
    uint n0 = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN), rows = valid0(push.m);
    uvec2 span = part_of_k();
    uint chunks = max((span.y - span.x + BK - 1u) / BK, 1u), next = span.x + gl_WorkGroupID.y % chunks * BK;
    if (rows == 0u)
        return; /* all groups */

    SUMS sum[16];
    SIXTEEN(NOTHING)
    uvec4 x[16], w[16];
    SIXTEEN(FETCH_X)
    SIXTEEN(FETCH_W)
    for (uint chunk = 1u; chunk <= chunks; chunk++) {
        if (STRETCH > 1u) {
            const uint which = 0u;
            BRING
            MULTIPLY_ALL
        }
        const uint which = STRETCH - 1u;
        BRING
        next = next + BK < span.y ? next + BK : span.x;
        if (chunk < chunks) { /* on its way while what came is multiplied */
            SIXTEEN(FETCH_X)
            SIXTEEN(FETCH_W)
        }
        MULTIPLY_ALL
    }

    vec4 v[4], up[4]; /* up: of the second weight */
    vec4 bias[4], before[4], gate[4];
    FOUR(ZERO)
    FOUR(READ)
    barrier(); /* teams are not at one place */
    ROUND(0u)
    ROUND(1u)
    ROUND(2u)
    ROUND(3u)
    if (OP == 5u) {
        FOUR(LEAVE)
        return;
    }
    if (push.from > 1u) {
        FOUR(STORE_PART)
        if (!is_last())
            return;
        FOUR(ZERO)
        [[dont_unroll]] for (uint z = 0u; z < push.from; z += 4u) {
            vec4 other[16], other_up[16];
            SIXTEEN(LOAD_PART)
            SIXTEEN(ADD_PART)
        }
    }
    FOUR(FINISH)
}
