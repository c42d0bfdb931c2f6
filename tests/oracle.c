/* oracle.c - what each op means, in float64 and without haste. Written from ops.def and the papers, not from kernels.
 *
 * Bounds (op_truth): each of the n roundings in a sum is anywhere within 2^-24 of what has been added up, a standard
 * deviation of 0.58; together they walk randomly, and five standard deviations of n of them are 3 sqrt(n) (for few
 * terms n, the worst case, is less). 4 more for the products and what comes after. Where an error is magnified (a score
 * goes through exp), `size` has the factor. */
#include "harness.h"

static int64_t width(const op_truth *t, int i)
{
    const op_in *x = &t->c->in[i];
    return x->dim[op_n_dims(x) - 1];
}

static int64_t rows(const op_truth *t, int i)
{
    return op_elements(&t->c->in[i]) / width(t, i);
}

static bool has(const op_truth *t, int i)
{
    return i < op_n_in(t->c);
}

static void put(op_truth *t, int out, int64_t at, double value, double size)
{
    t->out[out][at] = value;
    t->size[out][at] = size;
}

static void copy(op_truth *t, int64_t to, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        put(t, 0, to + i, from[i], 0);
}

/* ---- products ---- */

/* Row r of x times row n of w, plus bias: the value and its size. */
static double product(const op_truth *t, int w, int b, int64_t r, int64_t n, double *size)
{
    int64_t K = width(t, 0);
    const double *x = t->in[0] + r * K, *y = t->in[w] + n * K;
    double sum = b ? t->in[b][n] : 0, abs = fabs(sum);
    for (int64_t k = 0; k < K; k++) {
        sum += x[k] * y[k];
        abs += fabs(x[k] * y[k]);
    }
    *size = abs;
    return sum;
}

static double sum_steps(int64_t n)
{
    return 4 + fmin((double)n, 3 * sqrt((double)n));
}

static void linears(op_truth *t, int n)
{
    bool bias = op_n_in(t->c) > 1 + n;
    t->steps = sum_steps(width(t, 0));
    for (int i = 0; i < n; i++)
        for (int64_t r = 0, N = rows(t, 1 + i); r < rows(t, 0); r++)
            for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
                double size, y = product(t, 1 + i, bias ? 1 + n + i : 0, r, k, &size);
                put(t, i, r * N + k, y, size);
            }
}

static void linear(op_truth *t)
{
    linears(t, 1);
}

static void linear_group(op_truth *t)
{
    linears(t, t->c->attr.group.n);
}

static void linear_add(op_truth *t)
{
    t->steps = sum_steps(width(t, 0)) + 1;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, y = product(t, 1, has(t, 3) ? 3 : 0, r, k, &size), x = t->in[2][r * N + k];
            put(t, 0, r * N + k, x + y, size + fabs(x));
        }
}

static void linear_gated(op_truth *t)
{
    t->steps = sum_steps(width(t, 0)) + 2;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, y = product(t, 1, has(t, 4) ? 4 : 0, r, k, &size), x = t->in[2][r * N + k];
            double gate = t->in[3][2 * N + k];
            put(t, 0, r * N + k, x + y * gate, size * fabs(gate) + fabs(x));
        }
}

/* ---- attention ---- */

typedef struct heads {
    int64_t batch, heads, group, q_rows, k_rows, first, head, keys; /* keys: that take part; the k tensor has k_rows */
} heads;

static heads heads_of(const op_truth *t, int64_t q_rows, int k, int len)
{
    const pv_attention_attr *a = &t->c->attr.attention;
    heads h = {a->batch, a->heads, a->heads / a->kv_heads, q_rows / a->batch, rows(t, k) / a->batch, a->first,
               width(t, k) / a->kv_heads, 0};
    h.keys = h.k_rows - h.first;
    if (has(t, len) && t->in[len][0] < (double)h.keys)
        h.keys = t->in[len][0] < 0 ? 0 : (int64_t)t->in[len][0];
    return h;
}

