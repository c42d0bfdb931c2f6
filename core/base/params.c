#include "params.h"

#include <string.h>

static pv_status read_size(const char *who, const void *given, size_t known, size_t *size)
{
    memcpy(size, given, sizeof *size);
    if (!*size)
        *size = known;
    if (*size < sizeof *size || *size > known)
        return pv_fail(PV_E_ARG,
                       "%s: a struct of size %zu; expected %zu, or less from an older pivot.h, or 0", who,
                       *size, known);
    return PV_OK;
}

pv_status pv_take_params(const char *who, void *dst, const void *given, size_t known)
{
    size_t size = 0;
    pv_status st = given ? read_size(who, given, known, &size) : PV_OK;
    memset(dst, 0, known);
    if (!st && size)
        memcpy(dst, given, size);
    return st;
}

pv_status pv_give_info(const char *who, void *out, const void *info, size_t known)
{
    size_t size;
    pv_status st = read_size(who, out, known, &size);
    if (st)
        return st;
    memcpy(out, info, size);
    memcpy(out, &size, sizeof size);
    return PV_OK;
}
