/* rope.comp - rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 * x [rows, width], heads of push.k; table [positions, cos (k / 2) | sin (k / 2)], of n1 elements; positions i32 [rows]. The host made
 * the table: nothing here calls sin or cos. One thread an element of the result. Bound: memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

void main()
{
    uint e = thread_index(), row = e / push.width, head = push.k, half_head = head / 2u;
    if (e >= push.total || row % push.row_cap >= valid0(push.row_cap))
        return;
    uint i = e % push.width % head;
    uint at = clamped(int(in2[row]), push.n1 / head - 1u) * head;
    bool low = i < half_head;
    float c = get1(at + i % half_head), s = get1(at + half_head + i % half_head);
    float x = get0(e), other = get0(low ? e + half_head : e - half_head);
    put(e, low ? x * c - other * s : x * c + other * s);
}
