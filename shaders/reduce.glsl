/* reduce.glsl - one number from all threads of a group, in an order that no subgroup size changes. */
shared float lanes[THREADS];

float sum_of_group(float v)
{
    uint t = gl_LocalInvocationID.x;
    barrier();
    lanes[t] = v;
    barrier();
    for (uint step = THREADS / 2u; step > 0u; step >>= 1) {
        if (t < step)
            lanes[t] += lanes[t + step];
        barrier();
    }
    return lanes[0];
}

float largest_of_group(float v)
{
    uint t = gl_LocalInvocationID.x;
    barrier();
    lanes[t] = v;
    barrier();
    for (uint step = THREADS / 2u; step > 0u; step >>= 1) {
        if (t < step)
            lanes[t] = lanes[t + step] > lanes[t] ? lanes[t + step] : lanes[t];
        barrier();
    }
    return lanes[0];
}
