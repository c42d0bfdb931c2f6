/* infer.c - the shape of each op's outputs from its inputs, one short function an op; and what must hold of them.
 * Outputs are f32 scratch until a recipe or a placement says otherwise. */
#include "graph.h"

#include <stdio.h>
#include <string.h>

static const char *shape(char *text, size_t size, const pv_tensor *t)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < t->n_dims && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)t->dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

static pv_status misfit(pv_graph *g, const pv_node *n, const char *want, const pv_tensor *got)
{
    char text[96];
    return pv_graph_fail(g, PV_E_SHAPE, "%s '%s': expected %s, '%s' is %s", pv_ops[n->op].name, n->name, want, got->name,
                         shape(text, sizeof text, got));
}

static pv_tensor *out(pv_graph *g, pv_node *n, int n_dims, const int64_t *dim)
{
    const char *name = n->n_out ? pv_graph_printf(g, "%s:%d", n->name, n->n_out) : n->name;
    pv_tensor *t = pv_tensor_add(g, name, PV_SCRATCH, PV_F32, n_dims, dim);
    if (t)
        n->out[n->n_out++] = t;
    return t;
}

/* As the first input, with its row count. */
static pv_status same(pv_graph *g, pv_node *n)
{
    pv_tensor *t = out(g, n, n->in[0]->n_dims, n->in[0]->dim);
    if (t)
        t->rows = n->in[0]->rows;
    return g->status;
}

static pv_status with_width(pv_graph *g, pv_node *n, int64_t width)
{
    int64_t dim[PV_MAX_DIMS];
    memcpy(dim, n->in[0]->dim, sizeof dim);
    dim[n->in[0]->n_dims - 1] = width;
    pv_tensor *t = out(g, n, n->in[0]->n_dims, dim);
    if (t)
        t->rows = n->in[0]->rows;
    return g->status;
}

/* The next version of a state. */
static pv_status version(pv_graph *g, pv_node *n, pv_tensor *state)
{
    if (state->usage != PV_STATE)
        return pv_graph_fail(g, PV_E_ARG, "%s '%s': '%s' is no state", pv_ops[n->op].name, n->name, state->name);
    pv_tensor *t = out(g, n, state->n_dims, state->dim);
    if (t) {
        t->usage = PV_STATE;
        t->dtype = state->dtype;
        t->base = state;
    }
    return g->status;
}

/* Another input that is read row by row beside the first: as large, and with no fewer rows valid. */
static pv_status check_beside(pv_graph *g, const pv_node *n, int i)
{
    const pv_tensor *x = n->in[0], *y = n->in[i];
    if (pv_elements(x) != pv_elements(y) || pv_width(x) != pv_width(y))
        return misfit(g, n, "something shaped as the first input", y);
    if (y->rows && y->rows != x->rows)
        return pv_graph_fail(g, PV_E_SHAPE, "%s '%s': the rows of '%s' are counted by '%s', those of '%s' are not",
                             pv_ops[n->op].name, n->name, y->name, y->rows->name, x->name);
    return PV_OK;
}

static bool is_vector(const pv_tensor *t, int64_t width)
{
    return pv_elements(t) == width && pv_width(t) == width;
}

static bool is_count(const pv_tensor *t)
{
    return t->dtype == PV_I32 && pv_elements(t) == 1;
}

static pv_status check_linear(pv_graph *g, const pv_node *n, const pv_tensor *w, const pv_tensor *b)
{
    const pv_tensor *x = n->in[0];
    if (w->n_dims != 2)
        return misfit(g, n, "a weight [out, in]", w);
    if (w->dim[1] != pv_width(x))
        return pv_graph_fail(g, PV_E_SHAPE, "linear '%s': weight '%s' takes %lld features, input '%s' has %lld", n->name,
                             w->name, (long long)w->dim[1], x->name, (long long)pv_width(x));
    if (x->rows && x->n_dims > 2)
        return misfit(g, n, "one matrix, where rows are counted", x);
    return b && !is_vector(b, w->dim[0]) ? misfit(g, n, "one bias for each output", b) : PV_OK;
}

pv_status infer_linear(pv_graph *g, pv_node *n)
{
    pv_status st = check_linear(g, n, n->in[1], n->n_in > 2 ? n->in[2] : NULL);
    return st ? st : with_width(g, n, n->in[1]->dim[0]);
}

