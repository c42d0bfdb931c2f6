#include "log.h"

#include <stdarg.h>
#include <stdio.h>

static void to_stderr(void *user, pv_log_level level, const char *text)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    (void)user;
    fprintf(stderr, "pivot: %s: %s\n", names[level], text);
}

static struct {
    pv_log_fn fn;
    void *user;
    pv_log_level least;
} sink = {to_stderr, NULL, PV_LOG_WARN};

void pv_set_log(pv_log_fn fn, void *user, pv_log_level least)
{
    sink.fn = fn ? fn : to_stderr;
    sink.user = user;
    sink.least = least;
}

void pv_log(pv_log_level level, const char *fmt, ...)
{
    if (level < sink.least || level >= PV_LOG_NONE)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sink.fn(sink.user, level, text);
}
