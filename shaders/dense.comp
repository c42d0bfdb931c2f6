/* dense.comp - the linears (dense.glsl says which and how they share work) by f32 arithmetic, on every device.
 *
 * x and w are f32, bf16 or f16, widened exactly on their way to shared memory, where parts of BM x BK and BN x BK stand as f32. A
 * thread makes 4 x 4 sums: THREADS = BM BN / 16. WIDE: k is a multiple of 8, so that both are read 16 bytes at a time. Sums
 * in f32, in order of k within a part, parts in order; one rounding on store. Rows that do not count, and columns and k beyond
 * the ends, are not read (0 stands for them) nor written.
 * Bound: arithmetic; where rows are few, small BM and parts of k keep memory busy. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "dense.glsl"

layout(constant_id = 13) const uint WIDE = 0;

#define STRIDE (BK + 1u) /* no two threads of a row want the same bank */

shared float part_a[BM * STRIDE];
shared float part_b[BN * STRIDE];

/* Elements i .. i + 7 of what is stored in fours of words, i a multiple of 8. */
void wide_eight(uint dtype, uvec4 low, uvec4 high, out float v[8])
{
    [[unroll]] for (uint j = 0u; j < 8u; j++) {
        uint word = dtype == F32 ? (j < 4u ? low[j] : high[j - 4u]) : low[j / 2u];
        v[j] = uintBitsToFloat(wide(dtype, word, j));
    }
}

void fetch_a(uint m, uint rows, uint k, uint end, out float v[8])
{
    if (WIDE != 0u) {
        [[unroll]] for (uint j = 0u; j < 8u; j++)
            v[j] = 0.0;
        if (m >= rows || k >= end)
            return;
        uint four = (m * push.k + k) / (D0 == F32 ? 4u : 8u);
        wide_eight(D0, in0_4[four], D0 == F32 ? in0_4[four + 1u] : uvec4(0u), v);
        return;
    }
    uint at = min(m, rows - 1u) * push.k; /* one by one: none waits for a test */
    [[unroll]] for (uint j = 0u; j < 8u; j++)
        v[j] = get0(at + min(k + j, end - 1u));
    [[unroll]] for (uint j = 0u; j < 8u; j++)
        v[j] = m < rows && k + j < end ? v[j] : 0.0;
}

void fetch_b(bool second, uint n, uint k, uint end, out float v[8])
{
    if (WIDE != 0u) {
        [[unroll]] for (uint j = 0u; j < 8u; j++)
            v[j] = 0.0;
        if (n >= push.n || k >= end)
            return;
        uint four = (n * push.k + k) / (D1 == F32 ? 4u : 8u);
        uvec4 low = second ? in3_4[four] : in1_4[four], high = uvec4(0u);
        if (D1 == F32)
            high = second ? in3_4[four + 1u] : in1_4[four + 1u];
        wide_eight(D1, low, high, v);
        return;
    }
    uint at = min(n, push.n - 1u) * push.k;
    [[unroll]] for (uint j = 0u; j < 8u; j++) {
        uint i = at + min(k + j, end - 1u);
        v[j] = second ? uintBitsToFloat(wide(D1, in3[word_of(D1, i)], i)) : get1(i);
    }
    [[unroll]] for (uint j = 0u; j < 8u; j++)
        v[j] = n < push.n && k + j < end ? v[j] : 0.0;
}

void main()
{
    uint t = gl_LocalInvocationID.x, across = BN / 4u, down = BM / 4u, tx = t % across, ty = t / across;
    uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * (PAIR ? BN / 2u : BN), rows = valid0(push.m);
    uvec2 span = part_of_k();
    if (m0 >= rows)
        return; /* all groups of the tile */

    float sum[16];
    [[unroll]] for (uint i = 0u; i < 16u; i++)
        sum[i] = 0.0;
    for (uint k0 = span.x; k0 < span.y; k0 += BK) {
        float v[8];
        for (uint i = t; i < BM * BK / 8u; i += THREADS) {
            uint r = i / (BK / 8u), k = i % (BK / 8u) * 8u;
            fetch_a(m0 + r, rows, k0 + k, span.y, v);
            [[unroll]] for (uint j = 0u; j < 8u; j++)
                part_a[r * STRIDE + k + j] = v[j];
        }
        for (uint i = t; i < BN * BK / 8u; i += THREADS) {
            uint c = i / (BK / 8u), k = i % (BK / 8u) * 8u;
            bool second = PAIR && c >= BN / 2u;
            fetch_b(second, n0 + (second ? c - BN / 2u : c), k0 + k, span.y, v);
            [[unroll]] for (uint j = 0u; j < 8u; j++)
                part_b[c * STRIDE + k + j] = v[j];
        }
        barrier();
        for (uint k = 0u; k < BK; k++) {
            float a[4];
            [[unroll]] for (uint i = 0u; i < 4u; i++)
                a[i] = part_a[(ty + i * down) * STRIDE + k];
            [[unroll]] for (uint j = 0u; j < 4u; j++) { /* columns 2 tx, 2 tx + 1 of each half */
                float b = part_b[(j / 2u * (BN / 2u) + 2u * tx + j % 2u) * STRIDE + k];
                [[unroll]] for (uint i = 0u; i < 4u; i++)
                    sum[i * 4u + j] += a[i] * b;
            }
        }
        barrier();
    }

    if (push.from > 1u) {
        [[unroll]] for (uint i = 0u; i < 16u; i++)
            part[part_at(gl_WorkGroupID.z, 16u, i)] = floatBitsToUint(sum[i]);
        if (!is_last())
            return;
        [[unroll]] for (uint i = 0u; i < 16u; i++)
            sum[i] = 0.0;
        for (uint z = 0u; z < push.from; z++)
            [[unroll]] for (uint i = 0u; i < 16u; i++)
                sum[i] += uintBitsToFloat(part[part_at(z, 16u, i)]);
    }
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint m = m0 + ty + i * down, at = i * 4u;
        if (PAIR) {
            sum[at] = geglu_of(sum[at], sum[at + 2u]);
            sum[at + 1u] = geglu_of(sum[at + 1u], sum[at + 3u]);
        }
        finish(m, rows, n0 + 2u * tx, sum[at], sum[at + 1u]);
        if (!PAIR)
            finish(m, rows, n0 + BN / 2u + 2u * tx, sum[at + 2u], sum[at + 3u]);
    }
    [[unroll]] for (uint i = 0u; i < 4u; i++) { /* all are read before one is written */
        uint m = m0 + ty + i * down, at = i * 4u;
        put_finished(m, rows, n0 + 2u * tx, sum[at], sum[at + 1u]);
        if (!PAIR)
            put_finished(m, rows, n0 + BN / 2u + 2u * tx, sum[at + 2u], sum[at + 3u]);
    }
}
