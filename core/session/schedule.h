/* schedule.h - the times of the flow: t = 1 is noise, t = 0 are the actions. All of it host arithmetic.
 *
 *   openpi     t is accumulated in float32: t += dt, dt = float32(-1/S)            (pi0_pytorch.py, sample_actions)
 *   lerobot    float32(1 + k dt)                                                   (modeling_pi05.py)
 *   linear     1 - s          cosine  cos(pi s / 2)        quadratic  1 - s^2       with s = k / S
 *   sigmoid    1 - (g(s) - g(0)) / (g(1) - g(0)), g(s) = 1 / (1 + exp(-10 (s - 0.5))) */
#ifndef PV_SESSION_SCHEDULE_H
#define PV_SESSION_SCHEDULE_H

#include "base/status.h"

#define PV_MAX_STEPS 100000

const char *pv_schedule_list(int i); /* names; NULL behind the last */
const char *pv_schedule_find(const char *name); /* the same name (NULL: that of openpi) as it stands in the list; NULL: unknown */

/* times[steps + 1] and the step widths dt[steps] of a named schedule (NULL: openpi). dt is times[k + 1] - times[k] in
 * float32, but for openpi and lerobot float32(-1/S), as they use. PV_E_ARG: unknown name, steps not 1..PV_MAX_STEPS. */
pv_status pv_schedule_times(const char *name, int steps, float *times, float *dt);

/* A caller's own times: checked (finite, from at most 1 strictly down to no less than -1e-6, as a float32 sum may end beside
 * 0), dt as their differences. */
pv_status pv_schedule_custom(const float *times, int steps, float *dt);

/* sin(g t) then cos(g t) with g_j = 2 pi / (min (max / min)^(j / (width / 2 - 1))), in double, rounded once.
 * (pi0_pytorch.py, create_sinusoidal_pos_embedding) */
void pv_time_embedding(float t, int width, double min_period, double max_period, float *dst);

#endif
