/* harness.c - see harness.h. */
#include "harness.h"
#include "plan/instance.h"

#include <float.h>
#include <time.h>

#define SENTINEL 0xa5

static bool benching, covered[PV_OP_COUNT];

static struct device {
    pv_backend *be;
    char name[32];
    bool software; /* a GPU's backend on a processor: a thousand times slower than either */
} devices[8];
static int n_devices, passed_over;

#define SOFTWARE_MOST 1.2e7 /* multiplications of a case that such a device is given */
#define CPU_MOST      1.5e9 /* of a case, where there is no GPU: it is about tiles that only fill one */

void harness_begin(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        benching |= !strcmp(argv[i], "--bench");
    for (int i = 0; pv_backend_list(i); i++) {
        bool cpu = !strcmp(pv_backend_list(i), "cpu");
        for (int threads = 1; threads <= (cpu ? 3 : 1); threads++) {
            struct device *d = &devices[n_devices];
            snprintf(d->name, sizeof d->name, cpu ? "%s, threads %d" : "%s", pv_backend_list(i), threads);
            pv_backend_params params = {.threads = threads, .cache = ""}, software = {.device = "llvmpipe"};
            bool vulkan = !strcmp(pv_backend_list(i), "vulkan");
            d->software = pv_backend_open(pv_backend_list(i), &params, &d->be) != PV_OK;
            if (d->software && (!vulkan || pv_backend_open("vulkan", &software, &d->be)))
                printf("not tested here: %s: %s\n", d->name, pv_error_text());
            else
                n_devices++;
        }
    }
}

void harness_end(void)
{
    if (passed_over)
        printf("%d fills of large cases were passed over on software devices, or without a GPU\n", passed_over);
    while (n_devices)
        pv_backend_close(&devices[--n_devices].be);
}

bool harness_covered(pv_op op)
{
    return covered[op];
}

/* ---- the case ---- */

int op_n_dims(const op_in *x)
{
    int n = 1;
    while (n < PV_MAX_DIMS && x->dim[n])
        n++;
    return n;
}

int op_n_in(const op_case *c)
{
    int n = 0;
    while (n < PV_MAX_IN && c->in[n].dim[0])
        n++;
    return n;
}

int64_t op_elements(const op_in *x)
{
    int64_t n = 1;
    for (int i = 0; i < op_n_dims(x); i++)
        n *= x->dim[i];
    return n;
}

static int64_t width_of(const op_in *x)
{
    return x->dim[op_n_dims(x) - 1];
}

bool op_valid_row(const op_in *x, int64_t row)
{
    int n = op_n_dims(x);
    int64_t period = x->period ? x->period : n > 1 ? x->dim[n - 2] : 1, r = row % period;
    return r >= x->first && (!x->rows || r < x->rows);
}

static bool valid(const op_in *x, int64_t at)
{
    int64_t w = width_of(x);
    return op_valid_row(x, at / w) && (!x->cols || at % w < x->cols);
}

static uint64_t next(uint64_t *s) /* splitmix64 */
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float number(const op_in *x, int fill, int64_t at, int64_t n, uint64_t *s)
{
    uint64_t bits = next(s);
    float v = (float)(int32_t)(bits >> 32) * 0x1p-31f;
    switch (fill == FILL_RANDOM && x->outliers ? FILL_OUTLIERS : fill) {
    case FILL_ZEROS:
        return 0;
    case FILL_DENORMAL:
        return v * (x->dtype == PV_F16 ? 0x1p-16f : 0x1p-128f);
    case FILL_HUGE:
        return at == n / 2 ? (x->dtype == PV_F16 ? 6e4f : 1e5f) : v;
    case FILL_OUTLIERS:
        return bits % 16 ? v : v * (x->dtype == PV_F16 ? 6e4f : bits % 3 ? 1e3f : 1e5f);
    default:
        return v;
    }
}

/* ---- data: what each input holds ---- */

typedef struct data {
    void *bytes[PV_MAX_IN];
    double *wide[PV_MAX_IN]; /* the same numbers */
} data;

static void narrow(void *dst, pv_dtype dtype, int64_t at, float v)
{
    if (dtype == PV_E2M1) { /* half a byte */
        uint8_t *b = (uint8_t *)dst + at / 2;
        *b = (uint8_t)((*b & 0xf0 >> at % 2 * 4) | pv_f32_to_e2m1(v) << at % 2 * 4);
        return;
    }
    pv_from_f32((char *)dst + pv_dtype_bytes(dtype, (size_t)at), &v, dtype, 1);
}

