/* linear_norm.comp - what dense_matrix.comp left of a product in parts, brought together, onto the residual s, and that one's norm. OP 0:
 * s = residual + sum gate, y = ada_rms_norm(s); 1: s = residual + sum (+ b), y = rms_norm(s); 2: the same, y = layer_norm(s). in0 residual,
 * in3 s; OP 0: in4 mod, in1 the next one (scale | shift | gate); else in4 b, in1 the norm's weight, OP 2: in2 its bias, both of any dtype, the
 * others f32; y in its dtype. Parts lie behind each other from word b_first on, each [m, n]; number: eps.
 *
 * A group takes a row and holds it in registers, HELD fours a thread; n is a multiple of 4. Parts in order, eight of them on their way at
 * once; the variance in a second pass. f32, one rounding on store. Bound: latency of memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "reduce.glsl"

layout(constant_id = 9) const uint HELD = 1;

layout(std430, binding = 0) readonly buffer in0_fours { vec4 residual[]; };
layout(std430, binding = 1) readonly buffer in1_fours { uvec4 in1_4[]; };
layout(std430, binding = 1) readonly buffer in1_twos { uvec2 in1_2[]; };
layout(std430, binding = 2) readonly buffer in2_fours { uvec4 in2_4[]; };
layout(std430, binding = 2) readonly buffer in2_twos { uvec2 in2_2[]; };
layout(std430, binding = 5) writeonly buffer out_fours { uvec4 out_4[]; };
layout(std430, binding = 5) writeonly buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 6) writeonly buffer in3_fours { vec4 onto[]; };
layout(std430, binding = 7) readonly buffer in4_fours { vec4 in4_4[]; };
layout(std430, binding = 8) readonly buffer part_fours { vec4 part_4[]; };

vec4 four(uint dtype, uvec2 w)
{
    return uintBitsToFloat(uvec4(wide(dtype, w.x, 0u), wide(dtype, w.x, 1u), wide(dtype, w.y, 0u), wide(dtype, w.y, 1u)));
}
vec4 weight(uint i) { return D1 == F32 ? uintBitsToFloat(in1_4[i]) : four(D1, in1_2[i]); }
vec4 bias(uint i) { return D2 == F32 ? uintBitsToFloat(in2_4[i]) : four(D2, in2_2[i]); }

void main()
{
    uint row = group_index(), t = gl_LocalInvocationID.x, fours = push.n / 4u, first = push.b_first / 4u + row * fours;
    if (row >= valid0(push.m))
        return;
    vec4 s[HELD], scale[HELD], shift[HELD];
    float total = 0.0, mean = 0.0;
    [[unroll]] for (uint h = 0u; h < HELD; h++) { /* behind the end of the row: its last four, which does not count */
        uint i = min(t + h * THREADS, fours - 1u);
        vec4 gate = OP == 0u ? in4_4[2u * fours + i] : vec4(1.0), sum = (HAS & 16u) != 0u ? in4_4[i] : vec4(0.0);
        s[h] = residual[row * fours + i];
        scale[h] = weight(i);
        shift[h] = OP == 0u ? weight(fours + i) : OP == 2u ? bias(i) : vec4(0.0);
        for (uint z0 = 0u; z0 < push.from; z0 += 8u) {
            vec4 some[8];
            [[unroll]] for (uint z = 0u; z < 8u; z++)
                some[z] = part_4[first + min(z0 + z, push.from - 1u) * push.m * fours + i];
            [[unroll]] for (uint z = 0u; z < 8u; z++)
                sum += mix(some[z], vec4(0.0), bvec4(z0 + z >= push.from));
        }
        s[h] += sum * gate;
        total += t + h * THREADS < fours ? dot(s[h], vec4(1.0)) : 0.0;
    }
    if (OP == 2u)
        mean = sum_of_group(total) / float(push.n);
    total = 0.0;
    [[unroll]] for (uint h = 0u; h < HELD; h++)
        total += t + h * THREADS < fours ? dot(s[h] - mean, s[h] - mean) : 0.0;
    float r = 1.0 / sqrt(sum_of_group(total) / float(push.n) + push.number);
    [[unroll]] for (uint h = 0u; h < HELD; h++) {
        uint i = t + h * THREADS, at = row * fours + i;
        vec4 y = (s[h] - mean) * r;
        y = OP == 0u ? y + (y * scale[h] + shift[h]) : y * scale[h] + shift[h];
        if (i < fours) {
            onto[at] = s[h];
            if (DOUT == F32)
                out_4[at] = floatBitsToUint(y);
            else
                out_2[at] = narrow_four(DOUT, y);
        }
    }
}
