/* synth_weights.h - the weights of the synthetic checkpoint as files, named as openpi's or lerobot's saver
 * does. */
#ifndef PV_TOOLS_SYNTH_WEIGHTS_H
#define PV_TOOLS_SYNTH_WEIGHTS_H

#include "base/dtype.h"
#include "model/config.h"

typedef struct synth_weights_params {
    const pv_config *config;
    bool lerobot;   /* names as lerobot has them; else as openpi's exporter has them */
    pv_dtype dtype; /* PV_BF16 or PV_F32: the same values */
    int shards;     /* 1: model.safetensors; more: model-0000N-of-0000M.safetensors and an index */
    pv_progress_fn progress;
    void *user;
    bool (*stopped)(void); /* asked between chunks; NULL: never */
} synth_weights_params;

/* Bytes of data that the files will have. */
pv_status synth_weights_bytes(const synth_weights_params *p, uint64_t *bytes);

/* Writes them into `folder`; memory: a few chunks, whatever the model. Fewer shards where there are fewer
 * tensors. A failure may leave whole shards behind: the folder is the caller's to clear. */
pv_status synth_weights_write(const char *folder, const synth_weights_params *p);

#endif
