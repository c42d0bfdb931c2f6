/* elementwise.c - add, mul, scale, gelu, silu, axpy. Row by row in f32, one rounding on store. The second
 * operand of add and mul repeats along the first. gelu and silu: vector_loops.h. Bound: memory. */
#include "cpu.h"

static void add_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i++)
        out[i] = in[0][i] + in[1][i];
}

static void mul_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i++)
        out[i] = in[0][i] * in[1][i];
}

static void scale_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i++)
        out[i] = in[0][i] * c->node->attr.scale.factor;
}

static void gelu_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    c->vector->gelu(out, in[0], pv_width(c->node->in[0]));
}

static void silu_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    c->vector->silu(out, in[0], pv_width(c->node->in[0]));
}

static void add_run(const cpu_call *c)
{
    cpu_each_row(c, add_row);
}

static void mul_run(const cpu_call *c)
{
    cpu_each_row(c, mul_row);
}

static void scale_run(const cpu_call *c)
{
    cpu_each_row(c, scale_row);
}

static void gelu_run(const cpu_call *c)
{
    cpu_each_row(c, gelu_row);
}

static void silu_run(const cpu_call *c)
{
    cpu_each_row(c, silu_row);
}

/* x + a y, a one number. x and the result may be the same bytes. */
static void axpy_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    float tmp, a = *cpu_load(c->in[1], c->node->in[1]->dtype, 0, 1, &tmp);
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i++)
        out[i] = in[0][i] + a * in[2][i];
}

static void axpy_run(const cpu_call *c)
{
    cpu_each_row(c, axpy_row);
}

const cpu_kernel cpu_add = {add_run, cpu_row_need};
const cpu_kernel cpu_mul = {mul_run, cpu_row_need};
const cpu_kernel cpu_scale = {scale_run, cpu_row_need};
const cpu_kernel cpu_gelu = {gelu_run, cpu_row_need};
const cpu_kernel cpu_silu = {silu_run, cpu_row_need};
const cpu_kernel cpu_axpy = {axpy_run, cpu_row_need};
