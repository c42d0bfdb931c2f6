/* checkpoint.h - a published checkpoint's tensors under the names the model asks for. No converter: every layout that
 * openpi's and lerobot's savers (and the transformers versions between them) have written is read as it is. */
#ifndef PV_MODEL_CHECKPOINT_H
#define PV_MODEL_CHECKPOINT_H

#include "graph/graph.h"
#include "io/safetensors.h"
#include "plan/weights.h"

typedef struct pv_checkpoint pv_checkpoint;

/* `wanted`: a graph whose weights are all that the model needs; the embedding table [vocab, width] comes on top.
 * PV_E_CHECKPOINT with names when a tensor is missing, has another shape or dtype, stands there twice, is left over, or
 * shows that this is no Pi0.5 policy (pi0, an adapter, an unknown feature). */
pv_status pv_checkpoint_open(const char *path, const pv_graph *wanted, int64_t vocab, int64_t width,
                             pv_checkpoint **out);
void pv_checkpoint_close(pv_checkpoint **c);
pv_weight_source pv_checkpoint_source(const pv_checkpoint *c);

/* What became of file tensor i, in words: "weight", "embedding table", "not read: ...". NULL behind the last. */
const char *pv_checkpoint_fate(const pv_checkpoint *c, int i, const pv_st_tensor **tensor);

/* The name the model uses for a name in a file, NULL if it does not fit into `size` bytes. */
const char *pv_checkpoint_name(const char *file_name, char *text, size_t size);

#endif
