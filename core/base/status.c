/* status.c - status names and the words of the last failure, per thread. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 2048

static _Thread_local char error_text[TEXT_BYTES];

static const struct {
    const char *name, *text;
} statuses[PV_STATUS_COUNT] = {
#define X(name, text) {#name, text},
    PV_STATUS_LIST(X)
#undef X
};

const char *pv_status_name(pv_status status)
{
    return (unsigned)status < PV_STATUS_COUNT ? statuses[status].name : "E_UNKNOWN";
}

const char *pv_status_text(pv_status status)
{
    return (unsigned)status < PV_STATUS_COUNT ? statuses[status].text : "unknown status";
}

const char *pv_error_text(void)
{
    return error_text;
}

/* Names in the words may come from a hostile file: no control character reaches a terminal. */
static void keep_text(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
    memcpy(error_text, text, TEXT_BYTES);
}

pv_status pv_fail(pv_status status, const char *fmt, ...)
{
    char text[TEXT_BYTES]; /* the arguments may point into error_text */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    keep_text(text);
    return status;
}

pv_status pv_fail_in(pv_status status, const char *fmt, ...)
{
    if (status == PV_OK)
        return PV_OK;
    char text[TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0 && n + 2 < TEXT_BYTES) {
        size_t at = (size_t)n + 2, left = TEXT_BYTES - 1 - at, more = strlen(error_text);
        memcpy(text + n, ": ", 2);
        memcpy(text + at, error_text, more < left ? more : left);
        text[at + (more < left ? more : left)] = 0;
    }
    keep_text(text);
    return status;
}

const char *pv_version(void)
{
#define TEXT_OF(x)  #x
#define NUMBER(x)   TEXT_OF(x)
    return NUMBER(PV_VERSION_MAJOR) "." NUMBER(PV_VERSION_MINOR) "." NUMBER(PV_VERSION_PATCH);
}

uint32_t pv_abi_version(void)
{
    return PV_ABI_VERSION;
}
