/* stats.h - normalisation statistics of a dataset and the two rules openpi applies with them (float64, as openpi).
 *   quantile: in  (x - q01) / (q99 - q01 + 1e-6) * 2 - 1      out (y + 1) / 2 * (q99 - q01 + 1e-6) + q01
 *   z-score:  in  (x - mean) / (std + 1e-6)                   out y * (std + 1e-6) + mean
 * openpi src/openpi/transforms.py, Normalize and Unnormalize. Nothing is clipped.
 * Statistics of lerobot (processors.h) say for each vector how it is normalised, and that is done in float32 as there:
 *   mean and deviation: in (x - mean) / (std + eps)           out y * std + mean
 *   range low..high:    in 2 (x - low) / d - 1                out (y + 1) d / 2 + low, d = high - low, eps where that is 0
 * lerobot src/lerobot/processor/normalize_processor.py. */
#ifndef PV_IO_STATS_H
#define PV_IO_STATS_H

#include "base/status.h"

typedef enum pv_norm_rule { PV_NORM_QUANTILE, PV_NORM_ZSCORE } pv_norm_rule;
typedef enum pv_norm_mode { PV_NORM_OPENPI, PV_NORM_IDENTITY, PV_NORM_MEAN_STD, PV_NORM_RANGE } pv_norm_mode;

typedef struct pv_norm {      /* of one vector: state or actions */
    int dim;                  /* trailing all-zero padding (mean, std, q01, q99 all 0) is stripped */
    int padded_dim;           /* as in the file */
    double *mean, *std;       /* [dim]; NULL where lerobot's file has none */
    double *q01, *q99;        /* [dim], or NULL where the file has none or null */
    double *block;            /* what holds all of them */
    pv_norm_mode mode;        /* OPENPI: the caller's pv_norm_rule; another: lerobot's, whatever the caller's rule */
    const char *mode_name;    /* lerobot's word for it */
    double *low, *high;       /* [dim]; RANGE alone */
    float eps;                /* of lerobot's rules */
} pv_norm;

typedef struct pv_stats {
    pv_norm state, actions;
} pv_stats;

/* openpi's norm_stats.json: {"norm_stats": {"state": {...}, "actions": {...}}}. Checked: both present, lengths agree,
 * 1..1024 dims, every number finite, std >= 0, q01 < q99 (words name file, vector, index and both values). */
pv_status pv_stats_read(const char *path, pv_stats **out);
pv_status pv_stats_parse(const char *json, size_t n, const char *where, pv_stats **out);
void pv_stats_free(pv_stats **stats);

/* Statistics of other dims made of those of `s`, taken again and again: for synthetic models of any robot. */
pv_status pv_stats_repeat(const pv_stats *s, int state_dim, int action_dim, pv_stats **out);

/* PV_E_ARG with words when `rule` needs quantiles that `norm` lacks. */
pv_status pv_norm_check(const pv_norm *norm, pv_norm_rule rule, const char *which);

/* x[n] -> y[n]; y may be x. n <= norm->dim for `in` (statistics are cut to the vector's length, as openpi does);
 * for `out` elements past norm->dim pass through unchanged. By lerobot's rules x is rounded to float32 first. */
void pv_normalize(const pv_norm *norm, pv_norm_rule rule, const double *x, double *y, int n);
void pv_unnormalize(const pv_norm *norm, pv_norm_rule rule, const double *y, double *x, int n);

/* How many of x[n] lie outside [q01, q99]; 0 without quantiles. */
int pv_norm_outside(const pv_norm *norm, const double *x, int n);

#endif
