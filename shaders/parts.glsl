/* parts.glsl - a sum that several groups make: gl_WorkGroupID.z says which of push.from parts of it, x and y which tile of the
 * result. Each group leaves its part in memory; the last one of a tile adds them up in order, so the order never depends on who was
 * last. Who is last tells a counter for each tile, 0 before and after: those of the dispatch begin at word b_sequence of
 * `part`, its sums at b_first. */
layout(std430, binding = 8) coherent buffer part_words { uint part[]; };

shared uint arrived;

uint tile_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

/* Word of `part` for sum i of `count` of this thread in part z of the tile. */
uint part_at(uint z, uint count, uint i)
{
    return push.b_first + ((tile_index() * push.from + z) * count + i) * THREADS + gl_LocalInvocationID.x;
}

/* Whether this group is the last of its tile; what the others left in `part` can then be read. */
bool is_last()
{
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0u) {
        arrived = atomicAdd(part[push.b_sequence + tile_index()], 1u);
        if (arrived + 1u == push.from)
            part[push.b_sequence + tile_index()] = 0u;
    }
    memoryBarrierBuffer();
    memoryBarrierShared();
    barrier();
    return arrived + 1u == push.from;
}

