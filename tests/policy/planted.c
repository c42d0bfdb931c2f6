/* planted.c - does verify name the culprit, and does its structure notice who is seen that should not be? The
 * CPU with a fault planted in it, one after the other: mistakes that a port of this model makes. For each the
 * op is named that is wrong, before all that is only fed by it; in f32 every one of them, in bf16 but for
 * those that drown in its rounding. docs/precision.md has the table, which `test_planted --write FILE` writes
 * and the test reads again.
 *
 * The backend is the CPU's with a run loop of its own, so that a node's inputs, attributes and result can be
 * bent on the way. */
#include "backends/cpu/cpu.h"
#include "base/memory.h"
#include "plan/recipe.h"
#include "tests/test.h"
#include "tools/verify.h"
#include "tools/verify_structure.h"

#define STEPS 2
#define VIEWS 2
#define WORDS 5

typedef struct call { /* of one node, about to run or just run */
    cpu_call c;
    pv_node node; /* c.node, to be bent */
    pv_recording *rec;
    void *own[PV_MAX_IN]; /* copies of inputs, to be bent */
} call;

typedef struct fault {
    const char *what;
    const char *where;             /* pattern of the names of what the bent nodes make; NULL: `data` alone */
    const char *first;             /* what verify must name */
    int step;                      /* and in which step; -1: it is not of a step */
    void (*bend)(call *k);         /* before the node runs */
    void (*spoil)(call *k);        /* behind it */
    void (*data)(pv_recording *r); /* what lies in memory, before the first run of stage `before` */
    pv_stage before;
    bool drowns; /* in bf16: no op is beyond its budget */
} fault;

static const fault *planted; /* NULL: none */
static bool fused;           /* attention in one kernel, as GPUs have it */

/* ---- a backend that can be bent ---- */

struct pv_recording {
    pv_backend *be;
    const pv_program *prog;
    const pv_buffers *bufs;
    pv_pool *pool;
    float **tmp;
    int32_t *step;
    bool spoilt; /* fault.data is done once */
};

static const cpu_kernel *const kernels[PV_OP_COUNT] = {
    [PV_OP_LINEAR] = &cpu_linear,     [PV_OP_ATTENTION_SCORES] = &cpu_attention_scores,
    [PV_OP_SOFTMAX] = &cpu_softmax,   [PV_OP_ATTENTION_VALUES] = &cpu_attention_values,
    [PV_OP_RMS_NORM] = &cpu_rms_norm, [PV_OP_LAYER_NORM] = &cpu_layer_norm,
    [PV_OP_ROPE] = &cpu_rope,         [PV_OP_ADD] = &cpu_add,
    [PV_OP_MUL] = &cpu_mul,           [PV_OP_SCALE] = &cpu_scale,
    [PV_OP_GELU] = &cpu_gelu,         [PV_OP_SILU] = &cpu_silu,
    [PV_OP_AXPY] = &cpu_axpy,         [PV_OP_CAST] = &cpu_copy,
    [PV_OP_CONCAT] = &cpu_concat,     [PV_OP_SLICE] = &cpu_slice,
    [PV_OP_ROW] = &cpu_row,           [PV_OP_STORE] = &cpu_store,
    [PV_OP_PATCHIFY] = &cpu_patchify,
};

static float get(const void *data, const pv_tensor *t, int64_t i)
{
    float v;
    pv_to_f32(&v, (const char *)data + pv_dtype_bytes(t->dtype, (size_t)i), t->dtype, 1);
    return v;
}

static void put(void *data, const pv_tensor *t, int64_t i, float v)
{
    pv_from_f32((char *)data + pv_dtype_bytes(t->dtype, (size_t)i), &v, t->dtype, 1);
}

static float to_dtype(float v, pv_dtype dtype)
{
    uint32_t bits;
    pv_from_f32(&bits, &v, dtype, 1);
    pv_to_f32(&v, &bits, dtype, 1);
    return v;
}

/* Honest, and not the CPU's: exponentials that are not yet divided are rounded to the dtype of v, as matrix
 * units want them. */
static void fused_attention(const cpu_call *c)
{
    const pv_node *n = c->node;
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *q = n->in[0], *k = n->in[1], *v = n->in[2], *o = n->out[0];
    int64_t rows = pv_row_count(q) / a->batch, keys = pv_row_count(k) / a->batch - a->first;
    int64_t valid = c->rows[0] && *c->rows[0] < rows ? *c->rows[0] : rows, len = cpu_count(c, 3, keys);
    int64_t head = pv_width(k) / a->kv_heads, W = pv_width(q), KW = pv_width(k);
    float *p = malloc(sizeof *p * (size_t)keys);
    for (int64_t t = 0; t < a->batch * a->heads * valid; t++) {
        int64_t b = t / (a->heads * valid), h = t / valid % a->heads, i = b * rows + t % valid,
                kv = h / (a->heads / a->kv_heads);
        float top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < len; j++) {
            float s = 0;
            for (int64_t d = 0; d < head; d++)
                s += get(c->in[0], q, i * W + h * head + d) *
                     get(c->in[1], k, (b * (keys + a->first) + a->first + j) * KW + kv * head + d);
            p[j] = s * a->scale;
            top = fmaxf(top, p[j]);
        }
        for (int64_t j = 0; j < len; j++) {
            p[j] = expf(p[j] - top);
            sum += p[j];
            p[j] = to_dtype(p[j], v->dtype);
        }
        for (int64_t d = 0; d < head; d++) {
            float y = 0;
            for (int64_t j = 0; j < len; j++)
                y += p[j] * get(c->in[2], v, (b * (keys + a->first) + a->first + j) * KW + kv * head + d);
            put(c->out[0], o, i * W + h * head + d, y / sum);
        }
    }
    free(p);
}

