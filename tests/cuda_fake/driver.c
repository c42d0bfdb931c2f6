/* driver.c - see fake.h: the functions of the driver that the backend looks up, for a part of a device. */
#include "fake.h"

#include <cuda.h>
#include <stdint.h>
#include <string.h>

#define GROUP 2 /* multiprocessors that are set apart together */

/* The driver's numbers are the runtime's. */
static CUresult as_driver(const char *call)
{
    return (CUresult)fake_enter(call);
}

static CUresult get(CUdevice *out, int ordinal)
{
    *out = ordinal;
    return as_driver("cuDeviceGet");
}

static CUresult resource(CUdevice of, CUdevResource *out, CUdevResourceType type)
{
    (void)of;
    memset(out, 0, sizeof *out);
    out->type = type;
    out->sm.smCount = 4;
    return as_driver("cuDeviceGetDevResource");
}

static CUresult split(CUdevResource *result, unsigned *groups, const CUdevResource *input, CUdevResource *rest, unsigned flags,
                      unsigned least)
{
    (void)rest, (void)flags;
    *result = *input;
    result->sm.smCount = (least + GROUP - 1) / GROUP * GROUP;
    *groups = result->sm.smCount <= input->sm.smCount;
    return as_driver("cuDevSmResourceSplitByCount");
}

static CUresult desc(CUdevResourceDesc *out, CUdevResource *resources, unsigned n)
{
    (void)n;
    *out = (CUdevResourceDesc)(uintptr_t)resources->sm.smCount;
    return as_driver("cuDevResourceGenerateDesc");
}

static CUresult create(CUgreenCtx *out, CUdevResourceDesc of, CUdevice on, unsigned flags)
{
    CUresult e = as_driver("cuGreenCtxCreate");
    if (!of || !(flags & CU_GREEN_CTX_DEFAULT_STREAM))
        fake_misuse("a green context without resources or flag");
    (void)on;
    if (!e)
        *out = fake_take();
    return e;
}

static CUresult destroy(CUgreenCtx context)
{
    fake_give_back(context);
    return as_driver("cuGreenCtxDestroy");
}

static CUresult stream(CUstream *out, CUgreenCtx context, unsigned flags, int priority)
{
    (void)context, (void)priority;
    return (CUresult)cudaStreamCreateWithFlags(out, flags);
}

static CUresult words(CUresult error, const char **out)
{
    *out = cudaGetErrorString((cudaError_t)error);
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **out, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *status)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } all[] = {{"cuDeviceGet", (void (*)(void))get},
               {"cuDeviceGetDevResource", (void (*)(void))resource},
               {"cuDevSmResourceSplitByCount", (void (*)(void))split},
               {"cuDevResourceGenerateDesc", (void (*)(void))desc},
               {"cuGreenCtxCreate", (void (*)(void))create},
               {"cuGreenCtxDestroy", (void (*)(void))destroy},
               {"cuGreenCtxStreamCreate", (void (*)(void))stream},
               {"cuGetErrorString", (void (*)(void))words}};
    cudaError_t e = fake_enter(__func__);
    (void)version, (void)flags;
    *out = NULL;
    *status = cudaDriverEntryPointSymbolNotFound;
    for (size_t i = 0; !e && i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, symbol)) {
            memcpy(out, &all[i].function, sizeof *out);
            *status = cudaDriverEntryPointSuccess;
        }
    return e;
}
