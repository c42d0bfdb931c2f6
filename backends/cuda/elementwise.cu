/* elementwise.cu - add, mul, scale, gelu, silu, axpy, gated_residual, geglu.
 *
 * Computes: what its names say, element by element; each.cuh does the walking.
 * Layout: tensors [.., rows, width] row-major in f32, bf16 or f16, mixed as they come. The second operand of add and mul
 *   repeats along the first; a of axpy is one number on the device; mod of gated_residual is one row scale | shift | gate.
 *   axpy may work in place.
 * Launch: a block for up to 256 vectors of a row.
 * Numerics: f32; products and sums are rounded one by one, so a composite and its body give the same bytes.
 * Bound: memory; below some 100 KB the launch. */
#include "each.cuh"

struct sum_of {
    __device__ float operator()(const float *a) const
    {
        return a[0] + a[1];
    }
};
struct product_of {
    __device__ float operator()(const float *a) const
    {
        return a[0] * a[1];
    }
};
struct times {
    float factor;
    __device__ float operator()(const float *a) const
    {
        return a[0] * factor;
    }
};
struct gelu {
    __device__ float operator()(const float *a) const
    {
        return cuda_gelu_of(a[0]);
    }
};
struct silu {
    __device__ float operator()(const float *a) const
    {
        return cuda_silu_of(a[0]);
    }
};
struct onto { /* x + y z */
    __device__ float operator()(const float *a) const
    {
        return __fadd_rn(a[0], __fmul_rn(a[1], a[2]));
    }
};
struct gelu_times {
    __device__ float operator()(const float *a) const
    {
        return __fmul_rn(cuda_gelu_of(a[0]), a[1]);
    }
};

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 0);
}

static cuda_operand input(const cuda_call *c, int i)
{
    return cuda_of(c->node->in[i], c->in[i]);
}

template <class F> static cudaError_t unary(const cuda_call *c, F f)
{
    return cuda_each_of<1>(c, f, {{input(c, 0)}});
}

template <class F> static cudaError_t binary(const cuda_call *c)
{
    return cuda_each_of<2>(c, F(), {{input(c, 0), input(c, 1)}});
}

static cudaError_t scale_run(const cuda_call *c)
{
    times f = {c->node->attr.scale.factor};
    return unary(c, f);
}

static cudaError_t gelu_run(const cuda_call *c)
{
    return unary(c, gelu());
}

static cudaError_t silu_run(const cuda_call *c)
{
    return unary(c, silu());
}

static cudaError_t axpy_run(const cuda_call *c)
{
    cuda_operand a = input(c, 1);
    a.rows = 0; /* one number */
    return cuda_each_of<3>(c, onto(), {{input(c, 0), input(c, 2), a}});
}

static cudaError_t gated_run(const cuda_call *c)
{
    cuda_operand gate = input(c, 2);
    gate.first = 2 * (unsigned)pv_width(c->node->in[0]);
    return cuda_each_of<3>(c, onto(), {{input(c, 0), input(c, 1), gate}});
}

extern "C" {
const cuda_kernel cuda_add = {accepts, binary<sum_of>, NULL};
const cuda_kernel cuda_mul = {accepts, binary<product_of>, NULL};
const cuda_kernel cuda_scale = {accepts, scale_run, NULL};
const cuda_kernel cuda_gelu = {accepts, gelu_run, NULL};
const cuda_kernel cuda_silu = {accepts, silu_run, NULL};
const cuda_kernel cuda_axpy = {accepts, axpy_run, NULL};
const cuda_kernel cuda_gated_residual = {accepts, gated_run, NULL};
const cuda_kernel cuda_geglu = {accepts, binary<gelu_times>, NULL};
}
