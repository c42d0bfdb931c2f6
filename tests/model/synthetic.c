/* synthetic.c - the checkpoint that is made from a hash, against check values that another program computed:
 * data/synthetic_checksums.json has every tensor's name, shape and checksum (sum of bits(i) (2 i + 1) mod
 * 2^64 over its bf16 patterns). Full: all 3.35 G elements; else the small tensors whole and the others'
 * places alone. */
#include "base/memory.h"
#include "base/thread.h"
#include "io/json.h"
#include "model/pi05.h"
#include "model/synthetic.h"
#include "tests/test.h"

#include <inttypes.h>
#include <stdatomic.h>

#define CHUNK 65536

typedef struct sum {
    const char *name;
    int n_dims;
    int64_t fan_in, n;
    atomic_ullong sum;
} sum;

static void add_chunk(void *user, int64_t i, int worker)
{
    sum *s = user;
    uint16_t bits[4096];
    uint64_t part = 0;
    (void)worker;
    int64_t end = (i + 1) * CHUNK < s->n ? (i + 1) * CHUNK : s->n;
    for (int64_t first = i * CHUNK; first < end; first += 4096) {
        int64_t n = end - first < 4096 ? end - first : 4096;
        pv_synthetic_weights(s->name, s->n_dims, s->fan_in, first, n, bits);
        for (int64_t k = 0; k < n; k++)
            part += bits[k] * (2 * (uint64_t)(first + k) + 1);
    }
    atomic_fetch_add(&s->sum, part);
}

static uint64_t checksum(pv_pool *pool, const char *name, int n_dims, int64_t fan_in, int64_t n)
{
    sum s = {.name = name, .n_dims = n_dims, .fan_in = fan_in, .n = n};
    pv_pool_run(pool, (n + CHUNK - 1) / CHUNK, add_chunk, &s);
    return s.sum;
}

static void all_checksums(int64_t most)
{
    cJSON *table = NULL;
    const cJSON *row, *v;
    pv_pool *pool = NULL;
    pv_graph *g = pv_graph_create();
    pv_config c;
    pv_config_full(&c);
    c.horizon = 50;
    if (!CHECK_OK(pv_json_read("data/synthetic_checksums.json", 1 << 20, &table)) ||
        !CHECK_OK(pv_pool_create(0, &pool)) || !CHECK(g != NULL))
        return;
    pv_pi05_build(g, &c, &(pv_pi05_shape){.views = 1, .tokens = 1});
    CHECK_OK(pv_graph_status(g));
    int rows = 0, whole = 0, weights = 0;
    uint64_t total = 0;
    cJSON_ArrayForEach(row, table)
    {
        int64_t n = 1, fan_in = 1;
        int n_dims = 0;
        cJSON_ArrayForEach(v, cJSON_GetObjectItemCaseSensitive(row, "shape"))
        {
            n *= (int64_t)v->valuedouble;
            fan_in *= n_dims++ ? (int64_t)v->valuedouble : 1;
        }
        const pv_tensor *w = pv_graph_find(g, row->string);
        bool embedding = !strcmp(row->string, PV_EMBEDDING_NAME);
        if (!CHECK(embedding ? n == (int64_t)c.vocab * c.gemma.width
                             : w && w->usage == PV_WEIGHT && pv_elements(w) == n))
            printf("    %s\n", row->string);
        rows++;
        uint64_t want =
            strtoull(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "checksum")), NULL, 16);
        total += want;
        if (n > most)
            continue;
        whole++;
        uint64_t got = checksum(pool, row->string, n_dims, fan_in, n);
        if (!CHECK(got == want))
            printf("    %s: expected %016" PRIx64 ", came %016" PRIx64 "\n", row->string, want, got);
    }
    for (int i = 0; i < g->n_tensors; i++)
        weights += g->tensors[i]->usage == PV_WEIGHT;
    printf("%d tensors, %d whole\n", rows, whole);
    CHECK(rows == 811 && weights + 1 == rows);
    CHECK(total == 0xe33727fb67cc8d25);
    pv_graph_destroy(&g);
    pv_pool_destroy(&pool);
    cJSON_Delete(table);
}

