/* bench_stats.c - see bench_stats.h. */
#include "bench_stats.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const double *sorted, int n, double p)
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

summary summarise(double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    return (summary){.min = ms[0],
                     .p25 = percentile(ms, n, 0.25),
                     .p50 = percentile(ms, n, 0.5),
                     .p75 = percentile(ms, n, 0.75),
                     .p95 = percentile(ms, n, 0.95),
                     .p99 = percentile(ms, n, 0.99),
                     .p999 = percentile(ms, n, 0.999),
                     .max = ms[n - 1]};
}

double summary_notch(const summary *s, int n)
{
    return 1.57 * (s->p75 - s->p25) / sqrt(n);
}

double summary_margin(const summary *s, int n)
{
    return 1.82 * (s->p75 - s->p25) / sqrt(n);
}

verdict summary_differ(const summary *a, int n_a, const summary *b, int n_b)
{
    if (n_a < SUMMARY_LEAST || n_b < SUMMARY_LEAST)
        return VERDICT_TOO_FEW;
    bool apart = fabs(a->p50 - b->p50) > summary_notch(a, n_a) + summary_notch(b, n_b);
    return apart ? VERDICT_DIFFERENT : VERDICT_NOISE;
}
