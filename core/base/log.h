/* log.h - messages for the caller's callback (pv_set_log). One line each, no newline. */
#ifndef PV_BASE_LOG_H
#define PV_BASE_LOG_H

#include "status.h"

void pv_log(pv_log_level level, const char *fmt, ...) PV_PRINTF(2, 3);

#endif
