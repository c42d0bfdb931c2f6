/* rope.cu - rope, rope_store.
 *
 * Computes: rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 *   transformers' rotate_half, as openpi uses it. rope_store puts the result into the rows of a state from `first` on.
 * Layout: x [rows, heads head]; table f32 [positions, cos (head / 2) | sin (head / 2)], made by the host; positions i32
 *   [rows], kept within the table; x and result f32, bf16 or f16. Only valid rows are read or written.
 * Launch: a block a row, a thread 8 pairs (one where half a head is no multiple of 8).
 * Numerics: f32, three roundings, one more on store. Nothing here calls sin or cos.
 * Bound: memory; the launch for the suffix. */
#include "util.cuh"

typedef struct rope_args {
    const void *x;
    void *out;
    const float *table;
    const int32_t *positions, *rows;
    pv_dtype x_dtype, out_dtype;
    int heads, head, row_cap, table_rows;
    int64_t first; /* row of the result that gets row 0 */
} rope_args;

template <int V> static __global__ void turn(rope_args a)
{
    cuda_begin();
    int row = (int)blockIdx.x, half = a.head / 2, units = a.heads * half / V;
    if (row >= cuda_count(a.rows, a.row_cap))
        return;
    const float *cos = a.table + (int64_t)cuda_count(a.positions + row, a.table_rows - 1) * a.head;
    int64_t width = (int64_t)a.heads * a.head;
    for (int u = (int)threadIdx.x; u < units; u += (int)blockDim.x) {
        int head = u * V / half, i = u * V % half;
        int64_t at = (int64_t)head * a.head + i, from = row * width + at, to = (a.first + row) * width + at;
        cuda_bits<V> a_bits = cuda_fetch<V>(a.x, a.x_dtype, from), b_bits = cuda_fetch<V>(a.x, a.x_dtype, from + half);
        float p[V], q[V], c[V], s[V], left[V], right[V];
        cuda_get<V>(c, cos, PV_F32, i);
        cuda_get<V>(s, cos + half, PV_F32, i);
        cuda_widen<V>(p, a_bits, a.x_dtype);
        cuda_widen<V>(q, b_bits, a.x_dtype);
#pragma unroll
        for (int k = 0; k < V; k++) {
            left[k] = __fsub_rn(__fmul_rn(p[k], c[k]), __fmul_rn(q[k], s[k]));
            right[k] = __fadd_rn(__fmul_rn(q[k], c[k]), __fmul_rn(p[k], s[k]));
        }
        cuda_put<V>(a.out, a.out_dtype, to, left);
        cuda_put<V>(a.out, a.out_dtype, to + half, right);
    }
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 1u << 2) && n->in[1]->dtype == PV_F32;
}

static cudaError_t enqueue(const cuda_call *c, int heads, int64_t first)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    int head = (int)(pv_width(x) / heads);
    rope_args a = {c->in[0],     c->out[0],   (const float *)c->in[1], (const int32_t *)c->in[2],
                   c->rows[0],   x->dtype,    out->dtype,              heads,
                   head,         (int)x->dim[0], (int)c->node->in[1]->dim[0], first};
    bool wide = head % 16 == 0 && cuda_aligned(a.x) && cuda_aligned(a.out) && cuda_aligned(a.table);
    int64_t units = pv_width(x) / 2 / (wide ? 8 : 1);
    return cuda_launch(c, wide ? turn<8> : turn<1>, dim3((unsigned)x->dim[0]), cuda_threads(units, 256), 0, a);
}

static cudaError_t rope_run(const cuda_call *c)
{
    return enqueue(c, c->node->attr.rope.heads, 0);
}

static cudaError_t rope_store_run(const cuda_call *c)
{
    return enqueue(c, c->node->attr.rope_store.heads, c->node->attr.rope_store.first);
}

extern "C" {
const cuda_kernel cuda_rope = {accepts, rope_run, NULL};
const cuda_kernel cuda_rope_store = {accepts, rope_store_run, NULL};
}
