/* rope.c - rope on rows anywhere, and straight into the cache. */
#include "ops.h"

int test_rope(void)
{
    static const int32_t up[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, any[] = {9, 0, 3, 3, 20, 1, 2, 0, 0, 7};
    const op_in order = {.dtype = PV_I32, .dim = {10}, .whole = up}, mixed = {.dtype = PV_I32, .dim = {10}, .whole = any};
    CHECK_OP(ROPE, .attr.rope.heads = 1, .in = {F32(10, 2), F32(21, 2), order});
    CHECK_OP(ROPE, .attr.rope.heads = 3, .in = {F32(10, 3 * 10), F32(21, 10), mixed});
    CHECK_OP(ROPE, .attr.rope.heads = 8, .in = {F32(10, 8 * 256), F32(21, 256), mixed}, .out = {PV_BF16});
    CHECK_OP(ROPE, .attr.rope.heads = 2,
             .in = {{.dtype = PV_BF16, .dim = {10, 32}, .rows = 6, .counted = true}, F32(21, 16), mixed});
    /* a table in bf16: each product is rounded */
    CHECK_OP(ROPE, .attr.rope.heads = 2, .in = {BF16(10, 32), BF16(21, 16), mixed}, .out = {PV_BF16}, .cpu_alone = true);
    const pv_attr at5 = {.rope_store = {.heads = 2, .first = 5}};
    CHECK_OP(ROPE_STORE, .attr = at5, .in = {F32(10, 32), F32(21, 16), mixed, {.dim = {15, 32}, .state = true}});
    CHECK_OP(ROPE_STORE, .attr = at5,
             .in = {{.dim = {10, 32}, .rows = 3, .counted = true}, F32(21, 16), order,
                    {.dtype = PV_BF16, .dim = {20, 32}, .state = true}});
    /* the recipe bf16, at the head sizes that kernels meet */
    static const int64_t heads[] = {48, 72, 256};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        op_in x = {.dtype = PV_BF16, .dim = {10, 2 * heads[i]}, .rows = 9, .counted = true};
        op_in state = {.dtype = PV_BF16, .dim = {20, 2 * heads[i]}, .state = true};
        CHECK_OP(ROPE, .attr.rope.heads = 2, .in = {x, F32(21, heads[i]), mixed}, .out = {PV_BF16});
        CHECK_OP(ROPE_STORE, .attr = at5, .in = {x, F32(21, heads[i]), order, state});
    }

    static const struct {
        int heads, kv_heads;
        int64_t head;
    } shapes[] = {{3, 3, 10}, {4, 1, 16}, {8, 1, 256}, {4, 2, 24}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int narrow = 0; narrow < 2; narrow++) {
            pv_dtype dtype = narrow ? PV_BF16 : PV_F32;
            const pv_attr cache = {.rope_cache = {shapes[i].heads, shapes[i].kv_heads, 4}};
            int64_t head = shapes[i].head, wide = shapes[i].heads * head, slim = shapes[i].kv_heads * head;
            op_in q = {.dtype = dtype, .dim = {10, wide}, .rows = 7, .counted = true};
            op_in k = {.dtype = dtype, .dim = {10, slim}, .rows = 7, .counted = true};
            op_in state = {.dtype = dtype, .dim = {15, slim}, .state = true};
            CHECK_OP(ROPE_CACHE, .attr = cache, .in = {q, k, k, F32(21, head), mixed, state, state}, .out = {dtype});
        }
    int32_t many[200];
    for (int i = 0; i < 200; i++)
        many[i] = i * 7 % 21;
    /* the same from the products on: rows that are few and many, heads that no tile divides, all of Pi0.5's */
    static const struct {
        int heads, kv_heads;
        int64_t head, rows, width;
    } products[] = {{3, 3, 10, 7, 20}, {4, 1, 16, 10, 72}, {2, 1, 72, 130, 136}, {8, 1, 256, 50, 1024}, {8, 1, 256, 200, 264}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        for (int narrow = 0; narrow < 3; narrow++) {
            pv_dtype dtype = (pv_dtype[]){PV_F32, PV_BF16, PV_F16}[narrow];
            int64_t rows = products[i].rows, head = products[i].head, wide = products[i].heads * head,
                    slim = products[i].kv_heads * head, K = products[i].width;
            const pv_attr cache = {.linear_rope_cache = {{products[i].heads, products[i].kv_heads, 4}, dtype}};
            op_in x = {.dtype = dtype, .dim = {rows, K}, .rows = (int)rows - 3, .counted = true};
            op_in w_q = {.dtype = dtype, .dim = {wide, K}}, w = {.dtype = dtype, .dim = {slim, K}};
            op_in state = {.dtype = dtype, .dim = {rows + 5, slim}, .state = true};
            op_in positions = {.dtype = PV_I32, .dim = {rows}, .whole = many};
            CHECK_OP(LINEAR_ROPE_CACHE, .attr = cache, .in = {x, w_q, w, w, F32(21, head), positions, state, state}, .out = {dtype});
        }
    const pv_attr all = {.rope_cache = {2, 1, 0}};
    CHECK_OP(ROPE_CACHE, .attr = all,
             .in = {F32(10, 32), BF16(10, 16), F32(10, 16), F32(21, 16), order, {.dim = {10, 16}, .state = true},
                    {.dtype = PV_F16, .dim = {11, 16}, .state = true}}, .out = {PV_BF16});
    return test_done();
}
