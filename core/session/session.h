/* session.h - what tests and tools see of a session beyond pivot.h. */
#ifndef PV_SESSION_SESSION_H
#define PV_SESSION_SESSION_H

#include "observation.h"
#include "runner.h"

/* As pv_session_create, with plans that run the bodies of these composites in place of their kernels (pv_plan_params). */
pv_status pv_session_create_expanded(pv_model *m, pv_backend *be, const pv_session_params *params, uint64_t expand,
                                     pv_session **out);

/* The plan at work for so many cameras and prompt tokens; NULL with the error's words. */
pv_runner *pv_session_runner(pv_session *s, int views, int tokens);

/* What plans took until now, each part added up over them: passes; weights, with the host's table; memory of the device and its recording. */
typedef struct pv_opening {
    double plan_ms, weights_ms, record_ms;
} pv_opening;

pv_opening pv_session_opening(const pv_session *s);

/* The last inference: what it began with and what came of it. All of it the session's, good until its next call. */
typedef struct pv_inference {
    const pv_model *model;
    const pv_backend *backend;
    const char *recipe;
    bool rope_bf16, allow_truncation;
    int max_steps;
    const float *noise;    /* [horizon][model_dim] */
    bool drawn;            /* from `seed`; else it was given */
    uint64_t seed;
    const char *schedule;  /* NULL: the caller's own times */
    int steps;
    const float *times;    /* [steps + 1] */
    const int32_t *tokens; /* of the prompt, as the model read them */
    int n_tokens;
    const float *model_actions; /* [horizon][model_dim] */
    const double *actions;      /* [horizon][action_dim] */
    int horizon, model_dim, action_dim;
    uint64_t plan; /* pv_plan_hash */
    pv_timing timing;
} pv_inference;

void pv_session_parts(const pv_session *s, const pv_model **model, const pv_backend **backend);

/* PV_E_ARG: there was none yet, or the last one failed. */
pv_status pv_session_last(pv_session *s, pv_inference *out);

/* What an inference with this seed and no noise of its own starts from: n independent normal numbers, the same on every
 * machine up to its libm. */
void pv_session_noise(uint64_t seed, float *x, size_t n);

#endif