static bool claims(const pv_backend *be, const pv_node *n)
{
    return (fused && n->op == PV_OP_ATTENTION) || pv_cpu_backend.claims(be, n);
}

static void *address(const pv_recording *r, const pv_tensor *t)
{
    pv_buffer *b = t->usage == PV_WEIGHT ? r->bufs->weight[t->id] : r->bufs->buffer[t->usage];
    return (char *)pv_cpu_backend.map(r->be, b) + (t->usage == PV_WEIGHT ? 0 : t->offset);
}

static void discard(pv_recording *r)
{
    for (int i = 0; r->tmp && i < pv_pool_threads(r->pool); i++)
        pv_free(r->tmp[i]);
    pv_free(r->tmp);
    pv_pool_destroy(&r->pool);
    pv_free(r);
}

static pv_status record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out)
{
    pv_recording *r = pv_alloc_zero(sizeof *r);
    size_t need = 1;
    *r = (pv_recording){.be = be, .prog = prog, .bufs = bufs};
    CHECK_OK(pv_pool_create(2, &r->pool));
    for (int i = 0; i < prog->graph->n_nodes; i++) {
        const pv_node *n = prog->graph->nodes[i];
        size_t mine = kernels[n->op] && kernels[n->op]->need ? kernels[n->op]->need(n) : 0;
        need = mine > need ? mine : need;
    }
    r->tmp = pv_alloc_zero(sizeof *r->tmp * (size_t)pv_pool_threads(r->pool));
    for (int i = 0; i < pv_pool_threads(r->pool); i++)
        r->tmp[i] = pv_alloc(sizeof(float) * need);
    r->step = prog->step ? address(r, prog->step) : NULL;
    *out = r;
    return PV_OK;
}

static void run_node(pv_recording *r, const pv_node *n)
{
    call k = {.node = *n, .rec = r, .c = {.vector = cpu_vector_best(), .pool = r->pool, .tmp = r->tmp}};
    k.c.node = &k.node;
    for (int i = 0; i < n->n_in; i++) {
        k.c.in[i] = address(r, n->in[i]);
        k.c.rows[i] = n->in[i]->rows ? address(r, n->in[i]->rows) : NULL;
    }
    for (int i = 0; i < n->n_out; i++)
        k.c.out[i] = address(r, n->out[i]);
    bool hit = planted && planted->where && pv_pattern_match(planted->where, n->out[0]->name);
    if (hit && planted->bend)
        planted->bend(&k);
    if (n->op == PV_OP_ATTENTION)
        fused_attention(&k.c);
    else
        kernels[n->op]->run(&k.c);
    if (hit && planted->spoil)
        planted->spoil(&k);
    for (int i = 0; i < n->n_in; i++)
        pv_free(k.own[i]);
}

static pv_status submit(pv_recording *r, const pv_run *run)
{
    const pv_graph *g = r->prog->graph;
    if (planted && planted->data && !r->spoilt && run->stages >> planted->before & 1) {
        planted->data(r);
        r->spoilt = true;
    }
    for (int s = 0; s < PV_STAGE_COUNT; s++)
        for (int k = 0; run->stages >> s & 1 && k < (s == PV_STAGE_DENOISE ? run->n_steps : 1); k++) {
            if (r->step)
                *r->step = run->first_step + k;
            for (int i = 0; i < g->n_nodes; i++)
                if (g->nodes[i]->stage == (pv_stage)s)
                    run_node(r, g->nodes[i]);
        }
    return PV_OK;
}

static pv_status wait(pv_recording *r, pv_run_timing *timing)
{
    (void)r, (void)timing;
    return PV_OK;
}

/* ---- what the faults are made of ---- */

/* Input i becomes a copy of its own. */
static void *own(call *k, int i)
{
    size_t n = pv_tensor_bytes(k->node.in[i]);
    k->own[i] = pv_alloc(n);
    memcpy(k->own[i], k->c.in[i], n);
    return k->c.in[i] = k->own[i];
}

static void of_other(call *k, int i,
                     const char *name) /* input i has the elements of another tensor of the plan */
{
    const pv_tensor *t = pv_graph_find(k->rec->prog->graph, name);
    if (!CHECK(t && pv_elements(t) == pv_elements(k->node.in[i])))
        return;
    void *x = own(k, i);
    for (int64_t e = 0; e < pv_elements(t); e++)
        put(x, k->node.in[i], e, get(address(k->rec, t), t, e));
}

