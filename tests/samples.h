/* samples.h - a node of each op, on shapes small enough to read: what docs/ops.md shows, what lower.c expands. */
#ifndef PV_TESTS_SAMPLES_H
#define PV_TESTS_SAMPLES_H

#include "graph/build.h"

#include <string.h>

static inline pv_tensor *sample_in(pv_graph *g, const char *name, int64_t rows, int64_t width)
{
    return pv_input(g, name, PV_F32, 2, (int64_t[]){rows, width}, NULL);
}

static inline pv_tensor *sample_ints(pv_graph *g, const char *name, int64_t n)
{
    return pv_input(g, name, PV_I32, 1, &n, NULL);
}

/* Adds a node named "out" of this op with all its optional inputs; NULL: the graph has failed, or the op is not here yet. */
static inline pv_node *sample(pv_graph *g, pv_op op)
{
    const pv_attention_attr a = {.heads = 8, .kv_heads = 1, .batch = 1, .first = 50, .scale = 0.0625f};
    pv_tensor *x = sample_in(g, "x", 50, 64), *in[PV_MAX_IN] = {x};
    pv_attr attr = {0};
    int n = 1;
#define IN(...) (n = (int)(sizeof((pv_tensor *[]){__VA_ARGS__}) / sizeof *in), memcpy(in, (pv_tensor *[]){__VA_ARGS__}, sizeof((pv_tensor *[]){__VA_ARGS__})))
    switch (op) {
    case PV_OP_LINEAR:
    case PV_OP_LINEAR_GELU:
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "b", 1, 256));
        break;
    case PV_OP_ATTENTION_SCORES:
        attr.attention = a;
        IN(sample_in(g, "q", 50, 512), sample_in(g, "k", 250, 64), sample_ints(g, "len", 1));
        break;
    case PV_OP_SOFTMAX:
        IN(pv_input(g, "s", PV_F32, 3, (int64_t[]){8, 50, 200}, NULL), sample_ints(g, "len", 1));
        break;
    case PV_OP_ATTENTION_VALUES:
        attr.attention = a;
        IN(pv_input(g, "p", PV_F32, 3, (int64_t[]){8, 50, 200}, NULL), sample_in(g, "v", 250, 64), sample_ints(g, "len", 1));
        break;
    case PV_OP_ATTENTION:
        attr.attention = a;
        IN(sample_in(g, "q", 50, 512), sample_in(g, "k", 250, 64), sample_in(g, "v", 250, 64), sample_ints(g, "len", 1));
        break;
    case PV_OP_RMS_NORM:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "w", 1, 64));
        break;
    case PV_OP_LAYER_NORM:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "w", 1, 64), sample_in(g, "b", 1, 64));
        break;
    case PV_OP_ADA_RMS_NORM:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "mod", 1, 192));
        break;
    case PV_OP_ROPE:
        attr.rope.heads = 4;
        IN(x, sample_in(g, "table", 300, 16), sample_ints(g, "positions", 50));
        break;
    case PV_OP_ROPE_STORE:
        attr.rope_store = (pv_rope_store_attr){.heads = 4, .first = 50};
        IN(x, sample_in(g, "table", 300, 16), sample_ints(g, "positions", 50), pv_state(g, "cache", PV_F32, 250, 64));
        break;
    case PV_OP_ROPE_CACHE:
        attr.rope_cache = (pv_rope_cache_attr){.heads = 4, .kv_heads = 1, .first = 50};
        IN(sample_in(g, "q", 50, 64), sample_in(g, "k", 50, 16), sample_in(g, "v", 50, 16), sample_in(g, "table", 300, 16),
           sample_ints(g, "positions", 50), pv_state(g, "k_cache", PV_F32, 250, 16), pv_state(g, "v_cache", PV_F32, 250, 16));
        break;
    case PV_OP_LINEAR_ROPE_CACHE:
        attr.linear_rope_cache = (pv_linear_rope_cache_attr){{.heads = 4, .kv_heads = 1, .first = 50}, PV_BF16};
        IN(x, sample_in(g, "w_q", 64, 64), sample_in(g, "w_k", 16, 64), sample_in(g, "w_v", 16, 64), sample_in(g, "table", 300, 16),
           sample_ints(g, "positions", 50), pv_state(g, "k_cache", PV_F32, 250, 16), pv_state(g, "v_cache", PV_F32, 250, 16));
        break;
    case PV_OP_ADD:
    case PV_OP_MUL:
        IN(x, sample_in(g, "y", 1, 64));
        break;
    case PV_OP_GEGLU:
        IN(sample_in(g, "gate", 50, 64), sample_in(g, "up", 50, 64));
        break;
    case PV_OP_SCALE:
        attr.scale.factor = 8;
        break;
    case PV_OP_GELU:
    case PV_OP_SILU:
    case PV_OP_CAST:
        break;
    case PV_OP_AXPY:
        IN(pv_state(g, "x_t", PV_F32, 50, 64), sample_in(g, "a", 1, 1), sample_in(g, "y", 50, 64));
        break;
    case PV_OP_CONCAT:
        IN(x, pv_input(g, "y", PV_F32, 2, (int64_t[]){20, 64}, sample_ints(g, "y_rows", 1)), sample_ints(g, "rows", 1));
        break;
    case PV_OP_SLICE:
        attr.range = (pv_range_attr){.first = 16, .size = 32};
        break;
    case PV_OP_ROW:
        IN(sample_in(g, "table", 10, 64), sample_ints(g, "i", 1));
        break;
    case PV_OP_STORE:
        attr.range.first = 50;
        IN(pv_state(g, "cache", PV_F32, 250, 64), x);
        break;
    case PV_OP_TRANSPOSE:
        attr.transpose = (pv_transpose_attr){.first = 50, .second = 4};
        break;
    case PV_OP_SCALE_FOR:
        attr.scale_for.dtype = PV_E4M3;
        break;
    case PV_OP_QUANTIZE:
    case PV_OP_DEQUANTIZE:
        IN(x, sample_in(g, "s", 50, 2));
        break;
    case PV_OP_LINEAR_SCALED:
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "s_x", 1, 1), sample_in(g, "s_w", 1, 1));
        break;
    case PV_OP_LINEAR_BLOCKS:
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "b", 256, 2), sample_in(g, "s", 1, 1));
        break;
    case PV_OP_GEGLU_QUANTIZE:
        IN(sample_in(g, "gate", 50, 64), sample_in(g, "up", 50, 64), sample_in(g, "s", 1, 1));
        break;
    case PV_OP_PATCHIFY:
        attr.patch.size = 14;
        IN(pv_input(g, "images", PV_U8, 4, (int64_t[]){2, 28, 28, 3}, NULL));
        break;
    case PV_OP_GATED_RESIDUAL:
        IN(x, sample_in(g, "y", 50, 64), sample_in(g, "mod", 1, 192));
        break;
    case PV_OP_GATED_NORM:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "y", 50, 64), sample_in(g, "mod", 1, 192), sample_in(g, "next", 1, 192));
        break;
    case PV_OP_EULER_STEP:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "mod", 1, 192), sample_in(g, "w", 32, 64), sample_in(g, "b", 1, 32), pv_state(g, "x_t", PV_F32, 50, 32),
           sample_in(g, "a", 1, 1));
        break;
    case PV_OP_EXPERT_BLOCK:
        attr.expert = (pv_expert_attr){.eps = 1e-6f, .heads = 8, .kv_heads = 1, .store = 0, .first = 0, .scale = 0.125f};
        IN(x, sample_in(g, "mod", 1, 192), sample_in(g, "mod_mlp", 1, 192), sample_in(g, "w_q", 512, 64),
           sample_in(g, "w_k", 64, 64), sample_in(g, "w_v", 64, 64), sample_in(g, "w_o", 64, 512), sample_in(g, "w_gate", 256, 64),
           sample_in(g, "w_up", 256, 64), sample_in(g, "w_down", 64, 256), sample_in(g, "table", 300, 64),
           sample_ints(g, "positions", 50), pv_state(g, "k", PV_F32, 250, 64), pv_state(g, "v", PV_F32, 250, 64),
           sample_ints(g, "len", 1));
        break;
    case PV_OP_LINEAR_GROUP:
        attr.group.n = 2;
        IN(x, sample_in(g, "w_1", 256, 64), sample_in(g, "w_2", 32, 64), sample_in(g, "b_1", 1, 256), sample_in(g, "b_2", 1, 32));
        break;
    case PV_OP_LINEAR_GEGLU:
        attr.linear_geglu.between = PV_BF16;
        IN(x, sample_in(g, "w_gate", 256, 64), sample_in(g, "w_up", 256, 64));
        break;
    case PV_OP_LINEAR_ADD:
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "residual", 50, 256), sample_in(g, "b", 1, 256));
        break;
    case PV_OP_LINEAR_GATED:
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "residual", 50, 256), sample_in(g, "mod", 1, 768), sample_in(g, "b", 1, 256));
        break;
    case PV_OP_LINEAR_GATED_NORM:
        attr.norm.eps = 1e-6f;
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "residual", 50, 256), sample_in(g, "mod", 1, 768), sample_in(g, "next", 1, 768));
        break;
    case PV_OP_LINEAR_ADD_NORM:
        attr.linear_add_norm = (pv_linear_add_norm_attr){1e-6f, false};
        IN(x, sample_in(g, "w", 256, 64), sample_in(g, "residual", 50, 256), sample_in(g, "weight", 1, 256));
        break;
    case PV_OP_COUNT:
        return NULL;
    }
#undef IN
    return pv_node_add(g, "out", op, n, in, &attr);
}

#endif
