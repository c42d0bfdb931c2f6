/* linear.c - y = x w^T (+ b), that onto a residual or through GELU, and several of one input at once:
 * x [M, K], w [N, K] as stored, b [N]; through cuBLASLt. What it has no form for, or Hopper does better, linear_group.cu,
 * linear_wide.cu, linear_geglu.cu and linear_parts.cu do: other groups than two alike, gate and up with their GeGLU, GELU where
 * tiles fill the device once, and long products onto a residual with few tiles. Rows of few f32 numbers are linear_thin.cu's.
 *
 * Every row up to the capacity is computed: what the rows behind the valid count hold stays in those rows.
 * Both operands bf16 or both f16: tensor cores, f32 sums, y that or f32. Both e4m3, with a scale for each (linear_scaled), where the
 * device has tensor cores for them: their sums have fewer bits than f32, which is the device's affair. All else: f32 products of f32 numbers (never
 * TF32), where an operand that is not f32 is first expanded into the work memory, which is exact.
 * The residual (f32, as is its sum) is the library's C, with beta 1. Bias and GELU are the epilogue's where y
 * and b have the product's own dtype (GELU: bf16 alone), else one kernel behind an f32 product does the rest:
 * y is rounded once. Sums that are split along K are added in f32 and in a fixed order; but where the product
 * is bf16 and has an epilogue none is split: the library rounds the sum of such parts before the epilogue,
 * and once more behind it (pytorch, pull request 180875).
 * The library's candidates are run while recording, on the addresses they are meant for (what they overwrite
 * is not yet needed), as in a whole run: activations in cache, the weight not. The fastest is kept with the
 * device, by shape, and in a file for the next process (algos.h), which checks it before use. Where the
 * library has none, the plain kernel does it, and the log says so. Bound: the tensor cores for M of hundreds,
 * bytes of the weight for M of tens. */
#include "base/log.h"
#include "base/memory.h"
#include "device.h"

#include <string.h>

#define CANDIDATES   32
#define REPEATS      5
#define HOPELESS     1.5f /* times the best so far: not run again */
#define WIDE_ROWS    192 /* fewer leave most of a tile of our own kernel empty */
#define WIDE_ROWS_MOST 65536 /* tiles are counted in 32 bits */
#define WIDE_COLUMNS (1 << 24)
#define THIN_ROWS    1024 /* of more the library makes better use */
#define THIN_COLUMNS (1 << 16)
#define LIBRARY_GELU true /* false: by our kernel, should tests/ops find the library's too far from tanh */
#define WORKSPACE    ((size_t)32 << 20) /* for the library: what its documentation recommends on Hopper */

/* What decides the algorithm. */
typedef struct shape {
    int64_t m, n, k;
    pv_dtype in, out; /* of the product: f32, bf16, f16, or in e4m3 */
    bool bias, gelu;  /* in its epilogue */
    bool onto;        /* added to a residual */
    int batch;        /* 2: two weights of one shape, each with its own result */
} shape;

typedef struct cuda_product {
    shape shape;
    bool plain; /* the library has no algorithm */
    cublasLtMatmulAlgo_t algo;
} cuda_product;

static bool is_float(const pv_tensor *t)
{
    return t->dtype == PV_F32 || t->dtype == PV_BF16 || t->dtype == PV_F16;
}

/* Which input that is; 0: none. */
static int residual_of(const pv_node *n)
{
    return n->op == PV_OP_LINEAR_ADD ? 2 : 0;
}

static int bias_of(const pv_node *n)
{
    int at = residual_of(n) ? 3 : 2;
    return n->op != PV_OP_LINEAR_GROUP && n->op != PV_OP_LINEAR_SCALED && n->n_in > at ? at : 0;
}

/* Weights of a product of our own. */
static int weights_of(const pv_node *n)
{
    return n->op == PV_OP_LINEAR_GEGLU ? 2 : n->op == PV_OP_LINEAR_GROUP ? n->attr.group.n : 1;
}

