/* dense.glsl - what the shaders of the linears share (dense.comp, dense_matrix.comp): what is asked, who adds up what, and what
 * becomes of a sum.
 *
 * y = x w^T (+ b), x [rows, k], w [n, k], b [n]; then OP 0: y; 1: residual + y; 2: gelu(y); 3: residual + y gate;
 * 4: gelu(y) y2, y2 with the second weight, both rounded to dtype BETWEEN first; 5: y, left in parts for linear_norm.comp; 6: rope(y)
 * (rope.comp says what), y rounded to BETWEEN first. in0 x, in1 w, in2 b or positions, in3 residual (f32) or second weight, in4
 * modulation (f32, scale | shift | gate) or table (f32, [positions, cos | sin] of n1 elements). OP 0 and 6: the result begins
 * c_sequence elements behind the binding. OP 6: heads are 2 `width` wide, n counts the columns of their first halves. The dispatch makes columns [first, first + n) of a result that is
 * ldc wide: w, b and the second weight are bound from there on, the others whole.
 *
 * gl_WorkGroupID.x: rows / BM (neighbours share a weight, which so comes from memory once), y: columns / BN (PAIR: BN / 2; half of a
 * group's columns are of each weight, or of each half of heads), z: which part of k (parts.glsl). */
#include "parts.glsl"

layout(constant_id = 9) const uint BM = 64;
layout(constant_id = 10) const uint BN = 64;
layout(constant_id = 11) const uint BK = 16;
layout(constant_id = 12) const uint BETWEEN = 0;

layout(std430, binding = 0) readonly buffer in0_fours { uvec4 in0_4[]; };
layout(std430, binding = 1) readonly buffer in1_fours { uvec4 in1_4[]; };
layout(std430, binding = 6) readonly buffer in3_words { uint in3[]; };
layout(std430, binding = 6) readonly buffer in3_fours { uvec4 in3_4[]; };
layout(std430, binding = 7) readonly buffer in4_words { uint in4[]; };
const bool PAIR = OP == 4u || OP == 6u;

/* The part of k that this group adds up: [x, y). */
uvec2 part_of_k()
{
    uint chunks = (push.k + BK - 1u) / BK, each_one = (chunks + push.from - 1u) / push.from * BK;
    return min(uvec2(gl_WorkGroupID.z, gl_WorkGroupID.z + 1u) * each_one, uvec2(push.k));
}

float geglu_of(float gate, float up) { return gelu_of(rounded(BETWEEN, gate)) * rounded(BETWEEN, up); }

/* The result of sum v for row m and column n of this dispatch. */
float finished(uint m, uint n, float v)
{
    if ((HAS & 4u) != 0u)
        v += get2(n);
    n += push.first;
    if (OP == 1u)
        v = uintBitsToFloat(in3[m * push.ldc + n]) + v;
    else if (OP == 2u)
        v = gelu_of(v);
    else if (OP == 3u)
        v = uintBitsToFloat(in3[m * push.ldc + n]) + v * uintBitsToFloat(in4[2u * push.ldc + n]);
    return v;
}

/* Columns n and n + 1 of row m: what becomes of their sums, and where it goes. */
void finish(uint m, uint rows, uint n, inout float v, inout float next)
{
    if (m < rows && n < push.n)
        v = finished(m, n, v);
    if (m < rows && n + 1u < push.n)
        next = finished(m, n + 1u, next);
}

void put_finished(uint m, uint rows, uint n, float v, float next)
{
    put_two(m * push.ldc + push.first + n, v, m < rows && n < push.n, next, m < rows && n + 1u < push.n);
}
