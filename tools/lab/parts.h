/* parts.h - what the experiments on parts of a layer share: numbers for weights, and several layers of them on a device. */
#ifndef PV_TOOLS_LAB_PARTS_H
#define PV_TOOLS_LAB_PARTS_H

#include "graph/build.h"
#include "lab.h"

/* What --recipe says where an experiment has one dtype: f32, bf16 or f16; bf16 where it says nothing. CLI_GO, or the exit code. */
int lab_dtype(lab *l, pv_dtype *out);

/* Normal numbers of that deviation, [rows, width]. Each row is a piece of one long draw, so that a hundred million are there at
 * once. */
pv_status lab_fill(uint64_t seed, float deviation, float *x, int64_t rows, int64_t width);

/* y [rows, n] = x [rows, k] w [n, k]^T in float64. */
void lab_product(const double *x, const float *w, double *y, int64_t rows, int64_t n, int64_t k);

/* Weights stand in states: device memory, without a twin on the host as inputs have. */
pv_tensor *lab_weight(pv_graph *g, pv_dtype dtype, int64_t rows, int64_t width, const char *fmt, ...)
    PV_PRINTF(5, 6);

/* The tensor's bytes as they stand; passed over where the plan does without the tensor. */
pv_status lab_put(lab_small *s, const void *bytes, const char *fmt, ...) PV_PRINTF(3, 4);
/* Numbers as bytes of a dtype, pv_free them; NULL: no memory. */
void *lab_bytes(const float *x, pv_dtype dtype, size_t n);

/* lab_small_make, where a missing kernel is no failure but the row's answer: its column `word` says so, *made is false. */
pv_status lab_try(lab *l, pv_graph **g, const pv_plan_params *params, lab_row *row, int word, lab_small *out,
                  bool *made);

/* Milliseconds of one of n. */
lab_time lab_share(lab_time t, int n);

#endif