static void each_input(call *k, int i, float (*fn)(float v))
{
    const pv_tensor *t = k->node.in[i];
    void *x = own(k, i);
    for (int64_t e = 0; e < pv_elements(t); e++)
        put(x, t, e, fn(get(x, t, e)));
}

static void each_result(call *k, float (*fn)(float v))
{
    const pv_tensor *t = k->node.out[0];
    for (int64_t e = 0; e < pv_elements(t); e++)
        put(k->c.out[0], t, e, fn(get(k->c.out[0], t, e)));
}

static float to_bf16(float v)
{
    return to_dtype(v, PV_BF16);
}

static float to_tf32(float v) /* ten bits of the fraction */
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = (bits + 0x1000) & ~UINT32_C(0x1fff);
    memcpy(&v, &bits, sizeof v);
    return v;
}

static float less_one(float v)
{
    return v - 1;
}

static float erf_gelu(float x)
{
    return 0.5f * x * (1 + erff(x * 0.70710678f));
}

static float softcap(float s)
{
    return 50 * tanhf(s / 50);
}

static float unsign(float v)
{
    return (v + 1) / 2;
}

/* ---- pictures, vision ---- */

static void swap_colours(call *k)
{
    const pv_tensor *t = k->node.out[0];
    int64_t W = pv_width(t), n = W / 3;
    for (int64_t r = 0; r < pv_elements(t) / W; r++)
        for (int64_t i = 0; i < n; i++) {
            float red = get(k->c.out[0], t, r * W + i), blue = get(k->c.out[0], t, r * W + 2 * n + i);
            put(k->c.out[0], t, r * W + i, blue);
            put(k->c.out[0], t, r * W + 2 * n + i, red);
        }
}

static void pixels_from_0(call *k)
{
    each_result(k, unsign);
}

static void column_by_column(call *k) /* patches of a picture in the other order */
{
    const pv_tensor *t = k->node.out[0];
    int64_t W = pv_width(t), n = pv_elements(t) / W / VIEWS, side = (int64_t)sqrt((double)n);
    size_t bytes = pv_tensor_bytes(t);
    void *was = pv_alloc(bytes);
    memcpy(was, k->c.out[0], bytes);
    for (int64_t v = 0; v < VIEWS; v++)
        for (int64_t p = 0; p < n; p++)
            for (int64_t i = 0; i < W; i++)
                put(k->c.out[0], t, (v * n + p % side * side + p / side) * W + i,
                    get(was, t, (v * n + p) * W + i));
    pv_free(was);
}

static void no_second(call *k) /* the first input as it is */
{
    memcpy(k->c.out[0], k->c.in[0], pv_tensor_bytes(k->node.out[0]));
}

static void eps_of_torch(call *k)
{
    k->node.attr.norm.eps = 1e-5f;
}

static void unbiased(call *k)
{
    const pv_tensor *t = k->node.out[0];
    int64_t W = pv_width(t);
    for (int64_t e = 0; e < pv_elements(t); e++) {
        float b = get(k->c.in[2], k->node.in[2], e % W);
        put(k->c.out[0], t, e, (get(k->c.out[0], t, e) - b) * sqrtf((float)(W - 1) / (float)W) + b);
    }
}

static void no_bias(call *k)
{
    k->node.n_in--;
}

static void scale_of_1(call *k)
{
    k->node.attr.attention.scale = 1;
}

static void gelu_by_erf(call *k)
{
    for (int64_t e = 0; e < pv_elements(k->node.out[0]); e++)
        put(k->c.out[0], k->node.out[0], e, erf_gelu(get(k->c.in[0], k->node.in[0], e)));
}

static void transpose(pv_recording *r)
{
    const pv_tensor *t = pv_graph_find(r->prog->graph, planted->where);
    if (!CHECK(t && t->n_dims == 2 && t->dim[0] == t->dim[1]))
        return;
    void *w = address(r, t);
    for (int64_t i = 0, n = t->dim[0]; i < n; i++)
        for (int64_t j = 0; j < i; j++) {
            float v = get(w, t, i * n + j);
            put(w, t, i * n + j, get(w, t, j * n + i));
            put(w, t, j * n + i, v);
        }
}

/* ---- prompt, norms, products ---- */

static void factor_of_1(call *k)
{
    k->node.attr.scale.factor = 1;
}

static void factor_in_bf16(call *k)
{
    k->node.attr.scale.factor = to_bf16(k->node.attr.scale.factor);
}

static void weight_less_1(call *k)
{
    each_input(k, 1, less_one);
}

static void weight_of_input_norm(call *k)
{
    of_other(k, 1, "paligemma_with_expert.paligemma.model.language_model.layers.1.input_layernorm.weight");
}

