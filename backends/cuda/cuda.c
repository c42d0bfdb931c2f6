/* cuda.c - NVIDIA GPUs as a backend: which there are, opening one, memory and copies, and which ops have
 * kernels. What is recorded and how it runs is in record.c. */
#include "device.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_MAJOR                                                                                          \
    8 /* compute capability 8.0: bf16 tensor cores and cp.async, on which every kernel is built */

#define LEAST_FP8 89 /* 8.9: tensor cores for e4m3 */
#define LEAST_ROOM (99 << 10) /* bytes of shared memory for a block: 8.6, 8.9, 12.0 */

#ifndef PV_CUDA_WGMMA /* the build says so where it makes code for sm_90a: see wgmma.cuh */
#define PV_CUDA_WGMMA 0
#endif

const cuda_kernel *const cuda_kernels[PV_OP_COUNT] = {
    [PV_OP_LINEAR] = &cuda_linear,
    [PV_OP_LINEAR_ADD] = &cuda_linear,
    [PV_OP_LINEAR_GELU] = &cuda_linear,
    [PV_OP_LINEAR_GROUP] = &cuda_linear,
    [PV_OP_LINEAR_GEGLU] = &cuda_linear,
    [PV_OP_LINEAR_SCALED] = &cuda_linear,
    [PV_OP_LINEAR_BLOCKS] = &cuda_linear_blocks,
    [PV_OP_ATTENTION] = &cuda_attention,
    [PV_OP_ATTENTION_SCORES] = &cuda_attention_scores,
    [PV_OP_SOFTMAX] = &cuda_softmax,
    [PV_OP_ATTENTION_VALUES] = &cuda_attention_values,
    [PV_OP_RMS_NORM] = &cuda_rms_norm,
    [PV_OP_LAYER_NORM] = &cuda_layer_norm,
    [PV_OP_ADA_RMS_NORM] = &cuda_ada_rms_norm,
    [PV_OP_GATED_NORM] = &cuda_gated_norm,
    [PV_OP_ROPE] = &cuda_rope,
    [PV_OP_ROPE_STORE] = &cuda_rope_store,
    [PV_OP_ROPE_CACHE] = &cuda_rope_cache,
    [PV_OP_ADD] = &cuda_add,
    [PV_OP_MUL] = &cuda_mul,
    [PV_OP_SCALE] = &cuda_scale,
    [PV_OP_GELU] = &cuda_gelu,
    [PV_OP_SILU] = &cuda_silu,
    [PV_OP_AXPY] = &cuda_axpy,
    [PV_OP_GATED_RESIDUAL] = &cuda_gated_residual,
    [PV_OP_GEGLU] = &cuda_geglu,
    [PV_OP_CAST] = &cuda_cast,
    [PV_OP_CONCAT] = &cuda_concat,
    [PV_OP_SLICE] = &cuda_slice,
    [PV_OP_ROW] = &cuda_row,
    [PV_OP_STORE] = &cuda_store,
    [PV_OP_TRANSPOSE] = &cuda_transpose,
    [PV_OP_SCALE_FOR] = &cuda_scale_for,
    [PV_OP_QUANTIZE] = &cuda_quantize,
    [PV_OP_DEQUANTIZE] = &cuda_dequantize,
    [PV_OP_GEGLU_QUANTIZE] = &cuda_geglu_quantize,
    [PV_OP_PATCHIFY] = &cuda_patchify,
    [PV_OP_EXPERT_BLOCK] = &cuda_expert_block,
    [PV_OP_EULER_STEP] = &cuda_euler_step,
};

static bool claims(const pv_backend *be, const pv_node *n)
{
    return cuda_kernels[n->op] && cuda_kernels[n->op]->accepts((const cuda_device *)be, n);
}

/* ---- devices ---- */

