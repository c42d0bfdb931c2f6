/* robot.c - fuzzing the description of a robot. What is accepted must describe itself, see what it asks for, and act. */
#include "base/memory.h"
#include "robot/robot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const pv_robot *b)
{
    static const uint8_t black[27]; /* 3 x 3, in either layout */
    static const double zeros[PV_ROBOT_MAX_DIM];
    pv_robot_info info = {0};
    pv_field field[PV_MAX_CAMERAS + PV_MAX_STATE_KEYS + 1];
    pv_frame *frame = NULL;
    double out[PV_ROBOT_MAX_DIM];
    int n = 0;
    PROMISE(pv_robot_describe(b, &info) == PV_OK);
    for (int i = 0; i < info.n_cameras; i++)
        if (info.key[i])
            field[n++] = (pv_field){info.key[i], PV_FIELD_U8, 3, {3, 3, 3}, black};
    for (int i = 0; i < info.n_state_keys; i++)
        field[n++] = (pv_field){info.state_key[i], PV_FIELD_F64, 1, {info.state_key_dim[i]}, zeros};
    field[n++] = (pv_field){info.prompt_key, PV_FIELD_TEXT, 1, {1}, "a"};
    pv_status st = pv_robot_observe(b, field, n, &frame);
    PROMISE(st == PV_OK ? frame != NULL : st == PV_E_NOT_FINITE && !frame); /* of conversions that overflow */
    if (!st) {
        const pv_observation *o = pv_frame_observation(frame);
        for (int i = 0; i < o->n_state; i++)
            PROMISE(isfinite(o->state[i]));
        st = pv_robot_act(b, NULL, frame, zeros, 1, PV_ROBOT_MAX_DIM, out);
        PROMISE(st == PV_OK || st == PV_E_NOT_FINITE);
        for (int d = 0; !st && d < info.action_dim; d++)
            PROMISE(isfinite(out[d]));
    }
    pv_frame_free(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pv_robot *b;
    pv_status st = pv_robot_parse((const char *)data, size, "fuzz", "fuzz", &b);
    PROMISE(st == PV_OK ? b != NULL : st == PV_E_FILE && !b);
    if (b)
        use(b);
    pv_robot_free(&b);
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