static void less_mean(call *k)
{
    const pv_tensor *t = k->node.in[0];
    int64_t W = pv_width(t);
    void *x = own(k, 0);
    for (int64_t r = 0; r < pv_elements(t) / W; r++) {
        float mean = 0;
        for (int64_t i = 0; i < W; i++)
            mean += get(x, t, r * W + i) / (float)W;
        for (int64_t i = 0; i < W; i++)
            put(x, t, r * W + i, get(x, t, r * W + i) - mean);
    }
}

static void last_row_lost(call *k) /* of a weight */
{
    const pv_tensor *t = k->node.in[1];
    size_t row = pv_tensor_bytes(t) / (size_t)t->dim[0];
    memset((char *)own(k, 1) + pv_tensor_bytes(t) - row, 0, row);
}

static void input_in_bf16(call *k)
{
    each_input(k, 0, to_bf16);
}

static void result_in_bf16(call *k)
{
    each_result(k, to_bf16);
}

static void in_tf32(call *k)
{
    each_input(k, 0, to_tf32);
    each_input(k, 1, to_tf32);
}

static void from_the_norm(call *k) /* the residual is taken behind the norm */
{
    of_other(k, 0, "prefix.layer1.attn_norm");
}

static void up_for_gate(call *k)
{
    of_other(k, 0, "prefix.layer1.up");
}

/* ---- RoPE ---- */

static void turn_back(call *k) /* (a cos + b sin, b cos - a sin) */
{
    const pv_tensor *t = k->node.in[1];
    int64_t W = pv_width(t);
    void *table = own(k, 1);
    for (int64_t e = 0; e < pv_elements(t); e++)
        if (e % W >= W / 2)
            put(table, t, e, -get(table, t, e));
}

/* Even and odd elements are pairs: the halves of what is turned are made of them, before and behind. */
static void pairs(call *k, const void *from, void *to, bool back)
{
    const pv_tensor *t = k->node.in[0];
    int64_t head = pv_width(t) / k->node.attr.rope.heads;
    for (int64_t e = 0; e < pv_elements(t); e++) {
        int64_t i = e % head, first = e - i, apart = i < head / 2 ? 2 * i : 2 * (i - head / 2) + 1;
        if (back)
            put(to, k->node.out[0], first + apart, get(from, k->node.out[0], e));
        else
            put(to, t, e, get(from, t, first + apart));
    }
}

static void interleaved(call *k)
{
    void *was = k->c.in[0];
    pairs(k, was, own(k, 0), false);
}

static void interleaved_back(call *k)
{
    size_t n = pv_tensor_bytes(k->node.out[0]);
    void *was = pv_alloc(n);
    memcpy(was, k->c.out[0], n);
    pairs(k, was, k->c.out[0], true);
    pv_free(was);
}

static void one_position_on(call *k)
{
    int32_t *at = own(k, 2);
    for (int64_t i = 0; i < pv_elements(k->node.in[2]); i++)
        at[i]++;
}

static void frequencies_in_bf16(pv_recording *r)
{
    const pv_tensor *t = pv_graph_find(r->prog->graph, "rope");
    int64_t W = pv_width(t), half = W / 2;
    float *table = address(r, t);
    for (int64_t p = 0; p < t->dim[0]; p++)
        for (int64_t j = 0; j < half; j++) {
            float f = to_bf16((float)pow(10000, -2.0 * (double)j / (double)W));
            table[p * W + j] = cosf((float)p * f);
            table[p * W + half + j] = sinf((float)p * f);
        }
}

static void positions_from(pv_recording *r, int first)
{
    const pv_tensor *t = pv_graph_find(r->prog->graph, "step.position_ids");
    int32_t *at = address(r, t);
    for (int64_t i = 0; i < pv_elements(t); i++)
        at[i] = first + (int32_t)i;
}

static void padded_positions(pv_recording *r)
{
    const pv_tensor *t = pv_graph_find(r->prog->graph, "prefix.position_ids");
    positions_from(r, (int)pv_elements(t));
}

static void positions_from_0(pv_recording *r)
{
    positions_from(r, 0);
}

/* ---- attention and its cache ---- */

static void one_key_less(call *k)
{
    int last = k->node.n_in - 1;
    --*(int32_t *)own(k, last);
}

static void one_key_more(call *k)
{
    int last = k->node.n_in - 1;
    ++*(int32_t *)own(k, last);
}

static void heads_shifted(call *k)
{
    const pv_tensor *t = k->node.out[0];
    size_t head = pv_tensor_bytes(t) / (size_t)t->dim[0], n = pv_tensor_bytes(t);
    char *was = pv_alloc(n);
    memcpy(was, k->c.out[0], n);
    memcpy(k->c.out[0], was + head, n - head);
    memcpy((char *)k->c.out[0] + n - head, was, head);
    pv_free(was);
}

static void capped(call *k)
{
    each_result(k, softcap);
}

/* The key of suffix token j is that of slot j: a token sees those before it and the prefix. */
static void causal(call *k)
{
    const pv_tensor *t = k->node.in[0];
    int64_t keys = pv_width(t), rows = pv_row_count(t);
    void *s = own(k, 0);
    for (int64_t e = 0; e < pv_elements(t); e++)
        if (e % keys < rows && e % keys > e / keys % rows)
            put(s, t, e, -1e30f);
}

