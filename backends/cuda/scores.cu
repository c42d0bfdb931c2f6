/* scores.cu - attention in three: attention_scores, softmax, attention_values. What `attention` is made of where
 * attention.cu does not take it whole: float32, and whoever asks for the parts.
 *
 * Computes: s[h, i, j] = scale q[i, h] . k[first + j, h / group]; p = softmax over j; o[i, h] = sum p[h, i, j] v[first + j,
 *   h / group]; all for the first len keys and the valid rows, both counted on the device. Nothing else is read or
 *   written.
 * Layout: q and o [batch rows, heads head], k and v [batch keys, kv_heads head], s and p [batch heads, rows, keys from
 *   `first` on]; f32, bf16, f16 in any mix.
 * Launch: products: a block of 256 threads for 64 x 64 results of a head, 4 x 4 a thread, 16 deep through shared memory; where both
 *   operands are bf16 and their rows allow, 128 threads, a warp 16 x 64, 64 deep; softmax: a block a row.
 * Numerics: f32 multiplied and added, no TF32; sums over the depth in order; two of bf16 by the tensor cores, f32 sums; softmax
 *   divides by multiplying with 1 / sum; one rounding on store.
 * Bound: the f32 rate of the plain cores; of bf16 the latency of few blocks. Correct first, it is the yardstick of attention.cu. */
#include "mma.cuh"
#include "util.cuh"

#define TILE    64
#define DEPTH   16
#define THREADS 256

/* c[m, n] = alpha sum over k of a[m, k] b[n, k], one such product a head: strides in elements, k or n side by side. */
typedef struct product {
    const void *a, *b;
    void *c;
    pv_dtype a_dtype, b_dtype, c_dtype;
    int heads, group;                           /* of q; that share one of k or v */
    int64_t a_batch, a_head, a_m;               /* a: the next batch, head, m; k side by side */
    int64_t b_first, b_batch, b_head, b_n, b_k; /* b: where it begins, the next batch, kv head, n, k */
    int64_t c_batch, c_head, c_m;
    int m, n, k;                   /* capacity */
    const int32_t *rows, *columns, *depth; /* how many of m, n, k take part; NULL: all */
    float alpha;
} product;

static __global__ void __launch_bounds__(THREADS) multiply(product p)
{
    cuda_begin();
    __shared__ float a_s[DEPTH][TILE + 4], b_s[DEPTH][TILE + 4];
    int m = cuda_count(p.rows, p.m), n = cuda_count(p.columns, p.n), k = cuda_count(p.depth, p.k);
    int m0 = (int)blockIdx.y * TILE, n0 = (int)blockIdx.x * TILE;
    if (m0 >= m || n0 >= n)
        return;
    int64_t batch = blockIdx.z / (unsigned)p.heads, head = blockIdx.z % (unsigned)p.heads;
    int64_t a_at = batch * p.a_batch + head * p.a_head;
    int64_t b_at = p.b_first + batch * p.b_batch + head / p.group * p.b_head, c_at = batch * p.c_batch + head * p.c_head;
    int tm = (int)threadIdx.x / 16 * 4, tn = (int)threadIdx.x % 16 * 4;
    bool b_deep = p.b_k == 1; /* neighbours in memory are neighbours in k, else in n */
    float sum[4][4] = {};

    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += THREADS) {
            int r = i / DEPTH, d = i % DEPTH;
            a_s[d][r] = m0 + r < m && k0 + d < k ? cuda_get1(p.a, p.a_dtype, a_at + (m0 + r) * p.a_m + k0 + d) : 0.0f;
            if (!b_deep) {
                r = i % TILE;
                d = i / TILE;
            }
            b_s[d][r] = n0 + r < n && k0 + d < k
                            ? cuda_get1(p.b, p.b_dtype, b_at + (n0 + r) * p.b_n + (k0 + d) * p.b_k)
                            : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] = fmaf(a_s[d][tm + i], b_s[d][tn + j], sum[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < 4 && m0 + tm + i < m; i++)
        for (int j = 0; j < 4 && n0 + tn + j < n; j++)
            cuda_put1(p.c, p.c_dtype, c_at + (m0 + tm + i) * p.c_m + n0 + tn + j, p.alpha * sum[i][j]);
}

/* ---- both operands bf16 ---- */

#define DEEP     64 /* of the depth at a time */
#define PITCH    (DEEP + 8) /* keeps the rows of an 8 x 8 matrix in banks of their own; DEEP and TILE are the same */
#define OF_WARPS 128

/* A tile of 64 rows of 64 neighbours into shared memory, zeros where there is none; WIDE: by 16 bytes, which are there or not as a
 * whole. */
