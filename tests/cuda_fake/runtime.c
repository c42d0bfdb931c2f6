/* runtime.c - see fake.h: the part of the CUDA runtime that the backend calls. */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

fake_cuda fake;

/* What stands behind every handle and every piece of memory. */
typedef enum kind { MEMORY, PINNED, STREAM, EVENT, GRAPH, EXEC, OTHER } kind;
typedef struct thing {
    struct thing *next;
    kind kind;
    int device;
    char *data; /* memory */
    size_t bytes;
    bool busy;              /* a stream was given work that nobody waited for */
    struct thing *captured; /* a stream's graph in the making */
    bool spoilt;            /* a capture in which something forbidden was done */
    bool recorded;          /* an event */
    struct thing **events;  /* of a graph: what it records */
    int n_events;
} thing;

#define LARGE ((size_t)16 << 20) /* bytes of workspaces, which nobody here touches: address space alone */

static thing *things;
static thing *capturing; /* a stream */
static int shared[FAKE_DEVICES];
static _Thread_local int device;
static _Thread_local cudaError_t last;

/* ---- faults and things ---- */

void fake_misuse(const char *what)
{
    printf("wrong use of the runtime: %s\n", what);
    fake.misused++;
}

static cudaError_t answer(cudaError_t error)
{
    if (error)
        last = error;
    return error;
}

cudaError_t fake_enter(const char *call)
{
    fake.calls++;
    if (fake.broken[device])
        return fake.broken[device];
    if (fake.only && strcmp(call, fake.only))
        return cudaSuccess;
    if (!fake.always && (!fake.fail_at || --fake.fail_at))
        return cudaSuccess;
    fake.failed = call;
    fake.in_capture = capturing != NULL;
    if (fake.sticky)
        fake.broken[device] = fake.error;
    return fake.error;
}

#define ENTER() answer(fake_enter(__func__))

static thing *make(kind is)
{
    thing *t = calloc(1, sizeof *t);
    *t = (thing){.next = things, .kind = is, .device = device};
    things = t;
    fake.live++;
    return t;
}

static thing *known(const void *handle, kind is)
{
    thing *t = things;
    while (t && (t != handle || t->kind != is))
        t = t->next;
    if (!t)
        fake_misuse("a handle that is none, or none any more");
    return t;
}

/* ---- copies on their way: those from and to page-locked memory are made as late as they may be, when somebody waits ---- */

static struct copy {
    void *to;
    const void *from;
    size_t n;
} copies[4096];
static int n_copies;

static void arrive(void)
{
    for (int i = 0; i < n_copies; i++)
        memmove(copies[i].to, copies[i].from, copies[i].n);
    n_copies = 0;
}

static bool pinned(const void *at)
{
    thing *t = things;
    while (t && (t->kind != PINNED || (const char *)at < t->data || (const char *)at >= t->data + t->bytes))
        t = t->next;
    return t != NULL;
}

static void copy_later(void *to, const void *from, size_t n)
{
    if (n_copies == (int)(sizeof copies / sizeof *copies))
        arrive();
    copies[n_copies++] = (struct copy){to, from, n};
    if (!pinned(to) && !pinned(from))
        arrive();
}

static void drop(thing *gone)
{
    arrive();
    for (thing **p = &things; *p; p = &(*p)->next)
        if (*p == gone) {
            *p = gone->next;
            break;
        }
    if (gone->kind == MEMORY)
        fake.used[gone->device] -= gone->bytes;
    fake.live--;
    if (gone->bytes < LARGE || gone->kind == PINNED)
        free(gone->data);
    else
        munmap(gone->data, gone->bytes);
    free(gone->events);
    free(gone);
}

/* What gives things back may tell of an earlier failure, but does its work; not so on a broken device. */
static cudaError_t give_back(const char *call, const void *handle, kind is)
{
    cudaError_t e = answer(fake_enter(call));
    thing *t = fake.broken[device] ? NULL : known(handle, is);
    if (t)
        drop(t);
    return e;
}

void *fake_take(void)
{
    return make(OTHER);
}

void fake_give_back(void *handle)
{
    thing *t = known(handle, OTHER);
    if (t)
        drop(t);
}

void fake_reset(void)
{
    while (things)
        drop(things);
    capturing = NULL;
    device = 0;
    last = cudaSuccess;
    memset(shared, 0, sizeof shared);
    fake = (fake_cuda){.driver = CUDART_VERSION, .devices = FAKE_DEVICES, .major = 9, .clusters = {8, 8}, .capacity = (size_t)1 << 30};
}

bool fake_holds(const void *at, size_t bytes)
{
    for (const thing *t = things; t; t = t->next)
        if (t->kind == MEMORY && (const char *)at >= t->data && (const char *)at <= t->data + t->bytes &&
            bytes <= (size_t)(t->data + t->bytes - (const char *)at))
            return true;
    return false;
}

