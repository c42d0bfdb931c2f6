/* cost.h - where a run's time went, by op: counts, floating point operations, bytes, milliseconds, and the floor. */
#ifndef PV_TOOLS_COST_H
#define PV_TOOLS_COST_H

#include "rates.h"
#include "session/runner.h"

typedef struct cost_row {
    pv_stage stage;
    pv_op op;
    int64_t count; /* executions: of the denoise stage, nodes times steps */
    double ms;
    double flops; /* of products (linears, attention); 0 for ops that are not counted */
    double bytes; /* that must come from memory or go there: weights, constants, inputs and state, not what a stage makes for
                   * itself, which may stay in a cache */
    double floor_ms; /* node by node, the larger of flops and bytes at their rates */
} cost_row;

/* One row for each op of each stage, the costliest first (without node_ms, that with the highest floor); pv_free it.
 * `node_ms` [n_nodes], or NULL, is of one inference of `steps` steps with the runner's counts (prompt_len, ...) as they stand. */
pv_status cost_table(pv_runner *r, const double *node_ms, int steps, const rates *at, cost_row **out, int *n);

/* Of a stage; of all of them with PV_STAGE_COUNT, but for the schedule, which runs when times change. */
double cost_floor_ms(const cost_row *rows, int n, pv_stage stage);

#endif
