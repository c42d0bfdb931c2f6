/* flash_matrix.comp - the whole attention (flash.glsl says what and how) by KHR cooperative matrices: TYPE is bfloat16_t or float16_t,
 * what q, k and v are stored as; scores, exp, sums and the result are f32, the weights are rounded to TYPE before they meet v.
 *
 * A group takes ACROSS x LM lines and tiles of KEYS keys, and has ACROSS x ALONG subgroups: each goes its own way with LM lines and its
 * share of each tile's keys (OWN), so groups wait for nothing but k and v in shared memory. Scores go through memory of the subgroup's
 * own to threads that have a line, PER_LINE neighbours each, and come back as weights. q and the result stay in registers, the head
 * filled up with zeros to whole matrices. A line's scale follows its largest score only when that grew by more than SLACK: until then
 * weights are larger than 1, which costs nothing, and the result is not touched. At the end the shares of the keys come together in
 * shared memory, some columns at a time. The keys may be cut into parts as well (push.from): a part leaves sums, largest score and sum of weights
 * in memory for flash_join.comp.
 * Arrays that are to be registers have literal indices alone (docs/vulkan.md says why): at most 32 matrices of q and of the result.
 * THREADS = SUBGROUPS x their size, which is a multiple of LM; HEAD is a multiple of 8; OWN of LN, LK and 8 PER_LINE, at most 32 PER_LINE.
 * Each exp2 as exact as Vulkan promises (3 + 2 |x| ulp, far below the rounding of weights), one rounding on store. Bound: latency. */
#version 450
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_vote : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_bfloat16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "push.h"
#include "types.glsl"
#include "flash.glsl"

layout(constant_id = 11) const uint LM = 16;
layout(constant_id = 12) const uint LN = 16;
layout(constant_id = 13) const uint LK = 16;
layout(constant_id = 14) const uint ACROSS = 4;
layout(constant_id = 15) const uint ALONG = 2;

layout(std430, binding = 0) readonly buffer in0_fours { uvec4 in0_4[]; };
layout(std430, binding = 1) readonly buffer in1_fours { uvec4 in1_4[]; };
layout(std430, binding = 2) readonly buffer in2_fours { uvec4 in2_4[]; };
layout(std430, binding = 8) writeonly buffer part_fours { vec4 part_4[]; };

const uint SUBGROUPS = ACROSS * ALONG, LINES = ACROSS * LM, OWN = KEYS / ALONG;
const uint PER_LINE = THREADS / (SUBGROUPS * LM), OF_LINE = OWN / PER_LINE; /* threads of a line, scores of a thread */
const uint STEPS = (HEAD + LK - 1u) / LK;     /* of q k^T */
const uint COLUMNS = (HEAD + LN - 1u) / LN;   /* matrices of the result beside each other */
const uint FILLED = STEPS * LK > COLUMNS * LN ? STEPS * LK : COLUMNS * LN;
const uint EIGHTS = FILLED / 8u, STRIDE = EIGHTS + 1u; /* of a key, in 16 bytes */
const uint S_STRIDE = OWN / 4u + 1u, P_STRIDE = OWN / 8u + 1u, SCRATCH = LM * S_STRIDE; /* in 16 bytes */

/* Shared memory for keys, at first for q, and at last for columns of the result: CHUNK matrices of each subgroup at once. */
const uint HELD_ROWS = 2u * KEYS > LINES ? 2u * KEYS : LINES;
const uint LEAST = SUBGROUPS * LM * (LN / 4u + 1u), HELD = HELD_ROWS * STRIDE > LEAST ? HELD_ROWS * STRIDE : LEAST;
const uint FITTING = (HELD / (SUBGROUPS * LM) - 1u) * 4u / LN, CHUNK = FITTING < COLUMNS ? FITTING : COLUMNS;
const uint C_FOURS = CHUNK * LN / 4u, C_STRIDE = C_FOURS + 1u, FOURS = COLUMNS * LN / 4u; /* of a line: in a chunk, in all */

