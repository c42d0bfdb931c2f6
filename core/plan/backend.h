/* backend.h - the seam: what a backend is to the core. The only header a backend must obey.
 *
 * The core checks arguments, order and NULL before it calls; a backend does only the deed. Every failure sets words (pv_fail).
 *
 * Threads. Sessions on one backend have a thread each, and few calls wait for one another. One at a time in the whole
 * process, by a lock of sessions: what makes a session ready to run, which is `room`, `alloc`, the `write` of weights,
 * constants and positions, `record`, and the `release` of weights. One at a time for a recording and the buffers it was
 * recorded against: `write`, `read`, `map`, `begin`, `submit`, `wait`, `discard`, `release`. All else may come
 * together: those calls for different recordings, also while another session is made ready; `claims` and `variants`,
 * since planning takes no lock; `describe`; and `map` of weights, from all threads that load them. `close` comes last
 * and alone. Who works below sessions (tools, tests, the self-test) has a backend to itself, on one thread; only such a
 * caller asks `wait` for node_ms. */
#ifndef PV_PLAN_BACKEND_H
#define PV_PLAN_BACKEND_H

#include "graph/graph.h"

typedef struct pv_buffer pv_buffer;       /* a region of device memory; each backend defines its own */
typedef struct pv_recording pv_recording; /* a program recorded against buffers: CUDA graphs, command buffers, calls */

/* A lowered graph: every node claimed, every tensor placed. Nodes stand stage by stage, each stage in order. */
typedef struct pv_program {
    const pv_graph *graph;
    size_t bytes[PV_USAGE_COUNT]; /* of the buffers for PV_CONST, PV_IO, PV_STATE and PV_SCRATCH */
    const pv_tensor *step;        /* i32[1] input: the step that runs; the backend sets it. NULL: nobody reads it */
    int steps;                    /* rows of the tables that have one row a step */
} pv_program;

/* Where a program's tensors are. A tensor of usage u is at buffer[u] + offset; a weight has a buffer of its own. */
typedef struct pv_buffers {
    pv_buffer *buffer[PV_USAGE_COUNT]; /* NULL where bytes[u] is 0, and for PV_WEIGHT */
    pv_buffer *const *weight;          /* by tensor id */
} pv_buffers;

typedef struct pv_run {
    uint32_t stages;     /* bits 1 << pv_stage; run in the order of the enum */
    int first_step, n_steps; /* of the denoise stage: rows of the tables */
    const pv_tensor *result; /* a state or an output that is wanted behind the last stage; NULL: none */
    void *to;                /* its bytes, there when wait has returned */
    bool nodes;              /* wait is asked for node_ms; set by pv_instance_run */
} pv_run;

typedef struct pv_run_timing {
    double stage_ms[PV_STAGE_COUNT];
    double run_ms;   /* from the begin of the first stage to the end of the last */
    double *node_ms; /* optional, [n_nodes]: added up over the run */
} pv_run_timing;

/* One way in which a backend does an op. Where it has several, they stand from the fastest to the plainest. */
typedef struct pv_variant {
    const char *name; /* "linear.matrix" */
    pv_op op;
    bool off; /* `claims` and `record` pass it over; set by the self-test, before anything is planned */
} pv_variant;

typedef struct pv_backend_vt {
    const char *name;
    pv_status (*devices)(pv_device_info *out, int *n); /* as pv_devices */
    pv_status (*open)(const pv_backend_params *params, pv_backend **out);
    void (*close)(pv_backend *be);
    pv_status (*describe)(pv_backend *be, pv_device_info *out);

    pv_status (*alloc)(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out); /* bytes > 0 */
    void (*release)(pv_backend *be, pv_buffer *buf);
    pv_status (*write)(pv_backend *be, pv_buffer *dst, size_t at, const void *src, size_t n); /* in order with runs */
    pv_status (*read)(pv_backend *be, const pv_buffer *src, size_t at, void *dst, size_t n);
    pv_status (*room)(pv_backend *be, size_t *free, size_t *total); /* optional: bytes that can be allocated now, of all */
    /* Host memory that stands for the region, always for PV_IO; NULL: none. A write whose source is the place itself hands
     * over what the host put there, and copies nothing on the host: not to be touched from then on until a run is over. */
    void *(*map)(pv_backend *be, pv_buffer *buf);

    bool (*claims)(const pv_backend *be, const pv_node *node);
    /* Optional: the ways that it has on this device, *n of them, its own and living as long as it. With it each of them is held
     * against the CPU when a device is used first (selftest.h); pv_device_info.identity must be told then. */
    pv_variant *(*variants)(pv_backend *be, int *n);

    /* Optional: a node like this will be recorded soon. What takes long for it, compiling say, may begin; returns at once. */
    void (*foresee)(pv_backend *be, const pv_node *node);

    pv_status (*record)(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out);
    /* Optional: stages of the run to come, started with the inputs as they stand. What they do not read may be written
     * meanwhile. The next submit names them too and does not start them again; or a wait ends them. Allocates nothing. */
    pv_status (*begin)(pv_recording *rec, uint32_t stages);
    pv_status (*submit)(pv_recording *rec, const pv_run *run);          /* allocates nothing */
    pv_status (*wait)(pv_recording *rec, pv_run_timing *timing);        /* timing may be NULL */
    void (*discard)(pv_recording *rec);
} pv_backend_vt;

struct pv_backend { /* a backend's own struct begins with this */
    const pv_backend_vt *vt;
};

/* choose.c: which of a backend's n devices `wanted` names: by index, name or UUID, else by a part of a name, of three letters at
 * least, when all names that have it are equal; the first of several. NULL: the first that is not software.
 * PV_E_UNAVAILABLE: none; the words list them. */
pv_status pv_choose_device(const pv_device_info *info, int n, const char *wanted, int *index);

extern const pv_backend_vt pv_cpu_backend;
extern const pv_backend_vt pv_vulkan_backend; /* in builds with PV_HAVE_VULKAN */

#endif
