/* serve.c - `pivot serve`: a policy behind openpi's websocket protocol. */
#include "cli.h"
#include "serve.h"
#include "base/memory.h"
#include "inputs.h"
#include "io/file.h"
#include "io/processors.h"
#include "session/schedule.h"

#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_KEY_BYTES = 1024, RECORDINGS_MS = 300 /* for those that wait, at the end */ };

typedef struct serve {
    cli_options common;
    const char *robot, *host, *key_file, *noise_file;
    int port, max_message_mib, deadline_ms, delay_ms, record_mib, record_queue;
    const char *record;
    char *key;
    pv_backend *backend;
    serve_worker worker;
    serve_sockets *sockets;
    wire_buffer metadata;
    pthread_t signals;
    bool waits; /* for signals, in a thread of its own */
    atomic_bool serves;
} serve;

static int parse(serve *s, int argc, char **argv)
{
    const cli_option options[] = {
        {"robot", "NAME|FILE",
         "whose observations and actions: libero, droid, aloha, or a description in JSON\n"
         "(default: what lerobot's processors in MODEL's folder say)",
         CLI_TEXT, &s->robot},
        {"host", "ADDRESS", "listen there (default: 127.0.0.1, this machine alone)", CLI_TEXT, &s->host},
        {"port", "N", "listen there (default: 8000; 0: any that is free, told on stdout)", CLI_INT, &s->port,
         0, 65535},
        {"api-key-file", "FILE", "answer only who sends 'Authorization: Api-Key KEY', KEY as in FILE",
         CLI_TEXT, &s->key_file},
        {"steps", "N", "denoising steps (default: the model's)", CLI_INT, &s->worker.steps, 1, PV_MAX_STEPS},
        {"schedule", "NAME",
         "times of the steps: openpi (default), lerobot, linear, cosine, quadratic, sigmoid", CLI_TEXT,
         &s->worker.schedule},
        {"seed", "N", "draw the noise of the first inference from N, then N + 1, ... (default: 0)", CLI_U64,
         &s->worker.seed},
        {"deadline-ms", "N", "a reply that is not there by then is an error (default: 60000)", CLI_INT,
         &s->deadline_ms, 1, 86400000},
        {"max-message", "MIB", "longest message (default: 64)", CLI_INT, &s->max_message_mib, 1, 128},
        {"record", "FOLDER", "write each answered observation and its reply there, for `pivot replay`",
         CLI_TEXT, &s->record},
        {"record-limit", "MIB", "no more recordings when the folder holds so much (default: 1024)", CLI_INT,
         &s->record_mib, 1, 1 << 30},
        {"record-queue", "N", "most recordings that wait for the disk, others are dropped (default: 8)",
         CLI_INT, &s->record_queue, 1, 64},
        {"noise", "FILE", "for tests: start every inference from tensor 'noise' of FILE.safetensors",
         CLI_TEXT, &s->noise_file},
        {"delay-ms", "N", "for tests: wait before every inference", CLI_INT, &s->delay_ms, 0, 60000},
        {NULL},
    };
    const cli_command command = {
        .name = "serve",
        .purpose = "a policy behind openpi's websocket protocol",
        .usage = "--model MODEL [--robot NAME|FILE] [options]",
        .example = "pivot serve --model pi05_libero --robot libero --backend cuda --recipe bf16",
        .notes = "Clients of openpi connect as to its own server. GET /healthz says OK, GET /metrics tells "
                 "counters and\n"
                 "times in Prometheus' text. SIGTERM lets the inference at work end, for at most 1.5 s. "
                 "There is no\n"
                 "encryption: beyond this machine, put it behind something that has.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE,
    };
    int code = cli_parse(&command, argc, argv, &s->common);
    if (code != CLI_GO)
        return code;
    if (!s->robot)
        s->robot = cli_folder_robot(&s->common);
    if (!s->robot)
        return cli_usage(&s->common,
                         "expected --robot NAME|FILE: the model's folder has no " PV_PROCESSORS_PRE
                         " of lerobot that says it%s",
                         s->common.norm_stats ? ", or is not asked, with --norm-stats" : "");
    if (!pv_schedule_find(s->worker.schedule))
        return cli_usage(&s->common,
                         "--schedule '%s': expected openpi, lerobot, linear, cosine, quadratic or sigmoid",
                         s->worker.schedule);
    if (!strcmp(s->host, "localhost"))
        s->host = "127.0.0.1";
    return CLI_GO;
}

static pv_status read_key(serve *s)
{
    size_t n = 0;
    if (!s->key_file)
        return PV_OK;
    pv_status st = pv_file_read(s->key_file, MAX_KEY_BYTES, &s->key, &n);
    if (st)
        return st;
    while (n && (s->key[n - 1] == '\n' || s->key[n - 1] == '\r'))
        s->key[--n] = 0;
    for (size_t i = 0; i < n; i++)
        if (s->key[i] <= ' ' || s->key[i] > '~')
            return pv_fail(PV_E_FILE, "%s: expected one line, printable characters without blanks",
                           s->key_file);
    return n ? PV_OK : pv_fail(PV_E_FILE, "%s: expected a key, the file is empty", s->key_file);
}

