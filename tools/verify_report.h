/* verify_report.h - what `pivot verify` found: as text, as JSON; and what both, and verify_html.c, take from
 * a report. */
#ifndef PV_TOOLS_VERIFY_REPORT_H
#define PV_TOOLS_VERIFY_REPORT_H

#include "cli.h"
#include "verify.h"

/* What was compared with what. */
typedef struct verify_subject {
    const char *model, *backend, *recipe;
    const char *trace;                /* NULL: made-up inputs */
    const char *against, *ref_recipe; /* another backend; NULL: the trace */
    uint64_t expand;
    const char *gate, *not_kept; /* the gate's file, and what it bounds and was not compared; NULL: none */
    bool same_bytes; /* the backend promises equal bytes for one plan fused and not: the CPU */
} verify_subject;

bool verify_passed(const verify_subject *s, const verify_report *r);

/* Tensors that belong together: of a layer, or of a stage outside its layers. In order of execution. */
typedef struct verify_group {
    char name[64];
    int ops;                   /* with an error of their own */
    const verify_entry *worst; /* the op that uses most of its budget; NULL: none has one */
    const verify_entry
        *last; /* the last tensor compared from the start: the residual stream, where there is one; or NULL */
} verify_group;

pv_status verify_groups(const verify_report *r, verify_group **out, int *n); /* pv_free it */
double verify_used(const verify_part *p);                                    /* error / limit; 0 / 0 is 0 */
double verify_used_in(const verify_entry *e, int step); /* of one step; NaN: it is not of that step */
const verify_entry *verify_worst_in(const verify_report *r,
                                    int step); /* the op that uses most of its budget in it, or NULL */
/* Entries by what they use of their budgets, the most first; pv_free it. */
pv_status verify_ranking(const verify_report *r, const verify_entry ***out, int *n);
const verify_entry *verify_steps_end(const verify_report *r); /* the entry of x after a step, or NULL */
void verify_verdict(const verify_subject *s, const verify_report *r, char *text, size_t size);

void verify_print(const verify_subject *s, const verify_report *r);
cJSON *verify_json(const verify_subject *s, const verify_report *r);

#endif
