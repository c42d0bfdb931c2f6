/* norm.comp - OP 0: rms_norm, x / sqrt(mean(x^2) + eps) (* w); OP 1: layer_norm, (x - mean) / sqrt(var + eps) * w + b;
 * OP 2: ada_rms_norm, rms_norm(x) (1 + scale) + shift with mod [n1 / (3 width), scale | shift | gate].
 * x, y [rows, width]; w, b [width]; number: eps. A group takes a row; sums in f32 (variance in a second pass), one rounding on
 * store. Bound: memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "reduce.glsl"

float result(float x, uint i, uint mod_at)
{
    if (OP == 0u && (HAS & 2u) != 0u)
        x = x * get1(i);
    else if (OP == 1u)
        x = x * get1(i) + get2(i);
    else if (OP == 2u)
        x = x + x * get1(mod_at + i) + get1(mod_at + push.width + i);
    return x;
}

void main()
{
    uint row = group_index(), t = gl_LocalInvocationID.x, at = row * push.width;
    if (row >= push.rows_in_all || row % push.row_cap >= valid0(push.row_cap))
        return;
    float mean = 0.0, sum = 0.0;
    if (OP == 1u) {
        for (uint i = t; i < push.width; i += THREADS)
            sum += get0(at + i);
        mean = sum_of_group(sum) / float(push.width);
        sum = 0.0;
    }
    for (uint i = t; i < push.width; i += THREADS) {
        float x = get0(at + i) - mean;
        sum += x * x;
    }
    float r = 1.0 / sqrt(sum_of_group(sum) / float(push.width) + push.number);
    uint mod_at = OP == 2u ? row * 3u * push.width % push.n1 : 0u;
    for (uint i = 2u * t; i < push.width; i += 2u * THREADS) {
        bool second = i + 1u < push.width;
        float v = result((get0(at + i) - mean) * r, i, mod_at);
        float next = second ? result((get0(at + i + 1u) - mean) * r, i + 1u, mod_at) : 0.0;
        put_two(at + i, v, true, next, second);
    }
}
