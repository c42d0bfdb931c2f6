/* vulkan_kept.c - what the Vulkan backend keeps on disk about a device, on llvmpipe: found again, and never
 * trusted. */
#define _GNU_SOURCE
#include "backends/vulkan/vk.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/memory.h"
#include "plan/instance.h"
#include "tests/test.h"

#include <dirent.h>
#include <unistd.h>

#define PIPELINES "vulkan-pipelines"

static char folder[] = "/tmp/pivot-vulkan-XXXXXX";
static char said[2048];

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user;
    if (level >= PV_LOG_WARN)
        snprintf(said, sizeof said, "%s", text);
}

static vk_device *opened(const char *cache)
{
    pv_backend *be = NULL;
    *said = 0;
    CHECK_OK(pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe", .cache = cache}, &be));
    return (vk_device *)be;
}

static void put_away(vk_device *d)
{
    pv_backend *be = &d->base;
    pv_backend_close(&be);
}

/* gelu(x) + x */
static void work(vk_device *d)
{
    pv_graph *g = pv_graph_create();
    pv_tensor *x = pv_input(g, "x", PV_F32, 2, (int64_t[]){3, 8}, NULL), *y;
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    float in[24], out[24] = {0};
    for (int i = 0; i < 24; i++)
        in[i] = 10;
    pv_node *n = pv_node_add(g, "h", PV_OP_GELU, 1, &x, &(pv_attr){0});
    n = pv_node_add(g, "y", PV_OP_ADD, 2, (pv_tensor *[]){n->out[0], x}, &(pv_attr){0});
    y = n->out[0];
    y->output = true;
    CHECK_OK(pv_plan_create(&d->base, &g, &(pv_plan_params){.steps = 1}, &plan));
    CHECK_OK(pv_instance_create(plan, NULL, &inst));
    CHECK_OK(pv_instance_write(inst, x, 0, in, sizeof in));
    CHECK_OK(pv_instance_run(inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL));
    CHECK_OK(pv_instance_read(inst, y, 0, out, sizeof out));
    CHECK(out[0] == 20 && out[23] == 20);
    pv_instance_destroy(&inst);
    pv_plan_destroy(&plan);
}

/* Files of the folder whose name begins with `kind`; the last one's path. */
static int files(const char *kind, char path[512])
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, kind, strlen(kind))) {
            snprintf(path, 512, "%s/%s", folder, e->d_name);
            n++;
        }
    if (d)
        closedir(d);
    return n;
}

static void found_again(void)
{
    char path[512];
    vk_device *d = opened("");
    work(d);
    put_away(d);
    CHECK(files(PIPELINES, path) == 0);
    d = opened(folder);
    CHECK(d->cache_bytes == 0);
    work(d);
    CHECK(files(PIPELINES, path) == 1 && d->n_kept == d->n_pipelines && d->n_kept > 0);
    put_away(d);
    d = opened(folder);
    CHECK(d->cache_bytes > 0 && !*said);
    work(d);
    put_away(d);
    CHECK(files(PIPELINES, path) == 1 && !*said);
}

static void write_bytes(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (CHECK(f)) {
        CHECK(fwrite(bytes, 1, n, f) == n);
        fclose(f);
    }
}

/* What lies there now is said to be `words`, not used, and replaced by the next run. */
static void refused(const char *words)
{
    vk_device *d = opened(folder);
    if (!CHECK(d->cache_bytes == 0 && strstr(said, words)))
        printf("    '%s', expected '%s'\n", said, words);
    work(d);
    put_away(d);
    d = opened(folder);
    CHECK(d->cache_bytes > 0 && !*said);
    put_away(d);
}

static void never_trusted(void)
{
    char path[512];
    const char *wrong;
    size_t n = 0, m = 0;
    CHECK(files(PIPELINES, path) == 1);
    char *all = pv_kept_read(path, (size_t)1 << 24, &n, &wrong);
    vk_device *d = opened(folder);
    char key[256], *own = pv_kept_load(folder, PIPELINES, d->info.identity, (size_t)1 << 24, &m);
    snprintf(key, sizeof key, "%s", d->info.identity);
    put_away(d);
    if (!CHECK(all && own && m >= sizeof(VkPipelineCacheHeaderVersionOne)))
        return;
    write_bytes(path, all, n - 1);
    refused("a length that does not fit");
    write_bytes(path, all, 100);
    refused("too short");
    all[n / 2] ^= 1;
    write_bytes(path, all, n);
    refused("damaged");

    /* Kept whole, and not this driver's: header, vendor, device, its UUID, or nothing at all. */
    static const int at[] = {0, 3, 4, 8, 12, 16, 31};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        own[at[i]] ^= 1;
        pv_kept_save(folder, PIPELINES, key, own, m);
        own[at[i]] ^= 1;
        refused("not of this driver");
    }
    pv_kept_save(folder, PIPELINES, key, own, 31);
    refused("not of this driver");
    pv_kept_save(folder, PIPELINES, key, "", 0);
    refused("not of this driver");
    pv_free(all);
    pv_free(own);
}

static PFN_vkCreatePipelineCache real_create;

static VKAPI_ATTR VkResult VKAPI_CALL picky(VkDevice d, const VkPipelineCacheCreateInfo *info,
                                            const VkAllocationCallbacks *a, VkPipelineCache *out)
{
    return info->initialDataSize ? VK_ERROR_INITIALIZATION_FAILED : real_create(d, info, a, out);
}

/* A driver that refuses its own bytes gets none. */
static void refused_by_the_driver(void)
{
    vk_device *d = opened(folder);
    CHECK(d->cache_bytes > 0);
    d->fn.DestroyPipelineCache(d->handle, d->cache, NULL);
    real_create = d->fn.CreatePipelineCache;
    d->fn.CreatePipelineCache = picky;
    CHECK_OK(vk_cache_open(d));
    CHECK(d->cache_bytes == 0 && d->cache);
    work(d);
    put_away(d);
}

int main(void)
{
    setenv("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation", 1);
    pv_backend *be = NULL;
    if (pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe", .cache = ""}, &be)) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    pv_backend_close(&be);
    if (!CHECK(mkdtemp(folder)))
        return test_done();
    pv_set_log(hear, NULL, PV_LOG_INFO);
    found_again();
    never_trusted();
    refused_by_the_driver();
    CHECK(pv_alloc_live() == 0);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    CHECK(system(command) == 0);
    return test_done();
}
