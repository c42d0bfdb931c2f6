#include "schedule.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

static double linear(double s)
{
    return 1 - s;
}

static double cosine(double s)
{
    return cos(PI * s / 2);
}

static double quadratic(double s)
{
    return 1 - s * s;
}

static double logistic(double s)
{
    return 1 / (1 + exp(-10 * (s - 0.5)));
}

static double sigmoid(double s)
{
    return 1 - (logistic(s) - logistic(0)) / (logistic(1) - logistic(0));
}

static const struct {
    const char *name;
    double (*at)(double s); /* NULL: a rule of its own below */
} schedules[] = {{"openpi", NULL},    {"lerobot", NULL},        {"linear", linear},
                 {"cosine", cosine},  {"quadratic", quadratic}, {"sigmoid", sigmoid}};
#define N_SCHEDULES ((int)(sizeof schedules / sizeof *schedules))

const char *pv_schedule_list(int i)
{
    return i >= 0 && i < N_SCHEDULES ? schedules[i].name : NULL;
}

static int find(const char *name)
{
    int k = 0;
    while (k < N_SCHEDULES && strcmp(schedules[k].name, name ? name : "openpi"))
        k++;
    return k;
}

const char *pv_schedule_find(const char *name)
{
    return pv_schedule_list(find(name));
}

pv_status pv_schedule_times(const char *name, int steps, float *times, float *dt)
{
    int k = find(name);
    if (k == N_SCHEDULES)
        return pv_fail(PV_E_ARG, "schedule '%s': expected openpi, lerobot, linear, cosine, quadratic or sigmoid", name);
    if (steps < 1 || steps > PV_MAX_STEPS)
        return pv_fail(PV_E_ARG, "steps: expected 1 to %d, came %d", PV_MAX_STEPS, steps);
    double width = -1.0 / steps;
    times[0] = 1;
    for (int i = 0; i < steps; i++) {
        if (schedules[k].at)
            times[i + 1] = (float)schedules[k].at((double)(i + 1) / steps);
        else if (k == 0)
            times[i + 1] = times[i] + (float)width;
        else
            times[i + 1] = (float)(1 + (i + 1) * width);
        dt[i] = schedules[k].at ? times[i + 1] - times[i] : (float)width;
    }
    return PV_OK;
}

pv_status pv_schedule_custom(const float *times, int steps, float *dt)
{
    if (steps < 1 || steps > PV_MAX_STEPS)
        return pv_fail(PV_E_ARG, "steps: expected 1 to %d, came %d", PV_MAX_STEPS, steps);
    for (int i = 0; i <= steps; i++)
        if (!isfinite(times[i]) || times[i] > 1 || times[i] < -1e-6f || (i && times[i] >= times[i - 1]))
            return pv_fail(PV_E_ARG, "timestep %d of %d is %g: expected times from at most 1 strictly down to 0", i,
                           steps + 1, (double)times[i]);
    for (int i = 0; i < steps; i++)
        dt[i] = times[i + 1] - times[i];
    return PV_OK;
}

void pv_time_embedding(float t, int width, double min_period, double max_period, float *dst)
{
    int half = width / 2;
    for (int j = 0; j < half; j++) {
        double fraction = half > 1 ? (double)j / (half - 1) : 0;
        double period = min_period * pow(max_period / min_period, fraction);
        double angle = 1 / period * 2 * PI * (double)t;
        dst[j] = (float)sin(angle);
        dst[half + j] = (float)cos(angle);
    }
}
