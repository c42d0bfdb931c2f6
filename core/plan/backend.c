/* backend.c - the list of backends, and the public functions over it. Some are in every build, some are modules that may
 * be there or not when the program runs: those are named all the same, since they can be asked for. */
#include "backend.h"
#include "base/params.h"
#include "module.h"
#include "selftest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pv_module cuda = {"cuda", NULL};

#ifdef PV_HAVE_VULKAN
#define VULKAN &pv_vulkan_backend
#else
#define VULKAN NULL
#endif

static const struct {
    const char *name;
    const pv_backend_vt *vt; /* or */
    pv_module *module;       /* or neither: this build has it not */
} backends[] = {{"cpu", &pv_cpu_backend, NULL}, {"cuda", NULL, &cuda}, {"vulkan", VULKAN, NULL}};
#define N_BACKENDS ((int)(sizeof backends / sizeof *backends))

const char *pv_backend_list(int i)
{
    return i >= 0 && i < N_BACKENDS ? backends[i].name : NULL;
}

/* The folder that pivot.h promises; empty: none. What is not absolute in XDG_CACHE_HOME does not count, as that standard has it. */
static void cache_folder(char *out, size_t size)
{
    const char *own = getenv("PIVOT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (own)
        n = snprintf(out, size, "%s", own);
    else if (xdg && *xdg == '/')
        n = snprintf(out, size, "%s/pivot", xdg);
    else if (home && *home == '/')
        n = snprintf(out, size, "%s/.cache/pivot", home);
    if (n <= 0 || (size_t)n >= size)
        *out = 0;
}

static const pv_backend_vt *find(const char *name)
{
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!name || strcmp(backends[i].name, name))
            continue;
        if (!backends[i].vt && !backends[i].module)
            pv_fail(PV_E_UNAVAILABLE, "this build of the library is without the backend '%s'", name);
        return backends[i].module ? pv_module_load(backends[i].module) : backends[i].vt;
    }
    char list[128] = "";
    for (int i = 0; i < N_BACKENDS; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), " %s", backends[i].name);
    pv_fail(PV_E_UNAVAILABLE, "backend '%.64s' is unknown; there are:%s", name ? name : "(null)", list);
    return NULL;
}

pv_status pv_backend_open(const char *name, const pv_backend_params *params, pv_backend **out)
{
    if (!out)
        return pv_fail(PV_E_ARG, "pv_backend_open: out is NULL");
    *out = NULL;
    pv_backend_params p;
    pv_status st = pv_take_params("pv_backend_open", &p, params, sizeof p);
    if (st)
        return st;
    if (p.sms < 0)
        return pv_fail(PV_E_ARG, "sms: expected at least 0, came %d", p.sms);
    char cache[1024];
    cache_folder(cache, sizeof cache);
    p.cache = p.cache ? p.cache : cache;
    const pv_backend_vt *vt = find(name);
    st = vt ? vt->open(&p, out) : PV_E_UNAVAILABLE;
    return !st && vt->variants ? pv_selftest(out, &p) : st;
}

void pv_backend_close(pv_backend **backend)
{
    if (backend && *backend) {
        (*backend)->vt->close(*backend);
        *backend = NULL;
    }
}

const char *pv_backend_name(const pv_backend *backend)
{
    return backend ? backend->vt->name : "none";
}

pv_status pv_backend_device(const pv_backend *backend, pv_device_info *out)
{
    if (!backend || !out)
        return pv_fail(PV_E_ARG, "pv_backend_device: backend and out must be given");
    pv_device_info info;
    pv_status st = backend->vt->describe((pv_backend *)backend, &info);
    if (!st && backend->vt->variants)
        pv_selftest_tell(&info, NULL);
    return st ? st : pv_give_info("pv_backend_device", out, &info, sizeof info);
}

pv_status pv_devices(const char *backend, pv_device_info *out, int *n)
{
    if (!n || (*n > 0 && !out))
        return pv_fail(PV_E_ARG, "pv_devices: n, and out for *n devices, must be given");
    for (int i = 0; i < *n; i++)
        if (out[i].size && out[i].size != sizeof *out)
            return pv_fail(PV_E_ARG, "pv_devices: structs of size %zu; expected %zu or 0", out[i].size, sizeof *out);
    const pv_backend_vt *vt = find(backend);
    int room = *n;
    pv_status st = vt ? vt->devices(out, n) : PV_E_UNAVAILABLE;
    char cache[1024];
    cache_folder(cache, sizeof cache);
    for (int i = 0; !st && vt->variants && i < *n && i < room; i++)
        pv_selftest_tell(&out[i], cache);
    return st;
}
