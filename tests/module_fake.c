/* module_fake.c - stands for a backend's module: one that works as far as telling its devices, one made for
 * another version of the library (PV_MODULE_VERSION), one that is no module at all (NO_ENTRY). */
#include "plan/module.h"

#ifndef NO_ENTRY
static const pv_host *host;

static pv_status devices(pv_device_info *out, int *n)
{
    (void)out;
    *n = 7;
    host->log(PV_LOG_WARN, "seven");
    return PV_OK;
}

static pv_status open_backend(const pv_backend_params *p, pv_backend **out)
{
    (void)out;
    host->log(PV_LOG_DEBUG, p->cache);
    host->fail(PV_E_UNAVAILABLE, "device 9 of 100%");
    return host->fail_in(PV_E_UNAVAILABLE, "fake");
}

static const pv_backend_vt vt = {.name = "cuda", .devices = devices, .open = open_backend};

PV_API const pv_backend_vt *pv_backend_module(const pv_host *h);
const pv_backend_vt *pv_backend_module(const pv_host *h)
{
    if (h->abi != pv_module_abi()) {
        h->fail(PV_E_UNAVAILABLE, "made for another version");
        return NULL;
    }
    host = h;
    return &vt;
}
#endif