static double score(const op_truth *t, const heads *h, int64_t b, int64_t n, int64_t i, int64_t j, double *size)
{
    double sum = 0, abs = 0, scale = (double)t->c->attr.attention.scale;
    const double *q = t->in[0] + (b * h->q_rows + i) * h->heads * h->head + n * h->head;
    const double *k = t->in[1] + (b * h->k_rows + h->first + j) * (h->heads / h->group * h->head) + n / h->group * h->head;
    for (int64_t d = 0; d < h->head; d++) {
        sum += q[d] * k[d];
        abs += fabs(q[d] * k[d]);
    }
    *size = abs * fabs(scale);
    return sum * scale;
}

static void attention_scores(op_truth *t)
{
    heads h = heads_of(t, rows(t, 0), 1, 2);
    t->steps = sum_steps(h.head);
    for (int64_t b = 0; b < h.batch; b++)
        for (int64_t n = 0; n < h.heads; n++)
            for (int64_t i = 0; i < h.q_rows; i++)
                for (int64_t j = 0; op_valid_row(&t->c->in[0], b * h.q_rows + i) && j < h.keys; j++) {
                    double size, s = score(t, &h, b, n, i, j, &size);
                    put(t, 0, ((b * h.heads + n) * h.q_rows + i) * (h.k_rows - h.first) + j, s, size);
                }
}

/* exp is cut off at e^-87, which shows as an absolute 2e-38. A difference from the maximum is off by its own rounding. */
#define CUT (2e-38 * 0x1p24)

static void softmax(op_truth *t)
{
    int64_t W = width(t, 0), n = W;
    if (has(t, 1) && t->in[1][0] < (double)n)
        n = t->in[1][0] < 0 ? 0 : (int64_t)t->in[1][0];
    t->steps = 4 + sum_steps(n);
    for (int64_t r = 0; r < rows(t, 0); r++) {
        const double *s = t->in[0] + r * W;
        double top = -INFINITY, total = 0;
        if (!op_valid_row(&t->c->in[0], r))
            continue;
        for (int64_t j = 0; j < n; j++)
            top = s[j] > top ? s[j] : top;
        for (int64_t j = 0; j < n; j++)
            total += exp(s[j] - top);
        for (int64_t j = 0; j < n; j++) {
            double p = exp(s[j] - top) / total;
            put(t, 0, r * W + j, p, p * (1 + fabs(s[j] - top)) + CUT);
        }
    }
}

static void attention_values(op_truth *t)
{
    const pv_attention_attr *a = &t->c->attr.attention;
    heads h = heads_of(t, t->c->in[0].dim[1] * a->batch, 1, 2);
    int64_t cap = h.k_rows - h.first;
    t->steps = sum_steps(h.keys);
    for (int64_t b = 0; b < h.batch; b++)
        for (int64_t n = 0; n < h.heads; n++)
            for (int64_t i = 0; i < h.q_rows; i++)
                for (int64_t d = 0; op_valid_row(&t->c->in[0], (b * h.heads + n) * h.q_rows + i) && d < h.head; d++) {
                    double sum = 0, abs = 0;
                    for (int64_t j = 0; j < h.keys; j++) {
                        double p = t->in[0][((b * h.heads + n) * h.q_rows + i) * cap + j];
                        double v = t->in[1][(b * h.k_rows + h.first + j) * (h.heads / h.group * h.head) + n / h.group * h.head + d];
                        sum += p * v;
                        abs += fabs(p * v);
                    }
                    put(t, 0, (b * h.q_rows + i) * h.heads * h.head + n * h.head + d, sum, abs);
                }
}

