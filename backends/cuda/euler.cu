/* euler.cu - euler_step: what ends a step of the denoising loop, x' = x + a v with v = ada_rms_norm(h) w^T + b.
 *
 * Computes: the norm of a row of h [rows, K], its product with w [N, K], and the next version of that row of x [rows, N],
 *   which may be where x is. openpi pi0.py, sample_actions: step, and gemma.py RMSNorm with its condition.
 * Layout: h, mod = scale | shift | gate [3 K], w, b [N], x, a [1] all f32, row-major; K a multiple of 4, up to 1024.
 * Launch: a block a row, 16 warps. Two outputs' weights a warp are asked for before the kernel in front has ended, where no
 *   kernel writes them.
 * Numerics: f32; the norm as norm.cu has it, dot products four columns a lane, lanes by butterfly; sum and product onto x
 *   rounded one by one.
 * Bound: latency: a norm over the row, a row of w, and the launch. */
#include "util.cuh"

#define WARPS   16
#define VECTORS 8 /* of four columns, a lane */
#define MOST    (VECTORS * 128)
#define AHEAD   2 /* outputs a warp */

typedef struct euler_args {
    const float *h, *mod, *w, *b, *x, *a;
    float *out;
    const int32_t *rows;
    int width, n, row_cap;
    float eps;
    bool ahead;
} euler_args;

/* A lane's part of rows of w. */
static __device__ inline void fetch(float4 (&w)[AHEAD][VECTORS], const euler_args &a, int first)
{
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int at = (v * 32 + (int)threadIdx.x % 32) * 4, n = first + i * WARPS;
            w[i][v] = n < a.n && at < a.width ? *(const float4 *)(a.w + (int64_t)n * a.width + at) : make_float4(0, 0, 0, 0);
        }
}

/* Those outputs' b and x. */
static __device__ inline void fetch_ends(float (&b)[AHEAD], float (&x)[AHEAD], const euler_args &a, int first)
{
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        int n = first + i * WARPS;
        b[i] = n < a.n ? a.b[n] : 0;
        x[i] = n < a.n ? a.x[(int64_t)blockIdx.x * a.n + n] : 0;
    }
}

static __device__ inline float dot(float sum, float4 a, float4 b)
{
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
    sum = fmaf(a.z, b.z, sum);
    return fmaf(a.w, b.w, sum);
}

static __global__ void __launch_bounds__(WARPS * 32) euler_step(euler_args a)
{
    __shared__ __align__(16) float y[MOST];
    float4 w[AHEAD][VECTORS];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (a.ahead)
        fetch(w, a, warp);
    cuda_begin();
    if (!cuda_valid(blockIdx.x, a.rows, a.row_cap))
        return;
    if (!a.ahead)
        fetch(w, a, warp);

    float b[AHEAD], x[AHEAD], step = *a.a;
    fetch_ends(b, x, a, warp);
    const float *h = a.h + (int64_t)blockIdx.x * a.width;
    float kept[MOST / (WARPS * 32)], scale[MOST / (WARPS * 32)], shift[MOST / (WARPS * 32)], squares = 0;
#pragma unroll
    for (int i = 0; i < MOST / (WARPS * 32); i++) {
        int at = (int)threadIdx.x + i * WARPS * 32;
        bool in = at < a.width;
        kept[i] = in ? h[at] : 0;
        scale[i] = in ? a.mod[at] : 0;
        shift[i] = in ? a.mod[a.width + at] : 0;
        squares += kept[i] * kept[i];
    }
    float r = 1.0f / sqrtf(cuda_over_block<cuda_plus>(squares) / (float)a.width + a.eps);
#pragma unroll
    for (int i = 0; i < MOST / (WARPS * 32); i++) {
        float one = __fmul_rn(kept[i], r);
        y[threadIdx.x + i * WARPS * 32] = __fadd_rn(__fadd_rn(one, __fmul_rn(one, scale[i])), shift[i]);
    }
    __syncthreads();

    for (int first = warp; first < a.n; first += AHEAD * WARPS) {
        float sum[AHEAD] = {};
        if (first != warp) {
            fetch(w, a, first);
            fetch_ends(b, x, a, first);
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float4 part = *(const float4 *)(y + (v * 32 + lane) * 4);
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                sum[i] = dot(sum[i], part, w[i][v]);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int n = first + i * WARPS;
            float v = cuda_over_warp<cuda_plus>(sum[i]);
            if (lane == 0 && n < a.n)
                a.out[(int64_t)blockIdx.x * a.n + n] = __fadd_rn(x[i], __fmul_rn(step, __fadd_rn(v, b[i])));
        }
    }
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    bool ok = n->out[0]->dtype == PV_F32 && cuda_fits(n->in[0]) && cuda_fits(n->in[2]) && pv_width(n->in[0]) <= MOST &&
              pv_width(n->in[0]) % 4 == 0;
    for (int i = 0; ok && i < n->n_in; i++)
        ok = n->in[i]->dtype == PV_F32;
    return ok;
}

static cudaError_t enqueue(const cuda_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *h = n->in[0];
    euler_args a = {};
    a.h = (const float *)c->in[0];
    a.mod = (const float *)c->in[1];
    a.w = (const float *)c->in[2];
    a.b = (const float *)c->in[3];
    a.x = (const float *)c->in[4];
    a.a = (const float *)c->in[5];
    a.out = (float *)c->out[0];
    a.rows = c->rows[0];
    a.width = (int)pv_width(h);
    a.n = (int)n->in[2]->dim[0];
    a.row_cap = (int)pv_row_count(h);
    a.eps = n->attr.norm.eps;
    a.ahead = cuda_given(n->in[2]);
    return cuda_launch(c, euler_step, dim3((unsigned)cuda_all_rows(h)), WARPS * 32, 0, a);
}

extern "C" {
const cuda_kernel cuda_euler_step = {accepts, enqueue, NULL};
}
