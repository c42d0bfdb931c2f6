/* cpu_math.h - exp as a formula that vectorises. */
#ifndef PV_CPU_MATH_H
#define PV_CPU_MATH_H

#include <stdint.h>
#include <string.h>

/* e^x within 2 ulp for x in [-87, 88]; beyond, the value at the border (1.6e-38, 1.6e38). NaN stays NaN. No branch.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r by the minimax polynomial of Cephes' expf; 2^n by the exponent bits. */
static inline float cpu_exp(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 x 2^23: the fraction is rounded away */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000u; /* low bits of `shifted` hold n */
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

#endif
