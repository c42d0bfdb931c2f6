/* flash_matrix.comp - the whole attention (flash.glsl says what and how) by KHR cooperative matrices: TYPE is bfloat16_t or float16_t,
 * what q, k and v are stored as; scores, exp, sums and the result are f32, the weights are rounded to TYPE before they meet v.
 *
 * A group takes FL x LM lines and tiles of KEYS keys, in four steps with a barrier behind each: k and v to shared memory; scores, an
 * LM x LN matrix a subgroup; weights, THREADS / lines neighbours of a subgroup a line; the result, of which a subgroup makes every
 * SUBGROUPS-th column of matrices for all lines. q stays in registers, the head filled up with zeros to whole matrices. A line's
 * shrinking comes as a matrix with equal numbers in each row. The keys may be cut into parts (parts.glsl), each with its largest
 * score and sum; the last group brings them to one scale.
 * Arrays that are to be registers have literal indices alone (dense_matrix.comp says why): at most 32 matrices of q, 16 of the result.
 * FL is at most 2 and divides SUBGROUPS, THREADS = SUBGROUPS x their size is a multiple of FL LM, HEAD of 8, KEYS of LN, LK and of 2 THREADS / lines.
 * Each exp within 2 ulp, one rounding on store. Bound: barriers and shared memory; for few lines latency. */
#version 450
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_bfloat16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "push.h"
#include "types.glsl"
#include "flash.glsl"
#include "parts.glsl"

layout(constant_id = 11) const uint LM = 16;
layout(constant_id = 12) const uint LN = 16;
layout(constant_id = 13) const uint LK = 16;
layout(constant_id = 14) const uint FL = 2;
layout(constant_id = 15) const uint SUBGROUPS = 4;

layout(std430, binding = 0) readonly buffer in0_fours { uvec4 in0_4[]; };
layout(std430, binding = 1) readonly buffer in1_fours { uvec4 in1_4[]; };
layout(std430, binding = 2) readonly buffer in2_fours { uvec4 in2_4[]; };

const uint LINES = FL * LM, PER_LINE = THREADS / LINES, OF_LINE = KEYS / PER_LINE; /* threads of a line, scores of a thread */
const uint STEPS = (HEAD + LK - 1u) / LK;      /* of q k^T */
const uint COLUMNS = (HEAD + LN - 1u) / LN;    /* matrices of the result beside each other */
const uint MINE = (COLUMNS + SUBGROUPS - 1u) / SUBGROUPS;
const uint FILLED = STEPS * LK > COLUMNS * LN ? STEPS * LK : COLUMNS * LN;
const uint STRIDE = FILLED / 8u + 1u;          /* of a key, in 16 bytes */
const uint S_STRIDE = KEYS + 4u, P_STRIDE = KEYS / 2u + 4u;

shared uvec4 k_part[KEYS > LINES ? KEYS * STRIDE : LINES * STRIDE]; /* q at first */
shared uvec4 v_part[KEYS * STRIDE];
shared float scores[LINES * S_STRIDE];
shared uint weights[LINES * P_STRIDE];
shared float factors[LINES * LN];
shared float patches[SUBGROUPS * LM * LN];

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

const float NONE = -3.0e38; /* less than any score that counts: infinity less infinity is no number */

/* This thread's share of a row of equal numbers for line `line`. */
void spread(uint line, uint share, float factor)
{
    for (uint i = share; i < LN; i += PER_LINE)
        factors[line * LN + i] = factor;
}

#define EIGHT(DO)     DO(0u) DO(1u) DO(2u) DO(3u) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO)   EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)
#define THIRTY_TWO(DO) SIXTEEN(DO) DO(16u) DO(17u) DO(18u) DO(19u) DO(20u) DO(21u) DO(22u) DO(23u) \
    DO(24u) DO(25u) DO(26u) DO(27u) DO(28u) DO(29u) DO(30u) DO(31u)

#define LOAD_Q(i) if (i < STEPS) coopMatLoad(q[i], k_part, sub % FL * LM * STRIDE + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define SCORE(i)                                                                                                        \
    if (i < STEPS) {                                                                                                    \
        MATRIX_B k;                                                                                                     \
        coopMatLoad(k, k_part, u / FL * LN * STRIDE + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutColumnMajor);    \
        s = coopMatMulAdd(q[i], k, s);                                                                                  \
    }

