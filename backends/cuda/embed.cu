/* embed.cu - patchify.
 *
 * Computes: pictures cut into patches, in the order of the patch convolution's weight, so that the convolution is a linear;
 *   a pixel v becomes v / 255 * 2 - 1.
 * Layout: x u8 [n, height, width, channels] -> [n patches, channels patch patch], patches row by row, each channel, row,
 *   column; any float dtype.
 * Launch: a block a patch, a thread a column of the result; writes are contiguous, the bytes read lie in `patch` short runs.
 * Numerics: f32, rounded after each step as on the host (an exact product by 2 may be contracted); one more rounding where
 *   the result is narrower.
 * Bound: memory; 0.5 MB for three pictures, so the launch. */
#include "util.cuh"

static __global__ void patchify(void *out, pv_dtype out_dtype, const uint8_t *x, int height, int width, int channels,
                                int patch)
{
    cuda_begin();
    int across = width / patch, patches = height / patch * across;
    int picture = (int)blockIdx.x / patches, at = (int)blockIdx.x % patches, columns = channels * patch * patch;
    int top = at / across * patch, left = at % across * patch;
    for (int to = (int)threadIdx.x; to < columns; to += (int)blockDim.x) {
        int channel = to / (patch * patch), y = to / patch % patch, k = to % patch;
        int64_t from = (((int64_t)picture * height + top + y) * width + left + k) * channels + channel;
        cuda_put1(out, out_dtype, (int64_t)blockIdx.x * columns + to, __fdiv_rn((float)x[from], 255.0f) * 2.0f - 1.0f);
    }
}

static bool accepts(const cuda_device *device, const pv_node *n)
{
    (void)device;
    return cuda_floats(n, 1);
}

static cudaError_t run(const cuda_call *c)
{
    const pv_tensor *x = c->node->in[0], *out = c->node->out[0];
    return cuda_launch(c, patchify, dim3((unsigned)out->dim[0]), cuda_threads(out->dim[1], 256), 0, c->out[0],
                       out->dtype, (const uint8_t *)c->in[0], (int)x->dim[1], (int)x->dim[2], (int)x->dim[3],
                       c->node->attr.patch.size);
}

extern "C" {
const cuda_kernel cuda_patchify = {accepts, run, NULL};
}
