/* picture.c - a picture as a robot sends it -> RGB, 8 bit, row by row. Floats in [0, 1] become trunc(255 x) in their own
 * precision, as numpy's (255 * image).astype(uint8) in openpi; what would leave 0..255 there, and wrap, is refused. Floats
 * in [-1, 1] become the nearest of the values that openpi's u8 / 255 * 2 - 1 makes; those of lerobot in [0, 1], which were
 * u8 / 255, the nearest as well. */
#include "frame.h"
#include "base/memory.h"
#include "io/image.h"

#include <math.h>
#include <string.h>

typedef struct plan {
    int width, height;
    size_t row, column, channel; /* elements from one to the next */
} plan;

static pv_status shape(const pv_robot_camera *c, const pv_field *f, plan *p)
{
    char came[96];
    pv_field_shape(f, came);
    bool type = f->type == PV_FIELD_U8 || f->type == PV_FIELD_F32 || f->type == PV_FIELD_F64;
    bool chw = c->layout == PV_LAYOUT_CHW || (c->layout == PV_LAYOUT_AUTO && f->n_dims == 3 && f->dim[0] == 3);
    int h = chw ? 1 : 0, channels = chw ? 0 : 2;
    if (!type || f->n_dims != 3 || f->dim[channels] != 3 || f->dim[h] < 1 || f->dim[h + 1] < 1 ||
        f->dim[h] > PV_IMAGE_MAX_SIDE || f->dim[h + 1] > PV_IMAGE_MAX_SIDE)
        return pv_fail(PV_E_SHAPE, "'%s': expected a picture u8, f32 or f64 %s with sides of 1 to %d, came %s", f->key,
                       c->layout == PV_LAYOUT_AUTO  ? "[height, width, 3] or [3, height, width]"
                       : c->layout == PV_LAYOUT_HWC ? "[height, width, 3]"
                                                    : "[3, height, width]",
                       PV_IMAGE_MAX_SIDE, came);
    p->height = (int)f->dim[h];
    p->width = (int)f->dim[h + 1];
    size_t w = (size_t)p->width;
    p->row = chw ? w : 3 * w;
    p->column = chw ? 1 : 3;
    p->channel = chw ? w * (size_t)p->height : 1;
    return PV_OK;
}

/* Both leave 0..255 only where the input is out of range or NaN. */
static double level_near(const pv_robot_camera *c, double v)
{
    return floor((c->is_signed ? (v + 1) / 2 : v) * 255 + 0.5);
}

static double from_f32(const pv_robot_camera *c, const unsigned char *at, double *v)
{
    float x;
    memcpy(&x, at, sizeof x);
    *v = x;
    float scaled = 255 * x;
    return c->is_signed || c->nearest ? level_near(c, *v) : trunc(scaled);
}

static double from_f64(const pv_robot_camera *c, const unsigned char *at, double *v)
{
    memcpy(v, at, sizeof *v);
    return c->is_signed || c->nearest ? level_near(c, *v) : trunc(255 * *v);
}

static pv_status floats(const pv_robot_camera *c, const pv_field *f, const plan *p, uint8_t *dst)
{
    const unsigned char *src = f->data;
    const bool f32 = f->type == PV_FIELD_F32;
    const size_t bytes = f32 ? 4 : 8;
    for (int y = 0; y < p->height; y++)
        for (int x = 0; x < p->width; x++, dst += 3)
            for (int k = 0; k < 3; k++) {
                const unsigned char *at = src + bytes * ((size_t)y * p->row + (size_t)x * p->column + (size_t)k * p->channel);
                double v, level = f32 ? from_f32(c, at, &v) : from_f64(c, at, &v);
                if (!isfinite(v))
                    return pv_fail(PV_E_NOT_FINITE, "'%s': row %d, column %d, channel %d is %g", f->key, y, x, k, v);
                if (!(level >= 0 && level <= 255))
                    return pv_fail(PV_E_ARG, "'%s': row %d, column %d, channel %d: expected a value in %s, came %.9g", f->key,
                                   y, x, k, c->is_signed ? "[-1, 1]" : "[0, 1]", v);
                dst[c->bgr ? 2 - k : k] = (uint8_t)level;
            }
    return PV_OK;
}

static void bytes(const pv_robot_camera *c, const pv_field *f, const plan *p, uint8_t *dst)
{
    const uint8_t *src = f->data;
    const int first = c->bgr ? 2 : 0;
    if (p->channel == 1 && !c->bgr) {
        memcpy(dst, src, (size_t)p->height * p->row);
        return;
    }
    for (int y = 0; y < p->height; y++) {
        const uint8_t *row = src + (size_t)y * p->row;
        for (int x = 0; x < p->width; x++, dst += 3, row += p->column) {
            dst[first] = row[0];
            dst[1] = row[p->channel];
            dst[2 - first] = row[2 * p->channel];
        }
    }
}

pv_status pv_read_picture(const pv_robot_camera *camera, const pv_field *f, pv_block *to, int *width, int *height)
{
    plan p = {0};
    pv_status st = shape(camera, f, &p);
    if (!st)
        st = pv_block_need(to, (size_t)p.width * (size_t)p.height * 3);
    if (st)
        return st;
    *width = p.width;
    *height = p.height;
    if (f->type != PV_FIELD_U8)
        return floats(camera, f, &p, to->data);
    bytes(camera, f, &p, to->data);
    return PV_OK;
}
