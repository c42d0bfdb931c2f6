/* image_avx2.c - built with AVX2; runs only where image_levels.c found it. */
#define IMAGE_LEVEL pv_image_avx2
#define IMAGE_NAME  "AVX2"
/* gcc 12 takes sixteen lanes apart, one by one, unless told: 1.0 ms in place of 0.5 for 640 x 480. */
#if defined(__GNUC__) && !defined(__clang__)
#define AS_ONE _Pragma("GCC unroll 1")
#endif
#include "image_loops.h"
