/* embed.comp - patchify: u8 pictures [., m, n, k] (height, width, channels) -> rows [., k patch patch] in the order of the patch
 * convolution's weight (channel, row, column); patch: first. One thread two elements of the result. A pixel v becomes v / 255 * 2 - 1,
 * each step rounded to f32 as openpi does: the quotient is made of whole numbers, since a device need not divide exactly. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

/* v / 255, rounded to nearest: no quotient lies between two numbers, 255 is odd. */
float two_hundred_fifty_fifths(uint v)
{
    if (v == 0u)
        return 0.0;
    uint e = 0u;
    while (v << e < 255u)
        e++;
    uint m = ((v << 23u + e) + 127u) / 255u; /* 2^23 .. 2^24 */
    return uintBitsToFloat((127u - e << 23) + (m - 0x800000u));
}

float result(uint e)
{
    uint patch_size = push.first, area = patch_size * patch_size, across = push.n / patch_size, down = push.m / patch_size;
    uint row = e / push.width, column = e % push.width;
    uint channel = column / area, y = column % area / patch_size, x = column % patch_size;
    uint picture = row / (across * down), place = row % (across * down);
    uint py = place / across * patch_size + y, px = place % across * patch_size + x;
    uint from = ((picture * push.m + py) * push.n + px) * push.k + channel;
    uint v = in0[from >> 2] >> (from & 3u) * 8u & 0xffu;
    return two_hundred_fifty_fifths(v) * 2.0 - 1.0;
}

void main()
{
    uint e = 2u * thread_index();
    bool first = e < push.total, second = e + 1u < push.total;
    float v = 0.0, next = 0.0;
    if (first)
        v = result(e);
    if (second)
        next = result(e + 1u);
    put_two(e, v, first, next, second);
}