/* For our own kernels, where there are Hopper's tensor instructions and rows to fill tiles with: all bf16. */
static bool is_wide(const cuda_device *d, const pv_node *n)
{
    int count = weights_of(n), unit = n->op == PV_OP_LINEAR_GEGLU ? 16 : n->op == PV_OP_LINEAR_GROUP ? 64 : 8;
    int64_t m = pv_elements(n->in[0]) / pv_width(n->in[0]);
    bool ok = d->wgmma && count <= CUDA_WIDE_MOST && m >= WIDE_ROWS && m <= WIDE_ROWS_MOST && pv_width(n->in[0]) % 8 == 0;
    for (int i = 0; ok && i < n->n_in; i++)
        ok = n->in[i]->dtype == PV_BF16;
    for (int i = 0; ok && i < n->n_out; i++)
        ok = n->out[i]->dtype == PV_BF16;
    for (int i = 0; ok && i < count; i++)
        ok = n->in[1 + i]->dim[0] % unit == 0 && n->in[1 + i]->dim[0] <= WIDE_COLUMNS;
    return ok;
}

/* Two alike, without bias, that need nothing before or behind the product. */
static bool is_pair(const pv_node *n)
{
    return n->n_in == 3 && n->n_out == 2 && n->in[0]->dtype == PV_BF16 && n->in[1]->dtype == PV_BF16 &&
           n->in[2]->dtype == PV_BF16 && n->in[1]->dim[0] == n->in[2]->dim[0] && n->out[0]->dtype == n->out[1]->dtype &&
           n->out[0]->dtype != PV_F16;
}

/* Few numbers a row, all f32: an action as a token. */
static bool is_thin(const pv_node *n)
{
    const pv_tensor *x = n->in[0], *w = n->in[1];
    bool ok = n->op == PV_OP_LINEAR && n->out[0]->dtype == PV_F32 && pv_width(x) <= 64 && pv_width(x) % 4 == 0 &&
              pv_elements(x) / pv_width(x) <= THIN_ROWS && w->dim[0] <= THIN_COLUMNS;
    for (int i = 0; ok && i < n->n_in; i++)
        ok = n->in[i]->dtype == PV_F32;
    return ok;
}

/* Work memory of a product onto a residual whose k is cut into parts; 0: it is not one. */
static size_t parts_bytes(const cuda_device *d, const pv_node *n)
{
    const pv_tensor *x = n->in[0], *w = n->in[1];
    const int64_t m = pv_elements(x) / pv_width(x);
    bool fits = n->op == PV_OP_LINEAR_ADD && n->n_in == 3 && d->wgmma && x->dtype == PV_BF16 && w->dtype == PV_BF16 &&
                m >= WIDE_ROWS && m <= WIDE_ROWS_MOST && w->dim[0] <= WIDE_COLUMNS && w->dim[1] % 8 == 0;
    return fits ? cuda_parts_bytes(d->sms, m, w->dim[0], w->dim[1]) : 0;
}

/* Is what we accept of it a product of our own? */
static bool is_own(const cuda_device *d, const pv_node *n)
{
    if (n->op == PV_OP_LINEAR_ADD)
        return parts_bytes(d, n) > 0;
    if (n->op == PV_OP_LINEAR_GELU)
        return is_wide(d, n) && cuda_gelu_fits(d->sms, pv_elements(n->in[0]) / pv_width(n->in[0]), n->in[1]->dim[0]);
    return is_thin(n) || n->op == PV_OP_LINEAR_GEGLU || (n->op == PV_OP_LINEAR_GROUP && !is_pair(n));
}

/* The library asks for whole 16 bytes of features, and of results. */
static bool is_scaled(const cuda_device *d, const pv_node *n)
{
    const pv_tensor *w = n->in[1];
    return d->fp8 && n->in[0]->dtype == PV_E4M3 && w->dtype == PV_E4M3 && n->in[2]->dtype == PV_F32 &&
           n->in[3]->dtype == PV_F32 && is_float(n->out[0]) && w->dim[0] % 16 == 0 && w->dim[1] % 16 == 0;
}