/* While something is captured, this is forbidden and spoils it. */
static cudaError_t forbidden(bool yes)
{
    if (!yes || !capturing)
        return cudaSuccess;
    capturing->spoilt = true;
    return answer(cudaErrorStreamCaptureUnsupported);
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = fake.broken[device] ? fake.broken[device] : last;
    last = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                          : "the fake's error";
}

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
           : e == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress"
                                          : "cudaErrorFake";
}

/* ---- devices ---- */

/* What asks about machine and devices answers for broken ones too, and breaks none. */
static cudaError_t enter_any(const char *call)
{
    cudaError_t kept[FAKE_DEVICES];
    memcpy(kept, fake.broken, sizeof kept);
    memset(fake.broken, 0, sizeof fake.broken);
    cudaError_t e = fake_enter(call);
    memcpy(fake.broken, kept, sizeof kept);
    return answer(e);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    cudaError_t e = enter_any(__func__);
    if (!e)
        *version = fake.driver;
    return e;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    cudaError_t e = enter_any(__func__);
    if (!e)
        *version = CUDART_VERSION;
    return e;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t e = enter_any(__func__);
    if (e || fake.count_error)
        return answer(e ? e : fake.count_error);
    *count = fake.devices;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index)
{
    cudaError_t e = enter_any(__func__);
    if (e)
        return e;
    if (index < 0 || index >= fake.devices)
        return answer(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Fake GPU %d", index);
    memset(p->uuid.bytes, index + 1, sizeof p->uuid.bytes);
    p->totalGlobalMem = fake.capacity;
    p->multiProcessorCount = 4;
    p->integrated = fake.integrated;
    p->major = fake.major;
    p->minor = fake.minor;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    if (index < 0 || index >= fake.devices)
        return answer(cudaErrorInvalidDevice);
    device = index;
    return ENTER();
}

cudaError_t cudaGetDevice(int *index)
{
    cudaError_t e = ENTER();
    *index = device;
    return e;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int index)
{
    cudaError_t e = ENTER();
    (void)index;
    if (!e)
        *value = attribute == cudaDevAttrL2CacheSize                      ? 1 << 16
                 : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? FAKE_SHARED
                 : attribute == cudaDevAttrCooperativeLaunch;
    return e;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function)
{
    cudaError_t e = ENTER();
    (void)function;
    memset(attributes, 0, sizeof *attributes);
    return e ? e : answer(fake.no_code ? cudaErrorNoKernelImageForDevice : cudaSuccess);
}

/* ---- memory ---- */

static void *reserve(size_t bytes)
{
    if (bytes < LARGE)
        return malloc(bytes);
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Of the thread's device, as everything about functions; there is one that has attributes. */
cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    cudaError_t e = ENTER();
    (void)function;
    if (!e && attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
        shared[device] = value;
    return e;
}

cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *function, const cudaLaunchConfig_t *config)
{
    cudaError_t e = ENTER();
    (void)function;
    thing *s = e ? NULL : known(config->stream, STREAM);
    if (s && s->device != device)
        return answer(cudaErrorInvalidResourceHandle);
    *clusters = s && config->dynamicSmemBytes <= (size_t)shared[device] ? fake.clusters[device] : 0;
    return e;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    cudaError_t e = ENTER();
    if (!e)
        e = forbidden(true);
    if (e)
        return e;
    char *data = bytes <= fake.capacity - fake.used[device] ? reserve(bytes) : NULL;
    if (!data)
        return answer(cudaErrorMemoryAllocation);
    thing *t = make(MEMORY);
    t->data = data;
    t->bytes = bytes;
    fake.used[device] += bytes;
    fake.peak = fake.used[device] > fake.peak ? fake.used[device] : fake.peak;
    *memory = data;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    thing *t = things;
    while (t && (t->kind != MEMORY || t->data != memory))
        t = t->next;
    if (t)
        return give_back(__func__, t, MEMORY);
    if (memory)
        fake_misuse("cudaFree of what is not there");
    return ENTER();
}

/* Page-locked memory of the host. */
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    cudaError_t e = ENTER();
    (void)flags;
    if (!e)
        e = forbidden(true);
    if (!e) {
        thing *t = make(PINNED);
        t->bytes = bytes;
        *memory = (t->data = malloc(bytes));
    }
    return e;
}

