/* kernels.c - nodes as dispatches: one table says which shader does an op, and one function an operand layout
 * fills in what it is told. What the numbers mean stands at the head of each shader. The linears are in
 * linear.c, the whole attention in attention.c. */
#include "vk.h"

#include <string.h>

#define THREADS     64
#define ROW_WIDE    1024 /* so long a row gets more threads: */
#define ROW_THREADS 256
#define MOST_HELD   4 /* pairs of a row that a thread has registers for */
#define TILE        32
#define MOST_GRID   65535 /* groups in a dimension that every device takes */


static uint32_t elements(const pv_tensor *t)
{
    return (uint32_t)pv_elements(t);
}

void vk_call_begin(vk_call *c, int shader, uint32_t op)
{
    *c = (vk_call){.shader = shader, .constant = {op, [8] = THREADS}};
}

void vk_bind(vk_call *c, int i, const pv_tensor *t)
{
    c->bind[i] = t;
    if (i <= VK_IN2)
        c->constant[1 + i] = (uint32_t)t->dtype;
    if (i == VK_OUT)
        c->constant[4] = (uint32_t)t->dtype;
    if (i <= VK_IN1 && t->rows) {
        c->bind[VK_ROWS0 + i] = t->rows;
        c->constant[5] |= 1u << i;
    }
}

static void bind_all(const pv_node *n, vk_call *c)
{
    for (int i = 0; i < n->n_in; i++) {
        vk_bind(c, i, n->in[i]);
        c->constant[6] |= 1u << i;
    }
    vk_bind(c, VK_OUT, n->out[0]);
}

/* So many groups; in two dimensions where one does not hold them. */
static void groups(vk_call *c, int64_t n)
{
    int64_t y = (n + MOST_GRID - 1) / MOST_GRID;
    c->grid[0] = (uint32_t)((n + y - 1) / (y ? y : 1));
    c->grid[1] = (uint32_t)y;
    c->grid[2] = 1;
}

static void a_thread_for_two(vk_call *c, const pv_tensor *t)
{
    c->push.total = elements(t);
    groups(c, (pv_elements(t) + 2 * THREADS - 1) / (2 * THREADS));
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
    if (pv_width(n->in[0]) >= ROW_WIDE)
        c->constant[8] = ROW_THREADS;
    groups(c, c->push.rows_in_all);
}

static void norm(const pv_node *n, vk_call *c)
{
    row_by_row(n, c);
    c->push.number = n->attr.norm.eps;
    c->push.n1 = n->n_in > 1 ? elements(n->in[1]) : 0;
    uint32_t held = (c->push.width + 2 * c->constant[8] - 1) / (2 * c->constant[8]);
    c->constant[9] = held <= MOST_HELD ? held : 0;
}

/* ---- a thread for two elements ---- */

static void each(const pv_node *n, vk_call *c)
{
    bind_all(n, c);
    rows_of(c, n->in[0]);
    a_thread_for_two(c, n->out[0]);
    c->push.width = (uint32_t)pv_width(n->out[0]);
    c->push.n1 = n->n_in > 1 ? elements(n->in[1]) : 0;
    c->push.n2 = n->n_in > 2 ? elements(n->in[2]) : 0;
}

static void scale(const pv_node *n, vk_call *c)
{
    each(n, c);
    c->push.number = n->attr.scale.factor;
}

/* ---- several dispatches ---- */

static void turn_into(const pv_tensor *x, const pv_tensor *table, const pv_tensor *positions, int heads,
                      int64_t first, const pv_tensor *to, vk_call *c)
{
    vk_call_begin(c, VK_ROPE, 0);
    vk_bind(c, VK_IN0, x);
    vk_bind(c, VK_IN1, table);
    vk_bind(c, VK_IN2, positions);
    vk_bind(c, VK_OUT, to);
    rows_of(c, x);
    a_thread_for_two(c, x);
    c->push.n1 = elements(table);
    c->push.k = (uint32_t)(pv_width(x) / heads);
    c->push.first = (uint32_t)(first * pv_width(x));
}

static void store_into(const pv_tensor *x, int64_t first, const pv_tensor *to,
                       vk_call *c) /* what was there is not read */
{
    vk_call_begin(c, VK_LAYOUT, 4);
    vk_bind(c, VK_IN0, x);
    vk_bind(c, VK_OUT, to);
    rows_of(c, x);
    a_thread_for_two(c, x);
    c->push.first = (uint32_t)(first * pv_width(x));
}

/* A table in bf16 would round products, which the shader does not. */
static bool turns_by_f32(const vk_device *d, const pv_node *n)
{
    (void)d;
    return n->in[n->op == PV_OP_ROPE_CACHE ? 3 : 1]->dtype == PV_F32;
}

static int rope_store(const vk_device *d, const pv_node *n, vk_call *c)
{
    const pv_rope_store_attr *a = &n->attr.rope_store;
    (void)d;
    turn_into(n->in[0], n->in[1], n->in[2], a->heads, a->first, n->out[0], &c[0]);
    return 1;
}