static bool accepts(const cuda_device *d, const pv_node *n)
{
    if (n->op == PV_OP_LINEAR_SCALED)
        return is_scaled(d, n);
    if (n->op == PV_OP_LINEAR_GROUP)
        return is_pair(n) || is_wide(d, n);
    if (n->op == PV_OP_LINEAR_GEGLU)
        return n->attr.linear_geglu.between == PV_BF16 && is_wide(d, n);
    bool ok = is_float(n->out[0]);
    for (int i = 0; ok && i < n->n_in; i++)
        ok = is_float(n->in[i]);
    return ok && (!residual_of(n) || (n->in[residual_of(n)]->dtype == PV_F32 && n->out[0]->dtype == PV_F32));
}

static shape shape_of(const pv_node *n)
{
    const pv_tensor *x = n->in[0], *w = n->in[1], *y = n->out[0], *b = bias_of(n) ? n->in[bias_of(n)] : NULL;
    shape s = {.n = w->dim[0], .k = w->dim[1], .onto = residual_of(n) != 0};
    s.batch = n->op == PV_OP_LINEAR_GROUP ? 2 : 1;
    s.m = pv_elements(x) / pv_width(x);
    s.in = x->dtype == w->dtype ? x->dtype : PV_F32;
    bool gelu = n->op == PV_OP_LINEAR_GELU, narrow = y->dtype == s.in && (!b || b->dtype == s.in);
    s.out = narrow && (!gelu || (LIBRARY_GELU && s.in == PV_BF16)) ? s.in : s.in == PV_E4M3 ? y->dtype : PV_F32;
    s.gelu = gelu && s.out == PV_BF16;
    s.bias = b && b->dtype == s.out && y->dtype == s.out && gelu == s.gelu;
    return s;
}

static bool same_shape(const shape *a, const shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->in == b->in && a->out == b->out &&
           a->bias == b->bias && a->gelu == b->gelu && a->onto == b->onto && a->batch == b->batch;
}

/* ---- work memory: expanded x, expanded w, the f32 product before it is finished, the library's ---- */

typedef struct parts {
    size_t x, w, y, library, total; /* offsets; a part that is not needed takes no room */
} parts;

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static parts parts_of(const pv_node *n)
{
    shape s = shape_of(n);
    bool x = n->in[0]->dtype != s.in, w = n->in[1]->dtype != s.in, y = n->out[0]->dtype != s.out;
    parts p = {0};
    p.w = p.x + (x ? aligned(sizeof(float) * (size_t)(s.m * s.k)) : 0);
    p.y = p.w + (w ? aligned(sizeof(float) * (size_t)(s.n * s.k)) : 0);
    p.library = p.y + (y ? aligned(sizeof(float) * (size_t)(s.m * s.n)) : 0);
    p.total = p.library + WORKSPACE;
    return p;
}

static size_t need(const cuda_device *d, const pv_node *n)
{
    return is_own(d, n) ? parts_bytes(d, n) : parts_of(n).total;
}

static size_t own(const cuda_device *d, const pv_node *n)
{
    return parts_bytes(d, n) ? CUDA_PARTS_TICKETS : 0;
}

/* ---- the product in the library's words ---- */

typedef struct operands {
    const void *x, *w, *bias, *onto, *s_x, *s_w;
    void *y, *workspace;
    int64_t w_step, y_step; /* elements from the first of a batch to the second */
} operands;

/* The library thinks in columns: y^T [N, M] = w [N, K] x^T, where w lies there as its own transpose. */
typedef struct problem {
    cublasLtMatmulDescOpaque_t op;
    cublasLtMatrixLayoutOpaque_t w, x, y;
} problem;

static cudaDataType type_of(pv_dtype dtype)
{
    return dtype == PV_BF16   ? CUDA_R_16BF
           : dtype == PV_F16  ? CUDA_R_16F
           : dtype == PV_E4M3 ? CUDA_R_8F_E4M3
                              : CUDA_R_32F;
}

