/* body.c - composites said in other ops: the definition of every fused op. No two arguments of one call make nodes: C leaves
 * their order open, and nodes stand in the order in which they are made.
 * Tensors born here are f32, whatever the recipe: they stand for a fused kernel's registers. But a whole layer is no
 * kernel's registers: where it is rounded is part of its meaning (expert_block), and so it is where an attribute says to
 * what (linear_geglu). */
#include "build.h"

/* scale, shift or gate of a modulation row [3 width]. openpi gemma.py, RMSNorm with cond: chunk(3) in this order. */
static pv_tensor *third(pv_graph *g, pv_tensor *mod, int i)
{
    int64_t width = pv_width(mod) / 3;
    return pv_slice(g, NULL, mod, i * width, width);
}

void body_attention(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *len = n->n_in > 3 ? n->in[3] : NULL;
    pv_tensor *s = pv_attention_scores(g, NULL, n->in[0], n->in[1], len, n->attr.attention);
    pv_tensor *p = pv_softmax(g, NULL, s, len);
    out[0] = pv_attention_values(g, NULL, p, n->in[2], len, n->attr.attention);
}

void body_ada_rms_norm(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *h = pv_rms_norm(g, NULL, n->in[0], NULL, n->attr.norm.eps);
    pv_tensor *scaled = pv_add(g, NULL, h, pv_mul(g, NULL, h, third(g, n->in[1], 0)));
    out[0] = pv_add(g, NULL, scaled, third(g, n->in[1], 1));
}

void body_gated_residual(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_add(g, NULL, n->in[0], pv_mul(g, NULL, n->in[1], third(g, n->in[2], 2)));
}

void body_geglu(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_mul(g, NULL, pv_gelu(g, NULL, n->in[0]), n->in[1]);
}

void body_linear_scaled(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *y = pv_dequantize(g, NULL, pv_linear(g, NULL, n->in[0], n->in[1], NULL), n->in[2]);
    out[0] = pv_dequantize(g, NULL, y, n->in[3]);
}

void body_linear_blocks(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *w = pv_dequantize(g, NULL, n->in[1], n->in[2]);
    out[0] = pv_dequantize(g, NULL, pv_linear(g, NULL, n->in[0], w, NULL), n->in[3]);
}

void body_geglu_quantize(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_quantize(g, NULL, pv_geglu(g, NULL, n->in[0], n->in[1]), n->in[2]);
}

void body_linear_group(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    int k = n->attr.group.n;
    for (int i = 0; i < k; i++)
        out[i] = pv_linear(g, NULL, n->in[0], n->in[1 + i], n->n_in > 1 + k ? n->in[1 + k + i] : NULL);
}

void body_linear_add(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *y = pv_linear(g, NULL, n->in[0], n->in[1], n->n_in > 3 ? n->in[3] : NULL);
    out[0] = pv_add(g, NULL, n->in[2], y);
}

void body_linear_geglu(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *gate = pv_linear(g, NULL, n->in[0], n->in[1], NULL), *up = pv_linear(g, NULL, n->in[0], n->in[2], NULL);
    if (gate && up)
        gate->dtype = up->dtype = n->attr.linear_geglu.between;
    out[0] = pv_geglu(g, NULL, gate, up);
}

void body_linear_gelu(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_gelu(g, NULL, pv_linear(g, NULL, n->in[0], n->in[1], n->n_in > 2 ? n->in[2] : NULL));
}

void body_linear_gated(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *y = pv_linear(g, NULL, n->in[0], n->in[1], n->n_in > 4 ? n->in[4] : NULL);
    out[0] = pv_gated_residual(g, NULL, n->in[2], y, n->in[3]);
}

void body_gated_norm(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_gated_residual(g, NULL, n->in[0], n->in[1], n->in[2]);
    out[1] = pv_ada_rms_norm(g, NULL, out[0], n->in[3], n->attr.norm.eps);
}

void body_linear_gated_norm(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    out[0] = pv_gated_residual(g, NULL, n->in[2], pv_linear(g, NULL, n->in[0], n->in[1], NULL), n->in[3]);
    out[1] = pv_ada_rms_norm(g, NULL, out[0], n->in[4], n->attr.norm.eps);
}

