/* dtype.c - conversions of element types, bit by bit. Formats and rules: dtype.h.
 *
 * The small formats (e4m3, e2m1, f16) differ only in the width of their mantissa and their bias, so one pair
 * of functions serves all: a magnitude is moved into place and its exponent re-biased; for subnormals the
 * place of the bits is left to one f32 addition, which also rounds them to nearest even. Everything is
 * selection, not branching: the loops at the end become vector code (gcc 12 -O3, clang 14 -O2). Relies on f32
 * additions rounding to nearest even. */
#include "dtype.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
} types[PV_DTYPE_COUNT] = {
    [PV_F32] = {"f32", 32},  [PV_BF16] = {"bf16", 16}, [PV_F16] = {"f16", 16}, [PV_E4M3] = {"e4m3", 8},
    [PV_E2M1] = {"e2m1", 4}, [PV_I32] = {"i32", 32},   [PV_U8] = {"u8", 8},
};

const char *pv_dtype_name(pv_dtype dtype)
{
    return (unsigned)dtype < PV_DTYPE_COUNT ? types[dtype].name : "unknown dtype";
}

pv_status pv_dtype_parse(const char *name, pv_dtype *out)
{
    for (int i = 0; i < PV_DTYPE_COUNT; i++)
        if (strcmp(name, types[i].name) == 0) {
            *out = (pv_dtype)i;
            return PV_OK;
        }
    return pv_fail(PV_E_ARG, "dtype '%.100s': expected f32, bf16, f16, e4m3, e2m1, i32 or u8", name);
}

size_t pv_dtype_bytes(pv_dtype dtype, size_t n)
{
    const int bits = types[dtype].bits;
    if (bits < 8)
        return n / 2 + n % 2;
    const size_t width = (size_t)bits / 8;
    return n > SIZE_MAX / width ? SIZE_MAX : n * width;
}

#define SIGN     0x80000000u
#define INFINITE 0x7f800000u

static inline uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* yes ? a : b, with masks: gcc makes a branch of ?: when one side is an f32 addition, which it then cannot
 * vectorise. */
static inline uint32_t choose(bool yes, uint32_t a, uint32_t b)
{
    const uint32_t mask = 0u - (uint32_t)yes;
    return (a & mask) | (b & ~mask);
}

/* Magnitude (no sign) of a format with `mant` mantissa bits and exponent bias `bias` -> bits of its f32. */
static inline uint32_t widen(uint32_t mag, int mant, uint32_t bias)
{
    const uint32_t moved = mag << (23 - mant), least_normal = (128 - bias) << 23;
    const uint32_t normal = moved + ((127 - bias) << 23);
    const uint32_t subnormal = bits_of(float_of(moved + least_normal) - float_of(least_normal));
    return choose(mag < 1u << mant, subnormal, normal);
}

/* Bits of an f32 without sign -> magnitude in that format, rounded; what passes its exponents grows beyond
 * them. */
static inline uint32_t narrow(uint32_t u, int mant, uint32_t bias)
{
    const int drop = 23 - mant;
    const uint32_t least_normal = (128 - bias) << 23;
    /* The step of f32 at `magic` is the step of the format's subnormals: the sum ends in the wanted bits. */
    const uint32_t magic = (uint32_t)(127 + 24 - mant) - bias;
    const uint32_t subnormal = bits_of(float_of(u) + float_of(magic << 23)) - (magic << 23);
    const uint32_t odd = u >> drop & 1;
    const uint32_t normal = (u - ((127 - bias) << 23) + ((1u << (drop - 1)) - 1) + odd) >> drop;
    return choose(u < least_normal, subnormal, normal);
}

static inline float from_bf16(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

static inline uint16_t to_bf16(float x)
{
    const uint32_t u = bits_of(x);
    const uint32_t nan = u >> 16 | 0x40; /* quiet, or a mantissa of zeros would make it an infinity */
    const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & ~SIGN) > INFINITE ? nan : rounded);
}

