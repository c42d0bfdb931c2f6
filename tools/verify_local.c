/* verify_local.c - see verify_local.h: a graph of one node, planned for the CPU, fed with what the backend
 * holds. */
#include "verify_local.h"
#include "base/memory.h"

typedef struct feeding {
    pv_runner *runner;
    const pv_node *node;
    pv_tensor *twin[PV_MAX_IN], *count[PV_MAX_IN]; /* of each input; of its row count, or NULL */
    int step;
    const void *x_t;
} feeding;

static bool picks_row(const pv_tensor *t, const pv_graph *g)
{
    return t->producer && t->producer->op == PV_OP_ROW && g->step && t->producer->in[1] == g->step;
}

/* ---- the graph ---- */

static pv_tensor *twin_of(pv_graph *g, const pv_tensor *t)
{
    pv_usage usage =
        t->usage == PV_WEIGHT || (t->usage == PV_STATE && (t->base || !t->producer)) ? t->usage : PV_IO;
    pv_tensor *twin = pv_tensor_add(g, t->name, usage, t->dtype, t->n_dims, t->dim);
    if (twin)
        twin->plus_one = t->plus_one;
    return twin;
}

/* The same tensor is the same twin wherever the node reads it, as an input or as a count. */
static pv_tensor *twin_again(const feeding *f, int n, const pv_tensor *t)
{
    for (int k = 0; k < n; k++) {
        if (f->node->in[k] == t)
            return f->twin[k];
        if (f->node->in[k]->rows == t)
            return f->count[k];
    }
    return NULL;
}

static pv_graph *graph_of(feeding *f)
{
    const pv_node *n = f->node;
    pv_graph *g = pv_graph_create();
    if (!g)
        return NULL;
    g->stage = n->stage;
    for (int k = 0; k < n->n_in; k++) {
        const pv_tensor *t = n->in[k];
        if (t->rows && !(f->count[k] = twin_again(f, k, t->rows)))
            f->count[k] = twin_of(g, t->rows);
        f->twin[k] = twin_again(f, k, t);
        if (!f->twin[k] && (f->twin[k] = twin_of(g, t)))
            f->twin[k]->rows = f->count[k];
    }
    pv_node *twin = pv_node_add(g, n->name, n->op, n->n_in, f->twin, &n->attr);
    for (int k = 0; twin && k < twin->n_out; k++) {
        if (twin->out[k]->usage != PV_STATE)
            twin->out[k]->dtype = n->out[k]->dtype;
        twin->out[k]->output = true;
    }
    return g;
}

/* ---- its inputs ---- */

static pv_status feed_one(const feeding *f, verify_op *op, const pv_tensor *t, const pv_tensor *to,
                          char *bytes)
{
    pv_runner *r = f->runner;
    size_t n = pv_tensor_bytes(to);
    int32_t step = f->step;
    if (to->offset == PV_NOWHERE)
        return PV_OK;
    if (t == r->plan->graph->step)
        return pv_instance_write(op->inst, to, 0, &step, sizeof step);
    if (t == r->x_t)
        return pv_instance_write(op->inst, to, 0, f->x_t, n);
    const pv_tensor *from = t;
    size_t at = 0;
    if (picks_row(t, r->plan->graph)) {
        from = t->producer->in[0];
        at = n * (size_t)f->step;
    }
    pv_status st = pv_instance_read(r->inst, from, at, bytes, n);
    return st ? st : pv_instance_write(op->inst, to, 0, bytes, n);
}

static pv_status feed(const feeding *f, verify_op *op)
{
    const pv_node *n = f->node;
    size_t most = 1;
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k]->usage != PV_WEIGHT && pv_tensor_bytes(n->in[k]) > most)
            most = pv_tensor_bytes(n->in[k]);
    char *bytes = pv_alloc(most < sizeof(int32_t) ? sizeof(int32_t) : most);
    pv_status st = bytes ? PV_OK : PV_E_MEMORY;
    for (int k = 0; !st && k < n->n_in; k++) {
        if (n->in[k]->usage != PV_WEIGHT)
            st = feed_one(f, op, n->in[k], f->twin[k], bytes);
        if (!st && n->in[k]->rows)
            st = feed_one(f, op, n->in[k]->rows, f->count[k], bytes);
    }
    pv_free(bytes);
    return st;
}

pv_status verify_op_run(verify_op *op, pv_backend *cpu, const pv_weights *weights, pv_runner *runner,
                        const pv_node *n, int step, const void *x_t)
{
    feeding f = {.runner = runner, .node = n, .step = step, .x_t = x_t};
    *op = (verify_op){0};
    pv_graph *g = graph_of(&f);
    if (!g)
        return PV_E_MEMORY;
    const pv_node *twin = g->n_nodes ? g->nodes[0] : NULL;
    pv_plan_params params = {.steps = 1, .no_fold = true};
    for (int k = 0; twin && k < twin->n_out; k++)
        op->out[k] = twin->out[k];
    pv_status st = pv_plan_create(cpu, &g, &params, &op->plan);
    if (!st)
        st = pv_instance_create(op->plan, weights, &op->inst);
    if (!st)
        st = feed(&f, op);
    if (!st)
        st = pv_instance_run(op->inst, (pv_run){.stages = 1u << n->stage, .n_steps = 1}, NULL);
    if (st) {
        verify_op_free(op);
        st = pv_fail_in(st, "'%s' on its own", n->name);
    }
    return st;
}

void verify_op_free(verify_op *op)
{
    pv_instance_destroy(&op->inst);
    pv_plan_destroy(&op->plan);
    *op = (verify_op){0};
}
