/* vk.h - what the parts of the Vulkan backend share.
 *
 * Vulkan 1.2 and compute: storage buffers bound by descriptors with offset and range, 32-bit words in them, push constants of at
 * most 128 bytes, no word on the size of subgroups. Beyond that cooperative matrices alone are used, where the device lists a
 * shape (matrix.c). No binding is larger than the device's maxStorageBufferRange (128 MiB at least): a larger weight is bound and
 * multiplied in pieces, another tensor as large is not claimed. The functions stand in the device's own table, where a
 * test can put another in place of one. Every VkResult goes through vk_check, which makes a status with words of it. */
#ifndef PV_VK_H
#define PV_VK_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <pthread.h>
#include <stdatomic.h>

#include "plan/backend.h"
#include "shaders/push.h"

#define VK_CONSTANTS 20 /* of types.glsl and what includes it; each shader says what they are */
#define VK_CALLS     8  /* dispatches of a node, at most */
#define VK_TILES     4096 /* of a dispatch in parts: counters */
#define VK_MOST_VARIANTS 128
#define VK_MAKERS    15 /* threads that compile, at most, beside the one that waits for it */

enum { VK_IN0, VK_IN1, VK_IN2, VK_ROWS0, VK_ROWS1, VK_OUT, VK_IN3, VK_IN4, VK_PART, VK_BINDINGS };

enum {
    VK_LINEAR, VK_LINEAR_THIN, VK_DENSE, VK_ATTENTION, VK_FLASH, VK_FLASH_JOIN, VK_NORM, VK_LINEAR_NORM, VK_ROPE, VK_ROPE_CACHE, VK_ELEMENTWISE, VK_LAYOUT, VK_EMBED,
    VK_DENSE_BF16, VK_DENSE_F16, VK_FLASH_BF16, VK_FLASH_F16, VK_SHADERS
};

typedef struct vk_shader {
    const char *name;
    const uint32_t *words;
    size_t bytes;
} vk_shader;
extern const vk_shader vk_shaders[VK_SHADERS]; /* made at build time */

/* Functions of an instance, and those of its devices, which it gives too. */
#define VK_FUNCTIONS(X) \
    X(DestroyInstance) X(EnumeratePhysicalDevices) X(GetPhysicalDeviceProperties2) X(GetPhysicalDeviceMemoryProperties) \
    X(GetPhysicalDeviceQueueFamilyProperties) X(CreateDevice) X(DestroyDevice) X(GetDeviceQueue) X(QueueSubmit) \
    X(AllocateMemory) X(FreeMemory) X(MapMemory) X(CreateBuffer) X(DestroyBuffer) X(GetBufferMemoryRequirements) \
    X(BindBufferMemory) X(CreateFence) X(DestroyFence) X(ResetFences) X(WaitForFences) X(CreateCommandPool) \
    X(DestroyCommandPool) X(AllocateCommandBuffers) X(ResetCommandBuffer) X(BeginCommandBuffer) X(EndCommandBuffer) X(CmdCopyBuffer) \
    X(CmdUpdateBuffer) X(CmdPipelineBarrier) X(CmdBindPipeline) X(CmdBindDescriptorSets) X(CmdPushConstants) X(CmdDispatch) \
    X(CmdResetQueryPool) X(CmdWriteTimestamp) X(CmdCopyQueryPoolResults) X(GetQueryPoolResults) X(CreateQueryPool) X(DestroyQueryPool) \
    X(CreateDescriptorSetLayout) X(DestroyDescriptorSetLayout) X(CreateDescriptorPool) X(DestroyDescriptorPool) \
    X(AllocateDescriptorSets) X(UpdateDescriptorSets) X(CreatePipelineLayout) X(DestroyPipelineLayout) \
    X(CreatePipelineCache) X(GetPipelineCacheData) X(DestroyPipelineCache) X(CreateShaderModule) X(DestroyShaderModule) X(CreateComputePipelines) \
    X(DestroyPipeline)

typedef struct vk_functions {
#define X(name) PFN_vk##name name;
    VK_FUNCTIONS(X)
#undef X
    PFN_vkCreateDebugUtilsMessengerEXT CreateMessenger; /* NULL: the extension is not there */
    PFN_vkDestroyDebugUtilsMessengerEXT DestroyMessenger;
} vk_functions;

/* One instance and what it tells of its devices. */
typedef struct vk_instance {
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    vk_functions fn;
} vk_instance;

struct pv_buffer {
    size_t bytes;
    VkBuffer handle;
    VkDeviceMemory memory;
    char *host; /* mapped as long as it lives; NULL: the host cannot see it */
    pv_buffer *from; /* inputs of a device with memory of its own: what `host` shows, fetched at the beginning of a run */
};

typedef struct vk_variant vk_variant;

