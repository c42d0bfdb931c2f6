/* selftest.h - does each way in which a device does an op give what the op means? Asked when a device and
 * driver are used first with this build: every variant alone, in every dtype that it claims, on small inputs,
 * random and extreme, beside the CPU.
 *
 * A variant with a wrong result, or that cannot be run, is switched off: the next one of its op is used, or
 * the op's body; where there is neither, plans that need the op are refused with its name. Nothing runs on
 * another device. What came of it is kept in the cache's folder and in the process, under
 * pv_device_info.identity. A variant that no case reaches is told as not tested, and used. */
#ifndef PV_PLAN_SELFTEST_H
#define PV_PLAN_SELFTEST_H

#include "backend.h"

/* Behind vt->open with these params, for a backend with variants. Where there was something to test, *be is
 * opened anew. On failure *be is closed. PV_E_DEVICE: a variant took the device with it, and will be off the
 * next time. */
pv_status pv_selftest(pv_backend **be, const pv_backend_params *params);

/* Adds a line to info->supports where the backend has an identity: what came of the test, as far as it is
 * known. */
void pv_selftest_tell(pv_device_info *info, const char *cache);

/* As in a new process: what is known is on disk alone. */
void pv_selftest_forget(void);

/* ---- the cases (selftest_cases.c) ---- */

typedef enum pv_case_kind {
    PV_CASE_NONE,
    PV_CASE_X,       /* of the activations' dtype; rows counted where the case counts, NaN behind them */
    PV_CASE_W,       /* of the weights' dtype, so large that a product of it keeps its input's size */
    PV_CASE_F32,     /* numbers that are always f32 */
    PV_CASE_KEYS,    /* a cache: as X, but NaN outside rows [first, first + len) */
    PV_CASE_COLS,    /* as X, NaN in columns from len on */
    PV_CASE_STATE,   /* of the weights' dtype, a state that the op writes */
    PV_CASE_STATE_X, /* of the activations' dtype, the same */
    PV_CASE_LEN,     /* i32[1]: len */
    PV_CASE_PLACES,  /* i32: positions, 0 to 7 */
    PV_CASE_U8
} pv_case_kind;

typedef struct pv_case_in {
    pv_case_kind kind;
    int64_t dim[PV_MAX_DIMS];
} pv_case_in;

typedef struct pv_selftest_case {
    pv_op op;
    pv_attr attr;
    pv_case_in in[PV_MAX_IN];
    int64_t rows, first, len;
    bool sharp; /* large numbers decide between near results: only moderate ones are fair */
} pv_selftest_case;

#define PV_CASE_ELEMENTS 70720 /* of a tensor at most */

extern const pv_selftest_case pv_selftest_cases[];
extern const int pv_selftest_n_cases;

#endif
