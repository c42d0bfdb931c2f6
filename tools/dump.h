/* dump.h - what an inference read and gave, in files. Each file is written whole or not at all. */
#ifndef PV_TOOLS_DUMP_H
#define PV_TOOLS_DUMP_H

#include "session/observation.h"

/* The exact pictures (of pv_observe_pictures) as DIR/CAMERA.png, and the token ids as DIR/tokens.json. DIR is made if it is
 * not there. */
pv_status dump_inputs(const char *dir, const pv_observer *o, const uint8_t *pictures);

typedef struct dump_result {
    const float *noise, *actions; /* [horizon][action_dim], model units */
    const char *schedule;         /* its name; "custom" for a caller's own times */
    const float *times;           /* [steps + 1] */
    int steps;
    const char *source; /* which program and model made it */
} dump_result;

/* A trace, as `pivot verify` reads it: in.image.CAM.u8 (black for absent cameras), in.image_mask, in.tokens,
 * in.token_mask, in.noise; then out.actions and the time of the last step, which stand for openpi's own
 * schedule; of any other one sched.NAME.timesteps and sched.NAME.actions. */
pv_status dump_trace(const char *path, const pv_observer *o, const uint8_t *pictures, const dump_result *r);

#endif
