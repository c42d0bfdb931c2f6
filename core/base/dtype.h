/* dtype.h - element types and the one place where their bits are converted.
 * All roundings are to nearest, ties to even; NaN stays NaN. Formats: IEEE binary32/binary16, bfloat16,
 * OCP e4m3 (448 largest, no infinity: larger finite values and infinity saturate to 448), OCP e2m1
 * (0 .5 1 1.5 2 3 4 6, saturating; two to a byte, the even element in the low half). It has no NaN: from NaN comes 6. */
#ifndef PV_BASE_DTYPE_H
#define PV_BASE_DTYPE_H

#include "status.h"

typedef enum pv_dtype { PV_F32, PV_BF16, PV_F16, PV_E4M3, PV_E2M1, PV_I32, PV_U8, PV_DTYPE_COUNT } pv_dtype;

const char *pv_dtype_name(pv_dtype dtype);              /* "f32", "bf16", ... */
pv_status pv_dtype_parse(const char *name, pv_dtype *out); /* as named above */
size_t pv_dtype_bytes(pv_dtype dtype, size_t n_elements); /* e2m1: two to a byte, rounded up; SIZE_MAX if it wraps */

float pv_bf16_to_f32(uint16_t bits);
uint16_t pv_f32_to_bf16(float value);
float pv_f16_to_f32(uint16_t bits);
uint16_t pv_f32_to_f16(float value); /* beyond 65504 rounds to infinity, as IEEE says */
float pv_e4m3_to_f32(uint8_t bits);
uint8_t pv_f32_to_e4m3(float value);
float pv_e2m1_to_f32(uint8_t bits); /* the low 4 bits */
uint8_t pv_f32_to_e2m1(float value);

/* n elements of `dtype` (all but I32 and U8) to f32 and back. Vectorised by the compiler, but for e2m1, of which the first is
 * even and the last may leave a half byte, which becomes 0; src and dst do not overlap. */
void pv_to_f32(float *dst, const void *src, pv_dtype dtype, size_t n);
void pv_from_f32(void *dst, const float *src, pv_dtype dtype, size_t n);

#endif
