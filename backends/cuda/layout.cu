/* layout.cu - cast, concat, slice, row, store, transpose: rows copied from one place to another, converted where dtypes differ.
 *
 * Computes: nothing; each.cuh does the walking.
 * Layout: tensors [.., rows, width] row-major, f32, bf16, f16. Only valid rows are read or written; a state keeps its other
 *   rows. The index of `row` is read on the device and kept within the table.
 * Launch: a block for up to 256 vectors of a row; concat: one launch an input; transpose: a thread a vector.
 * Numerics: one rounding where the result is narrower, exact otherwise.
 * Bound: memory. */
#include "each.cuh"

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, n->op == PV_OP_CONCAT ? 1u << 2 : n->op == PV_OP_ROW ? 1u << 1 : 0);
}

static cudaError_t cast_run(const cuda_call *c)
{
    return cuda_each_of<1>(c, cuda_same(), {{cuda_of(c->node->in[0], c->in[0])}});
}

static cudaError_t slice_run(const cuda_call *c)
{
    cuda_operand x = cuda_of(c->node->in[0], c->in[0]);
    x.first = (unsigned)c->node->attr.range.first;
    return cuda_each_of<1>(c, cuda_same(), {{x}});
}

/* The valid rows of an input into the result's rows from `at` on. */
static cudaError_t rows_to(const cuda_call *c, int input, int64_t at)
{
    const pv_tensor *x = c->node->in[input];
    cuda_operand out = cuda_of(c->node->out[0], c->out[0]);
    out.first_row = (unsigned)at;
    return cuda_each<1>(c, cuda_same(), {{cuda_of(x, c->in[input])}}, out, cuda_all_rows(x), c->rows[input],
                        pv_row_count(x), pv_width(x));
}

static cudaError_t concat_run(const cuda_call *c)
{
    cudaError_t e = rows_to(c, 0, 0);
    return e ? e : rows_to(c, 1, c->node->in[0]->dim[0]);
}

static cudaError_t store_run(const cuda_call *c)
{
    return rows_to(c, 1, c->node->attr.range.first);
}

static cudaError_t row_run(const cuda_call *c)
{
    cuda_operand table = cuda_of(c->node->in[0], c->in[0]);
    table.index = (const int32_t *)c->in[1];
    return cuda_each<1>(c, cuda_same(), {{table}}, cuda_of(c->node->out[0], c->out[0]), 1, NULL, 1,
                        pv_width(c->node->in[0]));
}

/* x [first, second, rest] -> y [second, first, rest]: a thread V elements of y. */
template <int V>
static __global__ void __launch_bounds__(256) transpose(cuda_operand x, cuda_operand y, unsigned first, unsigned second, int64_t rest)
{
    cuda_begin();
    int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V, piece = at / rest;
    if (piece >= (int64_t)first * second)
        return;
    float v[V];
    cuda_get<V>(v, x.data, x.dtype, (piece % first * second + piece / first) * rest + at % rest);
    cuda_put<V>(y.data, y.dtype, at, v);
}

static cudaError_t transpose_run(const cuda_call *c)
{
    cuda_operand x = cuda_of(c->node->in[0], c->in[0]), y = cuda_of(c->node->out[0], c->out[0]);
    int64_t first = c->node->attr.transpose.first, second = c->node->attr.transpose.second, all = cuda_elements(c->node->in[0]);
    int64_t rest = all / first / second;
    bool wide = rest % 8 == 0 && cuda_aligned(x.data) && cuda_aligned(y.data);
    dim3 grid(cuda_ceil(all, wide ? 256 * 8 : 256));
    return cuda_launch(c, wide ? transpose<8> : transpose<1>, grid, 256, 0, x, y, (unsigned)first, (unsigned)second, rest);
}

static bool accepts_transpose(const cuda_device *device, const pv_node *n)
{
    return accepts(device, n) && cuda_elements(n->in[0]) < (int64_t)1 << 38; /* blocks are counted in 31 bits */
}

extern "C" {
const cuda_kernel cuda_transpose = {accepts_transpose, transpose_run, NULL};
const cuda_kernel cuda_cast = {accepts, cast_run, NULL};
const cuda_kernel cuda_concat = {accepts, concat_run, NULL};
const cuda_kernel cuda_slice = {accepts, slice_run, NULL};
const cuda_kernel cuda_row = {accepts, row_run, NULL};
const cuda_kernel cuda_store = {accepts, store_run, NULL};
}
