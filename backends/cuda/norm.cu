/* norm.cu - rms_norm, layer_norm, ada_rms_norm, gated_norm.
 *
 * Computes: rms_norm x / sqrt(mean(x^2) + eps) (* w); layer_norm (x - mean) / sqrt(var + eps) * w + b, biased variance;
 *   ada_rms_norm h (1 + scale) + shift with h the rms_norm without weight; gated_norm that of the residual x + y gate, and
 *   the residual. openpi gemma.py RMSNorm; torch LayerNorm.
 * Layout: x and result [.., rows, width]; w, b [width]; mod [3 width] = scale | shift | gate, the gate unused here. Any
 *   float dtypes. Rows beyond the valid count are skipped.
 * Launch: a block a row, a thread 8 or 16 elements, held in registers up to a width of 4096; wider rows and widths that are no
 *   multiple of 8 are read again for each pass. Weights that no kernel writes are asked for before the kernel in front has ended.
 * Numerics: f32 sums (a thread's elements in order, lanes by butterfly, warps in order), variance in a second pass over
 *   x - mean, one rounding on store; ada_rms_norm rounds as its body does.
 * Bound: memory; the launch for the suffix. */
#include "util.cuh"

#define THREADS  256
#define TWO_FROM 192 /* vectors of 8 */

enum norm_kind { RMS, LAYER, ADA };

typedef struct norm_args {
    const void *x, *w, *b; /* ADA: w is scale, b shift */
    void *out;
    const int32_t *rows;
    pv_dtype x_dtype, w_dtype, b_dtype, out_dtype;
    int width, per_matrix;
    float eps;
    bool ahead; /* no kernel writes w and b */
} norm_args;

template <int V> static __device__ inline float sum_up(const float (&x)[V], float mean, bool squares)
{
    float sum = 0;
#pragma unroll
    for (int k = 0; k < V; k++)
        sum += squares ? (x[k] - mean) * (x[k] - mean) : x[k];
    return sum;
}

/* The results of V elements x, from element `at` of the row on. */
template <int KIND, int V>
static __device__ inline void finish(const norm_args &a, int64_t at, const float (&x)[V], float mean, float r,
                                     const cuda_bits<V> &w_bits, const cuda_bits<V> &b_bits)
{
    float w[V], b[V], y[V];
    cuda_widen<V>(w, w_bits, a.w_dtype);
    cuda_widen<V>(b, b_bits, a.b_dtype);
#pragma unroll
    for (int k = 0; k < V; k++) {
        float h = __fmul_rn(x[k] - mean, r);
        if (KIND == ADA)
            y[k] = __fadd_rn(__fadd_rn(h, __fmul_rn(h, w[k])), b[k]);
        else if (KIND == LAYER)
            y[k] = h * w[k] + b[k];
        else
            y[k] = a.w ? h * w[k] : h;
    }
    cuda_put<V>(a.out, a.out_dtype, at, y);
}

template <int V> static __device__ inline cuda_bits<V> fetch(const void *data, pv_dtype dtype, int at)
{
    return data ? cuda_fetch<V>(data, dtype, at) : cuda_bits<V>{};
}

/* N vectors a thread, in registers from the first to the last. All that is read is asked for at once. */
template <int KIND, int N> static __global__ void __launch_bounds__(THREADS, N == 1 ? 6 : 4) held(norm_args a)
{
    const int64_t row = (int64_t)blockIdx.x * a.width;
    auto place = [&](int i) { return (int)(threadIdx.x + i * blockDim.x) * 8; };
    cuda_bits<8> x_bits[N] = {}, w[N] = {}, b[N] = {};
    auto fetch_both = [&] {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (place(i) < a.width) {
                w[i] = fetch<8>(a.w, a.w_dtype, place(i));
                b[i] = fetch<8>(a.b, a.b_dtype, place(i));
            }
    };
    if (a.ahead)
        fetch_both();
    cuda_begin();
#pragma unroll
    for (int i = 0; i < N; i++)
        if (place(i) < a.width)
            x_bits[i] = cuda_fetch<8>(a.x, a.x_dtype, row + place(i));
    if (!a.ahead)
        fetch_both();
    if (!cuda_valid(blockIdx.x, a.rows, a.per_matrix))
        return;

    float x[N][8], mean = 0, r = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        cuda_widen<8>(x[i], x_bits[i], a.x_dtype);
#pragma unroll
    for (int pass = KIND == LAYER ? 0 : 1; pass < 2; pass++) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (place(i) < a.width)
                sum += sum_up<8>(x[i], mean, pass == 1);
        sum = cuda_over_block<cuda_plus>(sum) / (float)a.width;
        mean = pass == 0 ? sum : mean;
        r = 1.0f / sqrtf(sum + a.eps);
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (place(i) < a.width)
            finish<KIND, 8>(a, row + place(i), x[i], mean, r, w[i], b[i]);
}

/* Wider rows, and widths that are no multiple of 8. */
template <int KIND, int V> static __global__ void __launch_bounds__(THREADS) streamed(norm_args a)
{
    cuda_begin();
    if (!cuda_valid(blockIdx.x, a.rows, a.per_matrix))
        return;
    const int64_t row = (int64_t)blockIdx.x * a.width;
    const int first = (int)threadIdx.x * V, step = (int)blockDim.x * V;
    float x[V], mean = 0, r = 0;
    for (int pass = KIND == LAYER ? 0 : 1; pass < 2; pass++) {
        float sum = 0;
        for (int i = first; i < a.width; i += step) {
            cuda_get<V>(x, a.x, a.x_dtype, row + i);
            sum += sum_up<V>(x, mean, pass == 1);
        }
        sum = cuda_over_block<cuda_plus>(sum) / (float)a.width;
        mean = pass == 0 ? sum : mean;
        r = 1.0f / sqrtf(sum + a.eps);
    }
    for (int i = first; i < a.width; i += step) {
        cuda_get<V>(x, a.x, a.x_dtype, row + i);
        finish<KIND, V>(a, row + i, x, mean, r, fetch<V>(a.w, a.w_dtype, i), fetch<V>(a.b, a.b_dtype, i));
    }
}

