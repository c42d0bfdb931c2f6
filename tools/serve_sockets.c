/* serve_sockets.c - openpi's websocket protocol on libwebsockets: metadata on connect, then an observation
 * in, a reply out; an error is a text frame and close code 1011. One thread serves all connections and never
 * waits for an inference, so pings are answered meanwhile. What a peer can make it hold is limited:
 * connections, bytes of a message, bytes of all messages. */
#include "serve.h"
#include "base/clock.h"
#include "base/memory.h"

#include <libwebsockets.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_CLIENTS = 64,
    RX_CHUNK = 64 << 10,
    MAX_KEY = 1024,
    SPARES = 4,
    METRICS_BYTES = 64 << 10,
    MESSAGE_MS = 30000, /* within which a message that has begun must have come */
    TICK_US = 1000 * 1000,
    DRAIN_US = 1500 * 1000
};
#define HELD_MAX  ((size_t)256 << 20) /* bytes of messages of all connections together */
#define SPARE_MAX ((size_t)4 << 20)   /* a larger one is given back */

typedef struct spare { /* memory of messages that were answered */
    uint8_t *bytes;
    size_t room;
} spare;

typedef struct client { /* one connection; libwebsockets keeps it, zeroed */
    struct client *next, **at;
    struct lws *wsi;
    uint64_t id, n_observations;
    serve_job *coming;  /* its message is being received */
    serve_job *waiting; /* came while an older one was at work */
    serve_job *out;     /* to be sent */
    bool greeted, busy, sent, failed, told; /* told: of the failure */
    double began_ms;                  /* when the first of `coming` came */
    double arrived_ms, prev_total_ms; /* of the observation at work, and of the one before */
    char *page;                       /* plain HTTP: what to send, LWS_PRE bytes in front */
    size_t n_page;
} client;

struct serve_sockets {
    serve_params params;
    serve_worker *worker;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct lws_protocols protocols[2];
    client *clients;
    int n_clients;
    uint64_t last_id;
    size_t held;
    spare spares[SPARES];
    int n_spares;
    atomic_bool stop;
    bool draining, finished;
    lws_sorted_usec_list_t tick, end;
};

pv_status serve_available(void)
{
    return PV_OK;
}

size_t serve_pre(void)
{
    return LWS_PRE;
}

/* ---- messages ---- */

/* Its memory is kept for the next: a system that has to find 3 MB anew takes longer than all that is done with them. */
static void release(serve_sockets *s, serve_job **job)
{
    serve_job *j = *job;
    if (j) {
        s->held -= j->room;
        if (j->bytes && j->room <= SPARE_MAX && s->n_spares < SPARES) {
            s->spares[s->n_spares++] = (spare){j->bytes, j->room};
            j->bytes = NULL;
        }
    }
    serve_job_free(j);
    *job = NULL;
}

static void take_spare(serve_sockets *s, serve_job *job)
{
    if (!s->n_spares || s->held + s->spares[s->n_spares - 1].room > HELD_MAX)
        return;
    const spare last = s->spares[--s->n_spares];
    job->bytes = last.bytes;
    job->room = last.room;
    s->held += last.room;
}

/* From now on the connection only tells what was wrong, and closes. */
static void refuse(serve_sockets *s, client *c, serve_error kind, const char *words)
{
    release(s, &c->coming);
    release(s, &c->waiting);
    serve_count_error(kind);
    c->failed = true;
    serve_job *job = pv_alloc_zero(sizeof *job);
    if (job) {
        job->failed = true;
        serve_words(job->error, sizeof job->error, words);
        release(s, &c->out);
        c->out = job;
    }
    lws_callback_on_writable(c->wsi);
}

static void start(serve_sockets *s, client *c, serve_job *job)
{
    c->busy = true;
    c->arrived_ms = job->arrived_ms;
    job->prev_total_ms = c->prev_total_ms;
    serve_job *old = serve_worker_put(s->worker, job);
    if (old)
        serve_count_superseded();
    release(s, &old);
}

static void complete(serve_sockets *s, client *c)
{
    serve_job *job = c->coming, *queued = NULL;
    c->coming = NULL;
    job->number = ++c->n_observations;
    job->arrived_ms = pv_now_ms();
    if (c->busy &&
        (queued = serve_worker_drop(s->worker, c->id))) { /* has not begun: the later one is wanted */
        serve_count_superseded();
        release(s, &queued);
        c->busy = false;
    }
    if (!c->busy) {
        start(s, c, job);
        return;
    }
    if (c->waiting)
        serve_count_superseded();
    release(s, &c->waiting);
    c->waiting = job;
}

