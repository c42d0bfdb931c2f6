/* rope_cache.comp - rope (rope.comp says what) of q, and of k into its cache, and v into its own, in one dispatch, for 16-bit numbers of one
 * dtype. in0 q [m, n], in1 k and in2 v [m, ldc], heads of push.k, whose halves are multiples of 4 wide; out q turned; where others have the
 * second count of rows the cache of k, in3 that of v, in both row `first` gets row 0; in4 the table, f32 [positions, cos | sin] of n1
 * elements; where others have parts the positions.
 *
 * gl_WorkGroupID.y: 0 q, 1 k, 2 v. A thread has four columns of a head's first half and the four that they are turned with. Bound: latency of
 * memory, twice: positions, then the table. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(std430, binding = 0) readonly buffer q_twos { uvec2 q[]; };
layout(std430, binding = 1) readonly buffer k_twos { uvec2 k[]; };
layout(std430, binding = 2) readonly buffer v_twos { uvec2 v[]; };
layout(std430, binding = 4) writeonly buffer k_cache_twos { uvec2 k_cache[]; };
layout(std430, binding = 5) writeonly buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 6) writeonly buffer v_cache_twos { uvec2 v_cache[]; };
layout(std430, binding = 7) readonly buffer table_fours { vec4 table[]; };
layout(std430, binding = 8) readonly buffer positions_words { int positions[]; };

vec4 four(uvec2 w) { return uintBitsToFloat(uvec4(wide(D0, w.x, 0u), wide(D0, w.x, 1u), wide(D0, w.y, 0u), wide(D0, w.y, 1u))); }

uvec2 two(vec4 v) { return narrow_four(D0, v); }

void main()
{
    uint which = gl_WorkGroupID.y, width = which == 0u ? push.n : push.ldc, half_head = push.k / 2u;
    uint i = gl_WorkGroupID.x * THREADS + gl_LocalInvocationID.x, row = i / (width / 8u), pair = i % (width / 8u);
    uint column = pair / (half_head / 4u) * push.k + pair % (half_head / 4u) * 4u;
    if (row >= valid0(push.m))
        return;
    uint from = (row * width + column) / 4u, to = from + push.first * width / 4u, other = half_head / 4u;
    if (which == 2u) {
        uvec2 a = v[from], b = v[from + other];
        v_cache[to] = a;
        v_cache[to + other] = b;
        return;
    }
    uint at = (clamped(positions[row], push.n1 / push.k - 1u) * push.k + pair % (half_head / 4u) * 4u) / 4u;
    uvec2 a, b;
    if (which == 0u) {
        a = q[from];
        b = q[from + other];
    } else {
        a = k[from];
        b = k[from + other];
    }
    vec4 c = table[at], s = table[at + other], x = four(a), y = four(b);
    uvec2 low = two(x * c - y * s), high = two(y * c + x * s);
    if (which == 0u) {
        out_2[from] = low;
        out_2[from + other] = high;
    } else {
        k_cache[to] = low;
        k_cache[to + other] = high;
    }
}
