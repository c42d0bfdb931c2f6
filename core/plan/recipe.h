/* recipe.h - which dtype each tensor has, by name. Later rules win; what no rule names keeps its dtype: activations
 * f32, weights as the checkpoint stores them. Norm weights are f32 always (1 + w is formed in f32 and stays so).
 * An input stays as the host writes it and is read through a cast. Composites that `expand` names run as their bodies,
 * whose tensors then have names ("prefix.layer0.attn/softmax") and are rounded by the rules like any other. */
#ifndef PV_PLAN_RECIPE_H
#define PV_PLAN_RECIPE_H

#include "graph/graph.h"

typedef struct pv_rule {
    const char *pattern; /* '*' any run of characters, '|' between alternatives */
    pv_dtype dtype;
} pv_rule;

typedef struct pv_recipe {
    const char *name, *meaning;
    const pv_rule *rules;
    int n_rules;
    uint64_t expand; /* bits 1 << pv_op */
    bool rope_bf16;  /* RoPE's frequencies rounded to bf16: pv_pi05_shape */
} pv_recipe;

pv_status pv_recipe_find(const char *name, const pv_recipe **out); /* NULL: "f32" */
const pv_recipe *pv_recipe_list(int i);                            /* NULL behind the last */
const char *pv_recipe_names(char *out, size_t size);               /* "f32, bf16, ...": all of them */
bool pv_recipe_narrow(const pv_recipe *r);                         /* products of 16 bits? */
bool pv_pattern_match(const char *pattern, const char *name);

#endif
