/* mlp.c - the MLP of the prefix and of the expert with numbers of 16, 8 and 4 bits: gate and up, GeGLU, down. Every row is a graph of
 * some layers, each with weights of its own, more than a cache holds. What a backend lacks is said, not replaced.
 *
 * e4m3: one scale for a tensor, so that its largest number becomes 448. Of activations it is found while running (dynamic), or it
 * is what the dynamic row found for these inputs (static: the best that a calibration can do). e2m1: blocks of 32 (16 where that
 * does not divide) neighbours of a row with an e4m3 scale each, and one f32 for the tensor; activations stay bf16. */
#include "base/memory.h"
#include "model/model.h"
#include "parts.h"

#include <string.h>

#define JUDGED         16                   /* rows, at most */
#define OVERFLOW_BYTES ((int64_t)256 << 20) /* of bf16 weights: no cache holds them */

enum { GATE, UP, DOWN, N_WEIGHTS };
static const char *const weight_names[N_WEIGHTS] = {"gate", "up", "down"};

typedef enum way_id {
    BF16,
    BF16_APART,
    F16,
    DYNAMIC,
    DYNAMIC_APART,
    STATIC,
    STATIC_APART,
    CONVERSIONS,
    FOUR,
    FOUR_MEMORY,
    N_WAYS
} way_id;

static const struct {
    const char *name, *expert, *prefix; /* and what the reports have */
    double bytes;                       /* a weight's; of 4 bits with its part of a scale */
} ways[N_WAYS] = {
    {"bf16", "0.100 ms", "~0.3 ms", 2},
    {"bf16, each op apart", NULL, NULL, 2},
    {"f16", NULL, NULL, 2},
    {"e4m3, dynamic scales", NULL, NULL, 1},
    {"e4m3, dynamic, f16 in between", NULL, NULL, 1},
    {"e4m3, static scales, fused", "1.02x (TensorRT)", "2.94x (TensorRT)", 1},
    {"e4m3, static, f16 in between", "0.154 ms (bounce)", NULL, 1},
    {"the last one's conversions alone", "0.031 ms", NULL, 0},
    {"4-bit weights, bf16 in registers", NULL, NULL, 0.5},
    {"4-bit weights, bf16 through memory", NULL, NULL, 0.5},
};

enum { SPEED, COSINE, MB, NODES, WORD };
static const lab_column columns[] = {{"speed_of_bf16", "of bf16", LAB_RATIO},
                                     {"cosine", "cosine", LAB_NUMBER},
                                     {"weight_mb", "MB of weights", LAB_NUMBER},
                                     {"nodes", "nodes", LAB_NUMBER},
                                     {"note", "", LAB_WORD},
                                     {NULL}};

typedef struct mlp {
    lab *l;
    const char *name;
    bool expert;
    int64_t rows, width, inner, judged, block[N_WEIGHTS];
    int layers;
    float *x, *w[N_WEIGHTS];
    double *truth;
    bool calibrated;
    float s_x, s_act; /* as the dynamic row found them */
    double ms[N_WAYS], error[N_WAYS];
} mlp;

static int64_t outs(const mlp *m, int i)
{
    return i == DOWN ? m->width : m->inner;
}

static int64_t ins(const mlp *m, int i)
{
    return i == DOWN ? m->inner : m->width;
}

static size_t count(const mlp *m, int i)
{
    return (size_t)(outs(m, i) * ins(m, i));
}

/* ---- what is right ---- */

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static pv_status reference(mlp *m)
{
    size_t x = (size_t)(m->judged * m->width), h = (size_t)(m->judged * m->inner);
    double *wide = pv_alloc(sizeof *wide * (x + 2 * h)), *gate = wide + x, *up = gate + h;
    m->truth = pv_alloc(sizeof *m->truth * x);
    if (!wide || !m->truth) {
        pv_free(wide);
        return PV_E_MEMORY;
    }
    for (size_t i = 0; i < x; i++)
        wide[i] = (double)m->x[i];
    lab_product(wide, m->w[GATE], gate, m->judged, m->inner, m->width);
    lab_product(wide, m->w[UP], up, m->judged, m->inner, m->width);
    for (size_t i = 0; i < h; i++)
        gate[i] = gelu(gate[i]) * up[i];
    lab_product(gate, m->w[DOWN], m->truth, m->judged, m->width, m->inner);
    pv_free(wide);
    return PV_OK;
}

