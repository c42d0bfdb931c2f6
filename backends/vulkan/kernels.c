/* kernels.c - nodes as dispatches: one table says which shader does an op, and one function an operand layout fills in what
 * it is told. What the numbers mean stands at the head of each shader. */
#include "vk.h"

#include <string.h>

#define THREADS   64
#define TILE      32
#define MOST_GRID 65535 /* groups in a dimension that every device takes */

enum { IN0, IN1, IN2, ROWS0, ROWS1, OUT };

static uint32_t elements(const pv_tensor *t)
{
    return (uint32_t)pv_elements(t);
}

static void bind(vk_call *c, int i, const pv_tensor *t)
{
    c->bind[i] = t;
    if (i <= IN2)
        c->constant[1 + i] = (uint32_t)t->dtype;
    if (i == OUT)
        c->constant[4] = (uint32_t)t->dtype;
    if (i <= IN1 && t->rows) {
        c->bind[ROWS0 + i] = t->rows;
        c->constant[5] |= 1u << i;
    }
}

static void bind_all(const pv_node *n, vk_call *c)
{
    for (int i = 0; i < n->n_in; i++) {
        bind(c, i, n->in[i]);
        c->constant[6] |= 1u << i;
    }
    bind(c, OUT, n->out[0]);
}

/* So many groups; in two dimensions where one does not hold them. */
static void groups(vk_call *c, int64_t n)
{
    int64_t y = (n + MOST_GRID - 1) / MOST_GRID;
    c->grid[0] = (uint32_t)((n + y - 1) / (y ? y : 1));
    c->grid[1] = (uint32_t)y;
    c->grid[2] = 1;
}

static void a_thread_each(vk_call *c, const pv_tensor *t)
{
    c->push.total = elements(t);
    groups(c, (pv_elements(t) + THREADS - 1) / THREADS);
}

static void rows_of(vk_call *c, const pv_tensor *x)
{
    c->push.width = (uint32_t)pv_width(x);
    c->push.row_cap = (uint32_t)pv_row_count(x);
    c->push.rows_in_all = (uint32_t)(pv_elements(x) / pv_width(x));
}

/* ---- products ---- */

static void product_grid(vk_call *c, int64_t products)
{
    c->grid[0] = (c->push.n + TILE - 1) / TILE;
    c->grid[1] = (c->push.m + TILE - 1) / TILE;
    c->grid[2] = (uint32_t)products;
}

static void linear(const pv_node *n, vk_call *c)
{
    const pv_tensor *x = n->in[0], *w = n->in[1];
    uint32_t K = (uint32_t)w->dim[1], N = (uint32_t)w->dim[0];
    bind_all(n, c);
    c->push.m = (uint32_t)(pv_elements(x) / pv_width(x));
    c->push.n = N;
    c->push.k = c->push.lda = c->push.ldb_n = K;
    c->push.ldb_k = c->push.heads = c->push.group = 1;
    c->push.ldc = N;
    c->push.number = 1;
    product_grid(c, 1);
}

/* What scores and values share: the cache is [batch (first + keys), kv_heads head]. */
static void heads(const pv_node *n, vk_call *c, const pv_tensor *cache, int64_t keys)
{
    const pv_attention_attr *a = &n->attr.attention;
    int64_t width = pv_width(cache);
    bind_all(n, c);
    c->push.heads = (uint32_t)a->heads;
    c->push.group = (uint32_t)(a->heads / a->kv_heads);
    c->push.b_first = (uint32_t)(a->first * width);
    c->push.b_sequence = (uint32_t)((a->first + keys) * width);
    c->push.b_head = (uint32_t)(width / a->kv_heads);
}

static void scores(const pv_node *n, vk_call *c)
{
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *q = n->in[0], *k = n->in[1], *s = n->out[0];
    int64_t rows = s->dim[1], keys = s->dim[2], head = pv_width(q) / a->heads;
    heads(n, c, k, keys);
    c->constant[7] = n->n_in > 2 ? 1 : 0;
    c->push.m = (uint32_t)rows;
    c->push.n = c->push.ldc = (uint32_t)keys;
    c->push.k = c->push.a_head = (uint32_t)head;
    c->push.lda = (uint32_t)pv_width(q);
    c->push.a_sequence = (uint32_t)(rows * pv_width(q));
    c->push.ldb_n = (uint32_t)pv_width(k);
    c->push.ldb_k = 1;
    c->push.c_head = (uint32_t)(rows * keys);
    c->push.c_sequence = (uint32_t)(a->heads * rows * keys);
    c->push.number = a->scale;
    product_grid(c, (int64_t)a->batch * a->heads);
}

