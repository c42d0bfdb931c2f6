/* norm.c - rms_norm, layer_norm: a row at a time, sums in 16 f32 lanes, one rounding on store.
 * x [rows, width]; weights [width]. openpi gemma.py RMSNorm; torch LayerNorm (biased variance, in two passes).
 * Bound: memory. */
#include "cpu.h"

#include <math.h>

CPU_CLONES
static float sum_of_squares(const float *x, int64_t n, float mean)
{
    float sum[16] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++)
            sum[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int l = 0; i < n; i++, l++)
        sum[l] += (x[i] - mean) * (x[i] - mean);
    for (int l = 0; l < 16; l++)
        total += sum[l];
    return total;
}

CPU_CLONES
static float sum_of(const float *x, int64_t n)
{
    float sum[16] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++)
            sum[l] += x[i + l];
    for (int l = 0; i < n; i++, l++)
        sum[l] += x[i];
    for (int l = 0; l < 16; l++)
        total += sum[l];
    return total;
}

static void rms_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    const float *x = in[0], *w = in[1];
    int64_t n = pv_width(c->node->in[0]);
    float r = 1.0f / sqrtf(sum_of_squares(x, n, 0) / (float)n + c->node->attr.norm.eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = w ? x[i] * r * w[i] : x[i] * r;
}

static void layer_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    const float *x = in[0], *w = in[1], *b = in[2];
    int64_t n = pv_width(c->node->in[0]);
    float mean = sum_of(x, n) / (float)n;
    float r = 1.0f / sqrtf(sum_of_squares(x, n, mean) / (float)n + c->node->attr.norm.eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * r * w[i] + b[i];
}

static void rms_run(const cpu_call *c)
{
    cpu_each_row(c, rms_row);
}

static void layer_run(const cpu_call *c)
{
    cpu_each_row(c, layer_row);
}

const cpu_kernel cpu_rms_norm = {rms_run, cpu_row_need};
const cpu_kernel cpu_layer_norm = {layer_run, cpu_row_need};