static float widen(const void *src, pv_dtype dtype, int64_t at)
{
    float v;
    if (dtype == PV_E2M1)
        return pv_e2m1_to_f32(((const uint8_t *)src)[at / 2] >> at % 2 * 4);
    pv_to_f32(&v, (const char *)src + pv_dtype_bytes(dtype, (size_t)at), dtype, 1);
    return v;
}

static void fill_input(const op_in *x, int fill, uint64_t seed, float garbage, void *bytes)
{
    int64_t n = op_elements(x);
    for (int64_t at = 0; at < n; at++) {
        float v = number(x, fill, at, n, &seed) * (x->amplitude > 0 ? x->amplitude : 1.0f);
        if (x->whole)
            ((int32_t *)bytes)[at] = x->whole[at];
        else if (x->dtype == PV_U8)
            ((uint8_t *)bytes)[at] = fill == FILL_ZEROS ? 0 : (uint8_t)(seed >> 32);
        else
            narrow(bytes, x->dtype, at, valid(x, at) ? v : garbage);
    }
}

static void data_make(const op_case *c, int fill, uint64_t seed, float garbage, data *d)
{
    *d = (data){0};
    for (int i = 0; i < op_n_in(c); i++) {
        const op_in *x = &c->in[i];
        int64_t n = op_elements(x);
        d->bytes[i] = malloc(pv_dtype_bytes(x->dtype, (size_t)n));
        d->wide[i] = malloc(sizeof(double) * (size_t)n);
        fill_input(x, fill, seed + (uint64_t)i * 1000003, garbage, d->bytes[i]);
        for (int64_t at = 0; at < n; at++)
            d->wide[i][at] = x->whole              ? (double)x->whole[at]
                             : x->dtype == PV_U8 ? (double)((uint8_t *)d->bytes[i])[at]
                                                 : (double)widen(d->bytes[i], x->dtype, at);
    }
}

static void data_free(data *d)
{
    for (int i = 0; i < PV_MAX_IN; i++) {
        free(d->bytes[i]);
        free(d->wide[i]);
    }
}

/* ---- a graph of one node, at work ---- */

typedef struct work {
    pv_plan *plan;
    pv_instance *inst;
    const pv_tensor *in[PV_MAX_IN], *rows, *out[PV_MAX_OUT];
    int n_out;
    int32_t n_rows;
    const op_truth *only; /* what it leaves alone is not looked at; NULL: everything is */
} work;

static pv_status build(const op_case *c, pv_backend *be, uint64_t expand, work *w)
{
    *w = (work){0};
    pv_graph *g = pv_graph_create();
    if (!g)
        return PV_E_MEMORY;
    pv_tensor *in[PV_MAX_IN], *rows = NULL;
    for (int i = 0; i < op_n_in(c); i++) {
        const op_in *x = &c->in[i];
        char name[8];
        snprintf(name, sizeof name, "in%d", i);
        if (x->counted && !rows) {
            rows = pv_input(g, "rows", PV_I32, 1, (int64_t[]){1}, NULL);
            w->n_rows = (int32_t)(x->rows < 0 ? 0 : x->rows);
        }
        in[i] = x->state ? pv_state(g, name, x->dtype, x->dim[0], x->dim[1])
                         : pv_input(g, name, x->dtype, op_n_dims(x), x->dim, x->counted ? rows : NULL);
        w->in[i] = in[i];
    }
    w->rows = rows;
    pv_node *n = pv_node_add(g, "out", c->op, op_n_in(c), in, &c->attr);
    for (int k = 0; n && k < n->n_out; k++) {
        if (!n->out[k]->base)
            n->out[k]->dtype = c->out[k];
        n->out[k]->output = true;
        w->out[w->n_out++] = n->out[k];
    }
    pv_status st = pv_plan_create(be, &g, &(pv_plan_params){.steps = 1, .expand = expand}, &w->plan);
    return st ? st : pv_instance_create(w->plan, NULL, &w->inst);
}

static void put_down(work *w)
{
    pv_instance_destroy(&w->inst);
    pv_plan_destroy(&w->plan);
}

