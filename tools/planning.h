/* planning.h - a plan looked at while it is made: the graph after each pass, and the memory it would take.
 * Nothing of a checkpoint's data is read and nothing of a device is allocated. */
#ifndef PV_TOOLS_PLANNING_H
#define PV_TOOLS_PLANNING_H

#include "model/model.h"
#include "plan/plan.h"

#define PLANNING_PASSES 16

typedef struct planning_pass {
    const char *name;
    int nodes, stage_nodes[PV_STAGE_COUNT], op_nodes[PV_OP_COUNT];
    uint64_t weight_bytes; /* of the weights that its nodes read */
} planning_pass;

typedef struct planning_params {
    pv_pi05_shape shape;
    const char *recipe;
    int steps;
    const char *text_of; /* the pass whose graph is kept as text; NULL: none */
    bool dot;            /* that text is a digraph for dot(1) */
} planning_params;

typedef struct planning {
    planning_pass pass[PLANNING_PASSES];
    int n_passes;
    char *text;                     /* of params.text_of; NULL where there was no such pass */
    uint64_t bytes[PV_USAGE_COUNT]; /* of each buffer; PV_WEIGHT: all weights on the device */
    uint64_t table_bytes;           /* embedding table, on the host */
    uint64_t cache_bytes;           /* of PV_STATE: keys and values */
} planning;

pv_status planning_make(const pv_model *m, pv_backend *be, const planning_params *params, planning *out);
void planning_free(planning *p);

#endif
