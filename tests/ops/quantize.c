/* quantize.c - numbers of few bits: scales, conversions, and the products that take them. Scales are of either sign and, with
 * some fills, 0: a quotient is then infinite, so those cases keep to fills without it. */
#include "ops.h"

#define E4M3(...) {.dtype = PV_E4M3, .dim = {__VA_ARGS__}}
#define E2M1(...) {.dtype = PV_E2M1, .dim = {__VA_ARGS__}}

static const unsigned some = 1u << FILL_RANDOM | 1u << FILL_HUGE | 1u << FILL_OUTLIERS;

/* What e4m3 holds and f32 adds up exactly comes out exactly: small whole numbers, powers of two as scales. */
static void exact(pv_op op, pv_dtype few, pv_dtype blocks, int64_t m, int64_t n, int64_t k)
{
    float *x = malloc(sizeof *x * (size_t)(m * k)), *w = malloc(sizeof *w * (size_t)(n * k));
    int64_t n_blocks = blocks == PV_F32 ? 1 : n * (k / 32);
    float *b = malloc(sizeof *b * (size_t)n_blocks), quarter = 0.25f;
    void *stored[3] = {malloc(sizeof *x * (size_t)(m * k)), malloc(sizeof *w * (size_t)(n * k)), malloc(sizeof *b * (size_t)n_blocks)};
    for (int64_t i = 0; i < m * k; i++)
        x[i] = (float)(i * 7 % 31 - 15);
    for (int64_t i = 0; i < n * k; i++)
        w[i] = (float)((i * 5 + i / k) % 7 - 3);
    for (int64_t i = 0; i < n_blocks; i++)
        b[i] = n_blocks == 1 ? 2.0f : (float)(1 << i % 4);
    pv_dtype x_dtype = op == PV_OP_LINEAR_SCALED ? few : PV_BF16;
    pv_from_f32(stored[0], x, x_dtype, (size_t)(m * k));
    pv_from_f32(stored[1], w, few, (size_t)(n * k));
    pv_from_f32(stored[2], b, blocks, (size_t)n_blocks);
    op_case c = {.op = op, .in = {{.dtype = x_dtype, .dim = {m, k}}, {.dtype = few, .dim = {n, k}}, F32(1, 1), F32(1, 1)}};
    if (n_blocks > 1)
        c.in[2] = (op_in){.dtype = blocks, .dim = {n, k / 32}};
    size_t bytes;
    float *y = op_run(&c, 1, (const void *[PV_MAX_IN]){stored[0], stored[1], stored[2], &quarter}, &bytes);
    int wrong = !y;
    for (int64_t at = 0; y && at < m * n; at++) {
        double want = 0;
        for (int64_t i = 0; i < k; i++)
            want += (double)x[at / n * k + i] * (double)w[at % n * k + i] *
                    (double)b[n_blocks > 1 ? at % n * (k / 32) + i / 32 : 0] * 0.25;
        wrong += (double)y[at] != want;
    }
    CHECK(wrong == 0);
    free(x), free(w), free(b), free(y), free(stored[0]), free(stored[1]), free(stored[2]);
}

/* Every number that e4m3 has, by a scale and back: the same bits, and what lies beyond it is the largest. */
static void there_and_back(void)
{
    float x[256], scale = 0.5f;
    uint8_t codes[256];
    size_t bytes;
    for (int i = 0; i < 256; i++) {
        codes[i] = (uint8_t)((i & 0x7f) == 0x7f ? i - 1 : i); /* no NaN */
        x[i] = pv_e4m3_to_f32(codes[i]) * scale;
    }
    op_case to = {.op = PV_OP_QUANTIZE, .in = {F32(4, 64), F32(1, 1)}, .out = {PV_E4M3}};
    uint8_t *q = op_run(&to, 1, (const void *[PV_MAX_IN]){x, &scale}, &bytes);
    CHECK(q && bytes == 256 && !memcmp(q, codes, 256));
    op_case back = {.op = PV_OP_DEQUANTIZE, .in = {E4M3(4, 64), F32(1, 1)}};
    float *y = op_run(&back, 1, (const void *[PV_MAX_IN]){codes, &scale}, &bytes);
    CHECK(y && !memcmp(y, x, sizeof x));
    free(q), free(y);
    for (int i = 0; i < 256; i++)
        x[i] = i % 2 ? -1e30f : 225.0f;
    q = op_run(&to, 1, (const void *[PV_MAX_IN]){x, &scale}, &bytes);
    CHECK(q && q[0] == 0x7e && q[1] == 0xfe);
    free(q);
}