static pv_status prepare(mlp *m)
{
    lab *l = m->l;
    m->x = pv_alloc(sizeof *m->x * (size_t)(m->rows * m->width));
    pv_status st = m->x ? lab_fill(l->seed, 1, m->x, m->rows, m->width) : PV_E_MEMORY;
    for (int i = 0; !st && i < N_WEIGHTS; i++) {
        m->block[i] = ins(m, i) % 32 ? 16 : 32;
        if (ins(m, i) % 16)
            return pv_fail(PV_E_ARG, "lab mlp: blocks of 16 do not divide the model's width %lld",
                           (long long)ins(m, i));
        m->w[i] = pv_alloc(sizeof *m->w[i] * count(m, i));
        st = m->w[i] ? lab_fill(l->seed + 1 + (uint64_t)i, (float)(1 / sqrt((double)ins(m, i))), m->w[i],
                                outs(m, i), ins(m, i))
                     : PV_E_MEMORY;
    }
    return st ? st : reference(m);
}

static void give_back(mlp *m)
{
    pv_free(m->x);
    for (int i = 0; i < N_WEIGHTS; i++)
        pv_free(m->w[i]);
    pv_free(m->truth);
}

/* ---- weights of few bits ---- */

typedef struct packed {
    void *w, *blocks; /* blocks: of 4 bits */
    float scale;
} packed;

static void pack_free(packed *p)
{
    pv_free(p->w);
    pv_free(p->blocks);
}