static void attention(op_truth *t)
{
    heads h = heads_of(t, rows(t, 0), 1, 3);
    double narrow = t->c->in[2].dtype == PV_BF16 ? 0x1p-8 : t->c->in[2].dtype == PV_F16 ? 0x1p-11 : 0;
    double *p = malloc(sizeof *p * (size_t)(h.keys + 1));
    t->steps = 4 + sum_steps(h.keys) + sum_steps(h.head);
    for (int64_t b = 0; b < h.batch; b++)
        for (int64_t n = 0; n < h.heads; n++)
            for (int64_t i = 0; i < h.q_rows; i++) {
                double top = -INFINITY, low = INFINITY, total = 0, most = 0;
                if (!op_valid_row(&t->c->in[0], b * h.q_rows + i))
                    continue;
                for (int64_t j = 0; j < h.keys; j++) {
                    double size;
                    p[j] = score(t, &h, b, n, i, j, &size);
                    top = fmax(top, p[j]);
                    low = fmin(low, p[j]);
                    most = fmax(most, size);
                }
                for (int64_t j = 0; j < h.keys; j++)
                    total += p[j] = exp(p[j] - top);
                for (int64_t d = 0; d < h.head; d++) {
                    double sum = 0, abs = 0;
                    for (int64_t j = 0; j < h.keys; j++) {
                        double v = t->in[2][(b * h.k_rows + h.first + j) * (h.heads / h.group * h.head) + n / h.group * h.head + d];
                        sum += p[j] / total * v;
                        abs += fabs(p[j] / total * v) + CUT * fabs(v);
                    }
                    /* an error of a score is one of its exp, relatively; and of the sum that divides it */
                    int64_t at = (b * h.q_rows + i) * h.heads * h.head + n * h.head + d;
                    put(t, 0, at, sum, h.keys ? abs * (1 + 2 * most + top - low) : 0);
                    t->whole[0][at] = narrow * abs;
                }
            }
    free(p);
}

/* ---- norms ---- */

static double mean_of(const double *x, int64_t n, double around, int power)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += power == 1 ? x[i] : power == 2 ? (x[i] - around) * (x[i] - around) : fabs(x[i]);
    return sum / (double)n;
}

static void rms_norm(op_truth *t)
{
    int64_t W = width(t, 0);
    t->steps = sum_steps(W);
    for (int64_t r = 0; r < rows(t, 0); r++)
        for (int64_t i = 0; op_valid_row(&t->c->in[0], r) && i < W; i++) {
            const double *x = t->in[0] + r * W;
            double y = x[i] / sqrt(mean_of(x, W, 0, 2) + (double)t->c->attr.norm.eps) * (has(t, 1) ? t->in[1][i] : 1);
            put(t, 0, r * W + i, y, fabs(y));
        }
}

static void layer_norm(op_truth *t)
{
    int64_t W = width(t, 0);
    t->steps = 4 + sum_steps(W);
    for (int64_t r = 0; r < rows(t, 0); r++) {
        const double *x = t->in[0] + r * W;
        if (!op_valid_row(&t->c->in[0], r))
            continue;
        double mean = mean_of(x, W, 0, 1), mean_abs = mean_of(x, W, 0, 0);
        double scale = 1 / sqrt(mean_of(x, W, mean, 2) + (double)t->c->attr.norm.eps);
        for (int64_t i = 0; i < W; i++) {
            double w = t->in[1][i], b = t->in[2][i];
            put(t, 0, r * W + i, (x[i] - mean) * scale * w + b, (fabs(x[i]) + mean_abs) * scale * fabs(w) + fabs(b));
        }
    }
}

static void ada_rms_norm(op_truth *t)
{
    int64_t W = width(t, 0);
    const double *scale = t->in[1], *shift = scale + W;
    t->steps = 4 + sum_steps(W);
    for (int64_t r = 0; r < rows(t, 0); r++)
        for (int64_t i = 0; op_valid_row(&t->c->in[0], r) && i < W; i++) {
            const double *x = t->in[0] + r * W;
            double h = x[i] / sqrt(mean_of(x, W, 0, 2) + (double)t->c->attr.norm.eps);
            put(t, 0, r * W + i, h * (1 + scale[i]) + shift[i], fabs(h) * (1 + fabs(scale[i])) + fabs(shift[i]));
        }
}