static void receive(serve_sockets *s, client *c, const uint8_t *bytes, size_t n)
{
    if (c->failed || s->draining)
        return;
    if (!lws_frame_is_binary(c->wsi)) {
        refuse(s, c, SERVE_ERROR_text, "expected a binary message, came text");
        return;
    }
    if (!c->coming) {
        c->coming = pv_alloc_zero(sizeof *c->coming);
        if (!c->coming) {
            refuse(s, c, SERVE_ERROR_too_large, "out of memory");
            return;
        }
        c->coming->connection = c->id;
        take_spare(s, c->coming);
        c->began_ms = pv_now_ms();
    }
    serve_job *job = c->coming;
    if (n > s->params.max_message - job->n) {
        char words[96];
        snprintf(words, sizeof words, "message: longer than %zu bytes", s->params.max_message);
        refuse(s, c, SERVE_ERROR_too_large, words);
        return;
    }
    if (n > job->room - job->n) { /* doubled as bytes come, never because a header promises them */
        size_t room = job->room ? 2 * job->room : RX_CHUNK;
        while (room < job->n + n)
            room *= 2;
        uint8_t *more = s->held + room - job->room <= HELD_MAX ? pv_alloc(room) : NULL;
        if (!more) {
            refuse(s, c, SERVE_ERROR_too_large,
                   "message: the messages of all connections are too large together");
            return;
        }
        if (job->n)
            memcpy(more, job->bytes, job->n);
        pv_free(job->bytes);
        s->held += room - job->room;
        job->bytes = more;
        job->room = room;
    }
    if (n)
        memcpy(job->bytes + job->n, bytes, n);
    job->n += n;
    if (lws_is_final_fragment(c->wsi) && !lws_remaining_packet_payload(c->wsi))
        complete(s, c);
}

static void take_done(serve_sockets *s)
{
    for (serve_job *job; (job = serve_worker_done(s->worker));) {
        client *c = s->clients;
        while (c && c->id != job->connection)
            c = c->next;
        if (!c || c->failed) { /* gone, or told of a mistake since */
            release(s, &job);
            continue;
        }
        c->out = job;
        lws_callback_on_writable(c->wsi);
    }
}

/* ---- connections ---- */

static bool send_bytes(client *c, uint8_t *with_pre, size_t n, enum lws_write_protocol kind)
{
    return lws_write(c->wsi, with_pre + LWS_PRE, n, kind) >= (int)n;
}

static int close_with(client *c, enum lws_close_status code, const char *words)
{
    lws_close_reason(c->wsi, code, (unsigned char *)words, strlen(words));
    return -1;
}

static bool send_error(client *c, const char *words)
{
    uint8_t text[LWS_PRE + sizeof c->out->error];
    memcpy(text + LWS_PRE, words, strlen(words));
    return send_bytes(c, text, strlen(words), LWS_WRITE_TEXT);
}

/* Called when what was written before has gone out. */
static int writable(serve_sockets *s, client *c)
{
    if (c->told)
        return close_with(c, LWS_CLOSE_STATUS_UNEXPECTED_CONDITION,
                          "Internal server error. Traceback included in previous frame.");
    if (!c->greeted) {
        uint8_t metadata[LWS_PRE + 1024];
        memcpy(metadata + LWS_PRE, s->params.metadata, s->params.n_metadata);
        c->greeted = true;
        lws_callback_on_writable(c->wsi);
        return send_bytes(c, metadata, s->params.n_metadata, LWS_WRITE_BINARY) ? 0 : -1;
    }
    if (c->sent) {
        c->sent = c->busy = false;
        c->prev_total_ms = pv_now_ms() - c->arrived_ms;
        serve_job *job = c->waiting;
        c->waiting = NULL;
        if (job)
            start(s, c, job);
    }
    if (c->out) {
        serve_job *job = c->out;
        c->failed = c->failed || job->failed;
        bool ok = job->failed ? send_error(c, job->error)
                              : send_bytes(c, job->reply.bytes, job->reply.n - LWS_PRE, LWS_WRITE_BINARY);
        c->told = job->failed;
        release(s, &c->out);
        c->sent = true;
        lws_callback_on_writable(c->wsi);
        return ok ? 0 : -1;
    }
    if (s->draining && !c->busy)
        return close_with(c, LWS_CLOSE_STATUS_GOINGAWAY, "The server ends.");
    return 0;
}