/* A cooperative matrix of a subgroup that the device lists: m x k by k x n, added up in f32. m 0: it has none. */
typedef struct vk_matrix {
    uint32_t m, n, k;
} vk_matrix;

/* How a group makes a part of a product by matrices: subgroups across its rows and columns, matrices of each, matrices along k in
 * shared memory at once, parts of k; parts 0: as many as seem best. */
typedef struct vk_tile {
    uint32_t across_m, across_n, fm, fn, depth, parts;
} vk_tile;

/* How a group takes attention by matrices (flash_matrix.comp): subgroups across its lines and along a tile's keys, keys of a tile, parts
 * of the keys; parts 0: as many as fill the device. */
typedef struct vk_cut {
    uint32_t across, along, keys, parts;
} vk_cut;

typedef enum vk_making { VK_ASKED_FOR, VK_BEING_MADE, VK_MADE } vk_making;

typedef struct vk_pipeline {
    struct vk_pipeline *next;
    int shader;
    uint32_t constant[VK_CONSTANTS];
    vk_making state;
    VkResult result;
    VkPipeline handle;
} vk_pipeline;

typedef struct vk_device {
    pv_backend base;
    vk_instance instance;
    vk_functions fn; /* of `instance`; what everything calls */
    pv_device_info info;
    pv_variant variants[VK_MOST_VARIANTS]; /* of vk_variants, in their order */
    int n_variants;
    VkPhysicalDevice physical;
    VkPhysicalDeviceLimits limits;
    VkPhysicalDeviceProperties properties;
    char folder[1024]; /* of what is kept (cache.c); empty: nowhere */
    VkPhysicalDeviceMemoryProperties memory;
    size_t most_bytes; /* of one allocation */
    bool timestamps;
    vk_matrix bf16, f16;
    uint32_t subgroup;   /* threads of one, where matrices are used */
    bool neighbours;     /* and may they look at each other's numbers, and vote? */
    const vk_tile *tile; /* for measurements and tests: for every product by matrices; NULL: chosen */
    const vk_cut *cut;   /* likewise, for every attention */
    VkDevice handle;
    uint32_t family;

    pthread_mutex_t lock; /* of what follows, which several sessions use at once */
    VkQueue queue;
    VkCommandPool pool;
    VkCommandBuffer copy;
    VkFence settled;
    pv_buffer staging;
    bool busy;    /* something was submitted since the host last waited for all */
    bool pending; /* waiting for `settled` failed, so it may still be in use */

    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkPipelineCache cache;
    size_t cache_bytes; /* with which it began, from an earlier process */
    int n_kept;         /* of `pipelines`, those that the file has */
    VkShaderModule module[VK_SHADERS];

    pthread_mutex_t making; /* of what follows: pipelines are compiled by several threads (pipeline.c) */
    pthread_cond_t asked, made;
    vk_pipeline *pipelines; /* as they were asked for */
    atomic_int n_pipelines; /* that are made */
    pthread_t maker[VK_MAKERS];
    int n_makers, most_makers;
    bool no_more;

    bool lost, hung;    /* lost: refuse everything. hung: it may still use what it was given, so nothing is given back */
    char lost_words[512];
} vk_device;

/* ---- device.c ---- */

pv_status vk_instance_open(vk_instance *out);
void vk_instance_close(vk_instance *inst);
PFN_vkVoidFunction vk_instance_function(const vk_instance *inst, const char *name); /* NULL: it has none */
pv_status vk_devices(pv_device_info *out, int *n);
pv_status vk_open(const pv_backend_params *params, pv_backend **out);
void vk_close(pv_backend *be);
pv_status vk_describe(pv_backend *be, pv_device_info *out);
pv_variant *vk_variants_of(pv_backend *be, int *n);

/* The status of a result of `what`; a lost device is remembered. VK_CHECK(d, call): by the call's own name. */
pv_status vk_check(vk_device *d, VkResult r, const char *what);
#define VK_CHECK(d, name, ...) vk_check((d), (d)->fn.name(__VA_ARGS__), "vk" #name)
pv_status vk_usable(const vk_device *d); /* refuses when it is lost */
pv_status vk_wait_fence(vk_device *d, VkFence fence);
pv_status vk_submit(vk_device *d, uint32_t n, const VkCommandBuffer *buffers, VkFence fence); /* takes the lock */

/* ---- matrix.c ---- */

/* What a device is opened with beyond Vulkan 1.2: names of extensions, and structs that switch features on. */
typedef struct vk_extras {
    const char *extension[3];
    uint32_t n;
    void *chain; /* NULL: nothing */
    struct {
        VkStructureType type;
        void *next;
        VkBool32 on[3];
    } matrix, bfloat16;
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT full;
    VkPhysicalDeviceVulkan12Features v12;
} vk_extras;

/* Finds the matrices of d->physical, for d->bf16 and d->f16, and what d must be opened with to have them. */
void vk_matrix_find(vk_device *d, vk_extras *out);

