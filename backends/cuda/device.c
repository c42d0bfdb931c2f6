/* device.c - see device.h: errors of the runtime as statuses, and memory. */
#include "device.h"

#include <string.h>

static pv_status broken(int error)
{
    return pv_fail(PV_E_DEVICE, "the device failed before (%s) and this process can no longer use it",
                   cudaGetErrorString((cudaError_t)error));
}

pv_status cuda_enter(cuda_device *d)
{
    int error = atomic_load(&d->broken);
    return error ? broken(error) : CUDA_CHECK(d, cudaSetDevice(d->index));
}

bool cuda_usable(cuda_device *d)
{
    return !atomic_load(&d->broken) && cudaSetDevice(d->index) == cudaSuccess;
}

pv_status cuda_check(cuda_device *d, cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return PV_OK;
    cudaGetLastError(); /* forget it, unless it stays: then an innocent call fails as well */
    cudaError_t after = cudaStreamQuery(d->stream);
    bool stays = after != cudaSuccess && after != cudaErrorNotReady;
    int n = (int)strcspn(call, "(");
    if (stays)
        atomic_store(&d->broken, after);
    return pv_fail(error == cudaErrorMemoryAllocation && !stays ? PV_E_MEMORY : PV_E_DEVICE,
                   "%.*s: %s (%s)%s", n, call, cudaGetErrorString(error), cudaGetErrorName(error),
                   stays ? "; this process can no longer use the device" : "");
}

pv_status cuda_memory(cuda_device *d, size_t bytes, const char *what, void **out)
{
    cudaError_t error = cudaMalloc(out, bytes);
    if (error != cudaErrorMemoryAllocation)
        return cuda_check(d, error, "cudaMalloc");
    cudaGetLastError();
    size_t free = 0, total = 0;
    pv_status st = CUDA_CHECK(d, cudaMemGetInfo(&free, &total));
    *out = NULL;
    return st ? st
              : pv_fail(PV_E_MEMORY, "out of device memory: %zu bytes are needed for %s, %zu of %zu are free",
                        bytes, what, free, total);
}

pv_status cuda_host_memory(cuda_device *d, size_t bytes, const char *what, void **out)
{
    cudaError_t error = cudaHostAlloc(out, bytes, cudaHostAllocDefault);
    if (error != cudaErrorMemoryAllocation)
        return cuda_check(d, error, "cudaHostAlloc");
    cudaGetLastError();
    *out = NULL;
    return pv_fail(PV_E_MEMORY, "out of page-locked memory of the host: %zu bytes are needed for %s", bytes, what);
}
