/* wgmma.cuh - the tensor cores of Hopper: products that four warps (a warpgroup, which begins at a warp whose index is a
 * multiple of four) start together and that run beside them; B, and A where it is not in registers, in shared memory.
 * In code for sm_90a alone (CUDA_WGMMA); elsewhere there is none of this, and kernels with it may not be launched.
 *
 * C [64, N] f32 of a warpgroup: warp w, lane 4 g + t; d[4 n + e] is row 16 w + g + e / 2 * 8, column 8 n + 2 t + e % 2.
 * A in registers: rows and columns of a warp as in mma.cuh.
 * In shared memory an operand is told by where it begins and two distances in bytes (PTX manual, "matrix descriptor"):
 *   WGMMA_PLAIN  cores of 8 lines of 16 bytes, 128 bytes in a row.
 *                lines along k (q, k, x, w): `lead` to the next 8 of k, `stride` to the next 8 lines;
 *                lines along columns (v): `lead` to the next 8 of k, `stride` to the next 8 columns.
 *   WGMMA_128    lines of 128 bytes, 8 of them an atom of 1024 bytes, aligned so, in which the 16 bytes at place c of line
 *                r are at c ^ r.
 *                lines along k: `stride` to the next 8 lines, 16 of k are 32 bytes on; lines along columns: `lead` to the
 *                next 64 columns, `stride` to the next 8 of k.
 *
 * Registers of a product under way must not be touched; cuda_wgmma_wait says until when, cuda_settle tells the compiler. */
#ifndef PV_CUDA_WGMMA_CUH
#define PV_CUDA_WGMMA_CUH

#include "mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define CUDA_WGMMA 1
#else
#define CUDA_WGMMA 0
#endif

#if CUDA_WGMMA

enum { WGMMA_PLAIN = 0, WGMMA_128 = 1 };

