/* linear.c - the linears as dispatches of dense.comp, very small ones of linear_thin.comp, or, where x and w
 * have one 16-bit dtype of which the device lists a matrix, of dense_matrix.comp: how large a group's tile
 * is, into how many parts k is cut, and in how many pieces a weight is bound. */
#include "vk.h"

/* Multiprocessors of a device that does not tell how many it has. */
#define UNITS 128
/* Of k in a part by matrices, for few rows and for many: with less, adding up costs more than it saves. */
#define LEAST         512
#define LEAST_OF_MANY 256
#define MOST_OF_MANY  4
#define LEAST_LEFT    256 /* where the dispatch that adds up is there anyway */
#define JOINING       15  /* microseconds of an H200 that groups take to bring parts of many rows together, */
#define LEFT_A_BYTE   3.3e-7 /* and what each byte of theirs takes that the norm behind reads in place of a sum's */
#define NORMING       256    /* threads of linear_norm.comp */
#define THIN          256    /* and of linear_thin.comp, */
#define MOST_THIN     32768  /* for weights of so many numbers at most, which it reads again for each row */

static uint32_t over(uint32_t n, uint32_t d)
{
    return (n + d - 1) / d;
}

/* ---- tiles ---- */

/* For many rows the one that is expected to be the fastest is taken, the last with little shared memory; for
 * few the first that holds and leaves few multiprocessors idle: measured on an H200 (docs/journal.md). */
static const vk_tile many[] = {{2, 4, 4, 3, 4, 0}, {4, 3, 3, 3, 4, 0}, {2, 4, 4, 2, 4, 0},
                               {2, 4, 2, 2, 4, 0}, {2, 2, 4, 4, 2, 0}, {2, 2, 2, 2, 2, 0}};
static const vk_tile few[] = {{4, 2, 1, 2, 8, 0}, {4, 2, 1, 2, 4, 0}, {4, 2, 1, 2, 2, 0}};

static uint32_t rows_of(const vk_tile *t, const vk_matrix *x)
{
    return t->across_m * t->fm * x->m;
}

static uint32_t columns_of(const vk_tile *t, const vk_matrix *x)
{
    return t->across_n * t->fn * x->n;
}

static bool holds(const vk_device *d, const vk_tile *t, const vk_matrix *x, bool two)
{
    uint32_t subgroups = t->across_m * t->across_n, threads = subgroups * d->subgroup,
             eights = t->depth * x->k / 8; /* of a row */
    uint32_t rows = rows_of(t, x), columns = columns_of(t, x);
    uint32_t parts = (rows + columns) * (eights + 1) * 16;
    uint32_t patches = subgroups * x->m * (t->fn * x->n / 4 + 1) * 16;
    uint32_t shared = (parts > patches ? parts : patches) + (two ? rows * 4 : 0) + 64;
    uint32_t fours = x->m * (t->fn * x->n / 4) / (two ? 2 : 1); /* of a row of matrices */
    return t->fm <= 4 && t->fn <= 4 && (!two || (t->across_n % 2 == 0 && x->m % 2 == 0)) && rows % 8 == 0 &&
           columns / (two ? 2 : 1) % 8 == 0 && rows * eights <= 8 * threads &&
           columns * eights <= 8 * threads && shared <= d->limits.maxComputeSharedMemorySize &&
           threads <= d->limits.maxComputeWorkGroupInvocations &&
           threads <= d->limits.maxComputeWorkGroupSize[0] && fours % d->subgroup == 0 &&
           fours <= 8 * d->subgroup && rows * eights % threads == 0 && columns * eights % threads == 0;
}

static uint32_t units_of(const vk_device *d)
{
    return d->info.sms > 0 ? (uint32_t)d->info.sms : UNITS;
}

/* How many tiles a product of so many columns has, those of both weights counted, at least 1. */
static uint32_t tiles_of(const vk_tile *t, const vk_matrix *x, uint32_t m, uint32_t n)
{
    uint32_t tiles = over(m, rows_of(t, x)) * over(n, columns_of(t, x));
    return tiles ? tiles : 1;
}

static bool is_few(const vk_matrix *x, uint32_t m)
{
    return m <= 4 * x->m;
}

