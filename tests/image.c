/* image.c - resize with pad against what Pillow made of the same pictures (make_image_fixtures.py), bit for
 * bit. */
#include "test.h"

#include "base/memory.h"
#include "io/image_levels.h"

#include "data/resize.inc"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* The picture of make_image_fixtures.py; the bytes between rows are filled with what must not be read. */
static uint8_t *picture(int width, int height, uint32_t seed, bool hard, size_t stride)
{
    uint8_t *rgb = malloc(stride * (size_t)height);
    memset(rgb, 0xA5, stride * (size_t)height);
    uint32_t i = 0;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width * 3; x++, i++) {
            uint32_t h = (i ^ seed) * 0x9E3779B1u;
            h ^= h >> 15;
            h *= 0x85EBCA77u;
            h ^= h >> 13;
            uint8_t byte = (uint8_t)(h >> 24);
            rgb[(size_t)y * stride + (size_t)x] = hard ? (byte & 1 ? 255 : 0) : byte;
        }
    return rgb;
}

static uint64_t fnv1a(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* What any machine can run gives the bytes that the best of this one does. */
static void every_level(pv_resizer *r, const uint8_t *src, size_t stride, const uint8_t *want, size_t n)
{
    uint8_t *dst = malloc(n);
    const pv_image_level *level;
    for (int i = 0; (level = pv_image_level_list(i)); i++) {
        memset(dst, 0xC3, n);
        pv_resizer_use(r, level);
        pv_resizer_run(r, src, stride, dst);
        if (!CHECK(!memcmp(dst, want, n)))
            printf("    %s\n", level->name);
    }
    free(dst);
}

static bool resize(int width, int height, int side, uint32_t seed, bool hard, size_t gap, uint8_t *dst)
{
    size_t stride = (size_t)width * 3 + gap;
    uint8_t *src = picture(width, height, seed, hard, stride);
    pv_resizer *r = NULL;
    bool ok = CHECK_OK(pv_resizer_create(width, height, side, &r));
    if (ok) {
        memset(dst, 0x5A, (size_t)side * (size_t)side * 3);
        pv_resizer_run(r, src, stride, dst);
        every_level(r, src, stride, dst, (size_t)side * (size_t)side * 3);
    }
    pv_resizer_free(&r);
    free(src);
    return ok;
}

static void as_pillow(void)
{
    static uint8_t dst[224 * 224 * 3];
    for (size_t i = 0; i < COUNT(hashed); i++) {
        const struct hashed *c = &hashed[i];
        size_t n = (size_t)c->side * (size_t)c->side * 3;
        if (resize(c->width, c->height, c->side, (uint32_t)i, c->hard, 0, dst) &&
            !CHECK(fnv1a(dst, n) == c->hash))
            printf("    %d x %d -> %d\n", c->width, c->height, c->side);
        if (resize(c->width, c->height, c->side, (uint32_t)i, c->hard, 61, dst))
            CHECK(fnv1a(dst, n) == c->hash);
    }
    for (size_t i = 0; i < COUNT(whole); i++)
        if (resize(whole[i].width, whole[i].height, WHOLE_SIDE, (uint32_t)(1000 + whole[i].width), false, 3,
                   dst))
            CHECK(!memcmp(dst, whole[i].rgb, sizeof whole[i].rgb));
}

static void padding_is_black(void)
{
    static uint8_t dst[224 * 224 * 3];
    static const uint8_t black[224 * 3];
    CHECK(resize(640, 480, 224, 1, true, 0, dst)); /* 224 x 168: 28 rows above and below */
    CHECK(!memcmp(dst + 27 * sizeof black, black, sizeof black));
    CHECK(memcmp(dst + 28 * sizeof black, black, sizeof black));
    CHECK(memcmp(dst + 195 * sizeof black, black, sizeof black));
    CHECK(!memcmp(dst + 196 * sizeof black, black, sizeof black));
}

static void one_resizer_many_pictures(void)
{
    uint8_t first[56 * 56 * 3], again[56 * 56 * 3];
    uint8_t *a = picture(120, 90, 1, false, 360), *b = picture(120, 90, 2, true, 360);
    pv_resizer *r = NULL;
    CHECK_OK(pv_resizer_create(120, 90, 56, &r));
    CHECK(pv_resizer_fits(r, 120, 90, 56));
    CHECK(!pv_resizer_fits(r, 90, 120, 56));
    CHECK(!pv_resizer_fits(r, 120, 90, 57));
    CHECK(!pv_resizer_fits(NULL, 120, 90, 56));
    int64_t before = pv_alloc_count();
    pv_resizer_run(r, a, 360, first);
    pv_resizer_run(r, b, 360, again);
    CHECK(memcmp(first, again, sizeof first));
    pv_resizer_run(r, a, 360, again);
    CHECK(!memcmp(first, again, sizeof first));
    CHECK(pv_alloc_count() == before);
    pv_resizer_free(&r);
    CHECK(!r);
    pv_resizer_free(&r);
    free(a);
    free(b);
}

static void refusals(void)
{
    pv_resizer *r = NULL;
    CHECK_STATUS(pv_resizer_create(0, 10, 224, &r), PV_E_SHAPE);
    CHECK_STATUS(pv_resizer_create(10, -1, 224, &r), PV_E_SHAPE);
    CHECK_STATUS(pv_resizer_create(8193, 10, 224, &r), PV_E_SHAPE);
    CHECK_TEXT("8193 x 10");
    CHECK_STATUS(pv_resizer_create(8192, 36, 224, &r),
                 PV_E_SHAPE); /* under one row; PIL refuses it as well */
    CHECK_TEXT("224 x 0");
    CHECK_OK(pv_resizer_create(8192, 37, 224, &r));
    pv_resizer_free(&r);
    CHECK_STATUS(pv_resizer_create(10, 10, 0, &r), PV_E_ARG);
    CHECK_STATUS(pv_resizer_create(10, 10, 9000, &r), PV_E_ARG);
    CHECK(!r);
}

static int budget; /* allocations until there is no memory left */

static void *scarce(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return budget-- > 0 ? aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : NULL;
}

static void release(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static void no_memory(void)
{
    pv_allocator a = {sizeof a, NULL, scarce, release};
    CHECK_OK(pv_set_allocator(&a));
    pv_status st = PV_E_MEMORY;
    int n = 0;
    for (; st && n < 100; n++) {
        pv_resizer *r = NULL;
        budget = n;
        st = pv_resizer_create(100, 80, 56, &r);
        CHECK((st == PV_OK) == (r != NULL));
        CHECK(!st || st == PV_E_MEMORY);
        pv_resizer_free(&r);
        CHECK(!pv_alloc_live());
    }
    CHECK(!st && n > 5);
    CHECK_OK(pv_set_allocator(NULL));
}

int main(void)
{
    as_pillow();
    padding_is_black();
    one_resizer_many_pictures();
    refusals();
    no_memory();
    return test_done();
}
