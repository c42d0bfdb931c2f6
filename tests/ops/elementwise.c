/* elementwise.c - add, mul, scale, gelu, silu, axpy, and the composites of them. */
#include "ops.h"

int test_elementwise(void)
{
    CHECK_OP(ADD, .in = {F32(7, 33), F32(7, 33)});
    CHECK_OP(ADD, .in = {F32(3, 8, 16), F32(8, 16)}, .out = {PV_BF16}); /* repeats along the first */
    CHECK_OP(ADD, .in = {BF16(7, 33), F16(33)}, .out = {PV_F16});
    CHECK_OP(ADD, .in = {{.dim = {9, 5}, .rows = 4, .counted = true}, {.dim = {9, 5}, .rows = 4, .counted = true}});
    CHECK_OP(ADD, .in = {{.dim = {2, 9, 5}, .rows = 4, .counted = true}, F32(1, 5)});
    CHECK_OP(ADD, .in = {F32(300, 1152), F32(100, 1152)}); /* many tasks */
    CHECK_OP(MUL, .in = {F32(7, 33), F32(7, 33)});
    CHECK_OP(MUL, .in = {{.dtype = PV_BF16, .dim = {50, 64}, .rows = 1, .counted = true}, F32(64)}, .out = {PV_BF16});
    CHECK_OP(SCALE, .attr.scale.factor = 45.254834f, .in = {F32(5, 77)});
    CHECK_OP(SCALE, .attr.scale.factor = -0.5f, .in = {{.dtype = PV_F16, .dim = {5, 77}, .rows = 2, .counted = true}});
    CHECK_OP(GELU, .in = {F32(11, 100)});
    CHECK_OP(GELU, .in = {{.dtype = PV_BF16, .dim = {60, 333}, .rows = 59, .counted = true}}, .out = {PV_BF16});
    CHECK_OP(SILU, .in = {F32(1, 1024)});
    CHECK_OP(SILU, .in = {F16(3, 5)}, .out = {PV_F16});
    CHECK_OP(AXPY, .in = {{.dim = {50, 32}, .state = true}, F32(1, 1), F32(50, 32)});
    CHECK_OP(AXPY, .in = {{.dtype = PV_BF16, .dim = {50, 32}, .state = true}, F32(1), BF16(50, 32)});
    CHECK_OP(AXPY, .in = {F32(3, 4, 5), F32(1, 1), F32(3, 4, 5)}, .out = {PV_BF16}); /* no state: every matrix */
    CHECK_OP(GATED_RESIDUAL, .in = {F32(50, 40), F32(50, 40), F32(1, 120)});
    CHECK_OP(GATED_RESIDUAL, .in = {{.dim = {50, 40}, .rows = 7, .counted = true}, {.dim = {50, 40}, .rows = 7, .counted = true},
                                    F32(120)}, .out = {PV_BF16});
    CHECK_OP(GATED_RESIDUAL, .in = {F32(50, 1024), BF16(50, 1024), F32(1, 3072)}); /* the recipe bf16 */
    CHECK_OP(GATED_RESIDUAL, .in = {{.dim = {50, 72}, .rows = 49, .counted = true},
                                    {.dtype = PV_BF16, .dim = {50, 72}, .rows = 49, .counted = true},
                                    F32(216)});
    CHECK_OP(GEGLU,
             .in = {{.dtype = PV_BF16, .dim = {17, 264}, .rows = 16, .counted = true},
                    {.dtype = PV_BF16, .dim = {17, 264}, .rows = 16, .counted = true}},
             .out = {PV_BF16});
    CHECK_OP(GEGLU, .in = {BF16(2, 4096), F32(2, 4096)});
    CHECK_OP(GEGLU, .in = {F32(50, 40), F32(50, 40)});
    CHECK_OP(GEGLU, .in = {BF16(5, 400), BF16(5, 400)}, .out = {PV_BF16});
    return test_done();
}