template <int KIND> static cudaError_t run(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0], *w = n->n_in > 1 ? n->in[1] : NULL, *b = n->n_in > 2 ? n->in[2] : w;
    norm_args a = {};
    a.x = c->in[0];
    a.out = c->out[0];
    a.rows = c->rows[0];
    a.x_dtype = x->dtype;
    a.out_dtype = n->out[0]->dtype;
    a.w_dtype = w ? w->dtype : PV_F32;
    a.b_dtype = b ? b->dtype : PV_F32;
    a.width = (int)pv_width(x);
    a.per_matrix = (int)pv_row_count(x);
    a.eps = n->attr.norm.eps;
    a.w = w ? c->in[1] : NULL;
    if (KIND == LAYER)
        a.b = c->in[2];
    else if (KIND == ADA)
        a.b = (const char *)c->in[1] + pv_dtype_bytes(a.w_dtype, (size_t)a.width);
    a.ahead = (!w || cuda_given(w)) && (!b || cuda_given(b));
    const int64_t vectors = a.width / 8;
    if (a.width % 8 || !cuda_aligned(a.x) || !cuda_aligned(a.w) || !cuda_aligned(a.b) || !cuda_aligned(a.out))
        return cuda_launch(c, streamed<KIND, 1>, dim3((unsigned)cuda_all_rows(x)), cuda_threads(a.width, THREADS), 0, a);
    if (vectors > 2 * THREADS)
        return cuda_launch(c, streamed<KIND, 8>, dim3((unsigned)cuda_all_rows(x)), THREADS, 0, a);
    /* With two vectors a thread, blocks of a thousand rows of 2048 are on the device at the same time. */
    const bool two = vectors > TWO_FROM;
    return cuda_launch(c, two ? held<KIND, 2> : held<KIND, 1>, dim3((unsigned)cuda_all_rows(x)),
                       cuda_threads((vectors + two) / (1 + two), THREADS), 0, a);
}

/* x' = x + y gate and its ada_rms_norm. A row is held by one block, 8 elements a thread. */
typedef struct gated_args {
    const void *x, *y;
    const float *mod, *next; /* scale | shift | gate; of `mod` the gate, of `next` the other two */
    float *sum;              /* x' */
    void *out;
    const int32_t *rows;
    pv_dtype x_dtype, y_dtype, out_dtype;
    int width, row_cap;
    float eps;
} gated_args;

static __global__ void __launch_bounds__(THREADS) gated_norm(gated_args a)
{
    cuda_begin();
    if (!cuda_valid(blockIdx.x, a.rows, a.row_cap))
        return;
    int64_t row = (int64_t)blockIdx.x * a.width;
    int i = (int)threadIdx.x * 8;
    float x[8] = {}, y[8], gate[8], scale[8], shift[8];
    if (i < a.width) {
        cuda_bits<8> y_bits = cuda_fetch<8>(a.y, a.y_dtype, row + i);
        cuda_get<8>(x, a.x, a.x_dtype, row + i);
        cuda_widen<8>(y, y_bits, a.y_dtype);
        cuda_get<8>(gate, a.mod, PV_F32, 2 * a.width + i);
        cuda_get<8>(scale, a.next, PV_F32, i);
        cuda_get<8>(shift, a.next, PV_F32, a.width + i);
#pragma unroll
        for (int k = 0; k < 8; k++)
            x[k] = __fadd_rn(x[k], __fmul_rn(y[k], gate[k]));
        cuda_put<8>(a.sum, PV_F32, row + i, x);
    }
    float r = 1.0f / sqrtf(cuda_over_block<cuda_plus>(sum_up<8>(x, 0, true)) / (float)a.width + a.eps);
    if (i >= a.width)
        return;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float h = __fmul_rn(x[k], r);
        y[k] = __fadd_rn(__fadd_rn(h, __fmul_rn(h, scale[k])), shift[k]);
    }
    cuda_put<8>(a.out, a.out_dtype, row + i, y);
}

static cudaError_t gated_run(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0];
    gated_args a = {c->in[0],  c->in[1],   (const float *)c->in[2], (const float *)c->in[3], (float *)c->out[0],
                    c->out[1], c->rows[0], x->dtype,                n->in[1]->dtype,         n->out[1]->dtype,
                    (int)pv_width(x), (int)pv_row_count(x), n->attr.norm.eps};
    return cuda_launch(c, gated_norm, dim3((unsigned)cuda_all_rows(x)), cuda_threads(a.width / 8, THREADS), 0, a);
}

/* One vector a thread, so rows up to 2048 and of whole vectors; the modulations f32, as they come; x' f32, or the norm
 * would have to read it rounded. */
static bool gated_accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 0) && pv_width(n->in[0]) <= 8 * THREADS && pv_width(n->in[0]) % 8 == 0 &&
           n->in[2]->dtype == PV_F32 && n->in[3]->dtype == PV_F32 && n->out[0]->dtype == PV_F32;
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 0);
}

extern "C" {
const cuda_kernel cuda_rms_norm = {accepts, run<RMS>, NULL};
const cuda_kernel cuda_layer_norm = {accepts, run<LAYER>, NULL};
const cuda_kernel cuda_ada_rms_norm = {accepts, run<ADA>, NULL};
const cuda_kernel cuda_gated_norm = {gated_accepts, gated_run, NULL};
}
