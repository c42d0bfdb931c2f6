/* pi05.c - Pi0.5, written as the paper has it.
 *
 *   images --SigLIP--> image tokens \
 *                                    prefix --Gemma 2B--> K, V of every layer
 *   prompt --------> prompt tokens  /                         |
 *   noise x_t --> action tokens --Gemma 300M, adaRMS by time--> v_t;   x_t += dt v_t
 *
 * The prefix is packed: absent cameras are not fed and prompt tokens stand at the front, so a count takes the place of
 * the mask, exactly: masked keys have weight 0, positions count real tokens, and every real token sees every other
 * (openpi's prefix is all-to-all, its suffix sees itself and the prefix in full: pi0_pytorch.py, embed_suffix sets one
 * 1 and then zeros). t = 1 is noise, t = 0 are the actions. */
#include "pi05.h"
#include "base/memory.h"
#include "blocks.h"

#include <math.h>

#define VISION "paligemma_with_expert.paligemma.model.vision_tower.vision_model"
#define PREFIX "paligemma_with_expert.paligemma.model.language_model"
#define EXPERT "paligemma_with_expert.gemma_expert.model"

typedef struct policy {
    const pv_config *c;
    const pv_pi05_shape *shape;
    int64_t prefix;                        /* capacity in tokens */
    pv_tensor *rope;                       /* cos | sin of every position */
    pv_tensor *prompt_len, *prefix_len, *kv_len;
    pv_kv *cache;                          /* [depth] */
} policy;

/* cos and sin of inv_freq x position, both formed in float32 as transformers does; a row for each position. */
static pv_tensor *rope_table(pv_graph *g, const policy *p)
{
    int64_t head = p->c->gemma.head_dim, half = head / 2, positions = p->prefix + p->c->horizon;
    float *table = pv_alloc(pv_mul_size((size_t)(positions * head), sizeof *table));
    if (!table) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory for the table of positions");
        return NULL;
    }
    for (int64_t j = 0; j < half; j++) {
        float power = (float)pow(p->c->rope_theta, (double)((float)(2 * j) / (float)head)), inv_freq = 1.0f / power;
        if (p->shape->rope_bf16)
            inv_freq = pv_bf16_to_f32(pv_f32_to_bf16(inv_freq));
        for (int64_t at = 0; at < positions; at++) {
            float angle = inv_freq * (float)at;
            table[at * head + j] = (float)cos((double)angle);
            table[at * head + half + j] = (float)sin((double)angle);
        }
    }
    pv_tensor *t = pv_const(g, "rope", PV_F32, 2, (int64_t[]){positions, head}, table);
    pv_free(table);
    return t;
}

static pv_tensor *count(pv_graph *g, const char *name)
{
    return pv_input(g, name, PV_I32, 1, (int64_t[]){1}, NULL);
}

/* Image tokens, projected to the width of the prefix. */
static pv_tensor *see(pv_graph *g, const policy *p)
{
    const pv_siglip_config *v = &p->c->vision;
    g->stage = PV_STAGE_VISION;
    pv_tensor *images = pv_input(g, "images", PV_U8, 4, (int64_t[]){p->shape->views, v->image, v->image, 3}, NULL);
    pv_scope_push(g, "vision");
    pv_tensor *x = pv_siglip(g, v, p->c->layer_norm_eps, images, VISION);
    x = pv_dense(g, "projected", x, p->c->gemma.width, true,
                 "paligemma_with_expert.paligemma.model.multi_modal_projector.linear");
    pv_scope_pop(g);
    return x;
}

static pv_tensor *prefix_block(pv_graph *g, const policy *p, pv_tensor *x, pv_rotation rope, pv_kv *cache, const char *w)
{
    const pv_gemma_config *c = &p->c->gemma;
    pv_span span = {.store = p->c->horizon, .first = p->c->horizon, .len = p->prefix_len};
    pv_tensor *h = pv_gemma_norm(g, "attn_norm", x, p->c->rms_norm_eps, "%s.input_layernorm.weight", w);
    x = pv_add(g, "attn_sum", x, pv_gemma_attention(g, c, h, rope, cache, span, w));
    h = pv_gemma_norm(g, "mlp_norm", x, p->c->rms_norm_eps, "%s.post_attention_layernorm.weight", w);
    return pv_add(g, "out", x, pv_gemma_mlp(g, c, h, w));
}

/* Fills the cache. Its last hidden state feeds nothing: planning drops it, and with it most of the last block. */
static void read_prefix(pv_graph *g, policy *p, pv_tensor *image_tokens)
{
    int64_t width = p->c->gemma.width;
    g->stage = PV_STAGE_PREFIX;
    pv_dtype stored = g->stored_dtype ? g->stored_dtype(g->stored_user, PV_EMBEDDING_NAME) : PV_F32;
    pv_tensor *prompt = pv_input(g, "prompt", stored, 2, (int64_t[]){p->shape->tokens, width}, p->prompt_len);
    pv_scope_push(g, "prefix");
    pv_tensor *positions = pv_input(g, "position_ids", PV_I32, 1, &p->prefix, NULL);
    const char *embs = image_tokens ? "prompt_embs" : "embs";
    pv_tensor *x = pv_scale(g, embs, prompt, (float)sqrt((double)width));
    if (image_tokens)
        x = pv_concat(g, "embs", image_tokens, x, p->prefix_len);
    for (int i = 0; i < p->c->gemma.depth; i++) {
        pv_scope_push(g, "layer%d", i);
        const char *w = pv_graph_printf(g, PREFIX ".layers.%d", i);
        x = prefix_block(g, p, x, (pv_rotation){p->rope, positions}, &p->cache[i], w);
        pv_scope_pop(g);
    }
    pv_gemma_norm(g, "norm_out", x, p->c->rms_norm_eps, PREFIX ".norm.weight");
    pv_scope_pop(g);
}

