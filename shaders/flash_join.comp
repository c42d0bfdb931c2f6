/* flash_join.comp - what the parts of flash_matrix.comp left, brought to one scale and added up: o = sum of o_z 2^(top_z - top) over
 * the sum of sum_z 2^(top_z - top). Parts in order, eight on their way at once; a thread has four columns of a line.
 *
 * A part is, in 16 bytes, [line, FOURS] of results, then largest scores and then sums, [line]; LINES lines are a tile, a tile's parts lie
 * behind each other, and so do tiles of a key head. gl_WorkGroupID.x: fours of lines, y: key head of a sequence. f32, one
 * rounding on store. Bound: memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "flash.glsl"

layout(constant_id = 11) const uint LINES = 16; /* of a tile */
layout(constant_id = 12) const uint FOURS = 16; /* of a line in a part */

layout(std430, binding = 8) readonly buffer part_fours { vec4 part_4[]; };

const uint EACH = LINES * FOURS + LINES / 2u;

void main()
{
    uint i = gl_WorkGroupID.x * THREADS + gl_LocalInvocationID.x, line = i / (HEAD / 4u), d = i % (HEAD / 4u), l = line % LINES;
    uint tiles = (push.m * push.group + LINES - 1u) / LINES, tile = gl_WorkGroupID.y * tiles + line / LINES;
    uint first = push.b_first / 4u + tile * push.from * EACH;
    if (line >= valid0(push.m) * push.group)
        return;
    vec4 v = vec4(0.0);
    float top = -1.0e38, sum = 0.0;
    for (uint z0 = 0u; z0 < push.from; z0 += 8u) {
        vec4 result[8];
        float tops[8], sums[8], most = top;
        [[unroll]] for (uint z = 0u; z < 8u; z++) { /* behind the last one: the last one once more, which does not count */
            uint at = first + min(z0 + z, push.from - 1u) * EACH;
            result[z] = part_4[at + l * FOURS + d];
            tops[z] = part_4[at + LINES * FOURS + l / 4u][l % 4u];
            sums[z] = part_4[at + LINES * FOURS + LINES / 4u + l / 4u][l % 4u];
        }
        [[unroll]] for (uint z = 0u; z < 8u; z++)
            most = tops[z] > most ? tops[z] : most;
        v *= exp2(top - most);
        sum *= exp2(top - most);
        top = most;
        [[unroll]] for (uint z = 0u; z < 8u; z++) {
            float factor = exp2(tops[z] - top);
            v += z0 + z < push.from ? result[z] * factor : vec4(0.0);
            sum += z0 + z < push.from ? sums[z] * factor : 0.0;
        }
    }
    put_columns(line_at(line) + d * 4u, v * (sum > 0.0 ? 1.0 / sum : sum));
}
