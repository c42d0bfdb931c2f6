/* dtype.c - conversions of element types, over every bit pattern of the small formats and around every
 * rounding border. The judge is told nothing of the code under test: `decode` computes a pattern's value with
 * ldexp from the format's definition, `nearest` searches the table of these values for the one next to x, in
 * double, which holds them all. */
#include "base/dtype.h"
#include "base/memory.h"
#include "tests/test.h"

typedef struct format {
    const char *name;
    pv_dtype dtype;
    int exponent, mantissa;
    bool infinite; /* the largest exponent is infinity and NaN; else it counts like the others */
    int n;         /* finite magnitudes */
    double *value; /* [n + 1], rising: what magnitude k means; [n]: what would come next */
} format;

static format formats[] = {
    {"bf16", PV_BF16, 8, 7, true, 0x7f80, NULL},
    {"f16", PV_F16, 5, 10, true, 0x7c00, NULL},
    {"e4m3", PV_E4M3, 4, 3, false, 0x7f, NULL},
    {"e2m1", PV_E2M1, 2, 1, false, 8, NULL},
};
#define N_FORMATS (sizeof formats / sizeof formats[0])

static uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static double decode(const format *f, int magnitude)
{
    const int bias = (1 << (f->exponent - 1)) - 1, e = magnitude >> f->mantissa;
    const int m = magnitude & ((1 << f->mantissa) - 1);
    return e ? ldexp(m + (1 << f->mantissa), e - bias - f->mantissa) : ldexp(m, 1 - bias - f->mantissa);
}

static float widen(const format *f, uint32_t code)
{
    switch (f->dtype) {
    case PV_BF16:
        return pv_bf16_to_f32((uint16_t)code);
    case PV_F16:
        return pv_f16_to_f32((uint16_t)code);
    case PV_E4M3:
        return pv_e4m3_to_f32((uint8_t)code);
    default:
        return pv_e2m1_to_f32((uint8_t)code);
    }
}

static uint32_t narrow(const format *f, float x)
{
    switch (f->dtype) {
    case PV_BF16:
        return pv_f32_to_bf16(x);
    case PV_F16:
        return pv_f32_to_f16(x);
    case PV_E4M3:
        return pv_f32_to_e4m3(x);
    default:
        return pv_f32_to_e2m1(x);
    }
}

/* The magnitude that x >= 0 is to become. */
static int nearest(const format *f, double x)
{
    if (x >= f->value[f->n])
        return f->infinite ? f->n : f->n - 1;
    int lo = 0, hi = f->n;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (f->value[mid] <= x)
            lo = mid;
        else
            hi = mid;
    }
    const double below = x - f->value[lo], above = f->value[hi] - x; /* exact */
    const int k = below < above ? lo : above < below ? hi : lo % 2 ? hi : lo;
    return k == f->n && !f->infinite ? f->n - 1 : k;
}

static bool rounds(const format *f, float magnitude)
{
    const uint32_t sign = 1u << (f->exponent + f->mantissa), want = (uint32_t)nearest(f, magnitude);
    const uint32_t plus = narrow(f, magnitude), minus = narrow(f, -magnitude);
    if (plus == want && minus == (want | sign))
        return true;
    printf("    %s of %a: expected %x, came %x and %x\n", f->name, magnitude, want, plus, minus);
    return false;
}

static void every_pattern(format *f)
{
    const uint32_t sign = 1u << (f->exponent + f->mantissa);
    int wrong = 0;
    for (uint32_t code = 0; code < 2 * sign; code++) {
        const uint32_t magnitude = code & (sign - 1);
        const float x = widen(f, code), one = code & sign ? -1.0f : 1.0f;
        bool ok;
        if (magnitude < (uint32_t)f->n)
            ok = (double)x == one * f->value[magnitude] && !signbit(x) == !(code & sign) &&
                 narrow(f, x) == code;
        else if (f->infinite && magnitude == (uint32_t)f->n)
            ok = isinf(x) && !signbit(x) == !(code & sign) && narrow(f, x) == code;
        else /* NaN, and still one when it goes back */
            ok = isnan(x) && isnan(widen(f, narrow(f, x)));
        wrong += !ok;
    }
    printf("%s: %u patterns\n", f->name, 2 * sign);
    CHECK(wrong == 0);
}

