/* selftest_cases.c - small inputs for every op that a device may have variants of: sizes that tiles divide and sizes that they do not,
 * counted rows and keys among them. Add a case where a variant takes shapes that none of these has: it is told as not tested else. */
#include "selftest.h"

#define X(...)      {PV_CASE_X, {__VA_ARGS__}}
#define W(...)      {PV_CASE_W, {__VA_ARGS__}}
#define F(...)      {PV_CASE_F32, {__VA_ARGS__}}
#define KEYS(...)   {PV_CASE_KEYS, {__VA_ARGS__}}
#define COLS(...)   {PV_CASE_COLS, {__VA_ARGS__}}
#define STATE(...)  {PV_CASE_STATE, {__VA_ARGS__}}
#define STATEX(...) {PV_CASE_STATE_X, {__VA_ARGS__}}
#define LEN         {PV_CASE_LEN, {1}}
#define PLACES(n)   {PV_CASE_PLACES, {n}}
#define U8(...)     {PV_CASE_U8, {__VA_ARGS__}}
#define EPS         .attr.norm.eps = 1e-6f

const pv_selftest_case pv_selftest_cases[] = {
    {PV_OP_LINEAR, .in = {X(5, 24), W(40, 24), F(40)}},
    {PV_OP_LINEAR, .in = {X(64, 128), W(128, 128)}},
    {PV_OP_LINEAR, .in = {X(50, 64), W(66, 64), F(66)}, .rows = 17},
    {PV_OP_LINEAR, .in = {X(1, 256), W(64, 256)}},
    {PV_OP_LINEAR_ADD, .in = {X(50, 64), W(64, 64), F(50, 64), F(64)}, .rows = 0},
    {PV_OP_LINEAR_ADD, .in = {X(64, 128), W(128, 128), F(64, 128)}},
    {PV_OP_LINEAR_GELU, .in = {X(50, 64), W(66, 64), F(66)}, .rows = 49},
    {PV_OP_LINEAR_GELU, .in = {X(64, 128), W(128, 128), F(128)}},
    {PV_OP_LINEAR_GEGLU, .in = {X(50, 64), W(66, 64), W(66, 64)}, .rows = 49},
    {PV_OP_LINEAR_GEGLU, .in = {X(64, 128), W(128, 128), W(128, 128)}},
    {PV_OP_LINEAR_GATED, .in = {X(50, 64), W(66, 64), F(50, 66), F(1, 198)}},
    {PV_OP_LINEAR_GATED, .in = {X(64, 128), W(128, 128), F(64, 128), F(1, 384), F(128)}},
    {PV_OP_LINEAR_GATED_NORM, EPS, .in = {X(50, 64), W(68, 64), F(50, 68), F(1, 204), F(1, 204)}},
    {PV_OP_LINEAR_GATED_NORM, EPS, .in = {X(16, 1024), W(16, 1024), F(16, 16), F(1, 48), F(1, 48)}},
    {PV_OP_LINEAR_ADD_NORM, .attr.linear_add_norm = {1e-6f, true}, .in = {X(50, 64), W(68, 64), F(50, 68), F(68), F(68), F(68)}},
    {PV_OP_LINEAR_ADD_NORM, .attr.linear_add_norm = {1e-6f, false}, .in = {X(16, 1024), W(16, 1024), F(16, 16), F(16)}},
    {PV_OP_LINEAR_ADD_NORM, .attr.linear_add_norm = {1e-6f, true}, .in = {X(8, 8), W(1152, 8), F(8, 1152), F(1152), F(1152)}},
    {PV_OP_LINEAR_ADD_NORM, .attr.linear_add_norm = {1e-6f, false}, .in = {X(7, 8), W(2048, 8), F(7, 2048), F(2048)}},
    {PV_OP_LINEAR_GROUP, .attr.group.n = 3, .in = {X(50, 64), W(64, 64), W(66, 64), W(32, 64)}, .rows = 31},
    {PV_OP_LINEAR_GROUP, .attr.group.n = 2, .in = {X(64, 128), W(128, 128), W(64, 128), F(128), F(64)}},

    {PV_OP_ATTENTION_SCORES, .attr.attention = {4, 2, 1, 3, 0.25f}, .in = {X(9, 64), KEYS(20, 32), LEN}, .first = 3, .len = 11},
    {PV_OP_ATTENTION_SCORES, .attr.attention = {2, 2, 2, 0, 0.1f}, .in = {X(34, 144), KEYS(34, 144)}, .len = 34},
    {PV_OP_SOFTMAX, .in = {COLS(3, 7, 40), LEN}, .len = 33},
    {PV_OP_SOFTMAX, .in = {COLS(2, 9, 100)}, .len = 100},
    {PV_OP_ATTENTION_VALUES, .attr.attention = {4, 2, 1, 3, 0}, .in = {COLS(4, 9, 17), KEYS(20, 32), LEN}, .first = 3, .len = 11},
    {PV_OP_ATTENTION_VALUES, .attr.attention = {2, 1, 1, 0, 0}, .in = {COLS(2, 33, 64), KEYS(64, 72)}, .len = 64},
    {PV_OP_ATTENTION, .attr.attention = {4, 1, 1, 10, 0.125f}, .in = {X(17, 256), KEYS(75, 64), KEYS(75, 64), LEN}, .rows = 16,
     .first = 10, .len = 65, .sharp = true},
    {PV_OP_ATTENTION, .attr.attention = {2, 1, 1, 0, 0.0625f}, .in = {X(20, 512), KEYS(40, 256), KEYS(40, 256), LEN}, .len = 33,
     .sharp = true},
    {PV_OP_ATTENTION, .attr.attention = {4, 1, 1, 0, 0.0625f}, .in = {X(130, 544), KEYS(40, 136), KEYS(40, 136), LEN}, .len = 37,
     .sharp = true},
    {PV_OP_ATTENTION, .attr.attention = {4, 1, 1, 0, 0.0625f}, .in = {X(130, 544), KEYS(20, 136), KEYS(20, 136)}, .len = 20, .rows = 129,
     .sharp = true},
    {PV_OP_ATTENTION, .attr.attention = {2, 2, 2, 0, 0.1f}, .in = {X(34, 144), KEYS(34, 144), KEYS(34, 144)}, .len = 34, .sharp = true},
    {PV_OP_ATTENTION, .attr.attention = {11, 1, 67, 0, 0.3f}, .in = {X(201, 88), KEYS(1340, 8), KEYS(1340, 8)}, .len = 1340,
     .sharp = true},

    {PV_OP_RMS_NORM, EPS, .in = {X(20, 96), F(96)}, .rows = 13},
    {PV_OP_RMS_NORM, EPS, .in = {X(3, 1024)}},
    {PV_OP_LAYER_NORM, EPS, .in = {X(20, 72), F(72), F(72)}, .rows = 13},
    {PV_OP_LAYER_NORM, EPS, .in = {X(3, 1152), F(1152), F(1152)}},
    {PV_OP_ADA_RMS_NORM, EPS, .in = {X(20, 33), F(99)}, .rows = 13},
    {PV_OP_ADA_RMS_NORM, EPS, .in = {X(3, 1024), F(1, 3072)}},
    {PV_OP_GATED_NORM, EPS, .in = {X(20, 33), X(20, 33), F(99), F(99)}, .rows = 13},
    {PV_OP_GATED_NORM, EPS, .in = {F(3, 1024), X(3, 1024), F(1, 3072), F(1, 3072)}},

    {PV_OP_ROPE, .attr.rope.heads = 3, .in = {X(10, 30), F(8, 10), PLACES(10)}, .rows = 7},
    {PV_OP_ROPE, .attr.rope.heads = 2, .in = {X(10, 512), F(8, 256), PLACES(10)}},
    {PV_OP_ROPE_STORE, .attr.rope_store = {2, 5}, .in = {X(10, 64), F(8, 32), PLACES(10), STATEX(20, 64)}, .rows = 7},
    {PV_OP_ROPE_CACHE, .attr.rope_cache = {4, 1, 3},
     .in = {X(10, 128), X(10, 32), X(10, 32), F(8, 32), PLACES(10), STATEX(20, 32), STATEX(20, 32)}, .rows = 7},

    {PV_OP_LINEAR_ROPE_CACHE, .attr.linear_rope_cache.rope_cache = {4, 1, 3},
     .in = {X(10, 64), W(128, 64), W(32, 64), W(32, 64), F(8, 32), PLACES(10), STATEX(20, 32), STATEX(20, 32)}, .rows = 7},
    {PV_OP_LINEAR_ROPE_CACHE, .attr.linear_rope_cache.rope_cache = {2, 1, 0},
     .in = {X(70, 96), W(144, 96), W(72, 96), W(72, 96), F(8, 72), PLACES(70), STATEX(75, 72), STATEX(75, 72)}},

    {PV_OP_ADD, .in = {X(9, 40), X(9, 40)}, .rows = 4},
    {PV_OP_ADD, .in = {X(3, 8, 16), F(8, 16)}},
    {PV_OP_MUL, .in = {X(9, 40), X(9, 40)}, .rows = 4},
    {PV_OP_MUL, .in = {X(7, 65), F(65)}},
    {PV_OP_SCALE, .attr.scale.factor = -1.5f, .in = {X(9, 77)}},
    {PV_OP_SCALE, .attr.scale.factor = 3, .in = {X(9, 40)}, .rows = 4},
    {PV_OP_GELU, .in = {X(9, 77)}},
    {PV_OP_GELU, .in = {X(9, 40)}, .rows = 4},
    {PV_OP_SILU, .in = {X(9, 77)}},
    {PV_OP_SILU, .in = {X(9, 40)}, .rows = 4},
    {PV_OP_AXPY, .in = {STATEX(10, 32), F(1), X(10, 32)}},
    {PV_OP_AXPY, .in = {X(3, 4, 5), F(1, 1), X(3, 4, 5)}},
    {PV_OP_EULER_STEP, EPS, .in = {X(10, 64), F(192), F(30, 64), F(30), STATEX(10, 30), F(1)}},
    {PV_OP_GEGLU, .in = {X(9, 77), X(9, 77)}, .rows = 8},
    {PV_OP_GEGLU, .in = {X(4, 256), X(4, 256)}},
    {PV_OP_GATED_RESIDUAL, .in = {X(20, 40), X(20, 40), F(120)}, .rows = 13},
    {PV_OP_GATED_RESIDUAL, .in = {F(3, 1024), X(3, 1024), F(1, 3072)}},
    {PV_OP_CAST, .in = {X(9, 77)}, .rows = 8},
    {PV_OP_CAST, .in = {F(9, 64)}},
    {PV_OP_SLICE, .attr.range = {3, 5}, .in = {X(7, 20)}, .rows = 6},
    {PV_OP_CONCAT, .in = {F(6, 10), X(4, 10), LEN}, .rows = 3, .len = 9},
    {PV_OP_CONCAT, .in = {X(6, 16), X(4, 16)}},
    {PV_OP_ROW, .in = {X(10, 30), LEN}, .len = 9},
    {PV_OP_STORE, .attr.range.first = 3, .in = {STATE(20, 8), X(10, 8)}, .rows = 7},
    {PV_OP_PATCHIFY, .attr.patch.size = 4, .in = {U8(2, 8, 12, 3)}},
    {PV_OP_PATCHIFY, .attr.patch.size = 14, .in = {U8(1, 28, 28, 3)}},
};
const int pv_selftest_n_cases = (int)(sizeof pv_selftest_cases / sizeof *pv_selftest_cases);
