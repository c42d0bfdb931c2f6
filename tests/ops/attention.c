/* attention.c - scores, softmax, values and the whole, at the head sizes of SigLIP (72), Gemma (256) and others, for
 * lengths around vector widths and those of Pi0.5's prefixes. */
#include "backends/cpu/cpu_math.h"
#include "ops.h"

/* e^x in ulps of the result over [-87, 88], a float in every 1e-4 of the range and its neighbours. */
static void exp_in_ulps(void)
{
    double worst = 0;
    float at = 0;
    for (double x = -87; x <= 88; x += 1e-4) {
        float f = (float)x > 88.0f ? 88.0f : (float)x < -87.0f ? -87.0f : (float)x;
        double want = exp((double)f), ulp = ldexp(1, ilogb(want) - 23), off = fabs((double)cpu_exp(f) - want) / ulp;
        if (off > worst) {
            worst = off;
            at = f;
        }
    }
    printf("cpu_exp: at most %.3f ulp, at %g\n", worst, (double)at);
    CHECK(worst <= 2);
    CHECK(cpu_exp(0) == 1.0f);
    CHECK(isnan(cpu_exp(NAN)) && isnan(cpu_exp(-NAN)));
    CHECK(cpu_exp(-INFINITY) == cpu_exp(-87) && cpu_exp(INFINITY) == cpu_exp(88) && cpu_exp(88) < INFINITY);
}

/* q [queries, heads head] on a cache of `slots` keys, of which those from `first` on take part, `len` of them valid. */
static bool cached(pv_dtype dtype, int heads, int kv_heads, int64_t head, int64_t queries, int64_t slots, int64_t first,
                   int64_t len)
{
    op_in k = {.dtype = dtype, .dim = {slots, kv_heads * head}, .first = first, .rows = first + len};
    pv_attr attr = {.attention = {heads, kv_heads, 1, first, 1.0f / sqrtf((float)head)}};
    op_in q = {.dtype = dtype, .dim = {queries, heads * head}}, count = COUNT((int32_t)len);
    if (len == 0)
        k.first = k.rows = slots; /* none valid */
    bool ok = op_check(&(op_case){.op = PV_OP_ATTENTION, .attr = attr, .in = {q, k, k, count}, .out = {dtype},
                                  .fills = 1u << FILL_RANDOM | 1u << FILL_ZEROS | 1u << FILL_DENORMAL});
    ok &= op_check(&(op_case){.op = PV_OP_ATTENTION_SCORES, .attr = attr, .in = {q, k, count}});
    op_in p = {.dim = {heads, queries, slots - first}, .cols = len ? len : -1};
    return ok & op_check(&(op_case){.op = PV_OP_ATTENTION_VALUES, .attr = attr, .in = {p, k, count}, .out = {dtype}});
}

/* The whole op in a dtype that a kernel of its own would take, at its head sizes and one between; a result in f32 tells
 * the kernel's error from the last rounding. */
#define IN(...) {.dtype = dtype, .dim = {__VA_ARGS__}}
static void whole(pv_dtype dtype)
{
    static const int64_t heads[] = {48, 72, 104, 256},
                         lengths[] = {1, 15, 16, 17, 63, 64, 65, 552, 968, 1000};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            pv_attr attr = {.attention = {6, 2, 1, 20, 1.0f / sqrtf((float)heads[h])}};
            op_in q = {.dtype = dtype, .dim = {6, 6 * heads[h]}, .rows = 5, .counted = true};
            op_in k = {.dtype = dtype, .dim = {1020, 2 * heads[h]}, .first = 20, .rows = 20 + lengths[i]};
            CHECK(op_check(&(op_case){.op = PV_OP_ATTENTION,
                                      .attr = attr,
                                      .in = {q, k, k, COUNT((int32_t)lengths[i])},
                                      .out = {i % 2 ? PV_F32 : dtype},
                                      .fills = 7}));
        }
    /* more lines than one block of a kernel takes, ending inside one; more than a device has blocks for */
    const pv_attr lines = {.attention = {8, 1, 1, 3, 0.1f}}, many = {.attention = {8, 1, 1, 0, -0.2f}};
    op_in k = {.dtype = dtype, .dim = {140, 128}, .first = 3, .rows = 133};
    CHECK_OP(ATTENTION, .attr = lines,
             .in = {{.dtype = dtype, .dim = {30, 8 * 128}, .rows = 21, .counted = true}, k, k, COUNT(130)});
    CHECK_OP(ATTENTION, .attr = many, .in = {IN(1100, 8 * 16), IN(70, 16), IN(70, 16)},
             .out = {dtype});
    /* three pictures */
    const pv_attr pictures = {.attention = {16, 16, 3, 0, 0.12f}};
    CHECK_OP(ATTENTION, .attr = pictures, .in = {IN(300, 16 * 72), IN(300, 16 * 72), IN(300, 16 * 72)},
             .out = {dtype});
    CHECK_OP(ATTENTION, .attr = pictures, .in = {IN(768, 16 * 72), IN(768, 16 * 72), IN(768, 16 * 72)},
             .out = {dtype}, .fills = 7);
    const pv_attr alone = {.attention = {3, 3, 2, 4, 0.3f}}; /* fewer lines than a block takes, keys behind others */
    CHECK_OP(ATTENTION, .attr = alone, .in = {IN(140, 3 * 72), IN(520, 3 * 72), IN(520, 3 * 72)}, .out = {PV_F32});
    /* as many lines as a prefix has, of which some do not count; keys that end inside a tile, on its border, in the first */
    static const int64_t prefix[] = {1, 63, 64, 65, 192, 201};
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++)
        for (int64_t head = 136; head <= 256; head += 120) {
            const pv_attr one = {.attention = {8, 1, 1, 7, 0.07f}};
            op_in keys = {.dtype = dtype, .dim = {208, head}, .first = 7, .rows = 7 + prefix[i]};
            CHECK_OP(ATTENTION, .attr = one,
                     .in = {{.dtype = dtype, .dim = {700, 8 * head}, .rows = 633, .counted = true}, keys, keys,
                            COUNT((int32_t)prefix[i])},
                     .out = {i % 2 ? PV_F32 : dtype}, .fills = i == 5 ? 7 : 0);
        }
    const pv_attr two = {.attention = {8, 1, 2, 0, 0.07f}}; /* the second sequence's lines begin inside a tile of all lines */
    CHECK_OP(ATTENTION, .attr = two, .in = {IN(2 * 281, 8 * 256), IN(2 * 150, 256), IN(2 * 150, 256)}, .out = {dtype});
}