static void every_border(format *f)
{
    int wrong = 0;
    for (int k = 0; k < f->n; k++) {
        /* The midpoints are f32 values: one bit more than the format has. */
        const float at[] = {(float)f->value[k], (float)((f->value[k] + f->value[k + 1]) / 2)};
        for (int i = 0; i < 2; i++) {
            wrong += !rounds(f, at[i]);
            wrong += !rounds(f, nextafterf(at[i], INFINITY));
            wrong += at[i] > 0 && !rounds(f, nextafterf(at[i], 0));
        }
    }
    CHECK(wrong == 0);
    const float extremes[] = {
        0,     0x1p-149f, 0x1p-126f,       448,     449, 464, 465, 480, 6, 7, 65504, 65519.996f,
        65520, 65536,     0x1.fffffep127f, INFINITY};
    for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++)
        CHECK(rounds(f, extremes[i]));
}

/* Every NaN with one mantissa bit, and all of them: none may become a number. e2m1 has none and answers 6. */
static void nans(const format *f)
{
    for (int i = 0; i <= 23; i++)
        for (uint32_t sign = 0; sign < 2; sign++) {
            const float nan = from_bits(sign << 31 | 0x7f800000 | (i < 23 ? 1u << i : 0x7fffff));
            const uint32_t code = narrow(f, nan);
            CHECK(f->dtype == PV_E2M1 ? widen(f, code) == 6 : isnan(widen(f, code)));
        }
}

/* Bulk equals scalar, bit for bit, at any length and any place in the buffer (vector bodies and their tails).
 */
static void bulk(const format *f)
{
    enum { N = 65536 + 40 };
    const size_t width = pv_dtype_bytes(f->dtype, 1);
    unsigned char *codes = pv_alloc(N * width), *back = pv_alloc(N * width);
    float *x = pv_alloc(N * sizeof *x);
    if (!CHECK(codes && back && x))
        exit(1);
    for (uint32_t i = 0; i < N; i++) {
        const uint16_t c = (uint16_t)i;
        if (width == 2)
            memcpy(codes + 2 * i, &c, 2);
        else
            codes[i] = (unsigned char)i;
    }
    const size_t lengths[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 33, 65536};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (size_t first = 0; first < 5; first++) {
            const size_t n = lengths[l];
            int wrong = 0;
            memset(x, 0x5a, N * sizeof *x);
            memset(back, 0x5a, N * width);
            pv_to_f32(x + first, codes + first * width, f->dtype, n);
            for (size_t i = first; i < first + n; i++) {
                uint16_t c = codes[i * width];
                if (width == 2)
                    memcpy(&c, codes + i * width, 2);
                wrong += bits(x[i]) != bits(widen(f, c));
            }
            wrong += bits(x[first + n]) != 0x5a5a5a5a;
            pv_from_f32(back + first * width, x + first, f->dtype, n);
            for (size_t i = first; i < first + n; i++) {
                uint16_t c = back[i * width];
                if (width == 2)
                    memcpy(&c, back + i * width, 2);
                wrong += c != narrow(f, x[i]);
            }
            wrong += back[(first + n) * width] != 0x5a;
            CHECK(wrong == 0);
        }
    /* From f32 that are no values of the format: odd bits below the ones kept, every exponent, both signs. */
    int wrong = 0;
    for (uint32_t i = 0; i < 65536; i++)
        x[i] = from_bits(i << 16 | (i * 2654435761u) >> 16);
    pv_from_f32(back, x, f->dtype, 65536);
    for (size_t i = 0; i < 65536; i++) {
        uint16_t c = back[i * width];
        if (width == 2)
            memcpy(&c, back + i * width, 2);
        wrong += c != narrow(f, x[i]);
    }
    CHECK(wrong == 0);
    pv_free(codes);
    pv_free(back);
    pv_free(x);
}

