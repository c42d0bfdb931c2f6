/* image.c - resize with pad, to the last bit what PIL does: bilinear with antialias (a triangle as wide as
 * the scale), weights in 22-bit fixed point, columns first, rounded to 8 bits, then rows. A pass whose size
 * does not change is skipped; it would be the identity. Sources: openpi_client/image_tools.py
 * (resize_with_pad), Pillow src/libImaging/Resample.c (order of operations) up to 12; from 13 on Pillow takes
 * rows first for tall pictures, which moves some pixels by one. openpi pins 11.2. */
#include "image_levels.h"

#include "base/memory.h"

#include <string.h>

#define CHANNELS PV_IMAGE_CHANNELS
typedef pv_image_axis axis;

struct pv_resizer {
    int side;
    int left, top; /* of the picture on the black square */
    axis x, y;
    uint8_t *rows; /* [y.in][x.out][3], after the horizontal pass; NULL when one of the passes is skipped */
    uint8_t *work; /* of the horizontal pass; NULL when it is skipped */
    const pv_image_level *level;
};

static int taps_of(int in, int out)
{
    /* The triangle reaches max(1, in / out) to each side. */
    int reach = in > out ? (in + out - 1) / out : 1;
    return in == out ? 0 : 2 * reach + 1;
}

static pv_status axis_make(axis *a, int in, int out)
{
    *a = (axis){.in = in, .out = out, .taps = taps_of(in, out)};
    if (!a->taps)
        return PV_OK;
    double *w = pv_alloc(pv_mul_size((size_t)a->taps, sizeof *w));
    a->first = pv_alloc(pv_mul_size((size_t)out, sizeof *a->first));
    a->n = pv_alloc(pv_mul_size((size_t)out, sizeof *a->n));
    a->weight = pv_alloc_zero(pv_mul_size(pv_mul_size((size_t)out, (size_t)a->taps), sizeof *a->weight));
    if (!w || !a->first || !a->n || !a->weight) {
        pv_free(w);
        return PV_E_MEMORY;
    }
    double scale = (double)in / out, reach = scale < 1 ? 1 : scale, inv = 1.0 / reach;
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, total = 0;
        int lo = (int)(centre - reach + 0.5), hi = (int)(centre + reach + 0.5); /* towards zero */
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        for (int x = lo; x < hi; x++) {
            double d = (x - centre + 0.5) * inv;
            d = d < 0 ? -d : d;
            total += w[x - lo] = d < 1 ? 1 - d : 0;
        }
        for (int k = 0; k < hi - lo; k++)
            a->weight[(size_t)i * a->taps + k] = (int32_t)(w[k] / total * (1 << PV_IMAGE_WEIGHT_BITS) + 0.5);
        a->first[i] = lo;
        a->n[i] = hi - lo;
    }
    pv_free(w);
    return PV_OK;
}

static void axis_free(axis *a)
{
    pv_free(a->first);
    pv_free(a->n);
    pv_free(a->weight);
}

pv_status pv_resizer_create(int width, int height, int side, pv_resizer **out)
{
    *out = NULL;
    if (width < 1 || height < 1 || width > PV_IMAGE_MAX_SIDE || height > PV_IMAGE_MAX_SIDE)
        return pv_fail(PV_E_SHAPE, "image: expected 1..%d pixels a side, came %d x %d", PV_IMAGE_MAX_SIDE,
                       width, height);
    if (side < 1 || side > PV_IMAGE_MAX_SIDE)
        return pv_fail(PV_E_ARG, "image: expected a square of 1..%d pixels a side to resize to, came %d",
                       PV_IMAGE_MAX_SIDE, side);
    double rx = (double)width / side, ry = (double)height / side, ratio = rx > ry ? rx : ry;
    int w = (int)(width / ratio), h = (int)(height / ratio);
    if (w < 1 || h < 1) /* PIL refuses it too */
        return pv_fail(PV_E_SHAPE,
                       "image: %d x %d pixels are too thin, shrunk to fit %d x %d they are %d x %d", width,
                       height, side, side, w, h);
    pv_resizer *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    r->side = side;
    r->left = (side - w) / 2;
    r->top = (side - h) / 2;
    pv_status st = axis_make(&r->x, width, w);
    if (!st)
        st = axis_make(&r->y, height, h);
    const size_t row = pv_mul_size((size_t)w, CHANNELS);
    if (!st && r->y.taps && r->x.taps)
        st = (r->rows = pv_alloc(pv_mul_size(row, (size_t)height))) ? PV_OK : PV_E_MEMORY;
    if (!st && r->x.taps)
        st = (r->work = pv_alloc((row + (size_t)width * CHANNELS) * PV_IMAGE_BLOCK)) ? PV_OK : PV_E_MEMORY;
    r->level = pv_image_level_best();
    if (st)
        pv_resizer_free(&r);
    *out = r;
    return st;
}

void pv_resizer_free(pv_resizer **r)
{
    if (!*r)
        return;
    axis_free(&(*r)->x);
    axis_free(&(*r)->y);
    pv_free((*r)->rows);
    pv_free((*r)->work);
    pv_free(*r);
    *r = NULL;
}

bool pv_resizer_fits(const pv_resizer *r, int width, int height, int side)
{
    return r && r->x.in == width && r->y.in == height && r->side == side;
}

void pv_resizer_use(pv_resizer *r, const pv_image_level *level)
{
    r->level = level;
}

void pv_resizer_run(pv_resizer *r, const uint8_t *src, size_t stride, uint8_t *dst)
{
    size_t line = (size_t)r->side * CHANNELS, n = (size_t)r->x.out * CHANNELS;
    uint8_t *inside = dst + (size_t)r->top * line + (size_t)r->left * CHANNELS;
    if (r->x.out < r->side || r->y.out < r->side)
        memset(dst, 0, line * (size_t)r->side);
    if (r->x.taps) { /* into the square when rows keep their number, else into `rows` */
        r->level->horizontal(&r->x, src, stride, r->y.in, r->work, r->y.taps ? r->rows : inside, r->y.taps ? n : line);
        src = r->rows;
        stride = n;
    }
    if (r->y.taps)
        r->level->vertical(&r->y, src, stride, n, inside, line);
    if (!r->x.taps && !r->y.taps)
        for (int i = 0; i < r->y.out; i++)
            memcpy(inside + (size_t)i * line, src + (size_t)i * stride, n);
}
