/* memory.c - buffers, and bytes between them and the host.
 *
 * A buffer is an allocation of its own, and on a device that shares the host's memory the host sees it.
 * Elsewhere inputs are two: one that the host sees, and one of the device's own into which a run fetches it,
 * since every group of a shader reads counts; what is not an input goes through a staging buffer, a piece at
 * a time. Writing and reading wait until all that was submitted is done, so that they are in order with runs.
 */
#include "base/memory.h"
#include "vk.h"

#include <stdio.h>
#include <string.h>

#define STAGING ((size_t)4 << 20)

static int find_type(const vk_device *d, uint32_t among, VkMemoryPropertyFlags flags)
{
    for (uint32_t i = 0; i < d->memory.memoryTypeCount; i++)
        if (among >> i & 1 && (d->memory.memoryTypes[i].propertyFlags & flags) == flags)
            return (int)i;
    return -1;
}

#define SEEN (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)

static pv_status allocate(vk_device *d, bool host, const char *what, pv_buffer *b)
{
    VkMemoryRequirements need;
    d->fn.GetBufferMemoryRequirements(d->handle, b->handle, &need);
    int type = -1;
    if (host && d->info.unified)
        type = find_type(d, need.memoryTypeBits, SEEN | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    if (type < 0 && host)
        type = find_type(d, need.memoryTypeBits, SEEN);
    if (type < 0 && !host)
        type = find_type(d, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    if (type < 0)
        return pv_fail(PV_E_DEVICE, "%s: no memory %s", d->info.name,
                       host ? "that the host sees" : "of its own");
    if (need.size > d->most_bytes)
        return pv_fail(PV_E_MEMORY, "%zu bytes for %s: %s allocates at most %zu at once", b->bytes, what,
                       d->info.name, d->most_bytes);
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .allocationSize = need.size,
                                 .memoryTypeIndex = (uint32_t)type};
    pv_status st = VK_CHECK(d, AllocateMemory, d->handle, &info, NULL, &b->memory);
    if (st)
        return pv_fail_in(st, "%zu bytes for %s", b->bytes, what);
    st = VK_CHECK(d, BindBufferMemory, d->handle, b->handle, b->memory, 0);
    void *at = NULL;
    if (!st && host)
        st = VK_CHECK(d, MapMemory, d->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &at);
    b->host = at;
    return st;
}

pv_status vk_buffer_make(vk_device *d, size_t bytes, bool host, const char *what, pv_buffer *out)
{
    *out = (pv_buffer){.bytes = bytes};
    if (bytes > SIZE_MAX - 4)
        return pv_fail(PV_E_MEMORY, "%zu bytes for %s", bytes, what);
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = (bytes + 3) / 4 * 4, /* shaders read whole words */
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    pv_status st = VK_CHECK(d, CreateBuffer, d->handle, &info, NULL, &out->handle);
    if (!st)
        st = allocate(d, host, what, out);
    if (st)
        vk_buffer_drop(d, out);
    return st;
}

void vk_buffer_drop(vk_device *d, pv_buffer *b)
{
    if (!d->hung) {
        d->fn.DestroyBuffer(d->handle, b->handle, NULL);
        d->fn.FreeMemory(d->handle, b->memory, NULL);
    }
    *b = (pv_buffer){0};
}

/* Gives an input of a device the buffer that the host sees. */
static pv_status make_seen(vk_device *d, pv_buffer *b)
{
    pv_buffer *from = pv_alloc(sizeof *from);
    pv_status st = from ? vk_buffer_make(d, b->bytes, true, "inputs of the host", from) : PV_E_MEMORY;
    if (st) {
        pv_free(from);
        vk_buffer_drop(d, b);
        return st;
    }
    b->from = from;
    b->host = from->host;
    return PV_OK;
}

pv_status vk_alloc(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out)
{
    vk_device *d = (vk_device *)be;
    pv_status st = vk_usable(d);
    if (st)
        return st;
    pv_buffer *b = pv_alloc(sizeof *b);
    if (!b)
        return PV_E_MEMORY;
    st = vk_buffer_make(d, bytes, d->info.unified, pv_usage_name(usage), b);
    if (!st && usage == PV_IO && !b->host)
        st = make_seen(d, b);
    if (st)
        pv_free(b);
    else
        *out = b;
    return st;
}

/* Submits and waits; with the lock. A wait that failed before is made up for first: a fence in use may not be
 * reset. */
static pv_status submit_and_wait(vk_device *d, uint32_t n, const VkSubmitInfo *info)
{
    pv_status st = d->pending ? vk_wait_fence(d, d->settled) : PV_OK;
    d->pending &= st != PV_OK;
    if (!st)
        st = VK_CHECK(d, ResetFences, d->handle, 1, &d->settled);
    if (!st)
        st = VK_CHECK(d, QueueSubmit, d->queue, n, info, d->settled);
    if (st)
        return st;
    st = vk_wait_fence(d, d->settled);
    d->pending = st != PV_OK;
    return st;
}

static pv_status settle(vk_device *d) /* with the lock */
{
    if (!d->busy && !d->pending)
        return PV_OK;
    pv_status st = submit_and_wait(d, 0, NULL);
    d->busy = st != PV_OK;
    return st;
}

void vk_settle(vk_device *d)
{
    pthread_mutex_lock(&d->lock);
    if (!d->lost && settle(d) && !d->lost) { /* nobody knows what still runs */
        snprintf(d->lost_words, sizeof d->lost_words, "%s: waiting for what was submitted failed",
                 d->info.name);
        d->lost = d->hung = true;
    }
    pthread_mutex_unlock(&d->lock);
}

void vk_release(pv_backend *be, pv_buffer *b)
{
    vk_device *d = (vk_device *)be;
    vk_settle(d);
    if (b->from)
        vk_buffer_drop(d, b->from);
    pv_free(b->from);
    vk_buffer_drop(d, b);
    pv_free(b);
}

/* A piece from one buffer to another, done when this returns. */
static pv_status copy(vk_device *d, VkBuffer from, size_t from_at, VkBuffer to, size_t to_at, size_t n)
{
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkBufferCopy region = {from_at, to_at, n};
    VkMemoryBarrier seen = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                            .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                            .dstAccessMask = VK_ACCESS_HOST_READ_BIT | VK_ACCESS_SHADER_READ_BIT |
                                             VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                                             VK_ACCESS_TRANSFER_WRITE_BIT};
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &d->copy};
    pv_status st = VK_CHECK(d, ResetCommandBuffer, d->copy, 0); /* also one whose recording failed */
    if (!st)
        st = VK_CHECK(d, BeginCommandBuffer, d->copy, &begin);
    if (st)
        return st;
    d->fn.CmdCopyBuffer(d->copy, from, to, 1, &region);
    d->fn.CmdPipelineBarrier(d->copy, VK_PIPELINE_STAGE_TRANSFER_BIT,
                             VK_PIPELINE_STAGE_HOST_BIT | VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 1, &seen, 0,
                             NULL, 0, NULL);
    st = VK_CHECK(d, EndCommandBuffer, d->copy);
    return st ? st : submit_and_wait(d, 1, &info);
}

