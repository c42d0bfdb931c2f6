/* picture.h - JPEG and PNG files as RGB pictures, and back to PNG.
 *   - grey becomes RGB, a palette its colours, 16 bits their upper 8; alpha is dropped, not composited, and
 * gamma and colour profiles are left alone: as Pillow's convert("RGB"). CMYK is refused.
 *   - EXIF orientation is not applied: openpi's clients do not either, and the policy wants what the camera
 * saw.
 *   - at most PV_IMAGE_MAX_SIDE pixels a side, checked before memory is asked for; files up to 256 MiB.
 *   - a file that ends early or holds corrupt data is refused, not patched with grey. */
#ifndef PV_TOOLS_PICTURE_H
#define PV_TOOLS_PICTURE_H

#include "base/status.h"

typedef struct picture {
    int width, height;
    uint8_t *rgb; /* [height][width][3] */
} picture;

/* PV_E_FILE with path and reason; *out is empty then. The kind is told by the content, not the name. */
pv_status picture_read(const char *path, picture *out);
pv_status picture_decode(const void *data, size_t n, const char *where, picture *out);
void picture_free(picture *p);

/* 8-bit RGB. The file is written whole or not at all. quality: 1..100, of a JPEG without chroma subsampling. */
pv_status picture_write_png(const char *path, const uint8_t *rgb, int width, int height);
pv_status picture_write_jpeg(const char *path, const uint8_t *rgb, int width, int height, int quality);

#endif
