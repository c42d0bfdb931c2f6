/* projections.c - the seven products of a layer of the action expert, one by one and as the backend joins them. Every row is a graph
 * of all layers, each with weights of its own, so that no cache holds them from run to run. */
#include "base/memory.h"
#include "model/model.h"
#include "parts.h"

#include <stdio.h>

typedef enum part { Q, K, V, O, GATE, UP, DOWN, N_PARTS } part;

static const struct {
    const char *name, *report;
} parts[N_PARTS] = {{"q", "0.046 ms"},    {"k", "0.038 ms"},  {"v", "0.024 ms"},   {"o", "0.047 ms"},
                    {"gate", "0.047 ms"}, {"up", "0.046 ms"}, {"down", "0.047 ms"}};

enum { MB, RATE, LAUNCHES };
static const lab_column columns[] = {{"weight_mb", "MB of weights", LAB_NUMBER},
                                     {"gb_a_second", "GB/s", LAB_NUMBER},
                                     {"nodes", "nodes a layer", LAB_NUMBER},
                                     {NULL}};

typedef struct work {
    lab *l;
    pv_dtype dtype;
    int layers;
    int64_t rows, width[N_PARTS], outs[N_PARTS]; /* features in and out */
    float *x[N_PARTS], *w[N_PARTS];              /* of the numbers as rounded */
    void *x_bytes[N_PARTS], *w_bytes[N_PARTS];
    double *truth[N_PARTS];
} work;

static pv_status prepare(work *p, part i)
{
    size_t x = (size_t)(p->rows * p->width[i]), w = (size_t)(p->outs[i] * p->width[i]),
           y = (size_t)(p->rows * p->outs[i]);
    double *wide = pv_alloc(sizeof *wide * x);
    p->x[i] = pv_alloc(sizeof(float) * x);
    p->w[i] = pv_alloc(sizeof(float) * w);
    p->truth[i] = pv_alloc(sizeof(double) * y);
    pv_status st = wide && p->x[i] && p->w[i] && p->truth[i] ? PV_OK : PV_E_MEMORY;
    bool q_like = i == K || i == V || i == GATE || i == UP; /* they read what q reads */
    if (!st)
        st = lab_fill(p->l->seed + (q_like ? Q : i), 1, p->x[i], p->rows, p->width[i]);
    if (!st)
        st = lab_fill(p->l->seed + 100 + i, (float)(1 / sqrt((double)p->width[i])), p->w[i], p->outs[i],
                      p->width[i]);
    if (!st) {
        p->x_bytes[i] = lab_bytes(p->x[i], p->dtype, x);
        p->w_bytes[i] = lab_bytes(p->w[i], p->dtype, w);
        st = p->x_bytes[i] && p->w_bytes[i] ? PV_OK : PV_E_MEMORY;
    }
    if (!st) {
        pv_to_f32(p->x[i], p->x_bytes[i], p->dtype, x);
        pv_to_f32(p->w[i], p->w_bytes[i], p->dtype, w);
        for (size_t k = 0; k < x; k++)
            wide[k] = (double)p->x[i][k];
        lab_product(wide, p->w[i], p->truth[i], p->rows, p->outs[i], p->width[i]);
    }
    pv_free(wide);
    return st;
}

static const char *input_of(part i)
{
    return i == O ? "attn_out" : i == DOWN ? "act" : i == GATE || i == UP ? "h2" : "h";
}

static pv_graph *build(const work *p, unsigned which)
{
    pv_graph *g = pv_graph_create();
    if (!g)
        return NULL;
    for (int layer = 0; layer < p->layers; layer++) {
        pv_tensor *x = NULL;
        const char *of = NULL;
        for (int i = 0; i < N_PARTS; i++) {
            if (!(which >> i & 1))
                continue;
            if (!of || of != input_of((part)i)) {
                of = input_of((part)i);
                x = lab_weight(g, p->dtype, p->rows, p->width[i], "%s%d", of, layer);
            }
            pv_tensor *w = lab_weight(g, p->dtype, p->outs[i], p->width[i], "w_%s%d", parts[i].name, layer);
            pv_tensor *y = pv_linear(g, pv_graph_printf(g, "%s%d", parts[i].name, layer), x, w, NULL);
            if (y) {
                y->dtype = p->dtype;
                y->output = true;
            }
        }
    }
    return g;
}

/* The worst of the parts, in the first layer. */
static pv_status judge(const work *p, lab_small *s, unsigned which, double *error)
{
    pv_status st = PV_OK;
    *error = 0;
    for (int i = 0; !st && i < N_PARTS; i++) {
        if (!(which >> i & 1))
            continue;
        size_t n = (size_t)(p->rows * p->outs[i]);
        char name[16];
        snprintf(name, sizeof name, "%s0", parts[i].name);
        float *got = pv_alloc(sizeof *got * n);
        st = got ? lab_small_get(s, name, got) : PV_E_MEMORY;
        if (!st)
            *error = fmax(*error, lab_error(got, p->truth[i], n));
        pv_free(got);
    }
    return st;
}