static pv_status load(serve *s)
{
    serve_worker *w = &s->worker;
    cli_progress_bar bar = {.off = false};
    pv_session_params params = {
        .size = sizeof params,
        .recipe = s->common.recipe,
        .max_steps = cli_max_steps(s->worker.steps),
        .progress = cli_progress,
        .progress_user = &bar,
    };
    pv_model_info info = {.size = sizeof info};
    pv_status st = read_key(s);
    if (!st)
        st = pv_robot_load(s->robot, &w->robot);
    w->about.size = sizeof w->about;
    if (!st)
        st = pv_robot_describe(w->robot, &w->about);
    if (!st)
        st = cli_open_model_for(&s->common, &w->about, &w->model);
    if (!st)
        st = pv_model_describe(w->model, &info);
    if (!st && s->noise_file) {
        w->noise = pv_alloc(
            pv_mul_size(sizeof *w->noise, pv_mul_size((size_t)info.horizon, (size_t)info.model_dim)));
        st = w->noise ? input_noise_read(s->noise_file, info.horizon, info.model_dim, w->noise) : PV_E_MEMORY;
    }
    if (!st)
        st = cli_open_backend(&s->common, &s->backend);
    if (!st)
        st = pv_session_create(w->model, s->backend, &params, &w->session);
    cli_progress_end(&bar);
    pv_recorder_params recorder = {
        .size = sizeof recorder, .limit_bytes = (uint64_t)s->record_mib << 20, .queue = s->record_queue};
    if (!st && s->record)
        st = pv_recorder_open(s->record, w->session, &recorder, &w->recorder);
    return st;
}

/* What openpi's configurations tell of a robot: ALOHA's has a pose to begin with. */
static pv_status write_metadata(serve *s)
{
    wire_buffer *b = &s->metadata;
    bool aloha = !strcmp(s->worker.about.name, "aloha");
    wire_map(b, aloha);
    if (aloha) {
        wire_text(b, "reset_pose");
        wire_list(b, 6);
        wire_integer(b, 0);
        wire_number(b, -1.5);
        wire_number(b, 1.5);
        for (int i = 0; i < 3; i++)
            wire_integer(b, 0);
    }
    return wire_ok(b);
}

/* A signal may find any thread, one of OpenBLAS's too, so it is handed on to the one that waits. */
static sem_t ended;

static void on_signal(int number)
{
    (void)number;
    sem_post(&ended);
}

static void *wait_for_signals(void *arg)
{
    serve *s = arg;
    while (sem_wait(&ended))
        ;
    if (!atomic_load(&s->serves)) /* still loading: there is nothing to let end */
        _exit(CLI_OK);
    serve_sockets_stop(s->sockets);
    return NULL;
}

static void wait_no_more(serve *s)
{
    if (s->waits) {
        pthread_cancel(s->signals);
        pthread_join(s->signals, NULL);
    }
    s->waits = false;
}

static pv_status begin(serve *s)
{
    serve_worker *w = &s->worker;
    w->pre = serve_pre();
    w->deadline_ms = s->deadline_ms;
    w->delay_ms = s->delay_ms;
    pv_status st = write_metadata(s);
    serve_params params = {.host = s->host,
                           .port = s->port,
                           .key = s->key,
                           .max_message = (size_t)s->max_message_mib << 20,
                           .metadata = s->metadata.bytes,
                           .n_metadata = s->metadata.n};
    if (!st)
        st = serve_sockets_open(&params, w, &s->sockets);
    w->wake = serve_sockets_wake;
    w->user = s->sockets;
    if (!st)
        st = serve_worker_start(w);
    return st;
}

static int work(serve *s)
{
    pv_status st = serve_available();
    if (st)
        return cli_fail(&s->common, st);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sem_init(&ended, 0, 0);
    s->waits = !pthread_create(&s->signals, NULL, wait_for_signals, s);
    if (s->waits) {
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
    }
    st = s->waits ? load(s) : pv_fail(PV_E_UNAVAILABLE, "no thread to wait for signals");
    if (!st)
        st = begin(s);
    if (st)
        return cli_fail(&s->common, st);
    atomic_store(&s->serves, true);
    if (strncmp(s->host, "127.", 4) && strcmp(s->host, "::1") && !s->key)
        cli_warn(&s->common, "whoever reaches %s may ask for actions: there is no --api-key-file", s->host);
    printf("listening on ws://%s:%d: robot %s, model %s, backend %s\n", s->host,
           serve_sockets_port(s->sockets), s->worker.about.name, s->common.model,
           pv_backend_name(s->backend));
    fflush(stdout);
    serve_sockets_run(s->sockets);
    bool busy = serve_worker_busy(&s->worker); /* an inference cannot be broken off, and is not waited for */
    if (!busy)
        serve_worker_stop(&s->worker);
    bool slow = s->worker.recorder && pv_recorder_flush(s->worker.recorder, RECORDINGS_MS);
    if (slow)
        cli_warn(&s->common, "%s", pv_error_text());
    if (busy || slow) {
        wait_no_more(s);
        fflush(NULL);
        _exit(CLI_OK);
    }
    return CLI_OK;
}

int serve_main(int argc, char **argv)
{
    serve s = {
        .host = "127.0.0.1", .port = 8000, .max_message_mib = 64, .deadline_ms = 60000, .record_mib = 1024};
    int code = parse(&s, argc, argv);
    if (code == CLI_GO)
        code = work(&s);
    wait_no_more(&s);
    serve_worker_stop(&s.worker);
    serve_sockets_close(&s.sockets);
    pv_recorder_close(&s.worker.recorder);
    pv_session_destroy(&s.worker.session);
    pv_robot_free(&s.worker.robot);
    pv_model_free(&s.worker.model);
    pv_backend_close(&s.backend);
    pv_free(s.worker.noise);
    pv_free(s.metadata.bytes);
    pv_free(s.key);
    return code;
}
