/* dense_matrix.comp - the linears (dense.glsl says which and how they share work) by KHR cooperative matrices: TYPE is bfloat16_t or
 * float16_t, what x and w are stored as; products are added up in f32.
 *
 * A group makes BM x BN sums; parts of x and w, BK wide, come to shared memory as they are, 16 bytes at a time, while the part
 * before is multiplied (STAGES 2: into the other half of the memory, with one barrier a part; 1: two barriers). A row there is
 * 16 bytes longer than it need be, so that no two rows of a matrix want the same bank. A subgroup makes FM x FN matrices of LM x LN,
 * at most 4 x 4; what follows a product takes them from that memory too.
 * Arrays that are to be registers have literal indices alone, by macros: a compiler that leaves one loop over them as it is
 * keeps them in memory, and is then many times slower; which loop it leaves depends on sizes, and no hint decides it.
 * THREADS = subgroups x their size = (BM / FM LM) (BN / FN LN) x gl_SubgroupSize. k is a multiple of 8; BM BK / 8 and BN BK / 8 are multiples
 * of THREADS, at most 8 of them, LM LN of two subgroups; OP 4: FN is even, and the second half of a subgroup's columns is of the second weight. Shapes are constants that the
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
const uint PATCH = LM * LN / 4u; /* of a matrix of sums, in 16 bytes; OP 4: one of each weight */
const uint OF_PARTS = STAGES * BM * STRIDE, OF_PATCHES = SUBGROUPS * PATCH * (PAIR ? 2u : 1u);

shared uvec4 part_a[OF_PARTS > OF_PATCHES ? OF_PARTS : OF_PATCHES]; /* behind the product: patches */
shared uvec4 part_b[STAGES * BN * STRIDE];

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

/* Where local column c is: its column of the dispatch, and of which weight. */
uint column_of(uint n0, uint c, out bool second)
{
    second = PAIR && c % SUB_N >= SUB_N / 2u;
    return n0 + (PAIR ? c / SUB_N * (SUB_N / 2u) + c % (SUB_N / 2u) : c);
}

/* Numbers i and i + 1 of the patches, i even. */
vec2 patch_at(uint i)
{
    uvec4 four = part_a[i / 4u];
    return uintBitsToFloat((i & 2u) == 0u ? four.xy : four.zw);
}

void keep_patch(uint i, vec2 v)
{
    if ((i & 2u) == 0u)
        part_a[i / 4u].xy = floatBitsToUint(v);
    else
        part_a[i / 4u].zw = floatBitsToUint(v);
}

uvec4 fetch_a(uint m, uint rows, uint k, uint end) { return m < rows && k < end ? in0_4[(m * push.k + k) / 8u] : uvec4(0u); }

uvec4 fetch_b(uint n0, uint c, uint k, uint end)
{
    bool second;
    uint n = column_of(n0, c, second);
    if (n >= push.n || k >= end)
        return uvec4(0u);
    return second ? in3_4[(n * push.k + k) / 8u] : in1_4[(n * push.k + k) / 8u];
}

#define FOUR(DO)    DO(0u) DO(1u) DO(2u) DO(3u)
#define EIGHT(DO)   DO(0u) DO(1u) DO(2u) DO(3u) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO) EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)

#define ROW_OF(i)    ((t + (i) * THREADS) / (BK / 8u))
#define EIGHT_OF(i)  ((t + (i) * THREADS) % (BK / 8u))
#define FETCH_A(i)   if (i < OF_A) a[i] = fetch_a(m0 + ROW_OF(i), rows, k0 + EIGHT_OF(i) * 8u, span.y);
#define FETCH_B(i)   if (i < OF_B) b[i] = fetch_b(n0, ROW_OF(i), k0 + EIGHT_OF(i) * 8u, span.y);
#define KEEP_A(i)    if (i < OF_A) part_a[(stage * BM + ROW_OF(i)) * STRIDE + EIGHT_OF(i)] = a[i];
#define KEEP_B(i)    if (i < OF_B) part_b[(stage * BN + ROW_OF(i)) * STRIDE + EIGHT_OF(i)] = b[i];