template <bool WIDE>
static __device__ void fetch(__nv_bfloat16 (*to)[PITCH], const __nv_bfloat16 *from, int64_t stride, int row0, int rows, int column0,
                             int columns)
{
    if (WIDE) {
        for (int i = (int)threadIdx.x; i < TILE * DEEP / 8; i += OF_WARPS) {
            int r = i / (DEEP / 8), c = i % (DEEP / 8) * 8;
            bool there = row0 + r < rows && column0 + c < columns;
            cuda_copy16(&to[r][c], there ? from + (row0 + r) * stride + column0 + c : from, there);
        }
    } else {
        for (int i = (int)threadIdx.x; i < TILE * DEEP; i += OF_WARPS) {
            int r = i / DEEP, c = i % DEEP;
            bool there = row0 + r < rows && column0 + c < columns;
            to[r][c] = there ? from[(row0 + r) * stride + column0 + c] : __float2bfloat16_rn(0.0f);
        }
    }
}

/* A_WIDE: rows of a by 16 bytes; B_DEEP: neighbours of b in memory are neighbours in the depth, else in n. */
template <bool A_WIDE, bool B_DEEP> static __global__ void __launch_bounds__(OF_WARPS) multiply_bf16(product p)
{
    cuda_begin();
    __shared__ __align__(16) __nv_bfloat16 a_s[2][TILE][PITCH], b_s[2][DEEP][PITCH];
    int m = cuda_count(p.rows, p.m), n = cuda_count(p.columns, p.n), k = cuda_count(p.depth, p.k);
    int m0 = (int)blockIdx.y * TILE, n0 = (int)blockIdx.x * TILE;
    if (m0 >= m || n0 >= n)
        return;
    int64_t batch = blockIdx.z / (unsigned)p.heads, head = blockIdx.z % (unsigned)p.heads;
    const __nv_bfloat16 *a = (const __nv_bfloat16 *)p.a + batch * p.a_batch + head * p.a_head;
    const __nv_bfloat16 *b = (const __nv_bfloat16 *)p.b + p.b_first + batch * p.b_batch + head / p.group * p.b_head;
    int64_t c_at = batch * p.c_batch + head * p.c_head;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, steps = (k + DEEP - 1) / DEEP;
    float sum[TILE / 8][4] = {};

    auto ask = [&](int step) {
        fetch<A_WIDE>(a_s[step % 2], a, p.a_m, m0, m, step * DEEP, k);
        if (B_DEEP)
            fetch<true>(b_s[step % 2], b, p.b_n, n0, n, step * DEEP, k);
        else
            fetch<true>(b_s[step % 2], b, p.b_k, step * DEEP, k, n0, n);
        cuda_copy_commit();
    };
    if (steps)
        ask(0);
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps)
            ask(step + 1);
        else
            cuda_copy_commit();
        cuda_copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEEP; d += 16) {
            uint32_t x[4], y[4];
            cuda_ldmatrix(x, &a_s[step % 2][warp * 16 + lane % 16][d + lane / 16 * 8]);
#pragma unroll
            for (int t = 0; t < TILE / 8; t += 2) { /* of y, two tiles: b0 and b1 of each */
                if (B_DEEP)
                    cuda_ldmatrix(y, &b_s[step % 2][t * 8 + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
                else
                    cuda_ldmatrix_trans(y, &b_s[step % 2][d + lane / 8 % 2 * 8 + lane % 8][t * 8 + lane / 16 * 8]);
                cuda_mma(sum[t], x, y[0], y[1]);
                cuda_mma(sum[t + 1], x, y[2], y[3]);
            }
        }
        __syncthreads(); /* read by all before it is overwritten */
    }
#pragma unroll
    for (int t = 0; t < TILE / 8; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = m0 + warp * 16 + lane / 4 + i / 2 * 8, column = n0 + t * 8 + lane % 4 * 2 + i % 2;
            if (row < m && column < n)
                cuda_put1(p.c, p.c_dtype, c_at + row * p.c_m + column, p.alpha * sum[t][i]);
        }
}

static bool by_eight(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return a % 8 == 0 && b % 8 == 0 && c % 8 == 0 && d % 8 == 0;
}

static void (*pick(const product &p))(product)
{
    bool deep = p.b_k == 1;
    if (p.a_dtype != PV_BF16 || p.b_dtype != PV_BF16 || !cuda_aligned(p.b) ||
        !by_eight(p.b_first, p.b_batch, p.b_head, deep ? p.b_n : p.b_k) || (deep ? p.k : p.n) % 8)
        return NULL;
    bool wide = cuda_aligned(p.a) && by_eight(p.a_batch, p.a_head, p.a_m, p.k) && !p.depth;
    return deep ? wide ? multiply_bf16<true, true> : multiply_bf16<false, true>
                : wide ? multiply_bf16<true, false> : multiply_bf16<false, false>;
}

