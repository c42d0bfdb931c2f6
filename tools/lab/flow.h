/* flow.h - the model's flow integrated on the host with the velocities that a backend computes: what an
 * answer of few steps is held to, and methods of second order beside Euler's. */
#ifndef PV_TOOLS_LAB_FLOW_H
#define PV_TOOLS_LAB_FLOW_H

#include "integrate.h"
#include "policy.h"

typedef struct lab_flow {
    lab *l;
    pv_runner *r;
    const pv_tensor *v_t;
    size_t n;      /* numbers of a chunk */
    void *raw;     /* v_t as it comes */
    float *x, *at; /* [n]; times that the tables hold, and widths behind them, which nothing reads */
    double *work;  /* [3 n] */
    lab_method method;
    const double *times;
    int steps, first, held; /* of the run at hand: evaluations whose times the tables hold */
} lab_flow;

pv_status lab_flow_open(lab *l, lab_flow *f); /* of the lab's observation */
void lab_flow_close(lab_flow *f);

/* x [chunk]: noise in, actions out. times [steps + 1], from 1 down to 0. */
pv_status lab_flow_run(lab_flow *f, lab_method method, const double *times, int steps, double *x);

/* The same in even steps from the lab's noise. */
pv_status lab_flow_even(lab_flow *f, lab_method method, int steps, double *x);

/* n steps of Heun; *own: how much half as many are off from that. Once they converge, four times what n are
 * off. */
pv_status lab_flow_reference(lab_flow *f, int n, double *x, double *own);

#define LAB_REFERENCE "steps of Heun's method that errors are told against (default: 1000)"
void lab_say_reference(lab *l, int n, double own);

#endif