pv_status infer_linear_gelu(pv_graph *g, pv_node *n)
{
    return infer_linear(g, n);
}

pv_status infer_linear_group(pv_graph *g, pv_node *n)
{
    int k = n->attr.group.n;
    if (k < 2 || k > PV_MAX_OUT || (n->n_in != 1 + k && n->n_in != 1 + 2 * k))
        return pv_graph_fail(g, PV_E_ARG, "linear_group '%s': %d inputs do not make %d linears", n->name, n->n_in, k);
    for (int i = 0; i < k; i++) {
        pv_status st = check_linear(g, n, n->in[1 + i], n->n_in > 1 + k ? n->in[1 + k + i] : NULL);
        if (!st)
            st = with_width(g, n, n->in[1 + i]->dim[0]);
        if (st)
            return st;
    }
    return g->status;
}

pv_status infer_linear_geglu(pv_graph *g, pv_node *n)
{
    pv_dtype between = n->attr.linear_geglu.between;
    if (between != PV_F32 && between != PV_BF16 && between != PV_F16)
        return pv_graph_fail(g, PV_E_ARG, "linear_geglu '%s': gate and up as %s, expected f32, bf16 or f16", n->name,
                             pv_dtype_name(between));
    for (int i = 1; i < 3; i++) {
        pv_status st = check_linear(g, n, n->in[i], NULL);
        if (st)
            return st;
    }
    if (n->in[1]->dim[0] != n->in[2]->dim[0])
        return misfit(g, n, "as many outputs as the first weight has", n->in[2]);
    return with_width(g, n, n->in[1]->dim[0]);
}

static pv_status infer_linear_onto(pv_graph *g, pv_node *n, const pv_tensor *b)
{
    const pv_tensor *residual = n->in[2];
    pv_status st = check_linear(g, n, n->in[1], b);
    if (st)
        return st;
    if (pv_width(residual) != n->in[1]->dim[0] || pv_elements(residual) / pv_width(residual) !=
                                                      pv_elements(n->in[0]) / pv_width(n->in[0]))
        return misfit(g, n, "a residual as wide as the product", residual);
    if (n->in[0]->rows && n->in[0]->rows != residual->rows)
        return misfit(g, n, "a residual whose rows are counted as the input's", residual);
    if (!with_width(g, n, n->in[1]->dim[0]))
        n->out[0]->rows = residual->rows;
    return g->status;
}

pv_status infer_linear_add(pv_graph *g, pv_node *n)
{
    return infer_linear_onto(g, n, n->n_in > 3 ? n->in[3] : NULL);
}

pv_status infer_linear_add_norm(pv_graph *g, pv_node *n)
{
    const int norm = n->n_in - 1 - n->attr.linear_add_norm.layer; /* its weight */
    if (norm != 3 && norm != 4)
        return pv_graph_fail(g, PV_E_ARG, "linear_add_norm '%s': %d inputs, with or without a norm's bias", n->name, n->n_in);
    for (int i = norm; i < n->n_in; i++)
        if (!is_vector(n->in[i], n->in[1]->dim[0]))
            return misfit(g, n, "a number for each column", n->in[i]);
    pv_status st = infer_linear_onto(g, n, norm > 3 ? n->in[3] : NULL);
    if (!st)
        st = with_width(g, n, n->in[1]->dim[0]);
    if (!st)
        n->out[1]->rows = n->in[2]->rows;
    return st;
}

pv_status infer_linear_gated(pv_graph *g, pv_node *n)
{
    if (!is_vector(n->in[3], 3 * n->in[1]->dim[0]))
        return misfit(g, n, "scale, shift and gate in one row", n->in[3]);
    return infer_linear_onto(g, n, n->n_in > 4 ? n->in[4] : NULL);
}

pv_status infer_linear_gated_norm(pv_graph *g, pv_node *n)
{
    for (int i = 3; i < 5; i++)
        if (!is_vector(n->in[i], 3 * n->in[1]->dim[0]))
            return misfit(g, n, "scale, shift and gate in one row", n->in[i]);
    pv_status st = infer_linear_onto(g, n, NULL);
    if (!st)
        st = with_width(g, n, n->in[1]->dim[0]);
    if (!st)
        n->out[1]->rows = n->in[2]->rows;
    return st;
}

