/* layout.comp - numbers from one place to another, bit for bit where the dtypes are equal, else rounded once. One thread an
 * element, `total` of them; rows that do not count are left alone. Bound: memory.
 * OP 0: cast; 1: slice, columns [first, ...) of rows `from` wide; 2: concat, in0 of n1 elements, then in1, each with its own
 * count of rows; 3: row in1[0] of a table of n1 elements; 4: store, in0 into the rows of a state, from element `first` on. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

uint half_of(uint word, uint i) { return word >> (i & 1u) * 16u & 0xffffu; }

void move0(uint to, uint i)
{
    if (D0 == DOUT && D0 != F32)
        put_half(to, half_of(in0[i >> 1], i));
    else
        put_bits(to, bits0(i));
}

void move1(uint to, uint i)
{
    if (D1 == DOUT && D1 != F32)
        put_half(to, half_of(in1[i >> 1], i));
    else
        put_bits(to, bits1(i));
}

void main()
{
    uint e = thread_index(), row = e / push.width;
    if (e >= push.total)
        return;
    if (OP == 2u) {
        if (e >= push.n1 && (e - push.n1) / push.width < valid1(push.rows_in_all))
            move1(e, e - push.n1);
        else if (e < push.n1 && row < valid0(push.row_cap))
            move0(e, e);
        return;
    }
    if (OP == 3u) {
        move0(e, clamped(int(in1[0]), push.n1 / push.width - 1u) * push.width + e);
        return;
    }
    if (row % push.row_cap >= valid0(push.row_cap))
        return;
    if (OP == 0u)
        move0(e, e);
    else if (OP == 1u)
        move0(e, row * push.from + push.first + e % push.width);
    else if (OP == 4u)
        move0(push.first + e, e);
}