static cublasStatus_t in_batch(cublasLtMatrixLayoutOpaque_t *matrix, int64_t step)
{
    const int32_t two = 2;
    cublasStatus_t st = cublasLtMatrixLayoutSetAttribute(matrix, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &two, sizeof two);
    return st ? st
              : cublasLtMatrixLayoutSetAttribute(matrix, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
}

static cublasStatus_t describe(const cuda_device *d, const shape *s, const operands *o, problem *p)
{
    const int32_t sms = d->green ? d->sms : 0; /* 0: all that the device has */
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = s->gelu
                                            ? s->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU
                                        : s->bias ? CUBLASLT_EPILOGUE_BIAS
                                                  : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t st = cublasLtMatmulDescInit(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st)
        st =
            cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    if (!st)
        st =
            cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!st)
        st = cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &sms, sizeof sms);
    if (!st && s->bias)
        st = cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias, sizeof o->bias);
    if (!st && s->in == PV_E4M3)
        st = cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &o->s_w, sizeof o->s_w);
    if (!st && s->in == PV_E4M3)
        st = cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &o->s_x, sizeof o->s_x);
    if (!st)
        st = cublasLtMatrixLayoutInit(&p->w, type_of(s->in), (uint64_t)s->k, (uint64_t)s->n, s->k);
    if (!st)
        st = cublasLtMatrixLayoutInit(&p->x, type_of(s->in), (uint64_t)s->k, (uint64_t)s->m, s->k);
    if (!st)
        st = cublasLtMatrixLayoutInit(&p->y, type_of(s->out), (uint64_t)s->n, (uint64_t)s->m, s->n);
    if (!st && s->batch > 1)
        st = in_batch(&p->w, o->w_step);
    if (!st && s->batch > 1)
        st = in_batch(&p->x, 0);
    if (!st && s->batch > 1)
        st = in_batch(&p->y, o->y_step);
    return st;
}

static cublasStatus_t multiply(const cuda_device *d, const shape *s, const operands *o,
                               const cublasLtMatmulAlgo_t *algo, cudaStream_t stream)
{
    const float one = 1, beta = s->onto ? 1 : 0;
    problem p;
    cublasStatus_t st = describe(d, s, o, &p);
    return st ? st
              : cublasLtMatmul(d->lt, &p.op, &one, o->w, &p.w, o->x, &p.x, &beta, s->onto ? o->onto : o->y,
                               &p.y, o->y, &p.y, algo, o->workspace, WORKSPACE, stream);
}

static const cuda_product *find(const cuda_device *d, const shape *s)
{
    for (int i = 0; i < d->n_products; i++)
        if (same_shape(&d->products[i].shape, s))
            return &d->products[i];
    return NULL;
}

/* ---- enqueue ---- */

/* The operands of the product, expanded where they have to be. */
static cudaError_t expand(const cuda_call *c, const shape *s, operands *o)
{
    const pv_node *n = c->node;
    parts p = parts_of(n);
    char *work = c->work;
    *o = (operands){.x = c->in[0], .w = c->in[1], .y = c->out[0], .workspace = work + p.library};
    o->bias = s->bias ? c->in[bias_of(n)] : NULL;
    o->onto = s->onto ? c->in[residual_of(n)] : NULL;
    if (s->in == PV_E4M3) {
        o->s_x = c->in[2];
        o->s_w = c->in[3];
    }
    cudaError_t e = cudaSuccess;
    if (n->in[0]->dtype != s->in) {
        o->x = work + p.x;
        e = cuda_widen((float *)(work + p.x), c->in[0], n->in[0]->dtype, s->m * s->k, c->stream);
    }
    if (e == cudaSuccess && n->in[1]->dtype != s->in) {
        o->w = work + p.w;
        e = cuda_widen((float *)(work + p.w), c->in[1], n->in[1]->dtype, s->n * s->k, c->stream);
    }
    if (n->out[0]->dtype != s->out)
        o->y = work + p.y;
    return e;
}