static void values(const pv_node *n, vk_call *c)
{
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *p = n->in[0], *v = n->in[1], *o = n->out[0];
    int64_t rows = p->dim[1], keys = p->dim[2], head = pv_width(v) / a->kv_heads;
    heads(n, c, v, keys);
    c->constant[7] = n->n_in > 2 ? 2 : 0;
    c->push.m = (uint32_t)rows;
    c->push.n = c->push.c_head = (uint32_t)head;
    c->push.k = c->push.lda = (uint32_t)keys;
    c->push.a_head = (uint32_t)(rows * keys);
    c->push.a_sequence = (uint32_t)(a->heads * rows * keys);
    c->push.ldb_n = 1;
    c->push.ldb_k = (uint32_t)pv_width(v);
    c->push.ldc = (uint32_t)pv_width(o);
    c->push.c_sequence = (uint32_t)(rows * pv_width(o));
    c->push.number = 1;
    product_grid(c, (int64_t)a->batch * a->heads);
}

/* ---- a group a row ---- */

static void row_by_row(const pv_node *n, vk_call *c)
{
    bind_all(n, c);
    rows_of(c, n->in[0]);
    groups(c, c->push.rows_in_all);
}

static void norm(const pv_node *n, vk_call *c)
{
    row_by_row(n, c);
    c->push.number = n->attr.norm.eps;
    c->push.n1 = n->n_in > 1 ? elements(n->in[1]) : 0;
}

/* ---- a thread an element ---- */

static void each(const pv_node *n, vk_call *c)
{
    bind_all(n, c);
    rows_of(c, n->in[0]);
    a_thread_each(c, n->out[0]);
    c->push.width = (uint32_t)pv_width(n->out[0]);
    c->push.n1 = n->n_in > 1 ? elements(n->in[1]) : 0;
    c->push.n2 = n->n_in > 2 ? elements(n->in[2]) : 0;
}

static void scale(const pv_node *n, vk_call *c)
{
    each(n, c);
    c->push.number = n->attr.scale.factor;
}

static void rope(const pv_node *n, vk_call *c)
{
    each(n, c);
    c->push.k = (uint32_t)(pv_width(n->in[0]) / n->attr.rope.heads);
}

static void slice(const pv_node *n, vk_call *c)
{
    each(n, c);
    c->push.first = (uint32_t)n->attr.range.first;
    c->push.from = (uint32_t)pv_width(n->in[0]);
}

static void concat(const pv_node *n, vk_call *c) /* the rows are told by the inputs' own counts */
{
    bind(c, IN0, n->in[0]);
    bind(c, IN1, n->in[1]);
    bind(c, OUT, n->out[0]);
    rows_of(c, n->in[0]);
    a_thread_each(c, n->out[0]);
    c->push.n1 = elements(n->in[0]);
    c->push.rows_in_all = (uint32_t)pv_row_count(n->in[1]);
}

static void pick_row(const pv_node *n, vk_call *c)
{
    bind_all(n, c);
    a_thread_each(c, n->out[0]);
    c->push.width = (uint32_t)pv_width(n->in[0]);
    c->push.n1 = elements(n->in[0]);
}

static void store(const pv_node *n, vk_call *c) /* the state itself is not read */
{
    const pv_tensor *x = n->in[1];
    bind(c, IN0, x);
    bind(c, OUT, n->out[0]);
    rows_of(c, x);
    a_thread_each(c, x);
    c->push.first = (uint32_t)(n->attr.range.first * pv_width(x));
}

static void patchify(const pv_node *n, vk_call *c)
{
    const pv_tensor *x = n->in[0];
    bind_all(n, c);
    a_thread_each(c, n->out[0]);
    c->push.width = (uint32_t)pv_width(n->out[0]);
    c->push.m = (uint32_t)x->dim[1];
    c->push.n = (uint32_t)x->dim[2];
    c->push.k = (uint32_t)x->dim[3];
    c->push.first = (uint32_t)n->attr.patch.size;
}

/* ---- the table ---- */

/* A row is a variant: one way to do an op. Of several for one op the first that is on and accepts the node does it, so they stand from the
 * fastest to the plainest, which accepts all. A new one is a row above those that it is to be used before, with a name of its own,
 * "OP.what"; the self-test (core/plan/selftest.h) then tries it in the cases of its op, switches it off where it is wrong, and
 * `pivot devices` tells. Nothing else has to know. */