static __device__ inline uint64_t cuda_operand_at(uint32_t shared, int lead, int stride, int layout)
{
    return (uint64_t)((shared & 0x3ffff) >> 4) | (uint64_t)(lead >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
           (uint64_t)layout << 62;
}

/* Before the first product that reads registers or shared memory written since the last. */
static __device__ inline void cuda_wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ inline void cuda_wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most `pending` commits are under way. */
template <int PENDING> static __device__ inline void cuda_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* What was computed into `d` before this line is not used above it. */
template <int N> static __device__ inline void cuda_settle(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* What this thread wrote to shared memory by ordinary stores or cp.async is there for wgmma: before the barrier. */
static __device__ inline void cuda_shared_for_wgmma(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- barriers in shared memory that count arrivals ---- */

static __device__ inline void cuda_mbarrier_init(uint32_t at, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

static __device__ inline void cuda_mbarrier_arrive(uint32_t at)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

/* Until the phase of this parity is over; parity 1 of a new barrier is. */
static __device__ inline void cuda_mbarrier_wait(uint32_t at, uint32_t parity)
{
    uint32_t done;
    do {
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!done);
}

/* Where one is in a stream of slots that lie in N places in turn: which, and the parity of the phase in which it is filled. */
template <int N> struct cuda_slot {
    int index;
    uint32_t parity;

    __device__ void next(void)
    {
        if (++index == N) {
            index = 0;
            parity ^= 1;
        }
    }
    __device__ cuda_slot plus(int count) const /* count < N */
    {
        cuda_slot s = {index + count, parity};
        if (s.index >= N) {
            s.index -= N;
            s.parity ^= 1;
        }
        return s;
    }
};

/* The registers a thread of this warpgroup has from here on. */
template <int N> static __device__ inline void cuda_registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ inline void cuda_registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- the products: d (+)= a b, k = 16; `add` false: d is what it becomes ---- */

#define F8(i)                                                                                                          \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),        \
        "+f"(d[i + 7])
#define F4(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D8 \
    "%0, %1, %2, %3"
#define D24 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11"
#define D40 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19"
#define D64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define D96 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47"
#define D128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63"
#define D136 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
    "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, " \
    "%66, %67"
#define D144 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
    "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, " \
    "%66, %67, %68, %69, %70, %71"
#define D160 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define D168 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
    "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, " \
    "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83"
#define D192 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
    "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define D200 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
    "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99"
#define D256 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
    "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, " \
    "%101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, " \
    "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* A and B with lines along k. */
template <int N> static __device__ inline void cuda_wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool add);
/* A in registers, B with lines along k. */
template <int N>
static __device__ inline void cuda_wgmma_by(float (&d)[N / 2], const uint4 &a, uint64_t b, bool add);
/* A in registers, B with lines along columns. */
template <int N>
static __device__ inline void cuda_wgmma_of(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool add);

template <> __device__ inline void cuda_wgmma<64>(float (&d)[32], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %34, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" D64 "}, %32, %33, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<128>(float (&d)[64], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" D128 "}, %64, %65, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<136>(float (&d)[68], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %70, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n136k16.f32.bf16.bf16 {" D136 "}, %68, %69, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F4(64)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<144>(float (&d)[72], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %74, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n144k16.f32.bf16.bf16 {" D144 "}, %72, %73, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<168>(float (&d)[84], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %86, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n168k16.f32.bf16.bf16 {" D168 "}, %84, %85, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64), F8(72), F4(80)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<192>(float (&d)[96], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %98, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" D192 "}, %96, %97, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64),
                   F8(72), F8(80), F8(88)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<96>(float (&d)[48], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %50, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" D96 "}, %48, %49, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<160>(float (&d)[80], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %82, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {" D160 "}, %80, %81, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64), F8(72)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma<200>(float (&d)[100], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %102, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n200k16.f32.bf16.bf16 {" D200 "}, %100, %101, p, 1, 1, 0, 0;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64), F8(72), F8(80),
                   F8(88), F4(96)
                 : "l"(a), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma_of<8>(float (&d)[4], const uint32_t (&a)[4], uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %9, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {" D8 "},\n\t"
                 "{%4, %5, %6, %7}, %8, p, 1, 1, 1;\n\t}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma_of<64>(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %37, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" D64 "},\n\t"
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma_of<256>(float (&d)[128], const uint32_t (&a)[4], uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %133, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" D256 "},\n\t"
                 "{%128, %129, %130, %131}, %132, p, 1, 1, 1;\n\t}"
                 : F8(0), F8(8), F8(16), F8(24), F8(32), F8(40), F8(48), F8(56), F8(64),
                   F8(72), F8(80), F8(88), F8(96), F8(104), F8(112), F8(120)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma_by<24>(float (&d)[12], const uint4 &a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %17, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n24k16.f32.bf16.bf16 {" D24 "},\n\t"
                 "{%12, %13, %14, %15}, %16, p, 1, 1, 0;\n\t}"
                 : F8(0), F4(8)
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"((int)add));
}

template <> __device__ inline void cuda_wgmma_by<40>(float (&d)[20], const uint4 &a, uint64_t b, bool add)
{
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %25, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n40k16.f32.bf16.bf16 {" D40 "},\n\t"
                 "{%20, %21, %22, %23}, %24, p, 1, 1, 0;\n\t}"
                 : F8(0), F8(8), F4(16)
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"((int)add));
}

/* ---- results ---- */

/* C with its roles turned, of a warp 16 lines and 8 columns: w0 holds d[4 n], d[4 n + 1] as bf16, w1 the next two. After, the
 * thread has column lane / 4, of it four lines in a row, from line *at on. t: lane % 4. */
static __device__ inline uint2 cuda_turn(uint32_t w0, uint32_t w1, int t, int *at)
{
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(w0));
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(w1));
    const bool odd = t & 1;
    uint32_t other = __shfl_xor_sync(~0u, odd ? w0 : w1, 1);
    *at = odd ? 8 + 2 * (t - 1) : 2 * t;
    return odd ? make_uint2(other, w1) : make_uint2(w0, other);
}

/* C of a warp as it is, a line's four times eight columns as bf16 pairs in its four threads: after, each thread has eight
 * columns in a row, those from 8 t on. */
static __device__ inline uint4 cuda_gather(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3, int t)
{
    const bool odd = t & 1, high = t & 2;
    uint32_t a = __shfl_xor_sync(~0u, odd ? w0 : w1, 1), b = __shfl_xor_sync(~0u, odd ? w2 : w3, 1);
    (odd ? w0 : w1) = a;
    (odd ? w2 : w3) = b;
    a = __shfl_xor_sync(~0u, high ? w0 : w2, 2);
    b = __shfl_xor_sync(~0u, high ? w1 : w3, 2);
    (high ? w0 : w2) = a;
    (high ? w1 : w3) = b;
    return make_uint4(w0, w1, w2, w3);
}

#undef F8
#undef F4
#undef D24
#undef D40
#undef D64
#undef D8
#undef D96
#undef D128
#undef D136
#undef D144
#undef D160
#undef D168
#undef D192
#undef D200
#undef D256

#endif
#endif
