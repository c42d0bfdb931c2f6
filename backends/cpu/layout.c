/* layout.c - cast, concat, slice, row, store, transpose: rows copied from one place to another, converted where dtypes differ.
 * Bound: memory. */
#include "cpu.h"

#include <string.h>

/* n elements from (src, from) to (dst, to); exact when the dtypes are equal. */
static void move(void *dst, pv_dtype to_dtype, int64_t to, const void *src, pv_dtype from_dtype, int64_t from, int64_t n,
                 float *tmp)
{
    char *d = (char *)dst + pv_dtype_bytes(to_dtype, (size_t)to);
    const char *s = (const char *)src + pv_dtype_bytes(from_dtype, (size_t)from);
    if (to_dtype == from_dtype) {
        memmove(d, s, pv_dtype_bytes(to_dtype, (size_t)n));
        return;
    }
    const float *f = cpu_load(src, from_dtype, from, n, tmp);
    if (to_dtype == PV_F32)
        memmove(d, f, (size_t)n * sizeof *f);
    else
        pv_from_f32(d, f, to_dtype, (size_t)n);
}

static size_t need(const pv_node *n)
{
    size_t most = (size_t)pv_width(n->out[0]);
    for (int k = 0; k < n->n_in; k++)
        most = (size_t)pv_width(n->in[k]) > most ? (size_t)pv_width(n->in[k]) : most;
    return most;
}

static void copy_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    memcpy(out, in[0], sizeof *out * (size_t)pv_width(c->node->out[0]));
}

static void copy_run(const cpu_call *c)
{
    cpu_each_row(c, copy_row);
}

static void slice_row(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    copy_row(c, row, (const float *[]){in[0] + c->node->attr.range.first}, out);
}

static void slice_run(const cpu_call *c)
{
    cpu_each_row(c, slice_row);
}

static void rows_to(const cpu_call *c, int input, int64_t at)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[input];
    int64_t width = pv_width(x);
    for (int64_t r = 0, rows = cpu_rows(c, input); r < rows; r++)
        move(c->out[0], n->out[0]->dtype, (at + r) * width, c->in[input], x->dtype, r * width, width, c->tmp[0]);
}

static void concat_run(const cpu_call *c)
{
    rows_to(c, 0, 0);
    rows_to(c, 1, c->node->in[0]->dim[0]);
}

static void store_run(const cpu_call *c)
{
    rows_to(c, 1, c->node->attr.range.first);
}

static void row_run(const cpu_call *c)
{
    const pv_node *n = c->node;
    int64_t width = pv_width(n->in[0]), rows = pv_elements(n->in[0]) / width;
    int64_t i = cpu_count(c, 1, rows - 1);
    move(c->out[0], n->out[0]->dtype, 0, c->in[0], n->in[0]->dtype, i * width, width, c->tmp[0]);
}

static void transpose_run(const cpu_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0];
    int64_t first = n->attr.transpose.first, second = n->attr.transpose.second, rest = pv_elements(x) / first / second;
    for (int64_t i = 0; i < first; i++)
        for (int64_t j = 0; j < second; j++)
            move(c->out[0], n->out[0]->dtype, (j * first + i) * rest, c->in[0], x->dtype, (i * second + j) * rest, rest,
                 c->tmp[0]);
}

const cpu_kernel cpu_copy = {copy_run, cpu_row_need};
const cpu_kernel cpu_slice = {slice_run, cpu_row_need};
const cpu_kernel cpu_transpose = {transpose_run, need};
const cpu_kernel cpu_concat = {concat_run, need, 1u << 2};
const cpu_kernel cpu_store = {store_run, need};
const cpu_kernel cpu_row = {row_run, need, 1u << 1};