static int rope_cache(const vk_device *d, const pv_node *n, vk_call *c)
{
    const pv_rope_cache_attr *a = &n->attr.rope_cache;
    (void)d;
    turn_into(n->in[0], n->in[3], n->in[4], a->heads, 0, n->out[0], &c[0]);
    turn_into(n->in[1], n->in[3], n->in[4], a->kv_heads, a->first, n->out[1], &c[1]);
    store_into(n->in[2], a->first, n->out[2], &c[2]);
    return 3;
}

/* All three in one dispatch, where all have one 16-bit dtype. */
static int rope_cache_once(const vk_device *d, const pv_node *n, vk_call *c)
{
    const pv_rope_cache_attr *a = &n->attr.rope_cache;
    const pv_tensor *q = n->in[0], *k = n->in[1], *v = n->in[2];
    int64_t head = pv_width(q) / a->heads;
    (void)d;
    bool one = q->dtype != PV_F32 && q->dtype == k->dtype && q->dtype == v->dtype;
    for (int i = 0; i < 3; i++)
        one = one && n->out[i]->dtype == q->dtype;
    if (!one || head % 8 || pv_width(k) != pv_width(v) || pv_width(k) / a->kv_heads != head)
        return 0;
    vk_call_begin(c, VK_ROPE_CACHE, 0);
    vk_bind(c, VK_IN0, q);
    c->bind[VK_IN1] = k;
    c->bind[VK_IN2] = v;
    c->bind[VK_ROWS1] = n->out[1];
    vk_bind(c, VK_OUT, n->out[0]);
    vk_bind(c, VK_IN3, n->out[2]);
    vk_bind(c, VK_IN4, n->in[3]);
    c->bind[VK_PART] = n->in[4];
    c->push.m = (uint32_t)(pv_elements(q) / pv_width(q));
    c->push.n = (uint32_t)pv_width(q);
    c->push.ldc = (uint32_t)pv_width(k);
    c->push.k = (uint32_t)head;
    c->push.first = (uint32_t)a->first;
    c->push.n1 = elements(n->in[3]);
    int64_t most = pv_elements(q) > pv_elements(k) ? pv_elements(q) : pv_elements(k);
    c->grid[0] = (uint32_t)((most / 8 + THREADS - 1) / THREADS);
    c->grid[1] = 3;
    c->grid[2] = 1;
    return 1;
}

static int rope(const vk_device *d, const pv_node *n, vk_call *c)
{
    (void)d;
    turn_into(n->in[0], n->in[1], n->in[2], n->attr.rope.heads, 0, n->out[0], &c[0]);
    return 1;
}

static int store(const vk_device *d, const pv_node *n, vk_call *c)
{
    (void)d;
    store_into(n->in[1], n->attr.range.first, n->out[0], &c[0]);
    return 1;
}

/* ---- layout ---- */

static void slice(const pv_node *n, vk_call *c)
{
    each(n, c);
    c->push.first = (uint32_t)n->attr.range.first;
    c->push.from = (uint32_t)pv_width(n->in[0]);
}

static void concat(const pv_node *n, vk_call *c) /* the rows are told by the inputs' own counts */
{
    vk_bind(c, VK_IN0, n->in[0]);
    vk_bind(c, VK_IN1, n->in[1]);
    vk_bind(c, VK_OUT, n->out[0]);
    rows_of(c, n->in[0]);
    a_thread_for_two(c, n->out[0]);
    c->push.n1 = elements(n->in[0]);
    c->push.rows_in_all = (uint32_t)pv_row_count(n->in[1]);
}

static void pick_row(const pv_node *n, vk_call *c)
{
    bind_all(n, c);
    a_thread_for_two(c, n->out[0]);
    c->push.width = (uint32_t)pv_width(n->in[0]);
    c->push.n1 = elements(n->in[0]);
}

