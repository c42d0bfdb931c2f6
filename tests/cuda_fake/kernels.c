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

static size_t own(const cuda_device *device, const pv_node *n)
{
    (void)device, (void)n;
    return 8192;
}

/* In two clusters of two blocks, all at once. */
static bool accepts_layer(const cuda_device *device, const pv_node *n)
{
    static const char kernel;
    return accepts(device, n) && cuda_at_once(device, &kernel, 2, 2, 64, 200 << 10);
}

static bool joins(const cuda_call *c, const cuda_call *next)
{
    return c->in[10] == next->in[10];
}

/* Of all the layers that were joined. */
static cudaError_t enqueue_layers(const cuda_call *c)
{
    cudaError_t e = cudaSuccess;
    for (const cuda_call *at = c; at; at = at->then) {
        check(at->own, 8192);
        cuda_call one = *at;
        one.stream = c->stream;
        e = e == cudaSuccess ? enqueue(&one) : e;
    }
    return e;
}

const cuda_kernel cuda_expert_block = {
    .accepts = accepts_layer, .enqueue = enqueue_layers, .own = own, .joins = joins};
const cuda_kernel cuda_attention = {.accepts = accepts, .enqueue = enqueue, .need = need}, cuda_attention_scores = {.accepts = accepts, .enqueue = enqueue},
                  cuda_softmax = {.accepts = accepts, .enqueue = enqueue}, cuda_attention_values = {.accepts = accepts, .enqueue = enqueue},
                  cuda_rms_norm = {.accepts = accepts, .enqueue = enqueue}, cuda_layer_norm = {.accepts = accepts, .enqueue = enqueue},
                  cuda_ada_rms_norm = {.accepts = accepts, .enqueue = enqueue}, cuda_gated_norm = {.accepts = accepts, .enqueue = enqueue},
                  cuda_rope = {.accepts = accepts, .enqueue = enqueue}, cuda_rope_store = {.accepts = accepts, .enqueue = enqueue},
                  cuda_rope_cache = {.accepts = accepts, .enqueue = enqueue},
                  cuda_add = {.accepts = accepts, .enqueue = enqueue}, cuda_mul = {.accepts = accepts, .enqueue = enqueue},
                  cuda_scale = {.accepts = accepts, .enqueue = enqueue}, cuda_gelu = {.accepts = accepts, .enqueue = enqueue},
                  cuda_silu = {.accepts = accepts, .enqueue = enqueue}, cuda_axpy = {.accepts = accepts, .enqueue = enqueue},
                  cuda_gated_residual = {.accepts = accepts, .enqueue = enqueue}, cuda_geglu = {.accepts = accepts, .enqueue = enqueue},
                  cuda_cast = {.accepts = accepts, .enqueue = enqueue}, cuda_concat = {.accepts = accepts, .enqueue = enqueue},
                  cuda_slice = {.accepts = accepts, .enqueue = enqueue}, cuda_row = {.accepts = accepts, .enqueue = enqueue},
                  cuda_transpose = {.accepts = accepts, .enqueue = enqueue}, cuda_scale_for = {.accepts = accepts, .enqueue = enqueue, .need = need, .own = own},
                  cuda_quantize = {.accepts = accepts, .enqueue = enqueue}, cuda_dequantize = {.accepts = accepts, .enqueue = enqueue},
                  cuda_geglu_quantize = {.accepts = accepts, .enqueue = enqueue}, cuda_linear_blocks = {.accepts = accepts, .enqueue = enqueue},
                  cuda_store = {.accepts = accepts, .enqueue = enqueue}, cuda_patchify = {.accepts = accepts, .enqueue = enqueue},
                  cuda_euler_step = {.accepts = accepts, .enqueue = enqueue};

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

cudaError_t cuda_wide_products(const cuda_call *c, const cuda_wide *p)
{
    check(p->x, pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->k)));
    for (int i = 0; i < p->count; i++) {
        check(p->w[i], pv_dtype_bytes(PV_BF16, (size_t)(p->n[i] * p->k)));
        check(p->y[i], pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->n[i])));
    }
    return launch(c->stream);
}

bool cuda_gelu_fits(int sms, int64_t m, int64_t n)
{
    return m > 0 && n > 0 && sms > 0;
}

cudaError_t cuda_gelu_product(const cuda_call *c, const cuda_wide *p)
{
    check(p->x, pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->k)));
    check(p->w[0], pv_dtype_bytes(PV_BF16, (size_t)(p->n[0] * p->k)));
    check(p->y[0], pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->n[0])));
    return launch(c->stream);
}

cudaError_t cuda_thin_product(const cuda_call *c, const cuda_thin *p)
{
    check(p->x, sizeof *p->x * (size_t)(p->m * p->k));
    check(p->w, sizeof *p->w * (size_t)(p->n * p->k));
    check(p->y, sizeof *p->y * (size_t)(p->m * p->n));
    return launch(c->stream);
}

cudaError_t cuda_geglu_product(const cuda_call *c, const cuda_wide *p)
{
    check(p->x, pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->k)));
    check(p->w[0], pv_dtype_bytes(PV_BF16, (size_t)(p->n[0] * p->k)));
    check(p->w[1], pv_dtype_bytes(PV_BF16, (size_t)(p->n[0] * p->k)));
    check(p->y[0], pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->n[0])));
    return launch(c->stream);
}

/* Long ones, as on a device, so that both ways are gone. */
size_t cuda_parts_bytes(int sms, int64_t m, int64_t n, int64_t k)
{
    return sms > 0 && k >= 2 * n ? sizeof(float) * (size_t)(m * n) : 0;
}

cudaError_t cuda_parts_product(const cuda_call *c, const cuda_parts *p)
{
    check(p->x, pv_dtype_bytes(PV_BF16, (size_t)(p->m * p->k)));
    check(p->w, pv_dtype_bytes(PV_BF16, (size_t)(p->n * p->k)));
    check(p->h, sizeof *p->h * (size_t)(p->m * p->n));
    check(p->y, sizeof *p->y * (size_t)(p->m * p->n));
    check(c->work, cuda_parts_bytes(c->sms, p->m, p->n, p->k));
    check(c->own, CUDA_PARTS_TICKETS);
    return launch(c->stream);
}

cudaError_t cuda_touch(const void *data, size_t bytes, cudaStream_t stream)
{
    check(data, bytes);
    return bracketed(stream);
}
