/* embed.c - patchify. */
#include "ops.h"

int test_embed(void)
{
    CHECK_OP(PATCHIFY, .attr.patch.size = 14, .in = {F32(2, 3, 28, 28)});
    CHECK_OP(PATCHIFY, .attr.patch.size = 4, .in = {F32(1, 3, 8, 12)}, .out = {PV_BF16}); /* wider than high */
    CHECK_OP(PATCHIFY, .attr.patch.size = 1, .in = {F16(1, 1, 3, 3)});
    return test_done();
}
