/* dense_matrix.comp - the linears (dense.glsl says which and how they share work) by KHR cooperative matrices: TYPE is bfloat16_t or
 * float16_t, what x and w are stored as; products are added up in f32.
 *
 * A group makes BM x BN sums; parts of x and w, BK wide, come to shared memory as they are, 16 bytes at a time, while the part
 * before is multiplied (STAGES 2: into the other half of the memory, with one barrier a part; 1: two barriers). A row there is
 * 16 bytes longer than it need be, so that no two rows of a matrix want the same bank. A subgroup makes FM x FN matrices of LM x LN.
 * THREADS = subgroups x their size = (BM / FM LM) (BN / FN LN) x gl_SubgroupSize. k is a multiple of 8; BM BK / 8 and BN BK / 8 are multiples
 * of THREADS, LM LN of two subgroups; OP 4: FN is even, and the second half of a subgroup's columns is of the second weight. Shapes are constants that the
 * host takes from the device's list. Rows that do not count, and columns and k beyond the ends, are not read (0 stands for them)
 * nor written. Sums: f32 within the device's matrix instruction, in order of k from one to the next, parts in order.
 * Bound: the matrix units where rows are many, else memory and its latency. */
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

layout(constant_id = 13) const uint LM = 16;
layout(constant_id = 14) const uint LN = 16;
layout(constant_id = 15) const uint LK = 16;
layout(constant_id = 16) const uint FM = 2;
layout(constant_id = 17) const uint FN = 2;
layout(constant_id = 18) const uint STAGES = 1;

const uint STRIDE = BK / 8u + 1u;                /* of a row, in 16 bytes */
const uint SUB_M = FM * LM, SUB_N = FN * LN;     /* of a subgroup */
const uint SUBGROUPS = (BM / SUB_M) * (BN / SUB_N);
const uint PER_LANE = LM * LN * SUBGROUPS / (2u * THREADS); /* pairs of a matrix */
const uint OF_A = BM * (BK / 8u) / THREADS, OF_B = BN * (BK / 8u) / THREADS; /* 16 bytes of a thread */

shared uvec4 part_a[STAGES * BM * STRIDE];
shared uvec4 part_b[STAGES * BN * STRIDE];
shared float patches[SUBGROUPS * LM * LN];

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

/* Where local column c is: its column of the dispatch, and of which weight. */
uint column_of(uint n0, uint c, out bool second)
{
    second = PAIR && c % SUB_N >= SUB_N / 2u;
    return n0 + (PAIR ? c / SUB_N * (SUB_N / 2u) + c % (SUB_N / 2u) : c);
}

