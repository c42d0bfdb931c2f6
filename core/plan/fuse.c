/* fuse.c - rules across op borders: one list for all backends, each applied only where the backend claims the result.
 * Every result is an op with a body, so a rule is proved by running the graph before and after on the CPU.
 * The rule for a whole layer of the action expert stands in fuse_expert.c. */
#include "plan.h"

#include <string.h>

int pv_consumers(const pv_graph *g, const pv_tensor *t)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            n += g->nodes[i]->in[k] == t;
    return n;
}

static void drop(pv_graph *g, int at)
{
    memmove(&g->nodes[at], &g->nodes[at + 1], sizeof *g->nodes * (size_t)(g->n_nodes - at - 1));
    g->n_nodes--;
}

static int index_of(const pv_graph *g, const pv_node *n)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i] == n)
            return i;
    return -1;
}

/* The node that makes `t`, if nobody but `reader`, in the same stage, needs t. */
static pv_node *sole(const pv_graph *g, const pv_tensor *t, const pv_node *reader)
{
    pv_node *p = t->producer;
    bool alone = p && p->stage == reader->stage && p->n_out == 1 && !t->output && t->usage == PV_SCRATCH;
    return alone && pv_consumers(g, t) == 1 ? p : NULL;
}

/* `t` goes, so it must not be where a result was rounded: fused and apart give the same bytes. */
static pv_node *maker(const pv_graph *g, const pv_tensor *t, pv_op op, const pv_node *reader)
{
    pv_node *p = t->dtype == PV_F32 ? sole(g, t, reader) : NULL;
    return p && p->op == op ? p : NULL;
}

/* Would node `early`, run at `at`, read a state that is overwritten in between? */
static bool overtaken(const pv_graph *g, const pv_node *early, int at)
{
    for (int i = index_of(g, early) + 1; i < at; i++)
        for (int o = 0; o < g->nodes[i]->n_out; o++)
            for (int k = 0; k < early->n_in; k++)
                if (g->nodes[i]->out[o]->base && g->nodes[i]->out[o]->base == early->in[k])
                    return true;
    return false;
}

/* Puts `fused` in place of node `at`, whose outputs it makes, and drops `gone`. */
static bool replace(pv_graph *g, const pv_backend *be, int at, const pv_node *fused, pv_node *gone)
{
    if (overtaken(g, gone, at) || !be->vt->claims(be, fused))
        return false;
    pv_node *n = pv_arena_alloc(&g->arena, sizeof *n);
    if (!n) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while fusing");
        return false;
    }
    *n = *fused;
    for (int k = 0; k < n->n_out; k++)
        n->out[k]->producer = n;
    g->nodes[at] = n;
    drop(g, index_of(g, gone));
    return true;
}

static pv_node like(const pv_node *n, pv_op op)
{
    pv_node f = {.op = op, .name = n->name, .stage = n->stage, .n_out = n->n_out};
    memcpy(f.out, n->out, sizeof f.out);
    return f;
}

/* cast(f(x)) with f(x) used once: f rounds on store, so it makes the cast's dtype itself. */
static bool absorb_cast(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *cast = g->nodes[at];
    pv_node *p = cast->op == PV_OP_CAST && cast->in[0]->dtype == PV_F32 ? sole(g, cast->in[0], cast) : NULL;
    if (!p)
        return false;
    pv_node f = *p;
    f.out[0] = cast->out[0];
    f.name = cast->name;
    return replace(g, be, at, &f, p);
}

static bool store_rope(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *store = g->nodes[at];
    pv_node *rope = store->op == PV_OP_STORE ? sole(g, store->in[1], store) : NULL;
    if (!rope || rope->op != PV_OP_ROPE || (store->in[1]->dtype != PV_F32 && store->in[1]->dtype != store->out[0]->dtype))
        return false;
    pv_node f = like(store, PV_OP_ROPE_STORE);
    f.attr.rope_store = (pv_rope_store_attr){rope->attr.rope.heads, store->attr.range.first};
    f.n_in = 4;
    memcpy(f.in, rope->in, 3 * sizeof *f.in);
    f.in[3] = store->in[0];
    return replace(g, be, at, &f, rope);
}

/* rope(q), and k and v into their caches: three neighbours that go through the same rows. */
static bool rope_and_caches(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *v = g->nodes[at], *k = at > 1 ? g->nodes[at - 1] : NULL, *q = k ? g->nodes[at - 2] : NULL;
    if (!k || v->op != PV_OP_STORE || k->op != PV_OP_ROPE_STORE || q->op != PV_OP_ROPE)
        return false;
    const pv_tensor *rows = q->in[0]->rows;
    if (q->in[1] != k->in[1] || q->in[2] != k->in[2] || k->attr.rope_store.first != v->attr.range.first ||
        k->stage != v->stage || q->stage != v->stage || k->in[0]->rows != rows || v->in[1]->rows != rows ||
        v->in[1]->dim[0] != q->in[0]->dim[0] || v->in[1] == q->out[0] || k->in[0] == q->out[0] ||
        v->in[0] == k->out[0] || v->in[1] == k->out[0] || overtaken(g, k, at))
        return false;
    pv_node f = like(q, PV_OP_ROPE_CACHE);
    f.attr.rope_cache = (pv_rope_cache_attr){q->attr.rope.heads, k->attr.rope_store.heads, v->attr.range.first};
    f.n_out = 3;
    f.out[1] = k->out[0];
    f.out[2] = v->out[0];
    f.n_in = 7;
    f.in[0] = q->in[0];
    f.in[1] = k->in[0];
    f.in[2] = v->in[1];
    f.in[3] = q->in[1];
    f.in[4] = q->in[2];
    f.in[5] = k->in[3];
    f.in[6] = v->in[0];
    if (!replace(g, be, at, &f, q))
        return false;
    drop(g, index_of(g, k));
    return true;
}

