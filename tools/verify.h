/* verify.h - this implementation, tensor by tensor, against a trace (verify_trace.c) or against itself on another backend
 * (verify_against.c). The subcommand's options are in verify.c. */
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
    const char *op; /* against a backend: what made the tensor here; else NULL */
    int step;       /* against a backend: the numbers are of this denoising step, the worst; -1: it is not of a step */
    bool same_bytes;

    const pv_st_tensor *whole, *sample, *index, *l2; /* in the trace: whole, or the three */
    const pv_tensor *ours;
    float *kept; /* for --dump */
    int64_t n_kept;
} verify_entry;

typedef struct verify_report {
    verify_entry *entries; /* in order of execution */
    int n_entries, n_compared, n_failed;
    const verify_entry *first_failed; /* NULL: all within bounds */
    bool production_equal;            /* trace: both plans gave the same action bytes */
    bool exact;                       /* against a backend: bytes must be equal, in place of bounds */
    int n_same, rounds, first_step;   /* against a backend: equal bytes; how often it ran; the step of first_failed, or -1 */
    int views, prompt_tokens, prefix_tokens;
} verify_report;

typedef struct verify_params {
    const char *trace, *recipe, *dump;
    uint64_t expand; /* see pv_plan_params */
    double bound;    /* 0: the bounds of recipe f32 */
} verify_params;

/* PV_OK when everything ran, whatever came out: see the report. */
pv_status verify_trace(pv_model *model, pv_backend *backend, const verify_params *params, pv_progress_fn progress,
                       void *user, verify_report *out);

typedef struct against_params {
    const trace_inputs *in;          /* images, tokens and noise of it */
    const char *recipe, *ref_recipe; /* the backend's and the reference's */
    uint64_t expand;                 /* of the backend under test */
    int steps;
    double bound;      /* 0: the bounds of recipe f32; of no meaning where verify_exact */
    size_t hold_bytes; /* activations held at once, on each side */
} against_params;

/* The same on two backends, which may be one. PV_OK when everything ran, whatever came out. */
pv_status verify_against(pv_model *model, pv_backend *backend, pv_backend *reference, const against_params *params,
                         pv_progress_fn progress, void *user, verify_report *out);
/* Must the bytes be equal? Of the CPU with itself, in one recipe. */
bool verify_exact(const char *backend, const char *recipe, const char *reference, const char *ref_recipe);

void verify_free(verify_report *r);

#endif
