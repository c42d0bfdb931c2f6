/* linear_thin.comp - linears (dense.glsl says which) so small that nothing but latency counts: x and w of any dtype, k a multiple of 32.
 *
 * A group takes a row (gl_WorkGroupID.y) and THREADS / LANES columns (x), of both weights where there are two, so w is read again for each
 * row. LANES neighbours, a power of two, share a column: each adds up every LANES-th four of k, eight of them on their way at once, and
 * their sums come together in shared memory. f32, in an order that only k decides, one rounding on store. Rows that do not count are
 * not read nor written. Bound: latency of memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "dense.glsl"

layout(constant_id = 13) const uint LANES = 8; /* threads of a column */
#define COLUMNS (THREADS / LANES)

layout(std430, binding = 0) readonly buffer in0_twos { uvec2 in0_2[]; };
layout(std430, binding = 1) readonly buffer in1_twos { uvec2 in1_2[]; };
layout(std430, binding = 6) readonly buffer in3_twos { uvec2 in3_2[]; };

shared vec2 sums[THREADS]; /* of each weight */

vec4 four(uint dtype, uvec2 w)
{
    return uintBitsToFloat(uvec4(wide(dtype, w.x, 0u), wide(dtype, w.x, 1u), wide(dtype, w.y, 0u), wide(dtype, w.y, 1u)));
}
vec4 x_at(uint i) { return D0 == F32 ? uintBitsToFloat(in0_4[i]) : four(D0, in0_2[i]); }
vec4 w_at(uint i) { return D1 == F32 ? uintBitsToFloat(in1_4[i]) : four(D1, in1_2[i]); }
vec4 second_at(uint i) { return D1 == F32 ? uintBitsToFloat(in3_4[i]) : four(D1, in3_2[i]); }

void main()
{
    uint t = gl_LocalInvocationID.x, lane = t % LANES, n = gl_WorkGroupID.x * COLUMNS + t / LANES, m = gl_WorkGroupID.y;
    uint fours = push.k / 4u, row = m * fours, column = min(n, push.n - 1u) * fours;
    if (m >= valid0(push.m))
        return;
    vec2 sum = vec2(0.0);
    for (uint i = lane; i < fours; i += 8u * LANES) {
        vec4 x[8], w[8], second[8];
        [[unroll]] for (uint j = 0u; j < 8u; j++) { /* behind the end: the last one, which does not count */
            uint at = min(i + j * LANES, fours - 1u);
            x[j] = x_at(row + at);
            w[j] = w_at(column + at);
            second[j] = PAIR ? second_at(column + at) : vec4(0.0);
        }
        [[unroll]] for (uint j = 0u; j < 8u; j++)
            sum += i + j * LANES < fours ? vec2(dot(x[j], w[j]), PAIR ? dot(x[j], second[j]) : 0.0) : vec2(0.0);
    }
    sums[t] = sum;
    barrier();
    for (uint step = LANES / 2u; step > 0u; step >>= 1) {
        if (lane < step)
            sums[t] += sums[t + step];
        barrier();
    }
    sum = sums[t];
    if (lane != 0u || n >= push.n)
        return;
    float v = PAIR ? geglu_of(sum.x, sum.y) : sum.x;
    put(m * push.ldc + push.first + n, finished(m, n, v));
}
