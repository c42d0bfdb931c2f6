/* planning.c - see planning.h. */
#include "planning.h"
#include "base/memory.h"

#include <string.h>

typedef struct watch {
    planning *p;
    const planning_params *params;
    pv_status status;
} watch;

/* Bytes of the weights that nodes read, each once. */
static uint64_t weights_read(const pv_graph *g, bool *seen)
{
    uint64_t bytes = 0;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            const pv_tensor *t = g->nodes[i]->in[k];
            if (t->usage != PV_WEIGHT || seen[t->id])
                continue;
            seen[t->id] = true;
            bytes += pv_tensor_bytes(t);
        }
    return bytes;
}

static void on_pass(void *user, const char *name, const pv_graph *g)
{
    watch *w = user;
    planning *p = w->p;
    bool *seen = pv_alloc_zero((size_t)g->n_tensors + 1);
    if (!seen || p->n_passes == PLANNING_PASSES) {
        w->status = seen ? w->status : PV_E_MEMORY;
        pv_free(seen);
        return;
    }
    planning_pass *pass = &p->pass[p->n_passes++];
    *pass = (planning_pass){.name = name, .nodes = g->n_nodes, .weight_bytes = weights_read(g, seen)};
    pv_free(seen);
    for (int i = 0; i < g->n_nodes; i++) {
        pass->stage_nodes[g->nodes[i]->stage]++;
        pass->op_nodes[g->nodes[i]->op]++;
    }
    if (w->params->text_of && !strcmp(name, w->params->text_of)) {
        p->text = w->params->dot ? pv_graph_dot(g) : pv_graph_text(g);
        if (!p->text)
            w->status = PV_E_MEMORY;
    }
}

pv_status planning_make(const pv_model *m, pv_backend *be, const planning_params *params, planning *out)
{
    *out = (planning){.n_passes = 0};
    watch w = {.p = out, .params = params};
    pv_plan_params pp = {.steps = params->steps, .on_pass = on_pass, .user = &w};
    pv_graph *g = NULL;
    pv_plan *plan = NULL;
    pv_status st = pv_recipe_find(params->recipe, &pp.recipe);
    pv_pi05_shape shape = params->shape;
    if (!st) {
        shape.rope_bf16 |= pp.recipe->rope_bf16;
        st = pv_model_build(m, &shape, &g);
    }
    if (!st)
        st = pv_plan_create(be, &g, &pp, &plan);
    if (!st && w.status)
        st = pv_fail(w.status, "out of memory while looking at the passes");
    if (!st) {
        for (int u = 0; u < PV_USAGE_COUNT; u++)
            out->bytes[u] = u == PV_WEIGHT ? plan->weight_bytes : plan->program.bytes[u];
        for (int i = 0; i < plan->graph->n_tensors; i++) {
            const pv_tensor *t = plan->graph->tensors[i];
            if (t->usage == PV_STATE && !t->base && !strncmp(t->name, "cache.", 6))
                out->cache_bytes += pv_tensor_bytes(t);
        }
        pv_dtype stored = m->source.stored_dtype(m->source.user, PV_EMBEDDING_NAME);
        out->table_bytes = pv_dtype_bytes(stored, (size_t)m->config.vocab * (size_t)m->config.gemma.width);
    } else {
        planning_free(out);
    }
    pv_plan_destroy(&plan);
    return st;
}

void planning_free(planning *p)
{
    pv_free(p->text);
    *p = (planning){.n_passes = 0};
}
