/* picture.c - on libjpeg-turbo and libpng. Both report errors by longjmp out of their depths: what must
 * survive the jump is kept in structs, not in locals. */
#include "picture.h"

#include "base/memory.h"
#include "io/image.h"
#include "io/json.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <png.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_SCANS      100 /* of a progressive JPEG: each costs a pass over the whole picture */

static pv_status picture_alloc(picture *p, uint64_t width, uint64_t height, const char *where)
{
    if (width < 1 || height < 1 || width > PV_IMAGE_MAX_SIDE || height > PV_IMAGE_MAX_SIDE)
        return pv_fail(PV_E_FILE, "%s: a picture of %llu x %llu, expected 1..%d pixels a side", where,
                       (unsigned long long)width, (unsigned long long)height, PV_IMAGE_MAX_SIDE);
    *p = (picture){(int)width, (int)height, pv_alloc_zero((size_t)width * (size_t)height * 3)};
    return p->rgb ? PV_OK : PV_E_MEMORY;
}

/* ---- JPEG -------------------------------------------------------------------------------------------- */

typedef struct jpeg {
    struct jpeg_decompress_struct c; /* first: the library hands back its address */
    struct jpeg_error_mgr error;
    struct jpeg_progress_mgr progress;
    jmp_buf out;
    char words[JMSG_LENGTH_MAX];
} jpeg;

static void jpeg_stop(j_common_ptr c)
{
    jpeg *j = (jpeg *)c;
    c->err->format_message(c, j->words);
    longjmp(j->out, 1);
}

/* Warnings mean missing or corrupt data, which the library would make up; bytes between segments do no harm.
 */
static void jpeg_message(j_common_ptr c, int level)
{
    if (level < 0 && c->err->msg_code != JWRN_EXTRANEOUS_DATA)
        jpeg_stop(c);
}

static void jpeg_scan(j_common_ptr c)
{
    jpeg *j = (jpeg *)c;
    if (j->c.input_scan_number > MAX_SCANS) {
        snprintf(j->words, sizeof j->words, "more than %d scans", MAX_SCANS);
        longjmp(j->out, 1);
    }
}

static pv_status decode_jpeg(const void *data, size_t n, const char *where, picture *out)
{
    jpeg *j = pv_alloc_zero(sizeof *j);
    if (!j)
        return PV_E_MEMORY;
    j->c.err = jpeg_std_error(&j->error);
    j->error.error_exit = jpeg_stop;
    j->error.emit_message = jpeg_message;
    j->progress.progress_monitor = jpeg_scan;
    volatile pv_status st = PV_OK;
    if (setjmp(j->out)) {
        st = pv_fail(PV_E_FILE, "%s: JPEG: %s", where, j->words);
    } else {
        jpeg_create_decompress(&j->c);
        j->c.progress = &j->progress;
        jpeg_mem_src(&j->c, data, (unsigned long)n);
        jpeg_read_header(&j->c, TRUE);
        if (j->c.jpeg_color_space == JCS_CMYK || j->c.jpeg_color_space == JCS_YCCK)
            st = pv_fail(PV_E_FILE, "%s: JPEG: expected RGB or grey, came CMYK", where);
        if (!st)
            st = picture_alloc(out, j->c.image_width, j->c.image_height, where);
        if (!st) {
            j->c.out_color_space = JCS_RGB;
            jpeg_start_decompress(&j->c);
            while (j->c.output_scanline < j->c.output_height) {
                JSAMPROW row = out->rgb + (size_t)j->c.output_scanline * (size_t)out->width * 3;
                jpeg_read_scanlines(&j->c, &row, 1);
            }
            jpeg_finish_decompress(&j->c);
        }
    }
    jpeg_destroy_decompress(&j->c);
    pv_free(j);
    return st;
}

/* ---- PNG --------------------------------------------------------------------------------------------- */

typedef struct png_source {
    const uint8_t *p;
    size_t n;
    char words[128];
} png_source;

static void png_stop(png_structp png, png_const_charp words)
{
    png_source *s = png_get_error_ptr(png);
    snprintf(s->words, sizeof s->words, "%s", words);
    png_longjmp(png, 1);
}

static void png_quiet(png_structp png, png_const_charp words)
{
    (void)png, (void)words; /* about chunks that do not touch the pixels */
}

static void png_give(png_structp png, png_bytep to, size_t n)
{
    png_source *s = png_get_io_ptr(png);
    if (n > s->n)
        png_error(png, "the file ends early");
    memcpy(to, s->p, n);
    s->p += n;
    s->n -= n;
}

static void read_png(png_structp png, png_infop info, picture *out)
{
    size_t line = (size_t)out->width * 3;
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != line)
        png_error(png, "rows are not RGB");
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < out->height; y++)
            png_read_row(png, out->rgb + (size_t)y * line, NULL);
    png_read_end(png, NULL);
}

