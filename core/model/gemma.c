/* gemma.c - what prefix and action expert share: grouped-query attention with RoPE on a common cache, GeGLU.
 * openpi models_pytorch/gemma_pytorch.py and its modeling_gemma.py. */
#include "blocks.h"

#include <math.h>

pv_tensor *pv_dense(pv_graph *g, const char *name, pv_tensor *x, int64_t width, bool bias, const char *prefix_fmt, ...)
{
    va_list ap;
    va_start(ap, prefix_fmt);
    const char *prefix = pv_graph_vprintf(g, prefix_fmt, ap);
    va_end(ap);
    if (!x)
        return NULL;
    pv_tensor *w = pv_weight(g, 2, (int64_t[]){width, pv_width(x)}, "%s.weight", prefix);
    return pv_linear(g, name, x, w, bias ? pv_weight(g, 1, &width, "%s.bias", prefix) : NULL);
}

pv_tensor *pv_gemma_norm(pv_graph *g, const char *name, pv_tensor *x, float eps, const char *weight_fmt, ...)
{
    va_list ap;
    va_start(ap, weight_fmt);
    const char *weight = pv_graph_vprintf(g, weight_fmt, ap);
    va_end(ap);
    if (!x)
        return NULL;
    pv_tensor *w = pv_weight(g, 1, (int64_t[]){pv_width(x)}, "%s", weight);
    if (w) {
        w->plus_one = true;
        w->dtype = PV_F32;
    }
    return pv_rms_norm(g, name, x, w, eps);
}

pv_tensor *pv_gemma_attention(pv_graph *g, const pv_gemma_config *c, pv_tensor *x, pv_rotation rope, pv_kv *cache,
                              pv_span span, const char *weights)
{
    int64_t q_width = (int64_t)c->heads * c->head_dim, kv_width = (int64_t)c->kv_heads * c->head_dim;
    pv_tensor *q = pv_dense(g, "q_proj", x, q_width, false, "%s.self_attn.q_proj", weights);
    pv_tensor *k = pv_dense(g, "k_proj", x, kv_width, false, "%s.self_attn.k_proj", weights);
    pv_tensor *v = pv_dense(g, "v", x, kv_width, false, "%s.self_attn.v_proj", weights);
    q = pv_rope(g, "q", q, rope.table, rope.positions, c->heads);
    k = pv_rope(g, "k", k, rope.table, rope.positions, c->kv_heads);
    cache->k = pv_store(g, "k_cache", cache->k, k, span.store);
    cache->v = pv_store(g, "v_cache", cache->v, v, span.store);
    pv_attention_attr attr = {.heads = c->heads, .kv_heads = c->kv_heads, .batch = 1, .first = span.first,
                              .scale = 1.0f / sqrtf((float)c->head_dim)};
    pv_tensor *o = pv_attention(g, "attn", q, cache->k, cache->v, span.len, attr);
    return pv_dense(g, "attn_out", o, c->width, false, "%s.self_attn.o_proj", weights);
}

pv_tensor *pv_gemma_mlp(pv_graph *g, const pv_gemma_config *c, pv_tensor *x, const char *weights)
{
    pv_tensor *gate = pv_dense(g, "gate", x, c->mlp_dim, false, "%s.mlp.gate_proj", weights);
    pv_tensor *up = pv_dense(g, "up", x, c->mlp_dim, false, "%s.mlp.up_proj", weights);
    return pv_dense(g, "mlp_out", pv_geglu(g, "act", gate, up), c->width, false, "%s.mlp.down_proj", weights);
}
