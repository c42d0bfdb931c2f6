/* config.h - every number of a Pi0.5 model. Nothing else in the project knows one of them.
 * JSON keys are the names here, as in docs/config.md. */
#ifndef PV_MODEL_CONFIG_H
#define PV_MODEL_CONFIG_H

#include "io/json.h"

#define PV_CAMERA_NAME 64

typedef struct pv_siglip_config {
    int width, depth, mlp_dim, heads, image, patch; /* image: side in pixels */
} pv_siglip_config;

typedef struct pv_gemma_config {
    int width, depth, mlp_dim, heads, kv_heads, head_dim;
} pv_gemma_config;

typedef struct pv_config {
    pv_siglip_config vision;
    pv_gemma_config gemma;  /* the prefix: image and prompt tokens */
    pv_gemma_config expert; /* the suffix: action tokens. Same depth, kv_heads and head_dim as the prefix */
    int vocab, max_tokens, action_dim, horizon, num_steps;
    int n_cameras;
    char camera[PV_MAX_CAMERAS][PV_CAMERA_NAME];
    float rms_norm_eps, layer_norm_eps;
    double rope_theta, time_min_period, time_max_period;
    bool discrete_state; /* the state is told as digits in the prompt */
    bool zscore;         /* statistics: mean and standard deviation in place of quantiles */
    char own_rules[48];  /* lerobot normalises state and actions in ways that only its processors' statistics
                            can do: which */
} pv_config;

void pv_config_full(pv_config *c); /* openpi's pi05; horizon 0: no checkpoint stores it */
void pv_config_tiny(pv_config *c); /* small enough for tests: same shape of model, every number another */

/* Keys that the JSON has, over what *c holds: our own, openpi's (config.json of its exporter) and lerobot's ("type":
 * "pi05"). Wrong types or ranges: PV_E_FILE with `where` and the key. *lerobot tells which one it was; may be NULL. */
pv_status pv_config_apply(pv_config *c, const cJSON *json, const char *where, bool *lerobot);
pv_status pv_config_read(pv_config *c, const char *path, bool *lerobot);

/* Do the numbers make a model? Sizes are capped, so that no product of them wraps. */
pv_status pv_config_check(const pv_config *c, const char *where);

char *pv_config_text(const pv_config *c); /* our keys as JSON; pv_free it */

static inline int pv_image_tokens(const pv_config *c)
{
    return (c->vision.image / c->vision.patch) * (c->vision.image / c->vision.patch);
}

#endif
