/* flash_matrix.comp - the whole attention (flash.glsl says what and how) by KHR cooperative matrices: TYPE is bfloat16_t or float16_t,
 * what q, k and v are stored as; scores, exp, sums and the result are f32, the weights are rounded to TYPE before they meet v.
 *
 * A group takes ACROSS x LM lines and tiles of KEYS keys, and has ACROSS x ALONG subgroups: the ALONG of a row make each the scores of
 * their share of a tile's keys (OWN), tell each other the largest, and weigh the values of all keys, each for its own columns of the
 * result. Scores go through memory to threads that have a line, PER_LINE neighbours each, and come back as weights. q and the result
 * stay in registers, the head filled up with zeros to whole matrices. While a tile is worked on, the next one is on its way to registers
 * where there is room (AHEAD); its keys are kept when all scores are made, its values when all are weighed. A line's scale follows its largest score
 * only when that grew by more than SLACK: until then weights are larger than 1, which costs nothing, and the result is not touched.
 * The keys may be cut into parts as well (push.from): a part leaves sums, largest score and sum of weights in memory for flash_join.comp.
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
layout(std430, binding = 5) writeonly buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 5) writeonly buffer out_fours { uvec4 out_4[]; };
layout(std430, binding = 8) writeonly buffer part_fours { uvec4 part_4[]; };

const uint SUBGROUPS = ACROSS * ALONG, LINES = ACROSS * LM, OWN = KEYS / ALONG, LANES = THREADS / SUBGROUPS;
const uint PER_LINE = LANES / LM, OF_LINE = OWN / PER_LINE; /* threads of a line, scores of a thread */
const uint STEPS = (HEAD + LK - 1u) / LK;                        /* of q k^T */
const uint COLUMNS = ((HEAD + LN - 1u) / LN + ALONG - 1u) / ALONG; /* matrices of the result beside each other, of a subgroup */
const uint WIDE = COLUMNS * ALONG * LN;                          /* columns of a group */
const uint EIGHTS = (STEPS * LK > WIDE ? STEPS * LK : WIDE) / 8u, STRIDE = EIGHTS + 1u; /* of a key, in 16 bytes */
const uint EACH = (KEYS * EIGHTS + THREADS - 1u) / THREADS; /* 16 bytes of keys that a thread fetches */
const bool AHEAD = EACH <= 8u, ALONE = ALONG == 1u; /* ALONE: a subgroup has lines that no other has, and waits for others at tiles alone */
const uint S_STRIDE = KEYS / 4u + 1u, P_STRIDE = KEYS / 8u + 1u; /* of a line's scores and weights, in 16 bytes */
const uint FACTORS = LM * P_STRIDE, OF_BOTH = FACTORS + LM * (LN / 4u), SCRATCH = LM * S_STRIDE > OF_BOTH ? LM * S_STRIDE : OF_BOTH;

/* Shared memory for keys and, from VALUES on, values; at first for q, and at last each subgroup has a part for FITTING matrices of its result. */
const uint VALUES = KEYS * STRIDE, LEAST = SUBGROUPS * LM * (LN / 4u + 1u);
const uint OF_Q = LINES * STRIDE, MOST = OF_Q > 2u * VALUES ? OF_Q : 2u * VALUES, HELD = MOST > LEAST ? MOST : LEAST;
const uint REGION = HELD / SUBGROUPS, FITTING = (REGION / LM - 1u) * 4u / LN;
const uint A_LANE = 32u * LANES / (LM * LN), FOR_LANES = A_LANE > 0u ? A_LANE : 1u; /* of which a thread stores no more than eight fours */
const uint SOME = FITTING < FOR_LANES ? FITTING : FOR_LANES, CHUNK = SOME < COLUMNS ? SOME : COLUMNS;
const uint C_FOURS = CHUNK * LN / 4u, C_STRIDE = C_FOURS + 1u, FOURS = WIDE / 4u; /* of a line: in a chunk, in all */
const uint OF_LANE = (LM * C_FOURS + LANES - 1u) / LANES; /* fours of a chunk that a thread stores */

shared uvec4 held[HELD];
shared uvec4 scratch[ACROSS * SCRATCH];         /* of a row of subgroups scores; then weights and, from FACTORS on, a line's factor LN times, a matrix that scales the result */
shared float tops[SUBGROUPS * LM];              /* of each subgroup's lines: largest score of its share */
shared float sums[SUBGROUPS * LM];
shared uint places[LINES]; /* of lines in q and in the result */

#define MATRIX_A coopmat<TYPE, gl_ScopeSubgroup, LM, LK, gl_MatrixUseA>
#define MATRIX_B coopmat<TYPE, gl_ScopeSubgroup, LK, LN, gl_MatrixUseB>
#define SUMS     coopmat<float, gl_ScopeSubgroup, LM, LN, gl_MatrixUseAccumulator>

