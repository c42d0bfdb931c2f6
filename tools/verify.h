/* verify.h - this implementation, tensor by tensor, against a trace (verify_trace.c) or against itself on
 * another backend (verify_against.c). The subcommand's options are in verify.c. */
#ifndef PV_TOOLS_VERIFY_H
#define PV_TOOLS_VERIFY_H

#include "compare.h"
#include "trace.h"

/* What is drawn over the denoising steps; indices of verify_entry.curve. */
enum { VERIFY_LOCAL, VERIFY_SUM, VERIFY_RECIPE, VERIFY_CURVES };

/* Bounds from a file, verify_gate.h. The bound on a tensor's own error (VERIFY_LOCAL) or on that from the start (VERIFY_SUM), if
 * the gate has one; NULL has none. */
typedef struct verify_gate verify_gate;
bool verify_gate_bound(const verify_gate *g, const char *name, int part, double *bound);

typedef enum verify_state { VERIFY_NOT_COMPARED, VERIFY_NO_COUNTERPART, VERIFY_COMPARED } verify_state;

/* The error of one op: what the backend made of its own inputs beside what the CPU makes of the same inputs.
 * Or that of a recipe: the reference beside the CPU in f32. Of several steps, the worst. */
typedef struct verify_part {
    bool there, ok;
    distance d;
    int step;        /* -1: not of a step */
    int failed_step; /* the first beyond its limit; -1: none */
    double limit;    /* what it is judged by: an op's budget or a gate; a recipe's error is told, not judged (0) */
} verify_part;

typedef struct verify_entry {
    char name[128];
    verify_state state; /* of the error from the start: beside the trace, or the reference run of its own */
    const char *why;    /* of VERIFY_NOT_COMPARED and VERIFY_NO_COUNTERPART */
    trace_name what;
    uint64_t order; /* of execution */
    bool absolute;  /* times: judged by max_abs, not by relative L2 */
    double relative_l2, max_spread, centred_cosine, cosine, max_abs, mean_abs,
        bound; /* bound 0: told, not judged */
    bool gated;      /* judged by a gate's bound, whatever else would judge it */
    int64_t worst;
    bool ok;
    bool input;      /* against a backend: what the host wrote, or a constant; equal to the bit */
    const char *op; /* against a backend: what made the tensor here; else NULL */
    int step; /* against a backend: the numbers are of this denoising step, the worst; -1: it is not of a step
               */
    bool same_bytes;
    verify_part local, recipe;    /* against a backend */
    double *curve[VERIFY_CURVES]; /* against a backend, of steps: relative L2 after each, NaN where there is
                                     none; or NULL */

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
    int n_same, rounds,
        first_step; /* against a backend: equal bytes; how often it ran; the step of first_failed, or -1 */
    int n_local, n_local_failed; /* against a backend: ops judged on their own inputs */
    bool first_local;            /* first_failed is named for its own error, not for what came to it */
    bool has_recipe;             /* the reference was compared with the CPU in f32 */
    int steps;
    int views, prompt_tokens, prefix_tokens;
} verify_report;

typedef struct verify_params {
    const char *trace, *recipe, *dump;
    uint64_t expand; /* see pv_plan_params */
    const verify_gate *gate; /* NULL: none */
    double bound;    /* 0: the bounds of recipe f32 */
} verify_params;

/* PV_OK when everything ran, whatever came out: see the report. */
pv_status verify_trace(pv_model *model, pv_backend *backend, const verify_params *params,
                       pv_progress_fn progress, void *user, verify_report *out);

typedef struct against_params {
    const trace_inputs *in;          /* images, tokens and noise of it */
    const char *recipe, *ref_recipe; /* the backend's and the reference's */
    uint64_t expand;                 /* of the backend under test */
    int steps;
    double bound;      /* on the error from the start. 0: the bounds of recipe f32; of no meaning where
                          verify_exact */
    size_t hold_bytes; /* activations held at once, on each side */
    const verify_gate *gate; /* NULL: none */
} against_params;

/* The same on two backends, which may be one: the error from the start, and of each op the error of its own
 * (verify_local.h). Where both have one recipe, other than f32, and the reference is the CPU, its error
 * beside the CPU in f32 as well. PV_OK when everything ran, whatever came out. */
pv_status verify_against(pv_model *model, pv_backend *backend, pv_backend *reference,
                         const against_params *params, pv_progress_fn progress, void *user,
                         verify_report *out);
/* Must the bytes be equal? Of the CPU with itself, in one recipe. */
bool verify_exact(const char *backend, const char *recipe, const char *reference, const char *ref_recipe);

void verify_free(verify_report *r);

#endif
