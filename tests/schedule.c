/* schedule.c - times of every schedule against their formulas in long double, openpi's and lerobot's to the
 * bit. */
#include "session/schedule.h"
#include "base/memory.h"
#include "test.h"

#define PI_L 3.14159265358979323846264338327950288L

static float times[PV_MAX_STEPS + 1], dt[PV_MAX_STEPS];

static long double logistic(long double s)
{
    return 1 / (1 + expl(-10 * (s - 0.5L)));
}

static long double formula(const char *name, long double s)
{
    if (!strcmp(name, "cosine"))
        return cosl(PI_L * s / 2);
    if (!strcmp(name, "quadratic"))
        return 1 - s * s;
    if (!strcmp(name, "sigmoid"))
        return 1 - (logistic(s) - logistic(0)) / (logistic(1) - logistic(0));
    return 1 - s; /* linear, and what openpi and lerobot are up to rounding */
}

/* Half a unit in the last place at 1, and what accumulating in float32 adds. */
static long double bound(const char *name, int steps)
{
    const long double half_ulp = 0x1p-25L;
    return strcmp(name, "openpi") ? half_ulp * 1.0001L : half_ulp * (1 + 2 * steps);
}

static void formulas(void)
{
    static const int counts[] = {1, 2, 3, 7, 10, 25, 100, 1000};
    for (int k = 0; pv_schedule_list(k); k++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const char *name = pv_schedule_list(k);
            int n = counts[c];
            bool close = true, down = true, widths = true,
                 exact = !strcmp(name, "openpi") || !strcmp(name, "lerobot");
            CHECK_OK(pv_schedule_times(name, n, times, dt));
            for (int i = 0; i <= n; i++) {
                close &= fabsl((long double)times[i] - formula(name, (long double)i / n)) <= bound(name, n);
                down &= !i || times[i] < times[i - 1];
            }
            for (int i = 0; i < n; i++)
                widths &= dt[i] == (exact ? -1.0f / (float)n : times[i + 1] - times[i]);
            if (!CHECK(close) || !CHECK(down) || !CHECK(widths) || !CHECK(times[0] == 1))
                printf("    %s, %d steps\n", name, n);
        }
    CHECK(pv_schedule_list(6) == NULL && pv_schedule_list(-1) == NULL);
}

static void known_times(void)
{
    static const float openpi[] = {1,
                                   0.899999976f,
                                   0.799999952f,
                                   0.699999928f,
                                   0.599999905f,
                                   0.499999911f,
                                   0.399999917f,
                                   0.299999923f,
                                   0.199999928f,
                                   0.099999927f};
    static const float lerobot[] = {1,    0.899999976f, 0.800000012f, 0.699999988f, 0.600000024f,
                                    0.5f, 0.400000006f};
    CHECK_OK(pv_schedule_times("openpi", 10, times, dt));
    CHECK(!memcmp(times, openpi, sizeof openpi));
    CHECK(dt[0] == -0.1f && dt[9] == -0.1f);
    CHECK_OK(pv_schedule_times(NULL, 10, times, dt));
    CHECK(!memcmp(times, openpi, sizeof openpi));
    CHECK_OK(pv_schedule_times("lerobot", 10, times, dt));
    CHECK(!memcmp(times, lerobot, sizeof lerobot));
    CHECK(times[10] == 0);
}

/* openpi ends its loop by looking at the time (pi0_pytorch.py, sample_actions); we count. The same steps, at
 * the same times. */
static void counted_loop(void)
{
    int wrong = 0;
    for (int n = 1; n <= 1000; n++) {
        CHECK_OK(pv_schedule_times("openpi", n, times, dt));
        volatile float width = (float)(-1.0 / n), t = 1;
        int steps = 0;
        for (; steps <= n && t >= -width / 2; steps++) {
            wrong += times[steps] != t || (steps < n && dt[steps] != width);
            t = t + width;
        }
        wrong += steps != n;
    }
    CHECK(wrong == 0);
}

