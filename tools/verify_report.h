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
    bool same_bytes;             /* the backend promises equal bytes for one plan fused and not: the CPU */
} verify_subject;

bool verify_passed(const verify_subject *s, const verify_report *r);

/* Tensors that belong together: of a layer, or of a stage outside its layers. In order of execution. */
typedef struct verify_group {
    char name[64];
    int judged;
    const verify_entry *worst; /* that uses most of its budget or bound; NULL: none has one */
    const verify_entry
        *last; /* the last compared from the start: the residual stream, where there is one; or NULL */
} verify_group;

pv_status verify_groups(const verify_report *r, verify_group **out, int *n); /* pv_free it */

bool verify_entry_ok(const verify_entry *e); /* within all that judges it */

/* What of its budget an op's own error uses; beside a trace, what of its bound a tensor's error does. 0 of 0
 * is 0. NaN: it has none. */
double verify_used(const verify_entry *e);
double verify_used_in(const verify_entry *e, int step); /* of one step; NaN: it is not of that step */
const verify_entry *verify_worst_in(const verify_report *r, int step); /* that uses most in it, or NULL */
/* Relative L2 of x after a step, from the start (VERIFY_SUM) or by the recipe; beside a trace of the
 * velocity. NaN: unknown. */
double verify_after_step(const verify_report *r, int step, int curve);
/* Entries by what they use of their budgets, the most first; pv_free it. */
pv_status verify_ranking(const verify_report *r, const verify_entry ***out, int *n);
void verify_verdict(const verify_subject *s, const verify_report *r, char *text, size_t size);

void verify_print(const verify_subject *s, const verify_report *r);
cJSON *verify_json(const verify_subject *s, const verify_report *r);

#endif
