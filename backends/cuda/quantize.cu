/* quantize.cu - numbers of few bits and their scales: scale_for, quantize, dequantize, geglu_quantize.
 *
 * Computes: scale_for max |x| / 448 or / 6, 1 where that is 0; quantize x / s; dequantize x s; geglu_quantize gelu(gate) up / s.
 * Layout: x and result [rows, width] row-major: f32, bf16, f16 and e4m3, of dequantize's x e2m1 too, two to a byte; s [n, k],
 *   f32, bf16, f16 or e4m3, one number for each of n x k blocks of x. Rows beyond the valid count are skipped.
 * Launch: a block for up to 256 vectors of a row, 8 elements a thread where widths, blocks and addresses allow. scale_for: up to
 *   1024 blocks; the last to end takes the largest of what they found.
 * Numerics: f32; quotients rounded to nearest, as on the CPU, then once on store: nearest even, saturating at 448.
 * Bound: memory; below some 100 KB the launch. */
#include "each.cuh"

#include <cuda_fp8.h>

#define THREADS 256

/* ---- elements ---- */

static __device__ float from_e4m3(uint32_t byte)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)byte, __NV_E4M3)));
}

static __device__ uint32_t to_e4m3(float v)
{
    return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}

/* Exponent and mantissa where those of f32 end, 126 powers of two too low. */
static __device__ float from_e2m1(uint32_t half_byte)
{
    float v = __fmul_rn(__uint_as_float((half_byte & 7) << 22), 0x1p126f);
    return half_byte & 8 ? -v : v;
}

/* V is 8 or 1; `at` a multiple of V. */
template <int V> static __device__ void load(float (&v)[V], const void *data, pv_dtype dtype, int64_t at)
{
    if (dtype == PV_E4M3) {
        uint32_t w[2];
        if constexpr (V == 8)
            *(uint2 *)w = ((const uint2 *)data)[at / 8];
        else
            w[0] = ((const uint8_t *)data)[at];
#pragma unroll
        for (int i = 0; i < V; i++)
            v[i] = from_e4m3(w[i / 4] >> i % 4 * 8 & 0xff);
    } else if (dtype == PV_E2M1) {
        uint32_t w =
            V == 8 ? ((const uint32_t *)data)[at / 8] : ((const uint8_t *)data)[at / 2] >> at % 2 * 4;
#pragma unroll
        for (int i = 0; i < V; i++)
            v[i] = from_e2m1(w >> i * 4);
    } else {
        cuda_get<V>(v, data, dtype, at);
    }
}

template <int V> static __device__ void store(void *data, pv_dtype dtype, int64_t at, const float (&v)[V])
{
    if (dtype != PV_E4M3) {
        cuda_put<V>(data, dtype, at, v);
    } else if constexpr (V == 8) {
        uint32_t w[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++)
            w[i / 4] |= to_e4m3(v[i]) << i % 4 * 8;
        ((uint2 *)data)[at / 8] = make_uint2(w[0], w[1]);
    } else {
        ((uint8_t *)data)[at] = (uint8_t)to_e4m3(v[0]);
    }
}

/* ---- with a scale ---- */

typedef struct scaled {
    const void *x, *up, *s; /* up: of geglu_quantize */
    void *out;
    const int32_t *rows;
    pv_dtype x_dtype, up_dtype, s_dtype, out_dtype;
    unsigned row_count, width, down, across; /* down x across: a block */
    unsigned scales;                         /* in a row of them */
} scaled;

enum { QUANTIZE, DEQUANTIZE, GEGLU };

template <int KIND, int V> static __global__ void __launch_bounds__(THREADS) with_scale(scaled a)
{
    cuda_begin();
    unsigned row = blockIdx.x, column = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (column >= a.width || !cuda_valid(row, a.rows, (int)a.row_count))
        return;
    int64_t at = (int64_t)row * a.width + column;
    float x[V], up[V], s[1], y[V];
    load<V>(x, a.x, a.x_dtype, at);
    if (KIND == GEGLU)
        load<V>(up, a.up, a.up_dtype, at);
    load<1>(s, a.s, a.s_dtype, (int64_t)(row / a.down) * a.scales + column / a.across);
#pragma unroll
    for (int i = 0; i < V; i++) {
        float v = KIND == GEGLU ? __fmul_rn(cuda_gelu_of(x[i]), up[i]) : x[i];
        y[i] = KIND == DEQUANTIZE ? __fmul_rn(v, s[0]) : __fdiv_rn(v, s[0]);
    }
    store<V>(a.out, a.out_dtype, at, y);
}

static bool is_fraction(const pv_tensor *t)
{
    return cuda_is_float(t) || t->dtype == PV_E4M3;
}

static bool accepts_scaled(const cuda_device *device, const pv_node *n)
{
    (void)device;
    const pv_tensor *x = n->in[0];
    bool ok = cuda_fits(x) &&
              (is_fraction(x) || (x->dtype == PV_E2M1 && n->op == PV_OP_DEQUANTIZE && pv_width(x) % 2 == 0));
    for (int i = 1; ok && i < n->n_in; i++)
        ok = is_fraction(n->in[i]);
    return ok && is_fraction(n->out[0]);
}

