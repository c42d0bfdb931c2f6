/* lower.c - claim or expand: what the backend has a kernel for stays, the rest becomes its body; a primitive that is not
 * claimed is an error, and all of them are named. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

typedef struct lowering {
    pv_graph *g;
    const pv_backend *be;
    uint64_t expand;
    char missing[1800];
} lowering;

static bool switched_off(const pv_backend *be, pv_op op)
{
    int n = 0;
    const pv_variant *v = be->vt->variants ? be->vt->variants((pv_backend *)be, &n) : NULL;
    for (int i = 0; i < n; i++)
        if (v[i].op == op && v[i].off)
            return true;
    return false;
}

/* Each primitive in each dtype is named once, with the first node that needs it and the dtypes that it reads. */
static void miss(lowering *l, const pv_node *n)
{
    char entry[256], of[PV_MAX_IN * 6 + 1] = "";
    for (int k = 0; k < n->n_in; k++) {
        strcat(of, k ? ", " : "");
        strcat(of, pv_dtype_name(n->in[k]->dtype));
    }
    snprintf(entry, sizeof entry, "%s%s (%s, as '%.48s' of %s%s)", *l->missing ? ", " : "", pv_ops[n->op].name,
             pv_dtype_name(n->out[0]->dtype), n->name, of, switched_off(l->be, n->op) ? "; switched off by the self-test" : "");
    char op[40];
    snprintf(op, sizeof op, "%s (%s", pv_ops[n->op].name, pv_dtype_name(n->out[0]->dtype));
    if (!strstr(l->missing, op) && strlen(l->missing) + strlen(entry) < sizeof l->missing)
        strcat(l->missing, entry);
}

pv_node **pv_expand(pv_graph *g, pv_node *n, int *n_nodes)
{
    pv_node **nodes = g->nodes;
    int n_before = g->n_nodes, cap = g->cap_nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    g->stage = n->stage;
    snprintf(g->scope, sizeof g->scope, "%.150s/", n->name);
    pv_tensor *out[PV_MAX_OUT] = {NULL};
    pv_ops[n->op].body(g, n, out);
    g->scope[0] = 0;
    pv_node **mine = g->nodes;
    int n_mine = g->n_nodes;
    g->nodes = nodes;
    g->n_nodes = n_before;
    g->cap_nodes = cap;
    *n_nodes = n_mine;
    if (g->status)
        return NULL;
    for (int k = 0; k < n->n_out; k++) {
        pv_node *p = out[k]->producer;
        for (int j = 0; j < p->n_out; j++)
            if (p->out[j] == out[k])
                p->out[j] = n->out[k];
        n->out[k]->producer = p;
        for (int i = 0; i < n_mine; i++) /* the body may read its own result again */
            for (int j = 0; j < mine[i]->n_in; j++)
                if (mine[i]->in[j] == out[k])
                    mine[i]->in[j] = n->out[k];
    }
    return mine;
}

static void lower_node(lowering *l, pv_node *n)
{
    pv_graph *g = l->g;
    bool body = pv_ops[n->op].body != NULL;
    if (l->be->vt->claims(l->be, n) && !(body && l->expand >> n->op & 1)) {
        pv_node_append(g, n);
        return;
    }
    if (!body) {
        miss(l, n);
        return;
    }
    int n_mine = 0;
    pv_node **mine = pv_expand(g, n, &n_mine);
    for (int i = 0; i < n_mine && !g->status; i++)
        lower_node(l, mine[i]);
}

void pv_lower(pv_graph *g, const pv_backend *be, uint64_t expand)
{
    if (g->status)
        return;
    lowering l = {g, be, expand, ""};
    pv_node **old = g->nodes;
    int n_old = g->n_nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < n_old && !g->status; i++)
        lower_node(&l, old[i]);
    if (*l.missing)
        pv_graph_fail(g, PV_E_NO_KERNEL, "backend '%s' has no kernel for: %s", be->vt->name, l.missing);
}
