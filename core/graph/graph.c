/* graph.c - tensors, nodes, names, the sticky error. */
#include "graph.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

pv_graph *pv_graph_create(void)
{
    return pv_alloc_zero(sizeof(pv_graph));
}

void pv_graph_destroy(pv_graph **g)
{
    if (!*g)
        return;
    pv_arena_free(&(*g)->arena);
    pv_free(*g);
    *g = NULL;
}

pv_status pv_graph_fail(pv_graph *g, pv_status status, const char *fmt, ...)
{
    if (g->status)
        return g->status;
    va_list ap;
    va_start(ap, fmt);
    char *text = pv_arena_vprintf(&g->arena, fmt, ap);
    va_end(ap);
    g->error = text ? text : "out of memory";
    return g->status = status;
}

pv_status pv_graph_status(const pv_graph *g)
{
    return g->status ? pv_fail(g->status, "%s", g->error) : PV_OK;
}

void pv_scope_push(pv_graph *g, const char *fmt, ...)
{
    size_t used = strlen(g->scope), left = sizeof g->scope - used;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(g->scope + used, left, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n + 2 > left) {
        g->scope[used] = 0;
        pv_graph_fail(g, PV_E_ARG, "scope '%s' is too deep", g->scope);
        return;
    }
    strcat(g->scope, ".");
}

void pv_scope_pop(pv_graph *g)
{
    size_t n = strlen(g->scope);
    if (n)
        g->scope[--n] = 0; /* its final dot */
    while (n && g->scope[n - 1] != '.')
        g->scope[--n] = 0;
}

/* Room for one more pointer; the old array stays in the arena until the graph goes. */
static bool grow(pv_graph *g, void *array, int n, int *cap)
{
    void **old = *(void ***)array;
    if (n < *cap)
        return true;
    int more = *cap ? *cap * 2 : 64;
    void **p = pv_arena_alloc(&g->arena, sizeof *p * (size_t)more);
    if (!p) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while building the graph");
        return false;
    }
    if (n)
        memcpy(p, old, sizeof *p * (size_t)n);
    *(void ***)array = p;
    *cap = more;
    return true;
}

pv_tensor *pv_tensor_add(pv_graph *g, const char *full_name, pv_usage usage, pv_dtype dtype, int n_dims,
                         const int64_t *dim)
{
    if (g->status || !grow(g, &g->tensors, g->n_tensors, &g->cap_tensors))
        return NULL;
    pv_tensor *t = pv_arena_alloc(&g->arena, sizeof *t);
    if (!t) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while building the graph");
        return NULL;
    }
    *t = (pv_tensor){.name = full_name, .usage = usage, .dtype = dtype, .n_dims = n_dims, .id = g->n_tensors};
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) {
        t->dim[i] = dim[i];
        if (dim[i] < 1 || n > (INT64_MAX >> 8) / dim[i]) {
            pv_graph_fail(g, PV_E_SHAPE, "tensor '%s': dimension %d is %lld: expected at least 1, and a size that can be "
                          "counted", full_name, i, (long long)dim[i]);
            return NULL;
        }
        n *= dim[i];
    }
    g->tensors[g->n_tensors++] = t;
    return t;
}

const char *pv_graph_vprintf(pv_graph *g, const char *fmt, va_list ap)
{
    const char *text = pv_arena_vprintf(&g->arena, fmt, ap);
    if (!text)
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while building the graph");
    return text ? text : "";
}

const char *pv_graph_printf(pv_graph *g, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = pv_graph_vprintf(g, fmt, ap);
    va_end(ap);
    return text;
}

static const char *scoped(pv_graph *g, const char *name)
{
    return pv_graph_printf(g, "%s%s", g->scope, name);
}

pv_tensor *pv_input(pv_graph *g, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim, pv_tensor *rows)
{
    if (rows && (rows->dtype != PV_I32 || pv_elements(rows) != 1 || rows->usage != PV_IO)) {
        pv_graph_fail(g, PV_E_SHAPE, "input '%s': its rows are counted by an input i32[1], '%s' is none", name, rows->name);
        return NULL;
    }
    pv_tensor *t = pv_tensor_add(g, scoped(g, name), PV_IO, dtype, n_dims, dim);
    if (t)
        t->rows = rows;
    return t;
}

