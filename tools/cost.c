/* cost.c - see cost.h. A multiplication and an addition are two operations; only valid rows and keys count,
 * as only they are computed. */
#include "cost.h"
#include "base/memory.h"

#include <stdlib.h>

/* What a counting tensor (i32[1]) holds now; all of `most` where there is none. */
static pv_status valid(pv_runner *r, const pv_tensor *counter, int64_t most, double *out)
{
    int32_t v = 0;
    pv_status st = counter ? pv_instance_read(r->inst, counter, 0, &v, sizeof v) : PV_OK;
    *out = counter && v < most ? (double)v : (double)most;
    return st;
}

static pv_status rows_of(pv_runner *r, const pv_tensor *t, double *out)
{
    pv_status st = valid(r, t->rows, pv_row_count(t), out);
    *out *= (double)(pv_elements(t) / (pv_width(t) * pv_row_count(t)));
    return st;
}

static pv_status linear(pv_runner *r, const pv_node *n, int weights, double *flops)
{
    double rows;
    pv_status st = rows_of(r, n->in[0], &rows);
    for (int i = 1; !st && i <= weights; i++)
        *flops += 2 * rows * (double)pv_elements(n->in[i]);
    return st;
}

/* One of the two products of attention: every row meets every key it sees, over all heads, `width` numbers in a row. */
static pv_status meet(pv_runner *r, const pv_tensor *rows_as, int64_t width, int64_t most, const pv_tensor *len, double *flops)
{
    double rows, keys;
    pv_status st = rows_of(r, rows_as, &rows);
    if (!st)
        st = valid(r, len, most, &keys);
    if (!st)
        *flops += 2 * rows * keys * (double)width;
    return st;
}

static pv_status attention(pv_runner *r, const pv_node *n, const pv_tensor *rows_as, const pv_tensor *keys_as,
                           int len, double *flops)
{
    const pv_attention_attr *a = &n->attr.attention;
    return meet(r, rows_as, pv_width(rows_as), keys_as->dim[0] / a->batch - a->first, n->n_in > len ? n->in[len] : NULL, flops);
}

/* Seven products with weights, and both of attention. */
static pv_status expert_block(pv_runner *r, const pv_node *n, double *flops)
{
    const pv_tensor *x = n->in[0], *w_q = n->in[3], *k = n->in[12];
    double rows;
    pv_status st = rows_of(r, x, &rows);
    for (int i = 3; !st && i < 10; i++)
        *flops += 2 * rows * (double)pv_elements(n->in[i]);
    for (int i = 0; !st && i < 2; i++)
        st = meet(r, x, pv_row_count(w_q), pv_row_count(k) - n->attr.expert.first, n->in[14], flops);
    return st;
}

static pv_status flops_of(pv_runner *r, const pv_node *n, double *flops)
{
    *flops = 0;
    pv_status st = PV_OK;
    switch (n->op) {
    case PV_OP_LINEAR:
    case PV_OP_LINEAR_ADD:
    case PV_OP_LINEAR_GELU:
    case PV_OP_LINEAR_GATED:
    case PV_OP_LINEAR_GATED_NORM:
    case PV_OP_LINEAR_ADD_NORM:
    case PV_OP_LINEAR_SCALED:
    case PV_OP_LINEAR_BLOCKS:
        return linear(r, n, 1, flops);
    case PV_OP_LINEAR_GEGLU:
        return linear(r, n, 2, flops);
    case PV_OP_LINEAR_GROUP:
        return linear(r, n, n->attr.group.n, flops);
    case PV_OP_LINEAR_ROPE_CACHE:
        return linear(r, n, 3, flops);
    case PV_OP_ATTENTION_SCORES:
        return attention(r, n, n->in[0], n->in[1], 2, flops);
    case PV_OP_ATTENTION_VALUES:
        return attention(r, n, n->out[0], n->in[1], 2, flops);
    case PV_OP_ATTENTION:
        st = attention(r, n, n->in[0], n->in[1], 3, flops);
        return st ? st : attention(r, n, n->in[0], n->in[1], 3, flops);
    case PV_OP_EXPERT_BLOCK:
        return expert_block(r, n, flops);
    default:
        return PV_OK;
    }
}

/* The next version of a state that the op reads: which output that is, -1: none. */
static int written(const pv_node *n, const pv_tensor *state)
{
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k]->base == state)
            return k;
    return -1;
}

/* The table of positions that the op reads: which input that is, -1: none. */
static int table_of(const pv_node *n)
{
    return n->op == PV_OP_ROPE || n->op == PV_OP_ROPE_STORE ? 1
           : n->op == PV_OP_ROPE_CACHE                      ? 3
           : n->op == PV_OP_LINEAR_ROPE_CACHE               ? 4
           : n->op == PV_OP_EXPERT_BLOCK                    ? 10
                                                            : -1;
}