static const vk_variant variants[] = {
    {"linear", PV_OP_LINEAR, linear, VK_LINEAR, 0, 0},
    {"attention_scores", PV_OP_ATTENTION_SCORES, scores, VK_LINEAR, 0, 1u << 2},
    {"attention_values", PV_OP_ATTENTION_VALUES, values, VK_LINEAR, 0, 1u << 2},
    {"softmax", PV_OP_SOFTMAX, row_by_row, VK_ATTENTION, 0, 1u << 1},
    {"rms_norm", PV_OP_RMS_NORM, norm, VK_NORM, 0, 0},
    {"layer_norm", PV_OP_LAYER_NORM, norm, VK_NORM, 1, 0},
    {"ada_rms_norm", PV_OP_ADA_RMS_NORM, norm, VK_NORM, 2, 0},
    {"rope", PV_OP_ROPE, rope, VK_ROPE, 0, 1u << 2},
    {"add", PV_OP_ADD, each, VK_ELEMENTWISE, 0, 0},
    {"mul", PV_OP_MUL, each, VK_ELEMENTWISE, 1, 0},
    {"scale", PV_OP_SCALE, scale, VK_ELEMENTWISE, 2, 0},
    {"gelu", PV_OP_GELU, each, VK_ELEMENTWISE, 3, 0},
    {"silu", PV_OP_SILU, each, VK_ELEMENTWISE, 4, 0},
    {"axpy", PV_OP_AXPY, each, VK_ELEMENTWISE, 5, 0},
    {"geglu", PV_OP_GEGLU, each, VK_ELEMENTWISE, 6, 0},
    {"gated_residual", PV_OP_GATED_RESIDUAL, each, VK_ELEMENTWISE, 7, 0},
    {"cast", PV_OP_CAST, each, VK_LAYOUT, 0, 0},
    {"slice", PV_OP_SLICE, slice, VK_LAYOUT, 1, 0},
    {"concat", PV_OP_CONCAT, concat, VK_LAYOUT, 2, 1u << 2},
    {"row", PV_OP_ROW, pick_row, VK_LAYOUT, 3, 1u << 1},
    {"store", PV_OP_STORE, store, VK_LAYOUT, 4, 0},
    {"patchify", PV_OP_PATCHIFY, patchify, VK_EMBED, 0, 1u << 0},
};
const vk_variant *vk_variants = variants;
int vk_n_variants = (int)(sizeof variants / sizeof *variants);

static bool is_float(const pv_tensor *t)
{
    return t->dtype == PV_F32 || t->dtype == PV_BF16 || t->dtype == PV_F16;
}

/* Elements are counted in 32 bits; a binding holds the whole tensor. */
static bool fits(const vk_device *d, const pv_tensor *t)
{
    return pv_tensor_bytes(t) <= d->limits.maxStorageBufferRange && pv_elements(t) <= INT32_MAX;
}

static bool takes(const vk_device *d, const vk_variant *v, const pv_node *n)
{
    bool ok = v->op == n->op;
    for (int i = 0; ok && i < n->n_in; i++)
        ok = is_float(n->in[i]) == !(v->whole >> i & 1) && fits(d, n->in[i]);
    for (int i = 0; ok && i < n->n_out; i++)
        ok = is_float(n->out[i]) && fits(d, n->out[i]);
    if (!ok || (v->accepts && !v->accepts(d, n)))
        return false;
    vk_call c = {.shader = v->shader, .constant = {v->shader_op}};
    v->fill(n, &c);
    return c.grid[0] <= MOST_GRID && c.grid[1] <= MOST_GRID && c.grid[2] <= MOST_GRID;
}

static const vk_variant *find(const vk_device *d, const pv_node *n)
{
    for (int i = 0; i < d->n_variants; i++)
        if (!d->variants[i].off && takes(d, &vk_variants[i], n))
            return &vk_variants[i];
    return NULL;
}

bool vk_claims(const pv_backend *be, const pv_node *n)
{
    return find((const vk_device *)be, n) != NULL;
}

void vk_call_make(const vk_device *d, const pv_node *n, vk_call *c)
{
    const vk_variant *v = find(d, n);
    *c = (vk_call){.shader = v->shader, .constant = {v->shader_op}};
    v->fill(n, c);
}
