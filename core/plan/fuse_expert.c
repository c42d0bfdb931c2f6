/* fuse_expert.c - the rule that makes a layer of the action expert one node, expert_block, for backends that run a whole
 * layer in one kernel. It comes before the other rules, which would take the layer apart; what body_expert_block makes
 * is what it looks for, node by node, from the last one back.
 *
 * Fused and apart mean the same, and give the same bytes where a backend rounds as the body does: nobody outside reads
 * what disappears, and moving all of it to where its last node stood passes no write or read of a state on the way. */
#include "plan.h"

#define LAYER 17 /* nodes */

typedef struct layer {
    pv_stage stage;
    pv_dtype dtype; /* of the caches and of all that is rounded with them */
    pv_node *node[LAYER];
    int n;
} layer;

static bool in_layer(const layer *l, const pv_node *n)
{
    for (int i = 0; i < l->n; i++)
        if (l->node[i] == n)
            return true;
    return false;
}

static bool reads(const pv_node *n, const pv_tensor *t)
{
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] == t)
            return true;
    return false;
}

/* The node that makes input `i` of `reader`, if it is the one the layer has there; NULL goes on as NULL. */
static pv_node *maker(layer *l, const pv_node *reader, int i, pv_op op, int n_in, pv_dtype dtype)
{
    pv_node *p = reader ? reader->in[i]->producer : NULL;
    if (!p || p->op != op || p->stage != l->stage || p->n_in != n_in || reader->in[i]->dtype != dtype)
        return NULL;
    return l->node[l->n++] = p;
}

/* Node `end` and those before it as a layer: `f` becomes the node that does their work. */
static bool match(layer *l, pv_node *end, pv_node *f)
{
    *l = (layer){.stage = end->stage, .node = {end}, .n = 1};
    pv_node *down = maker(l, end, 1, PV_OP_LINEAR, 2, PV_F32);
    if (!down)
        return false;
    const pv_dtype d = l->dtype = down->in[0]->dtype;
    pv_node *act = maker(l, down, 0, PV_OP_GEGLU, 2, d);
    pv_node *gate = maker(l, act, 0, PV_OP_LINEAR, 2, d), *up = maker(l, act, 1, PV_OP_LINEAR, 2, d);
    pv_node *mlp_norm = maker(l, gate, 0, PV_OP_ADA_RMS_NORM, 2, d);
    pv_node *sum = maker(l, end, 0, PV_OP_GATED_RESIDUAL, 3, PV_F32);
    pv_node *o = maker(l, sum, 1, PV_OP_LINEAR, 2, PV_F32), *attn = maker(l, o, 0, PV_OP_ATTENTION, 4, d);
    pv_node *q = maker(l, attn, 0, PV_OP_ROPE, 3, d);
    pv_node *k_store = maker(l, attn, 1, PV_OP_STORE, 2, d), *v_store = maker(l, attn, 2, PV_OP_STORE, 2, d);
    pv_node *k = maker(l, k_store, 1, PV_OP_ROPE, 3, d), *v_proj = maker(l, v_store, 1, PV_OP_LINEAR, 2, d);
    pv_node *q_proj = maker(l, q, 0, PV_OP_LINEAR, 2, d), *k_proj = maker(l, k, 0, PV_OP_LINEAR, 2, d);
    pv_node *attn_norm = maker(l, q_proj, 0, PV_OP_ADA_RMS_NORM, 2, d);
    if (l->n != LAYER)
        return false;

    pv_tensor *x = sum->in[0], *mod = sum->in[2], *mod_mlp = end->in[2];
    const pv_attention_attr *a = &attn->attr.attention;
    bool fits = attn_norm->in[0] == x && attn_norm->in[1] == mod;
    fits &= mlp_norm->in[0] == sum->out[0] && mlp_norm->in[1] == mod_mlp;
    fits &= attn_norm->attr.norm.eps == mlp_norm->attr.norm.eps;
    fits &= k_proj->in[0] == attn_norm->out[0] && v_proj->in[0] == attn_norm->out[0] && up->in[0] == mlp_norm->out[0];
    fits &= q->in[1] == k->in[1] && q->in[2] == k->in[2];
    fits &= q->attr.rope.heads == a->heads && a->batch == 1; /* then those of k are as many as its heads, too */
    fits &= k_store->attr.range.first == v_store->attr.range.first;
    fits &= x->dtype == PV_F32 && mod->dtype == PV_F32 && mod_mlp->dtype == PV_F32 && end->out[0]->dtype == PV_F32;
    fits &= !x->rows && k_store->in[0] != v_store->in[0];
    *f = (pv_node){
        .op = PV_OP_EXPERT_BLOCK,
        .name = end->name,
        .stage = l->stage,
        .n_in = 15,
        .n_out = 3,
        .in = {x, mod, mod_mlp, q_proj->in[1], k_proj->in[1], v_proj->in[1], o->in[1], gate->in[1], up->in[1],
               down->in[1], q->in[1], q->in[2], k_store->in[0], v_store->in[0], attn->in[3]},
        .out = {end->out[0], k_store->out[0], v_store->out[0]},
        .attr.expert = {attn_norm->attr.norm.eps, a->heads, a->kv_heads, k_store->attr.range.first, a->first, a->scale},
    };
    return fits;
}

static bool kept(const pv_node *f, const pv_tensor *t)
{
    return t == f->out[0] || t == f->out[1] || t == f->out[2];
}

/* What goes is scratch of the layer alone. */
static bool closed(const layer *l, const pv_node *f)
{
    for (int i = 0; i < f->n_in; i++)
        if (in_layer(l, f->in[i]->producer))
            return false;
    for (int i = 0; i < l->n; i++) {
        const pv_tensor *t = l->node[i]->out[0];
        if (!kept(f, t) && (t->usage != PV_SCRATCH || t->output))
            return false;
    }
    return true;
}

/* Does `other`, which stands before node `at` or (`behind`) after it, keep the layer from being one node at `at`? */
static bool hinders(const layer *l, const pv_node *f, const pv_node *other, bool behind)
{
    for (int i = 0; i < l->n; i++) {
        const pv_node *n = l->node[i];
        if (reads(other, n->out[0]) && !(behind && kept(f, n->out[0])))
            return true;
        for (int o = 0; o < other->n_out && !behind; o++)
            if (other->out[o]->base && reads(n, other->out[o]->base))
                return true;
    }
    return false;
}

bool pv_fuse_expert(pv_graph *g, const pv_backend *be, int at)
{
    layer l;
    pv_node f;
    pv_node *end = g->nodes[at];
    if (end->op != PV_OP_GATED_RESIDUAL || !match(&l, end, &f) || !closed(&l, &f))
        return false;
    int first = at;
    for (int i = at; i >= 0; i--)
        if (in_layer(&l, g->nodes[i]))
            first = i;
    for (int i = first; i < g->n_nodes; i++)
        if (!in_layer(&l, g->nodes[i]) && hinders(&l, &f, g->nodes[i], i > at))
            return false;
    if (!be->vt->claims(be, &f))
        return false;
    pv_node *fused = pv_arena_alloc(&g->arena, sizeof *fused);
    if (!fused) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while fusing");
        return false;
    }
    *fused = f;
    for (int k = 0; k < fused->n_out; k++)
        fused->out[k]->producer = fused;
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        if (i == at || !in_layer(&l, g->nodes[i]))
            g->nodes[n++] = i == at ? fused : g->nodes[i];
    g->n_nodes = n;
    return true;
}