/* The microseconds that an H200 takes: rounds in which each multiprocessor has a group, of that the steps
 * along k (dearer the larger the tile, and never cheap), and parts brought together. Elsewhere the numbers
 * are others and the order is hoped to be the same. */
static double cost(const vk_device *d, const vk_tile *t, const vk_matrix *x, uint32_t k, uint32_t tiles,
                   uint32_t parts, double joining)
{
    double area = (double)rows_of(t, x) * columns_of(t, x), deep = t->depth * x->k;
    double step = 0.72 + 0.145 * area / 8192 * deep / 64;
    return over(tiles * parts, units_of(d)) * (over(over(k, parts), (uint32_t)deep) * step + 4) +
           (parts > 1 ? joining : 0);
}

/* The tile with which the products of a node take least, and the parts of k of each: they have x in common
 * and run beside each other, so their groups count together. Returns what they take. */
static double best_of_many(const vk_device *d, const vk_matrix *x, uint32_t m, uint32_t k, const uint32_t *n,
                           int products, bool two, double joining, vk_tile *out)
{
    vk_tile best = {0};
    double least = 0;
    for (size_t i = 0; i < sizeof many / sizeof *many; i++) {
        uint32_t tiles = 0;
        for (int p = 0; p < products; p++)
            tiles += tiles_of(&many[i], x, m, n[p]);
        for (uint32_t parts = 1; holds(d, &many[i], x, two) && parts <= MOST_OF_MANY; parts++) {
            double now = cost(d, &many[i], x, k, tiles, parts, joining);
            if ((parts == 1 || k / parts >= LEAST_OF_MANY) && (!best.fm || now < least)) {
                best = many[i];
                best.parts = parts;
                least = now;
            }
        }
    }
    *out = best;
    return least;
}

/* Of a product that is left in parts: those of many rows are cut only where that saves more than it costs. */
static bool best_left(const vk_device *d, const vk_matrix *x, uint32_t m, uint32_t k, uint32_t n, vk_tile *out)
{
    vk_tile whole;
    double left = best_of_many(d, x, m, k, &n, 1, false, 0, out);
    left += LEFT_A_BYTE * 8.0 * m * n * out->parts;
    return out->parts > 1 && left < best_of_many(d, x, m, k, &n, 1, false, JOINING, &whole);
}

/* Not more groups than multiprocessors: there may be room for no second one. */
static uint32_t parts_of(const vk_device *d, const vk_tile *t, const vk_matrix *x, uint32_t m, uint32_t n,
                         uint32_t k, uint32_t least)
{
    uint32_t fill = units_of(d) / tiles_of(t, x, m, n), most = k / least;
    return fill < most ? fill : most;
}

static vk_tile best_of_few(const vk_device *d, const vk_matrix *x, uint32_t m, uint32_t n, uint32_t k,
                           bool two, uint32_t least)
{
    vk_tile first = {0};
    for (size_t i = 0; i < sizeof few / sizeof *few; i++) {
        if (!holds(d, &few[i], x, two))
            continue;
        vk_tile t = few[i];
        t.parts = parts_of(d, &t, x, m, n, k, least);
        if (tiles_of(&t, x, m, n) * (t.parts ? t.parts : 1) >= units_of(d) * 3 / 4)
            return t;
        if (!first.fm)
            first = t;
    }
    return first;
}

/* ---- dispatches ---- */

enum { PLAIN, ADD, GELU, GATED, GEGLU, LEFT, TURNED }; /* OP of dense.glsl */

/* One product: columns [first, first + columns) of a result that is `width` wide. */
typedef struct product {
    const pv_tensor *x, *w, *w2, *bias, *residual, *mod, *out;
    uint32_t op, between;
    const uint32_t *widths; /* sums of a row, of all products of the node */
    int products;
    const pv_tensor *table, *positions; /* TURNED */
    int64_t row, head;                  /* of the result, where row 0 goes; how wide the heads are */
} product;

static void bind_from(vk_call *c, int i, const pv_tensor *t, size_t first, size_t count)
{
    vk_bind(c, i, t);
    c->at[i] = pv_dtype_bytes(t->dtype, first);
    c->bytes[i] = pv_dtype_bytes(t->dtype, count);
}

