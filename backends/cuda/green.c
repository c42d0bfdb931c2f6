/* green.c - streams on a part of the device: a green context with so many multiprocessors, to see how a design scales down.
 *
 * The runtime has no words for it, so the driver's functions are looked up through it and libcuda is not linked. Memory, events
 * and code are those of the primary context, which stays current; what makes the difference is the stream, so every stream that
 * kernels are launched or captured in comes from cuda_stream. The driver sets multiprocessors apart in groups that can run
 * clusters, eight on Hopper: the count is rounded up, and d->sms is what came of it. */
#include "device.h"

#include <cuda.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SINCE 13000 /* of the signatures below; older drivers are refused before */

static struct {
    CUresult (*get)(CUdevice *device, int ordinal);
    CUresult (*resource)(CUdevice device, CUdevResource *resource, CUdevResourceType type);
    CUresult (*split)(CUdevResource *result, unsigned *groups, const CUdevResource *input,
                      CUdevResource *rest, unsigned flags, unsigned least);
    CUresult (*desc)(CUdevResourceDesc *desc, CUdevResource *resources, unsigned n);
    CUresult (*create)(CUgreenCtx *context, CUdevResourceDesc desc, CUdevice device, unsigned flags);
    CUresult (*destroy)(CUgreenCtx context);
    CUresult (*stream)(CUstream *stream, CUgreenCtx context, unsigned flags, int priority);
    CUresult (*words)(CUresult error, const char **words);
} driver;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static pv_status find_functions(void)
{
    static const char *const names[] = {"cuDeviceGet",
                                        "cuDeviceGetDevResource",
                                        "cuDevSmResourceSplitByCount",
                                        "cuDevResourceGenerateDesc",
                                        "cuGreenCtxCreate",
                                        "cuGreenCtxDestroy",
                                        "cuGreenCtxStreamCreate",
                                        "cuGetErrorString"};
    void *found[sizeof names / sizeof *names];
    _Static_assert(sizeof found == sizeof driver, "a name for each");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        enum cudaDriverEntryPointQueryResult result;
        found[i] = NULL;
        cudaError_t e = cudaGetDriverEntryPointByVersion(names[i], &found[i], SINCE, cudaEnableDefault, &result);
        if (e != cudaSuccess || !found[i]) {
            cudaGetLastError();
            return pv_fail(PV_E_UNAVAILABLE,
                           "a part of the device cannot be had: the NVIDIA driver has no %s", names[i]);
        }
    }
    pthread_mutex_lock(&turn);
    memcpy((void *)&driver, found, sizeof driver); /* objects to functions, as the runtime gives them */
    pthread_mutex_unlock(&turn);
    return PV_OK;
}

/* As cuda_check; but where the device is only being opened, what cannot be had is no failure of it. */
static pv_status check(cuda_device *d, CUresult error, const char *call)
{
    const char *text = NULL;
    char words[256];
    if (error == CUDA_SUCCESS)
        return PV_OK;
    if (driver.words(error, &text) != CUDA_SUCCESS || !text)
        text = "unknown error";
    snprintf(words, sizeof words, "%s%s: %s (%d)", d->stream ? "" : "a part of the device cannot be had: ", call, text,
             (int)error);
    return cuda_fail(d,
                     error == CUDA_ERROR_OUT_OF_MEMORY ? PV_E_MEMORY
                     : d->stream                       ? PV_E_DEVICE
                                                       : PV_E_UNAVAILABLE,
                     words);
}

pv_status cuda_green_open(cuda_device *d, int sms)
{
    CUdevice device = 0;
    CUdevResource all, part;
    CUdevResourceDesc desc = NULL;
    CUgreenCtx context = NULL;
    unsigned groups = 1;
    if (sms > d->sms)
        return pv_fail(PV_E_UNAVAILABLE, "%d multiprocessors are asked for, device %d has %d", sms, d->index,
                       d->sms);
    pv_status st = find_functions();
    if (!st)
        st = CUDA_CHECK(d, cudaFree(NULL)); /* the primary context is there */
    if (!st)
        st = check(d, driver.get(&device, d->index), "cuDeviceGet");
    if (!st)
        st = check(d, driver.resource(device, &all, CU_DEV_RESOURCE_TYPE_SM), "cuDeviceGetDevResource");
    if (!st)
        st = check(d, driver.split(&part, &groups, &all, NULL, 0, (unsigned)sms), "cuDevSmResourceSplitByCount");
    if (!st && !groups)
        st = pv_fail(PV_E_UNAVAILABLE,
                     "a part of the device cannot be had: %d multiprocessors cannot be set apart", sms);
    if (!st)
        st = check(d, driver.desc(&desc, &part, 1), "cuDevResourceGenerateDesc");
    if (!st)
        st = check(d, driver.create(&context, desc, device, CU_GREEN_CTX_DEFAULT_STREAM), "cuGreenCtxCreate");
    if (st)
        return st;
    d->green = context;
    d->sms = (int)part.sm.smCount;
    return PV_OK;
}

void cuda_green_close(cuda_device *d)
{
    if (d->green)
        driver.destroy(d->green);
    d->green = NULL;
}

pv_status cuda_stream(cuda_device *d, cudaStream_t *out)
{
    if (!d->green)
        return CUDA_CHECK(d, cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
    return check(d, driver.stream(out, d->green, CU_STREAM_NON_BLOCKING, 0), "cuGreenCtxStreamCreate");
}
