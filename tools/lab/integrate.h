/* integrate.h - the flow from noise to actions, integrated in float64 on the host with the velocities that a
 * backend computes: what an answer of few steps is held to, and methods of second order beside Euler's. */
#ifndef PV_TOOLS_LAB_INTEGRATE_H
#define PV_TOOLS_LAB_INTEGRATE_H

#include "policy.h"

typedef enum lab_method {
    LAB_EULER,
    LAB_HEUN,
    LAB_MIDPOINT
} lab_method; /* one evaluation a step; two; two */

typedef struct lab_flow {
    pv_runner *r;
    const pv_tensor *v_t;
    size_t n;        /* numbers of a chunk */
    void *raw;       /* v_t as it comes */
    float *x, *v;    /* [n] */
    double *x1, *v1; /* [n] */
    float *at;       /* [rows of the tables]: times that they hold from evaluation `first` on */
    int first, held;
} lab_flow;

pv_status lab_flow_open(lab *l, lab_flow *f); /* of the lab's observation */
void lab_flow_close(lab_flow *f);

/* x [chunk]: noise in, actions out. times [steps + 1], from 1 down to 0. */
pv_status lab_flow_run(lab *l, lab_flow *f, lab_method method, const double *times, int steps, double *x);

/* From the lab's noise, n steps of Heun, evenly; *own: how far from n / 2 steps, by which Heun's error is at
 * most a third of that once it converges. NULL: not asked for. */
pv_status lab_flow_reference(lab *l, lab_flow *f, int n, double *x, double *own);

#endif