/* residual + linear, residual + linear gated. The linear's product is the second operand, as the model writes it. */
static bool onto_residual(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *n = g->nodes[at];
    bool gated = n->op == PV_OP_GATED_RESIDUAL;
    if (!gated && (n->op != PV_OP_ADD || pv_elements(n->in[0]) != pv_elements(n->in[1])))
        return false;
    pv_node *linear = maker(g, n->in[1], PV_OP_LINEAR, n);
    if (!linear)
        return false;
    pv_node f = like(n, gated ? PV_OP_LINEAR_GATED : PV_OP_LINEAR_ADD);
    f.in[f.n_in++] = linear->in[0];
    f.in[f.n_in++] = linear->in[1];
    f.in[f.n_in++] = n->in[0];
    if (gated)
        f.in[f.n_in++] = n->in[2];
    if (linear->n_in > 2)
        f.in[f.n_in++] = linear->in[2];
    return replace(g, be, at, &f, linear);
}

/* Does the norm at `at` read the residual that `sums` makes before anybody else does? */
static bool first_reader(const pv_graph *g, const pv_node *sums, int at)
{
    const pv_tensor *sum = sums->out[0];
    for (int i = index_of(g, sums) + 1; i < at; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k] == sum)
                return false;
    return sums->stage == g->nodes[at]->stage && sum->dtype == PV_F32;
}

/* Both as one op: what `sums` reads, and what the norm reads beside it. */
static pv_node residual_and_norm(const pv_node *norm, const pv_node *sums, pv_op op)
{
    pv_node f = like(norm, op);
    f.name = sums->name;
    f.attr = norm->attr;
    f.n_out = 2;
    f.out[0] = sums->out[0];
    f.out[1] = norm->out[0];
    f.n_in = sums->n_in + norm->n_in - 1;
    memcpy(f.in, sums->in, (size_t)sums->n_in * sizeof *f.in);
    memcpy(f.in + sums->n_in, norm->in + 1, (size_t)(norm->n_in - 1) * sizeof *f.in);
    return f;
}

/* The residual and the norm that reads it first. Whoever else reads the residual comes later. */
static bool norm_of_residual(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *norm = g->nodes[at], *gated = norm->in[0]->producer;
    if (norm->op != PV_OP_ADA_RMS_NORM || !gated || gated->op != PV_OP_GATED_RESIDUAL || !first_reader(g, gated, at))
        return false;
    pv_node f = residual_and_norm(norm, gated, PV_OP_GATED_NORM);
    return replace(g, be, at, &f, gated);
}

/* The same where the residual is a product's. */
static bool norm_of_product(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *norm = g->nodes[at], *gated = norm->in[0]->producer;
    if (norm->op != PV_OP_ADA_RMS_NORM || !gated || gated->op != PV_OP_LINEAR_GATED || gated->n_in != 4 || !first_reader(g, gated, at))
        return false;
    pv_node f = residual_and_norm(norm, gated, PV_OP_LINEAR_GATED_NORM);
    return replace(g, be, at, &f, gated);
}

/* And the norms of layers without a modulation. */
static bool norm_of_sum(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *norm = g->nodes[at], *sums = norm->in[0]->producer;
    const bool layer = norm->op == PV_OP_LAYER_NORM;
    if ((!layer && (norm->op != PV_OP_RMS_NORM || norm->n_in != 2)) || !sums || sums->op != PV_OP_LINEAR_ADD ||
        !first_reader(g, sums, at))
        return false;
    pv_node f = residual_and_norm(norm, sums, PV_OP_LINEAR_ADD_NORM);
    f.attr.linear_add_norm = (pv_linear_add_norm_attr){norm->attr.norm.eps, layer};
    return replace(g, be, at, &f, sums);
}

/* What ends a step: the last norm, the product that makes the velocity of it, and x + dt v. */
static bool euler_step(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *axpy = g->nodes[at];
    pv_node *v = axpy->op == PV_OP_AXPY ? maker(g, axpy->in[2], PV_OP_LINEAR, axpy) : NULL;
    pv_node *norm = v && v->n_in == 3 ? maker(g, v->in[0], PV_OP_ADA_RMS_NORM, v) : NULL;
    if (!norm || pv_width(axpy->in[0]) != pv_width(axpy->in[2]) || overtaken(g, v, at))
        return false;
    pv_node f = like(axpy, PV_OP_EULER_STEP);
    f.attr = norm->attr;
    f.n_in = 6;
    memcpy(f.in, norm->in, 2 * sizeof *f.in);
    memcpy(f.in + 2, v->in + 1, 2 * sizeof *f.in);
    memcpy(f.in + 4, axpy->in, 2 * sizeof *f.in);
    if (!replace(g, be, at, &f, norm))
        return false;
    drop(g, index_of(g, v));
    return true;
}

