/* build.c - the typed builders. Optional inputs come last, so a missing one is a shorter list. */
#include "build.h"

/* Optional inputs that are NULL fall away; a required one is NULL only once the graph has failed. */
static pv_tensor *add(pv_graph *g, const char *name, pv_op op, const pv_attr *attr, int n, pv_tensor *const *in)
{
    while (n > pv_ops[op].min_in && !in[n - 1])
        n--;
    pv_node *node = pv_node_add(g, name, op, n, in, attr);
    return node ? node->out[0] : NULL;
}

#define IN(...) (int)(sizeof((pv_tensor *[]){__VA_ARGS__}) / sizeof(pv_tensor *)), (pv_tensor *[]){__VA_ARGS__}

pv_tensor *pv_linear(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *b)
{
    return add(g, name, PV_OP_LINEAR, NULL, IN(x, w, b));
}

pv_tensor *pv_attention(pv_graph *g, const char *name, pv_tensor *q, pv_tensor *k, pv_tensor *v, pv_tensor *len,
                        pv_attention_attr attr)
{
    return add(g, name, PV_OP_ATTENTION, &(pv_attr){.attention = attr}, IN(q, k, v, len));
}

pv_tensor *pv_attention_scores(pv_graph *g, const char *name, pv_tensor *q, pv_tensor *k, pv_tensor *len,
                               pv_attention_attr attr)
{
    return add(g, name, PV_OP_ATTENTION_SCORES, &(pv_attr){.attention = attr}, IN(q, k, len));
}

pv_tensor *pv_softmax(pv_graph *g, const char *name, pv_tensor *scores, pv_tensor *len)
{
    return add(g, name, PV_OP_SOFTMAX, NULL, IN(scores, len));
}

pv_tensor *pv_attention_values(pv_graph *g, const char *name, pv_tensor *p, pv_tensor *v, pv_tensor *len,
                               pv_attention_attr attr)
{
    return add(g, name, PV_OP_ATTENTION_VALUES, &(pv_attr){.attention = attr}, IN(p, v, len));
}

pv_tensor *pv_rms_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, float eps)
{
    return add(g, name, PV_OP_RMS_NORM, &(pv_attr){.norm.eps = eps}, IN(x, w));
}

pv_tensor *pv_layer_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *b, float eps)
{
    return add(g, name, PV_OP_LAYER_NORM, &(pv_attr){.norm.eps = eps}, IN(x, w, b));
}

pv_tensor *pv_ada_rms_norm(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *mod, float eps)
{
    return add(g, name, PV_OP_ADA_RMS_NORM, &(pv_attr){.norm.eps = eps}, IN(x, mod));
}

pv_tensor *pv_gated_residual(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y, pv_tensor *mod)
{
    return add(g, name, PV_OP_GATED_RESIDUAL, NULL, IN(x, y, mod));
}

pv_tensor *pv_geglu(pv_graph *g, const char *name, pv_tensor *gate, pv_tensor *up)
{
    return add(g, name, PV_OP_GEGLU, NULL, IN(gate, up));
}

pv_tensor *pv_rope(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *table, pv_tensor *positions, int heads)
{
    return add(g, name, PV_OP_ROPE, &(pv_attr){.rope.heads = heads}, IN(x, table, positions));
}

pv_tensor *pv_add(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y)
{
    return add(g, name, PV_OP_ADD, NULL, IN(x, y));
}

pv_tensor *pv_mul(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y)
{
    return add(g, name, PV_OP_MUL, NULL, IN(x, y));
}

pv_tensor *pv_scale(pv_graph *g, const char *name, pv_tensor *x, float factor)
{
    return add(g, name, PV_OP_SCALE, &(pv_attr){.scale.factor = factor}, IN(x));
}

pv_tensor *pv_gelu(pv_graph *g, const char *name, pv_tensor *x)
{
    return add(g, name, PV_OP_GELU, NULL, IN(x));
}

pv_tensor *pv_silu(pv_graph *g, const char *name, pv_tensor *x)
{
    return add(g, name, PV_OP_SILU, NULL, IN(x));
}

pv_tensor *pv_axpy(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *a, pv_tensor *y)
{
    return add(g, name, PV_OP_AXPY, NULL, IN(x, a, y));
}

pv_tensor *pv_cast(pv_graph *g, const char *name, pv_tensor *x, pv_dtype dtype)
{
    pv_tensor *y = add(g, name, PV_OP_CAST, NULL, IN(x));
    if (y)
        y->dtype = dtype;
    return y;
}

pv_tensor *pv_concat(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *y, pv_tensor *rows)
{
    return add(g, name, PV_OP_CONCAT, NULL, IN(x, y, rows));
}

pv_tensor *pv_slice(pv_graph *g, const char *name, pv_tensor *x, int64_t first, int64_t size)
{
    return add(g, name, PV_OP_SLICE, &(pv_attr){.range = {first, size}}, IN(x));
}

pv_tensor *pv_row(pv_graph *g, const char *name, pv_tensor *table, pv_tensor *index)
{
    return add(g, name, PV_OP_ROW, NULL, IN(table, index));
}

pv_tensor *pv_store(pv_graph *g, const char *name, pv_tensor *state, pv_tensor *x, int64_t first)
{
    return add(g, name, PV_OP_STORE, &(pv_attr){.range.first = first}, IN(state, x));
}

pv_tensor *pv_patchify(pv_graph *g, const char *name, pv_tensor *images, int patch)
{
    return add(g, name, PV_OP_PATCHIFY, &(pv_attr){.patch.size = patch}, IN(images));
}

pv_tensor *pv_transpose(pv_graph *g, const char *name, pv_tensor *x, int64_t first, int64_t second)
{
    return add(g, name, PV_OP_TRANSPOSE, &(pv_attr){.transpose = {first, second}}, IN(x));
}

pv_tensor *pv_scale_for(pv_graph *g, const char *name, pv_tensor *x, pv_dtype dtype)
{
    return add(g, name, PV_OP_SCALE_FOR, &(pv_attr){.scale_for.dtype = dtype}, IN(x));
}

pv_tensor *pv_quantize(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *s)
{
    return add(g, name, PV_OP_QUANTIZE, NULL, IN(x, s));
}

pv_tensor *pv_dequantize(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *s)
{
    return add(g, name, PV_OP_DEQUANTIZE, NULL, IN(x, s));
}

pv_tensor *pv_linear_scaled(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *s_x, pv_tensor *s_w)
{
    return add(g, name, PV_OP_LINEAR_SCALED, NULL, IN(x, w, s_x, s_w));
}

pv_tensor *pv_linear_blocks(pv_graph *g, const char *name, pv_tensor *x, pv_tensor *w, pv_tensor *blocks, pv_tensor *s)
{
    return add(g, name, PV_OP_LINEAR_BLOCKS, NULL, IN(x, w, blocks, s));
}

pv_tensor *pv_geglu_quantize(pv_graph *g, const char *name, pv_tensor *gate, pv_tensor *up, pv_tensor *s)
{
    return add(g, name, PV_OP_GEGLU_QUANTIZE, NULL, IN(gate, up, s));
}
