/* rope.c - rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 * x [rows, heads head]; table f32 [positions, cos (head / 2) | sin (head / 2)]; positions i32 [rows]. The host made the
 * table: nothing here calls sin or cos. transformers' rotate_half, as openpi uses it. Bound: memory. */
#include "cpu.h"

static void turn(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    const pv_tensor *table = c->node->in[1];
    int heads = c->node->attr.rope.heads;
    int64_t head = pv_width(c->node->in[0]) / heads, half = head / 2;
    int64_t at = ((const int32_t *)c->in[2])[row], last = table->dim[0] - 1;
    const float *cos = (const float *)c->in[1] + (at < 0 ? 0 : at < last ? at : last) * head, *sin = cos + half;
    const float *x = in[0];
    for (int h = 0; h < heads; h++, x += head, out += head)
        for (int64_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            out[i] = a * cos[i] - b * sin[i];
            out[i + half] = b * cos[i] + a * sin[i];
        }
}

static void run(const cpu_call *c)
{
    cpu_each_row(c, turn);
}

const cpu_kernel cpu_rope = {run, cpu_row_need, 1u << 2};
