/* expert.c - a whole layer of the action expert: small ones with every size apart from the others, and the
 * full model's. */
#include "ops.h"

typedef struct size {
    pv_dtype dtype; /* of weights and caches */
    int64_t rows, width, inner, head;
    int heads, kv_heads;
    int64_t keys, store, first, len;
} size;

/* A weight that makes numbers `gain` times as large as it reads. */
static op_in weight(pv_dtype dtype, int64_t n, int64_t k, float gain)
{
    return (op_in){.dtype = dtype, .dim = {n, k}, .amplitude = gain * sqrtf(3.0f / (float)k)};
}

/* Of the caches those rows hold numbers that the layer reads and does not make: the others are NaN. `SHARP`:
 * queries that tell keys apart, and little from the MLP, whose roundings would hide a small mistake in
 * attention. `ROUGH_RESIDUAL`: one with outliers, as a model's has. */
enum { EVEN, SHARP, ROUGH_RESIDUAL, KINDS };
static bool layer(const size *s, int kind)
{
    const bool sharp = kind == SHARP;
    op_in x = F32(s->rows, s->width);
    x.outliers = kind == ROUGH_RESIDUAL;
    op_in mod_mlp = F32(1, 3 * s->width);
    mod_mlp.amplitude = sharp ? 0.03f : 1;
    static const int32_t positions[] = {3,  1,  4,  15, 9,  2,  6,  5,  35, 8,  97, 93, 23, 84, 62,
                                        64, 33, 83, 27, 95, 0,  28, 41, 97, 16, 93, 99, 37, 51, 58,
                                        20, 97, 49, 44, 59, 23, 7,  81, 64, 6,  28, 62, 8,  99, 86,
                                        28, 3,  48, 25, 34, 21, 17, 6,  79, 82, 14, 80, 86, 51, 32};
    op_in cache = {.dtype = s->dtype, .dim = {s->keys, s->kv_heads * s->head}, .state = true};
    if (s->store <= s->first) { /* the rows made come first */
        cache.first = s->store + s->rows > s->first ? s->store + s->rows : s->first;
        cache.rows = s->first + s->len;
    }
    op_in table = F32(100, s->head), at = {.dtype = PV_I32, .dim = {s->rows}, .whole = positions};
    return op_check(&(op_case){
        .op = PV_OP_EXPERT_BLOCK,
        .attr.expert = {1e-6f, s->heads, s->kv_heads, s->store, s->first, 1.0f / sqrtf((float)s->head)},
        .in = {x, F32(1, 3 * s->width), mod_mlp,
               weight(s->dtype, s->heads * s->head, s->width, sharp ? 2 : 1),
               weight(s->dtype, s->kv_heads * s->head, s->width, 1),
               weight(s->dtype, s->kv_heads * s->head, s->width, 1),
               weight(s->dtype, s->width, s->heads * s->head, 1), weight(s->dtype, s->inner, s->width, 1),
               weight(s->dtype, s->inner, s->width, 1), weight(s->dtype, s->width, s->inner, 1), table, at,
               cache, cache, COUNT((int32_t)s->len)},
        .fills = 1u << FILL_RANDOM | 1u << FILL_ZEROS | 1u << FILL_DENORMAL});
}

int test_expert(void)
{
    static const size sizes[] = {
        {PV_F32, 1, 32, 48, 16, 4, 1, 12, 0, 0, 9},
        {PV_F32, 7, 40, 72, 8, 6, 2, 30, 0, 0, 30}, /* up to the last key */
        {PV_F32, 10, 64, 96, 16, 4, 4, 24, 3, 3, 17},
        {PV_F32, 7, 64, 96, 16, 4, 1, 24, 12, 2, 11}, /* rows made in part of use, in part not: no key is NaN */
        {PV_BF16, 1, 64, 128, 16, 4, 1, 12, 0, 0, 9},
        {PV_BF16, 7, 64, 128, 32, 4, 2, 30, 0, 0, 30},
        {PV_BF16, 10, 128, 256, 32, 4, 1, 40, 0, 0, 33},
        {PV_BF16, 10, 64, 128, 32, 2, 1, 40, 5, 8, 20},
        {PV_F16, 5, 64, 96, 16, 4, 1, 24, 0, 0, 20},
        {PV_BF16, 10, 1024, 4096, 256, 8, 1, 40, 0, 0, 30},
        {PV_BF16, 50, 1024, 4096, 256, 8, 1, 118, 0, 0, 110},
        {PV_BF16, 15, 1024, 4096, 256, 8, 1, 400, 0, 0, 390},   /* shares of four tiles, of one and of none */
        {PV_BF16, 33, 1024, 4096, 256, 8, 1, 140, 0, 0, 129},   /* three of the four blocks of rows */
        {PV_BF16, 60, 1024, 4096, 256, 8, 1, 1024, 0, 0, 1024}, /* as many rows and keys as one kernel takes */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < (sizes[i].keys < 120 ? KINDS : ROUGH_RESIDUAL); kind++)
            if (!CHECK(layer(&sizes[i], kind)))
                printf("    layer %d%s\n", (int)i, (const char *[KINDS]){"", ", sharp", ", residual with outliers"}[kind]);
    return test_done();
}
