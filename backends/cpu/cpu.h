/* cpu.h - what the kernels of the CPU backend share.
 *
 * The reference: f32 arithmetic whatever the dtypes, one rounding when a result is stored. It claims
 * primitives alone, so it runs the plain meaning of every composite. What a task computes does not depend on
 * which thread runs it, nor on how many there are: same input, same build, same machine: same bytes. */
#ifndef PV_CPU_H
#define PV_CPU_H

#include "base/thread.h"
#include "plan/backend.h"
#include "vector.h"

/* A node with its addresses. rows: where the valid row count of that input stands, NULL: all. */
typedef struct cpu_call {
    const pv_node *node;
    const cpu_vector *vector;
    void *in[PV_MAX_IN], *out[PV_MAX_OUT];
    const int32_t *rows[PV_MAX_IN];
    pv_pool *pool;
    float *const *tmp; /* of each worker, as many floats as the op's `need` asked for */
} cpu_call;

typedef struct cpu_kernel {
    void (*run)(const cpu_call *c);
    size_t (*need)(const pv_node *n); /* floats of working memory a worker; NULL: none */
    unsigned whole; /* bits 1 << input: whole numbers (a count, positions, pixels); all others hold fractions */
    bool few; /* fractions may have 8 bits or 4 */
} cpu_kernel;

extern const cpu_kernel cpu_linear, cpu_attention_scores, cpu_softmax, cpu_attention_values, cpu_rms_norm,
    cpu_layer_norm, cpu_rope, cpu_add, cpu_mul, cpu_scale, cpu_gelu, cpu_silu, cpu_axpy, cpu_copy, cpu_concat,
    cpu_slice, cpu_row, cpu_store, cpu_transpose, cpu_scale_for, cpu_quantize, cpu_dequantize, cpu_patchify;

const char *cpu_blas_name(void); /* "OpenBLAS 0.3.21 ..., core ..." or "own loops" */

/* c[m, n] = alpha a[m, k] b[n, k]^T + beta c (b_rows false: b[k, n]), leading dimensions in elements, f32.
 * Large ones through OpenBLAS where there is one, small ones and the rest by loops that are the oracle for
 * it. */
void cpu_gemm(const cpu_vector *v, bool b_rows, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
              int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* Valid rows of input i: of one matrix, 0 .. pv_row_count. */
static inline int64_t cpu_rows(const cpu_call *c, int i)
{
    int64_t all = pv_row_count(c->node->in[i]);
    return !c->rows[i] ? all : *c->rows[i] < 0 ? 0 : *c->rows[i] < all ? *c->rows[i] : all;
}

/* The number in a count input i32[1], clamped to 0 .. most; `most` where the node has no such input. */
static inline int64_t cpu_count(const cpu_call *c, int i, int64_t most)
{
    if (i >= c->node->n_in)
        return most;
    int32_t v = *(const int32_t *)c->in[i];
    return v < 0 ? 0 : v < most ? v : most;
}

/* Elements [at, at + n) as f32: the tensor's own where it is f32, else converted into tmp. */
static inline const float *cpu_load(const void *data, pv_dtype dtype, int64_t at, int64_t n, float *tmp)
{
    if (dtype == PV_F32)
        return (const float *)data + at;
    pv_to_f32(tmp, (const char *)data + pv_dtype_bytes(dtype, (size_t)at), dtype, (size_t)n);
    return tmp;
}

/* Where to put n results for [at, at + n): the tensor itself or tmp; cpu_done then rounds tmp into the
 * tensor. */
static inline float *cpu_dest(void *data, pv_dtype dtype, int64_t at, float *tmp)
{
    return dtype == PV_F32 ? (float *)data + at : tmp;
}

static inline void cpu_done(void *data, pv_dtype dtype, int64_t at, int64_t n, const float *tmp)
{
    if (dtype != PV_F32)
        pv_from_f32((char *)data + pv_dtype_bytes(dtype, (size_t)at), tmp, dtype, (size_t)n);
}

/* Kernels that treat each row alike. fn gets a row of each of the first three inputs as f32, where they are
 * as wide as the first (one with fewer rows repeats), else NULL; and fills a row of the output as f32. */
typedef void (*cpu_row_fn)(const cpu_call *c, int64_t row, const float *const *in, float *out);
void cpu_each_row(const cpu_call *c, cpu_row_fn fn);
void cpu_each_row_of(const cpu_call *c, cpu_row_fn fn, int64_t columns); /* that fills only so many columns */
size_t cpu_row_need(const pv_node *n);

#endif