cudaError_t cudaFreeHost(void *memory)
{
    thing *t = things;
    while (t && (t->kind != PINNED || t->data != memory))
        t = t->next;
    return give_back(__func__, t, PINNED);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    cudaError_t e = ENTER();
    if (!e) {
        *available = fake.capacity - fake.used[device];
        *total = fake.capacity;
    }
    return e;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind how, cudaStream_t stream)
{
    cudaError_t e = ENTER();
    thing *s = e ? NULL : known(stream, STREAM);
    if (!s)
        return e ? e : answer(cudaErrorInvalidResourceHandle);
    if ((how != cudaMemcpyDeviceToHost && !fake_holds(to, n)) || (how != cudaMemcpyHostToDevice && !fake_holds(from, n))) {
        fake_misuse("a copy outside of device memory");
        return answer(cudaErrorInvalidValue);
    }
    copy_later(to, from, n);
    s->busy = true;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t n, cudaStream_t stream)
{
    cudaError_t e = ENTER();
    thing *s = e ? NULL : known(stream, STREAM);
    if (!s)
        return e ? e : answer(cudaErrorInvalidResourceHandle);
    if (!fake_holds(at, n)) {
        fake_misuse("bytes set outside of device memory");
        return answer(cudaErrorInvalidValue);
    }
    memset(at, value, n);
    s->busy = true;
    return cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    cudaError_t e = ENTER();
    (void)flags;
    if (!e)
        *stream = (cudaStream_t)make(STREAM);
    return e;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (capturing == (thing *)stream)
        fake_misuse("a stream destroyed while it captures");
    return give_back(__func__, stream, STREAM);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t e = ENTER();
    if (!e)
        e = forbidden((thing *)stream == capturing);
    thing *s = e ? NULL : known(stream, STREAM);
    if (s) {
        arrive();
        s->busy = false;
    }
    return e;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaError_t e = ENTER();
    if (!e)
        e = forbidden(true); /* for the thread that captures, of any stream */
    thing *s = e || !stream ? NULL : known(stream, STREAM);
    return s && s->busy ? answer(cudaErrorNotReady) : e;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    cudaError_t e = ENTER();
    if (!e)
        *event = (cudaEvent_t)make(EVENT);
    return e;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    cudaError_t e = ENTER();
    (void)flags;
    if (!e)
        *event = (cudaEvent_t)make(EVENT);
    return e;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return give_back(__func__, event, EVENT);
}

static cudaError_t record(const char *call, cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t e = answer(fake_enter(call));
    thing *t = e ? NULL : known(event, EVENT), *s = e ? NULL : known(stream, STREAM);
    if (!t || !s)
        return e ? e : answer(cudaErrorInvalidResourceHandle);
    thing *g = s->captured;
    if (g) {
        g->events = realloc(g->events, sizeof *g->events * (size_t)(g->n_events + 1));
        g->events[g->n_events++] = t;
    } else {
        t->recorded = s->busy = true;
    }
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return record(__func__, event, stream);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    (void)flags;
    return record(__func__, event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t e = ENTER();
    if (!e)
        e = forbidden(true);
    thing *t = e ? NULL : known(event, EVENT);
    if (t && !t->recorded)
        fake_misuse("waiting for an event that was never recorded");
    if (!e)
        arrive();
    return e;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    cudaError_t e = ENTER();
    thing *a = e ? NULL : known(begin, EVENT), *b = e ? NULL : known(end, EVENT);
    if (e || !a || !b || !a->recorded || !b->recorded)
        return e ? e : answer(cudaErrorInvalidResourceHandle);
    *ms = 0.25f;
    return cudaSuccess;
}

/* ---- kernels and graphs ---- */

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **args)
{
    cudaError_t e = ENTER();
    (void)function, (void)args;
    thing *s = e ? NULL : known(config->stream, STREAM);
    if (s && !s->captured)
        s->busy = true;
    return e;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaError_t e = ENTER();
    (void)mode;
    thing *s = e ? NULL : known(stream, STREAM);
    if (!s)
        return e;
    if (capturing)
        fake_misuse("a capture within a capture");
    s->captured = make(GRAPH);
    s->spoilt = false;
    capturing = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    cudaError_t e = ENTER();
    thing *s = known(stream, STREAM);
    *graph = NULL;
    if (!s || !s->captured)
        return e ? e : answer(cudaErrorIllegalState);
    thing *g = s->captured;
    s->captured = NULL;
    capturing = NULL;
    if (e || s->spoilt) {
        drop(g);
        return e ? e : answer(cudaErrorStreamCaptureInvalidated);
    }
    *graph = (cudaGraph_t)g;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    cudaError_t e = ENTER();
    (void)flags;
    thing *g = e ? NULL : known(graph, GRAPH);
    if (!g)
        return e ? e : answer(cudaErrorInvalidResourceHandle);
    thing *x = make(EXEC);
    x->n_events = g->n_events;
    x->events = malloc(sizeof *x->events * (size_t)(g->n_events + 1));
    if (g->n_events)
        memcpy(x->events, g->events, sizeof *x->events * (size_t)g->n_events);
    *exec = (cudaGraphExec_t)x;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t e = ENTER();
    if (!e && known(exec, EXEC))
        known(stream, STREAM);
    return e;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t e = ENTER();
    thing *x = e ? NULL : known(exec, EXEC), *s = e ? NULL : known(stream, STREAM);
    for (int i = 0; x && i < x->n_events; i++)
        if (known(x->events[i], EVENT))
            x->events[i]->recorded = true;
    if (s)
        s->busy = true;
    return e;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return give_back(__func__, graph, GRAPH);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return give_back(__func__, exec, EXEC);
}
