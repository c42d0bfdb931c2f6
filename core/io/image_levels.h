/* image_levels.h - the passes of a resize, built for each instruction-set level from image_loops.h; the best
 * one that this machine has is taken. All give the same bytes: they add whole numbers. */
#ifndef PV_IO_IMAGE_LEVELS_H
#define PV_IO_IMAGE_LEVELS_H

#include "image.h"

#define PV_IMAGE_CHANNELS     3
#define PV_IMAGE_WEIGHT_BITS  22 /* 8 bits of pixel and 2 of head room leave these of an int32 */
#define PV_IMAGE_WEIGHT_ROUND (1 << (PV_IMAGE_WEIGHT_BITS - 1))
#define PV_IMAGE_BLOCK        16 /* rows that are turned together, and lanes of a sum */

typedef struct pv_image_axis { /* how `out` places along one side are made of `in` */
    int in, out;
    int taps;        /* weights kept for each output; 0 when in == out */
    int *first, *n;  /* [out]: the inputs that count are [first, first + n) */
    int32_t *weight; /* [out][taps] */
} pv_image_axis;

typedef struct pv_image_level {
    const char *name;
    /* rows of src, each [a->in][3], to dst [a->out][3]; work: BLOCK (a->in + a->out) 3 bytes */
    void (*horizontal)(const pv_image_axis *a, const uint8_t *src, size_t stride, int rows, uint8_t *work,
                       uint8_t *dst, size_t dst_stride);
    /* rows of n bytes: a->in of them to a->out */
    void (*vertical)(const pv_image_axis *a, const uint8_t *src, size_t stride, size_t n, uint8_t *dst,
                     size_t dst_stride);
} pv_image_level;

const pv_image_level *pv_image_level_best(void);
const pv_image_level *
pv_image_level_list(int i); /* those that run here, plainest first; NULL behind the last */
void pv_resizer_use(pv_resizer *r, const pv_image_level *level); /* in place of the best */

extern const pv_image_level pv_image_plain, pv_image_avx2, pv_image_avx512;

#endif
