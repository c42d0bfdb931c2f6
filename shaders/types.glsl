/* types.glsl - what all shaders share: bindings, dtypes, counts.
 *
 * Every tensor is bound as an array of 32-bit words, whatever its dtype: no extension for 16-bit storage is needed.
 * A 16-bit number is widened in registers, exactly. Two that share a word are stored at once where one thread has both; one
 * alone by two atomics that touch its half of the word, so that its neighbour may be stored by others at the same time.
 * Conversions are done on bits: they lose no denormal and round to nearest even, on every device. Dtypes are specialisation
 * constants; branches on them cost nothing. */

layout(local_size_x_id = 8) in;

layout(constant_id = 0) const uint OP = 0;   /* which op of the family */
layout(constant_id = 1) const uint D0 = 0;   /* dtypes: pv_dtype */
layout(constant_id = 2) const uint D1 = 0;
layout(constant_id = 3) const uint D2 = 0;
layout(constant_id = 4) const uint DOUT = 0;
layout(constant_id = 5) const uint ROWS = 0; /* bit 0: rows of the first input are counted; bit 1: of the second */
layout(constant_id = 6) const uint HAS = 0;  /* bits 1 << i: optional input i is there */
                                             /* 7: of linear.comp; 8: threads of a group; 9 and more: of dense.glsl */

#define F32  0u
#define BF16 1u
#define F16  2u

layout(std430, binding = 0) readonly buffer in0_words { uint in0[]; };
layout(std430, binding = 1) readonly buffer in1_words { uint in1[]; };
layout(std430, binding = 2) readonly buffer in2_words { uint in2[]; };
layout(std430, binding = 3) readonly buffer rows0_words { int rows0[]; };
layout(std430, binding = 4) readonly buffer rows1_words { int rows1[]; };
layout(std430, binding = 5) buffer out_words { uint outw[]; };

#define THREADS gl_WorkGroupSize.x

/* ---- numbers ---- */

uint f16_bits_wide(uint h)
{
    uint sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u)
        return sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    if (rest >= 0x400u)
        return sign | ((rest << 13) + 0x38000000u);
    return sign | floatBitsToUint(float(rest) * 5.9604644775390625e-8); /* 2^-24, exact */
}

uint f16_bits_narrow(uint b)
{
    uint sign = b >> 16 & 0x8000u, rest = b & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return sign | 0x7e00u;
    if (rest >= 0x477ff000u) /* 65520 and more */
        return sign | 0x7c00u;
    if (rest >= 0x38800000u) { /* normal in f16 */
        uint r = rest - 0x38000000u;
        return sign | (r + 0xfffu + (r >> 13 & 1u)) >> 13;
    }
    uint shift = 126u - (rest >> 23); /* 14 .. 126 */
    if (shift > 24u)
        return sign;
    uint m = rest & 0x7fffffu | 0x800000u, half_way = 1u << (shift - 1u);
    return sign | (m + half_way - 1u + (m >> shift & 1u)) >> shift;
}

/* The upper half is the number. mix and no branch: many of them in a row then overlap. */
uint bf16_bits_above(uint b) { return mix(b + 0x7fffu + (b >> 16 & 1u), 0x7fc00000u, (b & 0x7fffffffu) > 0x7f800000u); }

/* The f32 bits of element i of a tensor whose word holding it is `word`. */
uint wide(uint dtype, uint word, uint i)
{
    if (dtype == F32)
        return word;
    uint h = word >> (i & 1u) * 16u & 0xffffu;
    return dtype == BF16 ? h << 16 : f16_bits_wide(h);
}

uint word_of(uint dtype, uint i)
{
    return dtype == F32 ? i : i >> 1;
}

uint bits0(uint i) { return wide(D0, in0[word_of(D0, i)], i); }
uint bits1(uint i) { return wide(D1, in1[word_of(D1, i)], i); }
float get0(uint i) { return uintBitsToFloat(bits0(i)); }
float get1(uint i) { return uintBitsToFloat(bits1(i)); }
float get2(uint i) { return uintBitsToFloat(wide(D2, in2[word_of(D2, i)], i)); }

