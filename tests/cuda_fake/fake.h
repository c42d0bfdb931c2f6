/* fake.h - a CUDA runtime and cuBLASLt for tests, in host memory: no driver, no GPU, and every call can be told to fail.
 *
 * Memory, streams, events and graphs are kept in a list, so that what is not given back, given back twice or used out of
 * its bounds shows. Kernels and products check their operands and compute nothing. The functions have the prototypes of
 * NVIDIA's headers; copies are made as late as they may be. One thread at a time, which tests see to; each has a device of
 * its own, the first until it names another. */
#ifndef PV_TESTS_CUDA_FAKE_H
#define PV_TESTS_CUDA_FAKE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#define FAKE_DEVICES 2
#define FAKE_SHARED  (227 << 10) /* bytes of shared memory a block may have */

typedef struct fake_cuda {
    /* The machine. */
    int driver;  /* the version it tells; 0: none is installed */
    int devices; /* up to FAKE_DEVICES, all alike */
    cudaError_t count_error; /* of cudaGetDeviceCount */
    int major, minor;
    bool integrated; /* their memory is the host's */
    bool no_code;    /* the build has no kernel for them */
    int clusters[FAKE_DEVICES]; /* that run at the same time */
    size_t capacity; /* bytes */

    /* The fault: of the calls from now on, or of those called `only`, the n-th answers `error`. Sticky: all later calls
     * on that device as well. */
    long fail_at; /* 0: none */
    bool always;  /* all of them */
    const char *only;
    cudaError_t error;
    bool sticky;

    /* What happened. */
    long calls;
    const char *failed; /* the call that was made to fail; NULL: none yet */
    bool in_capture;    /* and that while something was captured */
    int live;           /* things handed out and not given back */
    size_t used[FAKE_DEVICES], peak;
    int misused;        /* wrong calls, each with a line on stdout */
    cudaError_t broken[FAKE_DEVICES];
} fake_cuda;

extern fake_cuda fake;

void fake_reset(void); /* a healthy machine with two devices, as a new process would find it */

/* For the fake's own files: counts the call; the error that it has to answer. */
cudaError_t fake_enter(const char *call);
void fake_misuse(const char *what);
bool fake_holds(const void *at, size_t bytes); /* one live piece of device memory has all of it */
void *fake_take(void);                         /* something that is neither memory nor of the runtime */
void fake_give_back(void *thing);

#endif
