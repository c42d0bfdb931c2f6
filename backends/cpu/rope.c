/* rope.c - rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 * x [rows, heads head]; table f32 or bf16 [positions, cos (head / 2) | sin (head / 2)]; positions i32 [rows]. The host made
 * the table: nothing here calls sin or cos. transformers' rotate_half, as openpi uses it; with a table in bf16 as PyTorch
 * computes it there, each product rounded to bf16 before they are added. Bound: memory. */
#include "cpu.h"

static int64_t place(const cpu_call *c, int64_t row)
{
    int64_t at = ((const int32_t *)c->in[2])[row], last = c->node->in[1]->dim[0] - 1;
    return at < 0 ? 0 : at < last ? at : last;
}

static void turn(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    int heads = c->node->attr.rope.heads;
    int64_t head = pv_width(c->node->in[0]) / heads, half = head / 2;
    const float *cos = (const float *)c->in[1] + place(c, row) * head, *sin = cos + half;
    const float *x = in[0];
    for (int h = 0; h < heads; h++, x += head, out += head)
        for (int64_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            out[i] = a * cos[i] - b * sin[i];
            out[i + half] = b * cos[i] + a * sin[i];
        }
}

static float product(float x, uint16_t y)
{
    return pv_bf16_to_f32(pv_f32_to_bf16(x * pv_bf16_to_f32(y)));
}

static void turn_bf16(const cpu_call *c, int64_t row, const float *const *in, float *out)
{
    int heads = c->node->attr.rope.heads;
    int64_t head = pv_width(c->node->in[0]) / heads, half = head / 2;
    const uint16_t *cos = (const uint16_t *)c->in[1] + place(c, row) * head, *sin = cos + half;
    const float *x = in[0];
    for (int h = 0; h < heads; h++, x += head, out += head)
        for (int64_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            out[i] = product(a, cos[i]) - product(b, sin[i]);
            out[i + half] = product(b, cos[i]) + product(a, sin[i]);
        }
}

static void run(const cpu_call *c)
{
    cpu_each_row(c, c->node->in[1]->dtype == PV_F32 ? turn : turn_bf16);
}

const cpu_kernel cpu_rope = {run, cpu_row_need, 1u << 2};