static pv_status feed(const op_case *c, work *w, const data *d)
{
    pv_status st = PV_OK;
    for (int k = 0; !st && k < w->n_out; k++) {
        size_t bytes = pv_tensor_bytes(w->out[k]);
        void *sentinel = memset(malloc(bytes), SENTINEL, bytes);
        st = pv_instance_write(w->inst, w->out[k], 0, sentinel, bytes);
        free(sentinel);
    }
    if (!st && w->rows)
        st = pv_instance_write(w->inst, w->rows, 0, &w->n_rows, sizeof w->n_rows);
    for (int i = 0; !st && i < op_n_in(c); i++)
        st = pv_instance_write(w->inst, w->in[i], 0, d->bytes[i], pv_tensor_bytes(w->in[i]));
    return st;
}

static const pv_run one_run = {.stages = 1u << PV_STAGE_VISION};

/* Puts the sentinel back where the op should have left it. */
static void mask(const op_truth *t, int k, const pv_tensor *out, void *bytes)
{
    size_t size = pv_dtype_bytes(out->dtype, 1);
    for (int64_t at = 0, n = pv_elements(out); at < n; at++)
        if (isnan(t->out[k][at]))
            memset((char *)bytes + (size_t)at * size, SENTINEL, size);
}

/* out[k]: malloc'ed bytes of the results. */
static pv_status run(const op_case *c, work *w, const data *d, void **out)
{
    pv_status st = feed(c, w, d);
    if (!st)
        st = pv_instance_run(w->inst, one_run, NULL);
    for (int k = 0; k < w->n_out; k++) {
        out[k] = malloc(pv_tensor_bytes(w->out[k]));
        if (!st)
            st = pv_instance_read(w->inst, w->out[k], 0, out[k], pv_tensor_bytes(w->out[k]));
        if (!st && w->only)
            mask(w->only, k, w->out[k], out[k]);
    }
    return st;
}

static bool same(const work *w, void *const *a, void *const *b)
{
    bool ok = true;
    for (int k = 0; k < w->n_out; k++)
        ok &= !memcmp(a[k], b[k], pv_tensor_bytes(w->out[k]));
    return ok;
}

static void release(void **out)
{
    for (int k = 0; k < PV_MAX_OUT; k++) {
        free(out[k]);
        out[k] = NULL;
    }
}

/* ---- judging ---- */

static double unit(pv_dtype dtype) /* the largest relative error of one rounding */
{
    return dtype == PV_BF16 ? 0x1p-8 : dtype == PV_F16 ? 0x1p-11 : dtype == PV_E4M3 ? 0x1p-4 : 0x1p-24;
}

static double smallest(pv_dtype dtype) /* of what a rounding to a denormal may lose */
{
    return dtype == PV_E4M3 ? 0x1p-10 : dtype == PV_F16 ? 0x1p-25 : dtype == PV_BF16 ? 0x1p-134 : 0x1p-150;
}

typedef struct judgement {
    double max_abs, diff2, want2, got2, dot;
    int64_t wrong, worst, touched;
    double worst_over, worst_got, worst_want, worst_bound;
} judgement;

static void judge(const op_truth *t, int k, const pv_tensor *out, const void *bytes, bool whole, double nothing, judgement *j)
{
    size_t size = pv_dtype_bytes(out->dtype, 1);
    unsigned char sentinel[4];
    memset(sentinel, SENTINEL, sizeof sentinel);
    for (int64_t at = 0, n = pv_elements(out); at < n; at++) {
        double want = t->out[k][at], got = (double)widen(bytes, out->dtype, at), bound;
        if (isnan(want)) { /* left alone */
            j->touched += memcmp((const char *)bytes + (size_t)at * size, sentinel, size) != 0;
            continue;
        }
        if (t->size[k][at] > 0) {
            bound = t->steps * 0x1p-24 * t->size[k][at] + (whole ? t->whole[k][at] : 0) + nothing;
            if (out->dtype != PV_F32)
                bound += unit(out->dtype) * (fabs(want) + bound) + smallest(out->dtype);
        } else {
            char rounded[4];
            narrow(rounded, out->dtype, 0, (float)want);
            want = (double)widen(rounded, out->dtype, 0);
            bound = 0;
        }
        double diff = fabs(got - want), over = isnan(got) ? INFINITY : diff - bound;
        j->wrong += !(diff <= bound);
        if (over > j->worst_over || at == 0) {
            j->worst_over = over;
            j->worst = at;
            j->worst_got = got;
            j->worst_want = want;
            j->worst_bound = bound;
        }
        j->max_abs = fmax(j->max_abs, diff);
        j->diff2 += diff * diff;
        j->want2 += want * want;
        j->got2 += got * got;
        j->dot += got * want;
    }
}

