/* oracle.c - what each op means, in float64 and without haste. Written from ops.def and the papers, not from kernels.
 *
 * Bounds (op_truth): each of the n roundings in a sum is anywhere within 2^-24 of what has been added up, a standard
 * deviation of 0.58; together they walk randomly, and five standard deviations of n of them are 3 sqrt(n) (for few
 * terms n, the worst case, is less). 4 more for the products and what comes after. Where an error is magnified (a score
 * goes through exp), `size` has the factor. Ops that are rounded on their way by what they mean have errors of their
 * own kind: see `field`. */
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

/* The most by which a number of 1 moves when it is rounded to the dtype. */
static double half_unit(pv_dtype dtype)
{
    static const int bits[PV_DTYPE_COUNT] = {[PV_F32] = 24, [PV_BF16] = 8, [PV_F16] = 11};
    return ldexp(1, -bits[dtype]);
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

static void sums(op_truth *t, int bias)
{
    t->steps = sum_steps(width(t, 0)) + 1;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, y = product(t, 1, bias, r, k, &size), x = t->in[2][r * N + k];
            put(t, 0, r * N + k, x + y, size + fabs(x));
        }
}

static void linear_add(op_truth *t)
{
    sums(t, has(t, 3) ? 3 : 0);
}

static void gated_products(op_truth *t, int bias)
{
    t->steps = sum_steps(width(t, 0)) + 2;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, y = product(t, 1, bias, r, k, &size), x = t->in[2][r * N + k];
            double gate = t->in[3][2 * N + k];
            put(t, 0, r * N + k, x + y * gate, size * fabs(gate) + fabs(x));
        }
}

