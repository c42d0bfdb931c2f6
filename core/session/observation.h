/* observation.h - an observation as a robot has it -> what the model reads: pictures in the model's order, token ids. */
#ifndef PV_SESSION_OBSERVATION_H
#define PV_SESSION_OBSERVATION_H

#include "io/image.h"
#include "model/model.h"

/* Working memory for one model, made once. */
typedef struct pv_observer {
    const pv_model *model;
    pv_resizer *resizer[PV_MAX_CAMERAS]; /* of the camera's last picture size */
    uint8_t *picture[PV_MAX_CAMERAS];    /* u8 [side][side][3]: what the model sees of camera i */
    float *chw;                          /* f32 [3][side][side] */
    double *state;
    int32_t *ids;                        /* [max_tokens] */
    /* of the last observation: */
    int views, camera[PV_MAX_CAMERAS];   /* present cameras, in the model's order */
    int n_ids, state_outside;
    bool truncated;
} pv_observer;

pv_status pv_observer_create(const pv_model *model, pv_observer **out);
void pv_observer_destroy(pv_observer **o);

/* Checks all of it and fills picture[], ids and what follows them. */
pv_status pv_observe(pv_observer *o, const pv_observation *obs, bool allow_truncation);

#endif
