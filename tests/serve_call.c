/* serve_call.c - what the server must answer: observations as `pivot serve` gets them, inferred by calls of
 * the library. Not a test by itself: serve.py runs it. serve_call <model> <robot> <noise: f32, raw> reads
 * messages from stdin, each behind its length (u32, of the host's byte order), and writes to stdout the
 * actions of each, f64. */
#include "base/memory.h"
#include "io/file.h"
#include "tools/wire.h"

#include <stdio.h>
#include <stdlib.h>

static pv_model *model;
static pv_backend *backend;
static pv_session *session;
static pv_robot *robot;
static pv_frame *frame;

static pv_status call(const uint8_t *bytes, size_t n, const float *noise, const pv_model_info *m, int dims)
{
    const size_t rows = (size_t)m->horizon;
    static wire_request request;
    float *actions = calloc(rows * (size_t)m->action_dim, sizeof *actions);
    double *f64 = calloc(rows * (size_t)m->action_dim, sizeof *f64),
           *out = calloc(rows * (size_t)dims, sizeof *out);
    pv_infer_params params = {
        .size = sizeof params, .noise = noise, .allow_truncation = true, .actions_f64 = f64};
    pv_status st = actions && f64 && out ? wire_read(bytes, n, &request) : PV_E_MEMORY;
    if (!st) {
        st = pv_robot_observe(robot, request.field, request.n_fields, &frame);
        wire_request_free(&request);
    }
    if (!st)
        st = pv_session_infer(session, pv_frame_observation(frame), &params, actions);
    if (!st)
        st = pv_robot_act(robot, model, frame, f64, m->horizon, m->action_dim, out);
    if (!st && fwrite(out, sizeof *out, rows * (size_t)dims, stdout) != rows * (size_t)dims)
        st = pv_fail(PV_E_FILE, "stdout");
    fflush(stdout);
    free(actions);
    free(f64);
    free(out);
    return st;
}

/* Until stdin ends. */
static pv_status call_all(const float *noise, const pv_model_info *m, int dims)
{
    uint32_t n;
    pv_status st = PV_OK;
    while (!st && fread(&n, sizeof n, 1, stdin) == 1) {
        uint8_t *bytes = malloc(n ? n : 1);
        st = bytes && fread(bytes, 1, n, stdin) == n ? call(bytes, n, noise, m, dims)
                                                     : pv_fail(PV_E_FILE, "stdin");
        free(bytes);
    }
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    pv_model_info m = {.size = sizeof m};
    pv_robot_info r = {.size = sizeof r};
    char *noise = NULL;
    size_t n = 0;
    pv_status st = pv_backend_open("cpu", NULL, &backend);
    if (!st)
        st = pv_model_load(argv[1], NULL, &model);
    if (!st)
        st = pv_model_describe(model, &m);
    if (!st)
        st = pv_robot_load(argv[2], &robot);
    if (!st)
        st = pv_robot_describe(robot, &r);
    if (!st)
        st = pv_session_create(model, backend, NULL, &session);
    if (!st)
        st = pv_file_read(argv[3], 1 << 20, &noise, &n);
    if (!st && n != sizeof(float) * (size_t)m.horizon * (size_t)m.model_dim)
        st = pv_fail(PV_E_FILE, "%s: %zu bytes", argv[3], n);
    if (!st)
        st = call_all((const float *)noise, &m, r.action_dim);
    if (st)
        fprintf(stderr, "%s\n", pv_error_text());
    pv_frame_free(&frame);
    pv_session_destroy(&session);
    pv_robot_free(&robot);
    pv_model_free(&model);
    pv_backend_close(&backend);
    pv_free(noise);
    return st != PV_OK;
}
