/* kernels.c - stands for the backend's .cu files: entries that look whether their operands are in device memory, launch
 * something through the fake runtime and hand its answer on, as the real ones do. */
#include "fake.h"

#include "backends/cuda/small.h"

static cudaError_t launch(cudaStream_t stream)
{
    cudaLaunchConfig_t config = {.stream = stream};
    return cudaLaunchKernelExC(&config, NULL, NULL);
}

/* As a launch in CUDA's own brackets, after which one can only ask for the last error: an older one shows too. */
static cudaError_t bracketed(cudaStream_t stream)
{
    launch(stream);
    return cudaGetLastError();
}

static void check(const void *at, size_t bytes)
{
    if (!fake_holds(at, bytes))
        fake_misuse("a kernel's operand outside of device memory");
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return n->n_out > 0;
}

static cudaError_t enqueue(const cuda_call *c)
{
    const pv_node *n = c->node;
    for (int i = 0; i < n->n_in; i++) {
        check(c->in[i], pv_tensor_bytes(n->in[i]));
        if (c->rows[i])
            check(c->rows[i], sizeof *c->rows[i]);
    }
    for (int i = 0; i < n->n_out; i++)
        check(c->out[i], pv_tensor_bytes(n->out[i]));
    return launch(c->stream);
}

static size_t need(const cuda_device *device, const pv_node *n)
{
    (void)device, (void)n;
    return 4096;
}

const cuda_kernel cuda_attention = {accepts, enqueue, need}, cuda_attention_scores = {accepts, enqueue, NULL},
                  cuda_softmax = {accepts, enqueue, NULL}, cuda_attention_values = {accepts, enqueue, NULL},
                  cuda_rms_norm = {accepts, enqueue, NULL}, cuda_layer_norm = {accepts, enqueue, NULL},
                  cuda_ada_rms_norm = {accepts, enqueue, NULL}, cuda_gated_norm = {accepts, enqueue, NULL},
                  cuda_rope = {accepts, enqueue, NULL}, cuda_rope_store = {accepts, enqueue, NULL},
                  cuda_add = {accepts, enqueue, NULL}, cuda_mul = {accepts, enqueue, NULL},
                  cuda_scale = {accepts, enqueue, NULL}, cuda_gelu = {accepts, enqueue, NULL},
                  cuda_silu = {accepts, enqueue, NULL}, cuda_axpy = {accepts, enqueue, NULL},
                  cuda_gated_residual = {accepts, enqueue, NULL}, cuda_geglu = {accepts, enqueue, NULL},
                  cuda_cast = {accepts, enqueue, NULL}, cuda_concat = {accepts, enqueue, NULL},
                  cuda_slice = {accepts, enqueue, NULL}, cuda_row = {accepts, enqueue, NULL},
                  cuda_store = {accepts, enqueue, NULL}, cuda_patchify = {accepts, enqueue, NULL};

cudaError_t cuda_set_step(int32_t *at, int32_t step, cudaStream_t stream)
{
    check(at, sizeof *at);
    cudaError_t e = bracketed(stream);
    if (e == cudaSuccess)
        *at = step;
    return e;
}

cudaError_t cuda_has_code(void)
{
    struct cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, NULL);
}

cudaError_t cuda_widen(float *dst, const void *src, pv_dtype dtype, int64_t n, cudaStream_t stream)
{
    check(dst, sizeof *dst * (size_t)n);
    check(src, pv_dtype_bytes(dtype, (size_t)n));
    return bracketed(stream);
}

cudaError_t cuda_finish_product(const cuda_call *c, const void *product, int bias, bool gelu)
{
    (void)bias, (void)gelu;
    check(product, (size_t)pv_elements(c->node->out[0]) * sizeof(float));
    return launch(c->stream);
}

cudaError_t cuda_plain_product(const cuda_plain *p, cudaStream_t stream)
{
    check(p->x, pv_dtype_bytes(p->in, (size_t)(p->m * p->k)));
    check(p->w, pv_dtype_bytes(p->in, (size_t)(p->n * p->k)));
    check(p->y, pv_dtype_bytes(p->out, (size_t)(p->m * p->n)));
    return bracketed(stream);
}

cudaError_t cuda_touch(const void *data, size_t bytes, cudaStream_t stream)
{
    check(data, bytes);
    return bracketed(stream);
}
