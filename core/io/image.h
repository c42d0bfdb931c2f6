/* image.h - camera picture -> the square picture the model sees, bit-exact to what openpi's policies do with PIL.
 * RGB, 8 bit, interleaved. Sizes 1..8192 a side. */
#ifndef PV_IO_IMAGE_H
#define PV_IO_IMAGE_H

#include "base/status.h"

#define PV_IMAGE_MAX_SIDE 8192

/* Resize with pad: the picture is shrunk or grown to fit side x side with its shape kept (PIL's antialiased bilinear in
 * 8-bit fixed point), centred on black. openpi_client/image_tools.py, resize_with_pad. `stride`: bytes from row to row
 * of src, >= 3 * width. dst is [side][side][3]. A picture that is side x side already is copied unchanged.
 * Two calls with the same sizes and the same `scratch` allocate once; scratch may be NULL. */
typedef struct pv_resizer pv_resizer; /* the filter tables and row buffer of one size pair */
pv_status pv_resizer_create(int width, int height, int side, pv_resizer **out);
void pv_resizer_free(pv_resizer **r);
bool pv_resizer_fits(const pv_resizer *r, int width, int height, int side);
void pv_resizer_run(pv_resizer *r, const uint8_t *src, size_t stride, uint8_t *dst); /* allocates nothing */

#endif
