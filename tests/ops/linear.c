/* linear.c - products: shapes inside and across panels, weights of every dtype, and the fused forms of fuse.c. */
#include "backends/cpu/cpu.h"
#include "ops.h"

/* Weights of other dtypes with the same values: the same bytes out. 8-bit integers fit all three. */
static void same_values(int64_t m, int64_t n, int64_t k)
{
    static const pv_dtype dtypes[] = {PV_F32, PV_BF16, PV_F16};
    float *w = malloc(sizeof *w * (size_t)(n * k));
    void *stored = malloc(sizeof *w * (size_t)(n * k)), *want = NULL;
    for (int64_t i = 0; i < n * k; i++)
        w[i] = (float)((i * 7919) % 255 - 127) / 64.0f;
    for (int d = 0; d < 3; d++) {
        size_t bytes;
        pv_from_f32(stored, w, dtypes[d], (size_t)(n * k));
        op_case c = {.op = PV_OP_LINEAR, .in = {F32(m, k), {.dtype = dtypes[d], .dim = {n, k}}, F32(n)}};
        void *got = op_run(&c, 5, (const void *[PV_MAX_IN]){NULL, stored}, &bytes);
        CHECK(got && (!want || !memcmp(got, want, bytes)));
        if (want)
            free(got);
        else
            want = got;
    }
    free(want);
    free(stored);
    free(w);
}

/* OpenBLAS beside the loops, within the rounding of f32: terms of magnitude 1, see oracle.c on sums. */
static void blas_beside_loops(bool b_rows, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    float *a = malloc(sizeof *a * (size_t)(m * k + 1)), *b = malloc(sizeof *b * (size_t)(n * k + 1));
    float *x = malloc(sizeof *x * (size_t)(m * n)), *y = malloc(sizeof *y * (size_t)(m * n));
    for (int64_t i = 0; i < m * k; i++)
        a[i] = sinf((float)i);
    for (int64_t i = 0; i < n * k; i++)
        b[i] = cosf((float)(3 * i));
    for (int64_t i = 0; i < m * n; i++)
        x[i] = beta != 0 ? sinf((float)(i * i)) : NAN; /* beta 0: what was there does not count */
    int64_t ldb = b_rows ? k : n;
    cpu_gemm(cpu_vector_best(), b_rows, m, n, k, alpha, a, k, b, ldb ? ldb : 1, beta, x, n);
    double worst = 0, bound = 2 * (4 + 3 * sqrt((double)k)) * 0x1p-24 * ((double)k * fabs((double)alpha) + fabs((double)beta));
    for (int level = 0; cpu_vector_list(level); level++) {
        for (int64_t i = 0; i < m * n; i++)
            y[i] = beta != 0 ? sinf((float)(i * i)) : NAN;
        cpu_vector_list(level)->gemm(b_rows, m, n, k, alpha, a, k, b, ldb ? ldb : 1, beta, y, n);
        for (int64_t i = 0; i < m * n; i++)
            worst = isnan(x[i]) || isnan(y[i]) ? INFINITY : fmax(worst, fabs((double)x[i] - (double)y[i]));
        if (!CHECK(worst <= bound))
            printf("    %s, m %lld n %lld k %lld: %g, bound %g\n", cpu_vector_list(level)->level, (long long)m,
                   (long long)n, (long long)k, worst, bound);
    }
    free(a), free(b), free(x), free(y);
}