static void refused(void)
{
    CHECK_STATUS(pv_schedule_times("openpi", 0, times, dt), PV_E_ARG);
    CHECK_STATUS(pv_schedule_times("linear", -1, times, dt), PV_E_ARG);
    CHECK_STATUS(pv_schedule_times("linear", PV_MAX_STEPS + 1, times, dt), PV_E_ARG);
    CHECK_TEXT("expected 1 to 100000, came 100001");
    CHECK_OK(pv_schedule_times("linear", PV_MAX_STEPS, times, dt));
    CHECK_STATUS(pv_schedule_times("Linear", 10, times, dt), PV_E_ARG);
    CHECK_TEXT("schedule 'Linear': expected openpi, lerobot");
    CHECK_STATUS(pv_schedule_times("", 10, times, dt), PV_E_ARG);
}

static void custom(void)
{
    float good[] = {1, 0.75f, 0.5f, 0}, later[] = {0.5f, 0.25f}, below[] = {1, -0x1p-24f};
    CHECK_OK(pv_schedule_custom(good, 3, dt));
    CHECK(dt[0] == -0.25f && dt[1] == -0.25f && dt[2] == -0.5f);
    CHECK_OK(pv_schedule_custom(later, 1, dt));
    CHECK_OK(pv_schedule_custom(below, 1, dt)); /* where openpi's own sum ends for some numbers of steps */
    static const struct {
        float t[3];
        const char *words;
    } bad[] = {
        {{1, 1, 0}, "timestep 1 of 3 is 1"},
        {{1, 0.5f, 0.75f}, "timestep 2 of 3 is 0.75"},
        {{0, 0.5f, 1}, "timestep 1 of 3"},
        {{1, NAN, 0}, "timestep 1 of 3 is nan"},
        {{NAN, 0.5f, 0}, "timestep 0 of 3 is nan"},
        {{1, 0.5f, -INFINITY}, "timestep 2 of 3 is -inf"},
        {{INFINITY, 0.5f, 0}, "timestep 0 of 3 is inf"},
        {{1.0000001f, 0.5f, 0}, "timestep 0 of 3"},
        {{1, 0.5f, -0.01f}, "timestep 2 of 3 is -0.01"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_STATUS(pv_schedule_custom(bad[i].t, 2, dt), PV_E_ARG);
        CHECK_TEXT(bad[i].words);
    }
    CHECK_STATUS(pv_schedule_custom(good, 0, dt), PV_E_ARG);
    CHECK_STATUS(pv_schedule_custom(good, -3, dt), PV_E_ARG);
    CHECK_STATUS(pv_schedule_custom(good, PV_MAX_STEPS + 1, dt), PV_E_ARG);
}

/* Values of openpi's create_sinusoidal_pos_embedding, width 1024, periods 0.004 to 4. */
static void embedding(void)
{
    static const struct {
        float t;
        int at;
        double value;
    } known[] = {{1, 1, -0.78321898},
                 {1, 2, 0.87174052},
                 {1, 511, 1},
                 {1, 513, -0.621745944},
                 {1, 767, 0.967496157},
                 {0.899999976f, 0, -3.74507035e-05},
                 {0.899999976f, 1, -0.132282153},
                 {0.899999976f, 255, 0.855512738},
                 {0.899999976f, 1023, 0.156434506}};
    static float e[1024];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        pv_time_embedding(known[i].t, 1024, 0.004, 4, e);
        double off = fabs((double)e[known[i].at] / known[i].value - 1);
        if (!CHECK(off < 1e-8 + 0x1p-24))
            printf("    t %g, [%d]: %.9g, known %.9g\n", (double)known[i].t, known[i].at,
                   (double)e[known[i].at], known[i].value);
    }
    pv_time_embedding(1, 1024, 0.004, 4, e);
    CHECK(fabs((double)e[0] / -1.6070832e-13 - 1) < 1e-6); /* what is left of 250 turns */
    pv_time_embedding(0, 2, 0.004, 4, e);
    CHECK(e[0] == 0 && e[1] == 1);
}

int main(void)
{
    formulas();
    known_times();
    counted_loop();
    refused();
    custom();
    embedding();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
