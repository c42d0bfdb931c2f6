/* compare.h - how far two tensors are apart, by measures that a wrong mask cannot pass. Plain cosine is not among the
 * gates: a causal mask in place of a full one still scores 0.9997. */
#ifndef PV_TOOLS_COMPARE_H
#define PV_TOOLS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

/* Sums over pairs (ours, reference); add them in any order, then ask. All in double. */
typedef struct compare {
    int64_t n, worst; /* worst: index with the largest difference, as given to compare_add */
    double max_abs, diff2, ours2, ref2, ours1, ref1, cross;
    bool finite;
} compare;

compare compare_begin(void);
void compare_add(compare *c, int64_t index, double ours, double ref);

double compare_relative_l2(const compare *c);    /* |ours - ref| / |ref| */
double compare_max_spread(const compare *c);     /* max |ours - ref| / standard deviation of ref */
double compare_centred_cosine(const compare *c); /* of both less their means */

#endif
