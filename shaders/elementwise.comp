/* elementwise.comp - one thread two elements, f32, one rounding on store; rows that do not count are left alone. Bound: memory.
 * OP 0: add, x + y; 1: mul, x y (y of n1 elements repeats along x); 2: scale, x number; 3: gelu; 4: silu;
 * 5: axpy, x + a y with in1 a, in2 y, where x and the result may be the same bytes; 6: geglu, gelu(x) y;
 * 7: gated_residual, x + y gate with in2 mod [n2 / (3 width), scale | shift | gate]. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

bool counts(uint e) { return e < push.total && e / push.width % push.row_cap < valid0(push.row_cap); }

float result(uint e)
{
    float x = get0(e);
    if (OP == 0u)
        x = x + get1(e % push.n1);
    else if (OP == 1u)
        x = x * get1(e % push.n1);
    else if (OP == 2u)
        x = x * push.number;
    else if (OP == 3u)
        x = gelu_of(x);
    else if (OP == 4u)
        x = silu_of(x);
    else if (OP == 5u)
        x = x + get1(0u) * get2(e);
    else if (OP == 6u)
        x = gelu_of(x) * get1(e);
    else if (OP == 7u)
        x = x + get1(e) * get2(e / push.width * 3u * push.width % push.n2 + 2u * push.width + e % push.width);
    return x;
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
    put_two(e, v, first, next, second);
}
