/* module.c - opens backends that live in files of their own. Failing leaves no trace, so that asking again is
 * allowed: the file may have come in the meantime. */
#define _GNU_SOURCE
#include "module.h"
#include "base/log.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pv_status host_fail(pv_status status, const char *words)
{
    return pv_fail(status, "%s", words);
}

static pv_status host_fail_in(pv_status status, const char *words)
{
    return pv_fail_in(status, "%s", words);
}

static void host_log(pv_log_level level, const char *text)
{
    pv_log(level, "%s", text);
}

/* The folder of the file that holds this code, "" if that cannot be told. A program's name may be relative to
 * a folder it has left, or to none: then the kernel knows. */
static void own_folder(char folder[PATH_MAX])
{
    Dl_info info;
    bool found = dladdr((void *)&host_log, &info) && info.dli_fname && strchr(info.dli_fname, '/') &&
                 realpath(info.dli_fname, folder);
    if (!found && !realpath("/proc/self/exe", folder))
        *folder = 0;
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
}

static const pv_backend_vt *start(void *library, const char *path)
{
    static const char entry[] = "pv_backend_module";
    static pv_host host = {0, host_fail, host_fail_in, host_log, pv_alloc, pv_free};
    host.abi = pv_module_abi();
    void *symbol = dlsym(library, entry);
    if (!symbol) {
        pv_fail(PV_E_UNAVAILABLE, "%s: not a backend of Pivot: it has no function %s", path, entry);
        return NULL;
    }
    pv_module_fn fn;
    memcpy(&fn, &symbol, sizeof fn); /* ISO C has no cast between the two kinds of pointers */
    const pv_backend_vt *vt = fn(&host);
    if (!vt)
        pv_fail_in(PV_E_UNAVAILABLE, "%s", path);
    return vt;
}

static const pv_backend_vt *load(const char *name)
{
    char folder[PATH_MAX], file[64], path[PATH_MAX + 80];
    own_folder(folder);
    snprintf(file, sizeof file, "libpivot-%s.so", name);
    static const char *const places[] = {"", "/../lib"};
    void *library = NULL;
    for (size_t i = 0; !library && *folder && i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s%s/%s", folder, places[i], file);
        if (access(path, F_OK))
            continue;
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) { /* it is there and does not work: what stands elsewhere is not what was meant */
            pv_fail(PV_E_UNAVAILABLE, "backend '%s' cannot be loaded: %s", name, dlerror());
            return NULL;
        }
    }
    if (!library) {
        snprintf(path, sizeof path, "%s", file);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (!library) {
        pv_fail(
            PV_E_UNAVAILABLE,
            "backend '%s' is not installed: %s is neither in %s nor in its ../lib, and the loader says: %s",
            name, file, *folder ? folder : "the program's folder", dlerror());
        return NULL;
    }
    const pv_backend_vt *vt = start(library, path);
    if (!vt)
        dlclose(library);
    return vt;
}

const pv_backend_vt *pv_module_load(pv_module *m)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!m->vt)
        m->vt = load(m->name);
    const pv_backend_vt *vt = m->vt;
    pthread_mutex_unlock(&lock);
    return vt;
}
