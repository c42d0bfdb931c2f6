/* norm.c - rms_norm, layer_norm: a row at a time, sums in 16 f32 lanes, one rounding on store.
 * x [rows, width]; weights [width]. openpi gemma.py RMSNorm; torch LayerNorm (biased variance, in two
 * passes). Bound: memory. */
#include "cpu.h"

#include <math.h>

static void rms_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    const float *x = in[0], *w = in[1];
    int64_t n = pv_width(c->node->in[0]);
    float r = 1.0f / sqrtf(c->vector->sum_of_squares(x, n, 0) / (float)n + c->node->attr.norm.eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = w ? x[i] * r * w[i] : x[i] * r;
}

static void layer_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    const float *x = in[0], *w = in[1], *b = in[2];
    int64_t n = pv_width(c->node->in[0]);
    float mean = c->vector->sum(x, n) / (float)n;
    float r = 1.0f / sqrtf(c->vector->sum_of_squares(x, n, mean) / (float)n + c->node->attr.norm.eps);
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
