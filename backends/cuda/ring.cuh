/* ring.cuh - a stream of weight tiles through shared memory: some warps of a block fetch, others multiply.
 *
 * A tile is 16 lines of 256 bf16 numbers; a line takes 16 bytes more, so that eight lines' same columns lie in eight different
 * bank groups. Tile n of the stream lies in slot n % SLOTS. The fetching warps take turns (tile n: warp n % FEEDERS) and
 * run ahead of the multiplying ones until the ring is full; each of those `users` gives every tile back once. It may give back
 * a tile that it did not take, as long as all users have given back the tile that was in that slot before.
 * cp.async and mbarriers, which all devices from sm_80 on have. */
#ifndef PV_CUDA_RING_CUH
#define PV_CUDA_RING_CUH

#include "mma.cuh"

#define TILE_LINES   16
#define TILE_COLUMNS 256
#define TILE_LINE    (TILE_COLUMNS * 2 + 16) /* bytes from one line to the next */
#define TILE_BYTES   (TILE_LINES * TILE_LINE)

static __device__ inline void ring_init(uint64_t *barrier, unsigned count)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(cuda_shared(barrier)), "r"(count) : "memory");
}

static __device__ inline void ring_arrive(uint64_t *barrier)
{
    asm volatile(
        "{\n\t.reg .b64 state;\n\tmbarrier.arrive.shared.b64 state, [%0];\n\t}" ::"r"(cuda_shared(barrier))
        : "memory");
}

/* Arrives when this thread's copies up to here have landed. */
static __device__ inline void ring_arrive_after_copies(uint64_t *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(cuda_shared(barrier)) : "memory");
}

/* Until the phase of that parity is over. The loop is inside the asm: the compiler, which would take it for one that threads leave
 * apart, need not gather them afterwards. */
static __device__ inline void ring_wait(uint64_t *barrier, unsigned parity)
{
    asm volatile("{\n\t.reg .pred over;\n\t"
                 "again:\n\t"
#if __CUDA_ARCH__ >= 900
                 "mbarrier.try_wait.parity.shared.b64 over, [%0], %1;\n\t"
#else
                 "mbarrier.test_wait.parity.shared.b64 over, [%0], %1;\n\t"
#endif
                 "@!over bra again;\n\t}" ::"r"(cuda_shared(barrier)),
                 "r"(parity)
                 : "memory");
}

/* For what is read once: it is to leave the L2 cache first, before what blocks exchange. */
static __device__ inline uint64_t ring_policy(void)
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* 16 bytes; not `there`: zeros, and nothing is read. */
static __device__ inline void ring_copy16(void *to, const void *from, bool there, uint64_t policy)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(cuda_shared(to)),
                 "l"(from), "r"(there ? 16 : 0), "l"(policy)
                 : "memory");
}

template <int SLOTS> struct ring {
    unsigned char *tiles;   /* SLOTS of TILE_BYTES, in shared memory */
    uint64_t *full, *empty; /* [SLOTS] */

    /* One thread; then a barrier of the block. */
    __device__ void init(unsigned users)
    {
        for (int i = 0; i < SLOTS; i++) {
            ring_init(&full[i], 32);
            ring_init(&empty[i], users);
        }
    }

    __device__ unsigned char *tile(unsigned n) const
    {
        return tiles + n % SLOTS * TILE_BYTES;
    }

    /* A fetching warp: the slot of tile n, as soon as it is free. */
    __device__ unsigned char *claim(unsigned n) const
    {
        ring_wait(&empty[n % SLOTS], (n / SLOTS & 1) ^ 1);
        return tile(n);
    }

    __device__ void filled(unsigned n) const
    {
        ring_arrive_after_copies(&full[n % SLOTS]);
    }

    /* A multiplying warp: tile n, as soon as it has come. */
    __device__ const unsigned char *take(unsigned n) const
    {
        ring_wait(&full[n % SLOTS], n / SLOTS & 1);
        return tile(n);
    }

    /* Its lanes give back the tiles [n, n + count), count up to 32. */
    __device__ void give_back(unsigned n, int count, int lane) const
    {
        __syncwarp();
        if (lane < count)
            ring_arrive(&empty[(n + (unsigned)lane) % SLOTS]);
    }
};

#endif
