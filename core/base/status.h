/* status.h - failing with words. The list of statuses is PV_STATUS_LIST in pivot.h. */
#ifndef PV_BASE_STATUS_H
#define PV_BASE_STATUS_H

#include "pivot.h"

#if defined(__GNUC__)
#define PV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PV_PRINTF(fmt, args)
#endif

/* Keeps the formatted words as this thread's error text and returns `status`: `return pv_fail(PV_E_FILE, ...)`. */
pv_status pv_fail(pv_status status, const char *fmt, ...) PV_PRINTF(2, 3);

/* Puts the formatted words and ": " in front of this thread's error text and returns `status` unchanged.
 * For callers who know the file or tensor that the failing function could not name. PV_OK passes through. */
pv_status pv_fail_in(pv_status status, const char *fmt, ...) PV_PRINTF(2, 3);

#endif
