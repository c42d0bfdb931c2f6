/* siglip.c - the vision tower: patches, a position for each, pre-norm blocks. Every token of a picture sees every other
 * of the same picture. transformers modeling_siglip.py, as openpi runs it (no pooling head, no class token). */
#include "blocks.h"

#include <math.h>

static pv_tensor *norm(pv_graph *g, const char *name, pv_tensor *x, float eps, const char *weights, const char *part)
{
    int64_t dim[] = {pv_width(x)};
    return pv_layer_norm(g, name, x, pv_weight(g, 1, dim, "%s.%s.weight", weights, part),
                         pv_weight(g, 1, dim, "%s.%s.bias", weights, part), eps);
}

static pv_tensor *attention(pv_graph *g, const pv_siglip_config *c, pv_tensor *x, int pictures, const char *w)
{
    pv_tensor *q = pv_dense(g, "q", x, c->width, true, "%s.self_attn.q_proj", w);
    pv_tensor *k = pv_dense(g, "k", x, c->width, true, "%s.self_attn.k_proj", w);
    pv_tensor *v = pv_dense(g, "v", x, c->width, true, "%s.self_attn.v_proj", w);
    pv_attention_attr attr = {.heads = c->heads, .kv_heads = c->heads, .batch = pictures,
                              .scale = 1.0f / sqrtf((float)(c->width / c->heads))};
    pv_tensor *o = pv_attention(g, "attn", q, k, v, NULL, attr);
    return pv_dense(g, "attn_out", o, c->width, true, "%s.self_attn.out_proj", w);
}

static pv_tensor *mlp(pv_graph *g, const pv_siglip_config *c, pv_tensor *x, const char *w)
{
    pv_tensor *up = pv_dense(g, "up", x, c->mlp_dim, true, "%s.mlp.fc1", w);
    return pv_dense(g, "mlp_out", pv_gelu(g, "act", up), c->width, true, "%s.mlp.fc2", w);
}

pv_tensor *pv_siglip(pv_graph *g, const pv_siglip_config *c, float eps, pv_tensor *images, const char *weights)
{
    if (!images)
        return NULL;
    int pictures = (int)images->dim[0], tokens = (c->image / c->patch) * (c->image / c->patch);
    pv_tensor *patches = pv_patchify(g, "patches", images, c->patch);
    pv_tensor *x = pv_dense(g, "patch_embedding", patches, c->width, true, "%s.embeddings.patch_embedding", weights);
    pv_tensor *positions = pv_weight(g, 2, (int64_t[]){tokens, c->width}, "%s.embeddings.position_embedding.weight",
                                     weights);
    x = pv_add(g, "embeddings", x, positions);
    for (int i = 0; i < c->depth; i++) {
        pv_scope_push(g, "layer%d", i);
        const char *w = pv_graph_printf(g, "%s.encoder.layers.%d", weights, i);
        if (!x)
            return NULL;
        x = pv_add(g, "attn_sum", x, attention(g, c, norm(g, "attn_norm", x, eps, w, "layer_norm1"), pictures, w));
        if (!x)
            return NULL;
        x = pv_add(g, "out", x, mlp(g, c, norm(g, "mlp_norm", x, eps, w, "layer_norm2"), w));
        pv_scope_pop(g);
    }
    return x ? norm(g, "post_ln", x, eps, weights, "post_layernorm") : NULL;
}