static cudaError_t enqueue(const cuda_call *c, product p, int batch)
{
    const pv_node *n = c->node;
    p.a = c->in[0];
    p.b = c->in[1];
    p.c = c->out[0];
    p.a_dtype = n->in[0]->dtype;
    p.b_dtype = n->in[1]->dtype;
    p.c_dtype = n->out[0]->dtype;
    p.rows = c->rows[0];
    void (*bf16)(product) = pick(p);
    return cuda_launch(c, bf16 ? bf16 : multiply, dim3(cuda_ceil(p.n, TILE), cuda_ceil(p.m, TILE), (unsigned)(batch * p.heads)),
                       bf16 ? OF_WARPS : THREADS, 0, p);
}

static const int32_t *count_input(const cuda_call *c, int i)
{
    return i < c->node->n_in ? (const int32_t *)c->in[i] : NULL;
}

static cudaError_t scores_run(const cuda_call *c)
{
    const pv_attention_attr *at = &c->node->attr.attention;
    const pv_tensor *q = c->node->in[0], *k = c->node->in[1], *out = c->node->out[0];
    int64_t rows = out->dim[1], keys = out->dim[2], head = pv_width(q) / at->heads;
    product p = {};
    p.heads = at->heads;
    p.group = at->heads / at->kv_heads;
    p.a_batch = rows * pv_width(q);
    p.a_head = head;
    p.a_m = pv_width(q);
    p.b_first = at->first * pv_width(k);
    p.b_batch = k->dim[0] / at->batch * pv_width(k);
    p.b_head = head;
    p.b_n = pv_width(k);
    p.b_k = 1;
    p.c_batch = at->heads * rows * keys;
    p.c_head = rows * keys;
    p.c_m = keys;
    p.m = (int)rows;
    p.n = (int)keys;
    p.k = (int)head;
    p.columns = count_input(c, 2);
    p.alpha = at->scale;
    return enqueue(c, p, at->batch);
}

static cudaError_t values_run(const cuda_call *c)
{
    const pv_attention_attr *at = &c->node->attr.attention;
    const pv_tensor *in = c->node->in[0], *v = c->node->in[1], *out = c->node->out[0];
    int64_t rows = in->dim[1], keys = in->dim[2], head = pv_width(v) / at->kv_heads;
    product p = {};
    p.heads = at->heads;
    p.group = at->heads / at->kv_heads;
    p.a_batch = at->heads * rows * keys;
    p.a_head = rows * keys;
    p.a_m = keys;
    p.b_first = at->first * pv_width(v);
    p.b_batch = v->dim[0] / at->batch * pv_width(v);
    p.b_head = head;
    p.b_n = 1;
    p.b_k = pv_width(v);
    p.c_batch = rows * pv_width(out);
    p.c_head = head;
    p.c_m = pv_width(out);
    p.m = (int)rows;
    p.n = (int)head;
    p.k = (int)keys;
    p.depth = count_input(c, 2);
    p.alpha = 1;
    return enqueue(c, p, at->batch);
}

static bool accepts_product(const cuda_device *device, const pv_node *n)
{
    (void)device;
    const pv_attention_attr *a = &n->attr.attention;
    return cuda_floats(n, 1u << 2) && (int64_t)a->batch * a->heads <= 65535 && n->in[0]->dim[n->in[0]->n_dims - 2] <= 1 << 21;
}

/* ---- softmax ---- */

static __global__ void __launch_bounds__(THREADS) softmax(const void *s, pv_dtype s_dtype, void *p, pv_dtype p_dtype,
                                                          int width, int per_matrix, const int32_t *rows, const int32_t *len)
{
    cuda_begin();
    int n = cuda_count(len, width), step = (int)blockDim.x;
    if (!cuda_valid(blockIdx.x, rows, per_matrix))
        return;
    int64_t at = (int64_t)blockIdx.x * width;
    float top = -INFINITY, sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += step)
        top = fmaxf(top, cuda_get1(s, s_dtype, at + i));
    top = cuda_over_block<cuda_larger>(top);
    for (int i = (int)threadIdx.x; i < n; i += step)
        sum += expf(cuda_get1(s, s_dtype, at + i) - top);
    float scale = 1.0f / cuda_over_block<cuda_plus>(sum);
    for (int i = (int)threadIdx.x; i < n; i += step)
        cuda_put1(p, p_dtype, at + i, expf(cuda_get1(s, s_dtype, at + i) - top) * scale);
}

static bool accepts_softmax(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 1u << 1);
}

static cudaError_t softmax_run(const cuda_call *c)
{
    const pv_tensor *s = c->node->in[0], *p = c->node->out[0];
    return cuda_launch(c, softmax, dim3((unsigned)cuda_all_rows(s)), cuda_threads(pv_width(s), THREADS), 0, c->in[0],
                       s->dtype, c->out[0], p->dtype, (int)pv_width(s), (int)pv_row_count(s), c->rows[0], count_input(c, 1));
}

extern "C" {
const cuda_kernel cuda_attention_scores = {accepts_product, scores_run, NULL};
const cuda_kernel cuda_softmax = {accepts_softmax, softmax_run, NULL};
const cuda_kernel cuda_attention_values = {accepts_product, values_run, NULL};
}
