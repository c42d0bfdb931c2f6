/* flash.comp - the whole attention (flash.glsl says what and how) by f32 arithmetic, on every device and for every dtype.
 *
 * A group of 64 threads takes 8 lines and tiles of 16 keys; q and a tile of k, then of v, stand in shared memory as f32. A thread
 * makes 2 scores of a line and adds up the result's columns t, t + 64, ... of all 8 lines. f32, each exp within 2 ulp, sums in
 * order of keys, one rounding on store. Keys are not cut into parts. Bound: arithmetic. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "flash.glsl"

#define LINES 8u
#define STRIDE (HEAD + 1u)
const uint COLUMNS = (HEAD + 63u) / 64u; /* of a thread */

shared float q_part[LINES * STRIDE];
shared float tile[KEYS * STRIDE];
shared float weight[LINES * KEYS];
shared float shrink[LINES];

void main()
{
    uint t = gl_LocalInvocationID.x, line0 = gl_WorkGroupID.x * LINES, len = key_count();
    uint lines = valid0(push.m) * push.group;
    if (line0 >= lines)
        return;
    for (uint i = t; i < LINES * HEAD; i += THREADS)
        q_part[i / HEAD * STRIDE + i % HEAD] = line0 + i / HEAD < lines ? get0(line_at(line0 + i / HEAD) + i % HEAD) * push.number : 0.0;
    float o[LINES * COLUMNS];
    [[unroll]] for (uint i = 0u; i < LINES * COLUMNS; i++)
        o[i] = 0.0;
    float top = uintBitsToFloat(0xff800000u), sum = 0.0; /* of line t, in the first threads */
    for (uint key0 = 0u; key0 < len; key0 += KEYS) {
        uint keys = min(KEYS, len - key0);
        barrier();
        for (uint i = t; i < keys * HEAD; i += THREADS)
            tile[i / HEAD * STRIDE + i % HEAD] = get1(key_at(key0 + i / HEAD) + i % HEAD);
        barrier();
        for (uint i = t; i < LINES * keys; i += THREADS) {
            uint line = i / keys, key = i % keys;
            float s = 0.0;
            for (uint d = 0u; d < HEAD; d++)
                s += q_part[line * STRIDE + d] * tile[key * STRIDE + d];
            weight[line * KEYS + key] = s;
        }
        barrier();
        if (t < LINES) {
            float before = top;
            for (uint key = 0u; key < keys; key++)
                top = weight[t * KEYS + key] > top ? weight[t * KEYS + key] : top;
            shrink[t] = key0 == 0u ? 0.0 : exp_of(before - top);
            sum *= shrink[t];
            for (uint key = 0u; key < keys; key++) {
                float p = exp_of(weight[t * KEYS + key] - top);
                weight[t * KEYS + key] = p;
                sum += p;
            }
        }
        for (uint i = t; i < keys * HEAD; i += THREADS)
            tile[i / HEAD * STRIDE + i % HEAD] = uintBitsToFloat(wide(D2, in2[word_of(D2, key_at(key0 + i / HEAD) + i % HEAD)], key_at(key0 + i / HEAD) + i % HEAD));
        barrier();
        [[unroll]] for (uint c = 0u; c < COLUMNS; c++) {
            uint d = t + c * 64u;
            if (d >= HEAD)
                continue;
            [[unroll]] for (uint line = 0u; line < LINES; line++)
                o[line * COLUMNS + c] *= shrink[line];
            for (uint key = 0u; key < keys; key++) {
                float v = tile[key * STRIDE + d];
                [[unroll]] for (uint line = 0u; line < LINES; line++)
                    o[line * COLUMNS + c] += weight[line * KEYS + key] * v;
            }
        }
    }
    barrier();
    if (t < LINES)
        shrink[t] = sum > 0.0 ? 1.0 / sum : sum;
    barrier();
    [[unroll]] for (uint line = 0u; line < LINES; line++)
        [[unroll]] for (uint c = 0u; c < COLUMNS; c++) {
            uint d = t + c * 64u;
            if (d < HEAD)
                q_part[line * STRIDE + d] = o[line * COLUMNS + c] * shrink[line];
        }
    barrier();
    for (uint i = 2u * t; i < LINES * HEAD; i += 2u * THREADS) { /* two neighbours by one thread */
        uint line = i / HEAD, d = i % HEAD, at = line * STRIDE + d;
        bool there = line0 + line < lines, second = d + 1u < HEAD;
        if (!second) { /* odd heads */
            if (there)
                put(line_at(line0 + line) + d, q_part[at]);
            if (line + 1u < LINES && line0 + line + 1u < lines)
                put(line_at(line0 + line + 1u), q_part[(line + 1u) * STRIDE]);
            continue;
        }
        put_two(line_at(line0 + line) + d, q_part[at], there, q_part[at + 1u], there);
    }
}