static pv_status one(work *p, unsigned which, bool joined, const char *name, const char *report, double *ms)
{
    const uint64_t apart = 1ull << PV_OP_LINEAR_GROUP;
    lab *l = p->l;
    lab_small s = {0};
    lab_row *r = lab_add(l, "%s", name);
    pv_graph *g = build(p, which);
    double bytes = 0;
    pv_status st = lab_small_make(l->backend, &g, &(pv_plan_params){.expand = joined ? 0 : apart}, &s);
    for (int i = 0; !st && i < N_PARTS; i++)
        for (int layer = 0; !st && which >> i & 1 && layer < p->layers; layer++) {
            st = lab_put(&s, p->x_bytes[i], "%s%d", input_of((part)i), layer);
            if (!st)
                st = lab_put(&s, p->w_bytes[i], "w_%s%d", parts[i].name, layer);
        }
    if (!st)
        st = lab_small_time(l, name, &s, &r->time);
    if (!st)
        st = judge(p, &s, which, &r->error);
    for (int i = 0; i < N_PARTS; i++)
        if (which >> i & 1)
            bytes += (double)pv_dtype_bytes(p->dtype, (size_t)(p->outs[i] * p->width[i]));
    if (!st) {
        r->time = lab_share(r->time, p->layers);
        r->report = report;
        r->value[MB].number = bytes / 1e6;
        r->value[RATE].number = bytes / 1e6 / r->time.median;
        r->value[LAUNCHES].number = (double)s.plan->graph->n_nodes / p->layers;
        *ms = r->time.median;
    }
    lab_small_free(&s);
    return st;
}

static pv_status all(lab *l, pv_dtype dtype)
{
    enum { ATTENTION = 1 << Q | 1 << K | 1 << V | 1 << O, MLP = 1 << GATE | 1 << UP | 1 << DOWN };
    const pv_gemma_config *c = &l->model->config.expert;
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    work p = {.l = l,
              .dtype = dtype,
              .layers = c->depth,
              .rows = l->info.horizon,
              .width = {c->width, c->width, c->width, q, c->width, c->width, c->mlp_dim},
              .outs = {q, kv, kv, c->width, c->mlp_dim, c->mlp_dim, c->width}};
    double alone = 0, ms[4] = {0}, each;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < N_PARTS; i++)
        st = prepare(&p, (part)i);
    lab_begin_table(
        l, columns,
        "Products of a layer of the expert, %lld rows, width %d, MLP %d, %s; milliseconds a layer of %d",
        (long long)p.rows, c->width, c->mlp_dim, pv_dtype_name(p.dtype), p.layers);
    for (int i = 0; !st && i < N_PARTS; i++) {
        st = one(&p, 1u << i, false, parts[i].name, parts[i].report, &each);
        alone += st ? 0 : each;
    }
    if (!st)
        st = one(&p, ATTENTION, false, "q, k, v, o one by one", "0.102 ms", &ms[0]);
    if (!st)
        st = one(&p, ATTENTION, true, "q, k, v, o joined", NULL, &ms[1]);
    if (!st)
        st = one(&p, MLP, false, "gate, up, down one by one", "0.105 ms", &ms[2]);
    if (!st)
        st = one(&p, MLP, true, "gate, up, down joined", NULL, &ms[3]);
    for (int i = 0; i < N_PARTS; i++) {
        pv_free(p.x[i]);
        pv_free(p.w[i]);
        pv_free(p.x_bytes[i]);
        pv_free(p.w_bytes[i]);
        pv_free(p.truth[i]);
    }
    if (st)
        return st;
    lab_say(l,
            "Of the seven measured alone the sum is %.4f ms a layer, in a row they take %.4f. Joined, where "
            "the backend has a kernel for "
            "it: %.2fx and %.2fx of one by one.",
            alone, ms[0] + ms[2], ms[1] / ms[0], ms[3] / ms[2]);
    lab_say(
        l,
        "error: relative L2 against float64 on the same rounded numbers, the worst of the row's products.");
    return PV_OK;
}

int lab_projections(int argc, char **argv)
{
    lab l;
    pv_dtype dtype = PV_BF16;
    const lab_command command = {.name = "projections",
                                 .claim = "The reports: q, k, v and o take 0.102 ms a layer of the expert "
                                          "and the MLP's three 0.105, so both are the same size and\n"
                                          "neither is worth FP8. Here each is measured alone, in a row, and "
                                          "as the backend joins what reads the same input.",
                                 .example = "pivot lab projections --model synth:tiny\n"
                                            "pivot lab projections --model synth:full --backend cuda",
                                 .uses = LAB_SEED};
    int code = lab_begin(&l, &command, argc, argv);
    if (code == CLI_GO)
        code = lab_dtype(&l, &dtype);
    return lab_end(&l, code, code == CLI_GO ? all(&l, dtype) : PV_OK);
}