/* ---- memory.c ---- */

pv_status vk_alloc(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out);
void vk_release(pv_backend *be, pv_buffer *b);
pv_status vk_write(pv_backend *be, pv_buffer *dst, size_t at, const void *src, size_t n);
pv_status vk_read(pv_backend *be, const pv_buffer *src, size_t at, void *dst, size_t n);
void *vk_map(pv_backend *be, pv_buffer *b);
void vk_settle(vk_device *d); /* waits until nothing runs; where that fails the device is given up */
pv_status vk_buffer_make(vk_device *d, size_t bytes, bool host, const char *what, pv_buffer *out);
void vk_buffer_drop(vk_device *d, pv_buffer *b);

/* ---- pipeline.c ---- */

pv_status vk_pipelines_begin(vk_device *d);
void vk_pipelines_end(vk_device *d); /* also without a device, and with one that is hung */
/* Made once for each shader and constants. `ask`: it will be wanted soon, a thread of the device's begins with it if none is busy
 * with others; `get`, one at a time, waits for it, or makes it. */
void vk_pipeline_ask(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS]);
pv_status vk_pipeline_get(vk_device *d, int shader, const uint32_t constant[VK_CONSTANTS], VkPipeline *out);

/* ---- cache.c ---- */

/* pv_device_info.identity: what is kept is kept under it. */
void vk_key(const VkPhysicalDeviceProperties *p, const VkPhysicalDeviceIDProperties *ids, char out[256]);
pv_status vk_cache_open(vk_device *d); /* makes d->cache */
void vk_cache_save(vk_device *d);      /* if there are pipelines that the file has not */

/* ---- kernels.c ---- */

/* A dispatch. */
typedef struct vk_call {
    int shader;
    uint32_t constant[VK_CONSTANTS], grid[3];
    vk_push push;
    const pv_tensor *bind[VK_BINDINGS]; /* NULL: not read; something is bound all the same */
    size_t at[VK_BINDINGS], bytes[VK_BINDINGS]; /* of the tensor, what is bound; bytes 0: all of it */
    uint32_t part_words; /* of the memory for parts (VK_PART), up to here; 0: none */
    bool behind; /* reads what the node's dispatch before it wrote */
} vk_call;

/* One way to do an op. */
struct vk_variant {
    const char *name;
    pv_op op;
    void (*fill)(const pv_node *n, vk_call *c);
    int shader;
    uint32_t shader_op; /* of the shader's family */
    unsigned whole;     /* bits 1 << input: whole numbers; all others hold fractions */
    bool (*accepts)(const vk_device *d, const pv_node *n); /* NULL: every node whose tensors fit */
    /* In place of fill, shader and shader_op: any number of dispatches, 0 where it cannot. */
    int (*calls)(const vk_device *d, const pv_node *n, vk_call *c);
};
extern const vk_variant *vk_variants; /* the table in kernels.c; a test may put another in its place */
extern int vk_n_variants;

bool vk_claims(const pv_backend *be, const pv_node *n);
void vk_foresee(pv_backend *be, const pv_node *n); /* asks for its pipelines */
/* The dispatches of a claimed node, which may run at once unless one is `behind`; how many. Those of two nodes may not where both have part_words:
 * they use the same memory. Its first VK_CALLS VK_TILES words are counters, 0 at first and after each dispatch. */
int vk_calls_make(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]);

/* What the files of ops share: an empty call, and a tensor bound to it with its dtype and row count. */
void vk_call_begin(vk_call *c, int shader, uint32_t op);
void vk_bind(vk_call *c, int i, const pv_tensor *t);

/* ---- barriers.c ---- */

/* before[i] (for each node of the program): node i of stage s needs a barrier before it. How many do. in_place: of nodes
 * that vk_reads_in_place names nothing is dispatched. */
int vk_barriers(const vk_device *d, const pv_program *prog, pv_stage s, bool in_place, bool *before);

/* The node picks the running step's row of a table, and whoever reads it might as well read the table. */
bool vk_reads_in_place(const vk_device *d, const pv_program *prog, const pv_node *n);

/* ---- linear.c ---- */

/* The linears, by cooperative matrices and by f32 arithmetic; 0: it cannot. */
int vk_linear_rope_cache(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]); /* by matrices */
int vk_linear_norm(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]); /* by matrices, the norm behind them too */
int vk_linear_matrices(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]);
int vk_linear(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]);

/* ---- attention.c ---- */

/* The whole attention, likewise. */
int vk_attention_matrices(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]);
int vk_attention(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS]);

/* ---- record.c ---- */

pv_status vk_record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out);
pv_status vk_run(pv_recording *r, const pv_run *run);
pv_status vk_wait(pv_recording *r, pv_run_timing *t);
void vk_discard(pv_recording *r);

extern const pv_backend_vt pv_vulkan_backend;

#endif