static pv_status begin_copying(vk_device *d, const pv_buffer *b)
{
    pv_status st = vk_usable(d);
    if (!st)
        st = settle(d);
    if (!st && !b->host && !d->staging.handle)
        st = vk_buffer_make(d, STAGING, true, "staging", &d->staging);
    return st;
}

pv_status vk_write(pv_backend *be, pv_buffer *dst, size_t at, const void *src, size_t n)
{
    vk_device *d = (vk_device *)be;
    if (dst->host && dst->host + at == src)
        return vk_usable(d); /* it is there */
    pthread_mutex_lock(&d->lock);
    pv_status st = begin_copying(d, dst);
    if (!st && dst->host)
        memcpy(dst->host + at, src, n);
    for (size_t done = 0, piece; !st && !dst->host && done < n; done += piece) {
        piece = n - done < STAGING ? n - done : STAGING;
        memcpy(d->staging.host, (const char *)src + done, piece);
        st = copy(d, d->staging.handle, 0, dst->handle, at + done, piece);
    }
    pthread_mutex_unlock(&d->lock);
    return st;
}

pv_status vk_read(pv_backend *be, const pv_buffer *src, size_t at, void *dst, size_t n)
{
    vk_device *d = (vk_device *)be;
    pthread_mutex_lock(&d->lock);
    pv_status st = begin_copying(d, src);
    if (!st && src->host)
        memcpy(dst, src->host + at, n);
    for (size_t done = 0, piece; !st && !src->host && done < n; done += piece) {
        piece = n - done < STAGING ? n - done : STAGING;
        st = copy(d, src->handle, at + done, d->staging.handle, 0, piece);
        if (!st)
            memcpy((char *)dst + done, d->staging.host, piece);
    }
    pthread_mutex_unlock(&d->lock);
    return st;
}

void *vk_map(pv_backend *be, pv_buffer *b)
{
    (void)be;
    return b->host;
}
