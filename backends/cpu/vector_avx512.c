/* vector_avx512.c - built with AVX-512 F, BW, DQ and VL; runs only where vector.c found them. */
#define CPU_VECTOR cpu_vector_avx512
#define CPU_LEVEL  "AVX-512"
#include "vector_loops.h"