template <int KIND> static cudaError_t run_scaled(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0], *s = n->in[KIND == GEGLU ? 2 : 1], *out = n->out[0];
    scaled a = {};
    a.x = c->in[0];
    a.up = KIND == GEGLU ? c->in[1] : NULL;
    a.s = c->in[KIND == GEGLU ? 2 : 1];
    a.out = c->out[0];
    a.rows = c->rows[0];
    a.x_dtype = x->dtype;
    a.up_dtype = n->in[1]->dtype;
    a.s_dtype = s->dtype;
    a.out_dtype = out->dtype;
    a.row_count = (unsigned)pv_row_count(x);
    a.width = (unsigned)pv_width(x);
    a.down = (unsigned)(pv_row_count(x) / pv_row_count(s));
    a.across = (unsigned)(pv_width(x) / pv_width(s));
    a.scales = (unsigned)pv_width(s);
    bool wide = a.across % 8 == 0 && cuda_aligned(a.x) && cuda_aligned(a.up) && cuda_aligned(a.out);
    int64_t units = wide ? a.width / 8 : a.width;
    unsigned threads = cuda_threads(units, THREADS);
    dim3 grid(a.row_count, cuda_ceil(units, threads));
    return cuda_launch(c, wide ? with_scale<KIND, 8> : with_scale<KIND, 1>, grid, threads, 0, a);
}

/* ---- the scale of everything ---- */

#define SEARCHERS 1024

typedef struct search {
    const void *x;
    void *out;
    float *found;      /* a number a block */
    unsigned *arrived; /* ~0 between runs */
    const int32_t *rows;
    pv_dtype dtype, out_dtype;
    int row_count, matrices;
    unsigned width;
    float largest;
} search;

template <int V> static __global__ void __launch_bounds__(THREADS) find_scale(search a)
{
    cuda_begin();
    __shared__ bool last;
    int64_t n = (int64_t)cuda_count(a.rows, a.row_count) * a.matrices *
                a.width; /* rows are counted in one matrix alone */
    float most = 0;
    for (int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; at < n;
         at += (int64_t)gridDim.x * THREADS * V) {
        float v[V];
        load<V>(v, a.x, a.dtype, at);
#pragma unroll
        for (int i = 0; i < V; i++)
            most = fmaxf(most, fabsf(v[i]));
    }
    most = cuda_over_block<cuda_larger>(most);
    if (threadIdx.x == 0) {
        a.found[blockIdx.x] = most;
        __threadfence();
        last = atomicAdd(a.arrived, 1) == gridDim.x - 2; /* from ~0 on */
        if (gridDim.x == 1)
            last = true;
    }
    __syncthreads();
    if (!last)
        return;
    most = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS)
        most = fmaxf(most, __ldcg(a.found + i));
    most = cuda_over_block<cuda_larger>(most);
    if (threadIdx.x == 0) {
        *a.arrived = ~0u;
        float s = __fdiv_rn(most, a.largest);
        const float one[1] = {s > 0 ? s : 1.0f};
        store<1>(a.out, a.out_dtype, 0, one);
    }
}

static bool accepts_search(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_fits(n->in[0]) && is_fraction(n->in[0]) && is_fraction(n->out[0]);
}

static size_t search_need(const cuda_device *device, const pv_node *n)
{
    (void)device, (void)n;
    return SEARCHERS * sizeof(float);
}

static size_t search_own(const cuda_device *device, const pv_node *n)
{
    (void)device, (void)n;
    return sizeof(unsigned);
}

static cudaError_t search_run(const cuda_call *c)
{
    const pv_tensor *x = c->node->in[0];
    search a = {};
    a.x = c->in[0];
    a.out = c->out[0];
    a.found = (float *)c->work;
    a.arrived = (unsigned *)c->own;
    a.rows = c->rows[0];
    a.dtype = x->dtype;
    a.out_dtype = c->node->out[0]->dtype;
    a.row_count = (int)pv_row_count(x);
    a.matrices = (int)(cuda_all_rows(x) / pv_row_count(x));
    a.width = (unsigned)pv_width(x);
    a.largest = c->node->attr.scale_for.dtype == PV_E4M3 ? 448.0f : 6.0f;
    bool wide = a.width % 8 == 0 && cuda_aligned(a.x);
    unsigned blocks = cuda_ceil(cuda_elements(x), THREADS * (wide ? 16 : 4));
    return cuda_launch(c, wide ? find_scale<8> : find_scale<1>, dim3(blocks < SEARCHERS ? blocks : SEARCHERS),
                       THREADS, 0, a);
}

extern "C" {
const cuda_kernel cuda_scale_for = {accepts_search, search_run, search_need, search_own, NULL};
const cuda_kernel cuda_quantize = {accepts_scaled, run_scaled<QUANTIZE>, NULL, NULL, NULL};
const cuda_kernel cuda_dequantize = {accepts_scaled, run_scaled<DEQUANTIZE>, NULL, NULL, NULL};
const cuda_kernel cuda_geglu_quantize = {accepts_scaled, run_scaled<GEGLU>, NULL, NULL, NULL};
}
