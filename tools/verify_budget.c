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
 * A result in bf16 or f16. Two results that are e apart (relatively) round to the same number but where a
 * border lies between them: in a share p = e / ulp of the elements, which are then a whole ulp apart. So the
 * tensor is ulp sqrt(p) apart, far less than one rounding more or less would make of it; and never more than
 * two roundings that have nothing to do with each other, ulp sqrt(1 / 6). Which ones flip is luck: of n
 * elements the share of the square that flips varies by sqrt(p / n) times the elements' own spread, and a
 * single one may hold many times its share. LUCK and LUMP leave room for thousands of such draws.
 *
 * A composite is its body: errors go from node to node, those of several inputs as independent ones. What a
 * node makes of its inputs' errors is of the order of them but for the scores of attention, which go through
 * exp: an error of the score, absolute, is one of the weight, relative; SCORE is the size of a score. And a
 * kernel of attention may round the weights to the dtype of v before they meet it. */
#include "verify_local.h"

#include <math.h>

#define U     0x1p-24
#define SLACK 2.0
#define SCORE 4.0
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
    case PV_OP_SOFTMAX: /* s - max, up to some 16, is off by its own rounding, and is an exponent */
        return U * 20;
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
    case PV_OP_SCALE_FOR: /* one quotient or product */
    case PV_OP_QUANTIZE:
    case PV_OP_DEQUANTIZE:
        return U;
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
    return dtype == PV_BF16 ? 0x1.6ap-8 : dtype == PV_F16 ? 0x1.6ap-11 : dtype == PV_E4M3 ? 0x1.6ap-4 : 0;
}

/* What error e becomes when n elements are rounded to a dtype. */
static double rounded(double e, pv_dtype dtype, double n)
{
    double ulp = ulp_of(dtype);
    if (ulp == 0 || e == 0)
        return e;
    double p = e / ulp;
    return sqrt(e * e + SLACK * ulp * ulp * fmin(p + LUCK * sqrt(p / n) + LUMP / n, 1.0 / 6));
}

/* Of the node's result, with the errors of what it reads, by tensor id. */
static double error_behind(const pv_node *n, const double *error, bool alone, double elements)
{
    double mine = error_of(n), e2 = mine * mine;
    for (int k = 0; k < n->n_in; k++)
        e2 += error[n->in[k]->id] * error[n->in[k]->id];
    if (n->op == PV_OP_ATTENTION_VALUES && !alone) /* the weights were nobody's tensor */
        e2 += ulp_of(n->in[1]->dtype) / 2 * ulp_of(n->in[1]->dtype) / 2;
    double e = sqrt(e2) * (n->op == PV_OP_ATTENTION_SCORES && !alone ? SCORE : 1);
    return rounded(e, n->out[0]->dtype, elements);
}

double verify_budget(pv_graph *body, const pv_tensor *out, int64_t elements)
{
    double *error = pv_arena_alloc(&body->arena, sizeof *error * (size_t)body->n_tensors);
    if (!error)
        return -1;
    for (int i = 0; i < body->n_nodes; i++) {
        const pv_node *n = body->nodes[i];
        const pv_tensor *t = n->out[0];
        error[t->id] =
            error_behind(n, error, body->n_nodes == 1, (double)(t == out ? elements : pv_elements(t)));
    }
    return error[out->id];
}
