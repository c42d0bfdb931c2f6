/* tma.cuh - boxes of a matrix copied into shared memory by the copy engine of Hopper, whole tiles at a word from one
 * thread.
 *
 * A matrix is told to it as a CUtensorMap: rows of bf16 numbers, boxes of 64 columns (128 bytes: the lines of WGMMA_128 in
 * wgmma.cuh, swizzled alike) by some rows. What a box has beyond the matrix is zero. With a mask of the cluster's blocks
 * the box arrives at the same place in each of them, and each one's barrier is told. PTX manual, "tensor". */
#ifndef PV_CUDA_TMA_CUH
#define PV_CUDA_TMA_CUH

#include "cluster.cuh"
#include "wgmma.cuh"

#include <cuda.h>
#include <cuda_runtime_api.h>

/* ---- host ---- */

/* `planes` matrices of `rows` rows, one behind the other. width in numbers, a multiple of 8; data on a multiple of 16 bytes;
 * boxes of up to 256 rows in all. */
static inline cudaError_t cuda_tensor_planes(CUtensorMap *map, const void *data, int64_t planes, int64_t rows,
                                             int64_t width, int box_planes, int box_rows)
{
    static const cuuint32_t one[3] = {1, 1, 1};
    const cuuint64_t size[3] = {(cuuint64_t)width, (cuuint64_t)rows, (cuuint64_t)planes};
    const cuuint64_t step[2] = {(cuuint64_t)width * 2, (cuuint64_t)(rows * width) * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, (cuuint32_t)box_planes};
    void *function = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t e =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    if (e != cudaSuccess || !function)
        return e != cudaSuccess ? e : cudaErrorNotSupported;
    CUresult r = ((decltype(&cuTensorMapEncodeTiled))function)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, planes > 1 ? 3 : 2, (void *)data, size, step, box, one,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

static inline cudaError_t cuda_tensor_map(CUtensorMap *map, const void *data, int64_t rows, int64_t width, int box_rows)
{
    return cuda_tensor_planes(map, data, 1, rows, width, 1, box_rows);
}

/* ---- device ---- */

#if CUDA_WGMMA

/* Has the map brought near, before the first box. */
static __device__ inline void cuda_map_ahead(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* This phase of the barrier also waits for so many bytes; counts as one arrival. */
static __device__ inline void cuda_expect_bytes(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

static __device__ inline void cuda_box(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

/* What is read once: it is to leave the L2 cache first (`policy`: cuda_evict_first). */
static __device__ inline void cuda_box_once(uint32_t to, const CUtensorMap *map, int column, int row,
                                            uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
                 "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
                 : "memory");
}

static __device__ inline void cuda_planes_once(uint32_t to, const CUtensorMap *map, int column, int row, int plane,
                                               uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
                 "[%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(plane), "r"(barrier), "l"(policy)
                 : "memory");
}

static __device__ inline void cuda_box_to_all(uint32_t to, const CUtensorMap *map, int column, int row,
                                              uint32_t barrier, uint16_t blocks)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
                 "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
                 : "memory");
}

/* An arrival at a barrier of the cluster's block `rank`, at the same place as `barrier` here: for those that have read what
 * others wrote. It orders no writes of this block's; one that does so for the cluster is a fence, and takes as long as a
 * step of a product. */
static __device__ inline void cuda_arrive_at(uint32_t barrier, int rank)
{
    asm volatile("{\n\t.reg .b32 there;\n\tmapa.shared::cluster.u32 there, %0, %1;\n\t"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

#endif
#endif
