/* harness.h - one call checks an op on every backend of the build.
 *
 *   CHECK_OP(RMS_NORM, .in = {F32(50, 1024), F32(1024)}, .attr.norm.eps = 1e-6f);
 *
 * The call makes a graph of that one node, plans and runs it (a composite that the backend does not claim runs as its
 * body; one that it claims runs both ways), and compares with oracle.c: the op once more, in float64, written from its
 * meaning and not from any kernel. It does so for several fills of the inputs: random, zeros, denormals, one huge
 * number, outliers of 1e3 to 1e5. Further, each case is held to the rules of graph.h:
 *   - what stands behind valid rows, columns and counted keys may be NaN: not a bit of the result changes, and nothing
 *     outside the valid part of the result is written (but by the products of other backends than the CPU, whose
 *     libraries know no counts: there it is whatever comes);
 *   - the last valid row does count: changing it changes the result;
 *   - a result in a narrower dtype is the f32 result, rounded once (not so for those products: another dtype may mean
 *     another order of sums; the bound still leaves room for no second rounding);
 *   - on the CPU 1, 2 and 3 threads give the same bytes, and so does a second run.
 * With `--bench` the program times each call instead of judging fills. */
#ifndef PV_TESTS_HARNESS_H
#define PV_TESTS_HARNESS_H

#include "graph/graph.h"
#include "tests/test.h"

/* An input. Elements in columns [cols, ...) or in rows outside [first, rows) of a matrix are garbage: NaN, never read. */
typedef struct op_in {
    pv_dtype dtype;
    int64_t dim[PV_MAX_DIMS]; /* 0 behind the last */
    int64_t first, rows, cols; /* rows, cols 0: all of them; -1: none */
    int64_t period;            /* rows of one matrix, where that is not dim[n - 2] (sequences one after the other) */
    bool counted;              /* `rows` is told by a row count (pv_tensor.rows), the same for all counted inputs */
    bool state;                /* a state, which the op may write; garbage in it stays, unjudged */
    float amplitude;           /* random numbers are within +-amplitude; 0: 1 */
    bool outliers;             /* among random numbers some are a thousand times as large and more, as a residual's are */
    const int32_t *whole;      /* of i32 inputs: the numbers */
} op_in;

enum { FILL_RANDOM, FILL_ZEROS, FILL_DENORMAL, FILL_HUGE, FILL_OUTLIERS, FILL_COUNT };

typedef struct op_case {
    pv_op op;
    pv_attr attr;
    op_in in[PV_MAX_IN];
    pv_dtype out[PV_MAX_OUT];
    unsigned fills; /* bits 1 << FILL_X; 0: all for small inputs, random alone for large ones */
    bool cpu_alone; /* no other backend says that it has it */
} op_case;

#define F32(...)  {.dtype = PV_F32, .dim = {__VA_ARGS__}}
#define BF16(...) {.dtype = PV_BF16, .dim = {__VA_ARGS__}}
#define ROUGH(DTYPE, ...) {.dtype = DTYPE, .dim = {__VA_ARGS__}, .outliers = true}
#define F16(...)  {.dtype = PV_F16, .dim = {__VA_ARGS__}}
#define U8(...)   {.dtype = PV_U8, .dim = {__VA_ARGS__}}
#define COUNT(n)  {.dtype = PV_I32, .dim = {1}, .whole = (const int32_t[]){n}}

#define CHECK_OP(OP, ...) test_check(op_check(&(op_case){.op = PV_OP_##OP, __VA_ARGS__}), #OP " " #__VA_ARGS__, __FILE__, __LINE__)

bool op_check(const op_case *c);

/* Runs the case on the CPU with random inputs and copies output 0; `in` may replace the bytes of inputs (NULL: random,
 * from `seed`). For tests that compare two cases with each other. Returns the bytes, free() them; NULL: failed, said. */
void *op_run(const op_case *c, uint64_t seed, const void *const *in, size_t *bytes);

int op_n_in(const op_case *c);
int op_n_dims(const op_in *x);
int64_t op_elements(const op_in *x);
bool op_valid_row(const op_in *x, int64_t row); /* of all rows, matrix after matrix */

void harness_begin(int argc, char **argv); /* --bench */
bool harness_covered(pv_op op);            /* has op_check been called with it? */
void harness_end(void);

/* oracle.c: float64 results of a case. Elements that the op leaves alone stay NaN (a written state: its old values). */
typedef struct op_truth {
    const op_case *c;
    const double *in[PV_MAX_IN]; /* i32 inputs too */
    double *out[PV_MAX_OUT];
    /* The bound on |result - out| is steps x 2^-24 x size + 1e-37, before the rounding to a narrower dtype: `size` is of
     * the terms that the result is made of, `steps` grows with the roundings in a row. size 0: exact. */
    double *size[PV_MAX_OUT], steps;
    /* Of a composite: what a kernel of the whole may add to the bound, where the op's meaning lets it round between its
     * parts (attention: weights to the dtype of v, before they meet it). The body must do without. */
    double *whole[PV_MAX_OUT];
} op_truth;

typedef void (*op_oracle)(op_truth *t);
extern const op_oracle op_oracles[PV_OP_COUNT];

#endif
