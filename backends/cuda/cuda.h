/* cuda.h - what the files of the CUDA backend share: C11 host code and .cu files alike.
 *
 * A kernel entry enqueues work on the call's stream and does nothing else: no allocation, no synchronisation, no host read
 * of device data. So it can be captured into a graph as it stands. Sizes that vary from call to call (valid rows, key
 * counts, the running step) are read on the device, by the kernels. */
#ifndef PV_CUDA_H
#define PV_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "plan/backend.h"
#include <cuda_runtime_api.h>

typedef struct cuda_device cuda_device; /* cuda.c: device properties, cuBLASLt handle, stream */

/* A node with its device addresses. */
typedef struct cuda_call {
    const pv_node *node;
    const struct cuda_call *then;   /* what the same launch is to do next (see `joins`); NULL: nothing more */
    void *in[PV_MAX_IN], *out[PV_MAX_OUT];
    const int32_t *rows[PV_MAX_IN]; /* where the valid row count of that input stands (device), NULL: all rows */
    void *work;                     /* `need` bytes, 256-aligned, shared by all nodes: nothing lives in it from node to node */
    void *own;                      /* `own` bytes, shared by the op's nodes that ask for as many; what is in there stays. All bits 1 at first */
    cuda_device *device;
    cudaStream_t stream;
    int sms;       /* multiprocessors to fill */
    bool dependent; /* launch dependently on the kernel before: see cuda_begin in util.cuh */
    bool wgmma;     /* kernels with Hopper's own tensor instructions may be launched: see wgmma.cuh */
} cuda_call;

/* What no kernel writes, as one does the step: it may be read before the kernel in front has ended (cuda_begin in util.cuh). */
static inline bool cuda_given(const pv_tensor *t)
{
    return !t->producer && !t->is_step && (t->usage == PV_WEIGHT || t->usage == PV_CONST || t->usage == PV_IO);
}

/* Multiprocessors to fill; are there clusters of blocks; bytes of shared memory that a block may have (device.c). With
 * PIVOT_CUDA_PLAIN=1 the last two are what every device has. */
int cuda_sms(const cuda_device *device);
bool cuda_clusters(const cuda_device *device);
int cuda_block_room(const cuda_device *device);

/* Can `clusters` clusters of `ranks` blocks of a kernel of Hopper's, with that much dynamic shared memory, run at the same time?
 * Not where PIVOT_CUDA_PLAIN=1 asks for the kernels of all devices. The log says once when a device of Hopper's refuses. */
bool cuda_at_once(const cuda_device *device, const void *kernel, int clusters, int ranks, int threads,
                  int shared); /* device.c */

typedef struct cuda_kernel {
    bool (*accepts)(const cuda_device *device, const pv_node *n); /* looks at dtypes and shapes */
    cudaError_t (*enqueue)(const cuda_call *c);
    size_t (*need)(const cuda_device *device, const pv_node *n); /* bytes of working memory; NULL: none */
    size_t (*own)(const cuda_device *device, const pv_node *n);  /* bytes that stay; NULL: none */
    /* Can `next`, which reads c's first result as its first input and is the only one to read it, be done in the same launch,
     * which then need not write that result? NULL: never. */
    bool (*joins)(const cuda_call *c, const cuda_call *next);
} cuda_kernel;

/* One entry an op; the table is in cuda.c. */
extern const cuda_kernel cuda_linear,                                                       /* linear.c */
    cuda_attention,                                                                         /* attention.cu */
    cuda_expert_block,                                                                      /* expert.cu */
    cuda_euler_step,                                                                        /* euler.cu */
    cuda_attention_scores, cuda_softmax, cuda_attention_values,                             /* scores.cu */
    cuda_rms_norm, cuda_layer_norm, cuda_ada_rms_norm, cuda_gated_norm,                                      /* norm.cu */
    cuda_rope, cuda_rope_store, cuda_rope_cache,                                            /* rope.cu */
    cuda_add, cuda_mul, cuda_scale, cuda_gelu, cuda_silu, cuda_axpy, cuda_gated_residual, cuda_geglu, /* elementwise.cu */
    cuda_cast, cuda_concat, cuda_slice, cuda_row, cuda_store,                               /* layout.cu */
    cuda_transpose,                                                                         /* layout.cu */
    cuda_scale_for, cuda_quantize, cuda_dequantize, cuda_geglu_quantize,                    /* quantize.cu */
    cuda_linear_blocks,                                                                     /* linear_blocks.cu */
    cuda_patchify;                                                                          /* embed.cu */

#ifdef __cplusplus
}
#endif

#endif