/* The product, with the library's status left where cuda_check finds it. */
static cudaError_t run_product(const cuda_call *c, const shape *s, const operands *o, const cublasLtMatmulAlgo_t *algo)
{
    cublasStatus_t st = multiply(c->device, s, o, algo, c->stream);
    if (st)
        atomic_store(&c->device->lt_failed, (int)st);
    return st ? cudaErrorExternalDevice : cudaSuccess;
}

/* Both of a group in one product, where their weights and results lie in the same order; else one after the other. */
static bool in_order(const cuda_call *c)
{
    return (c->in[1] < c->in[2]) == (c->out[0] < c->out[1]);
}

static void take_both(const cuda_call *c, const shape *s, operands *o)
{
    int first = c->in[1] < c->in[2] ? 0 : 1, second = 1 - first;
    o->w = c->in[1 + first];
    o->y = c->out[first];
    o->w_step = ((const char *)c->in[1 + second] - (const char *)o->w) / (int64_t)pv_dtype_bytes(s->in, 1);
    o->y_step = ((char *)c->out[second] - (char *)o->y) / (int64_t)pv_dtype_bytes(s->out, 1);
}

static cudaError_t enqueue_thin(const cuda_call *c)
{
    const pv_node *n = c->node;
    cuda_thin p = {.x = c->in[0], .w = c->in[1], .bias = n->n_in > 2 ? c->in[2] : NULL, .y = c->out[0]};
    p.k = (int)pv_width(n->in[0]);
    p.m = pv_elements(n->in[0]) / p.k;
    p.n = (int)n->in[1]->dim[0];
    p.ahead = cuda_given(n->in[1]);
    return cuda_thin_product(c, &p);
}

static cudaError_t enqueue_parts(const cuda_call *c)
{
    const pv_node *n = c->node;
    cuda_parts p = {.x = c->in[0], .w = c->in[1], .h = c->in[2], .y = c->out[0]};
    p.n = n->in[1]->dim[0];
    p.k = n->in[1]->dim[1];
    p.m = pv_elements(n->in[0]) / p.k;
    return cuda_parts_product(c, &p);
}

static cudaError_t enqueue_own(const cuda_call *c)
{
    const pv_node *n = c->node;
    if (is_thin(n))
        return enqueue_thin(c);
    if (n->op == PV_OP_LINEAR_ADD)
        return enqueue_parts(c);
    bool geglu = n->op == PV_OP_LINEAR_GEGLU;
    int count = weights_of(n);
    cuda_wide p = {.x = c->in[0], .k = pv_width(n->in[0]), .count = count};
    p.m = pv_elements(n->in[0]) / p.k;
    p.ahead = true;
    for (int i = 0; i < count; i++) {
        p.ahead = p.ahead && cuda_given(n->in[1 + i]);
        p.w[i] = c->in[1 + i];
        p.n[i] = n->in[1 + i]->dim[0];
        p.bias[i] = n->n_in > 1 + count ? c->in[1 + count + i] : NULL;
        p.y[i] = geglu ? c->out[0] : c->out[i];
    }
    return geglu                          ? cuda_geglu_product(c, &p)
           : n->op == PV_OP_LINEAR_GELU ? cuda_gelu_product(c, &p)
                                        : cuda_wide_products(c, &p);
}

static cudaError_t enqueue_group(const cuda_call *c)
{
    shape s = shape_of(c->node);
    s.batch = in_order(c) ? 2 : 1;
    const cuda_product *product = find(c->device, &s);
    operands o;
    cudaError_t e = product ? expand(c, &s, &o) : cudaErrorNotReady;
    bool at_once = e == cudaSuccess && s.batch == 2 && !product->plain;
    if (at_once)
        take_both(c, &s, &o);
    for (int i = 0; e == cudaSuccess && i < (at_once ? 1 : 2); i++) {
        if (!at_once) {
            o.w = c->in[1 + i];
            o.y = c->out[i];
        }
        if (product->plain) {
            cuda_plain p = {o.x, o.w, NULL, NULL, o.y, s.in, s.out, false, s.m, s.n, s.k};
            e = cuda_plain_product(&p, c->stream);
        } else {
            e = run_product(c, &s, &o, &product->algo);
        }
    }
    return e;
}

