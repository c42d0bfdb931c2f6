/* embed.c - patchify: pictures [n, 3, side, side] -> rows [n patches, 3 patch patch] in the order of the patch
 * convolution's weight (channel, row, column), so that the convolution is a linear. Bound: memory. */
#include "cpu.h"

#include <string.h>

static void run(const cpu_call *c)
{
    const pv_node *n = c->node;
    const pv_tensor *x = n->in[0];
    int64_t channels = x->dim[1], height = x->dim[2], width = x->dim[3], p = n->attr.patch.size;
    int64_t to = 0;
    float tmp[1];
    for (int64_t i = 0; i < x->dim[0]; i++)
        for (int64_t top = 0; top < height; top += p)
            for (int64_t left = 0; left < width; left += p)
                for (int64_t ch = 0; ch < channels; ch++)
                    for (int64_t y = 0; y < p; y++)
                        for (int64_t k = 0; k < p; k++, to++) {
                            int64_t from = ((i * channels + ch) * height + top + y) * width + left + k;
                            float v = *cpu_load(c->in[0], x->dtype, from, 1, tmp);
                            *cpu_dest(c->out[0], n->out[0]->dtype, to, tmp) = v;
                            cpu_done(c->out[0], n->out[0]->dtype, to, 1, tmp);
                        }
}

const cpu_kernel cpu_patchify = {run, NULL};
