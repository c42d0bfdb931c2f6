/* dense_matrix.comp - the linears (dense.glsl says which and how they share work) by KHR cooperative matrices: TYPE is bfloat16_t or
 * float16_t, what x and w are stored as; products are added up in f32.
 *
 * A group makes BM x BN sums; parts of x and w, BK wide, come to registers, 16 bytes at a time, while the part before is multiplied,
 * and to shared memory behind that or beside its last slice: asked for and kept in one turn of the loop, since a driver copies what a loop
 * carries, and a copy waits. With BK 64 eight threads read a line of 128 bytes. A row in shared memory is 16 bytes longer than it need be, so that no two
 * rows of a matrix want the same bank. A subgroup makes FM x FN matrices of LM x LN, at most 4 x 4; behind the product its sums pass
 * through that memory, a row of matrices at a time, to where four numbers of a row are one thread's: bias, residual, gate and result
 * are 16 or 8 bytes each. Arrays that are to be registers have literal indices alone, by macros: a compiler that leaves one loop over
 * them as it is keeps them in memory, and is then many times slower; which loop it leaves depends on sizes, and no hint decides it.
 * THREADS = subgroups x their size = (BM / FM LM) (BN / FN LN) x gl_SubgroupSize. k is a multiple of 8, n, ldc and width of 4; BM and BN (PAIR:
 * BN / 2) are multiples of 8, BM BK / 8 and BN BK / 8 of THREADS, at most 8 of them; LM FN LN / 4 (PAIR: / 8) of a subgroup's size, at
 * most 8. PAIR (OP 4, 6): the second half of a group's columns is of the second weight, or of the second halves of heads, so half of its subgroups
 * have sums of one, half of the other, and they meet in shared memory. Shapes are constants that the host takes from the device's list. Rows that do not
 * count, and columns and k beyond the ends, are not written, and read by nothing that is.
 * Sums: f32 within the device's matrix instruction, in order of k from one to the next, parts in order.
 * Bound: where rows are many, the matrix units, shared memory and the way from the second cache, none of them wholly hidden behind the
 * others; else memory and its latency. */
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
layout(constant_id = 18) const uint WHOLE = 0; /* every part of k is BK wide */
layout(constant_id = 19) const uint CUT = 0;   /* groups share a sum (push.from > 1) */

const uint DEEP = BK / LK;                   /* matrices along a part of k */
const uint EIGHTS = BK / 8u;                 /* of a row */
const uint STRIDE = EIGHTS + 1u;             /* of a row, in 16 bytes */
const uint SUB_M = FM * LM, SUB_N = FN * LN; /* of a subgroup */
const uint SUBGROUPS = (BM / SUB_M) * (BN / SUB_N);
const uint OF_A = BM * EIGHTS / THREADS, OF_B = BN * EIGHTS / THREADS; /* 16 bytes of one of them */
const uint FOURS = FN * LN / 4u, LINE = FOURS + 1u; /* a row of a subgroup's sums, in 16 bytes; in memory one more, for the banks */
const uint FINISHED = PAIR ? LM / 2u : LM; /* of a matrix's rows: the others by the subgroup that has the second weight's sums */
const uint OF_LANE = FINISHED * FOURS * SUBGROUPS / THREADS; /* fours of a row of matrices */
const uint OF_PAIR = (BN / SUB_N) / 2u * LM * LINE; /* from the sums of a subgroup to those of its partner */
const uint WITH = BM * STRIDE, OF_PARTS = WITH + BN * STRIDE, OF_PATCHES = SUBGROUPS * LM * LINE;

shared uvec4 parts[OF_PARTS > OF_PATCHES ? OF_PARTS : OF_PATCHES]; /* of x, from WITH on of w; behind the product rows of sums */
shared uint turns[OP == 6u ? BM : 1u]; /* where the row of a position begins in the table */

layout(std430, binding = 2) readonly buffer in2_twos { uvec2 in2_2[]; };
layout(std430, binding = 2) readonly buffer in2_fours { uvec4 in2_4[]; };
layout(std430, binding = 5) buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 5) buffer out_fours { uvec4 out_4[]; };
layout(std430, binding = 7) readonly buffer in4_fours { uvec4 in4_4[]; };
layout(std430, binding = 8) coherent buffer part_fours { uvec4 part_4[]; };

/* What was fetched comes to shared memory while the last slice of the part before is multiplied, where the slices in front of that one take
 * longer than fetching does: with large tiles, and not where each row's part of k lies far from the next. */
#define KEPT_EARLY (CUT == 0u && FM * FN >= 9u)

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

