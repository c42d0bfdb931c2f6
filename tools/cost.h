/* cost.h - where a run's time went, by op: counts, floating point operations, milliseconds. */
#ifndef PV_TOOLS_COST_H
#define PV_TOOLS_COST_H

#include "session/runner.h"

typedef struct cost_row {
    pv_stage stage;
    pv_op op;
    int64_t count; /* executions: of the denoise stage, nodes times steps */
    double ms;
    double flops; /* of products (linears, attention); 0 for ops that are not counted */
} cost_row;

/* One row for each op of each stage, the costliest first; pv_free it. `node_ms` [n_nodes] is of one inference
 * of `steps` steps with the runner's counts (prompt_len, ...) as they stand. */
pv_status cost_table(pv_runner *r, const double *node_ms, int steps, cost_row **out, int *n);

#endif
