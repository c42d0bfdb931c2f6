/* attention.c - the three primitives of attention: scores, softmax, values.
 *
 * q [batch rows, heads head], k and v [batch keys, kv_heads head], scores and probabilities [batch heads,
 * rows, keys from `first` on]. Only the first len keys and the valid rows are read or written: what stands
 * behind them may be anything. A task is one head of one sequence (softmax: some rows). f32 throughout; each
 * exp is within 2 ulp. Bound: the products; softmax about a nanosecond an element. */
#include "cpu.h"

typedef struct shape {
    int64_t batch, heads, group, rows, row_cap, keys, key_cap, first, head;
} shape;

typedef struct job {
    const cpu_call *c;
    shape s;
} job;

/* A head's [rows, head] out of a tensor [*, ld] as f32 with leading dimension *ld. */
static const float *head_of(const void *data, const pv_tensor *t, int64_t row, int64_t rows, int64_t column,
                            int64_t head, float *tmp, int64_t *ld)
{
    int64_t width = pv_width(t);
    *ld = width;
    if (t->dtype == PV_F32)
        return (const float *)data + row * width + column;
    *ld = head;
    for (int64_t r = 0; r < rows; r++)
        cpu_load(data, t->dtype, (row + r) * width + column, head, tmp + r * head);
    return tmp;
}

static size_t scores_need(const pv_node *n)
{
    const pv_attention_attr *a = &n->attr.attention;
    int64_t head = pv_width(n->in[0]) / a->heads;
    size_t floats = 0;
    if (n->in[0]->dtype != PV_F32 || n->in[1]->dtype != PV_F32 || n->out[0]->dtype != PV_F32)
        floats = (size_t)((n->in[0]->dim[0] + n->in[1]->dim[0]) / a->batch * head);
    if (n->out[0]->dtype != PV_F32)
        floats += (size_t)(n->out[0]->dim[1] * n->out[0]->dim[2]);
    return floats;
}

static void scores_task(void *user, int64_t t, int worker)
{
    const job *j = user;
    const shape *s = &j->s;
    const cpu_call *c = j->c;
    const pv_tensor *q = c->node->in[0], *k = c->node->in[1], *out = c->node->out[0];
    int64_t b = t / s->heads, h = t % s->heads, ldq, ldk, at = t * s->row_cap * s->key_cap;
    float *tmp = c->tmp[worker], *k_tmp = tmp + s->row_cap * s->head;
    const float *qh = head_of(c->in[0], q, b * s->row_cap, s->rows, h * s->head, s->head, tmp, &ldq);
    const float *kh = head_of(c->in[1], k, b * (s->key_cap + s->first) + s->first, s->keys,
                              h / s->group * s->head, s->head, k_tmp, &ldk);
    float *dst = cpu_dest(c->out[0], out->dtype, at, k_tmp + (s->key_cap + s->first) * s->head);
    cpu_gemm(c->vector, true, s->rows, s->keys, s->head, c->node->attr.attention.scale, qh, ldq, kh, ldk, 0,
             dst, s->key_cap);
    for (int64_t r = 0; out->dtype != PV_F32 && r < s->rows; r++)
        cpu_done(c->out[0], out->dtype, at + r * s->key_cap, s->keys, dst + r * s->key_cap);
}

static void scores_run(const cpu_call *c)
{
    const pv_attention_attr *a = &c->node->attr.attention;
    const pv_tensor *out = c->node->out[0];
    job j = {c,
             {a->batch, a->heads, a->heads / a->kv_heads, .row_cap = out->dim[1], .key_cap = out->dim[2],
              .first = a->first, .head = pv_width(c->node->in[0]) / a->heads}};
    j.s.rows = c->rows[0] ? cpu_rows(c, 0) : out->dim[1];
    j.s.keys = cpu_count(c, 2, out->dim[2]);
    if (j.s.rows && j.s.keys)
        pv_pool_run(c->pool, j.s.batch * j.s.heads, scores_task, &j);
}

static size_t values_need(const pv_node *n)
{
    const pv_tensor *p = n->in[0], *v = n->in[1], *out = n->out[0];
    const pv_attention_attr *a = &n->attr.attention;
    int64_t head = pv_width(v) / a->kv_heads;
    if (p->dtype == PV_F32 && v->dtype == PV_F32 && out->dtype == PV_F32)
        return 0;
    return (size_t)(p->dim[1] * p->dim[2] + v->dim[0] / a->batch * head + p->dim[1] * head);
}

static void values_task(void *user, int64_t t, int worker)
{
    const job *j = user;
    const shape *s = &j->s;
    const cpu_call *c = j->c;
    const pv_tensor *p = c->node->in[0], *v = c->node->in[1], *out = c->node->out[0];
    int64_t b = t / s->heads, h = t % s->heads, ldv, width = pv_width(out);
    float *tmp = c->tmp[worker], *v_tmp = tmp + s->row_cap * s->key_cap;
    float *o_tmp = v_tmp + (s->key_cap + s->first) * s->head;
    const float *ph = cpu_load(c->in[0], p->dtype, t * s->row_cap * s->key_cap, s->rows * s->key_cap, tmp);
    const float *vh = head_of(c->in[1], v, b * (s->key_cap + s->first) + s->first, s->keys,
                              h / s->group * s->head, s->head, v_tmp, &ldv);
    int64_t at = b * s->row_cap * width + h * s->head;
    bool direct = out->dtype == PV_F32;
    cpu_gemm(c->vector, false, s->rows, s->head, s->keys, 1, ph, s->key_cap, vh, ldv, 0,
             direct ? (float *)c->out[0] + at : o_tmp, direct ? width : s->head);
    for (int64_t r = 0; !direct && r < s->rows; r++)
        cpu_done(c->out[0], out->dtype, at + r * width, s->head, o_tmp + r * s->head);
}

static void values_run(const cpu_call *c)
{
    const pv_attention_attr *a = &c->node->attr.attention;
    const pv_tensor *p = c->node->in[0];
    job j = {c,
             {a->batch, a->heads, a->heads / a->kv_heads, .row_cap = p->dim[1], .key_cap = p->dim[2],
              .first = a->first, .head = pv_width(c->node->in[1]) / a->kv_heads}};
    j.s.rows = c->rows[0] ? cpu_rows(c, 0) : p->dim[1];
    j.s.keys = cpu_count(c, 2, p->dim[2]);
    if (j.s.rows)
        pv_pool_run(c->pool, j.s.batch * j.s.heads, values_task, &j);
}

/* ---- softmax ---- */

static void softmax_each(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    (void)row;
    c->vector->softmax(out, in[0], cpu_count(c, 1, pv_width(c->node->in[0])));
}

static void softmax_run(const cpu_call *c)
{
    cpu_each_row_of(c, softmax_each, cpu_count(c, 1, pv_width(c->node->in[0])));
}

const cpu_kernel cpu_attention_scores = {scores_run, scores_need, 1u << 2};
const cpu_kernel cpu_softmax = {softmax_run, cpu_row_need, 1u << 1};
const cpu_kernel cpu_attention_values = {values_run, values_need, 1u << 2};
