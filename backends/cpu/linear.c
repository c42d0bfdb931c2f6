/* linear.c - y = x w^T (+ b): x [M, K], w [N, K] as stored (f32, bf16, f16, e4m3, e2m1), b [N].
 *
 * The weight is cut into panels of rows x columns whose size depends on the shape alone. A task expands its
 * panel to f32 in working memory that stays in cache (f32 weights are read where they are), multiplies it
 * with all rows of x, adds the next columns onto that, then bias and rounding. Panels are the same for every
 * weight dtype, so weights with the same values give the same bytes. f32 sums; order: OpenBLAS's inside a
 * panel, panels in order of K. The schedule stage has a row for each step that its tables hold; there own loops,
 * which take every row alone, keep a step's bytes free of how many that are: OpenBLAS chooses its kernel by M.
 * Bound: the f32 rate of the cores for M of hundreds, expansion of the weights for M of tens. */
#include "cpu.h"

#include <stdio.h>
#include <string.h>

#ifdef PV_HAVE_OPENBLAS
#include <cblas.h>
#include <pthread.h>
#endif

/* Below this many multiplications a call of OpenBLAS costs more than it saves. */
#define BLAS_LEAST ((int64_t)1 << 14)

const char *cpu_blas_name(void)
{
#ifdef PV_HAVE_OPENBLAS
    static _Thread_local char name[128];
    const char *config =
        openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ... MAX_THREADS=64" */
    int version = (int)strcspn(config, " ");
    version += (int)strcspn(config + version + (config[version] != 0), " ") + (config[version] != 0);
    snprintf(name, sizeof name, "%.*s, %s kernels", version, config, openblas_get_corename());
    return name;
#else
    return "own loops";
#endif
}

#ifdef PV_HAVE_OPENBLAS
static void one_thread_a_call(void)
{
    openblas_set_num_threads(1); /* the pool's workers each make their own calls */
}
#endif

void cpu_gemm(const cpu_vector *v, bool b_rows, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
              int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
#ifdef PV_HAVE_OPENBLAS
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (m * n >= BLAS_LEAST / (k + 1)) {
        pthread_once(&once, one_thread_a_call);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, b_rows ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k,
                    alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
        return;
    }
#endif
    v->gemm(b_rows, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* ---- the op ---- */

typedef struct panels {
    int64_t rows, columns; /* of w in one panel */
} panels;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* By the rows that are valid now, so that a plan's capacity changes no byte. Many rows: wide panels, so that
 * x is packed seldom; few rows: panels that stay in the second-level cache between expansion and product. */
static panels pick(const pv_node *n, bool many)
{
    int64_t N = n->in[1]->dim[0], K = n->in[1]->dim[1];
    int64_t rows = (N / 8 + 63) / 64 * 64;
    rows = smaller(rows < 64 ? 64 : rows, many ? 512 : 256);
    return (panels){smaller(rows, N), smaller(many ? 2048 : 1024, K)};
}

#define MANY 256

static int64_t row_total(const pv_tensor *t)
{
    return pv_width(t) ? pv_elements(t) / pv_width(t) : 0;
}

static size_t x_floats(const pv_node *n)
{
    return n->in[0]->dtype == PV_F32 ? 0 : (size_t)pv_elements(n->in[0]);
}

/* A worker's memory: panel of w, block of y. The first worker's also holds x as f32. */
static size_t need(const pv_node *n)
{
    panels p = pick(n, row_total(n->in[0]) >= MANY); /* the larger one where both may come */
    size_t w = n->in[1]->dtype == PV_F32 ? 0 : (size_t)(p.rows * p.columns);
    size_t y = n->out[0]->dtype == PV_F32 ? 0 : (size_t)(p.rows * row_total(n->in[0]));
    return w + y + (size_t)p.rows + x_floats(n);
}

typedef struct job {
    const cpu_call *c;
    panels p;
    int64_t m;
    const float *x;
} job;

static void task(void *user, int64_t t, int worker)
{
    const job *j = user;
    const cpu_call *c = j->c;
    const pv_node *n = c->node;
    const pv_tensor *w = n->in[1];
    int64_t N = w->dim[0], K = w->dim[1], n0 = t * j->p.rows, rows = smaller(j->p.rows, N - n0);
    float *tmp = c->tmp[worker] + x_floats(n), *panel = tmp;
    float *bias_tmp = panel + (w->dtype == PV_F32 ? 0 : j->p.rows * j->p.columns),
          *block = bias_tmp + j->p.rows;
    bool direct = n->out[0]->dtype == PV_F32;
    float *y = direct ? (float *)c->out[0] + n0 : block;
    int64_t ldy = direct ? N : rows;

    for (int64_t k0 = 0; k0 < K; k0 += j->p.columns) {
        int64_t columns = smaller(j->p.columns, K - k0);
        bool wide = w->dtype == PV_F32;
        for (int64_t r = 0; !wide && r < rows; r++)
            cpu_load(c->in[1], w->dtype, (n0 + r) * K + k0, columns, panel + r * columns);
        const float *b = wide ? (const float *)c->in[1] + n0 * K + k0 : panel;
        int64_t ldb = wide ? K : columns;
        if (n->stage == PV_STAGE_SCHEDULE)
            c->vector->gemm(true, j->m, rows, columns, 1, j->x + k0, K, b, ldb, k0 ? 1 : 0, y, ldy);
        else
            cpu_gemm(c->vector, true, j->m, rows, columns, 1, j->x + k0, K, b, ldb, k0 ? 1 : 0, y, ldy);
    }
    if (n->n_in > 2) {
        const float *bias = cpu_load(c->in[2], n->in[2]->dtype, n0, rows, bias_tmp);
        for (int64_t r = 0; r < j->m; r++)
            for (int64_t i = 0; i < rows; i++)
                y[r * ldy + i] += bias[i];
    }
    for (int64_t r = 0; !direct && r < j->m; r++)
        cpu_done(c->out[0], n->out[0]->dtype, r * N + n0, rows, y + r * ldy);
}

static void run(const cpu_call *c)
{
    const pv_node *n = c->node;
    job j = {c, .m = n->in[0]->rows ? cpu_rows(c, 0) : row_total(n->in[0])};
    if (j.m == 0)
        return;
    j.p = pick(n, j.m >= MANY && n->stage != PV_STAGE_SCHEDULE);
    j.x = cpu_load(c->in[0], n->in[0]->dtype, 0, j.m * pv_width(n->in[0]), c->tmp[0]);
    pv_pool_run(c->pool, (n->in[1]->dim[0] + j.p.rows - 1) / j.p.rows, task, &j);
}

const cpu_kernel cpu_linear = {run, need, .few = true};