shared uvec4 held[HELD];
shared uvec4 scratch[SUBGROUPS * SCRATCH];
shared float tops[SUBGROUPS * LM]; /* of each subgroup's lines: largest score, then the factor for its result */
shared float sums[SUBGROUPS * LM];
shared uint places[LINES]; /* of lines in q and in the result */

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

const float NONE = -1.0e38, NOT = -3.0e38; /* less than any score; of a key that does not count. Infinity less infinity is no number */
const float SLACK = 8.0;                   /* 2^8 is far from the end of f16 */
const uint NOWHERE = 0xffffffffu;

#define FOUR(DO)      DO(0u) DO(1u) DO(2u) DO(3u)
#define EIGHT(DO)     FOUR(DO) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO)   EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)
#define THIRTY_TWO(DO) SIXTEEN(DO) DO(16u) DO(17u) DO(18u) DO(19u) DO(20u) DO(21u) DO(22u) DO(23u) \
    DO(24u) DO(25u) DO(26u) DO(27u) DO(28u) DO(29u) DO(30u) DO(31u)

/* The tile at key0 to shared memory, keys and then values, four times 16 bytes of each a thread on their way at once; 0 behind the last key. */
#define PLACE(i) (base + i % 4u * THREADS)
#define FETCH(i)                                                                                                        \
    if (i % 4u * THREADS < KEYS * EIGHTS) {                                                                             \
        uint row = PLACE(i) / EIGHTS, eight = PLACE(i) % EIGHTS;                                                        \
        bool there = row < KEYS && key0 + row < end && eight * 8u < HEAD;                                               \
        uint at = there ? from + (key0 + row) * by + eight : 0u;                                                        \
        if (i < 4u)                                                                                                     \
            some[i] = there ? in1_4[at] : uvec4(0u);                                                                    \
        else                                                                                                            \
            some[i] = there ? in2_4[at] : uvec4(0u);                                                                    \
    }
#define KEEP(i)                                                                                                         \
    if (i % 4u * THREADS < KEYS * EIGHTS && PLACE(i) < KEYS * EIGHTS)                                                   \
        held[(PLACE(i) / EIGHTS + (i < 4u ? 0u : KEYS)) * STRIDE + PLACE(i) % EIGHTS] = some[i];
void stage(uint t, uint key0, uint end, uint from, uint by)
{
    for (uint base = t; base < KEYS * EIGHTS; base += 4u * THREADS) {
        uvec4 some[8];
        EIGHT(FETCH)
        EIGHT(KEEP)
    }
}

#define LOAD_Q(i) if (i < STEPS) coopMatLoad(q[i], held, row * LM * STRIDE + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define SCORE(i) /* two sums: neither waits for the other */                                                            \
    if (i < STEPS) {                                                                                                    \
        MATRIX_B k;                                                                                                     \
        coopMatLoad(k, held, at + i * (LK / 8u), STRIDE, gl_CooperativeMatrixLayoutColumnMajor);                        \
        if (i % 2u == 0u)                                                                                               \
            s = coopMatMulAdd(q[i], k, s);                                                                              \
        else                                                                                                            \
            odd = coopMatMulAdd(q[i], k, odd);                                                                          \
    }
#define READ(i)                                                                                                         \
    if (4u * i < OF_LINE) {                                                                                             \
        score[i] = uintBitsToFloat(scratch[mine + line * S_STRIDE + share * (OF_LINE / 4u) + i]) * (push.number * 1.44269504); \
        score[i] = mix(vec4(NOT), score[i], lessThan(4u * i + uvec4(0u, 1u, 2u, 3u), uvec4(count)));                    \
        most = score[i].x > most ? score[i].x : most;                                                                   \
        most = score[i].y > most ? score[i].y : most;                                                                   \
        most = score[i].z > most ? score[i].z : most;                                                                   \
        most = score[i].w > most ? score[i].w : most;                                                                   \
    }
