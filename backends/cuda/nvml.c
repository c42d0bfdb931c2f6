/* nvml.c - what only the driver's management library tells: driver version, clocks at this moment, power limit. It is opened
 * when asked for and not needed by anything else; what it does not tell is named in `unknown`. Signatures are those of
 * NVIDIA's NVML API reference, which keeps them stable by version suffix. */
#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define CLOCK_SM     1
#define CLOCK_MEMORY 2

typedef struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver_version)(char *text, unsigned size);
    int (*by_uuid)(const char *uuid, void **device);
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*power_limit)(void *device, unsigned *milliwatts);
    const char *(*words)(int error);
} nvml;

static bool open_library(nvml *n)
{
    static const char *const names[] = {"nvmlInit_v2",
                                        "nvmlShutdown",
                                        "nvmlSystemGetDriverVersion",
                                        "nvmlDeviceGetHandleByUUID",
                                        "nvmlDeviceGetClockInfo",
                                        "nvmlDeviceGetEnforcedPowerLimit",
                                        "nvmlErrorString"};
    void *found[sizeof names / sizeof *names];
    *n = (nvml){.library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    for (size_t i = 0; n->library && i < sizeof names / sizeof *names; i++)
        if (!(found[i] = dlsym(n->library, names[i]))) {
            dlclose(n->library);
            n->library = NULL;
        }
    if (n->library) /* object pointers to functions, as POSIX has dlsym */
        memcpy((char *)n + offsetof(nvml, init), found, sizeof found);
    return n->library != NULL;
}

static void ask(const nvml *n, pv_device_info *d)
{
    void *device = NULL;
    unsigned clock = 0, memory = 0, milliwatts = 0;
    int error = n->by_uuid(d->uuid, &device);
    if (error) {
        snprintf(d->unknown, sizeof d->unknown, "the device is not found by its UUID (%s)", n->words(error));
        return;
    }
    int no_clock = n->clock(device, CLOCK_SM, &clock), no_memory = n->clock(device, CLOCK_MEMORY, &memory);
    int no_power = n->power_limit(device, &milliwatts);
    d->clock_mhz = no_clock ? 0 : (int)clock;
    d->memory_clock_mhz = no_memory ? 0 : (int)memory;
    d->power_limit_watts = no_power ? 0 : (int)((milliwatts + 500) / 1000);
    error = no_clock ? no_clock : no_memory ? no_memory : no_power;
    if (error)
        snprintf(d->unknown, sizeof d->unknown, "%s (%s)",
                 no_clock    ? "clocks"
                 : no_memory ? "memory clock"
                             : "power limit",
                 n->words(error));
}

void cuda_conditions(pv_device_info *d)
{
    nvml n;
    if (!open_library(&n)) {
        snprintf(d->unknown, sizeof d->unknown, "libnvidia-ml.so.1 is not here");
        return;
    }
    int error = n.init();
    if (error) {
        snprintf(d->unknown, sizeof d->unknown, "nvmlInit: %s", n.words(error));
    } else {
        if (n.driver_version(d->driver, sizeof d->driver))
            *d->driver = 0;
        ask(&n, d);
        n.shutdown();
    }
    dlclose(n.library);
}