/* Name's hash, H(name, 0) and the first patterns, for every rule of the table. */
static void first_values(void)
{
    static const struct {
        const char *name;
        uint64_t fnv, h;
        uint16_t bits[8];
        int n_dims, fan_in;
    } rows[] = {
        {PV_EMBEDDING_NAME,
         0x848cace8b3d52232,
         0xfbb7afcc0d90abef,
         {0x3d18, 0xbcc9, 0x3c9f, 0x3cce, 0xbcec, 0x3cae, 0x3c34, 0xbcdf},
         2,
         2048},
        {"action_in_proj.weight",
         0x1c69486e17c5b263,
         0xe18b2fb9249e6ee0,
         {0x3e6f, 0x3d95, 0x3d4c, 0x3e5a, 0xbe83, 0x3e9b, 0x3e8e, 0x3e61},
         2,
         32},
        {"action_in_proj.bias",
         0xfd923f5c4e04e41e,
         0x8dacc446d70ec532,
         {0x3c5b, 0x3d8b, 0x3df8, 0xbd54, 0xbd69, 0x3d26, 0xbc04, 0xbdfd},
         1,
         1},
        {"paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder.layers.3.layer_norm1."
         "weight",
         0x7e1ca6f7a34d22ba,
         0x3ca39be11d84fc01,
         {0x3f6f, 0x3f60, 0x3f67, 0x3f6c, 0x3f7d, 0x3f89, 0x3f88, 0x3f87},
         1,
         1},
        {"paligemma_with_expert.gemma_expert.model.layers.7.self_attn.q_proj.weight",
         0x0f1f015e87b9e0d9,
         0x411aa3bd378920c0,
         {0xbd5a, 0x3d3c, 0xbd4a, 0x3da0, 0xbca6, 0xbd8d, 0x3dce, 0xbb71},
         2,
         1024},
        {"paligemma_with_expert.gemma_expert.model.layers.7.input_layernorm.dense.bias",
         0x4de93fee2d788acc,
         0xae764308b81d6985,
         {0x3e3a, 0x3eb7, 0x3ef7, 0xbebf, 0x3e84, 0xbeda, 0xbe66, 0xbce4},
         1,
         1},
    };
    CHECK(pv_hash(pv_fnv1a64(""), 0) == 0xc3817c016ba4ff30);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint16_t bits[8], one;
        CHECK(pv_fnv1a64(rows[i].name) == rows[i].fnv);
        CHECK(pv_hash(rows[i].fnv, 0) == rows[i].h);
        pv_synthetic_weights(rows[i].name, rows[i].n_dims, rows[i].fan_in, 0, 8, bits);
        if (!CHECK(!memcmp(bits, rows[i].bits, sizeof bits)))
            printf("    %s\n", rows[i].name);
        for (int k = 0; k < 8; k++) { /* from any place on, the same */
            pv_synthetic_weights(rows[i].name, rows[i].n_dims, rows[i].fan_in, k, 1, &one);
            CHECK(one == bits[k]);
        }
    }
}

static void inputs(void)
{
    static const int32_t want_tokens[] = {178310, 10311, 124688, 246627};
    static const float want_noise[] = {-0x1.09cd6p-5f, 0x1.4229p-2f, -0x1.043cb2p+0f, 0x1.96cc3cp+0f};
    static const uint8_t want_pixel[] = {64, 47, 84};
    int32_t tokens[4];
    float noise[4];
    uint8_t pixel[3];
    pv_synthetic_tokens("F", 4, 257152, tokens);
    pv_synthetic_noise("F", 4, noise);
    pv_synthetic_image("F", "base_0_rgb", 3, pixel);
    CHECK(!memcmp(tokens, want_tokens, sizeof tokens));
    CHECK(!memcmp(pixel, want_pixel, sizeof pixel));
    for (int i = 0; i < 4; i++)
        CHECK(noise[i] == want_noise[i]);
}

int main(int argc, char **argv)
{
    bool full = argc > 1 && !strcmp(argv[1], "full");
    first_values();
    inputs();
    all_checksums(full ? INT64_MAX : 1 << 20);
    return test_done();
}
