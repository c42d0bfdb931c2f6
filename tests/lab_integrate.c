/* lab_integrate.c - the methods of tools/lab/integrate.h on equations whose answers are known. */
#include "test.h"

#include "tools/lab/integrate.h"

typedef struct equation {
    lab_method method;
    const double *times;
    int calls, fails_at;
} equation;

/* dx0/dt = x0, whose answer at t = 0 is x0(1) / e; dx1/dt = 2 t, whose answer is x1(1) - 1. */
static pv_status velocity(void *user, int i, const double *x, double *v)
{
    equation *e = user;
    CHECK(i == e->calls++);
    v[0] = x[0];
    v[1] = 2 * lab_evaluation_time(e->method, e->times, i);
    return i == e->fails_at ? pv_fail(PV_E_DEVICE, "no velocity") : PV_OK;
}

static void even(double *times, int steps)
{
    for (int k = 0; k <= steps; k++)
        times[k] = 1 - (double)k / steps;
}

static double error(lab_method method, int steps, double *second)
{
    double times[1001], x[2] = {1, 1}, work[6];
    equation e = {method, times, 0, -1};
    even(times, steps);
    CHECK_OK(lab_integrate(method, times, steps, x, 2, work, velocity, &e));
    CHECK(e.calls == steps * lab_evaluations(method));
    *second = fabs(x[1]);
    return fabs(x[0] - exp(-1));
}

static void orders(void)
{
    static const int order[] = {[LAB_EULER] = 1, [LAB_HEUN] = 2, [LAB_MIDPOINT] = 2};
    for (int m = LAB_EULER; m <= LAB_MIDPOINT; m++) {
        double second, coarse = error((lab_method)m, 100, &second), fine = error((lab_method)m, 200, &second);
        CHECK(fabs(coarse / fine - pow(2, order[m])) < 0.05);
        CHECK(m == LAB_EULER ? fabs(second - 1.0 / 200) < 1e-12
                             : second < 1e-12); /* a line: exact from second order on */
    }
}

/* Two uneven steps by hand, of dx/dt = x: each multiplies by the method's polynomial of its h. */
static void by_hand(void)
{
    const double times[] = {1, 0.25, 0};
    for (int m = LAB_EULER; m <= LAB_MIDPOINT; m++) {
        double x[2] = {2, 0}, work[6], want = 2;
        equation e = {(lab_method)m, times, 0, -1};
        for (int k = 0; k < 2; k++) {
            double h = times[k + 1] - times[k];
            want *= 1 + h + (m == LAB_EULER ? 0 : h * h / 2);
        }
        CHECK_OK(lab_integrate((lab_method)m, times, 2, x, 2, work, velocity, &e));
        CHECK(fabs(x[0] - want) < 1e-15);
    }
    CHECK(lab_evaluation_time(LAB_HEUN, times, 3) == 0 &&
          lab_evaluation_time(LAB_MIDPOINT, times, 1) == 0.625);
    CHECK(lab_evaluation_time(LAB_EULER, times, 1) == 0.25 &&
          lab_evaluation_time(LAB_MIDPOINT, times, 2) == 0.25);
}

static void failures(void)
{
    double times[11], x[2] = {1, 1}, work[6];
    even(times, 10);
    for (int at = 0; at < 20; at += 3) {
        equation e = {LAB_HEUN, times, 0, at};
        CHECK_STATUS(lab_integrate(LAB_HEUN, times, 10, x, 2, work, velocity, &e), PV_E_DEVICE);
        CHECK(e.calls == at + 1); /* nothing behind the failure */
    }
}

int main(void)
{
    orders();
    by_hand();
    failures();
    return test_done();
}