/* Where eight numbers of x and of w are. Rows and columns that are not there are read as the last one that is, since what becomes of
 * them is not stored; behind the end of k too, and 0 is kept. Local column c, the i-th of a thread: PAIR, columns from BN / 2 on are of the
 * second weight or half, which is known without asking c where half of what a thread fetches is of each. */
uint first_of_pair(uint n) { return n + n / push.width * push.width; } /* OP 6: the column of the n-th in first halves */
bool is_second(uint i, uint c) { return PAIR && (OF_B % 2u == 0u ? i >= OF_B / 2u : c >= BN / 2u); }
uint row_a(uint m, uint rows) { return min(m, rows - 1u) * (push.k / 8u); }
uint row_b(uint n, uint i, uint c)
{
    bool second = is_second(i, c);
    n = min(n + (second ? c - BN / 2u : c), push.n - 1u);
    return (OP == 6u ? first_of_pair(n) + (second ? push.width : 0u) : n) * (push.k / 8u);
}
uint along(uint k, uint end) { return (WHOLE == 0u ? min(k, end - 8u) : k) / 8u; }
uvec4 fetch_b(bool second, uint at) { return OP == 4u && second ? in3_4[at] : in1_4[at]; }

/* gelu_of by the device's own exp2, which is exact to 3 + 2 |its argument| units of the last place. */
float gelu_near(float x) { return x / (1.0 + exp2(min(x * (-2.3022082 - 0.10294324 * x * x), 126.0))); }
float geglu_near(float gate, float up) { return gelu_near(rounded(BETWEEN, gate)) * rounded(BETWEEN, up); }

/* Numbers 4 i .. 4 i + 3 of the bias. */
vec4 bias_at(uint i)
{
    if (D2 == F32)
        return uintBitsToFloat(in2_4[i]);
    uvec2 w = in2_2[i];
    return uintBitsToFloat(uvec4(wide(D2, w.x, 0u), wide(D2, w.x, 1u), wide(D2, w.y, 0u), wide(D2, w.y, 1u)));
}

/* What four results from column n of row m need beside their sums; OP 6: cos and sin. */
void read_four(uint m, uint n, out vec4 bias, out vec4 before, out vec4 gate)
{
    if (OP == 6u) {
        uint at = (turns[m % BM] + n % push.width) / 4u;
        before = uintBitsToFloat(in4_4[at]);
        gate = uintBitsToFloat(in4_4[at + push.width / 4u]);
    }
    if ((HAS & 4u) != 0u)
        bias = bias_at(n / 4u);
    n += push.first;
    if (OP == 1u || OP == 3u)
        before = uintBitsToFloat(in3_4[(m * push.ldc + n) / 4u]);
    if (OP == 3u)
        gate = uintBitsToFloat(in4_4[(2u * push.ldc + n) / 4u]);
}

vec4 four_rounded(vec4 v) { return vec4(rounded(BETWEEN, v.x), rounded(BETWEEN, v.y), rounded(BETWEEN, v.z), rounded(BETWEEN, v.w)); }

void put_four(uint at, vec4 v)
{
    if (DOUT == F32)
        out_4[at / 4u] = floatBitsToUint(v);
    else
        out_2[at / 4u] = narrow_four(DOUT, v);
}

/* The four sums at `place` of the patches, PAIR: and their partners, OF_PAIR on, become results and go where they belong. */
void finish_four(uint place, uint m, uint rows, uint n, vec4 bias, vec4 before, vec4 gate)
{
    vec4 v = uintBitsToFloat(parts[place]);
    if (OP == 5u) {
        if (m < rows && n < push.n)
            part_4[(push.b_first + (gl_WorkGroupID.z * push.m + m) * push.ldc + n) / 4u] = floatBitsToUint(v);
        return;
    }
    uint at = m * push.ldc + push.first + n;
    if (OP == 0u || OP == 6u)
        at += push.c_sequence;
    if (OP == 6u) {
        vec4 x = four_rounded(v), y = four_rounded(uintBitsToFloat(parts[place + OF_PAIR]));
        at += first_of_pair(n) - n;
        if (m < rows && n < push.n) {
            put_four(at, x * before - y * gate);
            put_four(at + push.width, y * before + x * gate);
        }
        return;
    }
    if (PAIR) {
        vec4 up = uintBitsToFloat(parts[place + OF_PAIR]);
        v = vec4(geglu_near(v.x, up.x), geglu_near(v.y, up.y), geglu_near(v.z, up.z), geglu_near(v.w, up.w));
    }
    if ((HAS & 4u) != 0u)
        v += bias;
    if (OP == 2u)
        v = vec4(gelu_near(v.x), gelu_near(v.y), gelu_near(v.z), gelu_near(v.w));
    if (OP == 3u)
        v *= gate;
    if (OP == 1u || OP == 3u)
        v += before;
    if (m < rows && n < push.n)
        put_four(at, v);
}

