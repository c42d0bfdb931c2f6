/* gated_norm.comp - what dense_matrix.comp left of a product in parts, brought together, onto the residual, and that one's ada_rms_norm:
 * s = residual + (sum of parts) gate, y = s / sqrt(mean(s^2) + eps) (1 + scale) + shift. in0 residual, in3 s, in4 mod and in1 the next one
 * (scale | shift | gate), all f32; y in its dtype. Parts lie behind each other from word b_first on, each [m, n]; number: eps.
 *
 * A group takes a row and holds it in registers, HELD fours a thread; n is a multiple of 4. Parts in order, eight of them on their way at
 * once. f32, one rounding on store. Bound: latency of memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "reduce.glsl"

layout(constant_id = 9) const uint HELD = 1;

layout(std430, binding = 0) readonly buffer in0_fours { vec4 residual[]; };
layout(std430, binding = 1) readonly buffer in1_fours { vec4 next[]; };
layout(std430, binding = 5) writeonly buffer out_fours { uvec4 out_4[]; };
layout(std430, binding = 5) writeonly buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 6) writeonly buffer in3_fours { vec4 onto[]; };
layout(std430, binding = 7) readonly buffer in4_fours { vec4 mod_4[]; };
layout(std430, binding = 8) readonly buffer part_fours { vec4 part_4[]; };

void main()
{
    uint row = group_index(), t = gl_LocalInvocationID.x, fours = push.n / 4u, first = push.b_first / 4u + row * fours;
    if (row >= valid0(push.m))
        return;
    vec4 s[HELD], scale[HELD], shift[HELD];
    float squares = 0.0;
    [[unroll]] for (uint h = 0u; h < HELD; h++) { /* behind the end of the row: its last four, which does not count */
        uint i = min(t + h * THREADS, fours - 1u);
        vec4 gate = mod_4[2u * fours + i], sum = vec4(0.0);
        s[h] = residual[row * fours + i];
        scale[h] = next[i];
        shift[h] = next[fours + i];
        for (uint z0 = 0u; z0 < push.from; z0 += 8u) {
            vec4 some[8];
            [[unroll]] for (uint z = 0u; z < 8u; z++)
                some[z] = part_4[first + min(z0 + z, push.from - 1u) * push.m * fours + i];
            [[unroll]] for (uint z = 0u; z < 8u; z++)
                sum += mix(some[z], vec4(0.0), bvec4(z0 + z >= push.from));
        }
        s[h] += sum * gate;
        squares += t + h * THREADS < fours ? dot(s[h], s[h]) : 0.0;
    }
    float r = 1.0 / sqrt(sum_of_group(squares) / float(push.n) + push.number);
    [[unroll]] for (uint h = 0u; h < HELD; h++) {
        uint i = t + h * THREADS, at = row * fours + i;
        vec4 y = s[h] * r;
        y += y * scale[h] + shift[h];
        if (i < fours) {
            onto[at] = s[h];
            if (DOUT == F32)
                out_4[at] = floatBitsToUint(y);
            else
                out_2[at] = narrow_four(DOUT, y);
        }
    }
}
