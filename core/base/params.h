/* params.h - the structs of pivot.h that begin with their size: of a caller who was built with an older
 * pivot.h, shorter than this library's; nothing behind the caller's size is read or written. Size 0 stands
 * for `known`, the size here. PV_E_ARG with `who` for a longer one, which this library does not understand,
 * and for one too short for its own size. */
#ifndef PV_BASE_PARAMS_H
#define PV_BASE_PARAMS_H

#include "status.h"

/* A copy of `given` in dst, zeros for what it lacks, and all zeros for NULL. */
pv_status pv_take_params(const char *who, void *dst, const void *given, size_t known);

/* As much of `info` into `out` as the caller's struct holds; its size then says how much that was. */
pv_status pv_give_info(const char *who, void *out, const void *info, size_t known);

#endif