#define FOUR(DO)    DO(0u) DO(1u) DO(2u) DO(3u)
#define EIGHT(DO)   DO(0u) DO(1u) DO(2u) DO(3u) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO) EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)

/* Which 16 bytes are the i-th of thread c: SIDE neighbours of a row, then the same of rows SIDE apart, so that eight threads
 * want eight banks when they store them (a row in shared memory is an odd number of 16 bytes) and still read along rows. */
const uint SIDE = EIGHTS % 8u == 0u ? 8u : EIGHTS % 4u == 0u ? 4u : EIGHTS % 2u == 0u ? 2u : 1u;
#define AMONG(i)     ((c + (i) * THREADS) % (8u * EIGHTS))
#define ROW_OF(i)    ((c + (i) * THREADS) / (8u * EIGHTS) * 8u + AMONG(i) / SIDE % (8u / SIDE) * SIDE + AMONG(i) / 8u / (EIGHTS / SIDE))
#define EIGHT_OF(i)  (AMONG(i) % SIDE + AMONG(i) / 8u % (EIGHTS / SIDE) * SIDE)
#define PLACE_A(i)   if (i < OF_A) at_a[i] = row_a(m0 + ROW_OF(i), rows);
#define PLACE_B(i)   if (i < OF_B) at_b[i] = row_b(n0, i, ROW_OF(i));
#define FETCH_A(i)   if (i < OF_A) a[i] = in0_4[at_a[i] + along(mine + EIGHT_OF(i) * 8u, span.y)];
#define FETCH_B(i)   if (i < OF_B) b[i] = fetch_b(is_second(i, ROW_OF(i)), at_b[i] + along(mine + EIGHT_OF(i) * 8u, span.y));
#define THERE_OF(i, v) mix(v, uvec4(0u), bvec4(WHOLE == 0u && mine + EIGHT_OF(i) * 8u >= span.y)) /* asked when it has come: to ask before is to wait */
#define KEEP_A(i)    if (i < OF_A) parts[ROW_OF(i) * STRIDE + EIGHT_OF(i)] = THERE_OF(i, a[i]);
#define KEEP_B(i)    if (i < OF_B) parts[WITH + ROW_OF(i) * STRIDE + EIGHT_OF(i)] = THERE_OF(i, b[i]);

/* Sum i of 16: of row i / 4 and column i % 4 of matrices. */
#define THERE(i)     (i / 4u < FM && i % 4u < FN)
#define NOTHING(i)   sum[i] = SUMS(0.0);
#define LOAD_LEFT(i) if (i < FM) coopMatLoad(left[i], parts, from + i * LM * STRIDE + slice * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define LOAD_RIGHT(j) if (j < FN) coopMatLoad(right[j], parts, with + j * LN * STRIDE + slice * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
#define MULTIPLY(i)  if (THERE(i)) sum[i] = coopMatMulAdd(left[i / 4u], right[i % 4u], sum[i]);
#define SLICE(s, BETWEEN_THEM) /* one matrix deep; loaded, and multiplied behind something else */           \
    {                                                                                                     \
        const uint slice = s;                                                                             \
        MATRIX_A left[4];                                                                                 \
        MATRIX_B right[4];                                                                                \
        FOUR(LOAD_LEFT)                                                                                   \
        FOUR(LOAD_RIGHT)                                                                                  \
        BETWEEN_THEM                                                                                      \
        SIXTEEN(MULTIPLY)                                                                                 \
    }
#define SLICES(n)    [[unroll]] for (uint s = 0u; s < n; s++) SLICE(s, )
#define FETCH        EIGHT(FETCH_A) EIGHT(FETCH_B)
#define KEEP         EIGHT(KEEP_A) EIGHT(KEEP_B)
#define PLACE(i)     (i / 4u * FN + i % 4u) /* among those that are there */
#define STORE_PART(i) if (THERE(i)) coopMatStore(sum[i], part, mine + PLACE(i) * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
#define LOAD_PART(i, z) coopMatLoad(other[z], part, from + min(z, more) * of_part + PLACE(i) * LM * LN, LN, gl_CooperativeMatrixLayoutRowMajor);
#define ADD_ONE(i, z)   if (z <= more) sum[i] = sum[i] + other[z];
#define ADD_PARTS(i) /* four of them on their way */                                                      \
    if (THERE(i)) {                                                                                       \
        SUMS other[4];                                                                                    \
        LOAD_PART(i, 0u) LOAD_PART(i, 1u) LOAD_PART(i, 2u) LOAD_PART(i, 3u)                               \
        ADD_ONE(i, 0u) ADD_ONE(i, 1u) ADD_ONE(i, 2u) ADD_ONE(i, 3u)                                       \
    }