/* q [batch * rows, heads * head], k and v [batch * keys, kv_heads * head]; v as k. */
static pv_status check_attention(pv_graph *g, const pv_node *n, const pv_tensor *q, const pv_tensor *k,
                                 const pv_tensor *len)
{
    const pv_attention_attr *a = &n->attr.attention;
    if (a->heads < 1 || a->kv_heads < 1 || a->batch < 1 || a->heads % a->kv_heads)
        return pv_graph_fail(g, PV_E_ARG, "%s '%s': %d heads, %d kv heads, batch %d", pv_ops[n->op].name, n->name,
                             a->heads, a->kv_heads, a->batch);
    if (k->n_dims != 2 || k->dim[0] % a->batch || k->dim[1] % a->kv_heads)
        return misfit(g, n, "[batch keys, kv heads x head]", k);
    if (q && (q->n_dims != 2 || q->dim[0] % a->batch || q->dim[1] != k->dim[1] / a->kv_heads * a->heads))
        return misfit(g, n, "[batch rows, heads x head]", q);
    if (a->batch > 1 && q && q->rows)
        return misfit(g, n, "all rows valid in a batch", q);
    if (k->rows && (a->batch > 1 || !len))
        return misfit(g, n, "keys that are counted by the length, in one sequence", k);
    if (a->first < 0 || a->first >= k->dim[0] / a->batch)
        return pv_graph_fail(g, PV_E_ARG, "%s '%s': first key %lld of %lld", pv_ops[n->op].name, n->name,
                             (long long)a->first, (long long)(k->dim[0] / a->batch));
    return len && !is_count(len) ? misfit(g, n, "a count i32[1]", len) : PV_OK;
}

pv_status infer_attention_scores(pv_graph *g, pv_node *n)
{
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *q = n->in[0], *k = n->in[1];
    pv_status st = check_attention(g, n, q, k, n->n_in > 2 ? n->in[2] : NULL);
    if (st)
        return st;
    pv_tensor *t = out(g, n, 3, (int64_t[]){(int64_t)a->batch * a->heads, q->dim[0] / a->batch,
                                            k->dim[0] / a->batch - a->first});
    if (t)
        t->rows = q->rows;
    return g->status;
}

pv_status infer_softmax(pv_graph *g, pv_node *n)
{
    if (n->n_in > 1 && !is_count(n->in[1]))
        return misfit(g, n, "a count i32[1]", n->in[1]);
    return same(g, n);
}

pv_status infer_attention_values(pv_graph *g, pv_node *n)
{
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *p = n->in[0], *v = n->in[1];
    pv_status st = check_attention(g, n, NULL, v, n->n_in > 2 ? n->in[2] : NULL);
    if (st)
        return st;
    if (p->n_dims != 3 || p->dim[0] != (int64_t)a->batch * a->heads || p->dim[2] != v->dim[0] / a->batch - a->first ||
        (a->batch > 1 && p->rows))
        return misfit(g, n, "probabilities [batch heads, rows, keys]", p);
    pv_tensor *t = out(g, n, 2, (int64_t[]){p->dim[1] * a->batch, v->dim[1] / a->kv_heads * a->heads});
    if (t)
        t->rows = p->rows;
    return g->status;
}

pv_status infer_attention(pv_graph *g, pv_node *n)
{
    pv_status st = check_attention(g, n, n->in[0], n->in[1], n->n_in > 3 ? n->in[3] : NULL);
    if (!st && (n->in[2]->n_dims != 2 || memcmp(n->in[1]->dim, n->in[2]->dim, 2 * sizeof(int64_t))))
        st = misfit(g, n, "v shaped as k", n->in[2]);
    return st ? st : same(g, n);
}

pv_status infer_rms_norm(pv_graph *g, pv_node *n)
{
    if (n->n_in > 1 && !is_vector(n->in[1], pv_width(n->in[0])))
        return misfit(g, n, "one weight for each feature", n->in[1]);
    return same(g, n);
}

pv_status infer_layer_norm(pv_graph *g, pv_node *n)
{
    for (int i = 1; i < 3; i++)
        if (!is_vector(n->in[i], pv_width(n->in[0])))
            return misfit(g, n, "one number for each feature", n->in[i]);
    return same(g, n);
}