const float NONE = -3.40282347e38; /* the least there is: before any score, and of a key that does not count. Infinity less infinity is no number */
const float SLACK = 8.0;                   /* 2^8 is far from the end of f16 */
const uint NOWHERE = 0xffffffffu;

#define FOUR(DO)      DO(0u) DO(1u) DO(2u) DO(3u)
#define EIGHT(DO)     FOUR(DO) DO(4u) DO(5u) DO(6u) DO(7u)
#define SIXTEEN(DO)   EIGHT(DO) DO(8u) DO(9u) DO(10u) DO(11u) DO(12u) DO(13u) DO(14u) DO(15u)
#define THIRTY_TWO(DO) SIXTEEN(DO) DO(16u) DO(17u) DO(18u) DO(19u) DO(20u) DO(21u) DO(22u) DO(23u) \
    DO(24u) DO(25u) DO(26u) DO(27u) DO(28u) DO(29u) DO(30u) DO(31u)

/* Keys, or values, of the tile at key0, 16 bytes each. Behind the last that counts it is read once more: its score is not taken there, and
 * its weight is 0. Behind the end of a head are zeros. */
#define PLACE(i)   (base + i * THREADS)
#define ROW(i)     (PLACE(i) / EIGHTS)
#define EIGHT_OF(i) (PLACE(i) % EIGHTS)
#define AT(i)      (from + min(key0 + ROW(i), last) * by + min(EIGHT_OF(i), HEAD / 8u - 1u))
#define FETCH_K(i) if (i < EACH) some_k[i] = in1_4[AT(i)];
#define FETCH_V(i) if (i < EACH) some_v[i] = in2_4[AT(i)];
#define THERE(i, v) mix(v, uvec4(0u), bvec4(EIGHTS * 8u > HEAD && EIGHT_OF(i) >= HEAD / 8u))
#define KEEP_K(i)  if (i < EACH && PLACE(i) < KEYS * EIGHTS) held[ROW(i) * STRIDE + EIGHT_OF(i)] = THERE(i, some_k[i]);
#define KEEP_V(i)  if (i < EACH && PLACE(i) < KEYS * EIGHTS) held[VALUES + ROW(i) * STRIDE + EIGHT_OF(i)] = THERE(i, some_v[i]);
#define FETCHED(FETCH, KEEP) /* where a thread has more than eight of them: only now, one after the other */            \
    for (uint base = t; base < KEYS * EIGHTS; base += THREADS) {                                                        \
        FETCH(0u)                                                                                                       \
        KEEP(0u)                                                                                                        \
    }
#define KEEP_KEYS   if (AHEAD) { EIGHT(KEEP_K) } else { FETCHED(FETCH_K, KEEP_K) }
#define KEEP_VALUES if (AHEAD) { EIGHT(KEEP_V) } else { FETCHED(FETCH_V, KEEP_V) }

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
#define READ(i)    if (4u * i < OF_LINE) score[i] = uintBitsToFloat(scratch[mine + line * S_STRIDE + (along * OWN + share * OF_LINE) / 4u + i]);
#define COUNTED(i) if (4u * i < OF_LINE) score[i] = mix(vec4(NONE), score[i], lessThan(4u * i + uvec4(0u, 1u, 2u, 3u), uvec4(count)));
#define LARGEST(i)                                                                                                      \
    if (4u * i < OF_LINE) {                                                                                             \
        most = score[i].x > most ? score[i].x : most;                                                                   \
        most = score[i].y > most ? score[i].y : most;                                                                   \
        most = score[i].z > most ? score[i].z : most;                                                                   \
        most = score[i].w > most ? score[i].w : most;                                                                   \
    }
#define NOTHING(i) o[i] = SUMS(0.0);
#define SHRINK(i)  if (i < COLUMNS) o[i] = o[i] * factor;
#define WEIGH(i)                                                                                                        \
    if (8u * i < OF_LINE) {                                                                                             \
        vec4 p = exp2((score[2u * i] - top) * of_two), r = exp2((score[2u * i + 1u] - top) * of_two);                   \
        more += p.x + p.y + (p.z + p.w) + (r.x + r.y + (r.z + r.w));                                                    \
        scratch[mine + line * P_STRIDE + (along * OWN + share * OF_LINE) / 8u + i] = uvec4(pair(p.xy), pair(p.zw), pair(r.xy), pair(r.zw)); \
    }
