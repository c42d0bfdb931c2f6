/* recipe.c - the recipes, and their application: dtypes by name, cast nodes where two sides differ. */
#include "recipe.h"
#include "plan.h"

#include <stdio.h>
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

/* openpi's PyTorch model as it is served (models_pytorch/gemma_pytorch.py, to_bfloat16_for_selected_params, and the modules it
 * replaces in transformers): bf16 all through and rounded behind each module's each operation, but for what it keeps f32. Patch and
 * position embedding, weights of Gemma's norms, adaRMS's products, action and time projections stay f32, and so does what a
 * fused kernel of PyTorch holds: the inside of a norm, of softmax, of GELU, of SigLIP's attention (SDPA). Gemma's attention
 * is eager: scores and weights are rounded. */
#define OPENPI_GEMMA                                                                                                   \
    {"*language_model*_proj.weight|*gemma_expert*_proj.weight", PV_BF16}, {"action_*|time_*", PV_F32},                 \
        {"prompt|rope|cache.*|prefix.*|step.layer*|step.suffix_in|step.norm_out", PV_BF16},                            \
        {"step.layer*.ada_*", PV_F32}

static const pv_rule openpi_rules[] = {
    OPENPI_GEMMA,
    {"*vision_tower*.encoder.*|*vision_tower*.post_layernorm.*|*multi_modal_projector.linear.*", PV_BF16},
    {"vision.embeddings|vision.layer*|vision.post_ln|vision.projected", PV_BF16},
    {"vision.layer*.attn/*", PV_F32},
};

/* lerobot keeps the vision tower and the projector f32. */
static const pv_rule lerobot_rules[] = {
    OPENPI_GEMMA,
    {"*vision_tower*|*multi_modal_projector*", PV_F32},
};

/* What those two round within these. */
#define OPENPI_EXPAND                                                                                                  \
    ((uint64_t)1 << PV_OP_ATTENTION | (uint64_t)1 << PV_OP_GEGLU | (uint64_t)1 << PV_OP_GATED_RESIDUAL)
#define N(rules) (int)(sizeof(rules) / sizeof *(rules))

static const pv_recipe recipes[] = {
    {"f32", "f32 arithmetic on weights as stored", NULL, 0, 0, false},
    {"bf16", "bf16 weights and activations; residual, norms, softmax, adaRMS, time and integrator f32", bf16_rules,
     N(bf16_rules), 0, false},
    {"openpi", "rounds where openpi's PyTorch serving does: bf16 residual and attention weights, RoPE's frequencies too",
     openpi_rules, N(openpi_rules), OPENPI_EXPAND, true},
    {"lerobot", "rounds where lerobot's bf16 does: as openpi, with vision in f32", lerobot_rules, N(lerobot_rules),
     OPENPI_EXPAND, true},
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
    char names[128];
    return pv_fail(PV_E_ARG, "recipe '%s': expected one of %s", name, pv_recipe_names(names, sizeof names));
}

const char *pv_recipe_names(char *out, size_t size)
{
    size_t at = 0;
    for (int i = 0; i < N_RECIPES && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", recipes[i].name);
    return out;
}

bool pv_recipe_narrow(const pv_recipe *r)
{
    return r && r->n_rules > 0;
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

static void open_bodies(pv_graph *g, uint64_t which)
{
    pv_node **old = g->nodes;
    int n_old = g->n_nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < n_old && !g->status; i++) {
        if (!(which >> old[i]->op & 1)) {
            pv_node_append(g, old[i]);
            continue;
        }
        int n = 0;
        pv_node **body = pv_expand(g, old[i], &n);
        for (int k = 0; k < n && !g->status; k++)
            pv_node_append(g, body[k]);
    }
}

/* Constants are the plan's own, so they are made anew; those that are numbers are f32 up to here. */
static void round_const(pv_graph *g, pv_tensor *t, pv_dtype dtype)
{
    size_t n = (size_t)pv_elements(t);
    void *data = pv_arena_alloc(&g->arena, pv_dtype_bytes(dtype, n));
    if (!data) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while rounding constant '%s'", t->name);
        return;
    }
    pv_from_f32(data, t->data, dtype, n);
    t->data = data;
    t->dtype = dtype;
}

/* Before the nodes that read it, in the stage of the first of them. */
static void cast_input(pv_graph *g, pv_node *n, pv_tensor **narrow, const pv_dtype *to)
{
    for (int k = 0; k < n->n_in; k++) {
        pv_tensor *t = n->in[k];
        if (t->usage != PV_IO || to[t->id] == t->dtype)
            continue;
        if (!narrow[t->id]) {
            pv_node *cast = pv_node_add(g, pv_graph_printf(g, "%s.cast", t->name), PV_OP_CAST, 1, &t, NULL);
            if (!cast)
                return;
            cast->out[0]->dtype = to[t->id];
            narrow[t->id] = cast->out[0];
        }
        n->in[k] = narrow[t->id];
    }
}

void pv_apply_recipe(pv_graph *g, const pv_recipe *recipe)
{
    if (g->status || !recipe || !recipe->n_rules)
        return;
    if (recipe->expand)
        open_bodies(g, recipe->expand);
    if (g->status)
        return;
    int n_old = g->n_nodes, n_tensors = g->n_tensors;
    bool *ruled = pv_arena_alloc(&g->arena, sizeof *ruled * (size_t)(n_tensors + 1));
    pv_tensor **narrow = pv_arena_alloc(&g->arena, sizeof *narrow * (size_t)(n_tensors + 1));
    pv_dtype *input = pv_arena_alloc(&g->arena, sizeof *input * (size_t)(n_tensors + 1));
    if (!ruled || !narrow || !input) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while applying recipe '%s'", recipe->name);
        return;
    }
    for (int i = 0; i < n_tensors; i++) {
        pv_tensor *t = g->tensors[i];
        input[t->id] = t->dtype;
        if (!is_number(t->dtype) || (t->usage == PV_WEIGHT && t->plus_one))
            continue;
        pv_dtype dtype = t->dtype;
        for (int r = 0; r < recipe->n_rules; r++)
            if (pv_pattern_match(recipe->rules[r].pattern, t->usage == PV_STATE ? pv_state_root(t)->name : t->name)) {
                dtype = recipe->rules[r].dtype;
                ruled[t->id] = true;
            }
        if (t->usage == PV_IO)
            input[t->id] = dtype;
        else if (t->usage == PV_CONST && dtype != t->dtype)
            round_const(g, t, dtype);
        else
            t->dtype = dtype;
    }
    pv_node **old = g->nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < n_old; i++) {
        g->stage = old[i]->stage;
        cast_input(g, old[i], narrow, input);
        if (old[i]->op == PV_OP_LINEAR)
            cast_for_product(g, old[i], ruled);
        pv_node_append(g, old[i]);
    }
}
