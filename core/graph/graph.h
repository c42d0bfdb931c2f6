/* graph.h - a policy as ops: tensors, nodes in build order, stages, and an error that sticks.
 *
 * Rows: a tensor is row-major; its rows are dim[n_dims - 2] (a vector is one row). `rows`, where set, is an i32[1]
 * tensor that tells at run time how many of them are valid. Kernels touch those alone: what stands behind them may be
 * anything, NaN included, and never reaches a result. This takes the place of masks.
 *
 * State: memory that outlives a run (K/V cache, x_t). A node that writes a state returns its next version: a new
 * tensor on the same bytes (`base` is the version before). So every hazard is an edge of the graph.
 *
 * Names are those of the traces (`prefix.layer3.k`, `step.layer0.attn_out`), made of the scope and the name given. */
#ifndef PV_GRAPH_GRAPH_H
#define PV_GRAPH_GRAPH_H

#include "base/arena.h"
#include "op.h"

#define PV_MAX_DIMS 4
#define PV_MAX_IN   15
#define PV_MAX_OUT  4
#define PV_NOWHERE  SIZE_MAX

typedef enum pv_usage {
    PV_WEIGHT,  /* from the checkpoint, by name */
    PV_CONST,   /* data known when the graph is built */
    PV_IO,      /* written by the host before a run */
    PV_STATE,   /* lives from run to run and from stage to stage */
    PV_SCRATCH, /* lives between the node that makes it and the last that reads it */
    PV_USAGE_COUNT
} pv_usage;

typedef enum pv_stage {
    PV_STAGE_VISION,   /* pictures -> image tokens */
    PV_STAGE_PREFIX,   /* image and prompt tokens -> K and V of every layer */
    PV_STAGE_SCHEDULE, /* times -> what depends on time and weights alone */
    PV_STAGE_DENOISE,  /* one step of the flow, run `steps` times */
    PV_STAGE_COUNT
} pv_stage;

typedef struct pv_tensor {
    const char *name;
    pv_dtype dtype;
    int n_dims;
    int64_t dim[PV_MAX_DIMS];
    pv_usage usage;
    struct pv_tensor *rows;    /* i32[1] or NULL: all rows are valid */
    struct pv_tensor *base;    /* state: the version before, on the same bytes */
    struct pv_node *producer;  /* NULL for weights, constants, inputs and first versions of states */
    const void *data;          /* constants */
    bool plus_one;             /* weights: 1 + w is formed in f32 when it is loaded (Gemma's norms) */
    bool per_step;             /* one row for each denoising step; made [steps, ...] by hoist.c */
    bool is_step;              /* the graph's `step`: an input that the backend writes, in the midst of a run */
    bool output;               /* kept until the next run, so that it can be read */
    int id;                    /* index in the graph */
    size_t offset;             /* place.c: in the buffer of its usage; PV_NOWHERE: nothing needs it, or a weight */
} pv_tensor;

typedef struct pv_node {
    pv_op op;
    const char *name; /* that of its first output */
    pv_stage stage;
    int n_in, n_out;
    pv_tensor *in[PV_MAX_IN]; /* optional inputs at the end may be absent: n_in tells; none is NULL */
    pv_tensor *out[PV_MAX_OUT];
    pv_attr attr;
} pv_node;

typedef struct pv_graph {
    pv_arena arena;
    pv_status status; /* sticky; the words are in `error` */
    const char *error;
    pv_node **nodes;
    int n_nodes, cap_nodes;
    pv_tensor **tensors;
    int n_tensors, cap_tensors;
    pv_stage stage; /* of nodes added now */
    char scope[160];
    pv_tensor *step; /* i32[1], made by hoist.c: which step runs; NULL while nobody reads it */
    /* What dtype the checkpoint stores a weight in; NULL: f32. */
    pv_dtype (*stored_dtype)(const void *user, const char *name);
    const void *stored_user;
} pv_graph;

pv_graph *pv_graph_create(void);
void pv_graph_destroy(pv_graph **g);

/* First failure wins; returns its status. pv_graph_status sets pv_error_text() to the words of that failure. */
pv_status pv_graph_fail(pv_graph *g, pv_status status, const char *fmt, ...) PV_PRINTF(3, 4);
pv_status pv_graph_status(const pv_graph *g);

/* Text that lives as long as the graph; never NULL: where there is no memory the graph fails. */
const char *pv_graph_printf(pv_graph *g, const char *fmt, ...) PV_PRINTF(2, 3);
const char *pv_graph_vprintf(pv_graph *g, const char *fmt, va_list ap);

/* Puts "NAME." in front of names given from now on; pop takes the last part off. */
void pv_scope_push(pv_graph *g, const char *fmt, ...) PV_PRINTF(2, 3);
void pv_scope_pop(pv_graph *g);

pv_tensor *pv_input(pv_graph *g, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim, pv_tensor *rows);
pv_tensor *pv_input_per_step(pv_graph *g, const char *name, int64_t width); /* f32 [1, width], another each step */
pv_tensor *pv_state(pv_graph *g, const char *name, pv_dtype dtype, int64_t rows, int64_t width);
pv_tensor *pv_const(pv_graph *g, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim, const void *data);

/* A weight by its full checkpoint name (no scope); asked for twice, it is the same tensor. */
pv_tensor *pv_weight(pv_graph *g, int n_dims, const int64_t *dim, const char *fmt, ...) PV_PRINTF(4, 5);

/* For passes and bodies: a node appended with its outputs inferred; NULL once the graph has failed. */
pv_node *pv_node_add(pv_graph *g, const char *name, pv_op op, int n_in, pv_tensor *const *in, const pv_attr *attr);
pv_tensor *pv_tensor_add(pv_graph *g, const char *full_name, pv_usage usage, pv_dtype dtype, int n_dims,
                         const int64_t *dim);
void pv_node_append(pv_graph *g, pv_node *n);

pv_tensor *pv_graph_find(const pv_graph *g, const char *name);
int64_t pv_elements(const pv_tensor *t);
size_t pv_tensor_bytes(const pv_tensor *t);
static inline int64_t pv_width(const pv_tensor *t)
{
    return t->dim[t->n_dims - 1];
}
static inline int64_t pv_row_count(const pv_tensor *t) /* of one matrix: dim[n_dims - 2] */
{
    return t->n_dims > 1 ? t->dim[t->n_dims - 2] : 1;
}
const pv_tensor *pv_state_root(const pv_tensor *t); /* the first version; t itself if it is none */

/* dump.c: one line a node; or a digraph for dot(1). The text is pv_alloc'ed: pv_free it. NULL: out of memory. */
char *pv_graph_text(const pv_graph *g);
char *pv_graph_dot(const pv_graph *g);
const char *pv_stage_name(pv_stage stage);
const char *pv_usage_name(pv_usage usage);

#endif
