/* attention.c - the whole attention as a dispatch of flash.comp or, where q, k and v have one 16-bit dtype of
 * which the device lists a matrix, of flash_matrix.comp. The primitives it is made of otherwise are in
 * kernels.c. */
#include "vk.h"

#define MOST_HEAD 256 /* what shared memory and registers hold */
#define FILL                                                                                                 \
    128 /* groups: fewer leave multiprocessors of a large GPU idle, so the keys are cut into parts           \
         */
#define SUBGROUPS 4
#define ACROSS    2 /* matrices along the lines of a group */

static uint32_t over(uint32_t n, uint32_t d)
{
    return (n + d - 1) / d;
}

static uint32_t up_to(uint32_t n, uint32_t d)
{
    return over(n, d) * d;
}

/* Keys of a tile: as many as shared memory has room for; 0: not even the fewest. */
static uint32_t keys_of(const vk_device *d, const vk_matrix *x, uint32_t head)
{
    uint32_t lines = ACROSS * x->m, threads = SUBGROUPS * d->subgroup, of_line = threads / lines;
    uint32_t filled = up_to(head, x->k) > up_to(head, x->n) ? up_to(head, x->k) : up_to(head, x->n);
    if (!of_line || threads % lines || of_line > d->subgroup || (of_line & (of_line - 1)) ||
        threads > d->limits.maxComputeWorkGroupInvocations)
        return 0;
    for (uint32_t keys = 32; keys >= x->n && keys >= x->k && keys >= 2 * of_line; keys /= 2) {
        uint32_t kv = ((keys > lines ? keys : lines) + keys) * (filled / 8 + 1) * 16;
        uint32_t rest = lines * (keys + 4) * 4 + lines * (keys / 2 + 4) * 4 + lines * x->n * 4 +
                        SUBGROUPS * x->m * x->n * 4 + 64;
        if (kv + rest <= d->limits.maxComputeSharedMemorySize)
            return keys;
    }
    return 0;
}

static bool by_matrices(const vk_device *d, vk_call *c, uint32_t head, uint32_t lines)
{
    const pv_tensor *q = c->bind[VK_IN0];
    bool bf16 = q->dtype == PV_BF16;
    const vk_matrix *x = bf16 ? &d->bf16 : &d->f16;
    if (q->dtype == PV_F32 || q->dtype != c->bind[VK_IN1]->dtype || q->dtype != c->bind[VK_IN2]->dtype ||
        !x->m || !d->shuffle || head % 8)
        return false;
    uint32_t keys = keys_of(d, x, head);
    if (!keys || over(head, x->k) > 32 ||
        over(over(head, x->n), SUBGROUPS) * ACROSS > 16) /* registers of the shader */
        return false;
    const uint32_t constant[] = {head, keys, x->m, x->n, x->k, ACROSS, SUBGROUPS};
    c->shader = bf16 ? VK_FLASH_BF16 : VK_FLASH_F16;
    c->constant[8] = SUBGROUPS * d->subgroup;
    for (int i = 0; i < 7; i++)
        c->constant[9 + i] = constant[i];
    c->grid[0] = over(lines, ACROSS * x->m);
    uint32_t groups = c->grid[0] * c->grid[1], tiles = over(c->push.n, keys),
             parts = groups ? FILL / groups : 1;
    if (parts > tiles / 2)
        parts = tiles / 2;
    if (parts < 2 || groups > VK_TILES)
        return true;
    parts = over(tiles, over(tiles, parts));
    uint32_t sums = ACROSS * over(over(head, x->n), SUBGROUPS) * SUBGROUPS * x->m * x->n + 2 * c->constant[8];
    if (VK_CALLS * VK_TILES + (uint64_t)groups * parts * sums > d->limits.maxStorageBufferRange / 4)
        return true;
    c->push.from = c->grid[2] = parts;
    c->push.b_first = VK_CALLS * VK_TILES;
    c->part_words = c->push.b_first + groups * parts * sums;
    return true;
}

static int attention(const vk_device *d, const pv_node *n, bool matrices, vk_call *out)
{
    const pv_attention_attr *a = &n->attr.attention;
    const pv_tensor *q = n->in[0], *k = n->in[1];
    uint32_t head = (uint32_t)(pv_width(k) / a->kv_heads), group = (uint32_t)(a->heads / a->kv_heads);
    vk_call *c = &out[0];
    if (head > MOST_HEAD)
        return 0;
    vk_call_begin(c, VK_FLASH, 0);
    for (int i = 0; i < 3; i++)
        vk_bind(c, i, n->in[i]);
    vk_bind(c, VK_OUT, n->out[0]);
    if (n->n_in > 3) {
        c->bind[VK_IN3] = n->in[3];
        c->constant[6] |= 1u << 3;
    }
    c->push.m = (uint32_t)(q->dim[0] / a->batch);
    c->push.total = (uint32_t)(k->dim[0] / a->batch);
    c->push.b_first = 0;
    c->push.first = (uint32_t)a->first;
    c->push.n = c->push.total - c->push.first;
    c->push.heads = (uint32_t)a->kv_heads;
    c->push.group = group;
    c->push.number = a->scale;
    c->push.from = 1;
    c->grid[1] = (uint32_t)(a->batch * a->kv_heads);
    c->grid[2] = 1;
    if (matrices)
        return by_matrices(d, c, head, c->push.m * group);
    c->constant[9] = head;
    c->constant[10] = 16;
    c->grid[0] = over(c->push.m * group, 8);
    return 1;
}

int vk_attention_matrices(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    return attention(d, n, true, out);
}

int vk_attention(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    return attention(d, n, false, out);
}
