/* verify_local.h - one op on its own: the CPU runs a node of a backend's plan on the inputs that the backend
 * had. What it makes of them differs from what the backend made by the error of that op alone; what came with
 * the inputs does not count.
 *
 * A composite runs as its body, so the CPU's result is the plain meaning of whatever kernel the backend has.
 * Weights are the CPU's own, read from the checkpoint once more: one that a backend loaded wrongly shows at
 * the op that reads it. */
#ifndef PV_TOOLS_VERIFY_LOCAL_H
#define PV_TOOLS_VERIFY_LOCAL_H

#include "session/runner.h"

typedef struct verify_op {
    pv_plan *plan; /* of this node alone; out: its outputs, in the node's order */
    pv_instance *inst;
    const pv_tensor *out[PV_MAX_OUT];
} verify_op;

/* Runs `n`, of a plan that stands as it stood when the node had run. x_t: the bytes of runner->x_t before the
 * step. The table rows that a step reads are taken from their tables: a backend may read them in place.
 * PV_E_NO_KERNEL: the CPU cannot. */
pv_status verify_op_run(verify_op *op, pv_backend *cpu, const pv_weights *weights, pv_runner *runner,
                        const pv_node *n, int step, const void *x_t);
void verify_op_free(verify_op *op);

/* Relative L2 that an honest kernel keeps, of `elements` of one output of `body`, the nodes that say its op,
 * lowered for the CPU. See verify_budget.c. Negative: out of memory. */
double verify_budget(pv_graph *body, const pv_tensor *out, int64_t elements);

#endif