pv_status infer_ada_rms_norm(pv_graph *g, pv_node *n)
{
    if (!is_vector(n->in[1], 3 * pv_width(n->in[0])))
        return misfit(g, n, "scale, shift and gate in one row", n->in[1]);
    return same(g, n);
}

pv_status infer_gated_residual(pv_graph *g, pv_node *n)
{
    if (!is_vector(n->in[2], 3 * pv_width(n->in[0])))
        return misfit(g, n, "scale, shift and gate in one row", n->in[2]);
    pv_status st = check_beside(g, n, 1);
    return st ? st : same(g, n);
}

pv_status infer_gated_norm(pv_graph *g, pv_node *n)
{
    pv_status st = infer_gated_residual(g, n);
    if (!st && !is_vector(n->in[3], 3 * pv_width(n->in[0])))
        return misfit(g, n, "scale, shift and gate in one row", n->in[3]);
    return st ? st : same(g, n);
}

/* Heads side by side, `width` in all, in each row of x. */
static pv_status check_heads(pv_graph *g, const pv_node *n, const pv_tensor *x, int64_t width, int table_at, int heads)
{
    const pv_tensor *table = n->in[table_at], *pos = n->in[table_at + 1];
    if (heads < 1 || x->n_dims != 2 || width % (2 * (int64_t)heads))
        return misfit(g, n, "heads of even size side by side", x);
    if (table->n_dims != 2 || table->dim[1] != width / heads ||
        (table->dtype != PV_F32 && table->dtype != PV_BF16))
        return misfit(g, n, "a table f32 or bf16 [positions, cos | sin] as wide as a head", table);
    if (pos->dtype != PV_I32 || pv_elements(pos) != x->dim[0])
        return misfit(g, n, "one i32 position for each row", pos);
    return PV_OK;
}

static pv_status check_rope(pv_graph *g, const pv_node *n, const pv_tensor *x, int table_at, int heads)
{
    return check_heads(g, n, x, pv_width(x), table_at, heads);
}

pv_status infer_rope(pv_graph *g, pv_node *n)
{
    pv_status st = check_rope(g, n, n->in[0], 1, n->attr.rope.heads);
    return st ? st : same(g, n);
}

static pv_status check_rows(pv_graph *g, const pv_node *n, const pv_tensor *state, const pv_tensor *x, int64_t width,
                            int64_t first)
{
    if (state->n_dims != 2 || x->n_dims != 2 || state->dim[1] != width || first < 0 || first > state->dim[0] - x->dim[0])
        return misfit(g, n, "rows that fit the state", x);
    return PV_OK;
}

static pv_status check_store(pv_graph *g, const pv_node *n, const pv_tensor *state, const pv_tensor *x, int64_t first)
{
    return check_rows(g, n, state, x, pv_width(x), first);
}

pv_status infer_rope_store(pv_graph *g, pv_node *n)
{
    pv_status st = check_rope(g, n, n->in[0], 1, n->attr.rope_store.heads);
    if (!st)
        st = check_store(g, n, n->in[3], n->in[0], n->attr.rope_store.first);
    return st ? st : version(g, n, n->in[3]);
}

pv_status infer_rope_cache(pv_graph *g, pv_node *n)
{
    const pv_rope_cache_attr *a = &n->attr.rope_cache;
    pv_status st = check_rope(g, n, n->in[0], 3, a->heads);
    if (!st)
        st = check_rope(g, n, n->in[1], 3, a->kv_heads);
    for (int i = 1; !st && i < 3; i++) {
        st = n->in[i]->rows == n->in[0]->rows && n->in[i]->dim[0] == n->in[0]->dim[0]
                 ? check_store(g, n, n->in[4 + i], n->in[i], a->first)
                 : misfit(g, n, "as many rows as q has", n->in[i]);
    }
    if (!st)
        st = same(g, n);
    for (int i = 1; !st && i < 3; i++)
        st = version(g, n, n->in[4 + i]);
    return st;
}

