/* verify_structure.h - what a mask would have had to do, bit for bit, on the plan that `run` uses: what is
 * not there changes nothing, what is there does. Closeness does not prove that: an absent key that counts for
 * little is close. */
#ifndef PV_TOOLS_VERIFY_STRUCTURE_H
#define PV_TOOLS_VERIFY_STRUCTURE_H

#include "trace.h"

typedef struct structure_check {
    const char *what;  /* was done to it */
    const char *then;  /* what must be: "the actions: not one bit" */
    bool ok, left_out; /* left_out: these inputs do not have it, or the model */
    char where[64];    /* not ok: the layer, say; else empty */
} structure_check;

#define STRUCTURE_CHECKS 16

typedef struct structure_report {
    structure_check check[STRUCTURE_CHECKS];
    int n, n_left_out, n_failed;
    const structure_check *first_failed; /* NULL: all hold */
} structure_report;

/* PV_OK when everything ran, whatever came out. */
pv_status verify_structure(pv_model *model, pv_backend *backend, const trace_inputs *in, const char *recipe,
                           uint64_t expand, int steps, pv_progress_fn progress, void *user,
                           structure_report *out);

#endif