static cudaError_t enqueue(const cuda_call *c)
{
    const pv_node *n = c->node;
    if (is_own(c->device, n))
        return enqueue_own(c);
    if (n->op == PV_OP_LINEAR_GROUP)
        return enqueue_group(c);
    shape s = shape_of(n);
    operands o;
    const cuda_product *product = find(c->device, &s);
    cudaError_t e = product ? expand(c, &s, &o) : cudaErrorNotReady;
    if (e != cudaSuccess)
        return e;
    if (product->plain) {
        cuda_plain p = {o.x, o.w, o.bias, o.onto, o.y, s.in, s.out, s.gelu, s.m, s.n, s.k};
        e = cuda_plain_product(&p, c->stream);
    } else {
        e = run_product(c, &s, &o, &product->algo);
    }
    int bias = s.bias ? 0 : bias_of(n);
    bool gelu = n->op == PV_OP_LINEAR_GELU && !s.gelu;
    if (e == cudaSuccess && (bias || gelu || n->out[0]->dtype != s.out))
        e = cuda_finish_product(c, o.y, bias, gelu);
    return e;
}

const cuda_kernel cuda_linear = {.accepts = accepts, .enqueue = enqueue, .need = need, .own = own};

/* ---- choosing ---- */

typedef struct trial {
    cudaEvent_t begin, end;
    void *other; /* memory that fills the cache when it is read: what ran before */
    size_t other_bytes;
} trial;

static void trial_end(trial *t)
{
    if (t->begin)
        cudaEventDestroy(t->begin);
    if (t->end)
        cudaEventDestroy(t->end);
    cudaFree(t->other);
    cuda_forget();
}

static pv_status trial_begin(cuda_device *d, trial *t)
{
    int cache = 0;
    *t = (trial){0};
    pv_status st = CUDA_CHECK(d, cudaEventCreate(&t->begin));
    if (!st)
        st = CUDA_CHECK(d, cudaEventCreate(&t->end));
    if (!st)
        st = CUDA_CHECK(d, cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, d->index));
    t->other_bytes = 2 * (size_t)cache + 4096;
    return st ? st : cuda_memory(d, t->other_bytes, "timing products", &t->other);
}

/* The cache as a product finds it: the weight pushed out, the activations there. */
static cudaError_t set_scene(const shape *s, const operands *o, const trial *t, cudaStream_t stream)
{
    cudaError_t e = cuda_touch(t->other, t->other_bytes, stream);
    if (e == cudaSuccess)
        e = cuda_touch(o->x, pv_dtype_bytes(s->in, (size_t)(s->m * s->k)), stream);
    if (e == cudaSuccess && s->onto)
        e = cuda_touch(o->onto, pv_dtype_bytes(s->out, (size_t)(s->m * s->n)), stream);
    return e;
}

/* Milliseconds of one product, the least of some; one that takes far longer than `best` is run once. `ms` is
 * negative where the library refuses to run the candidate after all; `refused` then says why. */
static pv_status time_one(const cuda_call *c, const shape *s, const operands *o, const cublasLtMatmulAlgo_t *algo,
                          const trial *t, float best, float *ms, cublasStatus_t *refused)
{
    cuda_device *d = c->device;
    pv_status st = PV_OK;
    float least = -1;
    *ms = -1;
    *refused = multiply(d, s, o, algo, c->stream); /* the first loads code */
    if (*refused)
        return PV_OK;
    for (int i = 0; !st && i < REPEATS && !(i && best >= 0 && least > HOPELESS * best); i++) {
        float one = 0;
        st = cuda_check(d, set_scene(s, o, t, c->stream), "kernel cuda_touch");
        if (!st)
            st = CUDA_CHECK(d, cudaEventRecord(t->begin, c->stream));
        if (!st && (*refused = multiply(d, s, o, algo, c->stream)))
            return PV_OK;
        if (!st)
            st = CUDA_CHECK(d, cudaEventRecord(t->end, c->stream));
        if (!st)
            st = CUDA_CHECK(d, cudaEventSynchronize(t->end));
        if (!st)
            st = CUDA_CHECK(d, cudaEventElapsedTime(&one, t->begin, t->end));
        least = least < 0 || one < least ? one : least;
    }
    *ms = least;
    return st;
}

