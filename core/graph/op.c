/* op.c - ops.def as an array. infer_<name> is in infer.c, body_<name> in body.c. */
#include "op.h"

#define OP(ENUM, name, min_in, max_in, attr, flags, body, meaning)                                           \
    pv_status infer_##name(struct pv_graph *g, struct pv_node *n);
#include "ops.def"

void body_attention(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_ada_rms_norm(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_gated_residual(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_geglu(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_scaled(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_blocks(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_geglu_quantize(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_group(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_add(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_geglu(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_gelu(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_gated(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_gated_norm(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_gated_norm(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_add_norm(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_euler_step(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_rope_cache(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_linear_rope_cache(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_rope_store(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);
void body_expert_block(struct pv_graph *g, const struct pv_node *n, struct pv_tensor **out);

const pv_op_info pv_ops[PV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, attr, flags, body, meaning)                                           \
    {#name, min_in, max_in, flags, body, infer_##name, #attr, meaning},
#include "ops.def"
};
