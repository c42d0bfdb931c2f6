/* bench_stats.c - percentiles by hand, and what counts as a difference. */
#include "test.h"
#include "tools/bench_stats.h"

#include <math.h>

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-12;
}

static void percentiles(void)
{
    double one[] = {7}, five[] = {5, 1, 4, 2, 3}, two[] = {3, 1};
    summary s = summarise(one, 1);
    CHECK(s.min == 7 && s.p25 == 7 && s.p50 == 7 && s.p999 == 7 && s.max == 7);
    s = summarise(five, 5);
    CHECK(s.min == 1 && s.p25 == 2 && s.p50 == 3 && s.p75 == 4 && near(s.p95, 4.8) && near(s.p99, 4.96) &&
          s.max == 5);
    s = summarise(two, 2);
    CHECK(near(s.p50, 2) && near(s.p25, 1.5) && near(s.p75, 2.5));
}

static void differences(void)
{
    summary a = {.p25 = 9, .p50 = 10, .p75 = 11}, b = a, still = {.p25 = 10, .p50 = 10, .p75 = 10};
    CHECK(near(summary_notch(&a, 100), 0.314) && near(summary_margin(&a, 100), 0.364) &&
          summary_notch(&still, 3) == 0);
    b.p50 = 10.62;
    CHECK(summary_differ(&a, 100, &b, 100) == VERDICT_NOISE &&
          summary_differ(&b, 100, &a, 100) == VERDICT_NOISE);
    b.p50 = 10.64;
    CHECK(summary_differ(&a, 100, &b, 100) == VERDICT_DIFFERENT &&
          summary_differ(&b, 100, &a, 100) == VERDICT_DIFFERENT);
    CHECK(summary_differ(&a, 25, &b, 25) == VERDICT_NOISE);
    CHECK(summary_differ(&still, 9, &still, 9) == VERDICT_NOISE);
    CHECK(summary_differ(&a, SUMMARY_LEAST - 1, &b, 100) == VERDICT_TOO_FEW &&
          summary_differ(&a, 100, &b, 4) == VERDICT_TOO_FEW);
}

int main(void)
{
    percentiles();
    differences();
    return test_done();
}