/* Two to a byte: all bytes, an odd number of elements, and what stands behind them. */
static void halves(void)
{
    uint8_t codes[256], back[257];
    float x[512];
    int wrong = 0;
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)i;
    pv_to_f32(x, codes, PV_E2M1, 512);
    for (int i = 0; i < 512; i++)
        wrong += memcmp(&x[i], &(float){pv_e2m1_to_f32((uint8_t)(i % 2 ? i / 2 >> 4 : i / 2 & 15))}, sizeof *x) != 0;
    CHECK(wrong == 0);
    memset(back, 0xa5, sizeof back);
    pv_from_f32(back, x, PV_E2M1, 512);
    CHECK(!memcmp(back, codes, 256) && back[256] == 0xa5);
    pv_from_f32(back, (const float[]){6, -0.5f, 1}, PV_E2M1, 3);
    CHECK(back[0] == 0x97 && back[1] == 0x02 && back[2] == 2);
}

static void f32_bulk(void)
{
    const float x[3] = {1, from_bits(0x7f800001), -0.0f};
    float y[3] = {0}, z[3] = {0};
    pv_to_f32(y, x, PV_F32, 3);
    pv_from_f32(z, y, PV_F32, 3);
    CHECK(memcmp(x, z, sizeof x) == 0);
    pv_to_f32(NULL, NULL, PV_F32, 0);
    pv_from_f32(NULL, NULL, PV_F32, 0);
}

/* A second witness for f16, where the compiler has the type (clang has it on x86-64 from 15 on). */
static void compiler_f16(void)
{
#if defined(__FLT16_MAX__) && (!defined(__clang__) || __clang_major__ >= 15)
    int wrong = 0;
    for (uint32_t u = 0; u < 0x7f800000; u += 509) { /* prime: every exponent, changing low bits */
        const _Float16 h = (_Float16)from_bits(u);
        uint16_t want;
        memcpy(&want, &h, sizeof want);
        wrong += want != pv_f32_to_f16(from_bits(u));
    }
    for (uint32_t c = 0; c < 0x7c00; c++) {
        const uint16_t code = (uint16_t)c;
        _Float16 h;
        memcpy(&h, &code, sizeof h);
        wrong += (float)h != pv_f16_to_f32(code);
    }
    CHECK(wrong == 0);
    printf("f16: compared with _Float16\n");
#endif
}

static void names(void)
{
    for (int i = 0; i < PV_DTYPE_COUNT; i++) {
        pv_dtype back = PV_DTYPE_COUNT;
        CHECK_OK(pv_dtype_parse(pv_dtype_name((pv_dtype)i), &back));
        CHECK(back == (pv_dtype)i);
    }
    pv_dtype none;
    CHECK_STATUS(pv_dtype_parse("F32", &none), PV_E_ARG);
    CHECK_TEXT("'F32'");
    CHECK(strcmp(pv_dtype_name(PV_BF16), "bf16") == 0);
    CHECK(strcmp(pv_dtype_name(PV_DTYPE_COUNT), "unknown dtype") == 0);
}

static void sizes(void)
{
    CHECK(pv_dtype_bytes(PV_F32, 3) == 12);
    CHECK(pv_dtype_bytes(PV_BF16, 3) == 6);
    CHECK(pv_dtype_bytes(PV_F16, 0) == 0);
    CHECK(pv_dtype_bytes(PV_E4M3, 3) == 3);
    CHECK(pv_dtype_bytes(PV_U8, SIZE_MAX) == SIZE_MAX);
    CHECK(pv_dtype_bytes(PV_E2M1, 4) == 2);
    CHECK(pv_dtype_bytes(PV_E2M1, 5) == 3);
    CHECK(pv_dtype_bytes(PV_E2M1, SIZE_MAX) == SIZE_MAX / 2 + 1);
    CHECK(pv_dtype_bytes(PV_F32, SIZE_MAX / 4 + 1) == SIZE_MAX);
    CHECK(pv_dtype_bytes(PV_I32, SIZE_MAX / 4) == SIZE_MAX / 4 * 4);
}

int main(void)
{
    for (size_t i = 0; i < N_FORMATS; i++) {
        format *f = &formats[i];
        f->value = pv_alloc((size_t)(f->n + 1) * sizeof *f->value);
        if (!CHECK(f->value != NULL))
            return test_done();
        for (int k = 0; k <= f->n; k++)
            f->value[k] = decode(f, k);
        every_pattern(f);
        every_border(f);
        nans(f);
        if (f->dtype != PV_E2M1)
            bulk(f);
        pv_free(f->value);
    }
    halves();
    f32_bulk();
    compiler_f16();
    names();
    sizes();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