pv_status infer_linear_rope_cache(pv_graph *g, pv_node *n)
{
    const pv_rope_cache_attr *a = &n->attr.linear_rope_cache.rope_cache;
    pv_dtype between = n->attr.linear_rope_cache.between;
    pv_status st = PV_OK;
    if (between != PV_F32 && between != PV_BF16 && between != PV_F16)
        st = pv_graph_fail(g, PV_E_ARG, "linear_rope_cache '%s': q, k and v as %s, expected f32, bf16 or f16", n->name,
                           pv_dtype_name(between));
    for (int i = 1; !st && i < 4; i++) {
        st = check_linear(g, n, n->in[i], NULL);
        if (!st)
            st = check_heads(g, n, n->in[0], n->in[i]->dim[0], 4, i == 1 ? a->heads : a->kv_heads);
        if (!st && i > 1)
            st = check_rows(g, n, n->in[4 + i], n->in[0], n->in[i]->dim[0], a->first);
    }
    if (!st)
        st = with_width(g, n, n->in[1]->dim[0]);
    for (int i = 6; !st && i < 8; i++)
        st = version(g, n, n->in[i]);
    return st;
}

pv_status infer_store(pv_graph *g, pv_node *n)
{
    pv_status st = check_store(g, n, n->in[0], n->in[1], n->attr.range.first);
    return st ? st : version(g, n, n->in[0]);
}

/* Sizes of the weights follow from x (width), w_q (head) and w_gate (how wide the layer is inside). */
pv_status infer_expert_block(pv_graph *g, pv_node *n)
{
    const pv_expert_attr *a = &n->attr.expert;
    pv_tensor *const *in = n->in;
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads)
        return pv_graph_fail(g, PV_E_ARG, "expert_block '%s': %d heads, %d kv heads", n->name, a->heads, a->kv_heads);
    if (in[0]->n_dims != 2 || in[0]->rows)
        return misfit(g, n, "one matrix, all rows valid", in[0]);
    if (in[3]->n_dims != 2 || in[3]->dim[0] % (2 * (int64_t)a->heads))
        return misfit(g, n, "a weight [heads x head, width], heads of even size", in[3]);
    int64_t rows = in[0]->dim[0], width = in[0]->dim[1], q = in[3]->dim[0], head = q / a->heads, kv = head * a->kv_heads;
    int64_t inner = pv_row_count(in[7]), keys = pv_row_count(in[12]);
    const struct {
        int at;
        int64_t rows, width;
        const char *want;
    } matrices[] = {{3, q, width, "a weight [heads x head, width]"},
                    {4, kv, width, "a weight [kv heads x head, width]"},
                    {5, kv, width, "a weight [kv heads x head, width]"},
                    {6, width, q, "a weight [width, heads x head]"},
                    {7, inner, width, "a weight [inner width, width]"},
                    {8, inner, width, "a weight shaped as that of the gate"},
                    {9, width, inner, "a weight [width, inner width]"},
                    {10, pv_row_count(in[10]), head, "a table f32 [positions, cos | sin] as wide as a head"},
                    {12, keys, kv, "a cache [keys, kv heads x head]"},
                    {13, keys, kv, "v shaped as k"}};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        const pv_tensor *t = in[matrices[i].at];
        if (t->n_dims != 2 || t->dim[0] != matrices[i].rows || t->dim[1] != matrices[i].width)
            return misfit(g, n, matrices[i].want, t);
    }
    for (int i = 1; i < 3; i++)
        if (!is_vector(in[i], 3 * width))
            return misfit(g, n, "scale, shift and gate in one row", in[i]);
    if (in[10]->dtype != PV_F32)
        return misfit(g, n, "a table f32 [positions, cos | sin] as wide as a head", in[10]);
    if (in[11]->dtype != PV_I32 || pv_elements(in[11]) != rows)
        return misfit(g, n, "one i32 position for each row", in[11]);
    if (a->store < 0 || a->store > keys - rows)
        return misfit(g, n, "rows that fit the state", in[0]);
    if (a->first < 0 || a->first >= keys)
        return pv_graph_fail(g, PV_E_ARG, "expert_block '%s': first key %lld of %lld", n->name, (long long)a->first,
                             (long long)keys);
    if (!is_count(in[14]))
        return misfit(g, n, "a count i32[1]", in[14]);
    if (in[12] == in[13])
        return misfit(g, n, "two states, one for k and one for v", in[13]);
    pv_status st = same(g, n);
    if (!st)
        st = version(g, n, in[12]);
    return st ? st : version(g, n, in[13]);
}