/* How the parts of k are made, at most so many. */
static void cut(const vk_device *d, vk_call *c, uint32_t parts, uint32_t depth, uint32_t sums,
                uint32_t *words)
{
    uint32_t tiles = c->grid[0] * c->grid[1], chunks = over(c->push.k, depth);
    if (parts > chunks / 2)
        parts = chunks / 2;
    if (parts < 1 || tiles > VK_TILES)
        parts = 1;
    parts = over(chunks, over(chunks, parts)); /* none of them empty */
    if (*words + (uint64_t)tiles * parts * sums > d->limits.maxStorageBufferRange / 4)
        parts = 1;
    c->push.from = c->grid[2] = parts ? parts : 1;
    if (c->push.from == 1)
        return;
    c->push.b_first = *words;
    *words += tiles * parts * sums;
    c->part_words = *words;
}

/* Neither rows nor what follows a product decides how it is added up: a graph gives the same bytes packed and
 * fused. */
static bool is_thin(const vk_device *d, const vk_call *c)
{
    return c->push.k % 32 == 0 && c->push.m <= 65535 && (uint64_t)c->push.n * c->push.k <= MOST_THIN &&
           d->limits.maxComputeWorkGroupInvocations >= THIN;
}

static void thin(vk_call *c)
{
    c->shader = VK_LINEAR_THIN;
    uint32_t lanes = c->push.k < 512 ? 8 : 32;
    c->constant[8] = THIN;
    c->constant[13] = lanes;
    c->grid[0] = over(c->push.n, THIN / lanes);
    c->grid[1] = c->push.m;
    c->grid[2] = 1;
}

static void by_threads(const vk_device *d, vk_call *c, const product *p, uint32_t *words)
{
    if (is_thin(d, c)) {
        thin(c);
        return;
    }
    bool small = c->push.m <= 32 || d->limits.maxComputeWorkGroupInvocations < 64 * 64 / 16;
    uint32_t bm = small ? 32 : 64, bn = small ? 32 : 64, bk = 16;
    c->shader = VK_DENSE;
    c->constant[8] = bm * bn / 16;
    c->constant[9] = bm;
    c->constant[10] = bn;
    c->constant[11] = bk;
    c->constant[13] = c->push.k % 8 == 0;
    c->grid[0] = over(c->push.m, bm);
    c->grid[1] = over(c->push.n, p->w2 ? bn / 2 : bn);
    uint32_t tiles = c->grid[0] * c->grid[1];
    cut(d, c, over(UNITS, tiles ? tiles : 1), bk, bm * bn, words);
}

static bool by_matrices(const vk_device *d, vk_call *c, const product *p, uint32_t *words)
{
    bool bf16 = p->x->dtype == PV_BF16;
    const vk_matrix *x = bf16 ? &d->bf16 : &d->f16;
    if (p->x->dtype != p->w->dtype || p->x->dtype == PV_F32 || !x->m || c->push.k % 8 || c->push.n % 4 ||
        c->push.ldc % 4)
        return false;
    const bool left = p->op == LEFT, two = p->op == GEGLU || p->op == TURNED;
    const uint32_t least = left ? LEAST_LEFT : LEAST, m = c->push.m, k = c->push.k,
                   sums = two ? 2 * c->push.n : c->push.n;
    vk_tile t = {0};
    if (d->tile)
        t = *d->tile;
    else if (is_few(x, m))
        t = best_of_few(d, x, m, sums, k, two, least);
    else if (!left)
        best_of_many(d, x, m, k, p->widths, p->products, two, JOINING, &t);
    else if (!best_left(d, x, m, k, sums, &t))
        return false;
    if (!t.fm || !holds(d, &t, x, two))
        return false;
    if (!t.parts)
        t.parts = parts_of(d, &t, x, m, sums, k, least);
    uint32_t bm = rows_of(&t, x), bn = columns_of(&t, x), bk = t.depth * x->k;
    const uint32_t constant[] = {bm, bn, bk, p->between, x->m, x->n, x->k, t.fm, t.fn, k % bk == 0, 0};
    c->shader = bf16 ? VK_DENSE_BF16 : VK_DENSE_F16;
    c->constant[8] = t.across_m * t.across_n * d->subgroup;
    for (size_t i = 0; i < sizeof constant / sizeof *constant; i++)
        c->constant[9 + i] = constant[i];
    c->grid[0] = over(c->push.m, bm);
    c->grid[1] = over(sums, bn);
    cut(d, c, t.parts, bk, left ? 0 : bm * bn, words);
    c->constant[19] = !left && c->push.from > 1;
    if (left) { /* rows of the result, a part behind the other */
        const uint64_t all = *words + (uint64_t)c->push.from * c->push.m * c->push.ldc;
        if (all > d->limits.maxStorageBufferRange / 4)
            return false;
        c->push.b_first = *words;
        c->part_words = *words = (uint32_t)all;
    }
    return true;
}