/* Matrix i of 16 of the result: of lines i % 2, and column i / 2 of this subgroup's. */
#define LINE(i)    (i % 2u)
#define COLUMN(i)  (sub + i / 2u * SUBGROUPS)
#define THERE(i)   (i % 2u < FL && i / 2u < MINE)
#define NOTHING(i) o[i] = SUMS(0.0);
#define SHRINK(i)                                                                                                       \
    if (THERE(i)) {                                                                                                     \
        if (LINE(i) == 0u)                                                                                              \
            o[i] = o[i] * factor0;                                                                                      \
        else                                                                                                            \
            o[i] = o[i] * factor1;                                                                                      \
    }
#define VALUE(i)                                                                                                        \
    if (i / 2u < MINE && COLUMN(i) < COLUMNS) {                                                                         \
        if (LINE(i) == 0u)                                                                                              \
            coopMatLoad(v, v_part, k * STRIDE + COLUMN(i) * (LN / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);     \
        if (LINE(i) == 0u)                                                                                              \
            o[i] = coopMatMulAdd(w0, v, o[i]);                                                                          \
        else if (FL > 1u)                                                                                               \
            o[i] = coopMatMulAdd(w1, v, o[i]);                                                                          \
    }
#define PLACE(i)   ((i / 2u * FL + i % 2u) * LM * LN) /* among those that are there */
#define STORE_PART(i) if (THERE(i)) coopMatStore(o[i], part, mine + sub * OF_SUB + PLACE(i), LN, gl_CooperativeMatrixLayoutRowMajor);
#define ADD_PART(i)                                                                                                     \
    if (THERE(i)) {                                                                                                     \
        SUMS other;                                                                                                     \
        coopMatLoad(other, part, from + sub * OF_SUB + PLACE(i), LN, gl_CooperativeMatrixLayoutRowMajor);               \
        if (LINE(i) == 0u)                                                                                              \
            o[i] = o[i] + other * factor0;                                                                              \
        else                                                                                                            \
            o[i] = o[i] + other * factor1;                                                                              \
    }
#define STORE_PATCH(i) if (THERE(i) && i == one) coopMatStore(o[i], patches, sub * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
#define LOAD_FACTORS                                                                                                    \
    coopMatLoad(factor0, factors, 0u, LN, gl_CooperativeMatrixLayoutRowMajor);                                          \
    if (FL > 1u)                                                                                                        \
        coopMatLoad(factor1, factors, LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);

void main()
{
    uint sub = gl_SubgroupID, lane = gl_SubgroupInvocationID, t = sub * gl_SubgroupSize + lane;
    uint line0 = gl_WorkGroupID.x * LINES, lines = valid0(push.m) * push.group;
    uint tiles = (key_count() + KEYS - 1u) / KEYS, each_one = (tiles + push.from - 1u) / push.from;
    uint first = min(gl_WorkGroupID.z * each_one, tiles) * KEYS, end = min(min((gl_WorkGroupID.z + 1u) * each_one, tiles) * KEYS, key_count());
    uint line = t / PER_LINE, share = t % PER_LINE; /* of the weights */
    if (line0 >= lines)
        return; /* all groups of the tile */

    const uint eights = FILLED / 8u;
    for (uint i = t; i < LINES * eights; i += THREADS) {
        uint l = i / eights, d = i % eights * 8u;
        k_part[l * STRIDE + i % eights] = line0 + l < lines && d < HEAD ? in0_4[(line_at(line0 + l) + d) / 8u] : uvec4(0u);
    }
    barrier();
    MATRIX_A q[32];
    THIRTY_TWO(LOAD_Q)
    SUMS o[16], factor0, factor1;
    SIXTEEN(NOTHING)
    float top = NONE, sum = 0.0;

    for (uint key0 = first; key0 < end; key0 += KEYS) {
        barrier();
        for (uint i = t; i < KEYS * eights; i += THREADS) {
            uint key = i / eights, d = i % eights * 8u;
            bool there = key0 + key < end && d < HEAD;
            uint at = there ? (key_at(key0 + key) + d) / 8u : 0u;
            k_part[key * STRIDE + i % eights] = there ? in1_4[at] : uvec4(0u);
            v_part[key * STRIDE + i % eights] = there ? in2_4[at] : uvec4(0u);
        }
        barrier();
        for (uint u = sub; u < FL * (KEYS / LN); u += SUBGROUPS) { /* u % FL is sub % FL */
            SUMS s = SUMS(0.0);
            THIRTY_TWO(SCORE)
            coopMatStore(s, scores, u % FL * LM * S_STRIDE + u / FL * LN, S_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        }
        barrier();
        float before = top;
        uint mine_at = line * S_STRIDE + share * OF_LINE, count = end - key0 < KEYS ? end - key0 : KEYS;
        count = count > share * OF_LINE ? count - share * OF_LINE : 0u; /* keys of this thread that count, or more */
        for (uint i = 0u; i < OF_LINE; i++) {
            float score = i < count ? scores[mine_at + i] * push.number : NONE;
            top = score > top ? score : top;
        }
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1) {
            float other = subgroupShuffleXor(top, i);
            top = other > top ? other : top;
        }
        float shrink = exp_of(before - top), more = 0.0;
        for (uint i = 0u; i < OF_LINE; i += 2u) {
            float p = i < count ? exp_of(scores[mine_at + i] * push.number - top) : 0.0;
            float next = i + 1u < count ? exp_of(scores[mine_at + i + 1u] * push.number - top) : 0.0;
            more += p + next;
            weights[line * P_STRIDE + (share * OF_LINE + i) / 2u] = narrow(D2, p) | narrow(D2, next) << 16;
        }
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1)
            more += subgroupShuffleXor(more, i);
        sum = sum * shrink + more;
        spread(line, share, shrink);
        barrier();
        LOAD_FACTORS
        SIXTEEN(SHRINK)
        for (uint k = 0u; k < KEYS; k += LK) {
            MATRIX_A w0, w1;
            MATRIX_B v;
            coopMatLoad(w0, weights, k / 2u, P_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            if (FL > 1u)
                coopMatLoad(w1, weights, LM * P_STRIDE + k / 2u, P_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            SIXTEEN(VALUE)
        }
    }

    if (push.from > 1u) { /* matrices as they are: no number of them is asked for by an index */
        const uint OF_SUB = FL * MINE * LM * LN, each = SUBGROUPS * OF_SUB + 2u * THREADS; /* results, then the largest scores and the sums */
        uint base = push.b_first + tile_index() * push.from * each, mine = base + gl_WorkGroupID.z * each, tops = SUBGROUPS * OF_SUB + t;
        SIXTEEN(STORE_PART)
        part[mine + tops] = floatBitsToUint(top);
        part[mine + tops + THREADS] = floatBitsToUint(sum);
        if (!is_last())
            return;
        SIXTEEN(NOTHING)
        top = NONE;
        [[dont_unroll]] for (uint z = 0u; z < push.from; z++) {
            float other = uintBitsToFloat(part[base + z * each + tops]);
            top = other > top ? other : top;
        }
        sum = 0.0;
        [[dont_unroll]] for (uint z = 0u; z < push.from; z++) {
            uint from = base + z * each;
            float factor = exp_of(uintBitsToFloat(part[from + tops]) - top);
            sum += uintBitsToFloat(part[from + tops + THREADS]) * factor;
            barrier();
            spread(line, share, factor);
            barrier();
            LOAD_FACTORS
            SIXTEEN(ADD_PART)
        }
    }
    barrier();
    spread(line, share, sum > 0.0 ? 1.0 / sum : sum);
    barrier();
    LOAD_FACTORS
    SIXTEEN(SHRINK)
    [[dont_unroll]] for (uint one = 0u; one < 2u * MINE; one++) { /* one matrix after the other through memory */
        uint column = COLUMN(one); /* one that is not there is not written */
        SIXTEEN(STORE_PATCH)
        subgroupBarrier();
        for (uint i = lane; i < LM * LN / 2u; i += gl_SubgroupSize) {
            uint r = i / (LN / 2u), x = i % (LN / 2u) * 2u, at = (sub * LM + r) * LN + x, l = line0 + LINE(one) * LM + r, d = column * LN + x;
            if (LINE(one) < FL && l < lines && d < HEAD)
                put_two(line_at(l) + d, patches[at], true, patches[at + 1u], true);
        }
        subgroupBarrier();
    }
}