/* Or would the library round the sum of parts, and then the epilogue's result? See above. */
static bool rounds_once(const shape *s)
{
    return s->out == PV_F32 || !(s->bias || s->gelu);
}

/* What the library says where it has no algorithm for these numbers, or not on this device, or where an algorithm has no
 * such setting; all else is a failure. */
static bool unsupported(cublasStatus_t st)
{
    return st == CUBLAS_STATUS_NOT_SUPPORTED || st == CUBLAS_STATUS_INVALID_VALUE || st == CUBLAS_STATUS_ARCH_MISMATCH;
}

/* Also where it does not tell. */
static bool split(const cublasLtMatmulAlgo_t *algo)
{
    int32_t pieces = 1;
    size_t written = 0;
    cublasStatus_t st = cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &pieces,
                                                             sizeof pieces, &written);
    return !unsupported(st) && (st || pieces > 1);
}

static pv_status candidates(cuda_device *d, const shape *s, const operands *o, cublasLtMatmulHeuristicResult_t *found,
                            int *n)
{
    const size_t workspace = WORKSPACE;
    const uint32_t scheme =
        rounds_once(s) ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasLtMatmulPreferenceOpaque_t pref;
    problem p;
    cublasStatus_t st = describe(d, s, o, &p);
    *n = 0;
    if (!st)
        st = cublasLtMatmulPreferenceInit(&pref);
    if (!st)
        st = cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                  sizeof workspace);
    if (!st)
        st = cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme,
                                                  sizeof scheme);
    if (!st)
        st = cublasLtMatmulAlgoGetHeuristic(d->lt, &p.op, &p.w, &p.x, &p.y, &p.y, &pref, CANDIDATES, found, n);
    return unsupported(st) ? PV_OK : cuda_check_lt(d, st, "cublasLtMatmulAlgoGetHeuristic");
}

static pv_status choose(const cuda_call *c, const shape *s, const trial *t, cuda_product *out)
{
    operands o;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    cuda_device *d = c->device;
    pv_status st = cuda_check(d, expand(c, s, &o), "kernel cuda_widen");
    if (s->batch > 1)
        take_both(c, s, &o);
    int n = 0;
    if (!st)
        st = candidates(d, s, &o, found, &n);
    cublasStatus_t failed = CUBLAS_STATUS_SUCCESS;
    float best = -1;
    *out = (cuda_product){.shape = *s};
    for (int i = 0; !st && i < n; i++) {
        float ms = -1;
        cublasStatus_t refused = CUBLAS_STATUS_SUCCESS;
        if (found[i].state || found[i].workspaceSize > WORKSPACE)
            continue;
        if (!rounds_once(s) && split(&found[i].algo))
            continue;
        st = time_one(c, s, &o, &found[i].algo, t, best, &ms, &refused);
        if (refused && !unsupported(refused))
            failed = refused;
        if (!st && ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            out->algo = found[i].algo;
        }
    }
    if (!st && best < 0) /* not the library's lack of an algorithm, but its failure */
        st = cuda_check_lt(d, failed, "cublasLtMatmul");
    out->plain = best < 0;
    if (!st && out->plain && s->in == PV_E4M3)
        return pv_fail(PV_E_NO_KERNEL, "cuBLASLt has no algorithm for %lld x %lld x %lld in e4m3", (long long)s->m, (long long)s->n,
                       (long long)s->k);
    if (!st && out->plain)
        pv_log(PV_LOG_WARN,
               "cuBLASLt has no algorithm for %lld x %lld x %lld, %s to %s: the plain kernel does it",
               (long long)s->m, (long long)s->n, (long long)s->k, pv_dtype_name(s->in),
               pv_dtype_name(s->out));
    return st;
}