static void come(serve_sockets *s, client *c, struct lws *wsi)
{
    *c = (client){.next = s->clients, .at = &s->clients, .wsi = wsi, .id = ++s->last_id, .prev_total_ms = -1};
    if (c->next)
        c->next->at = &c->next;
    s->clients = c;
    s->n_clients++;
    serve_count_clients(1);
    lws_callback_on_writable(wsi);
}

static void go(serve_sockets *s, client *c)
{
    if (!c || !c->at) /* was not admitted */
        return;
    serve_job *queued = serve_worker_drop(s->worker, c->id);
    release(s, &queued);
    release(s, &c->coming);
    release(s, &c->waiting);
    release(s, &c->out);
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    c->at = NULL;
    s->n_clients--;
    serve_count_clients(-1);
}

/* ---- HTTP, and who may connect ---- */

/* Takes as long wherever the first difference is. */
static bool key_fits(const serve_sockets *s, struct lws *wsi)
{
    char came[MAX_KEY + 16] = "", want[MAX_KEY + 16] = "";
    if (!s->params.key)
        return true;
    if (lws_hdr_copy(wsi, came, sizeof came, WSI_TOKEN_HTTP_AUTHORIZATION) < 0)
        came[0] = 0;
    size_t n = strlen(came);
    memset(came + n, 0, sizeof came - n);
    snprintf(want, sizeof want, "Api-Key %s", s->params.key);
    volatile unsigned char differ = 0;
    for (size_t i = 0; i < sizeof want; i++)
        differ = (unsigned char)(differ | (came[i] ^ want[i]));
    return !differ;
}

static int admit(serve_sockets *s, struct lws *wsi)
{
    const char *status = NULL;
    if (!key_fits(s, wsi)) {
        serve_count_error(SERVE_ERROR_unauthorized);
        status = "401 Unauthorized";
    } else if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0) { /* a page in somebody's browser */
        serve_count_error(SERVE_ERROR_refused);
        status = "403 Forbidden";
    } else if (s->n_clients >= MAX_CLIENTS || s->draining) {
        serve_count_error(SERVE_ERROR_refused);
        status = "503 Service Unavailable";
    }
    if (!status)
        return 0;
    /* Written by hand: the library would answer as HTTP/1.0 here, which the client of openpi does not
     * understand. */
    char text[LWS_PRE + 128];
    int n = snprintf(text + LWS_PRE, sizeof text - LWS_PRE,
                     "HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", status);
    lws_write(wsi, (uint8_t *)text + LWS_PRE, (size_t)n, LWS_WRITE_HTTP_HEADERS);
    return -1;
}

static int answer(serve_sockets *s, client *c, struct lws *wsi, const char *path)
{
    uint8_t headers[LWS_PRE + 1024], *at = headers + LWS_PRE, *end = headers + sizeof headers;
    unsigned status = HTTP_STATUS_OK;
    pv_free(c->page);
    c->page = pv_alloc(LWS_PRE + METRICS_BYTES);
    if (!c->page)
        return -1;
    char *text = c->page + LWS_PRE;
    if (!strcmp(path, "/healthz")) {
        c->n_page = (size_t)sprintf(text, "OK\n");
    } else if (!key_fits(s, wsi)) {
        serve_count_error(SERVE_ERROR_unauthorized);
        status = HTTP_STATUS_UNAUTHORIZED;
        c->n_page = (size_t)sprintf(text, "expected 'Authorization: Api-Key ...'\n");
    } else if (!strcmp(path, "/metrics")) {
        c->n_page = serve_metrics(s->worker->recorder, text, METRICS_BYTES);
    } else {
        status = HTTP_STATUS_NOT_FOUND;
        c->n_page = (size_t)sprintf(text, "there are /healthz, /metrics, and websockets\n");
    }
    if (lws_add_http_common_headers(wsi, status, "text/plain; charset=utf-8", c->n_page, &at, end) ||
        lws_finalize_write_http_header(wsi, headers + LWS_PRE, &at, end))
        return -1;
    lws_callback_on_writable(wsi);
    return 0;
}

static bool send_page(client *c, struct lws *wsi)
{
    bool ok = lws_write(wsi, (uint8_t *)c->page + LWS_PRE, c->n_page, LWS_WRITE_HTTP_FINAL) == (int)c->n_page;
    pv_free(c->page); /* now: when the transaction is completed, `c` goes */
    c->page = NULL;
    return ok;
}

/* ---- libwebsockets' callback ---- */

static void drained(lws_sorted_usec_list_t *timer)
{
    serve_sockets *s = lws_container_of(timer, serve_sockets, end);
    s->finished = true;
    lws_cancel_service(s->context);
}

