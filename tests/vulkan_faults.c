/* vulkan_faults.c - a driver that answers badly: a device that is lost when something is submitted or waited
 * for, one that gives no answer in time, memory that is full. Each time a status within a second, a process
 * that lives, sessions that refuse and can be destroyed, and a new session that works. On llvmpipe, with
 * functions in place of the driver's that tell what they are told to. */
#include "backends/vulkan/vk.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/rig.h"

static vk_functions real;
static int left; /* calls that still go to the driver */

static bool now(void)
{
    return left-- <= 0;
}

static VKAPI_ATTR VkResult VKAPI_CALL submit_lost(VkQueue q, uint32_t n, const VkSubmitInfo *info,
                                                  VkFence fence)
{
    return now() ? VK_ERROR_DEVICE_LOST : real.QueueSubmit(q, n, info, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL wait_lost(VkDevice d, uint32_t n, const VkFence *f, VkBool32 all,
                                                uint64_t ns)
{
    VkResult r =
        real.WaitForFences(d, n, f, all, UINT64_MAX); /* a device that is lost is done with everything */
    (void)ns;
    return now() ? VK_ERROR_DEVICE_LOST : r;
}

static VKAPI_ATTR VkResult VKAPI_CALL wait_forever(VkDevice d, uint32_t n, const VkFence *f, VkBool32 all,
                                                   uint64_t ns)
{
    return now() ? VK_TIMEOUT : real.WaitForFences(d, n, f, all, ns);
}

static VKAPI_ATTR VkResult VKAPI_CALL full(VkDevice d, const VkMemoryAllocateInfo *info,
                                           const VkAllocationCallbacks *a, VkDeviceMemory *out)
{
    return now() ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.AllocateMemory(d, info, a, out);
}

static vk_device *device_of(const rig *r)
{
    return (vk_device *)r->backend;
}

static bool one_thread; /* pipelines are compiled by whoever wants them */

static pv_status open_on(rig *r)
{
    pv_status st =
        pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe"}, &r->backend);
    if (!st)
        real = device_of(r)->fn;
    if (!st && one_thread)
        device_of(r)->most_makers = 0;
    if (!st)
        st = pv_model_load(TINY_F32, &(pv_model_params){.config = TINY_CONFIG}, &r->model);
    return st ? st : pv_session_create(r->model, r->backend, NULL, &r->session);
}

/* What was replaced is the driver's again; the driver has answered a fence that was given up, so that memory
 * can be given back here. */
static void recover(vk_device *d)
{
    d->fn = real;
    if (!d->hung)
        return;
    pthread_mutex_lock(&d->lock);
    real.ResetFences(d->handle, 1, &d->settled);
    CHECK(!real.QueueSubmit(d->queue, 0, NULL, d->settled));
    CHECK(!real.WaitForFences(d->handle, 1, &d->settled, VK_TRUE, UINT64_MAX));
    pthread_mutex_unlock(&d->lock);
    d->hung = false;
}

enum { SUBMIT_LOST, WAIT_LOST, NO_ANSWER, FAULTS };

static void inject(vk_device *d, int fault, int after)
{
    left = after;
    if (fault == SUBMIT_LOST)
        d->fn.QueueSubmit = submit_lost;
    else
        d->fn.WaitForFences = fault == WAIT_LOST ? wait_lost : wait_forever;
}

static const char *const words[FAULTS] = {"vkQueueSubmit on llvmpipe", "vkWaitForFences on llvmpipe",
                                          "no answer within"};

/* Every call on the device's sessions and a new one answers at once. */
static void refused(rig *r, pv_session *other, const pv_observation *obs, int fault)
{
    float actions[CHUNK];
    memset(actions, 0x77, sizeof actions);
    const float before = actions[0];
    double begun = pv_now_ms();
    pv_session *more = NULL;
    pv_session *const both[] = {r->session, other};
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(pv_session_infer(both[i], obs, NULL, actions), PV_E_DEVICE);
        CHECK_TEXT("the device was lost");
        CHECK_TEXT(words[fault]);
        CHECK_TEXT("open the backend anew");
    }
    CHECK_STATUS(pv_session_create(r->model, r->backend, NULL, &more), PV_E_DEVICE);
    CHECK(!more && actions[0] == before && pv_now_ms() - begun < 1000);
}

/* The fault in one of two sessions on a device, while a third has a device of its own. */
static void lost(int fault, int after, const rig *apart, const chunk *want)
{
    rig r = {NULL};
    pv_session *second = NULL;
    const pv_observation obs = rig_observation(20);
    float actions[CHUNK];
    memset(actions, 0x77, sizeof actions);
    const float before = actions[0];
    if (!CHECK_OK(open_on(&r)) || !CHECK_OK(pv_session_create(r.model, r.backend, NULL, &second)))
        exit(test_done());
    chunk first = rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
    CHECK(same(&first, want));

    inject(device_of(&r), fault, after);
    double begun = pv_now_ms();
    CHECK_STATUS(pv_session_infer(r.session, &obs, NULL, actions), PV_E_DEVICE);
    CHECK_TEXT(words[fault]);
    CHECK(actions[0] == before && left < 0);
    CHECK(pv_now_ms() - begun < 1000 + 1000 * after);
    refused(&r, second, &obs, fault); /* whatever the driver would say: it is not asked */
    CHECK(device_of(&r)->lost && device_of(&r)->hung == (fault == NO_ANSWER));

    rig other = *apart;
    chunk there =
        rig_infer(&other, &obs, (pv_infer_params){.seed = 3}); /* another opening of the device goes on */
    CHECK(same(&there, want));
    recover(device_of(&r));
    refused(&r, second, &obs, fault); /* also when the driver is well again */
    begun = pv_now_ms();
    pv_session_destroy(&second);
    rig_close(&r);
    CHECK(pv_now_ms() - begun < 1000);

    CHECK_OK(open_on(&r));
    chunk again = rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
    CHECK(same(&again, want));
    rig_close(&r);
}

/* Of a leak checker, where there is one. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

/* A device that never answers is closed all the same; what the driver may still use stays with it, which no
 * checker is to call a leak. */
static void closed_while_hung(void)
{
    rig r = {NULL};
    const pv_observation obs = rig_observation(20);
    float actions[CHUNK];
    if (__lsan_disable)
        __lsan_disable();
    one_thread = true; /* the checker looks away from this thread alone */
    CHECK_OK(open_on(&r));
    one_thread = false;
    inject(device_of(&r), NO_ANSWER, 0);
    CHECK_STATUS(pv_session_infer(r.session, &obs, NULL, actions), PV_E_DEVICE);
    double begun = pv_now_ms();
    rig_close(&r);
    CHECK(pv_now_ms() - begun < 1000);
    if (__lsan_enable)
        __lsan_enable();
    CHECK_OK(open_on(&r));
    rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
    rig_close(&r);
}

/* Full memory is no loss: the session that asked is not made, the one that is there goes on. */
static void memory(const chunk *want)
{
    rig r = {NULL};
    pv_session *more = NULL;
    const pv_observation obs = rig_observation(20);
    CHECK_OK(open_on(&r));
    for (int after = 0; after < 4; after++) {
        left = after;
        device_of(&r)->fn.AllocateMemory = full;
        double begun = pv_now_ms();
        CHECK_STATUS(pv_session_create(r.model, r.backend, NULL, &more), PV_E_MEMORY);
        CHECK_TEXT("out of device memory");
        CHECK(!more && left < 0 && pv_now_ms() - begun < 1000);
        device_of(&r)->fn = real;
        chunk there = rig_infer(&r, &obs, (pv_infer_params){.seed = 3});
        CHECK(same(&there, want));
    }
    CHECK_OK(pv_session_create(r.model, r.backend, NULL, &more));
    pv_session_destroy(&more);
    rig_close(&r);
}

int main(void)
{
    rig apart = {NULL};
    pv_status st =
        pv_backend_open("vulkan", &(pv_backend_params){.device = "llvmpipe"}, &apart.backend);
    if (st) {
        printf("SKIPPED: %s\n", pv_error_text());
        return 77;
    }
    pv_backend_close(&apart.backend);
    if (!CHECK_OK(open_on(&apart)))
        return test_done();
    const pv_observation obs = rig_observation(20);
    const chunk want = rig_infer(&apart, &obs, (pv_infer_params){.seed = 3});
    for (int fault = 0; fault < FAULTS; fault++)
        for (int after = 0; after < 2; after++)
            lost(fault, after, &apart, &want);
    memory(&want);
    rig_close(&apart);
    CHECK(pv_alloc_live() == 0);
    closed_while_hung();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
