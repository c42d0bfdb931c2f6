/* policy.h - the model itself at work in an experiment: one observation, weights loaded once, and plans of it
 * as they are asked for. */
#ifndef PV_TOOLS_LAB_POLICY_H
#define PV_TOOLS_LAB_POLICY_H

#include "lab.h"

typedef struct lab_policy {
    pv_weights *weights;
    int views, camera[PV_MAX_CAMERAS]; /* that are there, in the model's order */
    uint8_t *pixels;                   /* [views][side][side][3] */
    int32_t *ids;                      /* [max_tokens] */
    int n_ids;
    size_t chunk; /* numbers of one */
    float *noise; /* [chunk], of --seed */
} lab_policy;

/* Into l->policy, which goes with the lab: the observation of the command line, or a made-up one. */
pv_status lab_policy_open(lab *l);
void lab_policy_close(lab *l);

/* A plan of the model, its weights there, the observation fed and its prefix read. params->shape and ->recipe
 * are set here where they are not given; steps 0: l->steps. pv_runner_destroy it. */
pv_status lab_runner(lab *l, const pv_runner_params *params, pv_runner **out);

/* The same without the observation: for those who feed another. */
pv_status lab_runner_unfed(lab *l, const pv_runner_params *params, pv_runner **out);

/* The loop from `noise` (NULL: the lab's) over a named schedule. ms may be NULL: the loop's, by the device's
 * clock. */
pv_status lab_denoise(lab *l, pv_runner *r, const char *schedule, int steps, const float *noise,
                      float *actions, double *ms);
/* The same with times and widths of one's own; with rows first .. first + steps of them. */
pv_status lab_denoise_at(lab *l, pv_runner *r, const float *t, const float *dt, int steps, const float *noise,
                         float *actions, double *ms);

#endif
