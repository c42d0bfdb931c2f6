/* observation.h - an observation as a robot has it -> what the model reads: pictures in the model's order, token ids.
 *
 * Pictures are made last and where the caller wants them, which may be the device's own: how many come and how long the
 * prompt is decides where that is. */
#ifndef PV_SESSION_OBSERVATION_H
#define PV_SESSION_OBSERVATION_H

#include "io/image.h"
#include "model/model.h"

/* Working memory for one model, made once. */
typedef struct pv_observer {
    const pv_model *model;
    pv_resizer *resizer[PV_MAX_CAMERAS]; /* of the camera's last picture size */
    double *state;
    int32_t *ids;                        /* [max_tokens] */
    /* of the last observation: */
    int views, camera[PV_MAX_CAMERAS];   /* present cameras, in the model's order */
    const pv_image *image[PV_MAX_CAMERAS]; /* theirs: the caller's, as long as the call lasts */
    int n_ids, state_outside;
    bool truncated;
} pv_observer;

pv_status pv_observer_create(const pv_model *model, pv_observer **out);
void pv_observer_destroy(pv_observer **o);

/* Checks all of it and fills state, ids and what follows them. */
pv_status pv_observe(pv_observer *o, const pv_observation *obs, bool allow_truncation);

/* What the model sees of the cameras that are there: u8 [views][side][side][3]. PV_E_SHAPE: a picture too thin to shrink. */
pv_status pv_observe_pictures(pv_observer *o, uint8_t *pictures);

#endif