/* The prefix of three pictures, its keys behind the suffix's: what the kernels for many lines share out among a whole GPU. */
static void prefix(int kv_heads, int len, bool outliers)
{
    const pv_attr attr = {.attention = {8, kv_heads, 1, 50, 0.07f}};
    op_in q = {.dtype = PV_BF16, .dim = {968, 8 * 256}, .rows = len, .counted = true};
    op_in k = {.dtype = PV_BF16, .dim = {1018, kv_heads * 256}, .first = 50, .rows = 50 + len}, v = k;
    v.outliers = outliers;
    CHECK_OP(ATTENTION, .attr = attr, .in = {q, k, v, COUNT(len)}, .out = {PV_BF16});
}

/* Scores far apart, of both signs and beyond what one exp can tell: still a mean of v. */
static void far_apart(void)
{
    static const pv_dtype dtypes[] = {PV_F32, PV_BF16};
    const pv_attr attr = {.attention = {4, 1, 1, 0, 1.0f}};
    for (int i = 0; i < 2; i++) {
        op_in q = {.dtype = dtypes[i], .dim = {9, 4 * 48}}, k = {.dtype = dtypes[i], .dim = {150, 48}};
        CHECK(op_check(&(op_case){.op = PV_OP_ATTENTION,
                                  .attr = attr,
                                  .in = {q, k, k},
                                  .out = {PV_F32},
                                  .fills = 1u << FILL_HUGE | 1u << FILL_OUTLIERS}));
    }
}

