/* convert.c - numbers of a robot into those of the policy, one operation after the other. Each formula has the order of
 * operations of openpi's policies/aloha_policy.py, so that each result is theirs to the bit. */
#include "robot.h"

#include <math.h>

static double linear_to_radian(double x, double arm, double horn)
{
    double sine = (horn * horn + x * x - arm * arm) / (2 * horn * x);
    return asin(sine < -1 ? -1 : sine > 1 ? 1 : sine);
}

static double one(const pv_convert *c, int i, double x)
{
    switch (c->op) {
    case PV_CONVERT_MULTIPLY: return c->by[i] * x;
    case PV_CONVERT_ADD: return x + c->a;
    case PV_CONVERT_NORMALIZE: return (x - c->a) / (c->b - c->a);
    case PV_CONVERT_UNNORMALIZE: return x * (c->b - c->a) + c->a;
    case PV_CONVERT_LINEAR_TO_RADIAN: return linear_to_radian(x, c->a, c->b);
    case PV_CONVERT_COUNT: break;
    }
    return x;
}

void pv_convert_run(const pv_converts *all, double *x)
{
    for (const pv_convert *c = all->op; c < all->op + all->n; c++)
        for (int i = 0; i < c->n; i++)
            x[c->dim[i]] = one(c, i, x[c->dim[i]]);
}