/* A Vulkan device may take a denormal for 0; a norm, whose eps is 1e-6 and more, makes it a thousand times as large at most. */
static double nothing_on(const struct device *dev, int fill)
{
    return fill == FILL_DENORMAL && !strcmp(pv_backend_name(dev->be), "vulkan") ? 1e-34 : 1e-37;
}

static bool right(const op_truth *t, const work *w, void *const *out, bool whole, const struct device *dev, int fill)
{
    static const char *const fills[FILL_COUNT] = {"random", "zeros", "denormals", "one huge", "outliers"};
    bool ok = true;
    for (int k = 0; k < w->n_out; k++) {
        judgement j = {0};
        judge(t, k, w->out[k], out[k], whole, nothing_on(dev, fill), &j);
        if (!j.wrong && !j.touched)
            continue;
        ok = false;
        printf("  %s on %s, %s, output %d: %lld of %lld wrong, %lld written that should be left alone\n"
               "    max abs %.3g, relative L2 %.3g, cosine %.9f; worst [%lld]: %.9g, expected %.9g, bound %.3g\n",
               pv_ops[t->c->op].name, dev->name, fills[fill], k, (long long)j.wrong, (long long)pv_elements(w->out[k]),
               (long long)j.touched, j.max_abs, sqrt(j.diff2 / (j.want2 + DBL_MIN)),
               j.dot / (sqrt(j.want2 * j.got2) + DBL_MIN), (long long)j.worst, j.worst_got, j.worst_want, j.worst_bound);
    }
    return ok;
}

static bool say(const op_case *c, const char *device, const char *what)
{
    printf("  %s on %s: %s\n", pv_ops[c->op].name, device, what);
    return false;
}

static void truth_make(const op_case *c, const work *w, const data *d, op_truth *t)
{
    *t = (op_truth){.c = c};
    memcpy(t->in, d->wide, sizeof t->in);
    for (int k = 0; k < w->n_out; k++) {
        int64_t n = pv_elements(w->out[k]);
        t->out[k] = malloc(sizeof(double) * (size_t)n);
        t->size[k] = calloc((size_t)n, sizeof(double));
        t->whole[k] = calloc((size_t)n, sizeof(double));
        for (int64_t at = 0; at < n; at++)
            t->out[k][at] = NAN;
    }
    op_oracles[c->op](t);
}

static void truth_free(op_truth *t)
{
    for (int k = 0; k < PV_MAX_OUT; k++) {
        free(t->out[k]);
        free(t->size[k]);
        free(t->whole[k]);
    }
}

/* ---- the rules ---- */

/* The last valid row (column) of each input with a tail counts; what stands behind does not. */
static bool tails(const op_case *c, work *w, const char *device, const data *d, void *const *base)
{
    bool ok = true;
    void *out[PV_MAX_OUT] = {NULL};
    for (int i = 0; i < op_n_in(c); i++) {
        const op_in *x = &c->in[i];
        if ((!x->rows && !x->cols && !x->first) || x->whole)
            continue;
        if (c->op == PV_OP_ATTENTION && i < 2 && c->in[1].rows == c->in[1].first + 1)
            continue; /* a single key has weight 1, whatever it and the query are */
        data other;
        data_make(c, FILL_RANDOM, 1, 0.0f, &other); /* as base, with 0 where base has NaN */
        ok &= !run(c, w, &other, out) || say(c, device, pv_error_text());
        if (!same(w, out, base))
            ok = say(c, device, "what stands behind the valid rows changes the result");
        release(out);

        int64_t last = -1;
        for (int64_t at = 0; at < op_elements(x); at++)
            if (valid(x, at))
                last = at;
        if (last >= 0) {
            narrow(other.bytes[i], x->dtype, last, widen(other.bytes[i], x->dtype, last) + 1.0f);
            ok &= !run(c, w, &other, out) || say(c, device, pv_error_text());
            if (same(w, out, base))
                ok = say(c, device, "the last valid number does not change the result");
            release(out);
        }
        data_free(&other);
    }
    (void)d;
    return ok;
}