static inline float from_f16(uint16_t h)
{
    const uint32_t mag = h & 0x7fff, u = widen(mag, 10, 15);
    return float_of((mag < 0x7c00 ? u : u + (112u << 23)) | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t to_f16(float x)
{
    const uint32_t u = bits_of(x) & ~SIGN, sign = (bits_of(x) & SIGN) >> 16;
    const uint32_t mag = narrow(choose(u < 0x47800000, u, 0x47800000), 10, 15); /* 65536 and more: infinity */
    const uint32_t nan = 0x7e00 | (u >> 13 & 0x3ff);
    return (uint16_t)(choose(u > INFINITE, nan, mag) | sign);
}

static inline float from_e4m3(uint8_t b)
{
    const uint32_t mag = b & 0x7f, u = widen(mag, 3, 7);
    return float_of(choose(mag < 0x7f, u, INFINITE | 0x400000) | (uint32_t)(b & 0x80) << 24);
}

static inline uint8_t to_e4m3(float x)
{
    const uint32_t u = bits_of(x) & ~SIGN, sign = (bits_of(x) & SIGN) >> 24, largest = 0x43e00000; /* 448 */
    const uint32_t mag = narrow(choose(u < largest, u, largest), 3, 7);
    return (uint8_t)(choose(u > INFINITE, 0x7f, mag) | sign);
}

float pv_bf16_to_f32(uint16_t bits)
{
    return from_bf16(bits);
}

uint16_t pv_f32_to_bf16(float value)
{
    return to_bf16(value);
}

float pv_f16_to_f32(uint16_t bits)
{
    return from_f16(bits);
}

uint16_t pv_f32_to_f16(float value)
{
    return to_f16(value);
}

float pv_e4m3_to_f32(uint8_t bits)
{
    return from_e4m3(bits);
}

uint8_t pv_f32_to_e4m3(float value)
{
    return to_e4m3(value);
}

float pv_e2m1_to_f32(uint8_t bits)
{
    return float_of(widen(bits & 7, 1, 1) | (uint32_t)(bits & 8) << 28);
}

uint8_t pv_f32_to_e2m1(float value)
{
    const uint32_t u = bits_of(value) & ~SIGN, sign = (bits_of(value) & SIGN) >> 28, largest = 0x40c00000;
    const uint32_t mag = narrow(choose(u < largest, u, largest), 1, 1); /* 6 at most */
    return (uint8_t)(u > INFINITE ? 7 : mag | sign);
}

#define LOOP(to, from, convert)                                                                              \
    do {                                                                                                     \
        to *restrict d = dst;                                                                                \
        const from *restrict s = src;                                                                        \
        for (size_t i = 0; i < n; i++)                                                                       \
            d[i] = convert(s[i]);                                                                            \
    } while (0)

void pv_to_f32(float *dst, const void *src, pv_dtype dtype, size_t n)
{
    switch (dtype) {
    case PV_F32:
        if (n)
            memcpy(dst, src, n * sizeof *dst);
        return;
    case PV_BF16:
        LOOP(float, uint16_t, from_bf16);
        return;
    case PV_F16:
        LOOP(float, uint16_t, from_f16);
        return;
    case PV_E4M3:
        LOOP(float, uint8_t, from_e4m3);
        return;
    case PV_E2M1:
        for (size_t i = 0; i < n; i++)
            dst[i] = pv_e2m1_to_f32(((const uint8_t *)src)[i / 2] >> i % 2 * 4);
        return;
    default:
        assert(!"pv_to_f32: a fraction");
    }
}

void pv_from_f32(void *dst, const float *src, pv_dtype dtype, size_t n)
{
    switch (dtype) {
    case PV_F32:
        if (n)
            memcpy(dst, src, n * sizeof *src);
        return;
    case PV_BF16:
        LOOP(uint16_t, float, to_bf16);
        return;
    case PV_F16:
        LOOP(uint16_t, float, to_f16);
        return;
    case PV_E4M3:
        LOOP(uint8_t, float, to_e4m3);
        return;
    case PV_E2M1:
        for (size_t i = 0; i < n; i += 2)
            ((uint8_t *)dst)[i / 2] = (uint8_t)(pv_f32_to_e2m1(src[i]) | (i + 1 < n ? pv_f32_to_e2m1(src[i + 1]) << 4 : 0));
        return;
    default:
        assert(!"pv_from_f32: a fraction");
    }
}
