/* quantize.c - numbers of few bits and their scales: scale_for, quantize, dequantize. A scale [n, k] stands
 * for each of n x k blocks of x. Row by row in f32: a division (a product), one rounding on store; a kernel
 * elsewhere has the same bits. Bound: memory. */
#include "cpu.h"

#include <math.h>

/* ---- the scale that lets the largest number become the largest there is ---- */

typedef struct search {
    const cpu_call *c;
    int64_t rows, per_task; /* valid rows of all matrices, which are whole where there are several */
    float *found;           /* a number a task: each looks at the rows whose turn it is */
} search;

#define TASKS 64

static void search_task(void *user, int64_t task, int worker)
{
    const search *s = user;
    const pv_tensor *x = s->c->node->in[0];
    int64_t width = pv_width(x),
            end = (task + 1) * s->per_task < s->rows ? (task + 1) * s->per_task : s->rows;
    float most = 0;
    for (int64_t r = task * s->per_task; r < end; r++) {
        const float *row = cpu_load(s->c->in[0], x->dtype, r * width, width, s->c->tmp[worker]);
        for (int64_t i = 0; i < width; i++)
            most = fmaxf(most, fabsf(row[i]));
    }
    s->found[task] = most;
}

static void scale_for_run(const cpu_call *c)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    float found[TASKS] = {0}, most = 0;
    search s = {c, c->rows[0] ? cpu_rows(c, 0) : pv_elements(x) / pv_width(x), .found = found};
    s.per_task = (s.rows + TASKS - 1) / TASKS;
    if (s.rows)
        pv_pool_run(c->pool, (s.rows + s.per_task - 1) / s.per_task, search_task, &s);
    for (int i = 0; i < TASKS; i++)
        most = fmaxf(most, found[i]);
    float scale = most / (c->node->attr.scale_for.dtype == PV_E4M3 ? 448.0f : 6.0f);
    scale = scale > 0 ? scale : 1;
    pv_from_f32(c->out[0], &scale, out->dtype, 1);
}

/* ---- the scales of a row ---- */

/* How many neighbours in the row share a scale, and where the row's first scale stands. */
static int64_t blocks_of(const cpu_call *c, int64_t row, int64_t *first)
{
    const pv_tensor *x = c->node->in[0], *s = c->node->in[1];
    *first = row / (x->dim[0] / s->dim[0]) * s->dim[1];
    return x->dim[1] / s->dim[1];
}

static float scale_at(const cpu_call *c, int64_t at)
{
    float tmp;
    return *cpu_load(c->in[1], c->node->in[1]->dtype, at, 1, &tmp);
}

static void quantize_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    int64_t at, block = blocks_of(c, row, &at);
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i += block, at++) {
        const float s = scale_at(c, at);
        for (int64_t k = i; k < i + block; k++)
            out[k] = in[0][k] / s;
    }
}

static void dequantize_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    int64_t at, block = blocks_of(c, row, &at);
    for (int64_t i = 0, n = pv_width(c->node->in[0]); i < n; i += block, at++) {
        const float s = scale_at(c, at);
        for (int64_t k = i; k < i + block; k++)
            out[k] = in[0][k] * s;
    }
}

static void quantize_run(const cpu_call *c)
{
    cpu_each_row(c, quantize_row);
}

static void dequantize_run(const cpu_call *c)
{
    cpu_each_row(c, dequantize_row);
}

const cpu_kernel cpu_scale_for = {.run = scale_for_run, .need = cpu_row_need, .few = true};
const cpu_kernel cpu_quantize = {.run = quantize_run, .need = cpu_row_need, .few = true};
const cpu_kernel cpu_dequantize = {.run = dequantize_run, .need = cpu_row_need, .few = true};
