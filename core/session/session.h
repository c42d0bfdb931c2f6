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

/* What an inference with this seed and no noise of its own starts from: n independent normal numbers, the same on every
 * machine up to its libm. */
void pv_session_noise(uint64_t seed, float *x, size_t n);

#endif