static pv_status decode_png(const void *data, size_t n, const char *where, picture *out)
{
    png_source source = {data, n, ""};
    volatile pv_status st = PV_OK;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, png_stop, png_quiet);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return pv_fail(PV_E_MEMORY, "%s: out of memory for libpng", where);
    }
    if (setjmp(png_jmpbuf(png))) {
        st = pv_fail(PV_E_FILE, "%s: PNG: %s", where, source.words);
    } else {
        png_set_read_fn(png, &source, png_give);
        png_set_user_limits(png, PNG_UINT_31_MAX,
                            PNG_UINT_31_MAX); /* picture_alloc says it in better words */
        png_read_info(png, info);
        st = picture_alloc(out, png_get_image_width(png, info), png_get_image_height(png, info), where);
        if (!st)
            read_png(png, info, out);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return st;
}

/* ---- Both -------------------------------------------------------------------------------------------- */

pv_status picture_decode(const void *data, size_t n, const char *where, picture *out)
{
    static const uint8_t jpeg_start[] = {0xff, 0xd8, 0xff},
                         png_start[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    pv_status st;
    *out = (picture){0};
    if (n >= sizeof jpeg_start && !memcmp(data, jpeg_start, sizeof jpeg_start))
        st = decode_jpeg(data, n, where, out);
    else if (n >= sizeof png_start && !memcmp(data, png_start, sizeof png_start))
        st = decode_png(data, n, where, out);
    else
        st = pv_fail(PV_E_FILE, "%s: expected a JPEG or PNG picture, came something else", where);
    if (st)
        picture_free(out);
    return st;
}

pv_status picture_read(const char *path, picture *out)
{
    char *data = NULL;
    size_t n = 0;
    *out = (picture){0};
    pv_status st = pv_file_read(path, MAX_FILE_BYTES, &data, &n);
    if (!st)
        st = picture_decode(data, n, path, out);
    pv_free(data);
    return st;
}

void picture_free(picture *p)
{
    pv_free(p->rgb);
    *p = (picture){0};
}

static pv_status may_write(const char *path, int width, int height)
{
    if (width < 1 || height < 1 || width > PV_IMAGE_MAX_SIDE || height > PV_IMAGE_MAX_SIDE)
        return pv_fail(PV_E_ARG, "%s: a picture of %d x %d, expected 1..%d pixels a side", path, width,
                       height, PV_IMAGE_MAX_SIDE);
    return PV_OK;
}

typedef struct jpeg_out {
    struct jpeg_compress_struct c; /* first: the library hands back its address */
    struct jpeg_error_mgr error;
    jmp_buf out;
    char words[JMSG_LENGTH_MAX];
    unsigned char *data; /* the library's: free() */
    unsigned long n;
} jpeg_out;

static void jpeg_out_stop(j_common_ptr c)
{
    jpeg_out *j = (jpeg_out *)c;
    c->err->format_message(c, j->words);
    longjmp(j->out, 1);
}

pv_status picture_write_jpeg(const char *path, const uint8_t *rgb, int width, int height, int quality)
{
    pv_status bad = may_write(path, width, height);
    if (bad)
        return bad;
    jpeg_out *j = pv_alloc_zero(sizeof *j);
    if (!j)
        return PV_E_MEMORY;
    j->c.err = jpeg_std_error(&j->error);
    j->error.error_exit = jpeg_out_stop;
    volatile pv_status st = PV_OK;
    if (setjmp(j->out)) {
        st = pv_fail(PV_E_FILE, "%s: JPEG: %s", path, j->words);
    } else {
        jpeg_create_compress(&j->c);
        jpeg_mem_dest(&j->c, &j->data, &j->n);
        j->c.image_width = (JDIMENSION)width;
        j->c.image_height = (JDIMENSION)height;
        j->c.input_components = 3;
        j->c.in_color_space = JCS_RGB;
        jpeg_set_defaults(&j->c);
        jpeg_set_quality(&j->c, quality, TRUE);
        j->c.comp_info[0].h_samp_factor = j->c.comp_info[0].v_samp_factor = 1;
        jpeg_start_compress(&j->c, TRUE);
        while (j->c.next_scanline < j->c.image_height) {
            JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + (size_t)j->c.next_scanline * (size_t)width * 3);
            jpeg_write_scanlines(&j->c, &row, 1);
        }
        jpeg_finish_compress(&j->c);
        st = pv_file_write(path, j->data, j->n);
    }
    jpeg_destroy_compress(&j->c);
    free(j->data);
    pv_free(j);
    return st;
}

pv_status picture_write_png(const char *path, const uint8_t *rgb, int width, int height)
{
    pv_status st = may_write(path, width, height);
    if (st)
        return st;
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = PNG_FORMAT_RGB};
    png_alloc_size_t n = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *png = pv_alloc(n);
    if (!png)
        return PV_E_MEMORY;
    st = png_image_write_to_memory(&image, png, &n, 0, rgb, 0, NULL)
                       ? pv_file_write(path, png, n)
                       : pv_fail(PV_E_FILE, "%s: PNG: %s", path, image.message);
    png_image_free(&image);
    pv_free(png);
    return st;
}