#define STORE_ROW(i)                                                                                      \
    if (THERE(i) && i / 4u == row)                                                                        \
        coopMatStore(sum[i], parts, place + i % 4u * (LN / 4u), LINE, gl_CooperativeMatrixLayoutRowMajor);

/* Four results i of this lane: what is read for them, what becomes of them. Nothing that is read waits for a test, and all is
 * read before one is written: in turns each would take the memory's latency. */
#define OF_ALL(i)    (lane + i * gl_SubgroupSize)
#define M_OF(i)      (m0 + sub_m + row * LM + upper + OF_ALL(i) / FOURS)
#define N_OF(i)      (n + 4u * (OF_ALL(i) % FOURS))
#define READ(i)      if (i < OF_LANE) read_four(min(M_OF(i), rows - 1u), min(N_OF(i), push.n - 4u), bias[i], before[i], gate[i]);
#define FINISH(i)    if (i < OF_LANE) finish_four(done + OF_ALL(i) / FOURS * LINE + OF_ALL(i) % FOURS, M_OF(i), rows, N_OF(i), bias[i], before[i], gate[i]);

void main()
{
    uint c = gl_LocalInvocationID.x, lane = gl_SubgroupInvocationID, sub = gl_SubgroupID;
    uint sub_m = sub / (BN / SUB_N) * SUB_M, sub_n = sub % (BN / SUB_N) * SUB_N;
    uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN), rows = valid0(push.m);
    uvec2 span = part_of_k();
    if (m0 >= rows)
        return; /* all groups of the tile */

    SUMS sum[16];
    SIXTEEN(NOTHING)
    const uint from = sub_m * STRIDE, with = WITH + sub_n * STRIDE;
    uvec4 a[8], b[8];
    uint at_a[8], at_b[8];
    EIGHT(PLACE_A)
    EIGHT(PLACE_B)
    uint mine = span.x, now = span.x; /* where the part begins that is fetched, and the one in shared memory */
    FETCH
    for (uint i = c; OP == 6u && i < BM; i += THREADS)
        turns[i] = clamped(int(in2[min(m0 + i, rows - 1u)]), push.n1 / (2u * push.width) - 1u) * 2u * push.width;
    KEEP
    barrier();
    for (; now + BK < span.y; now += BK) {
        mine = now + BK;
        FETCH
        SLICES(DEEP - 1u)
        if (KEPT_EARLY) {
            SLICE(DEEP - 1u, barrier(); KEEP)
        } else {
            SLICE(DEEP - 1u, )
            barrier();
            KEEP
        }
        barrier();
    }
    SLICES(DEEP)
    barrier();

    const bool second = PAIR && sub_n >= BN / 2u;
    uint n = n0 + (second ? sub_n - BN / 2u : sub_n), upper = second ? FINISHED : 0u, place = sub * LM * LINE;
    uint done = place - (second ? OF_PAIR : 0u) + upper * LINE, row = 0u;
    vec4 bias[8], before[8], gate[8];
    EIGHT(READ)
    if (CUT != 0u) { /* matrices as they are: no number of them is asked for by an index */
        const uint each = FM * FN * LM * LN;
        uint mine = push.b_first + ((tile_index() * push.from + gl_WorkGroupID.z) * SUBGROUPS + sub) * each;
        SIXTEEN(STORE_PART)
        if (!is_last())
            return;
        SIXTEEN(NOTHING)
        const uint of_part = SUBGROUPS * each;
        [[dont_unroll]] for (uint z = 0u; z < push.from; z += 4u) {
            uint from = push.b_first + ((tile_index() * push.from + z) * SUBGROUPS + sub) * each, more = push.from - 1u - z;
            SIXTEEN(ADD_PARTS)
        }
    }
    /* A row of matrices after the other through memory. PAIR: sums of both meet there, and each of the two subgroups that
     * have them finishes half of the rows. */
    [[unroll]] for (uint row = 0u; row < FM; row++) {
        if (row > 0u) {
            EIGHT(READ)
        }
        SIXTEEN(STORE_ROW)
        if (PAIR)
            barrier();
        else
            subgroupBarrier();
        EIGHT(FINISH)
        if (PAIR)
            barrier();
        else
            subgroupBarrier();
    }
}