/* A narrower result is the f32 result, rounded once. */
static bool rounds_once(const op_case *c, const struct device *dev, uint64_t expand, const data *d, const work *w,
                        void *const *base)
{
    bool narrower = false, ok = true;
    op_case wide = *c;
    for (int k = 0; k < w->n_out; k++) {
        narrower |= w->out[k]->dtype != PV_F32 && !w->out[k]->base;
        wide.out[k] = PV_F32;
    }
    if (!narrower)
        return true;
    work f;
    void *out[PV_MAX_OUT] = {NULL};
    ok = (!build(&wide, dev->be, expand, &f) && !run(&wide, &f, d, out)) || say(c, dev->name, pv_error_text());
    for (int k = 0; ok && k < w->n_out; k++)
        for (int64_t at = 0; !w->out[k]->base && at < pv_elements(w->out[k]); at++) {
            char rounded[4];
            size_t size = pv_dtype_bytes(w->out[k]->dtype, 1);
            const unsigned char *left = (const unsigned char *)out[k] + at * 4;
            if (left[0] == SENTINEL && left[1] == SENTINEL && left[2] == SENTINEL && left[3] == SENTINEL)
                continue;
            narrow(rounded, w->out[k]->dtype, 0, ((float *)out[k])[at]);
            if (memcmp(rounded, (const char *)base[k] + (size_t)at * size, size)) {
                ok = say(c, dev->name, "the narrow result is not the f32 result, rounded once");
                break;
            }
        }
    release(out);
    put_down(&f);
    return ok;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void bench(const op_case *c, work *w, const char *device)
{
    double start = now_ms(), best = INFINITY;
    int n = 0;
    for (; n < 3 || (now_ms() - start < 200 && n < 10000); n++) {
        double before = now_ms();
        if (pv_instance_run(w->inst, one_run, NULL))
            return;
        best = fmin(best, now_ms() - before);
    }
    printf("%-18s %-16s", pv_ops[c->op].name, device);
    for (int i = 0; i < op_n_in(c); i++) {
        printf("%s%s", i ? ", " : " ", pv_dtype_name(c->in[i].dtype));
        for (int k = 0; k < op_n_dims(&c->in[i]); k++)
            printf("%c%lld", k ? 'x' : ' ', (long long)c->in[i].dim[k]);
    }
    printf(": best of %d %.1f us, mean %.1f us\n", n, best * 1e3, (now_ms() - start) * 1e3 / n);
}

static bool garbage_in_state(const op_case *c)
{
    for (int i = 0; i < op_n_in(c); i++)
        if (c->in[i].state && (c->in[i].rows || c->in[i].first))
            return true;
    return false;
}

static bool check_on(const op_case *c, const struct device *dev, uint64_t expand, const data *d, const op_truth *t,
                     int fill, bool rules, void **reference)
{
    work w;
    void *out[PV_MAX_OUT] = {NULL};
    bool cpu = !strcmp(pv_backend_name(dev->be), "cpu");
    pv_status st = build(c, dev->be, expand, &w);
    bool free_product = !cpu && (c->op == PV_OP_LINEAR || c->op == PV_OP_LINEAR_GROUP || c->op == PV_OP_LINEAR_ADD ||
                                 c->op == PV_OP_LINEAR_GELU || c->op == PV_OP_LINEAR_GEGLU || c->op == PV_OP_LINEAR_SCALED ||
                                 c->op == PV_OP_LINEAR_BLOCKS);
    w.only = free_product || garbage_in_state(c) ? t : NULL;
    if (st == PV_E_NO_KERNEL && !cpu) {
        printf("  %s: %s\n", dev->name, pv_error_text());
        return true;
    }
    if (st || run(c, &w, d, out)) {
        say(c, dev->name, pv_error_text());
        release(out);
        put_down(&w);
        return false;
    }
    bool ok = right(t, &w, out, !cpu && !expand, dev, fill);
    if (cpu && !reference[0]) {
        for (int k = 0; k < w.n_out; k++)
            reference[k] = memcpy(malloc(pv_tensor_bytes(w.out[k])), out[k], pv_tensor_bytes(w.out[k]));
    } else if (cpu && !same(&w, out, reference)) {
        ok = say(c, dev->name, "another number of threads gives other bytes");
    }
    if (rules) {
        void *again[PV_MAX_OUT] = {NULL};
        ok &= !run(c, &w, d, again) || say(c, dev->name, pv_error_text());
        if (!same(&w, out, again))
            ok = say(c, dev->name, "a second run gives other bytes");
        release(again);
        ok &= tails(c, &w, dev->name, d, out);
        ok &= free_product || rounds_once(c, dev, expand, d, &w, out);
    }
    if (benching)
        bench(c, &w, dev->name);
    release(out);
    put_down(&w);
    return ok;
}

static unsigned fills_of(const op_case *c)
{
    int64_t n = 0;
    bool f16 = false;
    for (int i = 0; i < op_n_in(c); i++) {
        n += op_elements(&c->in[i]);
        f16 |= c->in[i].state && c->in[i].dtype == PV_F16;
    }
    for (int k = 0; k < PV_MAX_OUT; k++)
        f16 |= c->out[k] == PV_F16;
    unsigned all = n > 200000 || benching ? 1u << FILL_RANDOM : c->fills ? c->fills : (1u << FILL_COUNT) - 1;
    return f16 ? all & ~(1u << FILL_HUGE | 1u << FILL_OUTLIERS) : all; /* 65504 is f16's largest */
}

/* Multiplications of a case, roughly: what reads all of another input for each number counts for more. */
static double work_of(const op_case *c)
{
    double n = 0;
    for (int i = 0; i < op_n_in(c); i++)
        n += (double)op_elements(&c->in[i]);
    if (c->op == PV_OP_ATTENTION || c->op == PV_OP_ATTENTION_SCORES)
        return (double)op_elements(&c->in[0]) * (double)c->in[1].dim[0] / c->attr.attention.batch;
    if (c->op == PV_OP_ATTENTION_VALUES)
        return (double)op_elements(&c->in[0]) * (double)c->in[1].dim[1] / c->attr.attention.kv_heads;
    for (int i = 1; i < op_n_in(c); i++) /* linears, alone and in others */
        if (op_n_dims(&c->in[i]) == 2 && c->in[i].dim[1] == width_of(&c->in[0]) && c->in[i].dim[0] > 1)
            n += (double)op_elements(&c->in[0]) * (double)c->in[i].dim[0];
    return n;
}

static bool with_gpu(void)
{
    for (int i = 0; i < n_devices; i++)
        if (strcmp(pv_backend_name(devices[i].be), "cpu") && !devices[i].software)
            return true;
    return false;
}

bool op_check(const op_case *c)
{
    bool ok = true;
    covered[c->op] = true;
    if (work_of(c) > CPU_MOST && !with_gpu()) {
        passed_over++;
        return true;
    }
    for (int fill = 0; fill < FILL_COUNT; fill++) {
        if (!(fills_of(c) >> fill & 1))
            continue;
        data d;
        op_truth t = {0};
        work shape;
        void *reference[PV_MAX_OUT] = {NULL};
        data_make(c, fill, 1, NAN, &d);
        if (build(c, devices[0].be, 0, &shape)) {
            ok = say(c, devices[0].name, pv_error_text());
        } else {
            truth_make(c, &shape, &d, &t);
            for (int i = 0; i < n_devices; i++) {
                if (c->cpu_alone && strcmp(pv_backend_name(devices[i].be), "cpu"))
                    continue;
                if (devices[i].software && work_of(c) > SOFTWARE_MOST) {
                    passed_over++;
                    continue;
                }
                bool once = fill == FILL_RANDOM && (i == 0 || strcmp(pv_backend_name(devices[i].be), "cpu"));
                ok &= check_on(c, &devices[i], 0, &d, &t, fill, once, reference);
                if (pv_ops[c->op].body)
                    ok &= check_on(c, &devices[i], 1ull << c->op, &d, &t, fill, false, reference);
            }
        }
        put_down(&shape);
        release(reference);
        truth_free(&t);
        data_free(&d);
    }
    return ok;
}

void *op_run(const op_case *c, uint64_t seed, const void *const *in, size_t *bytes)
{
    data d;
    work w;
    void *out[PV_MAX_OUT] = {NULL}, *first = NULL;
    data_make(c, FILL_RANDOM, seed, NAN, &d);
    for (int i = 0; in && i < op_n_in(c); i++)
        if (in[i])
            memcpy(d.bytes[i], in[i], pv_dtype_bytes(c->in[i].dtype, (size_t)op_elements(&c->in[i])));
    if (build(c, devices[0].be, 0, &w) || run(c, &w, &d, out)) {
        say(c, devices[0].name, pv_error_text());
    } else {
        *bytes = pv_tensor_bytes(w.out[0]);
        first = out[0];
        out[0] = NULL;
    }
    release(out);
    put_down(&w);
    data_free(&d);
    return first;
}
