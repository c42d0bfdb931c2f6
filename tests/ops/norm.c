/* norm.c - rms_norm, layer_norm, ada_rms_norm. */
#include "ops.h"

int test_norm(void)
{
    const pv_attr eps = {.norm.eps = 1e-6f};
    CHECK_OP(RMS_NORM, .attr = eps, .in = {F32(1, 1)});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {F32(5, 17), F32(17)});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {F32(50, 1024), F32(1024)}, .out = {PV_BF16});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {BF16(3, 2048), BF16(2048)}, .out = {PV_F16});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {{.dim = {40, 96}, .rows = 31, .counted = true}, F32(96)});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {{.dim = {3, 40, 96}, .rows = 31, .counted = true}});
    CHECK_OP(LAYER_NORM, .attr = eps, .in = {F32(1, 1), F32(1), F32(1)});
    CHECK_OP(LAYER_NORM, .attr = eps, .in = {F32(7, 33), F32(33), F32(33)});
    CHECK_OP(LAYER_NORM, .attr = eps, .in = {F32(20, 1152), F32(1152), F32(1152)}, .out = {PV_BF16});
    CHECK_OP(LAYER_NORM, .attr = eps, .in = {{.dtype = PV_F16, .dim = {9, 72}, .rows = 2, .counted = true}, F16(72), BF16(72)});
    CHECK_OP(ADA_RMS_NORM, .attr = eps, .in = {F32(50, 128), F32(1, 384)});
    CHECK_OP(GATED_NORM, .attr = eps, .in = {F32(50, 128), BF16(50, 128), F32(1, 384), F32(1, 384)}, .out = {PV_F32, PV_BF16});
    CHECK_OP(GATED_NORM, .attr = eps, .in = {F32(10, 1024), F32(10, 1024), F32(3072), F32(3072)});
    CHECK_OP(GATED_NORM, .attr = eps, .in = {{.dim = {50, 33}, .rows = 49, .counted = true}, {.dim = {50, 33}, .rows = 49, .counted = true}, F32(99), F32(99)});
    CHECK_OP(EULER_STEP, .attr = eps, .in = {F32(50, 1024), F32(1, 3072), F32(32, 1024), F32(32), {.dim = {50, 32}, .state = true}, F32(1)});
    CHECK_OP(EULER_STEP, .attr = eps, .in = {F32(10, 1024), F32(3072), F32(7, 1024), F32(7), {.dim = {10, 7}, .state = true}, F32(1, 1)});
    CHECK_OP(EULER_STEP, .attr = eps, .in = {F32(3, 36), F32(108), F32(70, 36), F32(70), F32(3, 70), F32(1)});
    CHECK_OP(ADA_RMS_NORM, .attr = eps, .in = {{.dim = {50, 33}, .rows = 49, .counted = true}, F32(99)}, .out = {PV_BF16});
    /* the recipe bf16; rows that no vector divides, and wider than registers hold */
    CHECK_OP(RMS_NORM, .attr = eps, .in = {{.dim = {70, 2048}, .rows = 65, .counted = true}, F32(2048)},
             .out = {PV_BF16});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {BF16(2, 5000), F32(5000)}, .out = {PV_BF16});
    CHECK_OP(RMS_NORM, .attr = eps, .in = {F32(2, 2999)});
    CHECK_OP(LAYER_NORM, .attr = eps, .in = {BF16(2, 2400), BF16(2400), F32(2400)});
    CHECK_OP(ADA_RMS_NORM, .attr = eps, .in = {F32(50, 1024), F32(1, 3072)}, .out = {PV_BF16});
    CHECK_OP(ADA_RMS_NORM, .attr = eps, .in = {F32(20, 2056), F32(1, 6168)}, .out = {PV_BF16});
    CHECK_OP(ADA_RMS_NORM, .attr = eps,
             .in = {{.dtype = PV_BF16, .dim = {9, 40}, .rows = 8, .counted = true}, F32(120)});
    return test_done();
}
