/* flash.glsl - what the shaders of the whole attention share (flash.comp; flash_matrix.comp and flash_join.comp).
 *
 * o = softmax(number q k^T) v: q, o [batch m, heads group head], k, v [batch total, heads head]; of a sequence the keys [first, first + len)
 * count, len in in3 where HAS says so, at most n. in0 q, in1 k, in2 v. The `group` query heads of one key head are taken as
 * lines of one matrix (line = row group + head in the group), so k and v are read once for all of them. A group takes
 * some lines and goes through the keys once, a tile at a time: the largest score so far and the sum of exp go along with the
 * result, which is scaled whenever the largest one grows. No score is ever in memory. What lies behind rows and
 * keys that count is not read: 0 stands for keys in a tile that do not count, and their weight is 0.
 *
 * gl_WorkGroupID.x: lines, y: key head of a sequence, z: which part of the keys. */

layout(constant_id = 9) const uint HEAD = 64;
layout(constant_id = 10) const uint KEYS = 16; /* of a tile */

layout(std430, binding = 6) readonly buffer in3_words { uint in3[]; };

uint key_count() { return (HAS & 8u) != 0u ? clamped(int(in3[0]), push.n) : push.n; }

/* Where line `line` begins in q and in the result. */
uint line_at(uint line)
{
    uint sequence = gl_WorkGroupID.y / push.heads, head = gl_WorkGroupID.y % push.heads * push.group + line % push.group;
    return ((sequence * push.m + line / push.group) * push.heads * push.group + head) * HEAD;
}

/* Where key `key` begins in k and v. */
uint key_at(uint key)
{
    uint sequence = gl_WorkGroupID.y / push.heads, head = gl_WorkGroupID.y % push.heads;
    return ((sequence * push.total + push.first + key) * push.heads + head) * HEAD;
}

/* Four columns of a line, from element i of the result on, which is a multiple of 4. */
void put_columns(uint i, vec4 v)
{
    uint at = word_of(DOUT, i);
    if (DOUT == F32) {
        outw[at] = floatBitsToUint(v.x);
        outw[at + 1u] = floatBitsToUint(v.y);
        outw[at + 2u] = floatBitsToUint(v.z);
        outw[at + 3u] = floatBitsToUint(v.w);
    } else {
        outw[at] = narrow_two(DOUT, v.xy);
        outw[at + 1u] = narrow_two(DOUT, v.zw);
    }
}