static void linear_gated(op_truth *t)
{
    gated_products(t, has(t, 4) ? 4 : 0);
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

/* A product as the table's dtype holds it. */
static double turned_part(const op_truth *t, int table, double x, double y)
{
    bool narrow = t->c->in[table].dtype == PV_BF16;
    return narrow ? (double)pv_bf16_to_f32(pv_f32_to_bf16((float)(x * y))) : x * y;
}

/* Input x, by the table that is input `table`, into rows from `first` on of an output. */
static void turned(op_truth *t, int out, int in, int table, int n_heads, int64_t first)
{
    int64_t W = width(t, in), head = W / n_heads, half = head / 2;
    t->steps = 3;
    for (int64_t r = 0; r < rows(t, in); r++) {
        const double *x = t->in[in] + r * W, *angles = t->in[table] + (int64_t)t->in[table + 1][r] * head;
        for (int64_t i = 0; op_valid_row(&t->c->in[in], r) && i < W; i++) {
            int64_t h = i / head * head, k = i % head, a = k % half;
            double u = x[h + a], v = x[h + a + half], c = angles[a], s = angles[a + half];
            double own = turned_part(t, table, k < half ? u : v, c), other = turned_part(t, table, k < half ? v : u, s);
            double y = k < half ? own - other : own + other;
            put(t, out, (first + r) * W + i, y, k < half ? fabs(u * c) + fabs(v * s) : fabs(v * c) + fabs(u * s));
        }
    }
}

static void rope(op_truth *t)
{
    turned(t, 0, 0, 1, t->c->attr.rope.heads, 0);
}

static void rope_store(op_truth *t)
{
    copy(t, 0, t->in[3], op_elements(&t->c->in[3]));
    turned(t, 0, 0, 1, t->c->attr.rope_store.heads, t->c->attr.rope_store.first);
}

static void rope_cache(op_truth *t)
{
    const pv_rope_cache_attr *a = &t->c->attr.rope_cache;
    int64_t W = width(t, 2);
    for (int i = 1; i < 3; i++)
        for (int64_t at = 0; at < op_elements(&t->c->in[4 + i]); at++)
            put(t, i, at, t->in[4 + i][at], 0);
    turned(t, 0, 0, 3, a->heads, 0);
    turned(t, 1, 1, 3, a->kv_heads, a->first);
    for (int64_t at = 0; at < op_elements(&t->c->in[2]); at++)
        if (op_valid_row(&t->c->in[2], at / W))
            put(t, 2, a->first * W + at, t->in[2][at], 0);
}

/* Heads of x w^T, rounded before they are turned (q, k) or stored (v), into rows from `first` on. */
static void product_turned(op_truth *t, int out, int w, int n_heads, int64_t first)
{
    double in_steps = half_unit(t->c->attr.linear_rope_cache.between) * 0x1p24 / t->steps;
    int64_t W = rows(t, w), head = W / (n_heads ? n_heads : 1), half = head / 2;
    for (int64_t r = 0; r < rows(t, 0); r++)
        for (int64_t i = 0; op_valid_row(&t->c->in[0], r) && i < W; i++) {
            double size, other_size, own = product(t, w, 0, r, i, &size), y = own;
            size += fabs(own) * in_steps;
            if (n_heads) {
                int64_t k = i % head, beside = k < half ? i + half : i - half;
                const double *angles = t->in[4] + (int64_t)t->in[5][r] * head;
                double other = product(t, w, 0, r, beside, &other_size), c = angles[k % half], s = angles[k % half + half];
                other_size += fabs(other) * in_steps;
                y = k < half ? own * c - other * s : own * c + other * s;
                size = size * fabs(c) + other_size * fabs(s);
            }
            put(t, out, (first + r) * W + i, y, size);
        }
}

static void linear_rope_cache(op_truth *t)
{
    const pv_rope_cache_attr *a = &t->c->attr.linear_rope_cache.rope_cache;
    t->steps = sum_steps(width(t, 0)) + 3;
    for (int i = 1; i < 3; i++)
        for (int64_t at = 0; at < op_elements(&t->c->in[5 + i]); at++)
            put(t, i, at, t->in[5 + i][at], 0);
    product_turned(t, 0, 1, a->heads, 0);
    product_turned(t, 1, 2, a->kv_heads, a->first);
    product_turned(t, 2, 3, 0, a->first);
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

/* Before GELU and product each sum is rounded: half a unit in the last place, wherever it falls. */
static void linear_geglu(op_truth *t)
{
    double sums = sum_steps(width(t, 0)), half = half_unit(t->c->attr.linear_geglu.between);
    t->steps = sums + 14;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size[2], own, gate = product(t, 1, 0, r, k, &size[0]), up = product(t, 2, 0, r, k, &size[1]);
            double y = gelu_of(gate, &own), in_steps = half * 0x1p24 / t->steps;
            put(t, 0, r * N + k, y * up,
                (1.13 * (size[0] + fabs(gate) * in_steps) + own) * fabs(up) * (1 + half) +
                    fabs(y) * (size[1] + fabs(up) * in_steps));
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

/* The second output: the first one's norm by the modulation in input `next`. */
static void norm_of_sum(op_truth *t, int residual, int next)
{
    int64_t W = width(t, residual);
    const double *scale = t->in[next], *shift = scale + W;
    for (int64_t at = 0; at < op_elements(&t->c->in[residual]); at++) {
        const double *x = t->out[0] + at / W * W;
        if (!op_valid_row(&t->c->in[residual], at / W))
            continue;
        double r = 1 / sqrt(mean_of(x, W, 0, 2) + (double)t->c->attr.norm.eps), h = x[at % W] * r, s = 1 + fabs(scale[at % W]);
        put(t, 1, at, h * (1 + scale[at % W]) + shift[at % W], (t->size[0][at] * r + fabs(h)) * s + fabs(shift[at % W]));
    }
}

static void gated_norm(op_truth *t)
{
    each(t, 6 + sum_steps(width(t, 0)), gated_at);
    norm_of_sum(t, 0, 3);
}

static void linear_gated_norm(op_truth *t)
{
    gated_products(t, 0);
    t->steps += 4 + sum_steps(width(t, 2));
    norm_of_sum(t, 2, 4);
}

/* A sum's error reaches its norm through the number itself and, of a layer_norm, through the mean. */
static void linear_add_norm(op_truth *t)
{
    const pv_linear_add_norm_attr *a = &t->c->attr.linear_add_norm;
    const int norm = op_n_in(t->c) - 1 - a->layer;
    int64_t W = width(t, 2);
    sums(t, norm > 3 ? 3 : 0);
    t->steps += 4 + sum_steps(W);
    for (int64_t r = 0; r < rows(t, 2); r++) {
        const double *x = t->out[0] + r * W, *size = t->size[0] + r * W;
        if (!op_valid_row(&t->c->in[2], r))
            continue;
        double mean = a->layer ? mean_of(x, W, 0, 1) : 0, others = a->layer ? mean_of(x, W, 0, 0) + mean_of(size, W, 0, 0) : 0;
        double scale = 1 / sqrt(mean_of(x, W, mean, 2) + (double)a->eps);
        for (int64_t i = 0; i < W; i++) {
            double w = t->in[norm][i], b = a->layer ? t->in[norm + 1][i] : 0;
            put(t, 1, r * W + i, (x[i] - mean) * scale * w + b, (size[i] + fabs(x[i]) + others) * scale * fabs(w) + fabs(b));
        }
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

static void transpose(op_truth *t)
{
    int64_t first = t->c->attr.transpose.first, second = t->c->attr.transpose.second, all = op_elements(&t->c->in[0]);
    for (int64_t at = 0, rest = all / first / second; at < all; at++)
        put(t, 0, ((at / rest % second) * first + at / rest / second) * rest + at % rest, t->in[0][at], 0);
}

/* ---- few bits: quotients are rounded to f32, as part of the meaning; saturated where e4m3 ends ---- */

static void scale_for(op_truth *t)
{
    double most = 0;
    for (int64_t at = 0, W = width(t, 0); at < op_elements(&t->c->in[0]); at++)
        if (op_valid_row(&t->c->in[0], at / W))
            most = fmax(most, fabs(t->in[0][at]));
    double s = (double)(float)(most / (t->c->attr.scale_for.dtype == PV_E4M3 ? 448 : 6));
    put(t, 0, 0, s > 0 ? s : 1, 0);
}

static double block_scale(const op_truth *t, int x, int s, int64_t at)
{
    int64_t W = width(t, x), down = rows(t, x) / rows(t, s), across = W / width(t, s);
    return t->in[s][at / W / down * width(t, s) + at % W / across];
}

static void quantize(op_truth *t)
{
    for (int64_t at = 0, W = width(t, 0); at < op_elements(&t->c->in[0]); at++)
        if (op_valid_row(&t->c->in[0], at / W))
            put(t, 0, at, (double)(float)(t->in[0][at] / block_scale(t, 0, 1, at)), 0);
}

static void dequantize(op_truth *t)
{
    for (int64_t at = 0, W = width(t, 0); at < op_elements(&t->c->in[0]); at++)
        if (op_valid_row(&t->c->in[0], at / W))
            put(t, 0, at, (double)(float)(t->in[0][at] * block_scale(t, 0, 1, at)), 0);
}

static double geglu_quantized_at(const op_truth *t, int64_t at, int64_t column, double *size)
{
    double y = geglu_at(t, at, column, size) / t->in[2][0], most = t->c->out[0] == PV_E4M3 ? 448 : INFINITY;
    *size /= fabs(t->in[2][0]);
    return fmax(-most, fmin(most, y));
}

static void geglu_quantize(op_truth *t)
{
    each(t, 14, geglu_quantized_at);
}

/* Hopper lines 32 products of e4m3 up with the largest of them, and keeps some 13 bits behind its first: each may lose that much. */
#define AT_ONCE 32
#define KEPT    0x1p-13

static double lost(const op_truth *t, int64_t r, int64_t n)
{
    int64_t K = width(t, 0);
    double sum = 0;
    for (int64_t k = 0; k < K; k += AT_ONCE) {
        double most = 0;
        for (int64_t i = k; i < K && i < k + AT_ONCE; i++)
            most = fmax(most, fabs(t->in[0][r * K + i] * t->in[1][n * K + i]));
        sum += AT_ONCE * KEPT * most;
    }
    return sum;
}

static void linear_scaled(op_truth *t)
{
    t->steps = sum_steps(width(t, 0)) + 2;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t k = 0; op_valid_row(&t->c->in[0], r) && k < N; k++) {
            double size, s = t->in[2][0] * t->in[3][0], y = product(t, 1, 0, r, k, &size) * s;
            put(t, 0, r * N + k, y, size * fabs(s));
            t->whole[0][r * N + k] = lost(t, r, k) * fabs(s);
        }
}

static void linear_blocks(op_truth *t)
{
    int64_t K = width(t, 0);
    t->steps = sum_steps(K) + 2;
    for (int64_t r = 0, N = rows(t, 1); r < rows(t, 0); r++)
        for (int64_t n = 0; op_valid_row(&t->c->in[0], r) && n < N; n++) {
            double sum = 0, abs = 0, s = t->in[3][0];
            for (int64_t k = 0; k < K; k++) {
                double p = t->in[0][r * K + k] * t->in[1][n * K + k] * block_scale(t, 1, 2, n * K + k);
                sum += p;
                abs += fabs(p);
            }
            put(t, 0, r * N + n, sum * s, abs * fabs(s));
        }
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

/* ---- a layer ---- */

/* Numbers with the variance of their error. A layer is rounded to the dtype of its caches in eleven places, and a kernel may
 * leave some of them out: an error is carried from place to place to first order, errors of different numbers being independent.
 * The deviation found so is the one measured, so six of them are the bound: a wrong alarm in 1e8 numbers. What f32 does in an
 * op counts as a fifth of the op's own bound. */
typedef struct field {
    int64_t rows, width;
    double *v, *var;
} field;

static field field_of(int64_t rows, int64_t width)
{
    double *v = calloc((size_t)(2 * rows * width), sizeof *v);
    return (field){rows, width, v, v + rows * width};
}

static field field_in(const op_truth *t, int i)
{
    field f = field_of(rows(t, i), width(t, i));
    memcpy(f.v, t->in[i], sizeof *f.v * (size_t)(f.rows * f.width));
    return f;
}

static double five_sigma(double bound)
{
    return bound * bound / 25;
}

/* Anywhere within half a unit in the last place. */
static double of_rounding(double v, pv_dtype dtype)
{
    double half = v != 0 ? ldexp(1, ilogb(v) - (dtype == PV_BF16 ? 8 : dtype == PV_F16 ? 11 : 24)) : 0;
    return half * half / 3;
}

static field rounded(field f, pv_dtype dtype)
{
    for (int64_t i = 0; i < f.rows * f.width; i++)
        f.var[i] += of_rounding(f.v[i], dtype);
    return f;
}

static field times(const op_truth *t, field x, int w)
{
    field y = field_of(x.rows, rows(t, w));
    for (int64_t n = 0; n < y.width; n++)
        for (int64_t r = 0; r < x.rows; r++) {
            const double *a = t->in[w] + n * x.width, *v = x.v + r * x.width, *var = x.var + r * x.width;
            double sum = 0, abs = 0, error = 0;
            for (int64_t k = 0; k < x.width; k++) {
                sum += a[k] * v[k];
                abs += fabs(a[k] * v[k]);
                error += a[k] * a[k] * var[k];
            }
            y.v[r * y.width + n] = sum;
            y.var[r * y.width + n] = error + five_sigma(sum_steps(x.width) * 0x1p-24 * abs);
        }
    return y;
}

/* The mean square's own error comes from all of a row. */
static field modulated(const op_truth *t, field x, int mod, float eps)
{
    field y = field_of(x.rows, x.width);
    int64_t W = x.width;
    for (int64_t r = 0; r < x.rows; r++) {
        const double *v = x.v + r * W, *var = x.var + r * W;
        double square = mean_of(v, W, 0, 2) + (double)eps, inverse = 1 / sqrt(square), common = 0;
        for (int64_t i = 0; i < W; i++)
            common += v[i] * v[i] * var[i] / ((double)(W * W) * square * square);
        for (int64_t i = 0; i < W; i++) {
            double h = v[i] * inverse, scale = 1 + t->in[mod][i], shift = t->in[mod][W + i];
            double f32 = (4 + sum_steps(W)) * 0x1p-24 * (fabs(h) * (1 + fabs(t->in[mod][i])) + fabs(shift));
            y.v[r * W + i] = h * scale + shift;
            y.var[r * W + i] = scale * scale * (inverse * inverse * var[i] + h * h * common) + five_sigma(f32);
        }
    }
    return y;
}

static field turned_field(const op_truth *t, field x, int n_heads)
{
    field y = field_of(x.rows, x.width);
    int64_t head = x.width / n_heads, half = head / 2;
    for (int64_t at = 0; at < x.rows * x.width; at++) {
        const double *table = t->in[10] + (int64_t)t->in[11][at / x.width] * head;
        int64_t k = at % head, a = k % half, other = k < half ? at + half : at - half;
        double c = table[a], s = k < half ? -table[a + half] : table[a + half];
        y.v[at] = x.v[at] * c + x.v[other] * s;
        y.var[at] = x.var[at] * c * c + x.var[other] * s * s;
        y.var[at] += five_sigma(3 * 0x1p-24 * (fabs(x.v[at] * c) + fabs(x.v[other] * s)));
    }
    return y;
}

/* The cache with the rows of x in it. */
static field stored(const op_truth *t, int cache, field x)
{
    field f = field_in(t, cache);
    size_t bytes = sizeof *f.v * (size_t)(x.rows * x.width);
    memcpy(f.v + t->c->attr.expert.store * f.width, x.v, bytes);
    memcpy(f.var + t->c->attr.expert.store * f.width, x.var, bytes);
    return f;
}

/* One query on `keys` keys: o gets values and variances. What moves all scores alike moves no weight, so that errors that
 * keys share matter little; weights may be rounded to `dtype` before they meet v. The error of one score moves all of o in one
 * direction, so that a product of o may see far more of it than variances say: where o goes if the score that matters most
 * is one deviation off is in `lean`, and not in the variances. */
static void look(const double *q, const double *q_var, field k, field v, int64_t at, int64_t keys, int64_t head, double scale,
                 pv_dtype dtype, double *o, double *o_var, double *lean)
{
    double *p = malloc(2 * sizeof *p * (size_t)(keys + 1)), *s_var = p + keys, top = -INFINITY, low = INFINITY, total = 0;
    for (int64_t j = 0; j < keys; j++) {
        const double *kv = k.v + at + j * k.width, *k_var = k.var + at + j * k.width;
        double sum = 0, abs = 0, error = 0;
        for (int64_t d = 0; d < head; d++) {
            sum += q[d] * kv[d];
            abs += fabs(q[d] * kv[d]);
            error += q_var[d] * kv[d] * kv[d] + q[d] * q[d] * k_var[d];
        }
        p[j] = scale * sum;
        s_var[j] = scale * scale * error + five_sigma(sum_steps(head) * 0x1p-24 * fabs(scale) * abs);
        top = fmax(top, p[j]);
        low = fmin(low, p[j]);
    }
    for (int64_t j = 0; j < keys; j++)
        total += p[j] = exp(p[j] - top);
    for (int64_t d = 0; d < head; d++) {
        o[d] = 0;
        for (int64_t j = 0; j < keys; j++)
            o[d] += p[j] / total * v.v[at + j * v.width + d];
    }
    int64_t heaviest = 0;
    for (int64_t j = 0; j < keys; j++) /* keys' values are about alike in size */
        heaviest = p[j] * sqrt(s_var[j]) > p[heaviest] * sqrt(s_var[heaviest]) ? j : heaviest;
    for (int64_t d = 0; d < head && keys; d++)
        lean[d] = p[heaviest] / total * (v.v[at + heaviest * v.width + d] - o[d]) * sqrt(s_var[heaviest]);
    for (int64_t d = 0; d < head; d++) {
        double abs = 0, error = 0;
        for (int64_t j = 0; j < keys; j++)
            abs += fabs(p[j] / total * v.v[at + j * v.width + d]);
        for (int64_t j = 0; j < keys; j++) {
            double w = p[j] / total, x = v.v[at + j * v.width + d];
            double moved = j == heaviest ? 0 : (x - o[d]) * (x - o[d]) * s_var[j];
            error += w * w * (moved + v.var[at + j * v.width + d]) + x * x * of_rounding(w, dtype);
        }
        o_var[d] = error + (keys ? five_sigma((4 + sum_steps(keys)) * 0x1p-24 * abs * (1 + top - low)) : 0);
    }
    free(p);
}

static field looked(const op_truth *t, field q, field k, field v, double *lean)
{
    const pv_expert_attr *a = &t->c->attr.expert;
    field o = field_of(q.rows, q.width);
    int64_t head = q.width / a->heads, keys = k.rows - a->first;
    if (t->in[14][0] < (double)keys)
        keys = t->in[14][0] < 0 ? 0 : (int64_t)t->in[14][0];
    for (int64_t at = 0; at < q.rows * q.width; at += head) {
        int64_t kv_head = at % q.width / head / (a->heads / a->kv_heads);
        look(q.v + at, q.var + at, k, v, a->first * k.width + kv_head * head, keys, head, (double)a->scale,
             t->c->in[12].dtype, o.v + at, o.var + at, lean + at);
    }
    return o;
}

/* Into the variances of x w^T: x a head wide, moved all at once. */
static field leaning(const op_truth *t, field y, const double *lean, int w, int n_heads)
{
    int64_t K = width(t, w), head = K / n_heads;
    for (int64_t at = 0; at < y.rows * y.width; at++)
        for (int h = 0; h < n_heads; h++) {
            const double *a = t->in[w] + at % y.width * K + h * head, *moved = lean + at / y.width * K + h * head;
            double sum = 0;
            for (int64_t d = 0; d < head; d++)
                sum += a[d] * moved[d];
            y.var[at] += sum * sum;
        }
    return y;
}

static field onto(const op_truth *t, field x, field y, int mod)
{
    field z = field_of(x.rows, x.width);
    for (int64_t at = 0; at < x.rows * x.width; at++) {
        double gate = t->in[mod][2 * x.width + at % x.width];
        z.v[at] = x.v[at] + y.v[at] * gate;
        z.var[at] = x.var[at] + y.var[at] * gate * gate + five_sigma(2 * 0x1p-24 * (fabs(x.v[at]) + fabs(y.v[at] * gate)));
    }
    return z;
}

static field gated_by(field gate, field up)
{
    field y = field_of(gate.rows, gate.width);
    for (int64_t at = 0; at < y.rows * y.width; at++) {
        double x = gate.v[at], size, g = gelu_of(x, &size), c = sqrt(2 / acos(-1)), th = tanh(c * (x + 0.044715 * x * x * x));
        double slope = 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * c * (1 + 3 * 0.044715 * x * x);
        y.v[at] = g * up.v[at];
        y.var[at] = slope * slope * up.v[at] * up.v[at] * gate.var[at] + g * g * up.var[at];
        y.var[at] += five_sigma(13 * 0x1p-24 * size * fabs(up.v[at]));
    }
    return y;
}

/* A field as a result, of which rows [first, first + n) are made and the others are as they were. */
static void put_field(op_truth *t, int out, field f, int64_t first, int64_t n)
{
    for (int64_t at = 0; at < f.rows * f.width; at++) {
        bool made = at / f.width >= first && at / f.width < first + n;
        put(t, out, at, f.v[at], made ? 6 * sqrt(f.var[at]) * 0x1p24 : 0);
    }
}

static void expert_block(op_truth *t)
{
    const pv_expert_attr *a = &t->c->attr.expert;
    const pv_dtype d = t->c->in[12].dtype;
    t->steps = 1;
    field x = field_in(t, 0), h = rounded(modulated(t, x, 1, a->eps), d);
    field q_proj = rounded(times(t, h, 3), d), k_proj = rounded(times(t, h, 4), d), v = times(t, h, 5);
    field q = rounded(turned_field(t, q_proj, a->heads), d), k = turned_field(t, k_proj, a->kv_heads);
    field k_cache = stored(t, 12, k), v_cache = stored(t, 13, v);
    put_field(t, 1, k_cache, a->store, k.rows); /* their last rounding is the judge's */
    put_field(t, 2, v_cache, a->store, v.rows);
    field k_read = stored(t, 12, rounded(k, d)), v_read = stored(t, 13, rounded(v, d));
    field lean = field_of(q.rows, q.width), o = rounded(looked(t, q, k_read, v_read, lean.v), d);
    field attn_out = leaning(t, times(t, o, 6), lean.v, 6, a->heads), x1 = onto(t, x, attn_out, 1);
    field h2 = rounded(modulated(t, x1, 2, a->eps), d);
    field gate = rounded(times(t, h2, 7), d), up = rounded(times(t, h2, 8), d);
    field act = rounded(gated_by(gate, up), d), mlp_out = times(t, act, 9), x2 = onto(t, x1, mlp_out, 2);
    put_field(t, 0, x2, 0, x2.rows);
    field all[] = {x,      h,  q_proj,   k_proj, v,  q,    k,  k_cache, v_cache, k_read, v_read,
                   lean, o, attn_out, x1, h2, gate, up, act, mlp_out, x2};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i].v);
}

/* ---- a step ---- */

static void euler_step(op_truth *t)
{
    t->steps = 1;
    field h = field_in(t, 0), y = modulated(t, h, 1, t->c->attr.norm.eps), v = times(t, y, 2);
    double a = t->in[5][0];
    for (int64_t at = 0; at < v.rows * v.width; at++) {
        double b = t->in[3][at % v.width], x = t->in[4][at], all = v.v[at] + b;
        double var = v.var[at] + five_sigma(0x1p-24 * (fabs(v.v[at]) + fabs(b)));
        var = a * a * var + five_sigma(2 * 0x1p-24 * (fabs(x) + fabs(a * all)));
        if (op_valid_row(&t->c->in[0], at / v.width))
            put(t, 0, at, x + a * all, 6 * sqrt(var) * 0x1p24);
    }
    free(h.v);
    free(y.v);
    free(v.v);
}

const op_oracle op_oracles[PV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, attr, flags, body, meaning) [PV_OP_##ENUM] = name,
#include "graph/ops.def"
};