int test_attention(void)
{
    static const int64_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65};
    exp_in_ulps();
    whole(PV_BF16);
    whole(PV_F16);
    far_apart();
    prefix(1, 968, false);
    prefix(1, 65, false);
    prefix(2, 967, true);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        CHECK(cached(PV_F32, 4, 1, 48, 5, 96, 0, lengths[i]));
        CHECK(cached(PV_F32, 4, 2, 72, 3, 96, 10, lengths[i]));
        CHECK(cached(PV_BF16, 2, 2, 256, 2, 96, 31, lengths[i]));
    }
    CHECK(cached(PV_F32, 2, 1, 16, 4, 64, 0, 64));   /* capacity */
    CHECK(cached(PV_F32, 2, 1, 16, 4, 64, 24, 40));  /* capacity behind `first` */
    CHECK(cached(PV_F16, 2, 1, 24, 4, 64, 24, 40));
    CHECK(cached(PV_F32, 8, 1, 256, 20, 1018, 0, 602));  /* the suffix on 552 tokens of prefix */
    CHECK(cached(PV_F32, 8, 1, 256, 20, 1018, 0, 1018)); /* and on 968 */
    CHECK(cached(PV_F32, 8, 1, 256, 24, 1018, 50, 552)); /* the prefix behind the suffix's slots */
    CHECK(cached(PV_BF16, 8, 1, 256, 12, 1018, 50, 968));
    CHECK(cached(PV_BF16, 8, 1, 256, 50, 1018, 0, 1018)); /* a GPU splits the keys of few queries */
    CHECK(cached(PV_BF16, 8, 1, 256, 3, 1200, 0, 1200));
    CHECK(cached(PV_BF16, 4, 4, 72, 70, 256, 0, 256)); /* a picture */
    CHECK(cached(PV_BF16, 4, 2, 56, 70, 260, 5, 255));
    CHECK(cached(PV_BF16, 4, 4, 80, 64, 130, 0, 1));
    CHECK(cached(PV_BF16, 8, 1, 64, 12, 1018, 50, 968));
    CHECK(cached(PV_BF16, 8, 1, 248, 11, 1018, 50, 601));

    /* independent sequences; counted queries */
    const pv_attr batch = {.attention = {4, 4, 3, 0, 0.12f}}, part = {.attention = {4, 2, 2, 3, 0.2f}};
    CHECK_OP(ATTENTION, .attr = batch, .in = {F32(48, 4 * 72), F32(48, 4 * 72), F32(48, 4 * 72)}, .fills = 7);
    CHECK_OP(ATTENTION_SCORES, .attr = batch, .in = {BF16(48, 4 * 72), BF16(48, 4 * 72)}, .out = {PV_BF16});
    CHECK_OP(ATTENTION_VALUES, .attr = batch, .in = {F32(12, 16, 16), BF16(48, 4 * 72)}, .out = {PV_BF16});
    CHECK_OP(ATTENTION, .attr = part,
             .in = {F32(10, 4 * 8), {.dim = {24, 2 * 8}, .period = 12, .first = 3, .rows = 8},
                    {.dim = {24, 2 * 8}, .period = 12, .first = 3, .rows = 8}, COUNT(5)}, .fills = 7);
    const pv_attr counted = {.attention = {2, 1, 1, 0, 0.25f}};
    CHECK_OP(ATTENTION, .attr = counted,
             .in = {{.dim = {9, 32}, .rows = 4, .counted = true}, {.dim = {20, 16}, .rows = 11}, {.dim = {20, 16}, .rows = 11},
                    COUNT(11)}, .fills = 7);
    CHECK_OP(ATTENTION_SCORES, .attr = counted,
             .in = {{.dim = {9, 32}, .rows = 4, .counted = true}, {.dim = {20, 16}, .rows = 11}, COUNT(11)}, .out = {PV_F16});
    CHECK_OP(ATTENTION_VALUES, .attr = counted,
             .in = {{.dim = {2, 9, 20}, .rows = 4, .cols = 11, .counted = true}, {.dim = {20, 16}, .rows = 11}, COUNT(11)});

    /* both bf16: what a GPU multiplies by its tensor cores; rows, keys and heads that fill no tile, rows of weights of any length */
    const pv_attr grouped = {.attention = {4, 2, 1, 6, 0.2f}}, wide = {.attention = {4, 2, 1, 8, 0}};
    CHECK_OP(ATTENTION_SCORES, .attr = grouped, .in = {BF16(70, 4 * 72), BF16(140, 2 * 72)}, .out = {PV_BF16});
    CHECK_OP(ATTENTION_SCORES, .attr = grouped,
             .in = {{.dtype = PV_BF16, .dim = {70, 4 * 72}, .rows = 65, .counted = true},
                    {.dtype = PV_BF16, .dim = {140, 2 * 72}, .first = 6, .rows = 107}, COUNT(101)});
    CHECK_OP(ATTENTION_VALUES, .attr = grouped, .in = {BF16(4, 70, 134), BF16(140, 2 * 72)}, .out = {PV_BF16});
    CHECK_OP(ATTENTION_VALUES, .attr = wide, .in = {BF16(4, 33, 136), BF16(144, 2 * 256)}, .out = {PV_BF16});
    CHECK_OP(ATTENTION_VALUES, .attr = grouped,
             .in = {{.dtype = PV_BF16, .dim = {4, 70, 134}, .rows = 65, .cols = 101, .counted = true},
                    {.dtype = PV_BF16, .dim = {140, 2 * 72}, .first = 6, .rows = 107}, COUNT(101)});

    CHECK_OP(SOFTMAX, .in = {F32(4, 50, 17)});
    CHECK_OP(SOFTMAX, .in = {F32(3, 1)});
    CHECK_OP(SOFTMAX, .in = {{.dim = {2, 7, 100}, .cols = 33}, COUNT(33)});
    CHECK_OP(SOFTMAX, .in = {{.dim = {2, 7, 100}, .rows = 3, .cols = 64, .counted = true}, COUNT(64)}, .out = {PV_BF16});
    CHECK_OP(SOFTMAX, .in = {{.dim = {2, 4, 968}, .cols = 967, .dtype = PV_BF16}, COUNT(967)});
    return test_done();
}
