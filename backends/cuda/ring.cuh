/* ring.cuh - a stream of weights through shared memory: one warp of a block fetches, others multiply.
 *
 * A slot holds what one wait is for; slot n of the stream is in place n % RING_SLOTS. The fetching warp runs ahead of the
 * multiplying ones until the ring is full; each of those `users` gives every slot back once. It fetches RING_FLIGHT
 * slots at a time and no more: a burst would keep all else waiting in the same queues. */
#ifndef PV_CUDA_RING_CUH
#define PV_CUDA_RING_CUH

#include "tma.cuh"

#define RING_SLOTS      7
#define RING_SLOT_BYTES 18432 /* a multiple of 1024, as boxes have to lie */
#define RING_FLIGHT     2

#if CUDA_WGMMA

typedef cuda_slot<RING_SLOTS> turn; /* a place in the stream */

typedef struct ring {
    unsigned char *slots;
    uint32_t full, empty; /* shared addresses of RING_SLOTS barriers each */

    /* One thread; then a barrier of the block. */
    __device__ void init(int users) const
    {
        for (int i = 0; i < RING_SLOTS; i++) {
            cuda_mbarrier_init(full + 8 * i, 32);
            cuda_mbarrier_init(empty + 8 * i, users);
        }
    }

    /* The fetching warp: slot n, as soon as it is free and few enough are on their way; `landed`: RING_FLIGHT slots before n. */
    __device__ unsigned char *claim(turn n, turn landed, bool any_landed) const
    {
        if (any_landed)
            cuda_mbarrier_wait(full + 8 * landed.index, landed.parity);
        cuda_mbarrier_wait(empty + 8 * n.index, n.parity ^ 1);
        cuda_shared_for_wgmma(); /* what was in there, copied or read by threads, is over for the copy engine */
        return slots + n.index * RING_SLOT_BYTES;
    }

    /* Then either: its lane 0 asks the copy engine for so many bytes, to count at full + 8 * n.index ... */
    __device__ void expect(turn n, int bytes, int lane) const
    {
        if (lane == 0)
            cuda_expect_bytes(full + 8 * n.index, bytes);
        else
            cuda_mbarrier_arrive(full + 8 * n.index);
    }

    /* ... or all lanes copy (cuda_copy16), and say so. */
    __device__ void copied(turn n) const
    {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full + 8 * n.index) : "memory");
    }

    /* A multiplying warp: slot n, as soon as it has come. */
    __device__ unsigned char *take(turn n) const
    {
        cuda_mbarrier_wait(full + 8 * n.index, n.parity);
        return slots + n.index * RING_SLOT_BYTES;
    }

    /* By its lanes, which have all read it. */
    __device__ void give_back(turn n, int lane) const
    {
        __syncwarp();
        if (lane == 0)
            cuda_mbarrier_arrive(empty + 8 * n.index);
    }
} ring;

#endif
#endif
