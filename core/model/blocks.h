/* blocks.h - parts of networks that models share: siglip.c, gemma.c. Names of weights are openpi's. */
#ifndef PV_MODEL_BLOCKS_H
#define PV_MODEL_BLOCKS_H

#include "config.h"
#include "graph/build.h"

/* y = x W^T (+ b) with the weights "PREFIX.weight" [width, features of x] and "PREFIX.bias" [width]. */
pv_tensor *pv_dense(pv_graph *g, const char *name, pv_tensor *x, int64_t width, bool bias, const char *prefix_fmt, ...)
    PV_PRINTF(6, 7);

/* Pictures f32 [n, 3, side, side] -> [n patches, width]. Traced: embeddings, layerI.out, post_ln. */
pv_tensor *pv_siglip(pv_graph *g, const pv_siglip_config *c, float eps, pv_tensor *images, const char *weights);

/* The K/V cache of one layer: each a state [horizon + prefix, kv_heads head]. Rows [0, horizon) hold the suffix, the
 * prefix stands behind, so every address is constant and only the count of valid keys varies. */
typedef struct pv_kv {
    pv_tensor *k, *v;
} pv_kv;

typedef struct pv_rotation {
    pv_tensor *table;     /* f32 [positions, cos | sin] */
    pv_tensor *positions; /* i32, one for each row */
} pv_rotation;

typedef struct pv_span {
    int64_t store;  /* cache row that gets the first of these tokens */
    int64_t first;  /* first cache row that they see */
    pv_tensor *len; /* how many they see from there */
} pv_span;

/* q, k, v, RoPE, cache, attention over the span, output projection. Traced: k, v, attn_out. */
pv_tensor *pv_gemma_attention(pv_graph *g, const pv_gemma_config *c, pv_tensor *x, pv_rotation rope, pv_kv *cache,
                              pv_span span, const char *weights);
/* down(gelu(gate) * up). Traced: mlp_out. */
pv_tensor *pv_gemma_mlp(pv_graph *g, const pv_gemma_config *c, pv_tensor *x, const char *weights);
/* RMSNorm with Gemma's weight: x / rms(x) * (1 + w). */
pv_tensor *pv_gemma_norm(pv_graph *g, const char *name, pv_tensor *x, float eps, const char *weight_fmt, ...)
    PV_PRINTF(5, 6);

#endif
