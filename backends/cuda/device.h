/* device.h - the host side of the CUDA backend: the opened device, its memory, and how a failing call becomes
 * a status.
 *
 * Everything the device is asked to do goes to one stream, in order: a copy that was asked for before a run
 * is there when the run reads it, and sessions that share a device take turns. Recording uses a stream of its
 * own, so that nothing another thread submits meanwhile is captured. */
#ifndef PV_CUDA_DEVICE_H
#define PV_CUDA_DEVICE_H

#include "algos.h"
#include "cuda.h"
#include "small.h"

#include <cublasLt.h>
#include <stdatomic.h>

struct cuda_device {
    pv_backend base;
    int index, sms;
    struct CUgreenCtx_st *green; /* green.c: a part of the device, with `sms` multiprocessors; NULL: all of it */
    bool integrated; /* its memory is the host's */
    bool dependent; /* kernels may be launched dependently (Hopper and later) */
    bool plain;     /* PIVOT_CUDA_PLAIN=1 in the environment: only the kernels that all devices have */
    bool fp8;       /* tensor cores for e4m3 (Ada and later) */
    bool wgmma;     /* Hopper, code for it in this build, and not `plain` */
    bool clusters;  /* blocks of a cluster reach each other's shared memory (Hopper and later); not `plain` */
    int block_room; /* bytes of shared memory that a block may have; `plain`: what the least of all devices allows */
    cudaStream_t stream;
    cublasLtHandle_t lt;
    struct cuda_product *products; /* linear.c: algorithms found so far */
    int n_products, cap_products;
    algos kept; /* and what processes before this one found */
    atomic_int lt_failed; /* cuBLASLt's status behind a kernel's cudaErrorExternalDevice */
    atomic_int broken;    /* set once `first` tells what broke the device; 0: it works */
    atomic_flag breaking;
    atomic_int told;      /* in the log: cuda_at_once said no */
    char first[256];
};

/* Device memory, and page-locked memory of the host from which writes to it go on their way without anybody waiting: of
 * inputs a place for each byte, of state a window that small writes take turns in, of all else none. */
struct pv_buffer {
    size_t bytes;
    char *data;
    char *host;
    size_t window, used; /* bytes of the window; those that may still be on their way. 0: inputs */
};

extern const cuda_kernel *const cuda_kernels[PV_OP_COUNT]; /* NULL: not claimed */

extern const pv_backend_vt cuda_backend; /* cuda.c */

/* Makes the device this thread's, and forgets the error of an earlier call that nobody looked at: a launch in CUDA's own
 * brackets, after which only the last error can be asked for, would be blamed for it. First thing in every entry of the
 * vtable; PV_E_DEVICE, with what happened first, once the device is broken. */
pv_status cuda_enter(cuda_device *d);

/* The same for what gives things back: false where it cannot be done, and no words, which tell of something
 * else. What such calls answer is passed over, and forgotten where launches follow. */
bool cuda_usable(cuda_device *d);
void cuda_forget(void);

/* PV_OK for cudaSuccess. Else words that begin with the call's name; PV_E_MEMORY for no memory, PV_E_DEVICE
 * for all else. If the error stays, it is one that NVIDIA says to leave the process in an inconsistent state: the
 * device is marked broken, and all later calls on it are refused. */
pv_status cuda_check(cuda_device *d, cudaError_t error, const char *call);
#define CUDA_CHECK(d, call) cuda_check((d), (call), #call)
pv_status cuda_check_lt(cuda_device *d, cublasStatus_t status, const char *call); /* the same for cuBLASLt */
/* Under both: fails with `st` and words; a device whose error stays is marked, and then it is PV_E_DEVICE. Not for a thread that
 * captures a graph. */
pv_status cuda_fail(cuda_device *d, pv_status st, const char *words);

/* Page-locked host memory; cudaFreeHost. */
pv_status cuda_host_memory(cuda_device *d, size_t bytes, const char *what, void **out);

pv_status cuda_memory(cuda_device *d, size_t bytes, const char *what,
                      void **out); /* device memory; cudaFree */

/* green.c: from now on streams have at least so many multiprocessors to themselves, and no more than d->sms then says.
 * PV_E_UNAVAILABLE: the device or its driver cannot. */
pv_status cuda_green_open(cuda_device *d, int sms);
void cuda_green_close(cuda_device *d);
pv_status cuda_stream(cuda_device *d, cudaStream_t *out); /* one that kernels may be launched in; cudaStreamDestroy */

/* nvml.c: driver, clocks and power of the device with this UUID, as they are now; or why not. */
void cuda_conditions(pv_device_info *d);

/* record.c */
pv_status cuda_record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out);
pv_status cuda_start(pv_recording *r, uint32_t stages);
pv_status cuda_submit(pv_recording *r, const pv_run *run);
pv_status cuda_wait(pv_recording *r, pv_run_timing *timing);
void cuda_discard(pv_recording *r);

/* linear.c: finds the algorithm for a node's product by running the candidates on its own addresses, unless
 * one is known for that shape. Overwrites the node's output and the work memory. Before the node is enqueued
 * for the first time. */
pv_status cuda_linear_prepare(const cuda_call *c);

#endif
