/* reduce.glsl - one number from all threads of a group, in an order that no subgroup size changes: first of each sixteen threads that are
 * APART from each other, then of what those made. A tree would have a barrier a level; this has two. THREADS is a power of two. */
const uint APART = THREADS < 16u ? 1u : THREADS / 16u, TOGETHER = THREADS / APART;
shared float lanes[THREADS];
shared float sixteens[APART];

float sum_of_group(float v)
{
    uint t = gl_LocalInvocationID.x;
    float sum = 0.0;
    lanes[t] = v;
    barrier();
    if (t < APART) {
        [[unroll]] for (uint i = 0u; i < TOGETHER; i++)
            sum += lanes[t + i * APART];
        sixteens[t] = sum;
    }
    barrier();
    sum = 0.0;
    [[unroll]] for (uint i = 0u; i < APART; i++)
        sum += sixteens[i];
    return sum;
}

float largest_of_group(float v)
{
    uint t = gl_LocalInvocationID.x;
    float most = v;
    lanes[t] = v;
    barrier();
    if (t < APART) {
        [[unroll]] for (uint i = 0u; i < TOGETHER; i++)
            most = lanes[t + i * APART] > most ? lanes[t + i * APART] : most;
        sixteens[t] = most;
    }
    barrier();
    [[unroll]] for (uint i = 0u; i < APART; i++)
        most = sixteens[i] > most ? sixteens[i] : most;
    return most;
}
