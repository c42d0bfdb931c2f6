/* serve_missing.c - stands for serve_sockets.c in a build without libwebsockets: says what is missing. */
#include "serve.h"

pv_status serve_available(void)
{
    return pv_fail(PV_E_UNAVAILABLE, "this build cannot: it needs libwebsockets (Debian, Ubuntu: apt install "
                                     "libwebsockets-dev, then configure and build again)");
}

pv_status serve_sockets_open(const serve_params *params, serve_worker *worker, serve_sockets **out)
{
    (void)params;
    (void)worker;
    *out = NULL;
    return serve_available();
}

int serve_sockets_port(const serve_sockets *s)
{
    (void)s;
    return 0;
}

void serve_sockets_run(serve_sockets *s)
{
    (void)s;
}

void serve_sockets_stop(serve_sockets *s)
{
    (void)s;
}

void serve_sockets_wake(void *s)
{
    (void)s;
}

void serve_sockets_close(serve_sockets **s)
{
    *s = NULL;
}

size_t serve_pre(void)
{
    return 0;
}
