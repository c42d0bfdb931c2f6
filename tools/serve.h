/* serve.h - the parts of `pivot serve`: the worker that infers, the sockets (libwebsockets), the counters.
 *
 * Two threads. The one that serves sockets owns connections and all memory of messages, and never waits; the
 * worker owns robot, frame and session. A serve_job goes from the first to the second and back. */
#ifndef PV_TOOLS_SERVE_H
#define PV_TOOLS_SERVE_H

#include "wire.h"

#include <pthread.h>

/* ---- counters, for GET /metrics; any thread ---- */

#define SERVE_ERRORS(X)                                                                                      \
    X(message) X(observation) X(inference) X(deadline) X(too_large) X(text) X(unauthorized) X(refused)
#define SERVE_STAGES(X)                                                                                      \
    X(queue) X(decode) X(transform) X(observe) X(vision) X(prefix) X(schedule) X(denoise) X(encode) X(total)

typedef enum serve_error {
#define X(name) SERVE_ERROR_##name,
    SERVE_ERRORS(X)
#undef X
        SERVE_ERROR_COUNT
} serve_error;

typedef enum serve_stage {
#define X(name) SERVE_STAGE_##name,
    SERVE_STAGES(X)
#undef X
        SERVE_STAGE_COUNT
} serve_stage;

void serve_count_error(serve_error kind);
void serve_count_reply(const double ms[SERVE_STAGE_COUNT], int state_outside, bool truncated);
void serve_count_superseded(void);
void serve_count_clients(int change);
/* Prometheus' text. Returns its length, less than `size`. recorder NULL: nothing is recorded. */
size_t serve_metrics(pv_recorder *recorder, char *text, size_t size);

/* ---- jobs ---- */

typedef struct serve_job {
    struct serve_job *next;
    uint64_t connection;
    uint64_t number; /* of the observation on its connection, from 1 */
    uint8_t *bytes;  /* the message, pv_alloc'ed; freed by the thread that serves sockets */
    size_t n, room;
    double arrived_ms;
    double prev_total_ms; /* of the connection's request before; below 0: there was none */
    wire_buffer reply;    /* with serve_pre() bytes for the socket library in front */
    bool failed;
    char error[600]; /* ASCII: may go out as text */
} serve_job;

void serve_job_free(serve_job *job); /* NULL is welcome */

/* Words for a text frame: what is not printable ASCII becomes '?'. */
void serve_words(char *out, size_t size, const char *text);

/* ---- the worker ---- */

typedef struct serve_worker {
    pv_model *model;
    pv_session *session;
    pv_robot *robot;
    pv_frame *frame;
    pv_model_info info;
    pv_robot_info about;
    float *noise; /* [horizon][model_dim], for every inference; NULL: drawn, from `seed` on */
    uint64_t seed;
    int steps;            /* 0: the model's */
    const char *schedule; /* NULL: openpi's */
    double deadline_ms, delay_ms;
    float *actions; /* [horizon][info.action_dim] */
    double *model_f64, *robot_f64;
    size_t pre;               /* bytes in front of each reply */
    void (*wake)(void *user); /* called by the worker when a job is done */
    void *user;
    pv_recorder *recorder; /* NULL: nothing is recorded */
    wire_request request;  /* the message at work, read */
    uint8_t *answered;     /* its bytes, when it was answered and is still to be recorded; else NULL */
    uint64_t connection;   /* it came by */
    double ms[SERVE_STAGE_COUNT];

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t change;
    serve_job *queue, *done;
    bool stop, busy;
    pthread_t thread;
    bool started;
} serve_worker;

/* Model, session, robot and params are set: checks that they fit each other, and starts the thread.
 * serve_worker_stop in any case. */
pv_status serve_worker_start(serve_worker *w);
/* Hands over a job. Where the queue still holds one of the same connection, that one comes back, superseded.
 */
serve_job *serve_worker_put(serve_worker *w, serve_job *job);
serve_job *serve_worker_done(serve_worker *w); /* one that is done, the oldest first; NULL: none */
serve_job *serve_worker_drop(serve_worker *w,
                             uint64_t connection); /* one that has not begun; 0: of any connection */
bool serve_worker_busy(serve_worker *w);
void serve_worker_stop(serve_worker *w); /* waits for the inference that runs; may be called again */

/* ---- the sockets ---- */

typedef struct serve_params {
    const char *host;
    int port;                /* 0: any */
    const char *key;         /* NULL: none */
    size_t max_message;      /* bytes */
    const uint8_t *metadata; /* sent on connect */
    size_t n_metadata;
} serve_params;

typedef struct serve_sockets serve_sockets;
pv_status serve_available(void); /* PV_E_UNAVAILABLE: built without the library */
pv_status serve_sockets_open(const serve_params *params, serve_worker *worker, serve_sockets **out);
int serve_sockets_port(const serve_sockets *s);
void serve_sockets_run(
    serve_sockets *s); /* until serve_sockets_stop, and connections have been let go (at most 1.5 s) */
void serve_sockets_stop(serve_sockets *s);   /* from any thread */
void serve_sockets_wake(void *s);            /* from any thread: jobs are done */
void serve_sockets_close(serve_sockets **s); /* after the worker has stopped */
size_t serve_pre(void);                      /* bytes that a reply needs in front */

#endif
