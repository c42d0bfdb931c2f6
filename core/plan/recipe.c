/* recipe.c - the recipes, and their application: dtypes by name, cast nodes where two sides differ. */
#include "recipe.h"
#include "plan.h"

#include <string.h>

/* Weights and what the products read are bf16; residual stream, norms, softmax, adaRMS, time and integrator f32. Patch
 * and position embedding, action and time projections stay as stored: openpi keeps them f32 too (its "islands").
 * A bias has the dtype of its sum, as products like it: f32 onto the residual, where widening what is stored is exact.
 * What SigLIP's GELU reads is f32, so that the product goes through it unrounded. */
static const pv_rule bf16_rules[] = {
    {"*_proj.weight|*.fc1.weight|*.fc2.weight|*multi_modal_projector.linear.weight", PV_BF16},
    {"*vision*.q_proj.bias|*vision*.k_proj.bias|*vision*.v_proj.bias|*vision*.fc1.bias", PV_BF16},
    {"*vision*.out_proj.bias|*vision*.fc2.bias|*multi_modal_projector.linear.bias", PV_F32},
    {"action_*|time_*", PV_F32},
    {"*.layer*.attn_norm|*.layer*.q_proj|*.layer*.k_proj|*.layer*.q|*.layer*.k|*.layer*.v|*.layer*.attn", PV_BF16},
    {"*.layer*.mlp_norm|*.layer*.gate|*.layer*.up|*.layer*.act|vision.post_ln|cache.*", PV_BF16},
    {"vision.layer*.up", PV_F32},
};

static const pv_recipe recipes[] = {
    {"f32", "f32 arithmetic on weights as stored", NULL, 0},
    {"bf16", "bf16 weights and activations; residual, norms, softmax, adaRMS, time and integrator f32", bf16_rules,
     sizeof bf16_rules / sizeof *bf16_rules},
};
#define N_RECIPES ((int)(sizeof recipes / sizeof *recipes))

const pv_recipe *pv_recipe_list(int i)
{
    return i >= 0 && i < N_RECIPES ? &recipes[i] : NULL;
}

pv_status pv_recipe_find(const char *name, const pv_recipe **out)
{
    for (int i = 0; i < N_RECIPES; i++)
        if (!strcmp(recipes[i].name, name ? name : "f32")) {
            *out = &recipes[i];
            return PV_OK;
        }
    return pv_fail(PV_E_ARG, "recipe '%s': expected f32 or bf16", name);
}

static bool match(const char *p, const char *end, const char *name)
{
    for (; p < end; p++, name++) {
        if (*p == '*') {
            for (const char *rest = name;; rest++) {
                if (match(p + 1, end, rest))
                    return true;
                if (!*rest)
                    return false;
            }
        }
        if (*p != *name)
            return false;
    }
    return !*name;
}

bool pv_pattern_match(const char *pattern, const char *name)
{
    for (const char *p = pattern;; p++) {
        const char *end = p + strcspn(p, "|");
        if (match(p, end, name))
            return true;
        if (!*end)
            return false;
        p = end;
    }
}

static bool is_number(pv_dtype dtype)
{
    return dtype != PV_I32 && dtype != PV_U8;
}

/* The dtype a product reads its activations in: that of its weight, once a rule has set it. */
static void cast_for_product(pv_graph *g, pv_node *n, const bool *ruled)
{
    pv_tensor *x = n->in[0], *w = n->in[1];
    if (!ruled[w->id] || w->dtype == PV_F32 || x->dtype != PV_F32)
        return;
    pv_node *cast = pv_node_add(g, pv_graph_printf(g, "%s.cast", n->name), PV_OP_CAST, 1, &x, NULL);
    if (!cast)
        return;
    cast->out[0]->dtype = w->dtype;
    n->in[0] = cast->out[0];
}

void pv_apply_recipe(pv_graph *g, const pv_recipe *recipe)
{
    if (g->status || !recipe || !recipe->n_rules)
        return;
    int n_old = g->n_nodes, n_tensors = g->n_tensors;
    bool *ruled = pv_arena_alloc(&g->arena, sizeof *ruled * (size_t)(n_tensors + 1));
    if (!ruled) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while applying recipe '%s'", recipe->name);
        return;
    }
    for (int i = 0; i < n_tensors; i++) {
        pv_tensor *t = g->tensors[i];
        bool open = t->usage == PV_WEIGHT ? !t->plus_one : t->usage == PV_STATE || t->usage == PV_SCRATCH;
        for (int r = 0; open && is_number(t->dtype) && r < recipe->n_rules; r++)
            if (pv_pattern_match(recipe->rules[r].pattern, t->usage == PV_STATE ? pv_state_root(t)->name : t->name)) {
                t->dtype = recipe->rules[r].dtype;
                ruled[t->id] = true;
            }
    }
    pv_node **old = g->nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < n_old; i++) {
        g->stage = old[i]->stage;
        if (old[i]->op == PV_OP_LINEAR)
            cast_for_product(g, old[i], ruled);
        pv_node_append(g, old[i]);
    }
}
