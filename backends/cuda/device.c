/* device.c - see device.h: errors of the runtime as statuses, and memory. */
#include "device.h"
#include "base/log.h"

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

int cuda_sms(const cuda_device *d)
{
    return d->sms;
}

bool cuda_clusters(const cuda_device *d)
{
    return d->clusters;
}

int cuda_block_room(const cuda_device *d)
{
    return d->block_room;
}

bool cuda_at_once(const cuda_device *device, const void *kernel, int clusters, int ranks, int threads, int shared)
{
    cuda_device *d = (cuda_device *)device; /* for having told */
    int cooperative = 0, most = 0, room = 0;
    if (!d->wgmma || d->green || atomic_load(&d->broken)) /* a part may have its multiprocessors anywhere */
        return false;
    cudaLaunchConfig_t config = {
        .gridDim = {(unsigned)(clusters * ranks), 1, 1},
        .blockDim = {(unsigned)threads, 1, 1},
        .dynamicSmemBytes = (size_t)shared,
        .stream = d->stream,
    };
    cudaError_t e = cudaSetDevice(d->index); /* asked while a plan is made, on any thread */
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, d->index);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, d->index);
    if (e == cudaSuccess && most >= shared)
        e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (e == cudaSuccess && most >= shared)
        e = cudaOccupancyMaxActiveClusters(&room, kernel, &config);
    cuda_forget();
    bool fits = e == cudaSuccess && cooperative && room >= clusters && d->sms >= clusters * ranks;
    if (!fits && !atomic_exchange(&d->told, 1))
        pv_log(PV_LOG_WARN,
               "device %d: a kernel of %d clusters of %d blocks with %d bytes of shared memory is left out, several do its "
               "work: %d clusters fit, %d multiprocessors, %d bytes, %s launches%s%s",
               d->index, clusters, ranks, shared, room, d->sms, most, cooperative ? "cooperative" : "no cooperative",
               e == cudaSuccess ? "" : "; ", e == cudaSuccess ? "" : cudaGetErrorString(e));
    return fits;
}
