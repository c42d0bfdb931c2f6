/* layout.comp - numbers from one place to another, bit for bit where the dtypes are equal, else rounded once. One thread two
 * elements, of `total`; rows that do not count are left alone. Bound: memory.
 * OP 0: cast; 1: slice, columns [first, ...) of rows `from` wide; 2: concat, in0 of n1 elements, then in1, each with its own
 * count of rows; 3: row in1[0] of a table of n1 elements; 4: store, in0 into the rows of a state, from element `first` on. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

uint half_of(uint word, uint i) { return word >> (i & 1u) * 16u & 0xffffu; }

uint stored(uint b) { return DOUT == F32 ? b : DOUT == BF16 ? bf16_bits_above(b) >> 16 : f16_bits_narrow(b); }

/* Element i of an input with the bits that it has in the result. */
uint take0(uint i) { return D0 == DOUT && D0 != F32 ? half_of(in0[i >> 1], i) : stored(bits0(i)); }
uint take1(uint i) { return D1 == DOUT && D1 != F32 ? half_of(in1[i >> 1], i) : stored(bits1(i)); }

/* What element e of the result is; false: it is left alone. */
bool result(uint e, out uint b)
{
    uint row = e / push.width;
    b = 0u;
    if (e >= push.total)
        return false;
    if (OP == 2u) {
        bool of1 = e >= push.n1, counts = of1 ? (e - push.n1) / push.width < valid1(push.rows_in_all) : row < valid0(push.row_cap);
        if (counts && of1)
            b = take1(e - push.n1);
        else if (counts)
            b = take0(e);
        return counts;
    }
    if (OP == 3u) {
        b = take0(clamped(int(in1[0]), push.n1 / push.width - 1u) * push.width + e);
        return true;
    }
    if (row % push.row_cap >= valid0(push.row_cap))
        return false;
    b = take0(OP == 1u ? row * push.from + push.first + e % push.width : e);
    return true;
}

void main()
{
    uint e = 2u * thread_index(), to = (OP == 4u ? push.first : 0u) + e, b, next;
    bool first = result(e, b), second = result(e + 1u, next);
    if (DOUT == F32) {
        if (first)
            outw[to] = b;
        if (second)
            outw[to + 1u] = next;
    } else if (first && second && (to & 1u) == 0u) {
        outw[to >> 1] = b | next << 16;
    } else {
        if (first)
            put_half(to, b);
        if (second)
            put_half(to + 1u, next);
    }
}
