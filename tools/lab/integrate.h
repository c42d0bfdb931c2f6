/* integrate.h - dx/dt = v(x, t) from t = 1 (noise) down to 0 (actions), in float64.
 *
 *   Euler      x + h v(x, t)                                    one evaluation a step
 *   Heun       x + h/2 (v(x, t) + v(x + h v(x, t), t + h))      two
 *   midpoint   x + h v(x + h/2 v(x, t), t + h/2)                two */
#ifndef PV_TOOLS_LAB_INTEGRATE_H
#define PV_TOOLS_LAB_INTEGRATE_H

#include "base/status.h"

typedef enum lab_method { LAB_EULER, LAB_HEUN, LAB_MIDPOINT } lab_method;

/* Evaluations in a row: how many a step, and of evaluation i, its time. */
int lab_evaluations(lab_method method);
double lab_evaluation_time(lab_method method, const double *times, int i);

/* v(x) at evaluation i, into v. */
typedef pv_status (*lab_velocity)(void *user, int i, const double *x, double *v);

/* x [n]: in place. times [steps + 1]. work [3 n]. */
pv_status lab_integrate(lab_method method, const double *times, int steps, double *x, size_t n, double *work,
                        lab_velocity velocity, void *user);

#endif
