/* vector_avx2.c - built with AVX2 and FMA; runs only where vector.c found both. */
#define CPU_VECTOR cpu_vector_avx2
#define CPU_LEVEL  "AVX2"
#include "vector_loops.h"
