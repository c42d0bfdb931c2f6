/* norm.comp - OP 0: rms_norm, x / sqrt(mean(x^2) + eps) (* w); OP 1: layer_norm, (x - mean) / sqrt(var + eps) * w + b;
 * OP 2: ada_rms_norm, rms_norm(x) (1 + scale) + shift with mod [n1 / (3 width), scale | shift | gate].
 * x, y [rows, width]; w, b [width]; number: eps. A group takes a row and holds it in registers, 2 HELD numbers a thread; HELD 0: it
 * is read again for each pass. Sums in f32 (variance in a second pass), one rounding on store. Bound: latency of memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "reduce.glsl"

layout(constant_id = 9) const uint HELD = 0;

/* What x is multiplied by and what is added, for column i. */
vec2 factors(uint i, uint mod_at)
{
    if (OP == 1u)
        return vec2(get1(i), get2(i));
    if (OP == 2u)
        return vec2(get1(mod_at + i), get1(mod_at + push.width + i));
    return vec2((HAS & 2u) != 0u ? get1(i) : 1.0, 0.0);
}

float result(float x, vec2 f)
{
    if (OP == 2u)
        return x + x * f.x + f.y;
    return OP == 1u ? x * f.x + f.y : x * f.x;
}

void main()
{
    uint row = group_index(), t = gl_LocalInvocationID.x, at = row * push.width;
    if (row >= push.rows_in_all || row % push.row_cap >= valid0(push.row_cap))
        return;
    float mean = 0.0, sum = 0.0, held[HELD == 0u ? 1u : 2u * HELD];
    vec2 f[HELD == 0u ? 1u : 2u * HELD]; /* on their way while sums are made */
    uint mod_at = OP == 2u ? row * 3u * push.width % push.n1 : 0u;
    [[unroll]] for (uint k = 0u; k < 2u * HELD; k++) {
        uint i = 2u * (t + k / 2u * THREADS) + k % 2u;
        float x = get0(at + min(i, push.width - 1u));
        held[k] = i < push.width ? x : 0.0;
        f[k] = factors(min(i, push.width - 1u), mod_at);
    }
    if (OP == 1u) {
        [[unroll]] for (uint k = 0u; k < 2u * HELD; k++)
            sum += held[k];
        for (uint i = t; HELD == 0u && i < push.width; i += THREADS)
            sum += get0(at + i);
        mean = sum_of_group(sum) / float(push.width);
        sum = 0.0;
    }
    [[unroll]] for (uint k = 0u; k < 2u * HELD; k++) {
        float x = 2u * (t + k / 2u * THREADS) + k % 2u < push.width ? held[k] - mean : 0.0;
        sum += x * x;
    }
    for (uint i = t; HELD == 0u && i < push.width; i += THREADS) {
        float x = get0(at + i) - mean;
        sum += x * x;
    }
    float r = 1.0 / sqrt(sum_of_group(sum) / float(push.width) + push.number);
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint i = 2u * (t + k * THREADS);
        bool first = i < push.width, second = i + 1u < push.width;
        float v = result((held[2u * k] - mean) * r, f[2u * k]);
        float next = result((held[2u * k + 1u] - mean) * r, f[2u * k + 1u]);
        put_two(at + i, v, first, next, second);
    }
    for (uint i = 2u * t; HELD == 0u && i < push.width; i += 2u * THREADS) {
        bool second = i + 1u < push.width;
        float v = result((get0(at + i) - mean) * r, factors(i, mod_at));
        float next = second ? result((get0(at + i + 1u) - mean) * r, factors(i + 1u, mod_at)) : 0.0;
        put_two(at + i, v, true, next, second);
    }
}
