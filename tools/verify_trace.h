/* verify_trace.h - what the files verify_*.c share; others need verify.h alone. */
#ifndef PV_TOOLS_VERIFY_TRACE_H
#define PV_TOOLS_VERIFY_TRACE_H

#include "verify.h"

typedef struct verification {
    pv_model *model;
    const pv_config *c;
    pv_safetensors *trace;
    trace_inputs in;
    verify_report *report;
    const verify_params *params;
    pv_runner *probe, *production;
    float *times, *dt;
    int steps;
    float *actions; /* of the probe */
    float *sched_v; /* [steps][horizon][action_dim] of the schedule that runs */
    const pv_tensor *v_t;
} verification;

/* The trace's names as entries, with state, bound and the number of steps. */
pv_status verify_list(verification *v);
/* Once there is a plan: each entry's tensor in it; sorts. */
void verify_find_ours(verification *v);
void verify_sort(verify_report *r); /* in order of execution */

/* Relative L2 that recipe f32 must keep. */
double verify_bound(const pv_config *c, const trace_name *n);

int64_t verify_width(const verify_entry *e, const pv_config *c); /* elements of a row */

pv_status verify_write_dump(const verification *v, const char *path);

#endif