static void patchify(const pv_node *n, vk_call *c)
{
    const pv_tensor *x = n->in[0];
    bind_all(n, c);
    a_thread_for_two(c, n->out[0]);
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
    {"linear.matrices", PV_OP_LINEAR, .calls = vk_linear_matrices},
    {"linear", PV_OP_LINEAR, .calls = vk_linear},
    {"linear_group.matrices", PV_OP_LINEAR_GROUP, .calls = vk_linear_matrices},
    {"linear_group", PV_OP_LINEAR_GROUP, .calls = vk_linear},
    {"linear_add.matrices", PV_OP_LINEAR_ADD, .calls = vk_linear_matrices},
    {"linear_add", PV_OP_LINEAR_ADD, .calls = vk_linear},
    {"linear_gelu.matrices", PV_OP_LINEAR_GELU, .calls = vk_linear_matrices},
    {"linear_gelu", PV_OP_LINEAR_GELU, .calls = vk_linear},
    {"linear_geglu.matrices", PV_OP_LINEAR_GEGLU, .calls = vk_linear_matrices},
    {"linear_geglu", PV_OP_LINEAR_GEGLU, .calls = vk_linear},
    {"linear_gated.matrices", PV_OP_LINEAR_GATED, .calls = vk_linear_matrices},
    {"linear_gated", PV_OP_LINEAR_GATED, .calls = vk_linear},
    {"linear_rope_cache.matrices", PV_OP_LINEAR_ROPE_CACHE, .calls = vk_linear_rope_cache, .whole = 1u << 5},
    {"linear_gated_norm.matrices", PV_OP_LINEAR_GATED_NORM, .calls = vk_linear_norm},
    {"linear_add_norm.matrices", PV_OP_LINEAR_ADD_NORM, .calls = vk_linear_norm},
    {"attention.matrices", PV_OP_ATTENTION, .calls = vk_attention_matrices, .whole = 1u << 3},
    {"attention", PV_OP_ATTENTION, .calls = vk_attention, .whole = 1u << 3},
    {"attention_scores", PV_OP_ATTENTION_SCORES, scores, VK_LINEAR, 0, 1u << 2},
    {"attention_values", PV_OP_ATTENTION_VALUES, values, VK_LINEAR, 0, 1u << 2},
    {"softmax", PV_OP_SOFTMAX, row_by_row, VK_ATTENTION, 0, 1u << 1},
    {"rms_norm", PV_OP_RMS_NORM, norm, VK_NORM, 0, 0},
    {"layer_norm", PV_OP_LAYER_NORM, norm, VK_NORM, 1, 0},
    {"ada_rms_norm", PV_OP_ADA_RMS_NORM, norm, VK_NORM, 2, 0},
    {"rope", PV_OP_ROPE, .calls = rope, .accepts = turns_by_f32, .whole = 1u << 2},
    {"rope_store", PV_OP_ROPE_STORE, .calls = rope_store, .accepts = turns_by_f32, .whole = 1u << 2},
    {"rope_cache.once", PV_OP_ROPE_CACHE, .calls = rope_cache_once, .accepts = turns_by_f32, .whole = 1u << 4},
    {"rope_cache", PV_OP_ROPE_CACHE, .calls = rope_cache, .accepts = turns_by_f32, .whole = 1u << 4},
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
    {"store", PV_OP_STORE, .calls = store},
    {"patchify", PV_OP_PATCHIFY, patchify, VK_EMBED, 0, 1u << 0},
};
const vk_variant *vk_variants = variants;
int vk_n_variants = (int)(sizeof variants / sizeof *variants);

static bool is_float(const pv_tensor *t)
{
    return t->dtype == PV_F32 || t->dtype == PV_BF16 || t->dtype == PV_F16;
}

/* A binding is not larger than the device allows, nor is a dispatch. */
static bool fits(const vk_device *d, const vk_call *c)
{
    bool ok = c->part_words <= d->limits.maxStorageBufferRange / 4;
    for (int i = 0; ok && i < VK_BINDINGS; i++)
        ok = !c->bind[i] ||
             (c->bytes[i] ? c->bytes[i] : pv_tensor_bytes(c->bind[i])) <= d->limits.maxStorageBufferRange;
    return ok && c->grid[0] <= MOST_GRID && c->grid[1] <= MOST_GRID && c->grid[2] <= MOST_GRID;
}

/* The dispatches of a node by `k`; 0: it cannot. */
static int calls_of(const vk_device *d, const vk_variant *k, const pv_node *n, vk_call *out)
{
    bool ok = k->op == n->op;
    for (int i = 0; ok && i < n->n_in; i++) /* elements are counted in 32 bits */
        ok = is_float(n->in[i]) == !(k->whole >> i & 1) && pv_elements(n->in[i]) <= INT32_MAX;
    for (int i = 0; ok && i < n->n_out; i++)
        ok = is_float(n->out[i]) && pv_elements(n->out[i]) <= INT32_MAX;
    if (!ok || (k->accepts && !k->accepts(d, n)))
        return 0;
    int calls = 1;
    if (k->calls) {
        calls = k->calls(d, n, out);
    } else {
        vk_call_begin(out, k->shader, k->shader_op);
        k->fill(n, out);
        if (out->constant[8] > d->limits.maxComputeWorkGroupInvocations) {
            out->constant[8] = THREADS;
            out->constant[9] = 0; /* norms: too few threads to hold a row */
        }
    }
    for (int i = 0; ok && i < calls; i++)
        ok = fits(d, &out[i]);
    return ok ? calls : 0;
}

int vk_calls_make(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    int calls = 0;
    for (int i = 0; !calls && i < d->n_variants; i++)
        if (!d->variants[i].off)
            calls = calls_of(d, &vk_variants[i], n, out);
    return calls;
}

void vk_foresee(pv_backend *be, const pv_node *n)
{
    vk_device *d = (vk_device *)be;
    vk_call c[VK_CALLS];
    int calls = vk_calls_make(d, n, c);
    for (int i = 0; i < calls; i++)
        vk_pipeline_ask(d, c[i].shader, c[i].constant);
}

bool vk_claims(const pv_backend *be, const pv_node *n)
{
    vk_call c[VK_CALLS];
    return vk_calls_make((const vk_device *)be, n, c) > 0;
}
