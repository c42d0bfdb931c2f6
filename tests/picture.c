/* picture.c - pictures as Pillow reads them (make_picture_fixtures.py), and files that are broken. */
#include "test.h"

#include "base/memory.h"
#include "tools/picture.h"

#include <unistd.h>

#include <jpeglib.h>

#include "data/pictures.inc"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static uint64_t fnv1a(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* From memory that ends where the file does, so that a sanitizer sees a step behind it. */
static pv_status decode(const uint8_t *p, size_t n, picture *out)
{
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, p, n);
    pv_status st = picture_decode(exact, n, "some.file", out);
    free(exact);
    CHECK((st == PV_OK) == (out->rgb != NULL));
    if (st)
        CHECK_TEXT("some.file");
    return st;
}

static void as_pillow(void)
{
    for (size_t i = 0; i < COUNT(files); i++) {
        picture p;
        if (CHECK_OK(decode(files[i].p, files[i].n, &p)) &&
            CHECK(p.width == SCENE_WIDTH && p.height == SCENE_HEIGHT) &&
            !CHECK(fnv1a(p.rgb, SCENE_WIDTH * SCENE_HEIGHT * 3) == files[i].hash))
            printf("    %s\n", files[i].name);
        picture_free(&p);
        CHECK(!p.rgb);
        picture_free(&p);
    }
}

static void write_and_read(const char *folder)
{
    char path[600];
    picture p;
    snprintf(path, sizeof path, "%s/scene.jpg", folder); /* the content tells, not the name */
    CHECK_OK(picture_write_png(path, scene_rgb, SCENE_WIDTH, SCENE_HEIGHT));
    CHECK_OK(picture_read(path, &p));
    CHECK(p.width == SCENE_WIDTH && p.height == SCENE_HEIGHT && p.rgb &&
          !memcmp(p.rgb, scene_rgb, sizeof scene_rgb));
    picture_free(&p);
    CHECK_OK(picture_write_png(path, scene_rgb, 1, 1));
    CHECK_OK(picture_read(path, &p));
    CHECK(p.width == 1 && p.height == 1);
    picture_free(&p);
    remove(path);
    CHECK_STATUS(picture_write_png(path, scene_rgb, 0, 5), PV_E_ARG);
    CHECK_STATUS(picture_write_png(path, scene_rgb, 5, 8193), PV_E_ARG);
    CHECK_STATUS(picture_read(path, &p), PV_E_FILE);
    CHECK_TEXT("scene.jpg");
    CHECK(!p.rgb);
    snprintf(path, sizeof path, "%s/no/folder.png", folder);
    CHECK_STATUS(picture_write_png(path, scene_rgb, 2, 2), PV_E_FILE);
    CHECK_TEXT("no/folder.png");
}

static void refusals(void)
{
    picture p;
    CHECK_STATUS(decode((const uint8_t *)"", 0, &p), PV_E_FILE);
    CHECK_STATUS(decode((const uint8_t *)"GIF89a", 6, &p), PV_E_FILE);
    CHECK_TEXT("JPEG or PNG");
    CHECK_STATUS(decode(jpeg_cmyk, sizeof jpeg_cmyk, &p), PV_E_FILE);
    CHECK_TEXT("CMYK");
    CHECK_STATUS(decode(png_wide, sizeof png_wide, &p), PV_E_FILE);
    CHECK_TEXT("8193 x 1");

    static uint8_t big[sizeof jpeg_420];
    memcpy(big, jpeg_420, sizeof big);
    size_t at = 0; /* the frame header: ff c0, length, precision, height, width */
    while (at + 9 < sizeof big && !(big[at] == 0xff && big[at + 1] == 0xc0))
        at++;
    int64_t before = pv_alloc_count();
    memcpy(big + at + 5, "\x7f\xff\x7f\xff", 4);
    CHECK_STATUS(decode(big, sizeof big, &p), PV_E_FILE);
    CHECK_TEXT("32767 x 32767");
    CHECK(pv_alloc_count() - before <= 1); /* no memory for pixels */
    memset(big + at + 5, 0, 4);
    CHECK_STATUS(decode(big, sizeof big, &p), PV_E_FILE);
}

/* A picture that ends early is no picture. (Behind a JPEG's last rows only its end marker is missing.) */
static void cut_short(void)
{
    for (size_t i = 0; i < COUNT(files); i++)
        for (size_t n = 0; n < files[i].n; n += 3) {
            picture p;
            if (!CHECK_STATUS(decode(files[i].p, n, &p), PV_E_FILE))
                printf("    %s cut to %zu of %zu bytes\n", files[i].name, n, files[i].n);
            picture_free(&p);
        }
}

/* Bytes knocked over: a picture or words, never a fault. */
static void knocked(void)
{
    static uint8_t copy[4096];
    uint32_t r = 7;
    int refused = 0;
    for (size_t i = 0; i < COUNT(files); i++)
        for (int k = 0; k < 300 && CHECK(files[i].n <= sizeof copy); k++) {
            memcpy(copy, files[i].p, files[i].n);
            for (int e = 0; e <= k % 3; e++) {
                r = r * 1664525u + 1013904223u;
                copy[(r >> 8) % files[i].n] = (uint8_t)(r >> 24);
            }
            picture p;
            refused += decode(copy, files[i].n, &p) != PV_OK;
            picture_free(&p);
        }
    CHECK(refused > 1000);
}

/* A grey picture in `n` scans, each a pass over the whole of it: much time in a small file. */
static pv_status in_scans(int n, picture *out)
{
    static jpeg_scan_info scan[128];
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr error;
    unsigned char *file = NULL;
    unsigned long size = 0;
    int k = 0;
    scan[k++] =
        (jpeg_scan_info){.comps_in_scan = 1}; /* first the mean of each block, then one frequency a scan */
    for (int f = 1; f < 64 && k < n - 1; f++) {
        scan[k++] = (jpeg_scan_info){.comps_in_scan = 1, .Ss = f, .Se = f, .Al = 1};
        scan[k++] = (jpeg_scan_info){.comps_in_scan = 1, .Ss = f, .Se = f, .Ah = 1};
    }
    c.err = jpeg_std_error(&error);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &file, &size);
    c.image_width = c.image_height = 32;
    c.input_components = 1;
    c.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&c);
    c.scan_info = scan;
    c.num_scans = k;
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(scene_rgb + c.next_scanline * 32);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    pv_status st = decode(file, size, out);
    free(file);
    return st;
}

static void many_scans(void)
{
    picture p;
    CHECK_OK(in_scans(99, &p));
    CHECK(p.width == 32);
    picture_free(&p);
    CHECK_STATUS(in_scans(125, &p), PV_E_FILE);
    CHECK_TEXT("more than 100 scans");
}

int main(void)
{
    char folder[] = "/tmp/pivot_picture_XXXXXX";
    as_pillow();
    if (CHECK(mkdtemp(folder) != NULL)) {
        write_and_read(folder);
        rmdir(folder);
    }
    refusals();
    cut_short();
    knocked();
    many_scans();
    CHECK(!pv_alloc_live());
    return test_done();
}