static bool through_gelu(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *n = g->nodes[at];
    pv_node *linear = n->op == PV_OP_GELU ? maker(g, n->in[0], PV_OP_LINEAR, n) : NULL;
    if (!linear)
        return false;
    pv_node f = like(n, PV_OP_LINEAR_GELU);
    f.n_in = linear->n_in;
    memcpy(f.in, linear->in, sizeof f.in);
    return replace(g, be, at, &f, linear);
}

/* gate and up with their GeGLU. Where they are rounded is part of the op, so they may have any dtype. */
static bool geglu_of_products(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *n = g->nodes[at], *product[2];
    if (n->op != PV_OP_GEGLU || n->in[0]->dtype != n->in[1]->dtype)
        return false;
    for (int i = 0; i < 2; i++) {
        product[i] = sole(g, n->in[i], n);
        if (!product[i] || product[i]->op != PV_OP_LINEAR || product[i]->n_in != 2 || overtaken(g, product[i], at))
            return false;
    }
    if (product[0]->in[0] != product[1]->in[0])
        return false;
    pv_node f = like(n, PV_OP_LINEAR_GEGLU);
    f.attr.linear_geglu.between = n->in[0]->dtype;
    f.in[f.n_in++] = product[0]->in[0];
    f.in[f.n_in++] = product[0]->in[1];
    f.in[f.n_in++] = product[1]->in[1];
    if (!replace(g, be, at, &f, product[0]))
        return false;
    drop(g, index_of(g, product[1]));
    return true;
}

/* Linears of one input: q, k, v; gate, up. They stand together, so nothing between them reads one's result. */
static bool group_linears(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *first = g->nodes[at];
    if (first->op != PV_OP_LINEAR)
        return false;
    int n = 1;
    while (n < PV_MAX_OUT && at + n < g->n_nodes) {
        const pv_node *next = g->nodes[at + n];
        if (next->op != PV_OP_LINEAR || next->in[0] != first->in[0] || next->n_in != first->n_in ||
            next->stage != first->stage || next->in[1]->dtype != first->in[1]->dtype)
            break;
        n++;
    }
    for (; n > 1; n--) {
        pv_node f = like(first, PV_OP_LINEAR_GROUP);
        f.attr.group.n = f.n_out = n;
        f.in[f.n_in++] = first->in[0];
        for (int part = 1; part < first->n_in; part++)
            for (int i = 0; i < n; i++) {
                f.in[f.n_in++] = g->nodes[at + i]->in[part];
                f.out[i] = g->nodes[at + i]->out[0];
            }
        if (!be->vt->claims(be, &f))
            continue;
        for (int i = 2; i < n; i++)
            drop(g, at + 2);
        return replace(g, be, at, &f, g->nodes[at + 1]);
    }
    return false;
}

/* q, k and v with what becomes of them. Where they are rounded is part of the op, so they may have any dtype. */
static bool products_into_caches(pv_graph *g, const pv_backend *be, int at)
{
    pv_node *n = g->nodes[at], *group = n->in[0]->producer;
    if (n->op != PV_OP_ROPE_CACHE || !group || group->op != PV_OP_LINEAR_GROUP || group->stage != n->stage ||
        group->n_out != 3 || group->n_in != 4)
        return false;
    for (int i = 0; i < 3; i++) {
        const pv_tensor *t = group->out[i];
        if (n->in[i] != t || t->dtype != n->in[0]->dtype || t->output || t->usage != PV_SCRATCH || pv_consumers(g, t) != 1)
            return false;
    }
    pv_node f = like(n, PV_OP_LINEAR_ROPE_CACHE);
    f.attr.linear_rope_cache = (pv_linear_rope_cache_attr){n->attr.rope_cache, n->in[0]->dtype};
    memcpy(f.in, group->in, 4 * sizeof *f.in);
    memcpy(f.in + 4, n->in + 3, 4 * sizeof *f.in);
    f.n_in = 8;
    return replace(g, be, at, &f, group);
}

void pv_fuse(pv_graph *g, const pv_backend *be)
{
    static bool (*const rules[])(pv_graph *, const pv_backend *, int) = {
        pv_fuse_expert, absorb_cast,       store_rope,    rope_and_caches,  onto_residual,
        through_gelu,   geglu_of_products, group_linears, products_into_caches,
        euler_step,     norm_of_residual,  norm_of_product, norm_of_sum};
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        for (int i = 0; !g->status && i < g->n_nodes; i++) {
            int before = g->n_nodes;
            if (rules[r](g, be, i)) { /* nodes before `i` are gone, or another rule may meet this one: look again */
                int gone = before - g->n_nodes;
                i -= gone < i ? gone : i;
            }
        }
}
