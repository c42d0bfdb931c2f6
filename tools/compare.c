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
    c->diff1 += d;
    c->diff2 += d * d;
    c->ours2 += ours * ours;
    c->ref2 += ref * ref;
    c->ours1 += ours;
    c->ref1 += ref;
    c->cross += ours * ref;
}

distance compare_end(const compare *c, bool same_bytes)
{
    distance r = {.centred_cosine = 1,
                  .cosine = 1,
                  .max_abs = c->max_abs,
                  .worst = c->worst,
                  .finite = c->finite,
                  .same_bytes = same_bytes};
    if (c->diff2 == 0)
        return r;
    double n = (double)c->n, variance = c->ref2 / n - c->ref1 / n * (c->ref1 / n);
    double ours = c->ours2 - c->ours1 * c->ours1 / n, ref = c->ref2 - c->ref1 * c->ref1 / n;
    r.relative_l2 = sqrt(c->diff2 / c->ref2);
    r.max_spread = c->max_abs / sqrt(variance > 0 ? variance : 0);
    r.mean_abs = c->diff1 / n;
    r.cosine = c->cross / sqrt(c->ours2 * c->ref2);
    r.centred_cosine = (c->cross - c->ours1 * c->ref1 / n) / sqrt(ours * ref);
    return r;
}