void put_half(uint i, uint h)
{
    uint shift = (i & 1u) * 16u;
    atomicAnd(outw[i >> 1], ~(0xffffu << shift));
    atomicOr(outw[i >> 1], h << shift);
}

void put_bits(uint i, uint b)
{
    if (DOUT == F32)
        outw[i] = b;
    else
        put_half(i, DOUT == BF16 ? bf16_bits_above(b) >> 16 : f16_bits_narrow(b));
}

void put(uint i, float v) { put_bits(i, floatBitsToUint(v)); }

uint narrow(uint dtype, float v)
{
    uint b = floatBitsToUint(v);
    return dtype == BF16 ? bf16_bits_above(b) >> 16 : f16_bits_narrow(b);
}

/* Two numbers of 16 bits in a word, four in two. */
uint narrow_two(uint dtype, vec2 v)
{
    uvec2 b = floatBitsToUint(v);
    return dtype == BF16 ? bf16_bits_above(b.x) >> 16 | (bf16_bits_above(b.y) & 0xffff0000u) : f16_bits_narrow(b.x) | f16_bits_narrow(b.y) << 16;
}

uvec2 narrow_four(uint dtype, vec4 v) { return uvec2(narrow_two(dtype, v.xy), narrow_two(dtype, v.zw)); }

/* v as a number of that dtype. */
float rounded(uint dtype, float v)
{
    uint b = floatBitsToUint(v);
    return dtype == F32 ? v : uintBitsToFloat(dtype == BF16 ? bf16_bits_above(b) & 0xffff0000u : f16_bits_wide(f16_bits_narrow(b)));
}

/* Elements i and i + 1, each where it is wanted. */
void put_two(uint i, float v, bool first, float next, bool second)
{
    if (DOUT != F32 && (i & 1u) == 0u && first && second) {
        outw[i >> 1] = narrow_two(DOUT, vec2(v, next));
        return;
    }
    if (first)
        put(i, v);
    if (second)
        put(i + 1u, next);
}

/* ---- counts ---- */

uint clamped(int v, uint most) { return v < 0 ? 0u : min(uint(v), most); }

/* Valid rows of the first and the second input, each of one matrix of `cap` rows. */
uint valid0(uint cap) { return (ROWS & 1u) != 0u ? clamped(rows0[0], cap) : cap; }
uint valid1(uint cap) { return (ROWS & 2u) != 0u ? clamped(rows1[0], cap) : cap; }

/* Groups stand in two dimensions where one does not suffice. */
uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint thread_index() { return group_index() * THREADS + gl_LocalInvocationID.x; }

/* ---- functions ---- */

/* e^x within 2 ulp for x in [-87, 88]; beyond, the value at the border. NaN stays NaN. GLSL's exp promises less.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r by the minimax polynomial of Cephes' expf; 2^n by the exponent bits. */
float exp_of(float x)
{
    precise float c = mix(mix(x, -87.0, x < -87.0), 88.0, x > 88.0);
    precise float n = floor(c * 1.44269504 + 0.5);
    precise float r = c - n * 0.693359375;
    r = r + n * 2.12194440e-4;
    precise float p = 1.9875691500e-4;
    p = p * r + 1.3981999507e-3;
    p = p * r + 8.3334519073e-3;
    p = p * r + 4.1665795894e-2;
    p = p * r + 1.6666665459e-1;
    p = p * r + 5.0000001201e-1;
    p = p * r * r + r + 1.0;
    return mix(p * uintBitsToFloat(uint(int(n) + 127) << 23), x, isnan(x));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), which does not cancel for negative x. */
float gelu_of(float x)
{
    float u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp_of(-2.0 * u));
}

float silu_of(float x) { return x / (1.0 + exp_of(-x)); }
