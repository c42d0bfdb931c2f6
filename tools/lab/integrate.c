/* integrate.c - see integrate.h. */
#include "integrate.h"

int lab_evaluations(lab_method method)
{
    return method == LAB_EULER ? 1 : 2;
}

double lab_evaluation_time(lab_method method, const double *times, int i)
{
    int k = i / lab_evaluations(method);
    if (i % lab_evaluations(method) == 0)
        return times[k];
    return method == LAB_HEUN ? times[k + 1] : (times[k] + times[k + 1]) / 2;
}

pv_status lab_integrate(lab_method method, const double *times, int steps, double *x, size_t n, double *work,
                        lab_velocity velocity, void *user)
{
    double *v = work, *v2 = work + n, *x2 = work + 2 * n;
    pv_status st = PV_OK;
    int each = lab_evaluations(method);
    for (int k = 0; !st && k < steps; k++) {
        double h = times[k + 1] - times[k], ahead = method == LAB_HEUN ? h : h / 2;
        st = velocity(user, each * k, x, v);
        for (size_t i = 0; !st && i < n; i++)
            x2[i] = x[i] + ahead * v[i];
        if (!st && each > 1)
            st = velocity(user, each * k + 1, x2, v2);
        for (size_t i = 0; !st && i < n; i++)
            x[i] += method == LAB_EULER ? h * v[i] : method == LAB_HEUN ? h / 2 * (v[i] + v2[i]) : h * v2[i];
    }
    return st;
}
