/* linear_thin.cu - y = x w^T + b in f32 for rows of few numbers: an action, 32 wide, made a token.
 *
 * Computes: x [M, K], w [N, K], b [N] or none, y [M, N], all f32, row-major; K a multiple of 4, up to 64.
 * Launch: a block 128 columns of 4 rows, a thread a column. A thread holds its row of w, asked for before the kernel in
 *   front has ended where no kernel writes it; x is the same for all threads of a block.
 * Numerics: f32, products and sums fused, in the order of k.
 * Bound: the launch. The library's kernels for such a product are not launched dependently, and take twice as long. */
#include "small.h"
#include "util.cuh"

#define THREADS 128
#define ROWS    4

template <int VECTORS> static __global__ void __launch_bounds__(THREADS) thin(cuda_thin p)
{
    const int column = (int)(blockIdx.x * THREADS + threadIdx.x);
    const bool in = column < p.n;
    float4 w[VECTORS];
    float bias = 0;
    auto fetch = [&]() {
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            w[v] = in && v * 4 < p.k ? *(const float4 *)(p.w + (int64_t)column * p.k + v * 4) : make_float4(0, 0, 0, 0);
    };
    if (p.ahead)
        fetch();
    cuda_begin();
    if (!p.ahead)
        fetch();
    if (p.bias && in)
        bias = p.bias[column];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int64_t row = (int64_t)blockIdx.y * ROWS + r;
        float sum = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float4 x = row < p.m && v * 4 < p.k ? *(const float4 *)(p.x + row * p.k + v * 4) : make_float4(0, 0, 0, 0);
            sum = fmaf(x.x, w[v].x, sum);
            sum = fmaf(x.y, w[v].y, sum);
            sum = fmaf(x.z, w[v].z, sum);
            sum = fmaf(x.w, w[v].w, sum);
        }
        if (row < p.m && in)
            p.y[row * p.n + column] = sum + bias;
    }
}

extern "C" cudaError_t cuda_thin_product(const cuda_call *c, const cuda_thin *p)
{
    dim3 grid(cuda_ceil(p->n, THREADS), cuda_ceil(p->m, ROWS));
    return cuda_launch(c, p->k <= 32 ? thin<8> : thin<16>, grid, THREADS, 0, *p);
}