static void one_row_on(call *k)
{
    k->node.attr.range.first++;
}

static void last_row_not_stored(call *k)
{
    int32_t *rows = address(k->rec, k->node.in[1]->rows);
    const pv_tensor *t = k->node.out[0];
    size_t row = pv_tensor_bytes(t) / (size_t)t->dim[0];
    memset((char *)k->c.out[0] + row * (size_t)(k->node.attr.range.first + *rows - 1), 0, row);
}

static void keys_of_layer_0(call *k)
{
    of_other(k, 1, "cache.layer0.k");
}

static void keys_for_values(call *k)
{
    of_other(k, 1, "cache.layer2.k");
}

/* ---- the step ---- */

static void scale_and_shift_swapped(call *k)
{
    k->node.attr.range.first = k->node.attr.range.first ? 0 : k->node.attr.range.size;
}

static void shift_for_gate(call *k)
{
    k->node.attr.range.first = k->node.attr.range.size;
}

static void without_the_1(call *k) /* of (1 + scale): h + h scale is h scale */
{
    memcpy(k->c.out[0], k->c.in[1], pv_tensor_bytes(k->node.out[0]));
}

static void row_before(call *k)
{
    int32_t *step = own(k, 1);
    *step -= *step > 0;
}

static void no_silu(call *k)
{
    memcpy(k->c.out[0], k->c.in[0], pv_tensor_bytes(k->node.out[0]));
}

static void sines_swapped(pv_recording *r)
{
    const pv_tensor *t = pv_graph_find(r->prog->graph, "step.time_emb");
    int64_t W = pv_width(t);
    float *x = address(r, t);
    for (int64_t e = 0; e < pv_elements(t); e++)
        if (e % W < W / 2) {
            float sine = x[e];
            x[e] = x[e + W / 2];
            x[e + W / 2] = sine;
        }
}

static void other_way(call *k)
{
    float *dt = own(k, 1);
    *dt = -*dt;
}

static void last_token_lost(call *k)
{
    const pv_tensor *t = k->node.out[0];
    size_t row = pv_tensor_bytes(t) / (size_t)pv_row_count(t);
    memcpy((char *)k->c.out[0] + pv_tensor_bytes(t) - row,
           (const char *)k->c.in[0] + pv_tensor_bytes(t) - row, row);
}

