/* device.c - see device.h: errors of the runtime as statuses, and memory. */
#include "device.h"

#include <stdio.h>
#include <string.h>

#define ANEW "CUDA can use this device again only in a process started anew"

pv_status cuda_enter(cuda_device *d)
{
    if (atomic_load(&d->broken))
        return pv_fail(PV_E_DEVICE, "device %d failed before: %s; " ANEW, d->index, d->first);
    cuda_forget();
    return CUDA_CHECK(d, cudaSetDevice(d->index));
}

bool cuda_usable(cuda_device *d)
{
    if (atomic_load(&d->broken))
        return false;
    cudaSetDevice(d->index); /* should it fail: memory and handles know their device */
    return true;
}

void cuda_forget(void)
{
    cudaGetLastError();
}

/* What is free, for the words of a call that found too little; empty where that cannot be asked, or another device is this
 * thread's. */
static void tell_room(const cuda_device *d, char *out, size_t size)
{
    size_t free = 0, total = 0;
    int index = -1;
    if (cudaGetDevice(&index) == cudaSuccess && index == d->index && cudaMemGetInfo(&free, &total) == cudaSuccess)
        snprintf(out, size, "; %zu of %zu bytes of device memory are free", free, total);
    cuda_forget();
}

pv_status cuda_fail(cuda_device *d, pv_status st, const char *words)
{
    char more[128] = "";
    cuda_forget();
    cudaError_t after = cudaStreamQuery(d->stream); /* innocent: where the error stays, it fails as well */
    bool stays = after != cudaSuccess && after != cudaErrorNotReady; /* which is left behind as an error, too */
    if (stays && !atomic_flag_test_and_set(&d->breaking)) {
        snprintf(d->first, sizeof d->first, "%s", words);
        atomic_store(&d->broken, 1);
    }
    if (stays)
        snprintf(more, sizeof more, "; " ANEW);
    else if (st == PV_E_MEMORY)
        tell_room(d, more, sizeof more);
    return pv_fail(stays ? PV_E_DEVICE : st, "%s%s", words, more);
}

pv_status cuda_check(cuda_device *d, cudaError_t error, const char *call)
{
    char words[256];
    if (error == cudaSuccess)
        return PV_OK;
    int lt = error == cudaErrorExternalDevice ? atomic_exchange(&d->lt_failed, 0) : 0;
    if (lt)
        return cuda_check_lt(d, (cublasStatus_t)lt, "cublasLtMatmul");
    snprintf(words, sizeof words, "%.*s: %s (%s)", (int)strcspn(call, "("), call, cudaGetErrorString(error),
             cudaGetErrorName(error));
    return cuda_fail(d, error == cudaErrorMemoryAllocation ? PV_E_MEMORY : PV_E_DEVICE, words);
}

pv_status cuda_check_lt(cuda_device *d, cublasStatus_t status, const char *call)
{
    char words[256];
    if (!status)
        return PV_OK;
    snprintf(words, sizeof words, "%s: %s", call, cublasLtGetStatusString(status));
    return cuda_fail(d, status == CUBLAS_STATUS_ALLOC_FAILED ? PV_E_MEMORY : PV_E_DEVICE, words);
}

pv_status cuda_memory(cuda_device *d, size_t bytes, const char *what, void **out)
{
    cudaError_t error = cudaMalloc(out, bytes);
    if (error != cudaErrorMemoryAllocation)
        return cuda_check(d, error, "cudaMalloc");
    cuda_forget();
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

bool cuda_at_once(const cuda_device *d, const void *kernel, int clusters, int ranks, int threads, int shared)
{
    int cooperative = 0, most = 0, room = 0;
    if (!d->wgmma || d->sms < clusters * ranks)
        return false;
    cudaLaunchConfig_t config = {
        .gridDim = {(unsigned)(clusters * ranks), 1, 1},
        .blockDim = {(unsigned)threads, 1, 1},
        .dynamicSmemBytes = (size_t)shared,
    };
    bool fits = !cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, d->index) && cooperative &&
                !cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, d->index) && most >= shared &&
                !cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared) &&
                !cudaOccupancyMaxActiveClusters(&room, kernel, &config) && room >= clusters;
    cuda_forget();
    return fits;
}
