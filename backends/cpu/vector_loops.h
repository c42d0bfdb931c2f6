/* vector_loops.h - the loops of vector.h, for the file that includes this with CPU_VECTOR and CPU_LEVEL defined.
 * Sums run in 16 lanes at every level, so their order is the same; what differs is whether a multiplication and an
 * addition become one rounding. */
#include "cpu_math.h"
#include "vector.h"

#define LANES 16

static float add_lanes(const float *sum)
{
    float total = 0;
    for (int l = 0; l < LANES; l++)
        total += sum[l];
    return total;
}

/* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), which does not cancel for negative x. */
static void gelu(float *restrict y, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float u = 0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        y[i] = x[i] / (1.0f + cpu_exp(-2.0f * u));
    }
}

static void silu(float *restrict y, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] / (1.0f + cpu_exp(-x[i]));
}

static float sum(const float *x, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += x[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i];
    return add_lanes(lane);
}

static float sum_of_squares(const float *x, int64_t n, float mean)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int l = 0; i < n; i++, l++)
        lane[l] += (x[i] - mean) * (x[i] - mean);
    return add_lanes(lane);
}

static float largest(const float *x, int64_t n)
{
    float lane[LANES], top = x[0];
    for (int l = 0; l < LANES; l++)
        lane[l] = x[0];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (int l = 0; i < n; i++, l++)
        lane[l] = x[i] > lane[l] ? x[i] : lane[l];
    for (int l = 0; l < LANES; l++)
        top = lane[l] > top ? lane[l] : top;
    return top;
}

static void softmax(float *p, const float *s, int64_t n)
{
    float top = largest(s, n);
    for (int64_t i = 0; i < n; i++)
        p[i] = cpu_exp(s[i] - top);
    float scale = 1.0f / sum(p, n);
    for (int64_t i = 0; i < n; i++)
        p[i] *= scale;
}

static float dot(const float *a, const float *b, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += a[i] * b[i];
    return add_lanes(lane);
}

static void gemm(bool b_rows, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++, a += lda, c += ldc) {
        for (int64_t j = 0; b_rows && j < n; j++)
            c[j] = alpha * dot(a, b + j * ldb, k) + (beta != 0 ? beta * c[j] : 0);
        if (b_rows)
            continue;
        for (int64_t j = 0; j < n; j++)
            c[j] = beta != 0 ? beta * c[j] : 0;
        for (int64_t p = 0; p < k; p++) {
            float s = alpha * a[p];
            for (int64_t j = 0; j < n; j++)
                c[j] += s * b[p * ldb + j];
        }
    }
}

const cpu_vector CPU_VECTOR = {CPU_LEVEL, gelu, silu, softmax, sum, sum_of_squares, gemm};