static void tick(lws_sorted_usec_list_t *timer)
{
    serve_sockets *s = lws_container_of(timer, serve_sockets, tick);
    for (client *c = s->clients; c; c = c->next)
        if (c->coming && pv_now_ms() - c->began_ms > MESSAGE_MS)
            refuse(s, c, SERVE_ERROR_message, "message: has not come to its end in time");
    lws_sul_schedule(s->context, 0, &s->tick, tick, TICK_US);
}

static void look_around(serve_sockets *s)
{
    take_done(s);
    if (!atomic_load(&s->stop) || s->draining)
        return;
    s->draining = true;
    lws_sul_schedule(s->context, 0, &s->end, drained, DRAIN_US);
    for (client *c = s->clients; c; c = c->next) {
        serve_job *queued = serve_worker_drop(s->worker, c->id);
        if (queued)
            c->busy = false;
        release(s, &queued);
        release(s, &c->waiting);
        lws_callback_on_writable(c->wsi);
    }
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    serve_sockets *s = lws_context_user(lws_get_context(wsi));
    client *c = user;
    switch (reason) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return admit(s, wsi);
    case LWS_CALLBACK_ESTABLISHED:
        come(s, c, wsi);
        return 0;
    case LWS_CALLBACK_RECEIVE:
        receive(s, c, in, n);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return writable(s, c);
    case LWS_CALLBACK_CLOSED:
        go(s, c);
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        look_around(s);
        return 0;
    case LWS_CALLBACK_HTTP:
        return answer(s, c, wsi, in);
    case LWS_CALLBACK_HTTP_WRITEABLE:
        if (!c || !c->page)
            return 0;
        return send_page(c, wsi) && !lws_http_transaction_completed(wsi) ? 0 : -1;
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
    case LWS_CALLBACK_CLOSED_HTTP:
        if (c) {
            pv_free(c->page);
            c->page = NULL;
        }
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, n);
    }
}

/* ---- begin and end ---- */

static void log_line(int level, const char *line)
{
    (void)level;
    fprintf(stderr, "pivot serve: %s", line);
}

pv_status serve_sockets_open(const serve_params *params, serve_worker *worker, serve_sockets **out)
{
    /* A peer that says nothing for 20 s is pinged, one that does not answer for 20 s more is gone: as
     * openpi's server does. */
    static const lws_retry_bo_t idle = {.secs_since_valid_ping = 20, .secs_since_valid_hangup = 40};
    serve_sockets *s = pv_alloc_zero(sizeof *s);
    *out = s;
    if (!s)
        return PV_E_MEMORY;
    s->params = *params;
    s->worker = worker;
    s->protocols[0] = (struct lws_protocols){"pivot", callback, sizeof(client), RX_CHUNK};
    bool v6 = strchr(params->host, ':') != NULL;
    struct lws_context_creation_info info = {
        .port = params->port,
        .iface = strcmp(params->host, "0.0.0.0") && strcmp(params->host, "::") ? params->host : NULL,
        .protocols = s->protocols,
        .user = s,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
                   (v6 ? 0 : LWS_SERVER_OPTION_DISABLE_IPV6),
        .pt_serv_buf_size = RX_CHUNK,
        .retry_and_idle_policy = &idle,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
    };
    lws_set_log_level(LLL_ERR, log_line);
    s->context = lws_create_context(&info);
    s->vhost = s->context ? lws_create_vhost(s->context, &info) : NULL;
    if (!s->vhost)
        return pv_fail(PV_E_UNAVAILABLE, "cannot listen on %s port %d: taken, or no address of this machine",
                       params->host, params->port);
    lws_sul_schedule(s->context, 0, &s->tick, tick, TICK_US);
    return PV_OK;
}

int serve_sockets_port(const serve_sockets *s)
{
    return lws_get_vhost_listen_port(s->vhost);
}

void serve_sockets_wake(void *user)
{
    lws_cancel_service(((serve_sockets *)user)->context);
}

void serve_sockets_stop(serve_sockets *s)
{
    atomic_store(&s->stop, true);
    lws_cancel_service(s->context);
}

void serve_sockets_run(serve_sockets *s)
{
    while (!s->finished && lws_service(s->context, 0) >= 0)
        if (s->draining && !s->n_clients && !serve_worker_busy(s->worker))
            return;
}

void serve_sockets_close(serve_sockets **out)
{
    serve_sockets *s = *out;
    if (s && s->context)
        lws_context_destroy(s->context);
    while (s && s->n_spares)
        pv_free(s->spares[--s->n_spares].bytes);
    pv_free(s);
    *out = NULL;
}
