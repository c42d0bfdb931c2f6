/* rope.comp - rotary position embedding, half-split: (a, b) = the halves of each head -> (a cos - b sin, b cos + a sin).
 * x [rows, width], heads of push.k; table [positions, cos (k / 2) | sin (k / 2)], of n1 elements; positions i32 [rows]. The
 * result begins at element `first` of the output: 0, or a row of a state (rope_store). The host made the table: nothing here
 * calls sin or cos. One thread two elements of the result. Bound: memory. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

bool counts(uint e) { return e < push.total && e / push.width % push.row_cap < valid0(push.row_cap); }

float result(uint e)
{
    uint row = e / push.width, head = push.k, half_head = head / 2u, i = e % push.width % head;
    uint at = clamped(int(in2[row]), push.n1 / head - 1u) * head;
    bool low = i < half_head;
    float c = get1(at + i % half_head), s = get1(at + half_head + i % half_head);
    float x = get0(e), other = get0(low ? e + half_head : e - half_head);
    return low ? x * c - other * s : x * c + other * s;
}

void main()
{
    uint e = 2u * thread_index();
    bool first = counts(e), second = counts(e + 1u);
    float v = 0.0, next = 0.0;
    if (first)
        v = result(e);
    if (second)
        next = result(e + 1u);
    put_two(push.first + e, v, first, next, second);
}