/* How many there are. What stands in the way is told from what the driver says it is. */
static pv_status count(int *n)
{
    int driver = 0;
    cudaError_t error = cudaDriverGetVersion(&driver);
    if (error == cudaSuccess && !driver)
        return pv_fail(PV_E_UNAVAILABLE, "no NVIDIA driver is installed (libcuda.so.1 was not found)");
    if (error == cudaSuccess && driver / 1000 < CUDART_VERSION / 1000)
        return pv_fail(
            PV_E_UNAVAILABLE,
            "the NVIDIA driver is made for CUDA %d.%d, this backend for CUDA %d: a newer driver is needed",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000);
    const char *call = error == cudaSuccess ? "cudaGetDeviceCount" : "cudaDriverGetVersion";
    if (error == cudaSuccess)
        error = cudaGetDeviceCount(n);
    if (error == cudaSuccess && *n > 0)
        return PV_OK;
    cuda_forget();
    if (error == cudaSuccess || error == cudaErrorNoDevice)
        return pv_fail(PV_E_UNAVAILABLE, "there is no NVIDIA GPU that this process may use");
    return pv_fail(PV_E_UNAVAILABLE, "the NVIDIA driver does not start: %s: %s (%s)", call,
                   cudaGetErrorString(error), cudaGetErrorName(error));
}

