/* embed.c - patchify. */
#include "ops.h"

/* Every level of a pixel, as numpy has it: np.float32(v) / 255 * 2 - 1; and where the three colours go. */
static void levels(void)
{
    uint8_t hwc[16 * 16 * 3];
    for (int i = 0; i < 16 * 16; i++) {
        hwc[i * 3] = (uint8_t)i;
        hwc[i * 3 + 1] = (uint8_t)(255 - i);
        hwc[i * 3 + 2] = 7;
    }
    const op_case whole = {.op = PV_OP_PATCHIFY, .attr.patch.size = 16, .in = {U8(1, 16, 16, 3)}};
    const void *in[] = {hwc};
    size_t bytes = 0;
    float *chw = op_run(&whole, 1, in, &bytes);
    if (!CHECK(chw && bytes == sizeof *chw * 3 * 256))
        return;
    CHECK(chw[0] == -1.0f && chw[255] == 1.0f && chw[256] == 1.0f && chw[511] == -1.0f);
    CHECK(chw[1] == -0.99215686f && chw[127] == -0.0039215684f && chw[128] == 0.003921628f);
    CHECK(chw[512] == chw[7] && chw[767] == chw[7]);
    int mirrored = 0;
    for (int i = 0; i < 256; i++)
        mirrored += chw[i] == chw[256 + 255 - i];
    CHECK(mirrored == 256);
    free(chw);
}

int test_embed(void)
{
    CHECK_OP(PATCHIFY, .attr.patch.size = 14, .in = {U8(2, 28, 28, 3)});
    CHECK_OP(PATCHIFY, .attr.patch.size = 4, .in = {U8(1, 8, 12, 3)}, .out = {PV_BF16}); /* wider than high */
    CHECK_OP(PATCHIFY, .attr.patch.size = 1, .in = {U8(1, 3, 3, 1)}, .out = {PV_F16});
    levels();
    return test_done();
}
