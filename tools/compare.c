#include "compare.h"

#include <math.h>

compare compare_begin(void)
{
    return (compare){.worst = -1, .finite = true};
}

void compare_add(compare *c, int64_t index, double ours, double ref)
{
    double d = fabs(ours - ref);
    if (!isfinite(ours) || !isfinite(ref)) {
        if (c->finite)
            c->worst = index;
        c->finite = false;
    } else if (c->finite && (d > c->max_abs || c->worst < 0)) {
        c->max_abs = d;
        c->worst = index;
    }
    c->n++;
    c->diff2 += d * d;
    c->ours2 += ours * ours;
    c->ref2 += ref * ref;
    c->ours1 += ours;
    c->ref1 += ref;
    c->cross += ours * ref;
}

double compare_relative_l2(const compare *c)
{
    return c->diff2 == 0 ? 0 : sqrt(c->diff2 / c->ref2);
}

double compare_max_spread(const compare *c)
{
    double n = (double)c->n, variance = c->ref2 / n - c->ref1 / n * (c->ref1 / n);
    return c->max_abs == 0 ? 0 : c->max_abs / sqrt(variance > 0 ? variance : 0);
}

double compare_centred_cosine(const compare *c)
{
    double n = (double)c->n, ours = c->ours2 - c->ours1 * c->ours1 / n, ref = c->ref2 - c->ref1 * c->ref1 / n;
    return c->diff2 == 0 ? 1 : (c->cross - c->ours1 * c->ref1 / n) / sqrt(ours * ref);
}
