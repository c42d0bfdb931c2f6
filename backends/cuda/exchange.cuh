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

static __device__ inline uint4 exchange_load4(const void *at)
{
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at)
                 : "memory");
    return v;
}

template <int N, class W, class A> static __device__ inline void exchange_load(uint4 (&v)[N], W wanted, A at)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = wanted(i) ? exchange_load4(at(i)) : make_uint4(0, 0, 0, 0);
}

/* Again, until none of a warp's words is NOTHING. A whole warp calls. */
template <int N, class W, class A>
static __device__ inline void exchange_settle(uint4 (&v)[N], W wanted, A at)
{
    for (unsigned tries = 0;; tries++) {
        unsigned top = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            top = max(max(max(top, v[i].x), max(v[i].y, v[i].z)), v[i].w);
        asm volatile("" : "+r"(top)); /* one test of all, not one of each */
        if (!__any_sync(~0u, top == NOTHING))
            return;
        if (tries == PATIENCE)
            __trap();
        exchange_load(v, wanted, at);
    }
}

/* v[i] = the words at `at(i)`, for the i that are `wanted(i)` (else zeros), when all of a warp's are there. All loads are under way
 * at the same time: one after the other, each would cost a round trip. Short on purpose: what stands in a kernel's loop
 * must fit the instruction cache. */
template <int N, class W, class A> static __device__ inline void exchange_wait(uint4 (&v)[N], W wanted, A at)
{
    exchange_load(v, wanted, at);
    exchange_settle(v, wanted, at);
}

/* ---- numbers of a generation ----
 *
 * Of f32 numbers that are written anew in every generation, the last bit of the mantissa tells an odd generation from an
 * even one: there is nothing to clear. The reader takes it off again, so a number does not depend on when it was made;
 * it is the one that was written, its last bit 0. */

template <int N, class A>
static __device__ inline void exchange_wait_f32(uint4 (&v)[N], unsigned generation, A at)
{
    unsigned other, tries = 0, odd = generation & 1;
    do {
        other = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = exchange_load4(at(i));
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] = make_uint4(v[i].x ^ odd, v[i].y ^ odd, v[i].z ^ odd, v[i].w ^ odd);
            other |= v[i].x | v[i].y | v[i].z | v[i].w;
        }
        asm volatile("" : "+r"(other)); /* one test of all, not one of each */
        if (tries++ == PATIENCE)
            __trap();
    } while (__any_sync(~0u, other & 1));
}

static __device__ inline void exchange_store4(void *at, uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(x), "r"(y), "r"(z),
                 "r"(w)
                 : "memory");
}

static __device__ inline void exchange_store_f32(void *at, const float (&v)[4], unsigned generation)
{
    unsigned odd = generation & 1;
    exchange_store4(at, (__float_as_uint(v[0]) & ~1u) | odd, (__float_as_uint(v[1]) & ~1u) | odd,
                    (__float_as_uint(v[2]) & ~1u) | odd, (__float_as_uint(v[3]) & ~1u) | odd);
}

static __device__ inline void exchange_store2(void *at, uint32_t x, uint32_t y)
{
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(x), "r"(y) : "memory");
}

static __device__ inline void exchange_store(void *at, uint32_t x)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(x) : "memory");
}

#endif
