/* trace.h - a trace: inputs, intermediates and outputs of one inference in a safetensors file, as openpi_trace.py and
 * `verify --dump` write it. Names: docs/traces.md. Here a name of the trace meets the tensor of the graph that holds it.
 *
 * A trace has padding and masks, the packed prefix has neither: rows are mapped through the masks, and what is masked
 * is not compared. */
#ifndef PV_TOOLS_TRACE_H
#define PV_TOOLS_TRACE_H

#include "io/safetensors.h"
#include "session/runner.h"

#define TRACE_MAX_STEPS 1000 /* a trace of more is taken for a mistake: every step has its tables */

typedef struct trace_inputs {
    int views, camera[PV_MAX_CAMERAS]; /* present cameras, in the model's order */
    uint8_t *images;                   /* [views][side][side][3] */
    int n_tokens, n_valid;             /* slots of the prompt; real ones */
    int32_t *tokens;                   /* [n_valid], packed */
    int64_t n_prefix;                  /* rows of the padded prefix */
    int32_t *packed;                   /* [n_prefix]: row in the packed prefix, -1 if masked */
    float *noise;                      /* [horizon][action_dim] */
} trace_inputs;

/* Reads in.*; everything checked against the config. */
pv_status trace_read_inputs(const pv_safetensors *st, const pv_config *c, trace_inputs *in);
/* Made up, as for `pivot bench`: the model's first `views` cameras, `tokens` ids, noise; without masks. */
pv_status trace_made_up(const pv_config *c, int views, int tokens, trace_inputs *in);
void trace_free_inputs(trace_inputs *in);

/* A whole tensor as f32 (F32, BF16, F16, I32 or U8 in the file); pv_free it. NULL: words are set. */
float *trace_floats(const pv_safetensors *st, const pv_st_tensor *t);

typedef enum trace_kind {
    TRACE_TENSOR,     /* `tensor` names one of the graph's */
    TRACE_TIME,       /* stepN.time */
    TRACE_PAD_MASK,   /* prefix.pad_mask */
    TRACE_ACTIONS,    /* out.actions */
    TRACE_SCHEDULE,   /* sched.KIND.part */
    TRACE_NOT_COMPARED, /* inputs, bf16 variants, masked cameras: `why` says which */
    TRACE_UNKNOWN
} trace_kind;

typedef enum trace_part { TRACE_TIMESTEPS, TRACE_V, TRACE_SCHEDULE_ACTIONS } trace_part;

/* How elements of the trace's tensor lie in ours. */
typedef enum trace_rows { TRACE_ALL, TRACE_PREFIX_ROWS, TRACE_KV_ROWS } trace_rows;

typedef struct trace_name {
    trace_kind kind;
    char tensor[96];   /* the graph's name */
    int view;          /* camera's place among the present ones; -1: not of a camera */
    int step;          /* -1: not of a step */
    trace_rows rows;
    char schedule[32];
    trace_part part;
    const char *why;
} trace_name;

/* What `name` (without .sample, .sample_index, .valid_l2) means under this config and these masks. */
trace_name trace_parse(const char *name, const pv_config *c, const trace_inputs *in);

/* Element i of the trace's tensor -> element of ours within one view or step; -1: masked. `width`: elements of a row. */
int64_t trace_map(const trace_name *n, const trace_inputs *in, const pv_config *c, int64_t width, int64_t i);

#endif