static pv_status infer_pair(pv_graph *g, pv_node *n)
{
    const pv_tensor *x = n->in[0], *y = n->in[1];
    int64_t nx = pv_elements(x), ny = pv_elements(y);
    if (pv_width(x) != pv_width(y) || ny == 0 || nx % ny)
        return misfit(g, n, "something that repeats along the first input", y);
    if (y->rows)
        return check_beside(g, n, 1) ? g->status : same(g, n);
    return same(g, n);
}

pv_status infer_add(pv_graph *g, pv_node *n)
{
    return infer_pair(g, n);
}

pv_status infer_mul(pv_graph *g, pv_node *n)
{
    return infer_pair(g, n);
}

pv_status infer_geglu(pv_graph *g, pv_node *n)
{
    pv_status st = check_beside(g, n, 1);
    return st ? st : same(g, n);
}

pv_status infer_scale(pv_graph *g, pv_node *n)
{
    return same(g, n);
}

pv_status infer_gelu(pv_graph *g, pv_node *n)
{
    return same(g, n);
}

pv_status infer_silu(pv_graph *g, pv_node *n)
{
    return same(g, n);
}

pv_status infer_cast(pv_graph *g, pv_node *n)
{
    return same(g, n);
}

pv_status infer_axpy(pv_graph *g, pv_node *n)
{
    if (pv_elements(n->in[1]) != 1)
        return misfit(g, n, "one number", n->in[1]);
    pv_status st = check_beside(g, n, 2);
    if (st)
        return st;
    return n->in[0]->usage == PV_STATE ? version(g, n, n->in[0]) : same(g, n);
}

pv_status infer_euler_step(pv_graph *g, pv_node *n)
{
    const pv_tensor *h = n->in[0], *mod = n->in[1], *w = n->in[2];
    pv_tensor *x = n->in[4];
    pv_status st = check_linear(g, n, w, n->in[3]);
    if (st)
        return st;
    if (!is_vector(mod, 3 * pv_width(h)))
        return misfit(g, n, "scale, shift and gate in one row", mod);
    if (pv_width(x) != w->dim[0] || pv_elements(x) / pv_width(x) != pv_elements(h) / pv_width(h))
        return misfit(g, n, "a row as wide as the velocity for each row", x);
    if (h->rows && h->rows != x->rows)
        return misfit(g, n, "rows counted as the first input's", x);
    if (pv_elements(n->in[5]) != 1)
        return misfit(g, n, "one number", n->in[5]);
    if (x->usage == PV_STATE)
        return version(g, n, x);
    pv_tensor *t = out(g, n, x->n_dims, x->dim);
    if (t)
        t->rows = x->rows;
    return g->status;
}

pv_status infer_concat(pv_graph *g, pv_node *n)
{
    const pv_tensor *x = n->in[0], *y = n->in[1];
    if (x->n_dims != 2 || y->n_dims != 2 || x->dim[1] != y->dim[1])
        return misfit(g, n, "rows as wide as the first input's", y);
    if (x->rows)
        return pv_graph_fail(g, PV_E_ARG, "concat '%s': the first input must have all its rows", n->name);
    if (n->n_in > 2 && !is_count(n->in[2]))
        return misfit(g, n, "a count i32[1]", n->in[2]);
    if (y->rows && n->n_in < 3)
        return pv_graph_fail(g, PV_E_ARG, "concat '%s': the rows of '%s' are counted, so those of both must be", n->name,
                             y->name);
    pv_tensor *t = out(g, n, 2, (int64_t[]){x->dim[0] + y->dim[0], x->dim[1]});
    if (t)
        t->rows = n->n_in > 2 ? n->in[2] : NULL;
    return g->status;
}

pv_status infer_slice(pv_graph *g, pv_node *n)
{
    const pv_range_attr *r = &n->attr.range;
    if (r->first < 0 || r->size < 1 || r->first > pv_width(n->in[0]) - r->size)
        return misfit(g, n, "columns that exist", n->in[0]);
    return with_width(g, n, r->size);
}

pv_status infer_row(pv_graph *g, pv_node *n)
{
    if (!is_count(n->in[1]))
        return misfit(g, n, "an index i32[1]", n->in[1]);
    return out(g, n, 2, (int64_t[]){1, pv_width(n->in[0])}) ? PV_OK : g->status;
}