pv_tensor *pv_input_per_step(pv_graph *g, const char *name, int64_t width)
{
    pv_tensor *t = pv_input(g, name, PV_F32, 2, (int64_t[]){1, width}, NULL);
    if (t)
        t->per_step = true;
    return t;
}

pv_tensor *pv_state(pv_graph *g, const char *name, pv_dtype dtype, int64_t rows, int64_t width)
{
    return pv_tensor_add(g, scoped(g, name), PV_STATE, dtype, 2, (int64_t[]){rows, width});
}

pv_tensor *pv_const(pv_graph *g, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim, const void *data)
{
    pv_tensor *t = pv_tensor_add(g, scoped(g, name), PV_CONST, dtype, n_dims, dim);
    void *copy = t ? pv_arena_alloc(&g->arena, pv_tensor_bytes(t)) : NULL;
    if (!copy) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory for constant '%s'", name);
        return NULL;
    }
    t->data = memcpy(copy, data, pv_tensor_bytes(t));
    return t;
}

pv_tensor *pv_weight(pv_graph *g, int n_dims, const int64_t *dim, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *name = pv_graph_vprintf(g, fmt, ap);
    va_end(ap);
    for (int i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->usage == PV_WEIGHT && !strcmp(g->tensors[i]->name, name))
            return g->tensors[i];
    pv_dtype dtype = !g->status && g->stored_dtype ? g->stored_dtype(g->stored_user, name) : PV_F32;
    return pv_tensor_add(g, name, PV_WEIGHT, dtype, n_dims, dim);
}

void pv_node_append(pv_graph *g, pv_node *n)
{
    if (grow(g, &g->nodes, g->n_nodes, &g->cap_nodes))
        g->nodes[g->n_nodes++] = n;
}

pv_node *pv_node_add(pv_graph *g, const char *name, pv_op op, int n_in, pv_tensor *const *in, const pv_attr *attr)
{
    const pv_op_info *info = &pv_ops[op];
    if (g->status)
        return NULL;
    pv_node *n = pv_arena_alloc(&g->arena, sizeof *n);
    if (!n) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while building the graph");
        return NULL;
    }
    *n = (pv_node){.op = op, .stage = g->stage, .n_in = n_in};
    if (attr)
        n->attr = *attr;
    n->name = name ? scoped(g, name) : pv_graph_printf(g, "%s%s#%d", g->scope, info->name, g->n_tensors);
    if (n_in < info->min_in || n_in > info->max_in) {
        pv_graph_fail(g, PV_E_ARG, "%s '%s' takes %d to %d inputs, came %d", info->name, n->name, info->min_in,
                      info->max_in, n_in);
        return NULL;
    }
    for (int i = 0; i < n_in; i++) {
        if (!in[i]) {
            pv_graph_fail(g, PV_E_ARG, "%s '%s': input %d is missing", info->name, n->name, i);
            return NULL;
        }
        n->in[i] = in[i];
    }
    if (info->infer(g, n))
        return NULL;
    for (int i = 0; i < n->n_out; i++)
        n->out[i]->producer = n;
    pv_node_append(g, n);
    return g->status ? NULL : n;
}

pv_tensor *pv_graph_find(const pv_graph *g, const char *name)
{
    for (int i = 0; i < g->n_tensors; i++)
        if (!strcmp(g->tensors[i]->name, name))
            return g->tensors[i];
    return NULL;
}

int64_t pv_elements(const pv_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->dim[i];
    return n;
}

size_t pv_tensor_bytes(const pv_tensor *t)
{
    return pv_dtype_bytes(t->dtype, (size_t)pv_elements(t));
}

const pv_tensor *pv_state_root(const pv_tensor *t)
{
    while (t->base)
        t = t->base;
    return t;
}

const char *pv_stage_name(pv_stage stage)
{
    static const char *const names[PV_STAGE_COUNT] = {"vision", "prefix", "schedule", "denoise"};
    return names[stage];
}

const char *pv_usage_name(pv_usage usage)
{
    static const char *const names[PV_USAGE_COUNT] = {"weight", "const", "io", "state", "scratch"};
    return names[usage];
}