#define NOTHING(i) o[i] = SUMS(0.0);
#define SHRINK(i)  if (i < COLUMNS) o[i] = o[i] * factor;
#define WEIGH(i)                                                                                                        \
    if (8u * i < OF_LINE) {                                                                                             \
        vec4 p = exp2(score[2u * i] - top), r = exp2(score[2u * i + 1u] - top);                                         \
        more += p.x + p.y + (p.z + p.w) + (r.x + r.y + (r.z + r.w));                                                    \
        scratch[mine + line * P_STRIDE + share * (OF_LINE / 8u) + i] = uvec4(pair(p.xy), pair(p.zw), pair(r.xy), pair(r.zw)); \
    }
#define VALUE(i)                                                                                                        \
    if (i < COLUMNS) {                                                                                              \
        MATRIX_B v;                                                                                                     \
        coopMatLoad(v, held, at + i * (LN / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);                           \
        o[i] = coopMatMulAdd(w, v, o[i]);                                                                               \
    }
#define STORE(i)                                                                                                        \
    if (i < COLUMNS && i / CHUNK == chunk)                                                                          \
        coopMatStore(o[i], held, sub * LM * C_STRIDE + i % CHUNK * (LN / 4u), C_STRIDE, gl_CooperativeMatrixLayoutRowMajor);

/* Two weights, which are not negative: to the nearest, of bf16 halves up; what is no number stays none. */
uint pair(vec2 v)
{
    if (D2 != BF16)
        return narrow_two(D2, v);
    uvec2 b = min(floatBitsToUint(v), uvec2(0x7fc00000u)) + 0x8000u;
    return b.x >> 16 | b.y & 0xffff0000u;
}

void put_four(uint l, uint d, vec4 v)
{
    if (places[l] != NOWHERE && d < HEAD)
        put_columns(places[l] + d, v);
}

#define PLACE_Q(i)   (i0 + i * THREADS)
#define FETCH_Q(i)                                                                                                      \
    {                                                                                                                   \
        uint at = PLACE_Q(i) < LINES * EIGHTS ? places[PLACE_Q(i) / EIGHTS] : NOWHERE, d = PLACE_Q(i) % EIGHTS;         \
        some[i] = at != NOWHERE && d * 8u < HEAD ? in0_4[at / 8u + d] : uvec4(0u);                                      \
    }
#define KEEP_Q(i)                                                                                                       \
    if (PLACE_Q(i) < LINES * EIGHTS)                                                                                    \
        held[PLACE_Q(i) / EIGHTS * STRIDE + PLACE_Q(i) % EIGHTS] = some[i];

void main()
{
    uint sub = gl_SubgroupID, lane = gl_SubgroupInvocationID, t = sub * gl_SubgroupSize + lane;
    uint row = sub % ACROSS, along = sub / ACROSS, line = lane / PER_LINE, share = lane % PER_LINE, mine = sub * SCRATCH;
    uint line0 = gl_WorkGroupID.x * LINES, lines = valid0(push.m) * push.group;
    uint tiles = (key_count() + KEYS - 1u) / KEYS, each_one = (tiles + push.from - 1u) / push.from;
    uint first = min(gl_WorkGroupID.z * each_one, tiles) * KEYS, end = min(min((gl_WorkGroupID.z + 1u) * each_one, tiles) * KEYS, key_count());
    uint from_key = key_at(0u) / 8u, by = push.heads * HEAD / 8u;
    if (line0 >= lines)
        return; /* all groups of the tile */

    if (t < LINES)
        places[t] = line0 + t < lines ? line_at(line0 + t) : NOWHERE;
    barrier();
    for (uint i0 = t; i0 < LINES * EIGHTS; i0 += 4u * THREADS) {
        uvec4 some[4];
        FOUR(FETCH_Q)
        FOUR(KEEP_Q)
    }
    barrier();
    MATRIX_A q[32];
    THIRTY_TWO(LOAD_Q)
    SUMS o[32];
    THIRTY_TWO(NOTHING)
    float top = NONE, sum = 0.0;

    for (uint key0 = first; key0 < end; key0 += KEYS) {
        barrier();
        stage(t, key0, end, from_key, by);
        barrier();
        for (uint j = 0u; j < OWN / LN; j++) {
            SUMS s = SUMS(0.0), odd = SUMS(0.0);
            uint at = (along * OWN + j * LN) * STRIDE;
            THIRTY_TWO(SCORE)
            s = s + odd;
            coopMatStore(s, scratch, mine + j * (LN / 4u), S_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        }
        subgroupBarrier();
        uint key = key0 + along * OWN + share * OF_LINE, count = key < end ? end - key : 0u; /* keys of this thread that count, or more */
        vec4 score[8];
        float most = NONE;
        EIGHT(READ)
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1) {
            float other = subgroupShuffleXor(most, i);
            most = other > most ? other : most;
        }
        subgroupBarrier();
        bool grows = most > top + SLACK;
        float shrink = grows ? exp2(top - most) : 1.0;
        top = grows ? most : top;
        sum *= shrink;
        for (uint i = share; i < LN / 4u; i += PER_LINE)
            scratch[mine + line * (LN / 4u) + i] = floatBitsToUint(vec4(shrink));
        subgroupBarrier(); /* none in a branch that not all subgroups take: there are drivers that wait for all of them */
        if (subgroupAny(grows)) {
            SUMS factor;
            coopMatLoad(factor, scratch, mine, LN / 4u, gl_CooperativeMatrixLayoutRowMajor);
            THIRTY_TWO(SHRINK)
        }
        subgroupBarrier();
        float more = 0.0;
        FOUR(WEIGH)
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1)
            more += subgroupShuffleXor(more, i);
        sum += more;
        subgroupBarrier();
        for (uint k = 0u; k < OWN; k += LK) {
            MATRIX_A w;
            uint at = (KEYS + along * OWN + k) * STRIDE;
            coopMatLoad(w, scratch, mine + k / 8u, P_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            THIRTY_TWO(VALUE)
        }
    }

    if (share == 0u) {
        tops[sub * LM + line] = top;
        sums[sub * LM + line] = sum;
    }
    barrier();
    const uint each = LINES * FOURS + LINES / 2u; /* 16 bytes of a part: results, then largest scores and sums */
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, part = push.b_first / 4u + (tile * push.from + gl_WorkGroupID.z) * each;
    if (t < LINES) {
        float most = NONE, whole = 0.0;
        for (uint a = 0u; a < ALONG; a++)
            most = tops[a * LINES + t] > most ? tops[a * LINES + t] : most;
        for (uint a = 0u; a < ALONG; a++) {
            float factor = exp2(tops[a * LINES + t] - most);
            whole += sums[a * LINES + t] * factor;
            tops[a * LINES + t] = factor;
        }
        if (push.from > 1u) {
            part_4[part + LINES * FOURS + t / 4u][t % 4u] = most;
            part_4[part + LINES * FOURS + LINES / 4u + t / 4u][t % 4u] = whole;
        }
        for (uint a = 0u; a < ALONG && push.from == 1u; a++)
            tops[a * LINES + t] *= whole > 0.0 ? 1.0 / whole : whole;
    }
    [[dont_unroll]] for (uint chunk = 0u; chunk * CHUNK < COLUMNS; chunk++) {
        THIRTY_TWO(STORE)
        barrier();
        for (uint i = t; i < LINES * C_FOURS; i += THREADS) {
            uint l = i / C_FOURS, x = i % C_FOURS, at = chunk * C_FOURS + x;
            vec4 v = vec4(0.0);
            for (uint a = 0u; a < ALONG; a++)
                v += uintBitsToFloat(held[(a * LINES + l) * C_STRIDE + x]) * tops[a * LINES + l];
            if (push.from == 1u)
                put_four(l, at * 4u, v);
            else if (at < FOURS)
                part_4[part + l * FOURS + at] = v;
        }
        barrier();
    }
}
