/* bench_stats.h - percentiles of some times, and whether two medians differ by more than the times scatter.
 */
#ifndef PV_TOOLS_BENCH_STATS_H
#define PV_TOOLS_BENCH_STATS_H

#include <stdbool.h>

typedef struct summary {
    double min, p25, p50, p75, p95, p99, p999, max;
} summary;

/* Sorts `ms`; n is at least 1. Percentiles lie between the two nearest, linearly. */
summary summarise(double *ms, int n);

/* Half of a notch of McGill, Tukey and Larsen (Variations of Box Plots, 1978): 1.57 quartile ranges over
 * sqrt(n). Medians whose notches do not overlap differ, at some 95 %, as far as runs are independent. */
double summary_notch(const summary *s, int n);

/* Half of a 95 % interval of one median: the same reckoning (a median's error is 1.253 sigma / sqrt(n), sigma
 * is the quartile range over 1.349), times 1.96. */
double summary_margin(const summary *s, int n);

#define SUMMARY_LEAST 5 /* runs: of fewer, quartiles say nothing */

typedef enum verdict { VERDICT_NOISE, VERDICT_DIFFERENT, VERDICT_TOO_FEW } verdict;
verdict summary_differ(const summary *a, int n_a, const summary *b, int n_b);

#endif
