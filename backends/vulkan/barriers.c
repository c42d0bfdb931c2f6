/* barriers.c - where a stage needs barriers: before a node that touches bytes which a node since the last
 * barrier has touched too, when one of them writes them. A write before a read is an edge of the graph; a
 * write behind a read or a write comes of scratch that is used again and of versions of a state. Bytes tell
 * both, so nothing else is asked. Weights are written by nobody. */
#include "vk.h"

#define MOST 64 /* touches that are kept; one more, and there is a barrier */

typedef struct touch {
    pv_usage usage;
    size_t from, to;
    bool writes;
} touch;

typedef struct touches {
    touch some[MOST];
    int n;
} touches;

static bool apart(const touch *a, const touch *b)
{
    return a->usage != b->usage || a->to <= b->from || b->to <= a->from || (!a->writes && !b->writes);
}

/* Shaders write whole words: a neighbour in the same word must wait too. */
static touch touched(const pv_tensor *t, bool writes)
{
    size_t from = t->offset / 4 * 4, to = (t->offset + pv_tensor_bytes(t) + 3) / 4 * 4;
    return (touch){t->usage, from, to, writes};
}

static bool has_parts(const vk_device *d, const pv_node *n)
{
    vk_call c[VK_CALLS];
    bool has = false;
    for (int i = vk_calls_make(d, n, c) - 1; i >= 0; i--)
        has |= c[i].part_words > 0;
    return has;
}

/* What the node touches; false: more than there is room for. */
static bool touches_of(const vk_device *d, const pv_node *n, touches *out)
{
    out->n = 0;
    if (has_parts(d, n))
        out->some[out->n++] = (touch){PV_USAGE_COUNT, 0, 1, true};
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        bool writes = i >= n->n_in;
        const pv_tensor *t = writes ? n->out[i - n->n_in] : n->in[i], *both[] = {t, t->rows};
        for (int k = 0; k < 2; k++) {
            if (!both[k] || both[k]->usage == PV_WEIGHT)
                continue;
            if (out->n == MOST)
                return false;
            out->some[out->n++] = touched(both[k], writes && k == 0);
        }
    }
    return true;
}

static bool meet(const touches *a, const touches *b)
{
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < b->n; k++)
            if (!apart(&a->some[i], &b->some[k]))
                return true;
    return false;
}

bool vk_reads_in_place(const vk_device *d, const pv_program *prog, const pv_node *n)
{
    return n->op == PV_OP_ROW && prog->step && n->in[1] == prog->step && n->in[0]->dtype == n->out[0]->dtype &&
           n->out[0]->usage == PV_SCRATCH && !n->out[0]->output && n->in[0]->usage != PV_WEIGHT &&
           pv_tensor_bytes(n->out[0]) % 4 == 0 &&
           pv_tensor_bytes(n->out[0]) % d->limits.minStorageBufferOffsetAlignment == 0;
}

int vk_barriers(const vk_device *d, const pv_program *prog, pv_stage s, bool in_place, bool *before)
{
    const pv_graph *g = prog->graph;
    touches since = {.n = 0}, now;
    int n = 0;
    bool full = false; /* `since` does not hold all */
    for (int i = 0; i < g->n_nodes; i++) {
        before[i] = false;
        if (g->nodes[i]->stage != s || (in_place && vk_reads_in_place(d, prog, g->nodes[i])))
            continue;
        bool all = touches_of(d, g->nodes[i], &now);
        before[i] = full || !all || meet(&since, &now) || since.n + now.n > MOST;
        n += before[i];
        if (before[i])
            since.n = 0;
        for (int k = 0; all && k < now.n; k++)
            since.some[since.n++] = now.some[k];
        full = !all;
    }
    return n;
}
