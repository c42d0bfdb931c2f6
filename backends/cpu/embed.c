/* embed.c - patchify: u8 pictures [n, height, width, channels] -> rows [n patches, channels patch patch] in the order of the
 * patch convolution's weight (channel, row, column), so that the convolution is a linear. A pixel v becomes
 * v / 255 * 2 - 1, rounded to f32 after each step (openpi models/model.py). Bound: memory. */
#include "cpu.h"

static void run(const cpu_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0];
    const uint8_t *pixels = c->in[0];
    int64_t height = x->dim[1], width = x->dim[2], channels = x->dim[3], p = n->attr.patch.size, to = 0;
    float value[256], tmp[1]; /* a division a level, not a pixel */
    for (int v = 0; v < 256; v++)
        value[v] = (float)v / 255.0f * 2.0f - 1.0f;
    for (int64_t i = 0; i < x->dim[0]; i++)
        for (int64_t top = 0; top < height; top += p)
            for (int64_t left = 0; left < width; left += p)
                for (int64_t ch = 0; ch < channels; ch++)
                    for (int64_t y = 0; y < p; y++)
                        for (int64_t k = 0; k < p; k++, to++) {
                            int64_t from = ((i * height + top + y) * width + left + k) * channels + ch;
                            *cpu_dest(c->out[0], n->out[0]->dtype, to, tmp) = value[pixels[from]];
                            cpu_done(c->out[0], n->out[0]->dtype, to, 1, tmp);
                        }
}

const cpu_kernel cpu_patchify = {run, NULL, .whole = 1};