/* ---- positions ---- */

static void turned(op_truth *t, int n_heads, int64_t first)
{
    int64_t W = width(t, 0), head = W / n_heads, half = head / 2;
    t->steps = 3;
    for (int64_t r = 0; r < rows(t, 0); r++) {
        const double *x = t->in[0] + r * W, *table = t->in[1] + (int64_t)t->in[2][r] * head;
        for (int64_t i = 0; op_valid_row(&t->c->in[0], r) && i < W; i++) {
            int64_t h = i / head * head, k = i % head, a = k % half;
            double u = x[h + a], v = x[h + a + half], c = table[a], s = table[a + half];
            double y = k < half ? u * c - v * s : v * c + u * s;
            put(t, 0, (first + r) * W + i, y, k < half ? fabs(u * c) + fabs(v * s) : fabs(v * c) + fabs(u * s));
        }
    }
}

static void rope(op_truth *t)
{
    turned(t, t->c->attr.rope.heads, 0);
}

static void rope_store(op_truth *t)
{
    copy(t, 0, t->in[3], op_elements(&t->c->in[3]));
    turned(t, t->c->attr.rope_store.heads, t->c->attr.rope_store.first);
}

/* ---- element by element ---- */

static void each(op_truth *t, double steps, double (*f)(const op_truth *t, int64_t at, int64_t column, double *size))
{
    int64_t W = width(t, 0);
    t->steps = steps;
    for (int64_t at = 0; at < op_elements(&t->c->in[0]); at++)
        if (op_valid_row(&t->c->in[0], at / W)) {
            double size = 0, y = f(t, at, at % W, &size);
            put(t, 0, at, y, size);
        }
}

static double repeated(const op_truth *t, int64_t at)
{
    return t->in[1][at % op_elements(&t->c->in[1])];
}

static double add_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    *size = fabs(t->in[0][at]) + fabs(repeated(t, at));
    return t->in[0][at] + repeated(t, at);
}

static double mul_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    double y = t->in[0][at] * repeated(t, at);
    *size = fabs(y);
    return y;
}

static double scale_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    double y = t->in[0][at] * (double)t->c->attr.scale.factor;
    *size = fabs(y);
    return y;
}

/* An error of the exponent z is one of e^z relatively, and counts as much as e^z does in 1 + e^z. The cut of exp: |x| e^-87. */
static double sigmoid_like(double x, double z, double *size)
{
    double y = x / (1 + exp(z));
    *size = fabs(y) * (1 + fabs(z) / (1 + exp(-z))) + CUT * fabs(x);
    return y;
}

static double gelu_of(double x, double *size)
{
    /* 0.5 (1 + tanh u) = 1 / (1 + e^-2u) */
    return sigmoid_like(x, -2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x), size);
}

static double gelu_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    return gelu_of(t->in[0][at], size);
}

static double silu_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    return sigmoid_like(t->in[0][at], -t->in[0][at], size);
}

static double axpy_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    double ay = t->in[1][0] * t->in[2][at];
    *size = fabs(t->in[0][at]) + fabs(ay);
    return t->in[0][at] + ay;
}

static double gated_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    double y = t->in[1][at] * t->in[2][2 * width(t, 0) + column];
    *size = fabs(t->in[0][at]) + fabs(y);
    return t->in[0][at] + y;
}

static double geglu_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column;
    double y = gelu_of(t->in[0][at], size), up = t->in[1][at];
    *size *= fabs(up);
    return y * up;
}

static double same_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    (void)column, (void)size;
    return t->in[0][at];
}

static void add(op_truth *t)
{
    each(t, 1, add_at);
}

static void mul(op_truth *t)
{
    each(t, 1, mul_at);
}

static void scale(op_truth *t)
{
    each(t, 1, scale_at);
}

/* An error of the sum is one of the result, 1.13 times at most. */
static void linear_gelu(op_truth *t)
{
    double sums = sum_steps(width(t, 0));
    t->steps = sums + 12;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, own, x = product(t, 1, has(t, 2) ? 2 : 0, r, k, &size), y = gelu_of(x, &own);
            put(t, 0, r * N + k, y, 1.13 * size + own);
        }
}