void body_linear_add_norm(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    const pv_linear_add_norm_attr *a = &n->attr.linear_add_norm;
    pv_tensor *const *norm = n->in + n->n_in - 1 - a->layer;
    out[0] = pv_add(g, NULL, n->in[2], pv_linear(g, NULL, n->in[0], n->in[1], norm > n->in + 3 ? n->in[3] : NULL));
    out[1] = a->layer ? pv_layer_norm(g, NULL, out[0], norm[0], norm[1], a->eps) : pv_rms_norm(g, NULL, out[0], norm[0], a->eps);
}

void body_euler_step(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *h = pv_ada_rms_norm(g, NULL, n->in[0], n->in[1], n->attr.norm.eps);
    out[0] = pv_axpy(g, NULL, n->in[4], n->in[5], pv_linear(g, NULL, h, n->in[2], n->in[3]));
}

void body_rope_store(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    const pv_rope_store_attr *a = &n->attr.rope_store;
    pv_tensor *x = pv_rope(g, NULL, n->in[0], n->in[1], n->in[2], a->heads);
    out[0] = pv_store(g, NULL, n->in[3], x, a->first);
}

static pv_tensor *as(pv_tensor *t, pv_dtype dtype)
{
    if (t)
        t->dtype = dtype;
    return t;
}

/* What the products read and attention takes has the dtype of the caches, what goes onto the residual is f32. */
void body_expert_block(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    const pv_expert_attr *a = &n->attr.expert;
    pv_tensor *const *in = n->in, *x = in[0], *mod = in[1], *mod_mlp = in[2], *table = in[10], *positions = in[11];
    pv_dtype dtype = in[12]->dtype;
    pv_attention_attr attention = {
        .heads = a->heads, .kv_heads = a->kv_heads, .batch = 1, .first = a->first, .scale = a->scale};
    pv_tensor *h = as(pv_ada_rms_norm(g, NULL, x, mod, a->eps), dtype);
    pv_tensor *q = as(pv_linear(g, NULL, h, in[3], NULL), dtype);
    pv_tensor *k = as(pv_linear(g, NULL, h, in[4], NULL), dtype);
    pv_tensor *v = as(pv_linear(g, NULL, h, in[5], NULL), dtype);
    q = as(pv_rope(g, NULL, q, table, positions, a->heads), dtype);
    k = as(pv_rope(g, NULL, k, table, positions, a->kv_heads), dtype);
    out[1] = pv_store(g, NULL, in[12], k, a->store);
    out[2] = pv_store(g, NULL, in[13], v, a->store);
    pv_tensor *o = as(pv_attention(g, NULL, q, out[1], out[2], in[14], attention), dtype);
    x = pv_gated_residual(g, NULL, x, pv_linear(g, NULL, o, in[6], NULL), mod);
    h = as(pv_ada_rms_norm(g, NULL, x, mod_mlp, a->eps), dtype);
    pv_tensor *gate = as(pv_linear(g, NULL, h, in[7], NULL), dtype);
    pv_tensor *up = as(pv_linear(g, NULL, h, in[8], NULL), dtype);
    pv_tensor *act = as(pv_geglu(g, NULL, gate, up), dtype);
    out[0] = pv_gated_residual(g, NULL, x, pv_linear(g, NULL, act, in[9], NULL), mod_mlp);
}

/* `rest`: table, positions, states of k and v. */
static void turn_and_store(pv_graph *g, pv_tensor *const qkv[3], pv_tensor *const *rest, const pv_rope_cache_attr *a,
                           pv_tensor **out)
{
    out[0] = pv_rope(g, NULL, qkv[0], rest[0], rest[1], a->heads);
    pv_tensor *k = pv_rope(g, NULL, qkv[1], rest[0], rest[1], a->kv_heads);
    out[1] = pv_store(g, NULL, rest[2], k, a->first);
    out[2] = pv_store(g, NULL, rest[3], qkv[2], a->first);
}

void body_rope_cache(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    turn_and_store(g, n->in, n->in + 3, &n->attr.rope_cache, out);
}

void body_linear_rope_cache(pv_graph *g, const pv_node *n, pv_tensor **out)
{
    pv_tensor *qkv[3];
    for (int i = 0; i < 3; i++)
        qkv[i] = as(pv_linear(g, NULL, n->in[0], n->in[1 + i], NULL), n->attr.linear_rope_cache.between);
    turn_and_store(g, qkv, n->in + 4, &n->attr.linear_rope_cache.rope_cache, out);
}
