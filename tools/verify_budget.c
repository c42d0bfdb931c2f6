/* verify_budget.c - how far an honest kernel may be from the CPU's on the same inputs, derived from what it
 * computes.
 *
 * In f32. Every rounding is anywhere within u = 2^-24 of what it rounds. A sum of K terms rounds K times,
 * each time about as much as what has been added up: the errors walk randomly, so the sum of K terms of
 * either sign, whose size grows as sqrt(K) too, is off by about 0.4 u sqrt(K) of itself when added one by
 * one, by less in any other order. Both sides add in an order of their own. SLACK covers terms that cancel
 * and terms of one sign. Of two narrow operands a device may add TILE products at a time and cut off what is
 * below its last bit (tensor cores do): that errs to one side, u for each tile. What only copies must copy.
 *
 * A result in bf16 or f16. Two f32 results that are e apart (relatively) round to the same number but where a
 * border lies between them: in a share p = e / ulp of the elements, which are then a whole ulp apart. So the
 * tensor is ulp sqrt(p) apart, far less than one rounding more or less would make of it. Which ones flip is
 * luck: of n elements the share of the square that flips varies by sqrt(p / n) times the elements' own
 * spread, and a single one may hold many times its share. LUCK and LUMP leave room for thousands of such
 * draws.
 *
 * A composite is the sum of its body's nodes. What a node's error does to those behind it is of the order of
 * 1 but for the scores of attention, which go through exp: an error of the score, absolute, is one of the
 * weight, relative; SCORE is the size of a large score. And a kernel of attention may round the weights to
 * the dtype of v before they meet it. */
#include "verify_local.h"

#include <math.h>

#define U     0x1p-24
#define SLACK 2.0
#define SCORE 16.0
#define TILE  16
#define LUCK  8.0
#define LUMP  24.0

static double sum_of(const pv_node *n, int64_t terms)
{
    bool narrow = n->in[0]->dtype != PV_F32 && n->in[1]->dtype != PV_F32;
    return SLACK * U * (2 + sqrt((double)terms)) + (narrow ? U * (double)terms / TILE : 0);
}

/* Relative L2 of the node's result before it is rounded to its dtype. */
static double error_of(const pv_node *n)
{
    const pv_tensor *x = n->in[0];
    switch (n->op) {
    case PV_OP_LINEAR:
        return sum_of(n, pv_width(x));
    case PV_OP_ATTENTION_SCORES:
        return sum_of(n, pv_width(x) / n->attr.attention.heads);
    case PV_OP_ATTENTION_VALUES:
        return sum_of(n, pv_width(x));
    case PV_OP_SOFTMAX: /* s - max is off by its own rounding, and is an exponent */
        return U * (SCORE + 4);
    case PV_OP_RMS_NORM: /* terms of one sign, in lanes or by a tree: few of the errors remain */
    case PV_OP_LAYER_NORM:
        return U * (4 + sqrt((double)pv_width(x)) / 8);
    case PV_OP_GELU: /* tanh or exp, within some ulp, and its argument */
    case PV_OP_SILU:
        return U * 8;
    case PV_OP_ROPE:
    case PV_OP_AXPY:
    case PV_OP_PATCHIFY: /* a division, which a device may have as a product */
        return U * 3;
    case PV_OP_ADD:
    case PV_OP_MUL:
    case PV_OP_SCALE:
        return U * 2;
    default:
        return 0;
    }
}

static double ulp_of(pv_dtype dtype) /* the middle of what it is, relatively, within a power of two */
{
    return dtype == PV_BF16 ? 0x1.6ap-8 : dtype == PV_F16 ? 0x1.6ap-11 : 0;
}

/* What error e becomes when the tensor is rounded to its dtype. */
static double rounded(double e, pv_dtype dtype, double n)
{
    double ulp = ulp_of(dtype);
    if (ulp == 0 || e == 0)
        return e;
    double p = fmin(e / ulp, 1);
    return ulp * sqrt(fmin(p + LUCK * sqrt(p / n) + LUMP / n, 1)) + e;
}

double verify_budget(pv_graph *body, const pv_node *whole, const pv_tensor *out, int64_t elements)
{
    double e = 0;
    const pv_tensor *v = whole->op == PV_OP_ATTENTION      ? whole->in[2]
                         : whole->op == PV_OP_EXPERT_BLOCK ? whole->in[13]
                                                           : NULL;
    bool *needed =
        pv_arena_alloc(&body->arena, (size_t)body->n_tensors); /* by tensor id: what `out` is made of */
    if (needed)
        needed[out->id] = true;
    for (int i = body->n_nodes - 1; i >= 0; i--) {
        const pv_node *n = body->nodes[i];
        if (needed && !needed[n->out[0]->id])
            continue;
        for (int k = 0; needed && k < n->n_in; k++)
            needed[n->in[k]->id] = true;
        double mine = error_of(n);
        if (n->op == PV_OP_ATTENTION_SCORES && n->out[0] != out)
            mine *= SCORE;
        e += n->out[0] == out ? mine : rounded(mine, n->out[0]->dtype, (double)pv_elements(n->out[0]));
    }
    if (v && !out->base)
        e += ulp_of(v->dtype) / 2;
    return rounded(e, out->dtype, (double)elements);
}
