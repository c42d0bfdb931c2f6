/* plan.h - a graph made ready for one backend, one recipe and fixed shapes.
 *
 *   graph -> prune and fold -> hoist (what depends on time alone) -> recipe -> fuse -> lower -> place
 *
 * A plan knows every byte it will need before any is allocated. It holds no memory of the device; an instance does. */
#ifndef PV_PLAN_PLAN_H
#define PV_PLAN_PLAN_H

#include "backend.h"
#include "recipe.h"
#include "weights.h"

typedef struct pv_plan_params {
    const pv_recipe *recipe; /* NULL: f32 */
    int steps;               /* rows of the tables that have one row a step; at least 1 */
    uint64_t expand;         /* bits 1 << pv_op: run this op's body although the backend claims the op */
    bool no_fold;
    void (*on_pass)(void *user, const char *pass, const pv_graph *g); /* after each pass, "build" first */
    void *user;
    bool (*hold)(void *user, const pv_tensor *t); /* keep what this node's output holds until the next run? Asked when
                                                   * only `place` is left: the nodes are those of the plan without it */
    void *hold_user;
} pv_plan_params;

typedef struct pv_plan {
    pv_backend *backend;
    pv_graph *graph;
    pv_program program;
    size_t weight_bytes;
} pv_plan;

/* Takes the graph, whether it succeeds or not (*g becomes NULL). PV_E_NO_KERNEL lists what the backend lacks. */
pv_status pv_plan_create(pv_backend *be, pv_graph **g, const pv_plan_params *params, pv_plan **out);
void pv_plan_destroy(pv_plan **plan);

/* Of what it computes: plans of equal hash do the same operations on the same shapes and dtypes. PV_E_MEMORY. */
pv_status pv_plan_hash(const pv_plan *plan, uint64_t *hash);

/* Whether the device has room for the plan and what it needs beyond `weights`; PV_E_MEMORY: no, with needed, free and the
 * largest parts. For asking before gigabytes are loaded; the backend may not know (PV_OK). */
pv_status pv_plan_room(const pv_plan *plan, const pv_weights *weights);

/* Puts the largest weights, and of `bytes` (NULL: none) the largest buffers, behind PV_E_MEMORY's words. */
pv_status pv_no_room(pv_status st, const pv_graph *g, const size_t bytes[PV_USAGE_COUNT]);

/* The passes, in the order in which they run. Each leaves a valid graph; failures are in the graph. */
void pv_prune(pv_graph *g);                                        /* drops nodes that no output needs */
void pv_fold(pv_graph *g);                                         /* computes what depends on constants alone */
void pv_hoist(pv_graph *g, int steps);                             /* moves what depends on time alone to `schedule` */
void pv_apply_recipe(pv_graph *g, const pv_recipe *recipe);        /* dtypes, and casts where two sides differ */
void pv_fuse(pv_graph *g, const pv_backend *be);                   /* rules across op borders, where claimed */
void pv_lower(pv_graph *g, const pv_backend *be, uint64_t expand); /* claim or expand */
void pv_place(pv_graph *g, size_t bytes[PV_USAGE_COUNT]);          /* offsets in the buffers */

/* fuse_expert.c, a rule of pv_fuse: node `at` ends a layer of the action expert, and the layer becomes one node. */
bool pv_fuse_expert(pv_graph *g, const pv_backend *be, int at);

/* The body of composite `n` in its place: its nodes, and what they make takes the place of n's outputs. NULL: the graph has failed.
 * The graph's list of nodes is as it was; whoever asks appends them. */
pv_node **pv_expand(pv_graph *g, pv_node *n, int *n_nodes);

/* Nodes that read `t`, counted by inputs. */
int pv_consumers(const pv_graph *g, const pv_tensor *t);

#endif