int test_linear(void)
{
    /* one, few and many rows; outputs that no panel divides; features beyond one panel of both kinds */
    CHECK_OP(LINEAR, .in = {F32(1, 1), F32(1, 1)});
    CHECK_OP(LINEAR, .in = {F32(1, 64), F32(64, 64), F32(64)});
    CHECK_OP(LINEAR, .in = {F32(50, 32), F32(1024, 32), F32(1024)}); /* an action made a token */
    CHECK_OP(LINEAR, .in = {F32(9, 36), F32(130, 36)});
    CHECK_OP(LINEAR, .in = {F32(3, 17), F32(5, 17), F32(5)});
    CHECK_OP(LINEAR, .in = {F32(50, 32), F32(1024, 32), F32(1024)});
    CHECK_OP(LINEAR, .in = {F32(50, 1024), F32(32, 1024), F32(32)});
    CHECK_OP(LINEAR, .in = {F32(50, 1100), F32(515, 1100)});
    CHECK_OP(LINEAR, .in = {BF16(50, 1030), BF16(130, 1030), BF16(130)}, .out = {PV_BF16});
    CHECK_OP(LINEAR, .in = {BF16(256, 1152), BF16(384, 1152), BF16(384)}, .out = {PV_BF16});
    CHECK_OP(LINEAR, .in = {F32(260, 2100), BF16(70, 2100), F32(70)});
    CHECK_OP(LINEAR, .in = {F32(256, 2048), F16(65, 2048)});
    CHECK_OP(LINEAR, .in = {F32(968, 96), BF16(200, 96)});
    CHECK_OP(LINEAR, .in = {F16(7, 40), F16(9, 40), F16(9)}, .out = {PV_F16});
    CHECK_OP(LINEAR, .in = {F32(2, 9, 24), F32(31, 24)}); /* matrices one after the other */
    /* counted rows */
    CHECK_OP(LINEAR, .in = {{.dim = {20, 33}, .rows = 13, .counted = true}, F32(65, 33), F32(65)});
    CHECK_OP(LINEAR, .in = {{.dim = {300, 40}, .rows = 1, .counted = true}, BF16(130, 40)}, .out = {PV_BF16});
    CHECK_OP(LINEAR, .in = {{.dtype = PV_BF16, .dim = {300, 40}, .rows = 299, .counted = true}, BF16(130, 40)});
    CHECK_OP(LINEAR, .in = {{.dim = {8, 8}, .rows = -1, .counted = true}, F32(8, 8)});

    CHECK_OP(LINEAR_GROUP, .in = {F32(50, 64), F32(128, 64), F32(16, 64), F32(16, 64)}, .attr.group.n = 3);
    CHECK_OP(LINEAR_GROUP, .in = {BF16(50, 1024), BF16(256, 1024), BF16(256, 1024)}, .attr.group.n = 2, .out = {PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {F32(9, 20), BF16(30, 20), BF16(7, 20), F32(30), F32(7)}, .attr.group.n = 2,
             .out = {PV_BF16, PV_BF16});
    /* with tiles for Hopper's tensor instructions: parts of different widths, a border inside a tile, rows and features that fill
     * none, an odd number of row tiles */
    CHECK_OP(LINEAR_GROUP, .in = {BF16(256, 128), BF16(192, 128), BF16(192, 128), BF16(192, 128), BF16(192), BF16(192), BF16(192)},
             .attr.group.n = 3, .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(300, 264), BF16(512, 264), BF16(64, 264), BF16(128, 264)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(968, 72), BF16(1152, 72), BF16(64, 72), BF16(1152), BF16(64)}, .attr.group.n = 2,
             .out = {PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {{.dtype = PV_BF16, .dim = {200, 1160}, .rows = 130, .counted = true}, BF16(64, 1160),
                                  BF16(128, 1160)}, .attr.group.n = 2, .out = {PV_BF16, PV_BF16});
    /* of the two kernels that do it, and their tiles, with 132 multiprocessors: pairs of 160; 96; pairs of 160; in two rounds; pairs of 128,
     * and of 192 */
    CHECK_OP(LINEAR_GROUP, .in = {BF16(768, 72), BF16(1152, 72), BF16(1152, 72), BF16(1152, 72), BF16(1152), BF16(1152), BF16(1152)},
             .attr.group.n = 3, .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {ROUGH(PV_BF16, 768, 72), BF16(1152, 72), BF16(1152, 72), BF16(1152, 72), BF16(1152), BF16(1152), BF16(1152)},
             .attr.group.n = 3, .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(532, 328), BF16(2048, 328), BF16(256, 328), BF16(256, 328)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(968, 72), BF16(2048, 72), BF16(256, 72), BF16(256, 72)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(1700, 40), BF16(2048, 40), BF16(256, 40), BF16(256, 40)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {ROUGH(PV_BF16, 1700, 40), BF16(2048, 40), BF16(256, 40), BF16(256, 40)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(500, 72), BF16(1152, 72), BF16(1152, 72), BF16(1152, 72)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    CHECK_OP(LINEAR_GROUP, .in = {BF16(1000, 40), BF16(2048, 40), BF16(512, 40), BF16(512, 40)}, .attr.group.n = 3,
             .out = {PV_BF16, PV_BF16, PV_BF16});
    const pv_attr narrow = {.linear_geglu.between = PV_BF16}, exact = {.linear_geglu.between = PV_F32};
    CHECK_OP(LINEAR_GEGLU, .attr = exact, .in = {F32(50, 48), F32(33, 48), F32(33, 48)});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(9, 40), BF16(24, 40), F32(24, 40)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(256, 128), BF16(384, 128), BF16(384, 128)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(700, 328), BF16(2304, 328), BF16(2304, 328)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(300, 200), BF16(384, 200), BF16(384, 200)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow,
             .in = {{.dtype = PV_BF16, .dim = {200, 72}, .rows = 131, .counted = true}, BF16(128, 72), BF16(128, 72)},
             .out = {PV_BF16});
    /* its tiles of each height: with 132 multiprocessors 136 rows, two tiles a block; 144 rows, columns that fill no tile; 128 */
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(532, 72), BF16(8192, 72), BF16(8192, 72)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {ROUGH(PV_BF16, 532, 72), BF16(8192, 72), BF16(8192, 72)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(712, 136), BF16(3312, 136), BF16(3312, 136)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GEGLU, .attr = narrow, .in = {BF16(260, 328), BF16(144, 328), BF16(144, 328)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_ADD, .in = {F32(50, 48), F32(33, 48), F32(50, 33)});
    CHECK_OP(LINEAR_ADD, .in = {{.dim = {12, 8}, .rows = 5, .counted = true}, BF16(9, 8),
                                {.dim = {12, 9}, .rows = 5, .counted = true}, F32(9)});
    CHECK_OP(LINEAR_ADD, .in = {BF16(50, 1030), BF16(130, 1030), F32(50, 130), F32(130)});
    CHECK_OP(LINEAR_ADD, .in = {BF16(96, 1024), BF16(256, 1024), F32(96, 256)});
    CHECK_OP(LINEAR_ADD, .in = {ROUGH(PV_BF16, 96, 1024), BF16(256, 1024), ROUGH(PV_F32, 96, 256)});
    /* parts of k by Hopper's instructions, with 132 multiprocessors: three of 24 pairs of tiles */
    CHECK_OP(LINEAR_ADD, .in = {BF16(200, 6152), BF16(5000, 6152), F32(200, 5000)});
    /* four, tiles of 136 and of 144 rows: the way back of the prefix's MLP */
    CHECK_OP(LINEAR_ADD, .in = {BF16(532, 16384), BF16(2048, 16384), ROUGH(PV_F32, 532, 2048)});
    CHECK_OP(LINEAR_ADD, .in = {ROUGH(PV_BF16, 560, 8200), BF16(2048, 8200), F32(560, 2048)});
    CHECK_OP(LINEAR_ADD, .in = {BF16(9, 64), BF16(48, 64), F32(9, 48), BF16(48)});
    CHECK_OP(LINEAR_ADD, .in = {BF16(9, 64), BF16(48, 64), BF16(9, 48), F32(48)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {F32(50, 48), F32(33, 48), F32(33)});
    CHECK_OP(LINEAR_GELU, .in = {F32(7, 40), BF16(24, 40)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {BF16(256, 576), BF16(200, 576), BF16(200)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {BF16(64, 2048), BF16(128, 2048)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {BF16(50, 1030), BF16(130, 1030), F32(130)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {BF16(765, 72), BF16(4304, 72), BF16(4304)}, .out = {PV_BF16}); /* tiles for Hopper's instructions */
    CHECK_OP(LINEAR_GELU, .in = {ROUGH(PV_BF16, 765, 72), BF16(4304, 72), BF16(4304)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {BF16(500, 328), BF16(4304, 328), BF16(4304)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GELU, .in = {{.dtype = PV_BF16, .dim = {12, 16}, .rows = 5, .counted = true}, BF16(24, 16), F32(24)});
    CHECK_OP(LINEAR_GATED, .in = {F32(50, 48), F32(33, 48), F32(50, 33), F32(1, 99)});
    CHECK_OP(LINEAR_GATED, .in = {F32(6, 16), BF16(8, 16), F32(6, 8), F32(1, 24), F32(8)}, .out = {PV_BF16});

    /* what a device with matrices of f16 alone multiplies by them: lengths around their sizes, every form, parts of k */
    static const int64_t lengths[] = {1, 15, 16, 17, 63, 64, 65, 129};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int64_t l = lengths[i];
        CHECK_OP(LINEAR, .in = {F16(l, 48), F16(40, 48), F16(40)}, .out = {PV_F16});
        CHECK_OP(LINEAR, .in = {F16(20, 72), F16(l, 72)});
        CHECK_OP(LINEAR, .in = {F16(9, 8 * l), F16(30, 8 * l), F32(30)});
        CHECK_OP(LINEAR, .in = {BF16(l, 48), BF16(40, 48), BF16(40)}, .out = {PV_BF16});
        CHECK_OP(LINEAR, .in = {BF16(20, 72), BF16(l, 72)});
        CHECK_OP(LINEAR, .in = {BF16(9, 8 * l), BF16(30, 8 * l), F32(30)});
    }
    const pv_attr half = {.linear_geglu.between = PV_F16};
    CHECK_OP(LINEAR_GROUP, .in = {F16(50, 1024), F16(256, 1024), F16(64, 1024), F16(72, 1024)}, .attr.group.n = 3,
             .out = {PV_F16, PV_F16, PV_F32});
    CHECK_OP(LINEAR_GEGLU, .attr = half, .in = {F16(50, 256), F16(200, 256), F16(200, 256)}, .out = {PV_F16});
    CHECK_OP(LINEAR_GEGLU, .attr = exact, .in = {F16(130, 72), F16(136, 72), F16(136, 72)});
    CHECK_OP(LINEAR_ADD, .in = {F16(50, 1024), F16(130, 1024), F32(50, 130), F32(130)});
    CHECK_OP(LINEAR_GELU, .in = {F16(80, 136), F16(77, 136), F16(77)}, .out = {PV_BF16});
    CHECK_OP(LINEAR_GATED, .in = {F16(50, 2048), F16(64, 2048), F32(50, 64), F32(1, 192)});
    CHECK_OP(LINEAR_GATED, .in = {BF16(50, 2048), BF16(64, 2048), F32(50, 64), F32(1, 192)});
    const pv_attr eps = {.norm.eps = 1e-6f};
    CHECK_OP(LINEAR_GATED_NORM, .attr = eps, .in = {F32(50, 48), F32(33, 48), F32(50, 33), F32(1, 99), F32(1, 99)});
    CHECK_OP(LINEAR_GATED_NORM, .attr = eps, .in = {F16(30, 1024), F16(132, 1024), F32(30, 132), F32(1, 396), F32(1, 396)},
             .out = {PV_F32, PV_F16});
    CHECK_OP(LINEAR_GATED_NORM, .attr = eps, .in = {BF16(50, 2048), BF16(1024, 2048), F32(50, 1024), F32(1, 3072), F32(1, 3072)},
             .out = {PV_F32, PV_BF16});
    const pv_attr layer = {.linear_add_norm = {1e-6f, true}}, rms = {.linear_add_norm = {1e-6f, false}};
    CHECK_OP(LINEAR_ADD_NORM, .attr = layer, .in = {F32(50, 48), F32(33, 48), F32(50, 33), F32(33), F32(33), F32(33)});
    CHECK_OP(LINEAR_ADD_NORM, .attr = rms, .in = {F32(50, 48), F32(33, 48), F32(50, 33), F32(33)}, .out = {PV_F32, PV_BF16});
    CHECK_OP(LINEAR_ADD_NORM, .attr = rms, .in = {BF16(30, 1024), BF16(132, 1024), F32(30, 132), F32(132), BF16(132)}, .out = {PV_F32, PV_BF16});
    CHECK_OP(LINEAR_ADD_NORM, .attr = layer, .in = {F16(50, 72), F16(36, 72), F32(50, 36), F16(36), F32(36)}, .out = {PV_F32, PV_F16});
    /* many rows, in parts of k: of SigLIP's widths; counted */
    CHECK_OP(LINEAR_ADD_NORM, .attr = layer, .in = {BF16(256, 1152), BF16(1152, 1152), F32(256, 1152), F32(1152), BF16(1152), F32(1152)},
             .out = {PV_F32, PV_BF16});
    CHECK_OP(LINEAR_ADD_NORM, .attr = rms,
             .in = {{.dtype = PV_F16, .dim = {130, 600}, .rows = 77, .counted = true}, F16(132, 600),
                    {.dim = {130, 132}, .rows = 77, .counted = true}, F32(132)}, .out = {PV_F32, PV_F16});
    CHECK_OP(LINEAR, .in = {{.dtype = PV_F16, .dim = {200, 40}, .rows = 131, .counted = true}, F16(130, 40)}, .out = {PV_F16});

    same_values(50, 70, 1100);
    same_values(300, 520, 2100);
    same_values(2, 5, 7);
    for (int b_rows = 0; b_rows < 2; b_rows++) {
        blas_beside_loops(b_rows, 1, 1, 1, 1, 0);
        blas_beside_loops(b_rows, 33, 65, 129, 1, 0);
        blas_beside_loops(b_rows, 968, 64, 72, 0.125f, 0);
        blas_beside_loops(b_rows, 50, 256, 552, 1, 1);
        blas_beside_loops(b_rows, 200, 200, 0, 1, 0); /* nothing to add up: zeros */
    }
    return test_done();
}
