/* vector.h - the loops that the compiler vectorises. They are written once (vector_loops.h) and built for each
 * instruction-set level; the best one that this machine has is chosen when it is first asked for. */
#ifndef PV_CPU_VECTOR_H
#define PV_CPU_VECTOR_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cpu_vector {
    const char *level;
    void (*gelu)(float *y, const float *x, int64_t n);
    void (*silu)(float *y, const float *x, int64_t n);
    void (*softmax)(float *p, const float *s, int64_t n); /* n >= 1 */
    float (*sum)(const float *x, int64_t n);
    float (*sum_of_squares)(const float *x, int64_t n, float mean); /* of x - mean */
    /* c[m, n] = alpha a[m, k] b[n, k]^T + beta c (b_rows false: b[k, n]), leading dimensions in elements. */
    void (*gemm)(bool b_rows, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float beta, float *c, int64_t ldc);
} cpu_vector;

const cpu_vector *cpu_vector_best(void);
const cpu_vector *cpu_vector_list(int i); /* those that run here, plainest first; NULL behind the last */

extern const cpu_vector cpu_vector_plain, cpu_vector_avx2, cpu_vector_avx512;

#endif