void main()
{
    uint t = gl_LocalInvocationID.x, lane = gl_SubgroupInvocationID, sub = gl_SubgroupID;
    uint sub_m = sub / (BN / SUB_N) * SUB_M, sub_n = sub % (BN / SUB_N) * SUB_N;
    uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN), rows = valid0(push.m);
    uvec2 span = part_of_k();
    if (m0 >= rows)
        return; /* all groups of the tile */

    SUMS sum[FM * FN];
    [[unroll]] for (uint i = 0u; i < FM * FN; i++)
        sum[i] = SUMS(0.0);

    uvec4 a[OF_A], b[OF_B];
    uint stage = 0u;
    for (uint k0 = span.x; k0 < span.y + BK; k0 += BK) { /* fetches the part at k0, multiplies the one before */
        if (k0 < span.y) {
            [[unroll]] for (uint i = 0u; i < OF_A; i++) {
                uint at = t + i * THREADS, m = m0 + at / (BK / 8u), k = k0 + at % (BK / 8u) * 8u;
                a[i] = m < rows && k < span.y ? in0_4[(m * push.k + k) / 8u] : uvec4(0u);
            }
            [[unroll]] for (uint i = 0u; i < OF_B; i++) {
                uint at = t + i * THREADS, k = k0 + at % (BK / 8u) * 8u;
                bool second;
                uint n = column_of(n0, at / (BK / 8u), second);
                b[i] = uvec4(0u);
                if (n < push.n && k < span.y) {
                    if (second)
                        b[i] = in3_4[(n * push.k + k) / 8u];
                    else
                        b[i] = in1_4[(n * push.k + k) / 8u];
                }
            }
        }
        if (k0 > span.x) {
            uint from = stage * BM * STRIDE + sub_m * STRIDE, with = stage * BN * STRIDE + sub_n * STRIDE;
            [[unroll]] for (uint k = 0u; k < BK / 8u; k += LK / 8u) {
                MATRIX_A left[FM];
                [[unroll]] for (uint i = 0u; i < FM; i++)
                    coopMatLoad(left[i], part_a, from + i * LM * STRIDE + k, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint j = 0u; j < FN; j++) {
                    MATRIX_B right;
                    coopMatLoad(right, part_b, with + j * LN * STRIDE + k, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint i = 0u; i < FM; i++)
                        sum[i * FN + j] = coopMatMulAdd(left[i], right, sum[i * FN + j]);
                }
            }
        }
        if (STAGES == 1u)
            barrier();
        else
            stage = 1u - stage;
        if (k0 < span.y) {
            [[unroll]] for (uint i = 0u; i < OF_A; i++) {
                uint at = t + i * THREADS;
                part_a[stage * BM * STRIDE + at / (BK / 8u) * STRIDE + at % (BK / 8u)] = a[i];
            }
            [[unroll]] for (uint i = 0u; i < OF_B; i++) {
                uint at = t + i * THREADS;
                part_b[stage * BN * STRIDE + at / (BK / 8u) * STRIDE + at % (BK / 8u)] = b[i];
            }
        }
        barrier();
    }

    if (push.from > 1u) { /* matrices as they are: no number of them is asked for by an index */
        uint mine = (tile_index() * push.from + gl_WorkGroupID.z) * SUBGROUPS + sub, first = tile_index() * push.from * SUBGROUPS + sub;
        [[unroll]] for (uint i = 0u; i < FM * FN; i++)
            coopMatStore(sum[i], part, push.b_first + (mine * FM * FN + i) * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
        if (!is_last())
            return;
        [[unroll]] for (uint i = 0u; i < FM * FN; i++)
            sum[i] = SUMS(0.0);
        [[dont_unroll]] for (uint z = 0u; z < push.from; z++)
            [[unroll]] for (uint i = 0u; i < FM * FN; i++) {
                SUMS other;
                coopMatLoad(other, part, push.b_first + ((first + z * SUBGROUPS) * FM * FN + i) * LM * LN, LN,
                            gl_CooperativeMatrixLayoutRowMajor);
                sum[i] = sum[i] + other;
            }
    }
    /* One matrix after the other through memory. Which one it is is asked in a loop of its own, with a small body, which a compiler
     * unrolls; in a large one that it does not, an index would keep all sums out of registers from the beginning. */
    const uint across = PAIR ? FN / 2u : FN;
    [[dont_unroll]] for (uint one = 0u; one < FM * across; one++) {
        uint i = one / across, j = one % across;
        bool second;
        uint n = column_of(n0, sub_n + j * LN, second);
        [[unroll]] for (uint f = 0u; f < FM * FN; f++)
            if (f == i * FN + j)
                coopMatStore(sum[f], patches, sub * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        float gate[2u * PER_LANE];
        if (PAIR) {
            [[unroll]] for (uint p = 0u; p < PER_LANE; p++) {
                uint at = sub * LM * LN + 2u * (lane + p * gl_SubgroupSize);
                gate[2u * p] = patches[at];
                gate[2u * p + 1u] = patches[at + 1u];
            }
            subgroupBarrier();
            [[unroll]] for (uint f = 0u; f < FM * FN; f++)
                if (f == i * FN + j + FN / 2u)
                    coopMatStore(sum[f], patches, sub * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
            subgroupBarrier();
        }
        [[unroll]] for (uint p = 0u; p < PER_LANE; p++) {
            uint e = 2u * (lane + p * gl_SubgroupSize), at = sub * LM * LN + e;
            float v = patches[at], next = patches[at + 1u];
            if (PAIR) {
                v = geglu_of(gate[2u * p], v);
                next = geglu_of(gate[2u * p + 1u], next);
            }
            finish(m0 + sub_m + i * LM + e / LN, rows, n + e % LN, v, next);
        }
        subgroupBarrier();
    }
}
