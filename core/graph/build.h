/* build.h - one typed function an op: adds the node and returns its output.
 * `name` goes behind the scope; NULL makes a name up. After the first failure all of them return NULL quietly; an input
 * that is NULL only because of that failure adds no second one. */
#ifndef PV_GRAPH_BUILD_H
#define PV_GRAPH_BUILD_H

#include "graph.h"

pv_tensor *pv_linear(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *b); /* b may be NULL */
pv_tensor *pv_attention(pv_graph *g, const char *name, pv_tensor *q, pv_tensor *k, pv_tensor *v, pv_tensor *len, pv_attention_attr attr); /* len may be NULL */
pv_tensor *pv_attention_scores(pv_graph *g, const char *name, pv_tensor *q, pv_tensor *k, pv_tensor *len, pv_attention_attr attr);
pv_tensor *pv_softmax(pv_graph *g, const char *name, pv_tensor *scores, pv_tensor *len);
pv_tensor *pv_attention_values(pv_graph *g, const char *name, pv_tensor *p, pv_tensor *v, pv_tensor *len, pv_attention_attr attr);
pv_tensor *pv_rms_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, float eps); /* w may be NULL */
pv_tensor *pv_layer_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *b, float eps);
pv_tensor *pv_ada_rms_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *mod, float eps);
pv_tensor *pv_gated_residual(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y, pv_tensor *mod);
pv_tensor *pv_geglu(pv_graph *g, const char *name, pv_tensor *gate, pv_tensor *up);
pv_tensor *pv_rope(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *table, pv_tensor *positions, int heads);
pv_tensor *pv_add(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y);
pv_tensor *pv_mul(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y);
pv_tensor *pv_scale(pv_graph *g, const char *name, pv_tensor *x, float factor);
pv_tensor *pv_gelu(pv_graph *g, const char *name, pv_tensor *x);
pv_tensor *pv_silu(pv_graph *g, const char *name, pv_tensor *x);
pv_tensor *pv_axpy(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *a, pv_tensor *y);
pv_tensor *pv_cast(pv_graph *g, const char *name, pv_tensor *x, pv_dtype dtype);
pv_tensor *pv_concat(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y, pv_tensor *rows); /* rows may be NULL */
pv_tensor *pv_slice(pv_graph *g, const char *name, pv_tensor *x, int64_t first, int64_t size);
pv_tensor *pv_row(pv_graph *g, const char *name, pv_tensor *table, pv_tensor *index);
pv_tensor *pv_store(pv_graph *g, const char *name, pv_tensor *state, pv_tensor *x, int64_t first);
pv_tensor *pv_transpose(pv_graph *g, const char *name, pv_tensor *x, int64_t first, int64_t second);
pv_tensor *pv_scale_for(pv_graph *g, const char *name, pv_tensor *x, pv_dtype dtype);
pv_tensor *pv_quantize(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *s); /* f32 until its dtype is set */
pv_tensor *pv_dequantize(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *s);
pv_tensor *pv_linear_scaled(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *s_x, pv_tensor *s_w);
pv_tensor *pv_linear_blocks(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *blocks, pv_tensor *s);
pv_tensor *pv_geglu_quantize(pv_graph *g, const char *name, pv_tensor *gate, pv_tensor *up, pv_tensor *s);
pv_tensor *pv_patchify(pv_graph *g, const char *name, pv_tensor *images, int patch);

#endif
