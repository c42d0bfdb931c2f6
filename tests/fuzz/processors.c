/* processors.c - fuzzing lerobot's processors: an object with the three files as config, pre and post; their
 * state files lie in a folder and hold numbers for a state and actions of 7 and 8. What is accepted is a
 * robot that sees and acts. */
#include "base/memory.h"
#include "io/safetensors.h"
#include "robot/robot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void leave(void)
{
    char path[80];
    snprintf(path, sizeof path, "%s/s", folder);
    unlink(path);
    rmdir(folder);
}

/* One file for both steps, with every statistic there is. */
static void enter(void)
{
    static const char *const features[] = {"observation.state", "action"}, *const vectors[] = {
                                                                               "mean", "std", "q01", "q99",
                                                                               "min",  "max", "q10", "q90"};
    static const float x[] = {-1, 0, -0.5f, -1, -1, -1e-30f, -3e38f, -1},
                       y[] = {1, 0, 1e-9f, 1, 1, 1e-30f, 3e38f, 1};
    char path[80], name[64];
    pv_st_writer *w = NULL;
    snprintf(folder, sizeof folder, "/tmp/pv-fuzz-XXXXXX");
    PROMISE(mkdtemp(folder));
    atexit(leave);
    snprintf(path, sizeof path, "%s/s", folder);
    PROMISE(!pv_st_writer_begin(path, &w));
    for (int pass = 0; pass < 2; pass++)
        for (int f = 0; f < 2; f++)
            for (int v = 0; v < 8; v++) {
                const int64_t dim = f ? 7 : 8;
                snprintf(name, sizeof name, "%s.%s", features[f], vectors[v]);
                PROMISE(!(pass ? pv_st_writer_data(w, v % 2 ? y : x, sizeof(float) * (size_t)dim)
                               : pv_st_writer_declare(w, name, PV_F32, 1, &dim)));
            }
    PROMISE(!pv_st_writer_end(&w));
}

static void use(const pv_processors *p)
{
    static const uint8_t black[3];
    static const double zeros[PV_ROBOT_MAX_DIM];
    pv_robot *b;
    pv_frame *frame = NULL;
    pv_field field[PV_MAX_CAMERAS + 2];
    double x[PV_ROBOT_MAX_DIM] = {0, 1, -1, 1e30, 0.5};
    int n = 0;
    PROMISE(p->n_cameras >= 1 && p->n_cameras <= PV_MAX_CAMERAS && p->state_dim >= 1 && p->action_dim >= 1);
    pv_status st = pv_robot_from_processors(p, "fuzz", &b); /* one key for two things is left to this */
    PROMISE(st == PV_OK ? b != NULL : st == PV_E_FILE && !b);
    for (int i = 0; i < p->n_cameras; i++)
        if (p->camera[i])
            field[n++] = (pv_field){p->camera[i], PV_FIELD_U8, 3, {1, 1, 3}, black};
    field[n++] = (pv_field){p->state_key, PV_FIELD_F64, 1, {p->state_dim}, zeros};
    field[n++] = (pv_field){p->task_key, PV_FIELD_TEXT, 1, {1}, "a"};
    if (b && n > 2)
        PROMISE(pv_robot_observe(b, field, n, &frame) == PV_OK &&
                pv_robot_act(b, NULL, frame, x, 1, PV_ROBOT_MAX_DIM, x) == PV_OK);
    if (p->stats) {
        PROMISE(p->stats->state.dim == p->state_dim && p->stats->actions.dim == p->action_dim);
        pv_normalize(&p->stats->state, PV_NORM_QUANTILE, x, x, p->state_dim);
        pv_unnormalize(&p->stats->actions, PV_NORM_QUANTILE, x, x, p->action_dim);
    }
    pv_frame_free(&frame);
    pv_robot_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *all = NULL;
    pv_processors *p = NULL;
    if (!*folder)
        enter();
    if (pv_json_parse((const char *)data, size, (size_t)1 << 20, "fuzz", &all) == PV_OK) {
        pv_status st = pv_processors_parse(cJSON_GetObjectItemCaseSensitive(all, "config"),
                                           cJSON_GetObjectItemCaseSensitive(all, "pre"),
                                           cJSON_GetObjectItemCaseSensitive(all, "post"), folder, &p);
        PROMISE(st == PV_OK ? p != NULL : (st == PV_E_FILE || st == PV_E_UNSUPPORTED) && !p);
    }
    if (p)
        use(p);
    pv_processors_free(&p);
    cJSON_Delete(all);
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