static void gelu(op_truth *t)
{
    each(t, 12, gelu_at); /* 5 roundings of the exponent, 2 ulp of exp, a sum and a quotient */
}

static void silu(op_truth *t)
{
    each(t, 8, silu_at);
}

static void axpy(op_truth *t)
{
    each(t, 2, axpy_at);
}

static void gated_residual(op_truth *t)
{
    each(t, 2, gated_at);
}

static void gated_norm(op_truth *t)
{
    int64_t W = width(t, 0);
    const double *scale = t->in[3], *shift = scale + W;
    each(t, 6 + sum_steps(W), gated_at);
    for (int64_t at = 0; at < op_elements(&t->c->in[0]); at++) {
        const double *x = t->out[0] + at / W * W;
        if (!op_valid_row(&t->c->in[0], at / W))
            continue;
        double r = 1 / sqrt(mean_of(x, W, 0, 2) + (double)t->c->attr.norm.eps), h = x[at % W] * r, s = 1 + fabs(scale[at % W]);
        put(t, 1, at, h * (1 + scale[at % W]) + shift[at % W], (t->size[0][at] * r + fabs(h)) * s + fabs(shift[at % W]));
    }
}

static void geglu(op_truth *t)
{
    each(t, 13, geglu_at);
}

static void cast(op_truth *t)
{
    each(t, 0, same_at);
}

/* ---- layout: exact ---- */

static void concat(op_truth *t)
{
    int64_t W = width(t, 0), above = rows(t, 0);
    copy(t, 0, t->in[0], above * W);
    for (int64_t r = 0; r < rows(t, 1); r++)
        if (op_valid_row(&t->c->in[1], r))
            copy(t, (above + r) * W, t->in[1] + r * W, W);
}

static void slice(op_truth *t)
{
    int64_t W = width(t, 0), n = t->c->attr.range.size;
    for (int64_t r = 0; r < rows(t, 0); r++)
        if (op_valid_row(&t->c->in[0], r))
            copy(t, r * n, t->in[0] + r * W + t->c->attr.range.first, n);
}

static void row(op_truth *t)
{
    copy(t, 0, t->in[0] + (int64_t)t->in[1][0] * width(t, 0), width(t, 0));
}

static void store(op_truth *t)
{
    int64_t W = width(t, 0);
    copy(t, 0, t->in[0], op_elements(&t->c->in[0]));
    for (int64_t r = 0; r < rows(t, 1); r++)
        if (op_valid_row(&t->c->in[1], r))
            copy(t, (t->c->attr.range.first + r) * W, t->in[1] + r * W, W);
}

/* Exact: the roundings are part of the meaning, as float32 has been to every model that was trained. */
static double pixel(double v)
{
    volatile float f = (float)v / 255.0f; /* rounded to f32 between the steps */
    f = f * 2.0f;
    f = f - 1.0f;
    return (double)f;
}

static void patchify(op_truth *t)
{
    const int64_t *dim = t->c->in[0].dim, p = t->c->attr.patch.size, down = dim[1] / p, across = dim[2] / p;
    for (int64_t i = 0; i < dim[0]; i++)
        for (int64_t y = 0; y < dim[1]; y++)
            for (int64_t x = 0; x < dim[2]; x++)
                for (int64_t ch = 0; ch < dim[3]; ch++) {
                    int64_t patch = (i * down + y / p) * across + x / p, at = (ch * p + y % p) * p + x % p;
                    double v = t->in[0][((i * dim[1] + y) * dim[2] + x) * dim[3] + ch];
                    put(t, 0, patch * dim[3] * p * p + at, pixel(v), 0);
                }
}

const op_oracle op_oracles[PV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, attr, flags, body, meaning) [PV_OP_##ENUM] = name,
#include "graph/ops.def"
};
