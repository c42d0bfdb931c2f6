/* compare.h - how far two tensors are apart, by measures that a wrong mask cannot pass. Plain cosine is told
 * beside them, but is no gate: a causal mask in place of a full one hardly moves it (docs/precision.md). */
#ifndef PV_TOOLS_COMPARE_H
#define PV_TOOLS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

/* Sums over pairs (ours, reference); add them in any order, then ask. All in double. */
typedef struct compare {
    int64_t n, worst; /* worst: index with the largest difference, as given to compare_add */
    double max_abs, diff1, diff2, ours2, ref2, ours1, ref1, cross;
    bool finite;
} compare;

/* What comes of it. NaN where one of both is not finite or, of the ratios, the reference is zero or constant.
 */
typedef struct distance {
    double relative_l2;            /* |ours - ref| / |ref| */
    double max_spread;             /* max |ours - ref| / standard deviation of ref */
    double centred_cosine, cosine; /* of both less their means; of both as they are */
    double max_abs, mean_abs;
    int64_t worst;
    bool finite, same_bytes;
} distance;

compare compare_begin(void);
void compare_add(compare *c, int64_t index, double ours, double ref);

distance compare_end(const compare *c, bool same_bytes);

#endif
