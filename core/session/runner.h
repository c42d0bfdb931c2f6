/* runner.h - one plan of Pi0.5 at work: inputs in, stages run, actions out. Between the session, which knows robots, and
 * the plan, which knows tensors. Tools that look inside (verify, bench, inspect) work on this. One thread at a time. */
#ifndef PV_SESSION_RUNNER_H
#define PV_SESSION_RUNNER_H

#include "model/model.h"
#include "plan/instance.h"

typedef struct pv_runner_params {
    pv_pi05_shape shape;
    const char *recipe; /* NULL: f32 */
    int steps;          /* rows of the time tables; more steps run in several rounds */
    uint64_t expand;    /* see pv_plan_params */
    bool (*keep)(void *user, const char *tensor); /* probe: tensors of the model to keep as outputs; NULL: none */
    bool (*hold)(void *user, const pv_tensor *t); /* see pv_plan_params */
    void (*change)(void *user, pv_graph *g); /* the model's graph, before it is planned: for experiments; NULL: as it is */
    void *user;
} pv_runner_params;

typedef struct pv_runner {
    pv_model *model;
    pv_pi05_shape shape;
    pv_plan *plan;
    pv_instance *inst;
    const pv_tensor *images, *prompt, *prompt_len, *prefix_len, *kv_len, *prefix_pos, *suffix_pos, *time_emb, *dt, *x_t;
    int n_prompt, n_prefix; /* valid tokens now; -1: unknown */
    int32_t *ids;           /* [tokens]: whose rows stand in `prompt`; -1: nobody's */
    float *table;           /* [steps][expert width] */
    int32_t *positions;     /* [max(prefix, horizon)] */
    float *filled_t, *filled_dt; /* the schedule that the tables hold, [steps] */
    int n_filled;
    uint64_t hash;               /* of the plan; 0: nobody has asked */
} pv_runner;

/* Plans first (nothing of the device is touched: runner->plan tells the memory), then pv_runner_start allocates, takes
 * the weights, which must have been loaded for the plan's graph, and records. */
pv_status pv_runner_create(pv_model *model, pv_backend *be, const pv_runner_params *params, pv_runner **out);
pv_status pv_runner_start(pv_runner *r, const pv_weights *weights);
void pv_runner_destroy(pv_runner **r);

/* Inputs stay until they are written again. What is as it was is not written anew: most of a prompt is the same from call to
 * call, and so is its length. Pictures are u8 [views][side][side][3]; made in pv_runner_pictures they are not copied. */
uint8_t *pv_runner_pictures(pv_runner *r); /* of a runner with views */
pv_status pv_runner_images(pv_runner *r, const uint8_t *hwc);
pv_status pv_runner_prompt(pv_runner *r, const int32_t *ids, int n); /* 0 .. shape.tokens of them */
pv_status pv_runner_noise(pv_runner *r, const float *x);             /* f32 [horizon][action_dim] */
pv_status pv_runner_actions(pv_runner *r, float *x);                 /* as above, after the last step */

/* The pictures are there: what they alone are needed for begins, where the backend can, while the rest is prepared. The inference
 * follows, or with what stood in its way, pv_runner_abandon. */
pv_status pv_runner_begin(pv_runner *r);
pv_status pv_runner_abandon(pv_runner *r, pv_status st);

/* All of an inference, as the inputs stand: pv_runner_prefix, pv_runner_denoise and pv_runner_actions, in one run and one
 * wait where the tables have room for all steps. */
pv_status pv_runner_infer(pv_runner *r, const float *t, const float *dt, int steps, float *actions, pv_run_timing *timing);

/* Vision and prefix, as the inputs stand. */
pv_status pv_runner_prefix(pv_runner *r, pv_run_timing *timing);

/* The tables for n steps (at most those of the plan); what they hold already is not computed again. */
pv_status pv_runner_tables(pv_runner *r, const float *t, const float *dt, int n, pv_run_timing *timing);

/* Steps k = 0 .. steps - 1 at times t[k] with widths dt[k]; the tables are refilled only where they differ.
 * on_step, if given, is called before the first step and after each: (user, steps done). */
pv_status pv_runner_denoise(pv_runner *r, const float *t, const float *dt, int steps, pv_run_timing *timing,
                            pv_status (*on_step)(void *user, int done), void *user);

#endif