/* Appends the dispatches of a product: one, or one for each piece of its weight. False: it cannot, or too
 * many. */
static bool append(const vk_device *d, const product *p, bool matrices, vk_call *out, int *n, uint32_t *words)
{
    const size_t k = (size_t)p->w->dim[1], width = (size_t)p->w->dim[0], row = pv_dtype_bytes(p->w->dtype, k);
    size_t most = row ? d->limits.maxStorageBufferRange / row / 256 * 256
                      : width; /* so many rows: offsets stay aligned */
    if (!most || width <= d->limits.maxStorageBufferRange / (row ? row : 1))
        most = width;
    for (size_t first = 0; first < width; first += most) {
        size_t columns = width - first < most ? width - first : most;
        if (*n == VK_CALLS)
            return false;
        vk_call *c = &out[(*n)++];
        vk_call_begin(c, VK_DENSE, p->op);
        vk_bind(c, VK_IN0, p->x);
        bind_from(c, VK_IN1, p->w, first * k, columns * k);
        if (p->bias) {
            bind_from(c, VK_IN2, p->bias, first, columns);
            c->constant[6] |= 1u << 2;
        }
        if (p->w2)
            bind_from(c, VK_IN3, p->w2, first * k, columns * k);
        if (p->residual)
            vk_bind(c, VK_IN3, p->residual);
        if (p->mod)
            vk_bind(c, VK_IN4, p->mod);
        if (p->op == TURNED) {
            vk_bind(c, VK_IN2, p->positions);
            vk_bind(c, VK_IN4, p->table);
            c->push.n1 = (uint32_t)pv_elements(p->table);
            c->push.width = (uint32_t)p->head / 2;
        }
        vk_bind(c, VK_OUT, p->out);
        c->constant[12] = p->between;
        c->push.m = (uint32_t)(pv_elements(p->x) / pv_width(p->x));
        c->push.n = (uint32_t)columns / (p->op == TURNED ? 2 : 1);
        c->push.k = (uint32_t)k;
        c->push.ldc = (uint32_t)width;
        c->push.first = (uint32_t)first;
        c->push.c_sequence = (uint32_t)(p->row * (int64_t)width);
        c->push.b_sequence = (uint32_t)(*n - 1) * VK_TILES; /* its counters */
        if (!matrices)
            by_threads(d, c, p, words);
        else if (!by_matrices(d, c, p, words))
            return false;
    }
    return true;
}

static int linear(const vk_device *d, const pv_node *n, bool matrices, vk_call *out)
{
    uint32_t words = VK_CALLS * VK_TILES;
    int calls = 0, products = n->op == PV_OP_LINEAR_GROUP ? n->attr.group.n : 1;
    uint32_t widths[PV_MAX_OUT];
    for (int i = 0; i < products; i++)
        widths[i] = (uint32_t)n->in[1 + i]->dim[0] * (n->op == PV_OP_LINEAR_GEGLU ? 2 : 1);
    for (int i = 0; i < products; i++) {
        product p = {.x = n->in[0], .w = n->in[1], .out = n->out[i], .widths = widths, .products = products};
        int bias = 2;
        if (n->op == PV_OP_LINEAR_GROUP) {
            p.w = n->in[1 + i];
            bias = 1 + products + i;
        } else if (n->op == PV_OP_LINEAR_ADD) {
            p.op = ADD;
            p.residual = n->in[2];
            bias = 3;
        } else if (n->op == PV_OP_LINEAR_GELU) {
            p.op = GELU;
        } else if (n->op == PV_OP_LINEAR_GATED) {
            p.op = GATED;
            p.residual = n->in[2];
            p.mod = n->in[3];
            bias = 4;
        } else if (n->op == PV_OP_LINEAR_GEGLU) {
            p.op = GEGLU;
            p.w2 = n->in[2];
            p.between = (uint32_t)n->attr.linear_geglu.between;
            bias = 3;
        }
        p.bias = bias < n->n_in ? n->in[bias] : NULL;
        bool ok = (!p.residual || p.residual->dtype == PV_F32) && (!p.mod || p.mod->dtype == PV_F32) &&
                  (!p.w2 || p.w2->dtype == p.w->dtype) && (p.x->rows == n->out[i]->rows);
        if (!ok || !append(d, &p, matrices, out, &calls, &words))
            return 0;
    }
    return calls;
}

