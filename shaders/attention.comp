/* attention.comp - softmax: exp(s - max) / sum over the first len columns of each row; scores and values are products (linear.comp).
 * s, p [matrices, row_cap, width]; in1: len, where HAS says so. A group takes a row, in three passes over it; f32, each exp within
 * 2 ulp, one rounding on store. Neither columns from len on nor rows that do not count are read or written. Bound: memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "reduce.glsl"

void main()
{
    uint row = group_index(), t = gl_LocalInvocationID.x, at = row * push.width;
    uint len = (HAS & 2u) != 0u ? clamped(int(in1[0]), push.width) : push.width;
    if (row >= push.rows_in_all || row % push.row_cap >= valid0(push.row_cap) || len == 0u)
        return;
    float top = get0(at);
    for (uint i = t; i < len; i += THREADS)
        top = get0(at + i) > top ? get0(at + i) : top;
    top = largest_of_group(top);
    float sum = 0.0;
    for (uint i = t; i < len; i += THREADS)
        sum += exp_of(get0(at + i) - top);
    float scale = 1.0 / sum_of_group(sum);
    for (uint i = 2u * t; i < len; i += 2u * THREADS) {
        bool second = i + 1u < len;
        float next = second ? exp_of(get0(at + i + 1u) - top) * scale : 0.0;
        put_two(at + i, exp_of(get0(at + i) - top) * scale, true, next, second);
    }
}
