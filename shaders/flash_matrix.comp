/* flash_matrix.comp - the whole attention (flash.glsl says what and how) by KHR cooperative matrices: TYPE is bfloat16_t or float16_t,
 * what q, k and v are stored as; scores, exp, sums and the result are f32, the weights are rounded to TYPE before they meet v.
 *
 * A group takes FL x LM lines and tiles of KEYS keys, in four steps with a barrier behind each: k and v to shared memory; scores, an
 * LM x LN matrix a subgroup; weights, THREADS / lines neighbours of a subgroup a line; the result, of which a subgroup makes every
 * SUBGROUPS-th column of matrices for all lines. q stays in registers, the head filled up with zeros to whole matrices. A line's
 * shrinking comes as a matrix with equal numbers in each row. The keys may be cut into parts (parts.glsl), each with its largest
 * score and sum; the last group brings them to one scale.
 * FL divides SUBGROUPS, THREADS = SUBGROUPS x their size is a multiple of FL LM, HEAD of 8, KEYS of LN, LK and of 2 THREADS / lines.
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
    MATRIX_A q[STEPS];
    [[unroll]] for (uint i = 0u; i < STEPS; i++)
        coopMatLoad(q[i], k_part, sub % FL * LM * STRIDE + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);
    SUMS o[FL * MINE];
    [[unroll]] for (uint i = 0u; i < FL * MINE; i++)
        o[i] = SUMS(0.0);
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
            [[unroll]] for (uint i = 0u; i < STEPS; i++) {
                MATRIX_B k;
                coopMatLoad(k, k_part, u / FL * LN * STRIDE + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
                s = coopMatMulAdd(q[i], k, s);
            }
            coopMatStore(s, scores, u % FL * LM * S_STRIDE + u / FL * LN, S_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        }
        barrier();
        float p[OF_LINE], before = top;
        [[unroll]] for (uint i = 0u; i < OF_LINE; i++) {
            bool there = key0 + share * OF_LINE + i < end;
            p[i] = there ? scores[line * S_STRIDE + share * OF_LINE + i] * push.number : NONE;
            top = p[i] > top ? p[i] : top;
        }
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1) {
            float other = subgroupShuffleXor(top, i);
            top = other > top ? other : top;
        }
        float shrink = exp_of(before - top), more = 0.0;
        [[unroll]] for (uint i = 0u; i < OF_LINE; i++) {
            bool there = key0 + share * OF_LINE + i < end;
            p[i] = there ? exp_of(p[i] - top) : 0.0;
            more += p[i];
        }
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1)
            more += subgroupShuffleXor(more, i);
        sum = sum * shrink + more;
        [[unroll]] for (uint i = 0u; i < OF_LINE; i += 2u)
            weights[line * P_STRIDE + (share * OF_LINE + i) / 2u] = narrow(D2, p[i]) | narrow(D2, p[i + 1u]) << 16;
        spread(line, share, shrink);
        barrier();
        [[unroll]] for (uint f = 0u; f < FL; f++) {
            SUMS shrinking;
            coopMatLoad(shrinking, factors, f * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint c = 0u; c < MINE; c++)
                [[unroll]] for (uint e = 0u; e < shrinking.length(); e++)
                    o[f * MINE + c][e] *= shrinking[e];
        }
        [[unroll]] for (uint k = 0u; k < KEYS; k += LK) {
            MATRIX_A w[FL];
            [[unroll]] for (uint f = 0u; f < FL; f++)
                coopMatLoad(w[f], weights, f * LM * P_STRIDE + k / 2u, P_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint c = 0u; c < MINE; c++) {
                uint column = sub + c * SUBGROUPS;
                if (column < COLUMNS) {
                    MATRIX_B v;
                    coopMatLoad(v, v_part, k * STRIDE + column * (LN / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                    [[unroll]] for (uint f = 0u; f < FL; f++)
                        o[f * MINE + c] = coopMatMulAdd(w[f], v, o[f * MINE + c]);
                }
            }
        }
    }

    if (push.from > 1u) {
        uint each = o[0].length(), count = FL * MINE * each + 2u;
        [[unroll]] for (uint i = 0u; i < FL * MINE; i++)
            [[unroll]] for (uint e = 0u; e < o[0].length(); e++)
                part[part_at(gl_WorkGroupID.z, count, i * each + e)] = floatBitsToUint(o[i][e]);
        part[part_at(gl_WorkGroupID.z, count, count - 2u)] = floatBitsToUint(top);
        part[part_at(gl_WorkGroupID.z, count, count - 1u)] = floatBitsToUint(sum);
        if (!is_last())
            return;
        [[unroll]] for (uint i = 0u; i < FL * MINE; i++)
            o[i] = SUMS(0.0);
        top = NONE;
        for (uint z = 0u; z < push.from; z++) {
            float other = uintBitsToFloat(part[part_at(z, count, count - 2u)]);
            top = other > top ? other : top;
        }
        sum = 0.0;
        for (uint z = 0u; z < push.from; z++) {
            float factor = exp_of(uintBitsToFloat(part[part_at(z, count, count - 2u)]) - top);
            sum += uintBitsToFloat(part[part_at(z, count, count - 1u)]) * factor;
            barrier();
            spread(line, share, factor);
            barrier();
            [[unroll]] for (uint f = 0u; f < FL; f++) {
                SUMS scaled;
                coopMatLoad(scaled, factors, f * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint c = 0u; c < MINE; c++)
                    [[unroll]] for (uint e = 0u; e < scaled.length(); e++)
                        o[f * MINE + c][e] += scaled[e] * uintBitsToFloat(part[part_at(z, count, (f * MINE + c) * each + e)]);
            }
        }
    }
    barrier();
    spread(line, share, sum > 0.0 ? 1.0 / sum : sum);
    barrier();
    [[unroll]] for (uint f = 0u; f < FL; f++) {
        SUMS scaled;
        coopMatLoad(scaled, factors, f * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint c = 0u; c < MINE; c++) {
            uint column = sub + c * SUBGROUPS; /* one that is not there is not written: all subgroups meet the same barriers */
            SUMS done = o[f * MINE + c];
            [[unroll]] for (uint e = 0u; e < scaled.length(); e++)
                done[e] *= scaled[e];
            coopMatStore(done, patches, sub * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
            subgroupBarrier();
            for (uint i = lane; i < LM * LN / 2u; i += gl_SubgroupSize) {
                uint r = i / (LN / 2u), x = i % (LN / 2u) * 2u, at = (sub * LM + r) * LN + x, l = line0 + f * LM + r, d = column * LN + x;
                if (l < lines && d < HEAD)
                    put_two(line_at(l) + d, patches[at], true, patches[at + 1u], true);
            }
            subgroupBarrier();
        }
    }
}
