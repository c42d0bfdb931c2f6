/* step.cu - the number of the running denoising step, put where the kernels read it. One thread, launched by itself before
 * the graph of a single step. A graph of all steps in a row has no need of it: there each step reads its own rows. */
#include "small.h"

static __global__ void set_step(int32_t *at, int32_t step)
{
    *at = step;
}

cudaError_t cuda_set_step(int32_t *at, int32_t step, cudaStream_t stream)
{
    set_step<<<1, 1, 0, stream>>>(at, step);
    return cudaGetLastError();
}

cudaError_t cuda_has_code(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, set_step);
}