/* ---- chosen before ---- */

static void numbers(const shape *s, int64_t out[8])
{
    _Static_assert(sizeof *s == 40, "what decides an algorithm is listed here, all of it");
    const int64_t all[8] = {s->m, s->n, s->k, (int64_t)s->in << 8 | (int64_t)s->out, s->bias, s->gelu, s->onto, s->batch};
    memcpy(out, all, sizeof all);
}

/* As candidates() asks for: no sum of parts but in f32 and in order, none where the epilogue would round it. */
static bool allowed(const shape *s, const cublasLtMatmulAlgo_t *algo)
{
    uint32_t scheme = 0;
    size_t written = 0;
    if (cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written))
        return false;
    return !split(algo) || (rounds_once(s) && scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
}

/* The algorithm of an earlier process, once the library has said that it fits this product and it has run. */
static pv_status recall(const cuda_call *c, const shape *s, cuda_product *out, bool *found)
{
    cuda_device *d = c->device;
    int64_t key[8];
    operands o;
    problem p;
    cublasLtMatmulHeuristicResult_t result;
    numbers(s, key);
    const uint64_t *kept = algos_find(&d->kept, key);
    *found = false;
    if (!kept)
        return PV_OK;
    *out = (cuda_product){.shape = *s};
    _Static_assert(sizeof out->algo == sizeof(((algos_entry *)0)->algo), "an algorithm is what is kept of it");
    memcpy(&out->algo, kept, sizeof out->algo);
    pv_status st = CUDA_CHECK(d, expand(c, s, &o));
    if (s->batch > 1)
        take_both(c, s, &o);
    bool fits = !st && allowed(s, &out->algo) && !describe(d, s, &o, &p) &&
                !cublasLtMatmulAlgoCheck(d->lt, &p.op, &p.w, &p.x, &p.y, &p.y, &out->algo, &result) && !result.state &&
                result.workspaceSize <= WORKSPACE && !multiply(d, s, &o, &out->algo, c->stream);
    if (!st && !fits)
        pv_log(PV_LOG_WARN, "%s: what it holds for %lld x %lld x %lld does not run here; found anew", d->kept.path,
               (long long)s->m, (long long)s->n, (long long)s->k);
    *found = fits;
    return st;
}

static pv_status keep(cuda_device *d, const cuda_product *p)
{
    if (d->n_products == d->cap_products) {
        int cap = d->cap_products ? 2 * d->cap_products : 32;
        cuda_product *more = pv_alloc(sizeof *more * (size_t)cap);
        if (!more)
            return PV_E_MEMORY;
        if (d->n_products)
            memcpy(more, d->products, sizeof *more * (size_t)d->n_products);
        pv_free(d->products);
        d->products = more;
        d->cap_products = cap;
    }
    d->products[d->n_products++] = *p;
    return PV_OK;
}

static pv_status prepare(const cuda_call *c, shape s)
{
    cuda_device *d = c->device;
    if (find(d, &s))
        return PV_OK;
    trial t = {0};
    cuda_product p;
    bool found = false;
    pv_status st = recall(c, &s, &p, &found);
    if (!st && !found)
        st = trial_begin(d, &t);
    if (!st && !found)
        st = choose(c, &s, &t, &p);
    trial_end(&t);
    if (!st && !found && !p.plain) {
        int64_t key[8];
        uint64_t algo[8];
        numbers(&s, key);
        memcpy(algo, &p.algo, sizeof algo);
        algos_put(&d->kept, key, algo);
    }
    return st ? pv_fail_in(st, "linear '%s'", c->node->name) : keep(d, &p);
}

pv_status cuda_linear_prepare(const cuda_call *c)
{
    if (is_own(c->device, c->node))
        return PV_OK;
    shape s = shape_of(c->node);
    if (s.batch == 2 && !in_order(c))
        s.batch = 1;
    return prepare(c, s);
}
