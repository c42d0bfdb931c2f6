/* embed.cu - patchify.
 *
 * Computes: pictures cut into patches, in the order of the patch convolution's weight, so that the convolution is a linear.
 * Layout: x [n, channels, height, width] -> [n patches, channels patch patch], patches row by row, each channel, row,
 *   column; any float dtypes.
 * Launch: a block a patch, a thread a column of the result; writes are contiguous, reads in runs of `patch`.
 * Numerics: one rounding where the result is narrower.
 * Bound: memory; 0.5 MB for three pictures, so the launch. */
#include "util.cuh"

static __global__ void patchify(void *out, pv_dtype out_dtype, const void *x, pv_dtype x_dtype, int channels, int height,
                                int width, int patch)
{
    cuda_begin();
    int across = width / patch, patches = height / patch * across;
    int picture = (int)blockIdx.x / patches, at = (int)blockIdx.x % patches, columns = channels * patch * patch;
    int top = at / across * patch, left = at % across * patch;
    for (int to = (int)threadIdx.x; to < columns; to += (int)blockDim.x) {
        int channel = to / (patch * patch), y = to / patch % patch, k = to % patch;
        int64_t from = (((int64_t)picture * channels + channel) * height + top + y) * width + left + k;
        cuda_put1(out, out_dtype, (int64_t)blockIdx.x * columns + to, cuda_get1(x, x_dtype, from));
    }
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 0);
}

static cudaError_t run(const cuda_call *c)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    return cuda_launch(c, patchify, dim3((unsigned)out->dim[0]), cuda_threads(out->dim[1], 256), 0, c->out[0],
                       out->dtype, c->in[0], x->dtype, (int)x->dim[1], (int)x->dim[2], (int)x->dim[3],
                       c->node->attr.patch.size);
}

extern "C" {
const cuda_kernel cuda_patchify = {accepts, run, NULL};
}