/* Of one that does not answer: words, and in `out` so much. */
static pv_status look(int index, struct cudaDeviceProp *prop, pv_device_info *out)
{
    cudaError_t error = cudaGetDeviceProperties(prop, index);
    const char *call = "cudaGetDeviceProperties";
    int driver = 0, runtime = 0;
    if (error == cudaSuccess) {
        call = "cudaDriverGetVersion";
        error = cudaDriverGetVersion(&driver);
    }
    if (error == cudaSuccess) {
        call = "cudaRuntimeGetVersion";
        error = cudaRuntimeGetVersion(&runtime);
    }
    if (error != cudaSuccess) {
        cuda_forget();
        *out = (pv_device_info){.size = sizeof *out, .backend = "cuda", .name = "does not answer"};
        snprintf(out->unknown, sizeof out->unknown, "%s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
        return pv_fail(PV_E_UNAVAILABLE, "device %d: %s: %s (%s)", index, call, cudaGetErrorString(error),
                       cudaGetErrorName(error));
    }
    size_t lt = cublasLtGetVersion();
    *out = (pv_device_info){.size = sizeof *out,
                            .backend = "cuda",
                            .memory_bytes = prop->totalGlobalMem,
                            .unified = prop->integrated != 0,
                            .sms = prop->multiProcessorCount};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, prop->name);
    const unsigned char *u = (const unsigned char *)prop->uuid.bytes;
    snprintf(out->uuid, sizeof out->uuid,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
             u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    snprintf(out->library, sizeof out->library,
             "sm_%d%d, driver for CUDA %d.%d, runtime %d.%d, cuBLASLt %zu.%zu.%zu", prop->major, prop->minor,
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, lt / 10000,
             lt % 10000 / 100, lt % 100);
    snprintf(out->supports, sizeof out->supports,
             "compute capability: %d.%d\nmultiprocessors: %d\nshared memory of a block: %zu\nthis build has code for: %s\n",
             prop->major, prop->minor, prop->multiProcessorCount, prop->sharedMemPerBlockOptin, PV_CUDA_ARCHITECTURES);
    return PV_OK;
}

static pv_status devices(pv_device_info *out, int *n)
{
    int found = 0;
    pv_status st = count(&found);
    for (int i = 0; !st && i < found && i < *n; i++) {
        struct cudaDeviceProp prop;
        if (!look(i, &prop, &out[i]))
            cuda_conditions(&out[i]);
    }
    if (!st)
        *n = found;
    return st;
}

static pv_status describe(pv_backend *be, pv_device_info *out)
{
    cuda_device *d = (cuda_device *)be;
    struct cudaDeviceProp prop;
    pv_status st = cuda_enter(d);
    if (!st)
        st = look(d->index, &prop, out);
    if (st)
        return st;
    out->sms = d->sms;
    cuda_conditions(out);
    return PV_OK;
}

/* ---- opening ---- */

/* A device that does not answer is passed over when another one is meant. Where none is named, all but the first, none of which
 * is software, need not answer. */
static pv_status choose(const char *wanted, int *index, struct cudaDeviceProp *prop)
{
    int n = 0;
    pv_status st = count(&n);
    if (!wanted)
        n = 1;
    pv_device_info *info = st ? NULL : pv_alloc(sizeof *info * (size_t)n);
    if (!info)
        return st ? st : PV_E_MEMORY;
    for (int i = 0; wanted && i < n; i++)
        look(i, prop, &info[i]);
    st = wanted ? pv_choose_device(info, n, wanted, index) : PV_OK;
    if (!st)
        st = look(*index, prop, &info[*index]);
    pv_free(info);
    return st;
}

static void close_backend(pv_backend *be)
{
    cuda_device *d = (cuda_device *)be;
    cudaSetDevice(d->index); /* a broken device refuses all of this, which changes nothing */
    if (d->lt)
        cublasLtDestroy(d->lt);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    cuda_green_close(d);
    algos_close(&d->kept);
    pv_free(d->products);
    pv_free(d);
}

static pv_status start(cuda_device *d, const struct cudaDeviceProp *prop, int sms)
{
    if (prop->major < LEAST_MAJOR)
        return pv_fail(PV_E_UNAVAILABLE, "device %d (%s) has compute capability %d.%d, %d.0 is needed",
                       d->index, prop->name, prop->major, prop->minor, LEAST_MAJOR);
    pv_status st = cuda_enter(d);
    cudaError_t code = st ? cudaSuccess : cuda_has_code();
    if (code != cudaErrorNoKernelImageForDevice) {
        st = st ? st : cuda_check(d, code, "cudaFuncGetAttributes");
    } else {
        cuda_forget();
        st = pv_fail(
            PV_E_UNAVAILABLE,
            "this build has no code for compute capability %d.%d of device %d (%s); it was made for %s",
            prop->major, prop->minor, d->index, prop->name, PV_CUDA_ARCHITECTURES);
    }
    if (!st && sms)
        st = cuda_green_open(d, sms);
    if (!st)
        st = cuda_stream(d, &d->stream);
    cublasStatus_t lt = st ? CUBLAS_STATUS_SUCCESS : cublasLtCreate(&d->lt);
    return lt ? pv_fail(PV_E_UNAVAILABLE, "cublasLtCreate: %s", cublasLtGetStatusString(lt)) : st;
}

/* All that an algorithm may depend on. The line of the kernel module has the driver's build, where there is such a file. */
static pv_status open_kept(cuda_device *d, const struct cudaDeviceProp *prop, const char *folder)
{
    char key[ALGOS_KEY], module[160] = "";
    int driver = 0;
    pv_status st = CUDA_CHECK(d, cudaDriverGetVersion(&driver));
    FILE *f = fopen("/proc/driver/nvidia/version", "r");
    if (f && fgets(module, sizeof module, f))
        module[strcspn(module, "\n")] = 0;
    if (f)
        fclose(f);
    snprintf(key, sizeof key, "%s, sm_%d%d, %d multiprocessors, driver %d (%s), cuBLASLt %zu", prop->name, prop->major,
             prop->minor, d->sms, driver, module, cublasLtGetVersion());
    if (!st)
        algos_open(&d->kept, folder, key);
    return st;
}

static pv_status open_backend(const pv_backend_params *p, pv_backend **out)
{
    int index = 0;
    struct cudaDeviceProp prop;
    pv_status st = choose(p->device, &index, &prop);
    cuda_device *d = st ? NULL : pv_alloc_zero(sizeof *d);
    if (!d)
        return st ? st : PV_E_MEMORY;
    atomic_flag_clear(&d->breaking);
    d->base.vt = &cuda_backend;
    d->index = index;
    d->integrated = prop.integrated != 0;
    d->sms = prop.multiProcessorCount;
    const char *plain = getenv("PIVOT_CUDA_PLAIN"), *apart = getenv("PIVOT_CUDA_DEPENDENT");
    d->dependent = prop.major >= 9 && !(apart && !strcmp(apart, "0"));
    d->plain = plain && !strcmp(plain, "1");
    d->fp8 = prop.major * 10 + prop.minor >= LEAST_FP8;
    d->wgmma = PV_CUDA_WGMMA && prop.major == 9 && prop.minor == 0 && !d->plain;
    d->clusters = prop.clusterLaunch && !d->plain;
    d->block_room = d->plain ? LEAST_ROOM : (int)prop.sharedMemPerBlockOptin;
    st = start(d, &prop, p->sms);
    if (!st)
        st = open_kept(d, &prop, p->cache);
    if (st)
        close_backend(&d->base);
    else
        *out = &d->base;
    return st;
}

/* ---- memory ---- */

#define WINDOW ((size_t)64 << 10) /* of state: a chunk of actions has 6 KB */

static pv_status alloc(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out)
{
    static const char *const what[PV_USAGE_COUNT] = {"a weight", "constants", "inputs", "state", "scratch"};
    cuda_device *d = (cuda_device *)be;
    pv_buffer *b = pv_alloc_zero(sizeof *b);
    if (!b)
        return PV_E_MEMORY;
    b->bytes = bytes;
    b->window = usage == PV_STATE ? WINDOW : 0;
    void *data = NULL, *host = NULL;
    pv_status st = cuda_enter(d);
    if (!st)
        st = cuda_memory(d, bytes, what[usage], &data);
    if (!st && (usage == PV_IO || usage == PV_STATE))
        st = cuda_host_memory(d, b->window ? b->window : bytes, what[usage], &host);
    if (st) {
        if (data)
            cudaFree(data);
        pv_free(b);
        return st;
    }
    b->data = data;
    b->host = host;
    *out = b;
    return PV_OK;
}

static void release(pv_backend *be, pv_buffer *b)
{
    if (cuda_usable((cuda_device *)be)) {
        cudaFree(b->data);
        if (b->host)
            cudaFreeHost(b->host);
    }
    pv_free(b);
}

static void *map(pv_backend *be, pv_buffer *b)
{
    (void)be;
    return b->window ? NULL : b->host;
}

/* Puts what is to be written where it may stay until the device has fetched it; NULL: there is no such place. An input's may
 * still be on its way when it is written once more before a run: then that comes behind it, and wins. */
static pv_status stage(cuda_device *d, pv_buffer *b, size_t at, const void *src, size_t n, const void **from)
{
    pv_status st = PV_OK;
    *from = NULL;
    if (!b->host || (b->window && n > b->window))
        return PV_OK;
    char *place = b->host + at;
    if (b->window) {
        if (n > b->window - b->used) { /* all around once: what is in it is long gone, as runs have been waited for since */
            st = CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
            b->used = 0;
        }
        place = b->host + b->used;
        b->used += n;
    }
    if (src != place)
        memcpy(place, src, n);
    *from = place;
    return st;
}

/* Where the memory is the host's, the runtime does not count what the system would give up for it: not known. */
static pv_status room(pv_backend *be, size_t *free, size_t *total)
{
    cuda_device *d = (cuda_device *)be;
    pv_status st = d->integrated ? PV_OK : cuda_enter(d);
    return st || d->integrated ? st : CUDA_CHECK(d, cudaMemGetInfo(free, total));
}

/* Without a place of our own the copy has been made when this returns: whether the runtime is done with pageable memory any
 * earlier depends on the platform. */
static pv_status write_bytes(pv_backend *be, pv_buffer *dst, size_t at, const void *src, size_t n)
{
    cuda_device *d = (cuda_device *)be;
    const void *from = NULL;
    pv_status st = cuda_enter(d);
    if (!st)
        st = stage(d, dst, at, src, n, &from);
    if (!st)
        st = CUDA_CHECK(d, cudaMemcpyAsync(dst->data + at, from ? from : src, n, cudaMemcpyHostToDevice, d->stream));
    return st || from ? st : CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
}

static pv_status read_bytes(pv_backend *be, const pv_buffer *src, size_t at, void *dst, size_t n)
{
    cuda_device *d = (cuda_device *)be;
    pv_status st = cuda_enter(d);
    if (!st)
        st = CUDA_CHECK(d, cudaMemcpyAsync(dst, src->data + at, n, cudaMemcpyDeviceToHost, d->stream));
    return st ? st : CUDA_CHECK(d, cudaStreamSynchronize(d->stream));
}

const pv_backend_vt cuda_backend = {
    .name = "cuda",
    .devices = devices,
    .open = open_backend,
    .close = close_backend,
    .describe = describe,
    .alloc = alloc,
    .release = release,
    .room = room,
    .write = write_bytes,
    .read = read_bytes,
    .map = map,
    .claims = claims,
    .record = cuda_record,
    .begin = cuda_start,
    .submit = cuda_submit,
    .wait = cuda_wait,
    .discard = cuda_discard,
};
