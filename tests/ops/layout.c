/* layout.c - cast, concat, slice, row, store. */
#include "ops.h"

int test_layout(void)
{
    CHECK_OP(CAST, .in = {F32(9, 100)}, .out = {PV_BF16});
    CHECK_OP(CAST, .in = {F32(9, 100)}, .out = {PV_F16});
    CHECK_OP(CAST, .in = {BF16(9, 100)});
    CHECK_OP(CAST, .in = {{.dtype = PV_F16, .dim = {2, 9, 10}, .rows = 3, .counted = true}}, .out = {PV_BF16});
    CHECK_OP(CONCAT, .in = {F32(6, 10), F32(4, 10)});
    CHECK_OP(CONCAT, .in = {F32(6, 10), {.dim = {4, 10}, .rows = 3, .counted = true}, COUNT(9)});
    CHECK_OP(CONCAT, .in = {BF16(6, 10), {.dim = {4, 10}, .rows = -1, .counted = true}, COUNT(6)}, .out = {PV_F16});
    CHECK_OP(SLICE, .attr.range = {3, 5}, .in = {F32(7, 20)});
    CHECK_OP(SLICE, .attr.range = {0, 20}, .in = {{.dim = {7, 20}, .rows = 6, .counted = true}}, .out = {PV_BF16});
    CHECK_OP(SLICE, .attr.range = {19, 1}, .in = {BF16(3, 4, 20)});
    CHECK_OP(ROW, .in = {F32(10, 30), COUNT(0)});
    CHECK_OP(ROW, .in = {F32(10, 30), COUNT(9)}, .out = {PV_BF16});
    CHECK_OP(ROW, .in = {BF16(10, 3), COUNT(4)});
    CHECK_OP(STORE, .attr.range.first = 3, .in = {{.dim = {10, 8}, .state = true}, F32(5, 8)});
    CHECK_OP(STORE, .attr.range.first = 0,
             .in = {{.dtype = PV_BF16, .dim = {10, 8}, .state = true}, {.dim = {10, 8}, .rows = 4, .counted = true}});
    CHECK_OP(STORE, .attr.range.first = 9, .in = {{.dtype = PV_F16, .dim = {10, 8}, .state = true}, BF16(1, 8)});
    return test_done();
}
