/* linear.comp - the products: linear, attention_scores, attention_values. c[m, n] = number sum over k of a[m, k] b(n, k) (+ bias n).
 *
 * a, b, c are f32, bf16 or f16; where each lies and steps is in push.h. One group makes 32 x 32 of c, a thread 4 x 4 of it: parts
 * of a and b of 16 columns stand in shared memory as f32. Sums in f32, in order of k, one rounding on store: a number of c
 * depends on its own row of a and of b alone. Rows, columns and k beyond the counts are not read (0 stands for them) nor written.
 * gl_WorkGroupID: x: columns / 32, y: rows / 32, z: head of a sequence. Bound: arithmetic; not tuned for any device. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(constant_id = 7) const uint COUNTED = 0; /* in2 holds a count: 1: of n, 2: of k; 0: in2 is the bias, where HAS says so */

#define TILE   32u
#define DEPTH  16u
#define STRIDE 17u /* no two threads of a row want the same bank */

shared float part_a[TILE * STRIDE];
shared float part_b[TILE * STRIDE];

void main()
{
    uint t = gl_LocalInvocationID.x, tx = t % 8u, ty = t / 8u;
    uint m0 = gl_WorkGroupID.y * TILE, n0 = gl_WorkGroupID.x * TILE;
    uint sequence = gl_WorkGroupID.z / push.heads, head = gl_WorkGroupID.z % push.heads;
    uint a_at = sequence * push.a_sequence + head * push.a_head;
    uint b_at = push.b_first + sequence * push.b_sequence + head / push.group * push.b_head;
    uint c_at = sequence * push.c_sequence + head * push.c_head;
    uint M = valid0(push.m);
    uint N = COUNTED == 1u ? clamped(int(in2[0]), push.n) : push.n;
    uint K = COUNTED == 2u ? clamped(int(in2[0]), push.k) : push.k;
    if (m0 >= M || n0 >= N)
        return; /* the whole group */

    float sum[16];
    for (uint i = 0u; i < 16u; i++)
        sum[i] = 0.0;
    for (uint k0 = 0u; k0 < K; k0 += DEPTH) {
        for (uint i = t; i < TILE * DEPTH; i += THREADS) {
            uint r = i / DEPTH, k = i % DEPTH;
            part_a[r * STRIDE + k] = m0 + r < M && k0 + k < K ? get0(a_at + (m0 + r) * push.lda + k0 + k) : 0.0;
        }
        for (uint i = t; i < TILE * DEPTH; i += THREADS) {
            bool along_k = push.ldb_k == 1u; /* neighbours read neighbours */
            uint r = along_k ? i / DEPTH : i % TILE, k = along_k ? i % DEPTH : i / TILE;
            part_b[r * STRIDE + k] =
                n0 + r < N && k0 + k < K ? get1(b_at + (n0 + r) * push.ldb_n + (k0 + k) * push.ldb_k) : 0.0;
        }
        barrier();
        for (uint k = 0u; k < DEPTH; k++) {
            float a0 = part_a[ty * STRIDE + k], a1 = part_a[(ty + 8u) * STRIDE + k];
            float a2 = part_a[(ty + 16u) * STRIDE + k], a3 = part_a[(ty + 24u) * STRIDE + k];
            for (uint j = 0u; j < 4u; j++) {
                float b = part_b[(tx + 8u * j) * STRIDE + k];
                sum[j] += a0 * b;
                sum[4u + j] += a1 * b;
                sum[8u + j] += a2 * b;
                sum[12u + j] += a3 * b;
            }
        }
        barrier();
    }
    for (uint i = 0u; i < 4u; i++)
        for (uint j = 0u; j < 4u; j++) {
            uint m = m0 + ty + 8u * i, n = n0 + tx + 8u * j;
            if (m >= M || n >= N)
                continue;
            float v = sum[4u * i + j] * push.number;
            if (COUNTED == 0u && (HAS & 4u) != 0u)
                v += get2(n);
            put(c_at + m * push.ldc + n, v);
        }
}
