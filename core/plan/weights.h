/* weights.h - a checkpoint's tensors on a backend, shared by every plan of the same recipe. */
#ifndef PV_PLAN_WEIGHTS_H
#define PV_PLAN_WEIGHTS_H

#include "backend.h"

/* Where weights come from: a file, or a hash. Elements [first, first + n) of tensor `name` as stored, into dst.
 * Called from several threads at once. */
typedef struct pv_weight_source {
    const void *user;
    pv_status (*read)(const void *user, const char *name, int64_t first, int64_t n, void *dst);
    pv_dtype (*stored_dtype)(const void *user, const char *name);
    uint64_t (*position)(const void *user, const char *name); /* weights are read in this order */
} pv_weight_source;

typedef struct pv_weights pv_weights;

pv_status pv_weights_create(pv_backend *be, const pv_weight_source *source, pv_weights **out);
void pv_weights_destroy(pv_weights **w);

/* Brings in what the graph's nodes read and is not there yet, converted to the tensors' dtypes; in chunks of at most
 * 16 Mi elements: never a whole model twice, nor a whole tensor. On failure what was there before is still there. */
pv_status pv_weights_load(pv_weights *w, const pv_graph *g, pv_progress_fn progress, void *user);

pv_buffer *pv_weights_buffer(const pv_weights *w, const pv_tensor *t); /* NULL: not loaded */
uint64_t pv_weights_bytes(const pv_weights *w);

#endif