/* q, k and v, turned and stored where they belong; a weight lies in one binding. */
int vk_linear_rope_cache(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    const pv_linear_rope_cache_attr *a = &n->attr.linear_rope_cache;
    const pv_tensor *x = n->in[0];
    const int64_t head = n->in[1]->dim[0] / a->rope_cache.heads;
    uint32_t words = VK_CALLS * VK_TILES, widths[3];
    int calls = 0;
    bool ok = n->in[4]->dtype == PV_F32 && head % 8 == 0 && a->between == n->out[2]->dtype &&
              x->rows == n->out[0]->rows;
    for (int i = 0; i < 3; i++)
        widths[i] = (uint32_t)n->in[1 + i]->dim[0];
    for (int i = 0; ok && i < 3; i++) {
        product p = {.x = x,
                     .w = n->in[1 + i],
                     .out = n->out[i],
                     .op = i < 2 ? TURNED : PLAIN,
                     .between = (uint32_t)a->between,
                     .widths = widths,
                     .products = 3,
                     .table = n->in[4],
                     .positions = n->in[5],
                     .row = i ? a->rope_cache.first : 0,
                     .head = head};
        ok = append(d, &p, true, out, &calls, &words) && calls == i + 1;
    }
    return ok ? calls : 0;
}

/* Cut along k into parts that the dispatch behind brings together, so no group of the product waits for the
 * others; it makes the residual and its norm. */
int vk_linear_norm(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    const pv_tensor *sum = n->out[0];
    const bool gated = n->op == PV_OP_LINEAR_GATED_NORM, layer = !gated && n->attr.linear_add_norm.layer;
    const int norm = n->n_in - 1 - layer; /* the next modulation, or the norm's weight */
    const pv_tensor *beside = gated || norm > 3 ? n->in[3] : NULL; /* modulation, or the product's bias */
    uint32_t words = VK_CALLS * VK_TILES, fours = (uint32_t)pv_width(sum) / 4, width = (uint32_t)pv_width(sum);
    int calls = 0;
    product p = {.x = n->in[0], .w = n->in[1], .out = sum, .op = LEFT, .widths = &width, .products = 1};
    bool ok = n->in[2]->dtype == PV_F32 && sum->dtype == PV_F32 && (!beside || beside->dtype == PV_F32) &&
              (!gated || n->in[norm]->dtype == PV_F32) && p.x->rows == sum->rows &&
              d->limits.maxComputeWorkGroupInvocations >= NORMING && fours <= 4 * NORMING;
    if (!ok || !append(d, &p, true, out, &calls, &words) || calls != 1)
        return 0;
    vk_call *c = &out[1];
    vk_call_begin(c, VK_LINEAR_NORM, gated ? 0 : layer ? 2 : 1);
    vk_bind(c, VK_IN0, n->in[2]);
    vk_bind(c, VK_IN1, n->in[norm]);
    if (layer)
        vk_bind(c, VK_IN2, n->in[norm + 1]);
    vk_bind(c, VK_IN3, sum);
    if (beside)
        vk_bind(c, VK_IN4, beside);
    if (beside && !gated)
        c->constant[6] |= 1u << 4;
    vk_bind(c, VK_OUT, n->out[1]);
    c->constant[8] = NORMING;
    c->constant[9] = over(fours, NORMING);
    c->push = out[0].push;
    c->push.number = gated ? n->attr.norm.eps : n->attr.linear_add_norm.eps;
    c->grid[0] = out[0].push.m;
    c->grid[1] = c->grid[2] = 1;
    c->part_words = out[0].part_words;
    c->behind = true;
    return 2;
}

int vk_linear_matrices(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    return linear(d, n, true, out);
}

int vk_linear(const vk_device *d, const pv_node *n, vk_call out[VK_CALLS])
{
    return linear(d, n, false, out);
}
