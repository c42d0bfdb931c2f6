/* exchange.cuh - words that one block hands to others while both run: the word itself says that it is there.
 *
 * A word that nobody has written yet holds NOTHING, a NaN that no arithmetic makes (results are the canonical NaN). The
 * writer stores, the reader loads until no word is NOTHING: no flag, no counter, no barrier, and no order among stores is
 * needed, since each word is tested by itself. The writer clears a word when it writes the next generation into the other of
 * two places (see expert.cu for why that is late enough).
 * Needs blocks that all run at the same time: a cooperative launch. A reader that waits for longer than any
 * computation takes ends the kernel with a trap, so that a fault is an error and not a hang. */
#ifndef PV_CUDA_EXCHANGE_CUH
#define PV_CUDA_EXCHANGE_CUH

#include <stdint.h>

#define NOTHING  0xffffffffu
#define PATIENCE (1u << 26) /* loads of a word, each half a microsecond or more */

static __device__ inline uint4 exchange_load4(const void *at, int there)
{
    uint4 v = {};
    asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.b32 there, %5, 0;\n\t"
                 "@there ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "l"(at), "r"(there)
                 : "memory");
    return v;
}

/* Asks for the words at `at(i)`, for the i that are `wanted(i)`; else zeros. All loads are under way at the same time: one after the
 * other, each would cost a round trip. */
template <int N, class W, class A> static __device__ inline void exchange_ask(uint4 (&v)[N], W wanted, A at)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = exchange_load4(at(i), wanted(i));
}

/* NOTHING, if one of the words is not there yet that are in `low` (x and z) or `high` (y and w). */
static __device__ inline uint32_t exchange_missing(uint4 v, uint32_t low, uint32_t high)
{
    return max(max(v.x, v.z) & low, max(v.y, v.w) & high);
}

/* The same words once more, if so. */
static __device__ inline uint4 exchange_load4_again(const void *at, uint4 v, uint32_t low = ~0u,
                                                    uint32_t high = ~0u)
{
    uint32_t top = exchange_missing(v, low, high);
    asm volatile("{\n\t.reg .pred missing;\n\tsetp.eq.u32 missing, %5, 0xffffffff;\n\t"
                 "@missing ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "l"(at), "r"(top)
                 : "memory");
    return v;
}

/* Asks again, for what is missing alone, until all of a warp's words are there; a whole warp calls. Those that are not in `low` (x
 * and z) or `high` (y and w) are nobody's, and stay NaN. */
template <int N, class A>
static __device__ inline void exchange_settle(uint4 (&v)[N], A at, uint32_t low = ~0u, uint32_t high = ~0u)
{
    for (unsigned tries = 0;; tries++) {
        unsigned top = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            top = max(top, exchange_missing(v[i], low, high));
        asm volatile("" : "+r"(top)); /* one test of all, not one of each */
        if (!__any_sync(~0u, top == NOTHING))
            return;
        if (tries == PATIENCE)
            __trap();
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = exchange_load4_again(at(i), v[i], low, high);
    }
}

static __device__ inline void exchange_store2(void *at, uint32_t x, uint32_t y)
{
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(x), "r"(y) : "memory");
}

static __device__ inline void exchange_store(void *at, uint32_t x)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(x) : "memory");
}

/* What this thread stored before is seen by whoever sees what it stores after. */
static __device__ inline void exchange_fence(void)
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

#endif
