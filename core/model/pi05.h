/* pi05.h - Pi0.5 as a graph. */
#ifndef PV_MODEL_PI05_H
#define PV_MODEL_PI05_H

#include "config.h"
#include "graph/graph.h"

/* What a plan fixes: how many pictures come, and room for how many prompt tokens. */
typedef struct pv_pi05_shape {
    int views;      /* 0 .. n_cameras; absent cameras are not fed */
    int tokens;     /* 1 .. max_tokens; how many are valid is data */
    bool rope_bf16; /* RoPE's frequencies rounded to bf16, as openpi's bf16 serving has them */
} pv_pi05_shape;

/* Inputs (written by the host before a run):
 *   images u8 [views, side, side, 3]   prompt [tokens, width]: embedding rows, as stored and not yet scaled
 *   prompt_len, prefix_len (image and prompt tokens), kv_len (prefix_len + horizon): i32 [1]
 *   prefix.position_ids i32 [views patches + tokens], step.position_ids i32 [horizon]
 *   step.time_emb f32 [steps, expert width], step.dt f32 [steps, 1]: one row for each step, see session/schedule.h
 * State: step.x_t f32 [horizon, action_dim]: the noise goes in here, the actions come out of it.
 * Output: step.x_next, the version of x_t that a step leaves. */
void pv_pi05_build(pv_graph *g, const pv_config *c, const pv_pi05_shape *shape);

/* The embedding table. It is tied to the language head, under whose name openpi's exporter keeps it. */
#define PV_EMBEDDING_NAME "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
#define PV_LM_HEAD_NAME   "paligemma_with_expert.paligemma.lm_head.weight"

#endif