pv_status infer_transpose(pv_graph *g, pv_node *n)
{
    const pv_transpose_attr *a = &n->attr.transpose;
    const pv_tensor *x = n->in[0];
    int64_t all = pv_elements(x);
    if (a->first < 1 || a->second < 1 || all % a->first || all / a->first % a->second || x->rows)
        return misfit(g, n, "all rows valid, of as many numbers as there are of both times a rest", x);
    return out(g, n, 2, (int64_t[]){a->second, all / a->second}) ? PV_OK : g->status;
}

pv_status infer_scale_for(pv_graph *g, pv_node *n)
{
    pv_dtype dtype = n->attr.scale_for.dtype;
    if (dtype != PV_E4M3 && dtype != PV_E2M1)
        return pv_graph_fail(g, PV_E_ARG, "scale_for '%s': for %s, expected e4m3 or e2m1", n->name, pv_dtype_name(dtype));
    if (n->in[0]->rows && n->in[0]->n_dims > 2)
        return misfit(g, n, "one matrix, where rows are counted", n->in[0]);
    return out(g, n, 2, (int64_t[]){1, 1}) ? PV_OK : g->status;
}

/* A scale for each block of x. */
static pv_status check_blocks(pv_graph *g, const pv_node *n, const pv_tensor *x, const pv_tensor *s)
{
    if (x->n_dims != 2)
        return misfit(g, n, "one matrix", x);
    if (s->n_dims != 2 || s->dim[0] < 1 || s->dim[1] < 1 || x->dim[0] % s->dim[0] || x->dim[1] % s->dim[1] || s->rows || s->dtype == PV_E2M1)
        return misfit(g, n, "scales [n, k] of 8 bits or more, whose blocks divide what is scaled", s);
    return PV_OK;
}

/* Of everything at once. */
static pv_status check_scale(pv_graph *g, const pv_node *n, int i)
{
    const pv_tensor *s = n->in[i];
    bool fits = s->n_dims == 2 && pv_elements(s) == 1 && !s->rows && s->dtype != PV_E2M1;
    return fits ? PV_OK : misfit(g, n, "one scale [1, 1] of 8 bits or more", s);
}

pv_status infer_quantize(pv_graph *g, pv_node *n)
{
    pv_status st = check_blocks(g, n, n->in[0], n->in[1]);
    return st ? st : same(g, n);
}

pv_status infer_dequantize(pv_graph *g, pv_node *n)
{
    return infer_quantize(g, n);
}

pv_status infer_geglu_quantize(pv_graph *g, pv_node *n)
{
    if (n->in[0]->n_dims != 2)
        return misfit(g, n, "one matrix", n->in[0]);
    pv_status st = check_beside(g, n, 1);
    if (!st)
        st = check_scale(g, n, 2);
    return st ? st : same(g, n);
}

static pv_status infer_few(pv_graph *g, pv_node *n)
{
    if (n->in[0]->n_dims != 2)
        return misfit(g, n, "one matrix", n->in[0]);
    pv_status st = check_linear(g, n, n->in[1], NULL);
    if (!st)
        st = check_scale(g, n, 3);
    return st ? st : with_width(g, n, n->in[1]->dim[0]);
}

pv_status infer_linear_scaled(pv_graph *g, pv_node *n)
{
    pv_status st = check_scale(g, n, 2);
    return st ? st : infer_few(g, n);
}

pv_status infer_linear_blocks(pv_graph *g, pv_node *n)
{
    pv_status st = check_blocks(g, n, n->in[1], n->in[2]);
    return st ? st : infer_few(g, n);
}

pv_status infer_patchify(pv_graph *g, pv_node *n)
{
    const pv_tensor *x = n->in[0];
    int64_t p = n->attr.patch.size;
    if (x->dtype != PV_U8 || x->n_dims != 4 || p < 1 || x->dim[1] % p || x->dim[2] % p)
        return misfit(g, n, "u8 pictures [n, height, width, channels] cut by the patch", x);
    int64_t patches = x->dim[1] / p * (x->dim[2] / p);
    return out(g, n, 2, (int64_t[]){x->dim[0] * patches, x->dim[3] * p * p}) ? PV_OK : g->status;
}
