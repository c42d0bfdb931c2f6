/* attention.c - the whole attention as a dispatch of flash.comp or, where q, k and v have one 16-bit dtype of
 * which the device lists a matrix, of flash_matrix.comp and flash_join.comp. The primitives it is made of
 * otherwise are in kernels.c. */
#include "vk.h"

#include <string.h>

#define JOINING   128 /* threads of flash_join.comp */
#define MOST_HEAD 256 /* what shared memory and registers hold */
#define NARROW    128 /* so wide heads leave registers for all columns of a line */
#define FEW_LINES 512 /* of all sequences */
#define FILL      132 /* multiprocessors of an H200; fewer groups leave some idle, so keys are cut into parts */

static uint32_t over(uint32_t n, uint32_t d)
{
    return (n + d - 1) / d;
}

static uint32_t up_to(uint32_t n, uint32_t d)
{
    return over(n, d) * d;
}

static uint32_t most_of(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Columns of the result that a group makes: each subgroup of a row whole matrices, as many as the others. */
static uint32_t width_of(const vk_cut *c, const vk_matrix *x, uint32_t head)
{
    return up_to(over(head, x->n), c->along) * x->n;
}

/* 16 bytes of shared memory that flash_matrix.comp has for keys and values. */
static uint32_t held(const vk_cut *c, const vk_matrix *x, uint32_t head)
{
    uint32_t stride = most_of(up_to(head, x->k), width_of(c, x, head)) / 8 + 1;
    return most_of(most_of(2 * c->keys, c->across * x->m) * stride,
                   c->across * c->along * x->m * (x->n / 4 + 1));
}

/* What flash_matrix.comp asks of a cut, and the device of its shared memory. */
static bool holds(const vk_device *d, const vk_cut *c, const vk_matrix *x, uint32_t head)
{
    uint32_t subgroups = c->across * c->along, threads = subgroups * d->subgroup,
             of_a_line = d->subgroup / x->m, own = c->keys / c->along;
    uint32_t lines = c->across * x->m, scores = c->keys / 4 + 1, weights = c->keys / 8 + 1 + x->n / 4,
             of_lines = lines * most_of(scores, weights);
    uint32_t shared = (held(c, x, head) + of_lines) * 16 + 2 * subgroups * x->m * 4 + lines * 4 + 16;
    return d->subgroup % x->m == 0 && (of_a_line & (of_a_line - 1)) == 0 && own % x->n == 0 &&
           own % x->k == 0 && own % (8 * of_a_line) == 0 && own <= 32 * of_a_line &&
           shared <= d->limits.maxComputeSharedMemorySize &&
           threads <= d->limits.maxComputeWorkGroupInvocations &&
           threads <= d->limits.maxComputeWorkGroupSize[0];
}

/* Into how many parts a cut takes the keys of `groups` groups. */
static uint32_t parts_of(const vk_cut *c, uint32_t groups, uint32_t keys)
{
    uint32_t tiles = over(keys, c->keys), parts = c->parts ? c->parts : FILL / most_of(groups, 1);
    parts = most_of(parts < tiles ? parts : tiles, 1);
    return tiles ? over(tiles, over(tiles, parts)) : 1;
}

/* The one that is set; else, where heads are wide, one of two whose subgroups share columns, the smaller one for few
 * lines; else the first that the device holds, whose subgroups need nothing of each other; NULL: none. By nothing of
 * the device but its matrix: the self-test tries all three where that has 16 rows. */
static const vk_cut *cut_for(const vk_device *d, const vk_matrix *x, uint32_t head, uint32_t lines)
{
    static const vk_cut few = {2, 2, 32, 0}, many = {4, 2, 32, 0};
    static const vk_cut others[] = {{4, 1, 32, 0}, {2, 1, 16, 0}, {1, 1, 16, 0}};
    const vk_cut *of_wide = lines <= FEW_LINES ? &few : &many;
    if (d->cut)
        return holds(d, d->cut, x, head) ? d->cut : NULL;
    if (head > NARROW && holds(d, of_wide, x, head))
        return of_wide;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (holds(d, &others[i], x, head))
            return &others[i];
    return NULL;
}

/* How many dispatches; 0: it cannot. */
static int by_matrices(const vk_device *d, vk_call *c, uint32_t head, uint32_t lines)
{
    const pv_tensor *q = c->bind[VK_IN0];
    bool bf16 = q->dtype == PV_BF16;
    const vk_matrix *x = bf16 ? &d->bf16 : &d->f16;
    if (q->dtype == PV_F32 || q->dtype != c->bind[VK_IN1]->dtype || q->dtype != c->bind[VK_IN2]->dtype ||
        !x->m || !d->neighbours || head % 8 || over(head, x->k) > 32 || over(head, x->n) > 32 ||
        !c->push.n || !(c->push.number > 1e-6f && c->push.number < 1e6f)) /* the larger score has the larger weight */
        return 0;
    const vk_cut *cut = cut_for(d, x, head, lines * c->grid[1]);
    if (!cut)
        return 0;
    const uint32_t constant[] = {head, cut->keys, x->m, x->n, x->k, cut->across, cut->along};
    uint32_t of_tile = cut->across * x->m, of_line = width_of(cut, x, head);
    c->shader = bf16 ? VK_FLASH_BF16 : VK_FLASH_F16;
    c->constant[8] = cut->across * cut->along * d->subgroup;
    for (int i = 0; i < 7; i++)
        c->constant[9 + i] = constant[i];
    c->grid[0] = over(lines, of_tile);
    uint32_t groups = c->grid[0] * c->grid[1], parts = parts_of(cut, groups, c->push.n);
    if (parts < 2)
        return 1;
    uint64_t words = VK_CALLS * VK_TILES + (uint64_t)groups * parts * of_tile * (of_line + 2);
    if (words > d->limits.maxStorageBufferRange / 4)
        return 1;
    c->push.from = c->grid[2] = parts;
    c->push.b_first = VK_CALLS * VK_TILES;
    c->part_words = (uint32_t)words;
    c[1] = c[0];
    c[1].shader = VK_FLASH_JOIN;
    c[1].behind = true;
    memset(&c[1].constant[8], 0, sizeof c->constant - 8 * sizeof *c->constant);
    c[1].constant[8] = JOINING;
    c[1].constant[9] = head;
    c[1].constant[11] = of_tile;
    c[1].constant[12] = of_line / 4;
    c[1].grid[0] = over(lines * (head / 4), JOINING);
    c[1].grid[2] = 1;
    return 2;
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