/* The first of each op, in stages and layers that differ. Weights have the checkpoint's names. */
#define VISION_W "paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder.layers"
static const fault faults[] = {
    {"pictures BGR, not RGB", "vision.patches", "vision.patches", -1, .spoil = swap_colours},
    {"pixels from 0 to 1, not -1 to 1", "vision.patches", "vision.patches", -1, .spoil = pixels_from_0},
    {"patches column by column", "vision.patches", "vision.patches", -1, .spoil = column_by_column},
    {"no position on a patch", "vision.embeddings", "vision.embeddings", -1, .spoil = no_second},
    {"LayerNorm: eps 1e-5, not 1e-6", "vision.layer1.attn_norm", "vision.layer1.attn_norm", -1,
     .bend = eps_of_torch, .drowns = true},
    {"LayerNorm: variance over n - 1", "vision.layer1.mlp_norm", "vision.layer1.mlp_norm", -1,
     .spoil = unbiased},
    {"a weight transposed", VISION_W ".0.self_attn.k_proj.weight", "vision.layer0.k", -1, .data = transpose},
    {"1/sqrt(head) forgotten, vision", "vision.layer0.attn/attention_scores*",
     "vision.layer0.attn/attention_scores", -1, .bend = scale_of_1},
    {"GELU by erf, vision", "vision.layer0.act", "vision.layer0.act", -1, .spoil = gelu_by_erf},
    {"projector without its bias", "vision.projected", "vision.projected", -1, .bend = no_bias},
    {"prompt not times sqrt(width)", "prefix.prompt_embs", "prefix.prompt_embs", -1, .bend = factor_of_1},
    {"sqrt(width) rounded to bf16", "prefix.prompt_embs", "prefix.prompt_embs", -1, .bend = factor_in_bf16},
    {"RMSNorm: w for 1 + w", "prefix.layer0.attn_norm", "prefix.layer0.attn_norm", -1, .bend = weight_less_1},
    {"RMSNorm: eps 1e-5, not 1e-6", "prefix.layer1.mlp_norm", "prefix.layer1.mlp_norm", -1,
     .bend = eps_of_torch, .drowns = true},
    {"RMSNorm less the mean", "prefix.layer2.attn_norm", "prefix.layer2.attn_norm", -1, .bend = less_mean},
    {"RMSNorm with the weight of another", "prefix.layer1.mlp_norm", "prefix.layer1.mlp_norm", -1,
     .bend = weight_of_input_norm},
    {"last row of a weight lost", "prefix.layer1.up", "prefix.layer1.up", -1, .bend = last_row_lost},
    {"a product in TF32", "prefix.layer1.mlp_out", "prefix.layer1.mlp_out", -1, .bend = in_tf32,
     .drowns = true},
    {"a product of x in bf16, once too many", "prefix.layer0.mlp_out", "prefix.layer0.mlp_out", -1,
     .bend = input_in_bf16, .drowns = true},
    {"residual rounded to bf16", "prefix.layer0.attn_sum", "prefix.layer0.attn_sum", -1,
     .spoil = result_in_bf16},
    {"residual taken behind the norm", "prefix.layer1.attn_sum", "prefix.layer1.attn_sum", -1,
     .bend = from_the_norm},
    {"gate and up swapped", "prefix.layer0.act/gelu*", "prefix.layer0.act/gelu", -1, .bend = up_for_gate},
    {"GELU rounded to bf16 before it meets up", "prefix.layer0.act/gelu*", "prefix.layer0.act/gelu", -1,
     .spoil = result_in_bf16},
    {"GELU by erf", "prefix.layer1.act/gelu*", "prefix.layer1.act/gelu", -1, .spoil = gelu_by_erf},
    {"RoPE: halves swapped", "prefix.layer0.q", "prefix.layer0.q", -1, .bend = turn_back},
    {"RoPE: pairs, not halves", "prefix.layer1.k", "prefix.layer1.k", -1, .bend = interleaved,
     .spoil = interleaved_back},
    {"RoPE of k forgotten", "prefix.layer2.k", "prefix.layer2.k", -1, .spoil = no_second},
    {"RoPE one position on", "step.layer1.q", "step.layer1.q", 0, .bend = one_position_on},
    {"RoPE: frequencies in bf16", NULL, "rope", -1, .data = frequencies_in_bf16},
    {"positions from the padded length", NULL, "step.position_ids", -1, .data = padded_positions},
    {"suffix positions from 0", NULL, "step.position_ids", -1, .data = positions_from_0},
    {"1/16 forgotten", "prefix.layer0.attn/attention_scores*", "prefix.layer0.attn/attention_scores", -1,
     .bend = scale_of_1},
    {"one head shifted", "prefix.layer1.attn/attention_scores*", "prefix.layer1.attn/attention_scores", -1,
     .spoil = heads_shifted},
    {"scores through a softcap of 50", "step.layer0.attn/attention_scores*",
     "step.layer0.attn/attention_scores", 0, .spoil = capped},
    {"weights of attention in bf16", "step.layer1.attn/softmax*", "step.layer1.attn/softmax", 0,
     .spoil = result_in_bf16},
    {"one key less", "step.layer1.attn/*|step.layer1.attn", "step.layer1.attn/attention_scores", 0,
     .bend = one_key_less},
    {"one key more", "step.layer2.attn/*|step.layer2.attn", "step.layer2.attn/softmax", 0,
     .bend = one_key_more},
    {"causal suffix", "step.layer*.attn/softmax*", "step.layer0.attn/softmax", 0, .bend = causal},
    {"prefix stored one slot late", "prefix.layer1.k_cache", "prefix.layer1.k_cache", -1, .bend = one_row_on},
    {"last prefix token not stored", "prefix.layer2.v_cache", "prefix.layer2.v_cache", -1,
     .spoil = last_row_not_stored},
    {"suffix stored one slot late", "step.layer0.v_cache", "step.layer0.v_cache", 0, .bend = one_row_on},
    {"keys of another layer", "step.layer1.attn/attention_scores*", "step.layer1.attn/attention_scores", 0,
     .bend = keys_of_layer_0},
    {"keys for values", "step.layer2.attn", "step.layer2.attn", 0, .bend = keys_for_values},
    {"adaRMS: scale and shift swapped", "step.layer0.attn_norm/slice*", "step.layer0.attn_norm/slice", 0,
     .bend = scale_and_shift_swapped},
    {"adaRMS: the shift as gate", "step.layer1.attn_sum/slice*", "step.layer1.attn_sum/slice", 0,
     .bend = shift_for_gate},
    {"adaRMS: scale for 1 + scale", "step.layer1.mlp_norm/add*", "step.layer1.mlp_norm/add", 0,
     .spoil = without_the_1},
    {"adaRMS: row of the step before", "step.layer2.ada_in[step]", "step.layer2.attn_norm/slice", 1,
     .bend = row_before},
    {"no SiLU behind the time MLP", "step.cond", "step.cond", -1, .spoil = no_silu},
    {"time: cosines, then sines", NULL, "step.time_emb", -1, .data = sines_swapped,
     .before = PV_STAGE_SCHEDULE},
    {"a step the other way", "step.x_next", "step.x_next", 0, .bend = other_way},
    {"last action token left out", "step.layer2.out", "step.layer2.out", 0, .spoil = last_token_lost},
    {"velocity without its bias", "step.v_t", "step.v_t", 0, .bend = no_bias},
};
#define N_FAULTS ((int)(sizeof faults / sizeof *faults))

/* ---- the table ---- */

#define BEGIN "<!-- faults: written by test_planted -->"
#define END   "<!-- end of faults -->"

