/* serve_call.c - what the server must answer: observations in files as `pivot serve` gets them, inferred by
 * calls of the library. Not a test by itself: serve.py runs it. serve_call <model> <robot> <noise: f32, raw>
 * <folder> <n>    reads <folder>/<i>.msgpack, writes <i>.f64, i < n */
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

static pv_status call(const char *folder, int i, const float *noise, const pv_model_info *m, int dims)
{
    char path[512], *bytes = NULL;
    size_t n = 0, rows = (size_t)m->horizon;
    static wire_request request;
    float *actions = calloc(rows * (size_t)m->action_dim, sizeof *actions);
    double *f64 = calloc(rows * (size_t)m->action_dim, sizeof *f64),
           *out = calloc(rows * (size_t)dims, sizeof *out);
    pv_infer_params params = {
        .size = sizeof params, .noise = noise, .allow_truncation = true, .actions_f64 = f64};
    snprintf(path, sizeof path, "%s/%d.msgpack", folder, i);
    pv_status st = actions && f64 && out ? pv_file_read(path, 1 << 26, &bytes, &n) : PV_E_MEMORY;
    if (!st)
        st = wire_read((const uint8_t *)bytes, n, &request);
    if (!st)
        st = pv_robot_observe(robot, request.field, request.n_fields, &frame);
    if (!st)
        st = pv_session_infer(session, pv_frame_observation(frame), &params, actions);
    if (!st)
        st = pv_robot_act(robot, model, frame, f64, m->horizon, m->action_dim, out);
    snprintf(path, sizeof path, "%s/%d.f64", folder, i);
    FILE *f = st ? NULL : fopen(path, "wb");
    if (f && fwrite(out, sizeof *out, rows * (size_t)dims, f) != rows * (size_t)dims)
        st = PV_E_FILE;
    if (!st && (!f || fclose(f)))
        st = PV_E_FILE;
    pv_free(bytes);
    free(actions);
    free(f64);
    free(out);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 6)
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
    for (int i = 0; !st && i < atoi(argv[5]); i++)
        st = call(argv[4], i, (const float *)noise, &m, r.action_dim);
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
