/* image_avx512.c - built with AVX-512; runs only where image_levels.c found it. */
#define IMAGE_LEVEL pv_image_avx512
#define IMAGE_NAME  "AVX-512"
#include "image_loops.h"
