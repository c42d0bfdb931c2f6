/* each.cuh - one function of numbers, applied to every element of the valid rows.
 *
 * out[row, column] = f(a[row, column], b[..], ..): operands of any float dtype, which may repeat (fewer rows), be a single
 * number, begin at another row or column, or be one row whose index is read when the kernel runs.
 * A block takes up to 256 vectors of one row; 8 elements a thread where widths and addresses allow 16-byte vectors, else
 * one. f32 arithmetic, one rounding on store. A thread reads its elements before it writes, and nobody else's: out may
 * be an operand. Bound: memory. */
#ifndef PV_CUDA_EACH_CUH
#define PV_CUDA_EACH_CUH

#include "util.cuh"

struct cuda_operand {
    void *data;
    pv_dtype dtype;
    unsigned rows, width;      /* row r of the result meets row r % rows; rows 0: always the number at 0 */
    unsigned first_row, first; /* where its rows and columns begin */
    const int32_t *index;      /* the row is not r but this, within 0 .. rows - 1 */
};

template <int N> struct cuda_operands {
    cuda_operand at[N];
};

static inline cuda_operand cuda_of(const pv_tensor *t, void *data)
{
    cuda_operand o = {data, t->dtype, (unsigned)cuda_all_rows(t), (unsigned)pv_width(t), 0, 0, NULL};
    return o;
}

static __device__ inline int64_t cuda_at(const cuda_operand &o, unsigned row, unsigned column)
{
    unsigned r = o.index ? (unsigned)cuda_count(o.index, (int)o.rows - 1) : row < o.rows ? row : row % o.rows;
    return (int64_t)(o.first_row + r) * o.width + o.first + column;
}

template <int N, int V, class F>
static __global__ void cuda_each_kernel(F f, cuda_operands<N> in, cuda_operand out, const int32_t *count, int per_matrix,
                                        unsigned columns)
{
    cuda_begin();
    unsigned row = blockIdx.x, column = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (column >= columns || !cuda_valid(row, count, per_matrix))
        return;
    cuda_bits<V> bits[N] = {};
#pragma unroll
    for (int i = 0; i < N; i++)
        if (in.at[i].rows)
            bits[i] = cuda_fetch<V>(in.at[i].data, in.at[i].dtype, cuda_at(in.at[i], row, column));
    float x[N][V], y[V];
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (in.at[i].rows) {
            cuda_widen<V>(x[i], bits[i], in.at[i].dtype);
        } else {
            float v = cuda_get1(in.at[i].data, in.at[i].dtype, 0);
#pragma unroll
            for (int k = 0; k < V; k++)
                x[i][k] = v;
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) {
        float a[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            a[i] = x[i][k];
        y[k] = f(a);
    }
    cuda_put<V>(out.data, out.dtype, (int64_t)(out.first_row + row) * out.width + out.first + column, y);
}

/* Over `rows` rows (of all matrices), of which `count` of each `per_matrix` are valid. */
template <int N, class F>
static cudaError_t cuda_each(const cuda_call *c, F f, const cuda_operands<N> &in, const cuda_operand &out, int64_t rows,
                             const int32_t *count, int64_t per_matrix, int64_t columns)
{
    bool wide = columns % 8 == 0 && out.width % 8 == 0 && out.first % 8 == 0 && cuda_aligned(out.data);
    for (int i = 0; i < N; i++)
        wide = wide && (!in.at[i].rows ||
                        (in.at[i].width % 8 == 0 && in.at[i].first % 8 == 0 && cuda_aligned(in.at[i].data)));
    int64_t units = wide ? columns / 8 : columns;
    unsigned threads = cuda_threads(units, 256);
    dim3 grid((unsigned)rows, cuda_ceil(units, threads));
    void (*kernel)(F, cuda_operands<N>, cuda_operand, const int32_t *, int, unsigned) =
        wide ? cuda_each_kernel<N, 8, F> : cuda_each_kernel<N, 1, F>;
    return cuda_launch(c, kernel, grid, threads, 0, f, in, out, count, (int)per_matrix, (unsigned)columns);
}

/* The same for a node whose first input, result and valid rows go together. */
template <int N, class F> static cudaError_t cuda_each_of(const cuda_call *c, F f, const cuda_operands<N> &in)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    return cuda_each(c, f, in, cuda_of(out, c->out[0]), cuda_all_rows(x), c->rows[0], pv_row_count(x), pv_width(out));
}

struct cuda_same {
    __device__ float operator()(const float *a) const
    {
        return a[0];
    }
};

#endif
