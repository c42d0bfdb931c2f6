/* cluster.cuh - blocks that read one another's shared memory: the clusters that devices from sm_90 on have. Kernels with
 * these compile for all devices; below sm_90 they may not be launched. */
#ifndef PV_CUDA_CLUSTER_CUH
#define PV_CUDA_CLUSTER_CUH

#include "mma.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CUDA_CLUSTERS 1
#else
#define CUDA_CLUSTERS 0
#endif

/* All threads of all blocks of the cluster, by whole warps; what was written to shared memory before the first is there after the
 * second. A block whose memory others use must not end before they have done with it: one more of these at the end, the first
 * half of it where a warp last touches another block's, so that what it still stores to global memory hides the rest. */
static __device__ inline void cuda_cluster_arrive(void)
{
#if CUDA_CLUSTERS
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

static __device__ inline void cuda_cluster_wait(void)
{
#if CUDA_CLUSTERS
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

static __device__ inline void cuda_cluster_barrier(void)
{
    cuda_cluster_arrive();
    cuda_cluster_wait();
}

/* Where `mine`, an address in this block's shared memory, is in that of the cluster's block `rank`. */
static __device__ inline uint32_t cuda_cluster_at(uint32_t mine, int rank)
{
    uint32_t there = 0;
#if CUDA_CLUSTERS
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(mine), "r"(rank));
#endif
    return there;
}

static __device__ inline uint32_t cuda_cluster_shared(const void *mine, int rank)
{
    return cuda_cluster_at(cuda_shared(mine), rank);
}

/* 8 or 16 bytes into a block's shared memory; they count at that block's `barrier` when they are there. Addresses:
 * cuda_cluster_at. */
static __device__ inline void cuda_cluster_put2(uint32_t to, float x, float y, uint32_t barrier)
{
#if CUDA_CLUSTERS
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
        "f"(x), "f"(y), "r"(barrier)
        : "memory");
#endif
}

static __device__ inline void cuda_cluster_put4(uint32_t to, const float *v, uint32_t barrier)
{
#if CUDA_CLUSTERS
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
            to),
        "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier)
        : "memory");
#endif
}

static __device__ inline float2 cuda_cluster_get2(uint32_t at)
{
    float2 v = {};
#if CUDA_CLUSTERS
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
#endif
    return v;
}

static __device__ inline float4 cuda_cluster_get4(uint32_t at)
{
    float4 v = {};
#if CUDA_CLUSTERS
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at)
                 : "memory");
#endif
    return v;
}

#endif
