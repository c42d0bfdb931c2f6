/* dump.c - a graph as text, one line a node, or as a digraph for dot(1). The thing to look at when lost. */
#include "base/memory.h"
#include "graph.h"

#include <stdio.h>
#include <string.h>

typedef struct text {
    char *data;
    size_t used, size;
    bool failed;
} text;

static void put(text *t, const char *fmt, ...) PV_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (t->failed || n < 0)
        return;
    size_t bytes = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    if (t->used + bytes + 1 > t->size) {
        size_t size = (t->size + bytes) * 2 + 4096;
        char *more = pv_alloc(size);
        if (!more) {
            t->failed = true;
            return;
        }
        if (t->used)
            memcpy(more, t->data, t->used);
        pv_free(t->data);
        t->data = more;
        t->size = size;
    }
    memcpy(t->data + t->used, line, bytes);
    t->data[t->used += bytes] = 0;
}

static char *finish(text *t)
{
    if (t->failed) {
        pv_free(t->data);
        return NULL;
    }
    return t->data;
}

static void put_type(text *t, const pv_tensor *x)
{
    put(t, "%s[", pv_dtype_name(x->dtype));
    for (int i = 0; i < x->n_dims; i++)
        put(t, i ? ", %lld" : "%lld", (long long)x->dim[i]);
    put(t, "]");
    if (x->rows)
        put(t, " rows<=%s", x->rows->name);
    if (x->base)
        put(t, " over %s", x->base->name);
}

static void put_attr(text *t, const pv_node *n)
{
    const char *kind = pv_ops[n->op].attr;
    const pv_attr *a = &n->attr;
    if (!strcmp(kind, "norm"))
        put(t, " eps=%g", (double)a->norm.eps);
    else if (!strcmp(kind, "attention"))
        put(t, " heads=%d/%d batch=%d first=%lld scale=%g", a->attention.heads, a->attention.kv_heads,
            a->attention.batch, (long long)a->attention.first, (double)a->attention.scale);
    else if (!strcmp(kind, "rope"))
        put(t, " heads=%d", a->rope.heads);
    else if (!strcmp(kind, "rope_store"))
        put(t, " heads=%d first=%lld", a->rope_store.heads, (long long)a->rope_store.first);
    else if (!strcmp(kind, "expert"))
        put(t, " eps=%g heads=%d/%d store=%lld first=%lld scale=%g", (double)a->expert.eps, a->expert.heads,
            a->expert.kv_heads, (long long)a->expert.store, (long long)a->expert.first, (double)a->expert.scale);
    else if (!strcmp(kind, "scale"))
        put(t, " factor=%g", (double)a->scale.factor);
    else if (!strcmp(kind, "range"))
        put(t, " first=%lld size=%lld", (long long)a->range.first, (long long)a->range.size);
    else if (!strcmp(kind, "patch"))
        put(t, " size=%d", a->patch.size);
    else if (!strcmp(kind, "transpose"))
        put(t, " first=%lld second=%lld", (long long)a->transpose.first, (long long)a->transpose.second);
    else if (!strcmp(kind, "scale_for"))
        put(t, " dtype=%s", pv_dtype_name(a->scale_for.dtype));
    else if (!strcmp(kind, "linear_geglu"))
        put(t, " between=%s", pv_dtype_name(a->linear_geglu.between));
    else if (!strcmp(kind, "linear_add_norm"))
        put(t, " %s eps=%g", a->linear_add_norm.layer ? "layer_norm" : "rms_norm", (double)a->linear_add_norm.eps);
    else if (!strcmp(kind, "rope_cache"))
        put(t, " heads=%d kv_heads=%d first=%lld", a->rope_cache.heads, a->rope_cache.kv_heads,
            (long long)a->rope_cache.first);
    else if (!strcmp(kind, "linear_rope_cache"))
        put(t, " heads=%d kv_heads=%d first=%lld between=%s", a->linear_rope_cache.rope_cache.heads,
            a->linear_rope_cache.rope_cache.kv_heads, (long long)a->linear_rope_cache.rope_cache.first,
            pv_dtype_name(a->linear_rope_cache.between));
    else if (!strcmp(kind, "group"))
        put(t, " n=%d", a->group.n);
}

char *pv_graph_text(const pv_graph *g)
{
    text t = {0};
    put(&t, "# %d nodes\n", g->n_nodes);
    for (int i = 0; i < g->n_nodes; i++) {
        const pv_node *n = g->nodes[i];
        if (!i || n->stage != g->nodes[i - 1]->stage)
            put(&t, "%s:\n", pv_stage_name(n->stage));
        put(&t, "  ");
        for (int k = 0; k < n->n_out; k++) {
            put(&t, k ? ", %s " : "%s ", n->out[k]->name);
            put_type(&t, n->out[k]);
        }
        put(&t, " = %s(", pv_ops[n->op].name);
        for (int k = 0; k < n->n_in; k++)
            put(&t, k ? ", %s" : "%s", n->in[k]->name);
        put(&t, ")");
        put_attr(&t, n);
        put(&t, n->out[0]->output ? " output\n" : "\n");
    }
    return finish(&t);
}

char *pv_graph_dot(const pv_graph *g)
{
    text t = {0};
    put(&t, "digraph pivot {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\", fontsize=10];\n");
    for (int s = 0; s < PV_STAGE_COUNT; s++) {
        put(&t, "  subgraph cluster_%s {\n    label=\"%s\";\n", pv_stage_name((pv_stage)s), pv_stage_name((pv_stage)s));
        for (int i = 0; i < g->n_nodes; i++) {
            const pv_node *n = g->nodes[i];
            if (n->stage != (pv_stage)s)
                continue;
            put(&t, "    n%d [label=\"%s\\n%s\\n", i, pv_ops[n->op].name, n->name);
            put_type(&t, n->out[0]);
            put(&t, "\"];\n");
        }
        put(&t, "  }\n");
    }
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            for (int j = 0; j < i; j++) /* nodes stand in order of execution: a producer is before */
                if (g->nodes[i]->in[k]->producer == g->nodes[j])
                    put(&t, "  n%d -> n%d;\n", j, i);
    put(&t, "}\n");
    return finish(&t);
}