/* Scale, shift and gate from the time: the adaptive part of adaRMS. */
static pv_tensor *modulation(pv_graph *g, const policy *p, const char *name, pv_tensor *cond, const char *w, const char *part)
{
    return pv_dense(g, name, cond, 3 * (int64_t)p->c->expert.width, true, "%s.%s.dense", w, part);
}

static pv_tensor *expert_block(pv_graph *g, const policy *p, pv_tensor *x, pv_tensor *cond, pv_rotation rope, pv_kv *cache,
                               const char *w)
{
    const pv_gemma_config *c = &p->c->expert;
    pv_span span = {.store = 0, .first = 0, .len = p->kv_len};
    pv_tensor *mod = modulation(g, p, "ada_in", cond, w, "input_layernorm");
    pv_tensor *h = pv_ada_rms_norm(g, "attn_norm", x, mod, p->c->rms_norm_eps);
    x = pv_gated_residual(g, "attn_sum", x, pv_gemma_attention(g, c, h, rope, cache, span, w), mod);
    mod = modulation(g, p, "ada_post", cond, w, "post_attention_layernorm");
    h = pv_ada_rms_norm(g, "mlp_norm", x, mod, p->c->rms_norm_eps);
    return pv_gated_residual(g, "out", x, pv_gemma_mlp(g, c, h, w), mod);
}

/* The condition of adaRMS: SiLU after each of the two layers of the time MLP. */
static pv_tensor *condition(pv_graph *g, const policy *p, pv_tensor *time_emb)
{
    pv_tensor *h = pv_silu(g, NULL, pv_dense(g, NULL, time_emb, p->c->expert.width, true, "time_mlp_in"));
    return pv_silu(g, "cond", pv_dense(g, NULL, h, p->c->expert.width, true, "time_mlp_out"));
}

static pv_tensor *velocity(pv_graph *g, policy *p, pv_tensor *x_t, pv_tensor *cond)
{
    const pv_config *c = p->c;
    int64_t horizon = c->horizon;
    pv_rotation rope = {p->rope, pv_input(g, "position_ids", PV_I32, 1, &horizon, NULL)};
    pv_tensor *x = pv_dense(g, "suffix_in", x_t, c->expert.width, true, "action_in_proj");
    for (int i = 0; i < c->expert.depth; i++) {
        pv_scope_push(g, "layer%d", i);
        const char *w = pv_graph_printf(g, EXPERT ".layers.%d", i);
        x = expert_block(g, p, x, cond, rope, &p->cache[i], w);
        pv_scope_pop(g);
    }
    pv_tensor *mod = modulation(g, p, "ada_final", cond, EXPERT, "norm");
    x = pv_ada_rms_norm(g, "norm_out", x, mod, c->rms_norm_eps);
    return pv_dense(g, "v_t", x, c->action_dim, true, "action_out_proj");
}

/* One Euler step: x_t <- x_t + dt v(x_t, t), dt < 0. */
static void denoise(pv_graph *g, policy *p)
{
    g->stage = PV_STAGE_DENOISE;
    pv_scope_push(g, "step");
    pv_tensor *x_t = pv_state(g, "x_t", PV_F32, p->c->horizon, p->c->action_dim);
    pv_tensor *time_emb = pv_input_per_step(g, "time_emb", p->c->expert.width);
    pv_tensor *dt = pv_input_per_step(g, "dt", 1);
    pv_tensor *v_t = velocity(g, p, x_t, condition(g, p, time_emb));
    pv_tensor *x_next = pv_axpy(g, "x_next", x_t, dt, v_t);
    if (x_next)
        x_next->output = true;
    pv_scope_pop(g);
}

void pv_pi05_build(pv_graph *g, const pv_config *c, const pv_pi05_shape *shape)
{
    policy p = {.c = c, .shape = shape, .prefix = (int64_t)shape->views * pv_image_tokens(c) + shape->tokens};
    int64_t kv_width = (int64_t)c->gemma.kv_heads * c->gemma.head_dim;
    p.cache = pv_arena_alloc(&g->arena, sizeof *p.cache * (size_t)c->gemma.depth);
    if (!p.cache) {
        pv_graph_fail(g, PV_E_MEMORY, "out of memory while building the graph");
        return;
    }
    p.rope = rope_table(g, &p);
    p.prompt_len = count(g, "prompt_len");
    p.prefix_len = count(g, "prefix_len");
    p.kv_len = count(g, "kv_len");
    for (int i = 0; i < c->gemma.depth; i++) {
        p.cache[i].k = pv_state(g, pv_graph_printf(g, "cache.layer%d.k", i), PV_F32, c->horizon + p.prefix, kv_width);
        p.cache[i].v = pv_state(g, pv_graph_printf(g, "cache.layer%d.v", i), PV_F32, c->horizon + p.prefix, kv_width);
    }
    pv_tensor *image_tokens = shape->views ? see(g, &p) : NULL;
    if (!g->status)
        read_prefix(g, &p, image_tokens);
    if (!g->status)
        denoise(g, &p);
}