/* Sum i of 16: of row i / 4 and column i % 4 of matrices. */
#define THERE(i)     (i / 4u < FM && i % 4u < FN)
#define NOTHING(i)   sum[i] = SUMS(0.0);
#define LOAD_LEFT(i) if (i < FM) coopMatLoad(left[i], part_a, from + i * LM * STRIDE + k, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define LOAD_RIGHT(j) if (j < FN) coopMatLoad(right[j], part_b, with + j * LN * STRIDE + k, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
#define MULTIPLY(i)  if (THERE(i)) sum[i] = coopMatMulAdd(left[i / 4u], right[i % 4u], sum[i]);
#define PLACE(i)     (i / 4u * FN + i % 4u) /* among those that are there */
#define STORE_PART(i) if (THERE(i)) coopMatStore(sum[i], part, mine + PLACE(i) * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
#define ADD_PART(i)                                                                                       \
    if (THERE(i)) {                                                                                       \
        SUMS other;                                                                                       \
        coopMatLoad(other, part, from + PLACE(i) * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);      \
        sum[i] = sum[i] + other;                                                                          \
    }
#define STORE_PATCH(i)                                                                                    \
    if (THERE(i) && (i == wanted || (PAIR && i == wanted + FN / 2u)))                                     \
        coopMatStore(sum[i], part_a, place + (i == wanted ? 0u : PATCH), LN / 4u, gl_CooperativeMatrixLayoutRowMajor);

void main()
{
    uint t = gl_LocalInvocationID.x, lane = gl_SubgroupInvocationID, sub = gl_SubgroupID;
    uint sub_m = sub / (BN / SUB_N) * SUB_M, sub_n = sub % (BN / SUB_N) * SUB_N;
    uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN), rows = valid0(push.m);
    uvec2 span = part_of_k();
    if (m0 >= rows)
        return; /* all groups of the tile */

    SUMS sum[16];
    SIXTEEN(NOTHING)
    uvec4 a[8], b[8];
    uint stage = 0u;
    for (uint k0 = span.x; k0 < span.y + BK; k0 += BK) { /* fetches the part at k0, multiplies the one before */
        if (k0 < span.y) {
            EIGHT(FETCH_A)
            EIGHT(FETCH_B)
        }
        if (k0 > span.x) {
            uint from = (stage * BM + sub_m) * STRIDE, with = (stage * BN + sub_n) * STRIDE;
            [[unroll]] for (uint k = 0u; k < BK / 8u; k += LK / 8u) {
                MATRIX_A left[4];
                MATRIX_B right[4];
                FOUR(LOAD_LEFT)
                FOUR(LOAD_RIGHT)
                SIXTEEN(MULTIPLY)
            }
        }
        if (STAGES == 1u)
            barrier();
        else
            stage = 1u - stage;
        if (k0 < span.y) {
            EIGHT(KEEP_A)
            EIGHT(KEEP_B)
        }
        barrier();
    }

    if (push.from > 1u) { /* matrices as they are: no number of them is asked for by an index */
        const uint each = FM * FN * LM * LN;
        uint mine = push.b_first + ((tile_index() * push.from + gl_WorkGroupID.z) * SUBGROUPS + sub) * each;
        SIXTEEN(STORE_PART)
        if (!is_last())
            return;
        SIXTEEN(NOTHING)
        [[dont_unroll]] for (uint z = 0u; z < push.from; z++) {
            uint from = push.b_first + ((tile_index() * push.from + z) * SUBGROUPS + sub) * each;
            SIXTEEN(ADD_PART)
        }
    }
    /* One matrix after the other through memory, OP 4: the two of a place. */
    const uint across = PAIR ? FN / 2u : FN;
    [[dont_unroll]] for (uint one = 0u; one < FM * across; one++) {
        uint row = one / across, j = one % across, wanted = row * 4u + j, place = sub * PATCH * (PAIR ? 2u : 1u);
        bool second;
        uint n = column_of(n0, sub_n + j * LN, second);
        SIXTEEN(STORE_PATCH)
        subgroupBarrier();
        [[unroll]] for (uint p = 0u; p < PER_LANE; p++) { /* what a result needs is read for all before one is written: */
            uint e = 2u * (lane + p * gl_SubgroupSize);
            vec2 v = patch_at(4u * place + e);
            if (PAIR) {
                vec2 up = patch_at(4u * (place + PATCH) + e);
                v = vec2(geglu_of(v.x, up.x), geglu_of(v.y, up.y));
            }
            finish(m0 + sub_m + row * LM + e / LN, rows, n + e % LN, v.x, v.y);
            keep_patch(4u * place + e, v);
        }
        [[unroll]] for (uint p = 0u; p < PER_LANE; p++) { /* a compiler must take them for the same memory */
            uint e = 2u * (lane + p * gl_SubgroupSize);
            vec2 v = patch_at(4u * place + e);
            put_finished(m0 + sub_m + row * LM + e / LN, rows, n + e % LN, v.x, v.y);
        }
        subgroupBarrier();
    }
}
