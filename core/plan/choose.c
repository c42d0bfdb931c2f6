/* choose.c - which of a backend's devices a user means. Pure: modules link it from here. */
#include "backend.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* CUDA writes "GPU-" in front of what Vulkan tells bare: both are taken. */
static const char *bare(const char *uuid)
{
    return strncasecmp(uuid, "GPU-", 4) ? uuid : uuid + 4;
}

static bool exactly(const pv_device_info *info, int index, const char *wanted)
{
    char number[16];
    snprintf(number, sizeof number, "%d", index);
    return !strcmp(wanted, number) || !strcasecmp(wanted, info->name) ||
           (*info->uuid && !strcasecmp(bare(wanted), bare(info->uuid)));
}

static bool has_part(const char *name, const char *part)
{
    size_t n = strlen(part);
    for (; n > 2 && *name; name++)
        if (!strncasecmp(name, part, n))
            return true;
    return false;
}

static void list(const pv_device_info *info, int n, char *out, size_t size)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%d (%s%s%s)", i ? ", " : "", i, info[i].name,
                 *info[i].uuid ? ", " : "", info[i].uuid);
    }
}

pv_status pv_choose_device(const pv_device_info *info, int n, const char *wanted, int *index)
{
    char all[1024];
    int exact = -1, part = -1, hardware = -1;
    bool several = false; /* parts of names that differ: of equal devices the first is meant */
    for (int i = n - 1; i >= 0; i--) {
        if (!info[i].software)
            hardware = i;
        if (wanted && exactly(&info[i], i, wanted))
            exact = i;
        if (wanted && has_part(info[i].name, wanted)) {
            several |= part >= 0 && strcasecmp(info[part].name, info[i].name);
            part = i;
        }
    }
    *index = !wanted ? hardware : exact >= 0 ? exact : several ? -1 : part;
    if (*index >= 0)
        return PV_OK;
    if (n <= 0)
        return pv_fail(PV_E_UNAVAILABLE, "there is no device");
    list(info, n, all, sizeof all);
    if (several)
        return pv_fail(PV_E_UNAVAILABLE, "device '%.64s' may be any of several: there are %s", wanted, all);
    if (wanted)
        return pv_fail(PV_E_UNAVAILABLE, "device '%.64s': there are %s", wanted, all);
    return pv_fail(PV_E_UNAVAILABLE,
                   "%s has nothing but software here (%s), which is used only when it is named as the device",
                   info->backend, all);
}
