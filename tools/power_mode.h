/* power_mode.h - the power mode of an NVIDIA Jetson, as its nvpmodel service has noted it. */
#ifndef PV_TOOLS_POWER_MODE_H
#define PV_TOOLS_POWER_MODE_H

#define POWER_MODE_FILE "/var/lib/nvpmodel/status" /* "pmode:0002", perhaps "fmode:quiet" behind it */

/* The mode's number, as `nvpmodel -m` takes it; -1: there is no such file, or it says something else. */
int power_mode(const char *path);

#endif
