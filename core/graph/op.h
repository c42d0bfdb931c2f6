/* op.h - the op table as C: enum, attributes, and one info entry for each op. Made from ops.def. */
#ifndef PV_GRAPH_OP_H
#define PV_GRAPH_OP_H

#include "base/dtype.h"

struct pv_graph;
struct pv_node;
struct pv_tensor;

typedef enum pv_op {
#define OP(ENUM, name, min_in, max_in, attr, flags, body, meaning) PV_OP_##ENUM,
#include "ops.def"
    PV_OP_COUNT
} pv_op;

typedef struct pv_none_attr {
    char unused;
} pv_none_attr;
typedef struct pv_norm_attr {
    float eps;
} pv_norm_attr;
typedef struct pv_attention_attr {
    int heads, kv_heads; /* heads is a multiple of kv_heads */
    int batch;           /* independent sequences, one after the other along the rows of q, k and v */
    int64_t first;       /* the first key row that takes part */
    float scale;
} pv_attention_attr;
typedef struct pv_rope_attr {
    int heads;
} pv_rope_attr;
typedef struct pv_scale_attr {
    float factor;
} pv_scale_attr;
typedef struct pv_range_attr {
    int64_t first, size;
} pv_range_attr;
typedef struct pv_patch_attr {
    int size;
} pv_patch_attr;
typedef struct pv_transpose_attr {
    int64_t first, second; /* how many there are of each */
} pv_transpose_attr;
typedef struct pv_scale_for_attr {
    pv_dtype dtype; /* e4m3 or e2m1 */
} pv_scale_for_attr;
typedef struct pv_group_attr {
    int n; /* linears in the group */
} pv_group_attr;
typedef struct pv_linear_geglu_attr {
    pv_dtype between; /* of gate and up */
} pv_linear_geglu_attr;
typedef struct pv_rope_store_attr {
    int heads;
    int64_t first;
} pv_rope_store_attr;
typedef struct pv_expert_attr {
    float eps;
    int heads, kv_heads;  /* heads is a multiple of kv_heads */
    int64_t store, first; /* the row of the caches that gets row 0; the first key row that takes part */
    float scale;
} pv_expert_attr;

typedef struct pv_rope_cache_attr {
    int heads, kv_heads;
    int64_t first;
} pv_rope_cache_attr;

typedef struct pv_linear_rope_cache_attr {
    pv_rope_cache_attr rope_cache;
    pv_dtype between; /* of q, k and v */
} pv_linear_rope_cache_attr;

typedef struct pv_linear_add_norm_attr {
    float eps;
    bool layer; /* layer_norm, which has a bias; else rms_norm */
} pv_linear_add_norm_attr;

typedef union pv_attr {
    pv_none_attr none;
    pv_norm_attr norm;
    pv_attention_attr attention;
    pv_rope_attr rope;
    pv_scale_attr scale;
    pv_range_attr range;
    pv_patch_attr patch;
    pv_transpose_attr transpose;
    pv_scale_for_attr scale_for;
    pv_group_attr group;
    pv_linear_geglu_attr linear_geglu;
    pv_rope_store_attr rope_store;
    pv_expert_attr expert;
    pv_rope_cache_attr rope_cache;
    pv_linear_rope_cache_attr linear_rope_cache;
    pv_linear_add_norm_attr linear_add_norm;
} pv_attr;

#define PV_OP_ROW_WISE 1u

/* Says node `n` with other ops; out[i] gets the tensor that stands for n->out[i]. */
typedef void (*pv_body_fn)(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
/* Sets number, shape and row count of the outputs from the inputs, or fails with words. */
typedef pv_status (*pv_infer_fn)(struct pv_graph *g, struct pv_node *n);

typedef struct pv_op_info {
    const char *name;
    int min_in, max_in;
    unsigned flags;
    pv_body_fn body; /* NULL: primitive */
    pv_infer_fn infer;
    const char *attr; /* kind of attributes, "none" for none */
    const char *meaning;
} pv_op_info;

extern const pv_op_info pv_ops[PV_OP_COUNT];

#endif
