/* verify.h - a trace against this implementation, tensor by tensor. The subcommand's options are in verify.c. */
#ifndef PV_TOOLS_VERIFY_H
#define PV_TOOLS_VERIFY_H

#include "compare.h"
#include "trace.h"

typedef enum verify_state { VERIFY_NOT_COMPARED, VERIFY_NO_COUNTERPART, VERIFY_COMPARED } verify_state;

typedef struct verify_entry {
    char name[128];
    verify_state state;
    const char *why; /* of VERIFY_NOT_COMPARED and VERIFY_NO_COUNTERPART */
    trace_name what;
    uint64_t order;  /* of execution */
    bool absolute;   /* times: judged by max_abs, not by relative L2 */
    double relative_l2, max_spread, centred_cosine, max_abs, bound;
    int64_t worst;
    bool ok;

    const pv_st_tensor *whole, *sample, *index, *l2; /* in the trace: whole, or the three */
    const pv_tensor *ours;
    float *kept; /* for --dump */
    int64_t n_kept;
} verify_entry;

typedef struct verify_report {
    verify_entry *entries; /* in order of execution */
    int n_entries, n_compared, n_failed;
    const verify_entry *first_failed; /* NULL: all within bounds */
    bool production_equal;            /* both plans gave the same action bytes */
    int views, prompt_tokens, prefix_tokens;
} verify_report;

typedef struct verify_params {
    const char *trace, *recipe, *dump;
    double bound; /* 0: the bounds of recipe f32 */
} verify_params;

/* PV_OK when everything ran, whatever came out: see the report. */
pv_status verify_trace(pv_model *model, pv_backend *backend, const verify_params *params, pv_progress_fn progress,
                       void *user, verify_report *out);
void verify_free(verify_report *r);

#endif