typedef struct found {
    char first[128], op[32];
    int step;
    double own, limit; /* of what was named; else of what should have been */
    double off, angle; /* of the actions: relative L2, 1 - cosine */
} found;

static pv_backend *cpu, *bent;
static pv_model *model;
static trace_inputs in;

static found run(const char *recipe, const char *first)
{
    verify_report r = {0};
    found f = {.first = "", .step = -1};
    CHECK_OK(verify_against(
        model, bent, cpu,
        &(against_params){
            .in = &in, .recipe = recipe, .ref_recipe = recipe, .steps = STEPS, .hold_bytes = (size_t)1 << 30},
        NULL, NULL, &r));
    const verify_entry *e = r.first_failed;
    for (int i = 0; i < r.n_entries && !e && first; i++)
        e = strcmp(r.entries[i].name, first) ? NULL : &r.entries[i];
    if (e) {
        CHECK(r.first_local || e->input || !r.first_failed);
        f = (found){.step = r.first_step,
                    .own = e->input ? e->relative_l2 : e->local.d.relative_l2,
                    .limit = e->local.limit};
        snprintf(f.first, sizeof f.first, "%s", r.first_failed ? e->name : "");
        snprintf(f.op, sizeof f.op, "%s", e->op);
    }
    f.off = r.n_entries ? r.entries[r.n_entries - 1].relative_l2 : NAN;
    f.angle = r.n_entries ? 1 - r.entries[r.n_entries - 1].cosine : NAN;
    verify_free(&r);
    return f;
}

/* What drowns may change nothing at all: which of both is up to the processor. */
static void print_found(char *cell, size_t size, const found *f)
{
    if (*f->first)
        snprintf(cell, size, "%.1e", f->own);
    else
        snprintf(cell, size, "drowns");
}

/* The row for the document, up to the numbers: those depend a little on the processor. */
static void row_of(const fault *p, const found *f32, const found *bf16, char *row, size_t size)
{
    char own[32], narrow[32], angle[32], step[24] = "";
    print_found(own, sizeof own, f32);
    print_found(narrow, sizeof narrow, bf16);
    snprintf(angle, sizeof angle, f32->angle < 1e-8 ? "below 1e-8" : "%.1e", f32->angle);
    if (f32->step >= 0)
        snprintf(step, sizeof step, ", step %d", f32->step);
    snprintf(row, size, "| %s | `%s`, %s%s | %s | %s | %.1e | %s |", p->what, f32->first, f32->op, step, own,
             narrow, f32->off, angle);
}

/* The same row but for its numbers, which are within a factor of two: how many roundings flip is up to the
 * processor. */
static bool same_row(const char *a, const char *b)
{
    while (*a && *b && *b != '\n') {
        char *end_a, *end_b;
        bool number = a[-1] == ' ' && *a >= '0' && *a <= '9' && *b >= '0' && *b <= '9';
        if (number) {
            double x = strtod(a, &end_a), y = strtod(b, &end_b);
            if (x > 2 * y || y > 2 * x)
                return false;
            a = end_a;
            b = end_b;
        } else if (*a++ != *b++) {
            return false;
        }
    }
    return !*a && *b == '\n';
}

static void plant(const fault *p, char *row, size_t size)
{
    planted = p;
    found f32 = run("f32", p->first), bf16 = run("bf16", p->first);
    planted = NULL;
    if (!CHECK(!strcmp(f32.first, p->first) && f32.step == p->step))
        printf("    %s: named '%s' in step %d, own error %.2g; expected '%s' in step %d\n", p->what,
               f32.first, f32.step, f32.own, p->first, p->step);
    if (!CHECK(f32.own > 5 * f32.limit)) /* no budget so wide that it nearly passes */
        printf("    %s: own error %.2g, budget %.2g\n", p->what, f32.own, f32.limit);
    if (!CHECK(p->drowns ? !*bf16.first : !strcmp(bf16.first, p->first) && bf16.step == p->step))
        printf("    %s: in bf16 named '%s' in step %d, own error %.2g, limit %.2g\n", p->what, bf16.first,
               bf16.step, bf16.own, bf16.limit);
    row_of(p, &f32, &bf16, row, size);
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    CHECK(f && fread(text, 1, (1 << 20) - 1, f) > 0);
    if (f)
        fclose(f);
    return text;
}