#define FACTOR(i) if (i * PER_LINE < LN / 4u && share + i * PER_LINE < LN / 4u) scratch[mine + FACTORS + line * (LN / 4u) + share + i * PER_LINE] = uvec4(by_bits);
#define VALUE(i)                                                                                                        \
    if (i < COLUMNS) {                                                                                                  \
        MATRIX_B v;                                                                                                     \
        coopMatLoad(v, held, at + i * (LN / 8u), STRIDE, gl_CooperativeMatrixLayoutRowMajor);                           \
        o[i] = coopMatMulAdd(w, v, o[i]);                                                                               \
    }
#define LEAVE(i) if (i < COLUMNS) coopMatStore(o[i], part_4, part + row * LM * FOURS + (along * COLUMNS + i) * (LN / 4u), FOURS, gl_CooperativeMatrixLayoutRowMajor);
#define STORE(i)                                                                                                        \
    if (i < COLUMNS && i / CHUNK == chunk)                                                                              \
        coopMatStore(o[i], held, sub * REGION + i % CHUNK * (LN / 4u), C_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
#define OF_ALL(i)   (lane + i * LANES)
#define TAKE(i)     if (i < OF_LANE) four[i] = uintBitsToFloat(held[sub * REGION + min(OF_ALL(i), LM * C_FOURS - 1u) / C_FOURS * C_STRIDE + OF_ALL(i) % C_FOURS]);
#define PUT(i)                                                                                                          \
    if (i < OF_LANE && OF_ALL(i) < LM * C_FOURS)                                                                        \
        put_four(row * LM + OF_ALL(i) / C_FOURS, chunk * CHUNK * LN + OF_ALL(i) % C_FOURS * 4u, along * COLUMNS * LN, four[i]);

/* Two weights, which are not negative: to the nearest, of bf16 halves up. One that is no number need not stay none: its line's sum is none. */
uint pair(vec2 v)
{
    if (D2 != BF16)
        return narrow_two(D2, v);
    uvec2 b = floatBitsToUint(v) + 0x8000u;
    return b.x >> 16 | b.y & 0xffff0000u;
}

/* Line l of the group, column d of the subgroup, whose first one is `own`. */
void put_four(uint l, uint d, uint own, vec4 v)
{
    uint at = places[l] + own + d;
    if (places[l] == NOWHERE || d >= COLUMNS * LN || own + d >= HEAD)
        return;
    if (DOUT == F32)
        out_4[at / 4u] = floatBitsToUint(v);
    else
        out_2[at / 4u] = narrow_four(DOUT, v);
}

#define PLACE_Q(i)   (i0 + i * THREADS)
#define FETCH_Q(i)                                                                                                      \
    if (i * THREADS < LINES * EIGHTS) {                                                                                 \
        uint at = PLACE_Q(i) < LINES * EIGHTS ? places[PLACE_Q(i) / EIGHTS] : NOWHERE, d = PLACE_Q(i) % EIGHTS;         \
        of_q[i] = at != NOWHERE && d * 8u < HEAD ? in0_4[at / 8u + d] : uvec4(0u);                                      \
    }
#define KEEP_Q(i)                                                                                                       \
    if (i * THREADS < LINES * EIGHTS && PLACE_Q(i) < LINES * EIGHTS)                                                    \
        held[PLACE_Q(i) / EIGHTS * STRIDE + PLACE_Q(i) % EIGHTS] = of_q[i];

void main()
{
    uint sub = gl_SubgroupID, lane = gl_SubgroupInvocationID, t = sub * gl_SubgroupSize + lane, base = t;
    uint row = sub % ACROSS, along = sub / ACROSS, line = lane / PER_LINE, share = lane % PER_LINE, mine = row * SCRATCH;
    uint line0 = gl_WorkGroupID.x * LINES, lines = valid0(push.m) * push.group;
    uint tiles = (key_count() + KEYS - 1u) / KEYS, each_one = (tiles + push.from - 1u) / push.from;
    uint first = min(gl_WorkGroupID.z * each_one, tiles) * KEYS, end = min(min((gl_WorkGroupID.z + 1u) * each_one, tiles) * KEYS, key_count());
    uint from = key_at(0u) / 8u, by = push.heads * HEAD / 8u, last = max(end, 1u) - 1u;
    if (line0 >= lines)
        return; /* all groups of the tile */

    uvec4 some_k[8], some_v[8];
    uint key0 = first;
    if (AHEAD) {
        EIGHT(FETCH_K)
        EIGHT(FETCH_V)
    }
    if (t < LINES)
        places[t] = line0 + t < lines ? line_at(line0 + t) : NOWHERE;
    barrier();
    for (uint i0 = t; i0 < LINES * EIGHTS; i0 += 8u * THREADS) {
        uvec4 of_q[8];
        EIGHT(FETCH_Q)
        EIGHT(KEEP_Q)
    }
    barrier();
    MATRIX_A q[32];
    THIRTY_TWO(LOAD_Q)
    SUMS o[32];
    THIRTY_TWO(NOTHING)
    const float of_two = push.number * 1.44269504; /* a score makes a power of two */
    float top = NONE, sum = 0.0;
    barrier();
    KEEP_KEYS
    KEEP_VALUES
    barrier();

    for (uint now = first; now < end; now += KEYS) {
        key0 = now + KEYS;
        if (AHEAD) {
            if (key0 < end) { /* a driver moves loads to where they are kept, if nothing holds them here */
                EIGHT(FETCH_K)
                EIGHT(FETCH_V)
            }
        }
        [[unroll]] for (uint j = 0u; j < OWN / LN; j++) {
            SUMS s = SUMS(0.0), odd = SUMS(0.0);
            uint at = (along * OWN + j * LN) * STRIDE;
            THIRTY_TWO(SCORE)
            s = s + odd;
            coopMatStore(s, scratch, mine + (along * OWN + j * LN) / 4u, S_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        }
        subgroupBarrier();
        uint key = now + along * OWN + share * OF_LINE, count = key < end ? end - key : 0u; /* keys of this thread that count, or more */
        vec4 score[8];
        float most = NONE;
        EIGHT(READ)
        if (now + KEYS > end) {
            EIGHT(COUNTED)
        }
        EIGHT(LARGEST)
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1) {
            float other = subgroupShuffleXor(most, i);
            most = other > most ? other : most;
        }
        if (ALONE) {
            subgroupBarrier();
        } else {
            if (share == 0u)
                tops[sub * LM + line] = most;
            barrier(); /* scores are read, keys are used */
            for (uint a = 0u; a < ALONG; a++) {
                float other = tops[a * LINES + row * LM + line];
                most = other > most ? other : most;
            }
        }
        bool grows = (most - top) * of_two > SLACK;
        float shrink = grows ? exp2((top - most) * of_two) : 1.0;
        top = grows ? most : top;
        sum *= shrink;
        const bool shrinks = now > first && subgroupAny(grows); /* in the first tile there is no result yet */
        if (shrinks && along == 0u) {
            uint by_bits = floatBitsToUint(shrink);
            EIGHT(FACTOR)
        }
        float more = 0.0;
        FOUR(WEIGH)
        [[unroll]] for (uint i = 1u; i < PER_LINE; i <<= 1)
            more += subgroupShuffleXor(more, i);
        sum += more;
        if (ALONE) {
            subgroupBarrier();
        } else {
            KEEP_KEYS
            barrier(); /* weights are there */
        }
        if (shrinks) {
            SUMS factor;
            coopMatLoad(factor, scratch, mine + FACTORS, LN / 4u, gl_CooperativeMatrixLayoutRowMajor);
            THIRTY_TWO(SHRINK)
        }
        [[unroll]] for (uint k = 0u; k < KEYS; k += LK) {
            MATRIX_A w;
            uint at = VALUES + k * STRIDE + along * COLUMNS * (LN / 8u);
            coopMatLoad(w, scratch, mine + k / 8u, P_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            THIRTY_TWO(VALUE)
        }
        barrier(); /* values are used */
        KEEP_VALUES
        if (ALONE) {
            KEEP_KEYS
            barrier();
        }
    }

    if (share == 0u)
        sums[sub * LM + line] = sum;
    barrier();
    float whole = 0.0;
    for (uint a = 0u; a < ALONG; a++)
        whole += sums[a * LINES + row * LM + line];
    if (push.from > 1u) {
        const uint each = LINES * FOURS + LINES / 2u; /* 16 bytes of a part: results, then largest scores and sums */
        uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, part = push.b_first / 4u + (tile * push.from + gl_WorkGroupID.z) * each;
        uint l = row * LM + line;
        THIRTY_TWO(LEAVE)
        if (along == 0u && share == 0u) {
            part_4[part + LINES * FOURS + l / 4u][l % 4u] = floatBitsToUint(top * of_two);
            part_4[part + LINES * FOURS + LINES / 4u + l / 4u][l % 4u] = floatBitsToUint(whole);
        }
        return;
    }
    if (along == 0u) {
        uint by_bits = floatBitsToUint(whole > 0.0 ? 1.0 / whole : whole);
        EIGHT(FACTOR)
    }
    barrier();
    SUMS factor;
    coopMatLoad(factor, scratch, mine + FACTORS, LN / 4u, gl_CooperativeMatrixLayoutRowMajor);
    THIRTY_TWO(SHRINK)
    [[unroll]] for (uint chunk = 0u; chunk * CHUNK < COLUMNS; chunk++) {
        vec4 four[8];
        THIRTY_TWO(STORE)
        subgroupBarrier();
        EIGHT(TAKE)
        EIGHT(PUT)
        subgroupBarrier();
    }
}
