/* module.c - the door of libpivot-cuda.so, and what the rest of it expects of the library: words, log and
 * memory, which live on the other side and come through the host's table. */
#include "base/log.h"
#include "base/memory.h"
#include "device.h"
#include "plan/module.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const pv_host *host;

pv_status pv_fail(pv_status status, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return host->fail(status, text);
}

pv_status pv_fail_in(pv_status status, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return host->fail_in(status, text);
}

void pv_log(pv_log_level level, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    host->log(level, text);
}

void *pv_alloc(size_t bytes)
{
    return host->alloc(bytes);
}

void *pv_alloc_zero(size_t bytes)
{
    void *p = pv_alloc(bytes);
    return p ? memset(p, 0, bytes ? bytes : 1) : NULL;
}

void pv_free(void *memory)
{
    host->release(memory);
}

PV_API const pv_backend_vt *pv_backend_module(const pv_host *h);
const pv_backend_vt *pv_backend_module(const pv_host *h)
{
    if (h->abi != pv_module_abi()) {
        h->fail(PV_E_UNAVAILABLE, "this backend was built for another version of the library");
        return NULL;
    }
    host = h;
    return &cuda_backend;
}