/* Between the two marks of the document: as it is, or (write) as it shall be. */
static void document(const char *path, char rows[][256], bool write)
{
    char *text = read_text(path), *begin = strstr(text, BEGIN), *end = strstr(text, END);
    if (CHECK(begin && end && begin < end)) {
        if (write) {
            char *tail = strdup(end);
            FILE *f = fopen(path, "wb");
            CHECK(f &&
                  fprintf(f,
                          "%.*s" BEGIN "\n\n| fault | first op named | own error, f32 | in bf16 | actions, "
                          "f32 | 1 - cosine |\n| --- | --- | --- | --- | --- | --- |\n",
                          (int)(begin - text), text) > 0);
            for (int i = 0; f && i < N_FAULTS; i++)
                fprintf(f, "%s\n", rows[i]);
            CHECK(f && fprintf(f, "\n%s", tail) > 0 && fclose(f) == 0);
            free(tail);
        } else {
            int lines = 0;
            for (char *at = begin; at < end; at++)
                lines += *at == '\n';
            CHECK(lines == N_FAULTS + 5);
            for (int i = 0; i < N_FAULTS; i++) {
                bool there = false;
                for (char *at = strchr(begin, '\n'); at && at < end && !there; at = strchr(at + 1, '\n'))
                    there = same_row(rows[i] + 1, at + 2);
                if (!CHECK(there))
                    printf("    not in %s; write it anew (test_planted --write FILE): %s\n", path, rows[i]);
            }
        }
    }
    free(text);
}

/* ---- structure ---- */

/* Faults of who sees what, by their first words above, and the check that must find them. */
static const struct {
    const char *fault, *check, *where;
} seen[] = {
    {"causal suffix", "another last action token; another first", ""},
    {"one key more", "NaN in all scratch and caches before the run", ""},
    {"one key less", "another last key, another last value, of each layer", "key of layer 1"},
    {"keys of another layer", "another first key, another first value, of each layer", "key of layer 1"},
};

static void structure_of(const trace_inputs *inputs, structure_report *r) /* which points into itself */
{
    *r = (structure_report){.n = 0};
    CHECK_OK(verify_structure(model, bent, inputs, "f32", 0, STEPS, NULL, NULL, r));
}

static void structure(void)
{
    structure_report r;
    structure_of(&in, &r);
    CHECK(r.n == 13 && r.n_left_out == 0 && r.n_failed == 0 && !r.first_failed);
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        for (int k = 0; k < N_FAULTS; k++)
            planted = strcmp(faults[k].what, seen[i].fault) ? planted : &faults[k];
        structure_of(&in, &r);
        if (!CHECK(r.first_failed && !strcmp(r.first_failed->what, seen[i].check) &&
                   !strcmp(r.first_failed->where, seen[i].where)))
            printf("    %s: found by '%s' (%s)\n", seen[i].fault,
                   r.first_failed ? r.first_failed->what : "nothing",
                   r.first_failed ? r.first_failed->where : "");
        planted = NULL;
    }
    trace_inputs few = {.views = 0};
    CHECK_OK(trace_made_up(&model->config, 0, model->config.max_tokens, &few));
    structure_of(&few, &r); /* no camera, and no room behind the prompt */
    CHECK(r.n == 13 && r.n_left_out == 5 && r.n_failed == 0);
    trace_free_inputs(&few);
}

/* ---- attention as one kernel ---- */

/* It keeps its budget, by no more than a factor of eight in bf16 where it rounds; and a wrong scale is found
 * in it. */
static void whole_attention(void)
{
    static const fault scale = {"1/16 forgotten", "step.layer1.attn", "step.layer1.attn", 0,
                                .bend = scale_of_1};
    fused = true;
    for (int narrow = 0; narrow < 2; narrow++) {
        const char *recipe = narrow ? "bf16" : "f32";
        found honest = run(recipe, "step.layer1.attn");
        CHECK(!*honest.first && !strcmp(honest.op, "attention") && honest.own > 0 &&
              honest.own < honest.limit);
        CHECK(!narrow || honest.own > honest.limit / 8);
        planted = &scale;
        found wrong = run(recipe, NULL);
        CHECK(!strcmp(wrong.first, scale.first) && !strcmp(wrong.op, "attention") && wrong.step == 0);
        planted = NULL;
        printf("attention as one kernel, %s: %.1e of %.1e; without its scale %.1e\n", recipe, honest.own,
               honest.limit, wrong.own);
    }
    fused = false;
}

int main(int argc, char **argv)
{
    static char rows[N_FAULTS][256];
    const bool write = argc > 2 && !strcmp(argv[1], "--write");
    CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 2}, &cpu));
    CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 2}, &bent));
    CHECK_OK(pv_model_load("synth:tiny", NULL, &model));
    if (!cpu || !bent || !model)
        return test_done();
    CHECK_OK(trace_made_up(&model->config, VIEWS, WORDS, &in));
    pv_backend_vt vt = pv_cpu_backend;
    vt.name = "bent";
    vt.record = record;
    vt.claims = claims;
    vt.submit = submit;
    vt.wait = wait;
    vt.discard = discard;
    bent->vt = &vt;
    found none = run("f32", NULL), narrow = run("bf16", NULL);
    CHECK(!*none.first && !*narrow.first);
    for (int i = 0; i < N_FAULTS; i++)
        plant(&faults[i], rows[i], sizeof rows[i]);
    structure();
    whole_attention();
    document(write ? argv[2] : PV_SOURCE_DIR "/docs/precision.md", rows, write);
    bent->vt = &pv_cpu_backend;
    trace_free_inputs(&in);
    pv_model_free(&model);
    pv_backend_close(&bent);
    pv_backend_close(&cpu);
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