int test_quantize(void)
{
    const pv_attr e4m3 = {.scale_for.dtype = PV_E4M3}, e2m1 = {.scale_for.dtype = PV_E2M1};
    CHECK_OP(SCALE_FOR, .attr = e4m3, .in = {F32(50, 64)});
    CHECK_OP(SCALE_FOR, .attr = e4m3, .in = {BF16(968, 2048)});
    CHECK_OP(SCALE_FOR, .attr = e2m1, .in = {F16(3, 7)});
    CHECK_OP(SCALE_FOR, .attr = e4m3, .in = {F32(2, 5, 24)}, .out = {PV_BF16});
    CHECK_OP(SCALE_FOR, .attr = e4m3, .in = {{.dtype = PV_BF16, .dim = {1, 8}, .rows = -1, .counted = true}}); /* none: 1 */

    CHECK_OP(QUANTIZE, .in = {F32(50, 64), F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(QUANTIZE, .in = {BF16(50, 1024), F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(QUANTIZE, .in = {F16(9, 77), F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(QUANTIZE, .in = {F32(8, 96), F32(4, 3)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(QUANTIZE, .in = {BF16(6, 32), BF16(6, 1)}, .out = {PV_BF16}, .fills = some);
    CHECK_OP(QUANTIZE, .in = {{.dtype = PV_BF16, .dim = {20, 48}, .rows = 13, .counted = true}, F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(DEQUANTIZE, .in = {E4M3(50, 64), F32(1, 1)});
    CHECK_OP(DEQUANTIZE, .in = {E2M1(33, 96), E4M3(33, 3)}, .out = {PV_BF16});
    CHECK_OP(DEQUANTIZE, .in = {E2M1(4, 1024), F32(2, 8)});
    CHECK_OP(DEQUANTIZE, .in = {F32(9, 77), F32(1, 1)});
    CHECK_OP(DEQUANTIZE, .in = {BF16(6, 8), BF16(1, 8)}, .out = {PV_F16});
    CHECK_OP(DEQUANTIZE, .in = {{.dtype = PV_E4M3, .dim = {20, 48}, .rows = 13, .counted = true}, F32(1, 1)}, .out = {PV_BF16});

    CHECK_OP(LINEAR, .in = {E4M3(50, 64), E4M3(48, 64)});
    CHECK_OP(LINEAR, .in = {BF16(7, 1100), E2M1(33, 1100)});
    CHECK_OP(LINEAR_SCALED, .in = {E4M3(50, 64), E4M3(48, 64), F32(1, 1), F32(1, 1)});
    CHECK_OP(LINEAR_SCALED, .in = {E4M3(50, 1024), E4M3(256, 1024), F32(1, 1), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_SCALED, .in = {E4M3(17, 4096), E4M3(64, 4096), F32(1, 1), F32(1, 1)}, .out = {PV_F16});
    CHECK_OP(LINEAR_SCALED, .in = {E4M3(300, 272), E4M3(160, 272), F32(1, 1), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_SCALED, .in = {F32(5, 20), BF16(7, 20), F32(1, 1), F32(1, 1)});
    CHECK_OP(LINEAR_SCALED, .in = {{.dtype = PV_E4M3, .dim = {20, 64}, .rows = 13, .counted = true}, E4M3(32, 64), F32(1, 1), F32(1, 1)});
    /* tiles of the kernel for 4 bits: one and several of 64 rows and of 128, columns that fill none, one piece of K and more */
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(50, 512), E2M1(64, 512), E4M3(64, 16), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(1, 128), E2M1(8, 128), E4M3(8, 4), F32(1, 1)});
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(64, 1152), E2M1(200, 1152), E4M3(200, 36), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(33, 1024), E2M1(1032, 1024), E4M3(1032, 32), F32(1, 1)}, .out = {PV_F16});
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(65, 256), E2M1(72, 256), E4M3(72, 8), F32(1, 1)});
    CHECK_OP(LINEAR_BLOCKS, .in = {BF16(300, 640), E2M1(264, 640), E4M3(264, 20), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_BLOCKS, .in = {F32(9, 64), E2M1(10, 64), F32(5, 4), F32(1, 1)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_BLOCKS, .in = {{.dtype = PV_BF16, .dim = {80, 256}, .rows = 61, .counted = true}, E2M1(64, 256), E4M3(64, 8), F32(1, 1)});
    CHECK_OP(GEGLU_QUANTIZE, .in = {BF16(50, 4096), BF16(50, 4096), F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(GEGLU_QUANTIZE, .in = {F32(9, 77), F32(9, 77), F32(1, 1)}, .out = {PV_E4M3}, .fills = some);
    CHECK_OP(GEGLU_QUANTIZE, .in = {{.dtype = PV_F16, .dim = {20, 48}, .rows = 13, .counted = true}, F16(20, 48), F32(1, 1)}, .out = {PV_BF16},
             .fills = some);

    CHECK_OP(TRANSPOSE, .attr.transpose = {8, 50}, .in = {BF16(400, 32)}, .out = {PV_BF16});
    CHECK_OP(TRANSPOSE, .attr.transpose = {50, 8}, .in = {F32(50, 256)}, .out = {PV_F16});
    CHECK_OP(TRANSPOSE, .attr.transpose = {5, 7}, .in = {F16(5, 21)});
    CHECK_OP(TRANSPOSE, .attr.transpose = {1, 9}, .in = {F32(9, 3)});

    exact(PV_OP_LINEAR_SCALED, PV_E4M3, PV_F32, 50, 48, 1024);
    exact(PV_OP_LINEAR_BLOCKS, PV_E2M1, PV_E4M3, 9, 40, 256);
    there_and_back();
    return test_done();
}
