/* dense_four.glsl - what follows a product (dense.glsl) for four columns of a row at once: bias, residual, gate and result are 16
 * or 8 bytes each. n and ldc are multiples of 4. Nothing that is read waits for a test: a branch around a load makes it wait. */
layout(std430, binding = 2) readonly buffer in2_twos { uvec2 in2_2[]; };
layout(std430, binding = 2) readonly buffer in2_fours { uvec4 in2_4[]; };
layout(std430, binding = 5) buffer out_twos { uvec2 out_2[]; };
layout(std430, binding = 5) buffer out_fours { uvec4 out_4[]; };
layout(std430, binding = 7) readonly buffer in4_fours { uvec4 in4_4[]; };

/* Numbers 4 i .. 4 i + 3 of the bias. */
vec4 bias_at(uint i)
{
    if (D2 == F32)
        return uintBitsToFloat(in2_4[i]);
    uvec2 w = in2_2[i];
    return uintBitsToFloat(uvec4(wide(D2, w.x, 0u), wide(D2, w.x, 1u), wide(D2, w.y, 0u), wide(D2, w.y, 1u)));
}

/* What four results from column n of row m need beside their sums. */
void read_four(uint m, uint n, out vec4 bias, out vec4 before, out vec4 gate)
{
    if ((HAS & 4u) != 0u)
        bias = bias_at(n / 4u);
    n += push.first;
    if (OP == 1u || OP == 3u)
        before = uintBitsToFloat(in3_4[(m * push.ldc + n) / 4u]);
    if (OP == 3u)
        gate = uintBitsToFloat(in4_4[(2u * push.ldc + n) / 4u]);
}

/* Four sums, OP 4: and those of the second weight, become results and go where they belong. */
void put_four(vec4 v, vec4 up, uint m, uint rows, uint n, vec4 bias, vec4 before, vec4 gate)
{
    if (PAIR)
        v = vec4(geglu_of(v.x, up.x), geglu_of(v.y, up.y), geglu_of(v.z, up.z), geglu_of(v.w, up.w));
    if ((HAS & 4u) != 0u)
        v += bias;
    if (OP == 2u)
        v = vec4(gelu_of(v.x), gelu_of(v.y), gelu_of(v.z), gelu_of(v.w));
    if (OP == 3u)
        v *= gate;
    if (OP == 1u || OP == 3u)
        v += before;
    uint at = (m * push.ldc + push.first + n) / 4u;
    if (m < rows && n < push.n) {
        if (DOUT == F32)
            out_4[at] = floatBitsToUint(v);
        else
            out_2[at] = uvec2(narrow(DOUT, v.x) | narrow(DOUT, v.y) << 16, narrow(DOUT, v.z) | narrow(DOUT, v.w) << 16);
    }
}
