/* rope.cu - rope, rope_store, rope_cache.
 *
 * Computes: rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 *   transformers' rotate_half, as openpi uses it. rope_store puts the result into the rows of a state from `first` on;
 *   rope_cache turns q, and puts k turned and v as it is into the rows of two states.
 * Layout: x [rows, heads head]; table f32 [positions, cos (head / 2) | sin (head / 2)], made by the host; positions i32
 *   [rows], kept within the table; x and result f32, bf16 or f16. Only valid rows are read or written.
 * Launch: a block a row, a thread 8 pairs (one where half a head is no multiple of 8). Positions and counts that no kernel writes
 *   are read before the kernel in front has ended.
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
    bool ahead;    /* no kernel writes positions and rows */
} rope_args;

/* V pairs of row `row`, by `cos` and what stands half a head behind it; `u` counts them along the row. */
template <int V> static __device__ inline void turn_pairs(const rope_args &a, const float *cos, int row, int u)
{
    int half = a.head / 2, head = u * V / half, i = u * V % half;
    int64_t width = (int64_t)a.heads * a.head, at = (int64_t)head * a.head + i;
    int64_t from = row * width + at, to = (a.first + row) * width + at;
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

/* Begins the kernel. The cosines of this block's row, its sines behind them; NULL where the row does not count. */
static __device__ inline const float *begin(const rope_args &a)
{
    int rows = 0, position = 0;
    auto ask = [&] {
        rows = cuda_count(a.rows, a.row_cap);
        position = cuda_count(a.positions + blockIdx.x, a.table_rows - 1);
    };
    if (a.ahead)
        ask();
    cuda_begin();
    if (!a.ahead)
        ask();
    return (int)blockIdx.x < rows ? a.table + (int64_t)position * a.head : NULL;
}

template <int V> static __global__ void turn(rope_args a)
{
    const float *cos = begin(a);
    int row = (int)blockIdx.x, units = a.heads * a.head / 2 / V;
    if (!cos)
        return;
    for (int u = (int)threadIdx.x; u < units; u += (int)blockDim.x)
        turn_pairs<V>(a, cos, row, u);
}

/* q, k and, as it is, v: `v` says where it is and goes; its heads and head are those of k. */
template <int V> static __global__ void turn_all(rope_args q, rope_args k, rope_args v)
{
    const float *cos = begin(q);
    int row = (int)blockIdx.x, of_q = q.heads * q.head / 2 / V, of_k = k.heads * k.head / 2 / V, of_v = v.heads * v.head / V;
    if (!cos)
        return;
    for (int u = (int)threadIdx.x; u < of_q + of_k + of_v; u += (int)blockDim.x) {
        if (u < of_q) {
            turn_pairs<V>(q, cos, row, u);
        } else if (u < of_q + of_k) {
            turn_pairs<V>(k, cos, row, u - of_q);
        } else {
            int at = (u - of_q - of_k) * V;
            int64_t width = (int64_t)v.heads * v.head;
            float x[V];
            cuda_get<V>(x, v.x, v.x_dtype, row * width + at);
            cuda_put<V>(v.out, v.out_dtype, (v.first + row) * width + at, x);
        }
    }
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 1u << 2) && n->in[1]->dtype == PV_F32;
}

/* Are the positions, input `i`, and the count of rows? */
static bool given(const cuda_call *c, int i)
{
    const pv_tensor *rows = c->node->in[0]->rows;
    return cuda_given(c->node->in[i]) && (!rows || cuda_given(rows));
}

static cudaError_t enqueue(const cuda_call *c, int heads, int64_t first)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    int head = (int)(pv_width(x) / heads);
    rope_args a = {c->in[0],     c->out[0],   (const float *)c->in[1], (const int32_t *)c->in[2],
                   c->rows[0],   x->dtype,    out->dtype,              heads,
                   head,         (int)x->dim[0], (int)c->node->in[1]->dim[0], first,
                   given(c, 2)};
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

static bool cache_accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 1u << 4) && n->in[3]->dtype == PV_F32;
}

static cudaError_t rope_cache_run(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_rope_cache_attr *at = &n->attr.rope_cache;
    rope_args part[3];
    bool wide = cuda_aligned(c->in[3]);
    for (int i = 0; i < 3; i++) {
        const pv_tensor *x = n->in[i];
        int heads = i ? at->kv_heads : at->heads;
        part[i] = {c->in[i],   c->out[i], (const float *)c->in[3],     (const int32_t *)c->in[4],
                   c->rows[0], x->dtype,  n->out[i]->dtype,            heads,
                   (int)(pv_width(x) / heads), (int)x->dim[0], (int)n->in[3]->dim[0], i ? at->first : 0,
                   given(c, 4)};
        wide = wide && part[i].head % 16 == 0 && cuda_aligned(part[i].x) && cuda_aligned(part[i].out);
    }
    int64_t units = (pv_width(n->in[0]) / 2 + pv_width(n->in[1]) / 2 + pv_width(n->in[2])) / (wide ? 8 : 1);
    return cuda_launch(c, wide ? turn_all<8> : turn_all<1>, dim3((unsigned)n->in[0]->dim[0]), cuda_threads(units, 256), 0,
                       part[0], part[1], part[2]);
}

extern "C" {
const cuda_kernel cuda_rope = {accepts, rope_run, NULL};
const cuda_kernel cuda_rope_store = {accepts, rope_store_run, NULL};
const cuda_kernel cuda_rope_cache = {cache_accepts, rope_cache_run, NULL};
}
