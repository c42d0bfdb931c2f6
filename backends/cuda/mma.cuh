/* mma.cuh - the instructions of the tensor cores that every device from sm_80 on has, and copies into shared memory
 * beside the work of the threads. Layouts are those of the PTX manual ("mma.m16n8k16", "ldmatrix"): lane = 4 g + t,
 *   A  16 x 16: a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8), each with its right neighbour
 *   B  16 x 8:  b0 (2t, g), b1 (2t + 8, g), each with the one below
 *   C  16 x 8:  c[0], c[1] (g, 2t and 2t + 1), c[2], c[3] the same of row g + 8 */
#ifndef PV_CUDA_MMA_CUH
#define PV_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <stdint.h>

static __device__ inline uint32_t cuda_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8 x 8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8. */
static __device__ inline void cuda_ldmatrix(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cuda_shared(row))
                 : "memory");
}

static __device__ inline void cuda_ldmatrix_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cuda_shared(row))
                 : "memory");
}

/* c += a b, bf16 with f32 sums. */
static __device__ inline void cuda_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes from global to shared memory; not `there`: zeros, and nothing is read. */
static __device__ inline void cuda_copy16(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(cuda_shared(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ inline void cuda_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `pending` of this thread's commits are under way. */
template <int PENDING> static __device__ inline void cuda_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* A barrier of `threads` threads of the block; barrier 0 is __syncthreads. */
static __device__ inline void cuda_barrier(int barrier, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/* 2^x within 2 ulp; below 2^-126 zero. */
static __device__ inline float cuda_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ inline uint32_t cuda_pack_bf16(float low, float high)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&v;
}

#endif
