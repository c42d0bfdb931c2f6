/* cublaslt.c - see fake.h: the part of cuBLASLt that the backend calls. Layouts keep what they were given, so that a
 * product can look whether its operands are there. */
#include "fake.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE, ROWS, COLS, STRIDE, BATCH, BATCH_STRIDE }; /* data[] of a layout */

static cublasStatus_t enter(const char *call)
{
    switch (fake_enter(call)) {
    case cudaSuccess:
        return CUBLAS_STATUS_SUCCESS;
    case cudaErrorMemoryAllocation:
        return CUBLAS_STATUS_ALLOC_FAILED;
    case cudaErrorNotSupported:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    default:
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
}
#define ENTER() enter(__func__)

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED"
           : status == CUBLAS_STATUS_ALLOC_FAILED   ? "CUBLAS_STATUS_ALLOC_FAILED"
                                                    : "CUBLAS_STATUS_FAKE";
}

size_t cublasLtGetVersion(void)
{
    return 130100;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    cublasStatus_t st = ENTER();
    if (!st)
        *handle = fake_take();
    return st;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    cublasStatus_t st = ENTER();
    fake_give_back(handle); /* host memory: also where the device is broken */
    return st;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t m, size_t size, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t stride)
{
    cublasStatus_t st = ENTER();
    memset(m, 0, size);
    const uint64_t data[] = {(uint64_t)type, rows, cols, (uint64_t)stride, 1, 0};
    memcpy(m->data, data, sizeof data);
    return st;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t m, cublasLtMatrixLayoutAttribute_t what,
                                                const void *value, size_t size)
{
    cublasStatus_t st = ENTER();
    int32_t count;
    if (what == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && size == sizeof count) {
        memcpy(&count, value, size);
        m->data[BATCH] = (uint64_t)count;
    } else if (what == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && size == sizeof(int64_t)) {
        memcpy(&m->data[BATCH_STRIDE], value, size);
    } else {
        fake_misuse("an attribute of a layout");
    }
    return st;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t p, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale)
{
    (void)compute, (void)scale;
    memset(p, 0, size);
    return ENTER();
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t size)
{
    (void)p, (void)what, (void)value, (void)size;
    return ENTER();
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t size)
{
    memset(p, 0, size);
    return ENTER();
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t what, const void *value,
                                                    size_t size)
{
    (void)p, (void)what, (void)value, (void)size;
    return ENTER();
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t p,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int *n)
{
    cublasStatus_t st = ENTER();
    (void)handle, (void)p, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *n = st ? 0 : wanted < 2 ? wanted : 2;
    memset(found, 0, sizeof *found * (size_t)*n);
    return st;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result)
{
    cublasStatus_t st = ENTER();
    (void)handle, (void)p, (void)a, (void)b, (void)c, (void)d, (void)algo;
    memset(result, 0, sizeof *result);
    return st;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t what, void *value, size_t size,
                                                    size_t *written)
{
    cublasStatus_t st = ENTER();
    (void)algo, (void)what;
    if (!st) {
        memset(value, 0, size);
        *written = size;
    }
    return st;
}

static void check(const void *at, cublasLtMatrixLayout_t m)
{
    int64_t offset = (int64_t)m->data[BATCH_STRIDE] * ((int64_t)m->data[BATCH] - 1);
    uint64_t type = m->data[TYPE];
    size_t element = type == CUDA_R_8F_E4M3 ? 1 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 4;
    size_t elements = (size_t)((m->data[COLS] - 1) * m->data[STRIDE] + m->data[ROWS]);
    if (!fake_holds(at, elements * element) || !fake_holds((const char *)at + offset * (int64_t)element, elements * element))
        fake_misuse("a product outside of device memory");
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t p, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_is, const void *b, cublasLtMatrixLayout_t b_is, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_is, void *d, cublasLtMatrixLayout_t d_is,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream)
{
    cublasStatus_t st = ENTER();
    (void)handle, (void)p, (void)alpha, (void)beta, (void)algo, (void)stream;
    if (st)
        return st;
    check(a, a_is);
    check(b, b_is);
    check(c, c_is);
    check(d, d_is);
    if (!fake_holds(workspace, workspace_bytes))
        fake_misuse("a workspace outside of device memory");
    return st;
}