/* Keys of a cache of which the op itself stores some. */
static pv_status keys_before(pv_runner *r, const pv_node *n, const pv_tensor *cache, double *rows)
{
    pv_status st = valid(r, n->in[14], cache->dim[0] - n->attr.expert.first, rows);
    *rows -= (double)pv_row_count(n->in[0]);
    return st;
}

/* Rows of input k that the op reads. */
static pv_status rows_read(pv_runner *r, const pv_node *n, int k, double *rows)
{
    const pv_tensor *t = n->in[k];
    const pv_attention_attr *a = &n->attr.attention;
    bool attends = n->op == PV_OP_ATTENTION || n->op == PV_OP_ATTENTION_SCORES || n->op == PV_OP_ATTENTION_VALUES;
    bool stores = n->op != PV_OP_AXPY && t->usage == PV_STATE && written(n, t) >= 0;
    int len = n->op == PV_OP_ATTENTION ? 3 : 2;
    *rows = 0;
    if (stores)
        return n->op == PV_OP_EXPERT_BLOCK ? keys_before(r, n, t, rows) : PV_OK;
    if (n->op == PV_OP_ROW && k == 0) {
        *rows = 1;
        return PV_OK;
    }
    if (k == table_of(n))
        return rows_of(r, n->in[0], rows);
    if (!attends || k == 0 || k >= len)
        return rows_of(r, t, rows);
    pv_status st = valid(r, n->n_in > len ? n->in[len] : NULL, t->dim[0] / a->batch - a->first, rows);
    *rows *= a->batch;
    return st;
}

static pv_status bytes_of(pv_runner *r, const pv_node *n, double *bytes)
{
    pv_status st = PV_OK;
    double rows;
    *bytes = 0;
    for (int k = 0; !st && k < n->n_in; k++) {
        const pv_tensor *t = n->in[k];
        if (t->usage == PV_SCRATCH)
            continue;
        st = rows_read(r, n, k, &rows);
        if (!st)
            *bytes += rows * (double)pv_dtype_bytes(t->dtype, (size_t)pv_width(t));
    }
    for (int k = 0; !st && k < n->n_out; k++) {
        const pv_tensor *t = n->out[k];
        if (t->usage == PV_SCRATCH)
            continue;
        bool stored = n->op != PV_OP_AXPY && t->base; /* as many rows as come in */
        st = rows_of(r, stored ? n->in[n->op == PV_OP_STORE] : t, &rows);
        if (!st)
            *bytes += rows * (double)pv_dtype_bytes(t->dtype, (size_t)pv_width(t));
    }
    return st;
}

static int costliest_first(const void *a, const void *b)
{
    const cost_row *x = a, *y = b;
    double first = x->ms > 0 || y->ms > 0 ? x->ms : x->floor_ms, second = x->ms > 0 || y->ms > 0 ? y->ms : y->floor_ms;
    return first < second ? 1 : first > second ? -1 : 0;
}

pv_status cost_table(pv_runner *r, const double *node_ms, int steps, const rates *at, cost_row **out, int *n)
{
    const pv_graph *g = r->plan->graph;
    cost_row *rows = *out = pv_alloc_zero(sizeof *rows * PV_STAGE_COUNT * PV_OP_COUNT);
    *n = 0;
    if (!rows)
        return PV_E_MEMORY;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < g->n_nodes; i++) {
        const pv_node *node = g->nodes[i];
        int times = node->stage == PV_STAGE_DENOISE ? steps : 1;
        double flops, bytes = 0;
        st = flops_of(r, node, &flops);
        if (!st)
            st = bytes_of(r, node, &bytes);
        cost_row *row = &rows[node->stage * PV_OP_COUNT + (int)node->op];
        *row = (cost_row){node->stage,
                          node->op,
                          row->count + times,
                          row->ms + (node_ms ? node_ms[i] : 0),
                          row->flops + flops * times,
                          row->bytes + bytes * times,
                          row->floor_ms + rates_floor_ms(at, bytes, flops) * times};
    }
    for (int i = 0; i < PV_STAGE_COUNT * PV_OP_COUNT; i++)
        if (rows[i].count)
            rows[(*n)++] = rows[i];
    qsort(rows, (size_t)*n, sizeof *rows, costliest_first);
    if (st) {
        pv_free(rows);
        *out = NULL;
    }
    return st;
}

double cost_floor_ms(const cost_row *rows, int n, pv_stage stage)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (rows[i].stage == stage || (stage == PV_STAGE_COUNT && rows[i].stage != PV_STAGE_SCHEDULE))
            sum += rows[i].floor_ms;
    return sum;
}