static float largest(const float *x, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

static void divided(const float *x, float by, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = by > 0 ? x[i] / by : 0;
}

static pv_status pack(const mlp *m, int i, pv_dtype dtype, packed *p)
{
    int64_t n = outs(m, i), k = ins(m, i), block = dtype == PV_E2M1 ? m->block[i] : k;
    float *row = pv_alloc(sizeof *row * (size_t)k), top = largest(m->w[i], count(m, i));
    *p = (packed){.w = pv_alloc(pv_dtype_bytes(dtype, count(m, i))), .scale = 1};
    p->blocks = dtype == PV_E2M1 ? pv_alloc((size_t)(n * (k / block))) : NULL;
    if (!row || !p->w || (dtype == PV_E2M1 && !p->blocks)) {
        pv_free(row);
        return PV_E_MEMORY;
    }
    if (dtype == PV_E4M3)
        p->scale = top / 448;
    if (dtype == PV_E2M1)
        p->scale = top / (6 * 448);
    for (int64_t r = 0; r < n; r++) {
        for (int64_t at = 0; at < k; at += block) {
            const float *w = m->w[i] + r * k + at;
            float s = p->scale;
            if (p->blocks) {
                uint8_t code = pv_f32_to_e4m3(largest(w, (size_t)block) / 6 / s);
                ((uint8_t *)p->blocks)[(r * k + at) / block] = code;
                s *= pv_e4m3_to_f32(code);
            }
            divided(w, s, row + at, block);
        }
        pv_from_f32((char *)p->w + pv_dtype_bytes(dtype, (size_t)(r * k)), row, dtype, (size_t)k);
    }
    pv_free(row);
    return PV_OK;
}

/* ---- the ways as graphs ---- */

static pv_tensor *as(pv_tensor *t, pv_dtype dtype)
{
    if (t)
        t->dtype = dtype;
    return t;
}

static pv_tensor *number(pv_graph *g, const char *name)
{
    return pv_state(g, name, PV_F32, 1, 1);
}

static void keep(pv_tensor *t)
{
    if (t)
        t->output = true;
}

typedef struct scales {
    pv_tensor *x, *act, *w[N_WEIGHTS]; /* x, act: of static ways */
} scales;

static void sixteen(const mlp *m, pv_graph *g, pv_dtype dtype, pv_tensor *x, int i)
{
    pv_tensor *w[N_WEIGHTS];
    for (int k = 0; k < N_WEIGHTS; k++)
        w[k] = lab_weight(g, dtype, outs(m, k), ins(m, k), "w_%s%d", weight_names[k], i);
    pv_tensor *gate = as(pv_linear(g, NULL, x, w[GATE], NULL), dtype),
              *up = as(pv_linear(g, NULL, x, w[UP], NULL), dtype);
    pv_tensor *act = as(pv_geglu(g, NULL, gate, up), dtype);
    keep(as(pv_linear(g, pv_graph_printf(g, "y%d", i), act, w[DOWN], NULL), dtype));
}

static pv_tensor *found(pv_graph *g, const char *name, int i, pv_tensor *of)
{
    pv_tensor *s = pv_scale_for(g, pv_graph_printf(g, "%s%d", name, i), of, PV_E4M3);
    keep(s);
    return s;
}

static void eight(const mlp *m, pv_graph *g, way_id way, pv_tensor *x, const scales *s, int i)
{
    bool dynamic = way == DYNAMIC || way == DYNAMIC_APART,
         apart = way == DYNAMIC_APART || way == STATIC_APART;
    pv_dtype between = apart ? PV_F16 : PV_BF16;
    pv_tensor *w[N_WEIGHTS], *a, *s_act = s->act;
    for (int k = 0; k < N_WEIGHTS; k++)
        w[k] = lab_weight(g, PV_E4M3, outs(m, k), ins(m, k), "w_%s%d", weight_names[k], i);
    if (apart)
        x = pv_cast(g, NULL, x, PV_F16);
    pv_tensor *s_x = dynamic ? found(g, "found_x", i, x) : s->x;
    pv_tensor *q = as(pv_quantize(g, NULL, x, s_x), PV_E4M3);
    pv_tensor *gate = as(pv_linear_scaled(g, NULL, q, w[GATE], s_x, s->w[GATE]), between);
    pv_tensor *up = as(pv_linear_scaled(g, NULL, q, w[UP], s_x, s->w[UP]), between);
    if (way == STATIC) {
        a = as(pv_geglu_quantize(g, NULL, gate, up, s_act), PV_E4M3);
    } else {
        pv_tensor *act = as(pv_geglu(g, NULL, gate, up), between);
        s_act = dynamic ? found(g, "found_act", i, act) : s->act;
        a = as(pv_quantize(g, NULL, act, s_act), PV_E4M3);
    }
    const char *name = pv_graph_printf(g, "y%d", i);
    pv_tensor *y = as(pv_linear_scaled(g, apart ? NULL : name, a, w[DOWN], s_act, s->w[DOWN]), between);
    keep(apart ? pv_cast(g, name, y, PV_BF16) : y);
}

static void conversions(const mlp *m, pv_graph *g, pv_tensor *x, const scales *s, int i)
{
    pv_tensor *act = lab_weight(g, PV_F16, m->rows, m->inner, "act%d", i),
              *y = lab_weight(g, PV_F16, m->rows, m->width, "y%d", i);
    keep(as(pv_quantize(g, NULL, pv_cast(g, NULL, x, PV_F16), s->x), PV_E4M3));
    keep(as(pv_quantize(g, NULL, act, s->act), PV_E4M3));
    keep(pv_cast(g, NULL, y, PV_BF16));
}

static pv_tensor *by_four(const mlp *m, pv_graph *g, way_id way, const char *name, pv_tensor *x, int k, int i,
                          const scales *s)
{
    pv_tensor *w = lab_weight(g, PV_E2M1, outs(m, k), ins(m, k), "w_%s%d", weight_names[k], i);
    pv_tensor *b = lab_weight(g, PV_E4M3, outs(m, k), ins(m, k) / m->block[k], "b_%s%d", weight_names[k], i);
    if (way == FOUR)
        return as(pv_linear_blocks(g, name, x, w, b, s->w[k]), PV_BF16);
    pv_tensor *wide = as(pv_dequantize(g, NULL, w, b), PV_BF16); /* exact: 2 significant bits times 4 */
    return as(pv_dequantize(g, name, pv_linear(g, NULL, x, wide, NULL), s->w[k]), PV_BF16);
}

static void four(const mlp *m, pv_graph *g, way_id way, pv_tensor *x, const scales *s, int i)
{
    pv_tensor *gate = by_four(m, g, way, NULL, x, GATE, i, s), *up = by_four(m, g, way, NULL, x, UP, i, s);
    pv_tensor *act = as(pv_geglu(g, NULL, gate, up), PV_BF16);
    keep(by_four(m, g, way, pv_graph_printf(g, "y%d", i), act, DOWN, i, s));
}

static pv_graph *build(const mlp *m, way_id way)
{
    pv_graph *g = pv_graph_create();
    if (!g)
        return NULL;
    pv_tensor *x = pv_state(g, "x", way == F16 ? PV_F16 : PV_BF16, m->rows, m->width);
    scales s = {
        number(g, "s_x"), number(g, "s_act"), {number(g, "s_gate"), number(g, "s_up"), number(g, "s_down")}};
    for (int i = 0; i < m->layers; i++)
        if (way == BF16 || way == BF16_APART || way == F16)
            sixteen(m, g, way == F16 ? PV_F16 : PV_BF16, x, i);
        else if (way == FOUR || way == FOUR_MEMORY)
            four(m, g, way, x, &s, i);
        else if (way == CONVERSIONS)
            conversions(m, g, x, &s, i);
        else
            eight(m, g, way, x, &s, i);
    return g;
}

/* ---- at work ---- */

static pv_dtype dtype_of(way_id way)
{
    return way == F16                          ? PV_F16
           : way == BF16 || way == BF16_APART  ? PV_BF16
           : way == FOUR || way == FOUR_MEMORY ? PV_E2M1
                                               : PV_E4M3;
}

static pv_status feed(const mlp *m, way_id way, lab_small *s)
{
    void *x = lab_bytes(m->x, way == F16 ? PV_F16 : PV_BF16, (size_t)(m->rows * m->width));
    pv_status st = x ? lab_put(s, x, "x") : PV_E_MEMORY;
    pv_free(x);
    if (!st)
        st = lab_put(s, &m->s_x, "s_x");
    if (!st)
        st = lab_put(s, &m->s_act, "s_act");
    for (int k = 0; !st && way != CONVERSIONS && k < N_WEIGHTS; k++) {
        packed p;
        st = pack(m, k, dtype_of(way), &p);
        if (!st)
            st = lab_put(s, &p.scale, "s_%s", weight_names[k]);
        for (int i = 0; !st && i < m->layers; i++) {
            st = lab_put(s, p.w, "w_%s%d", weight_names[k], i);
            if (!st && p.blocks)
                st = lab_put(s, p.blocks, "b_%s%d", weight_names[k], i);
        }
        pack_free(&p);
    }
    return st;
}

static pv_status judge(mlp *m, way_id way, lab_small *s, lab_row *r)
{
    float *got = pv_alloc(sizeof *got * (size_t)(m->rows * m->width));
    size_t n = (size_t)(m->judged * m->width);
    pv_status st = got ? lab_small_get(s, "y0", got) : PV_E_MEMORY;
    if (!st) {
        r->error = m->error[way] = lab_error(got, m->truth, n);
        r->value[COSINE].number = lab_cosine(got, m->truth, n);
    }
    pv_free(got);
    return st;
}

/* What the static ways are given. */
static pv_status calibrate(mlp *m, lab_small *s)
{
    pv_status st = lab_small_get(s, "found_x0", &m->s_x);
    if (!st)
        st = lab_small_get(s, "found_act0", &m->s_act);
    m->calibrated = !st;
    return st;
}

static pv_status one_way(mlp *m, way_id way)
{
    const uint64_t apart = 1ull << PV_OP_LINEAR_GROUP | 1ull << PV_OP_LINEAR_GEGLU;
    lab *l = m->l;
    lab_small s = {0};
    lab_row *r = lab_add(l, "%s", ways[way].name);
    r->report = m->expert ? ways[way].expert : ways[way].prefix;
    if ((way == STATIC || way == STATIC_APART) && !m->calibrated) {
        r->value[WORD].word = "no kernel for its scales";
        return PV_OK;
    }
    pv_graph *g = build(m, way);
    bool made = false;
    pv_status st =
        lab_try(l, &g, &(pv_plan_params){.expand = way == BF16_APART ? apart : 0}, r, WORD, &s, &made);
    if (st || !made)
        return st;
    st = feed(m, way, &s);
    if (!st)
        st = lab_small_time(l, lab_text(l, "%s, %s", m->name, r->name), &s, &r->time);
    if (!st && way != CONVERSIONS)
        st = judge(m, way, &s, r);
    if (!st && way == DYNAMIC)
        st = calibrate(m, &s);
    if (!st) {
        r->time = lab_share(r->time, m->layers);
        m->ms[way] = r->time.median;
        r->value[SPEED].number = m->ms[BF16] > 0 ? m->ms[BF16] / m->ms[way] : NAN;
        r->value[NODES].number = (double)s.plan->graph->n_nodes / m->layers;
        double bits = dtype_of(way) == PV_E2M1 ? 1.0 / (double)m->block[GATE] : 0;
        if (way != CONVERSIONS)
            r->value[MB].number = (ways[way].bytes + bits) * (double)(3 * count(m, GATE)) / 1e6;
    }
    lab_small_free(&s);
    return st;
}

static pv_status one_size(lab *l, const char *name, bool expert, int64_t rows, const pv_gemma_config *c)
{
    mlp m = {.l = l,
             .name = name,
             .expert = expert,
             .rows = rows,
             .width = c->width,
             .inner = c->mlp_dim,
             .s_x = 1,
             .s_act = 1};
    int64_t layers = 1 + OVERFLOW_BYTES / (6 * m.width * m.inner);
    m.layers = layers < c->depth ? (int)layers : c->depth;
    m.judged = rows < JUDGED ? rows : JUDGED;
    lab_begin_table(l, columns, "%s: %lld rows, %lld -> %lld; milliseconds a layer of %d", name,
                    (long long)rows, (long long)m.width, (long long)m.inner, m.layers);
    pv_status st = prepare(&m);
    for (int i = 0; !st && i < N_WAYS; i++)
        st = one_way(&m, (way_id)i);
    give_back(&m);
    if (!st && m.ms[STATIC] > 0 && m.ms[STATIC_APART] > 0 && m.ms[FOUR] > 0)
        lab_say(l,
                "%s: e4m3 with static scales %.2fx as fast as bf16, and %.2fx with f16 in between; the "
                "conversions alone are %.0f %% of the "
                "bf16 MLP. 4-bit weights %.2fx. Errors: bf16 %.1e, e4m3 %.1e, 4 bits %.1e.",
                name, m.ms[BF16] / m.ms[STATIC], m.ms[BF16] / m.ms[STATIC_APART],
                100 * m.ms[CONVERSIONS] / m.ms[BF16], m.ms[BF16] / m.ms[FOUR], m.error[BF16], m.error[STATIC],
                m.error[FOUR]);
    return st;
}

static pv_status both(lab *l)
{
    const pv_config *c = &l->model->config;
    l->common.recipe = "by row";
    pv_status st = one_size(l, "Expert", true, l->info.horizon, &c->expert);
    if (!st)
        st = one_size(l, "Prefix", false, (int64_t)l->views * pv_image_tokens(c) + l->tokens, &c->gemma);
    if (!st)
        lab_say(l, "error: relative L2 against float64 with the numbers before any rounding, over the first "
                   "rows. Inputs and weights are normal "
                   "numbers; what outliers of a real model cost is not shown.");
    return st;
}

int lab_mlp(int argc, char **argv)
{
    lab l;
    const lab_command command = {
        .name = "mlp",
        .claim = "The reports: FP8 makes the prefix's MLP 2.94x as fast and the expert's 1.02x, as it is "
                 "small; and going BF16, FP16, FP8,\n"
                 "FP16, BF16 makes the expert's take 0.154 ms in place of 0.100. Here the same numbers go "
                 "through bf16, f16, e4m3 and 4-bit\n"
                 "weights; the CPU does the same arithmetic: products of the stored numbers, summed in f32.",
        .example = "pivot lab mlp --model synth:tiny\n"
                   "pivot lab mlp --model synth:full --backend cuda",
        .uses = LAB_SIZES | LAB_SEED};
    int code = lab_begin(&l, &command, argc, argv);
    return lab_end(&l, code, code == CLI_GO ? both(&l) : PV_OK);
}
