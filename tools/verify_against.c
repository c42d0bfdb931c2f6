/* verify_against.c - the same inputs through one plan on each of two backends, compared tensor by tensor, and
 * each op of the plan under test on its own (verify_local.h).
 *
 * What is compared is what the plan under test makes, op by op: the tensors of its own nodes, fused and
 * lowered as in `run`. The reference's plan makes tensors of the same names; where it makes none (both claim
 * other ops, or one recipe casts and the other does not) the op is judged by itself alone, and the report
 * says so. On the CPU, which claims primitives alone, hardly anything has no counterpart. Tensors born in a
 * body have a running number in their name; these are told apart by their order instead.
 *
 * Activations of a full-size model are gigabytes, so they are looked at in rounds: each holds
 * (pv_plan_params.hold) as many of them as `hold_bytes` allows, with what their nodes read, runs the stages
 * it needs on all sides, step by step in turn, and compares piece by piece. Every round runs the same nodes
 * on the same inputs. In the end the steps run in a row, as in `run`: a backend may have recorded that apart,
 * without the nodes that pick a step's row of a table; so those are not compared. */
#include "base/memory.h"
#include "session/schedule.h"
#include "verify_local.h"
#include "verify_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((int64_t)1 << 20) /* elements compared at once, or one row where a row is longer */

enum {
    OURS,
    REF,
    BASE,
    SIDES
}; /* under test; the reference; the CPU in f32, beside a reference in another recipe */

typedef struct side {
    pv_backend *backend;
    const char *recipe;
    pv_weights *weights;
    pv_runner *runner; /* of the round; before the first, a plan to look at */
    bool *held;        /* by tensor id: of this round */
    int n_tensors;
} side;

typedef struct place { /* of an output; node -1: there is none */
    int node, out;
} place;

typedef struct item { /* beside the entry of the same index */
    place at[SIDES];
    pv_stage stage;         /* PV_STAGE_COUNT: the steps in a row */
    int round, failed_step; /* -1: not looked at; within bounds so far */
    double own_gate;        /* a gate's bound on the own error; -1: none */
    int input; /* id, in the plan under test, of a constant or of what the host wrote; -1: it is none */
} item;

typedef struct against {
    pv_model *model;
    const against_params *p;
    verify_report *report;
    side side[SIDES];
    int n_sides;
    pv_backend *cpu, *opened; /* who runs ops on their own; opened here for that, or NULL */
    pv_weights *cpu_weights, *loaded;
    item *items;
    float *times, *dt;
    void *x_t; /* of the side under test, before the step */
    void *raw;
    float *x, *y;
    int64_t piece;
} against;

static const pv_graph *graph_of(const against *a, int s)
{
    return a->side[s].runner->plan->graph;
}

/* ---- which tensor is which ---- */

/* The name without the running numbers of what has none of its own: "a/mul#12" -> "a/mul". */
static void plain_name(const char *name, char *plain, size_t size)
{
    size_t n = 0;
    for (const char *c = name; *c && n + 1 < size;) {
        if (*c == '#')
            c += 1 + strspn(c + 1, "0123456789");
        else
            plain[n++] = *c++;
    }
    plain[n] = 0;
}

/* The `nth` output called `name`, plain or in full; true and its place if there is one. */
static bool find_output(const pv_graph *g, const char *name, bool plain, int nth, int *node, int *out)
{
    char other[256];
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_out; k++) {
            snprintf(other, sizeof other, "%s", g->nodes[i]->out[k]->name);
            if (plain)
                plain_name(g->nodes[i]->out[k]->name, other, sizeof other);
            if (!strcmp(other, name) && nth-- == 0) {
                *node = i;
                *out = k;
                return true;
            }
        }
    return false;
}

/* Names given while the model was built are the same on all sides; those of bodies have a '/'. */
static bool find_there(const against *a, place ours, int s, place *there)
{
    const pv_graph *g = graph_of(a, OURS), *other = graph_of(a, s);
    const char *full = g->nodes[ours.node]->out[ours.out]->name;
    char plain[256];
    int nth = 0;
    place at;
    if (!strchr(full, '/'))
        return find_output(other, full, false, 0, &there->node, &there->out);
    plain_name(full, plain, sizeof plain);
    while (find_output(g, plain, true, nth, &at.node, &at.out) &&
           (at.node != ours.node || at.out != ours.out))
        nth++;
    return find_output(other, plain, true, nth, &there->node, &there->out);
}

static const pv_node *node_of(const against *a, const item *it, int s)
{
    return graph_of(a, s)->nodes[it->at[s].node];
}

static const pv_tensor *tensor_of(const against *a, const item *it, int s)
{
    if (it->input < 0)
        return node_of(a, it, s)->out[it->at[s].out];
    const pv_tensor *ours = graph_of(a, OURS)->tensors[it->input];
    return s == OURS ? ours : pv_graph_find(graph_of(a, s), ours->name);
}

static bool as_large(const pv_tensor *x, const pv_tensor *y)
{
    return pv_elements(x) == pv_elements(y) && pv_width(x) == pv_width(y) &&
           pv_row_count(x) == pv_row_count(y);
}

static verify_entry *new_entry(against *a, const char *name, const char *op, item it)
{
    verify_entry *e = &a->report->entries[a->report->n_entries];
    a->items[a->report->n_entries++] = it;
    *e = (verify_entry){.state = VERIFY_COMPARED,
                        .op = op,
                        .step = -1,
                        .worst = -1,
                        .ok = true,
                        .same_bytes = true,
                        .what.kind = TRACE_TENSOR,
                        .local.step = -1,
                        .local.failed_step = -1,
                        .recipe.step = -1,
                        .recipe.failed_step = -1};
    plain_name(name, e->name, sizeof e->name);
    a->items[a->report->n_entries - 1].own_gate = -1;
    e->input = it.input >= 0;
    snprintf(e->what.tensor, sizeof e->what.tensor, "%.*s", (int)sizeof e->what.tensor - 1, e->name);
    return e;
}

/* What the host wrote and what the plans hold as constants is the same on both sides, or all behind it is for
 * nothing. */
static void add_inputs(against *a)
{
    const pv_graph *g = graph_of(a, OURS);
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i], *r;
        if ((t->usage != PV_IO && t->usage != PV_CONST) || t == g->step || t->offset == PV_NOWHERE)
            continue;
        r = pv_graph_find(graph_of(a, REF), t->name);
        if (!r || r->usage != t->usage || r->offset == PV_NOWHERE || r->dtype != t->dtype || !as_large(t, r))
            continue;
        item it = {.at = {{-1, 0}, {-1, 0}, {-1, 0}},
                   .stage = PV_STAGE_VISION,
                   .round = -1,
                   .failed_step = -1,
                   .input = i};
        new_entry(a, t->name, t->usage == PV_IO ? "input" : "constant", it);
    }
}

static void add_output(against *a, const pv_node *n, place at)
{
    const pv_tensor *t = n->out[at.out], *r = NULL, *base;
    item it = {.at = {at, {-1, 0}, {-1, 0}}, .stage = n->stage, .round = -1, .failed_step = -1, .input = -1};
    if (find_there(a, at, REF, &it.at[REF]))
        r = graph_of(a, REF)->nodes[it.at[REF].node]->out[it.at[REF].out];
    if (n->op != PV_OP_ROW && r && a->n_sides > BASE && find_there(a, at, BASE, &it.at[BASE])) {
        base = graph_of(a, BASE)->nodes[it.at[BASE].node]->out[it.at[BASE].out];
        if (!as_large(base, r))
            it.at[BASE].node = -1;
    } else {
        it.at[BASE].node = -1;
    }
    verify_entry *e = new_entry(a, t->name, pv_ops[n->op].name, it);
    if (!a->report->exact)
        e->bound = a->p->bound > 0 ? a->p->bound
                   : strcmp(a->p->recipe, "f32") || strcmp(a->p->ref_recipe, "f32")
                       ? 0
                       : verify_bound(&a->model->config, &e->what);
    e->gated = verify_gate_bound(a->p->gate, e->name, VERIFY_SUM, &e->bound);
    verify_gate_bound(a->p->gate, e->name, VERIFY_LOCAL, &a->items[a->report->n_entries - 1].own_gate);
    if (n->op == PV_OP_ROW)
        e->why = "a table's row, which may be read in place";
    else if (!r)
        e->why = "the reference makes no such tensor";
    else if (!as_large(r, t))
        e->why = "the reference's has another shape";
    if (e->why)
        e->state = VERIFY_NOT_COMPARED;
    if (e->state != VERIFY_COMPARED)
        a->items[a->report->n_entries - 1].at[BASE].node = -1;
}

/* The actions once more, as they come of all steps in a row. */
static void add_loop(against *a)
{
    verify_report *r = a->report;
    for (int i = 0, n = r->n_entries; i < n; i++) {
        item it = a->items[i];
        if (it.input >= 0 || r->entries[i].state != VERIFY_COMPARED ||
            pv_state_root(tensor_of(a, &it, OURS)) != a->side[OURS].runner->x_t)
            continue;
        it.stage = PV_STAGE_COUNT;
        it.round = it.at[BASE].node = -1;
        verify_entry *e = new_entry(a, "actions, steps in a row", r->entries[i].op, it);
        e->what = r->entries[i].what;
        e->bound = r->entries[i].bound;
        e->gated = verify_gate_bound(a->p->gate, e->name, VERIFY_SUM, &e->bound);
        return;
    }
}

/* Bytes that a round holds more for this node: of its outputs, and of what it reads that the round has not
 * yet. `in_round`, by tensor id: the last round that has it. */
static size_t more_bytes(const pv_node *n, const int *in_round, int round)
{
    size_t bytes = 0;
    for (int k = 0; k < n->n_out; k++)
        bytes += pv_tensor_bytes(n->out[k]);
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k]->usage == PV_SCRATCH && in_round[n->in[k]->id] != round)
            bytes += pv_tensor_bytes(n->in[k]);
    return bytes;
}

/* Which node is looked at in which round. */
static pv_status deal_rounds(against *a)
{
    const pv_graph *g = graph_of(a, OURS);
    int *in_round = pv_alloc(sizeof *in_round * (size_t)(g->n_tensors + 1)), node = -1;
    size_t used = 0;
    for (int i = 0; in_round && i < g->n_tensors; i++)
        in_round[i] = -1;
    for (int i = 0; in_round && i < a->report->n_entries; i++) {
        item *it = &a->items[i];
        if (it->input >= 0 || it->stage == PV_STAGE_COUNT || node_of(a, it, OURS)->op == PV_OP_ROW)
            continue;
        const pv_node *n = node_of(a, it, OURS);
        if (it->at[OURS].node != node) {
            size_t bytes = more_bytes(n, in_round, a->report->rounds);
            if (used && bytes > a->p->hold_bytes - (used < a->p->hold_bytes ? used : a->p->hold_bytes)) {
                a->report->rounds++;
                used = 0;
                bytes = more_bytes(n, in_round, a->report->rounds);
            }
            used += bytes;
            for (int k = 0; k < n->n_in; k++)
                in_round[n->in[k]->id] = a->report->rounds;
            for (int k = 0; k < n->n_out; k++)
                in_round[n->out[k]->id] = a->report->rounds;
        }
        node = it->at[OURS].node;
        it->round = a->report->rounds;
    }
    a->report->rounds++;
    pv_free(in_round);
    return in_round ? PV_OK : PV_E_MEMORY;
}

static pv_status make_curves(against *a)
{
    for (int i = 0; i < a->report->n_entries; i++)
        for (int c = 0; c < VERIFY_CURVES && a->items[i].stage == PV_STAGE_DENOISE && a->items[i].round >= 0;
             c++) {
            double *curve = a->report->entries[i].curve[c] = pv_alloc(sizeof *curve * (size_t)a->p->steps);
            if (!curve)
                return PV_E_MEMORY;
            for (int k = 0; k < a->p->steps; k++)
                curve[k] = NAN;
        }
    return PV_OK;
}

static pv_status list_all(against *a)
{
    const pv_graph *g = graph_of(a, OURS);
    size_t n = (size_t)g->n_tensors + 1; /* one more: add_loop */
    int64_t widest = 1;
    for (int i = 0; i < g->n_tensors; i++)
        widest = pv_width(g->tensors[i]) > widest ? pv_width(g->tensors[i]) : widest;
    a->report->entries = pv_alloc_zero(sizeof *a->report->entries * n);
    a->items = pv_alloc_zero(sizeof *a->items * n);
    a->piece = widest > PIECE ? widest : PIECE;
    a->raw = pv_alloc(sizeof(float) * (size_t)a->piece);
    a->x = pv_alloc(sizeof(float) * (size_t)a->piece);
    a->y = pv_alloc(sizeof(float) * (size_t)a->piece);
    a->x_t = pv_alloc(pv_tensor_bytes(a->side[OURS].runner->x_t));
    bool ok = a->report->entries && a->items && a->raw && a->x && a->y && a->x_t;
    for (int s = 0; ok && s < a->n_sides; s++) {
        a->side[s].n_tensors = graph_of(a, s)->n_tensors;
        ok = (a->side[s].held = pv_alloc_zero((size_t)a->side[s].n_tensors + 1)) != NULL;
    }
    if (!ok)
        return PV_E_MEMORY;
    add_inputs(a);
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_out; k++)
            add_output(a, g->nodes[i], (place){i, k});
    add_loop(a);
    pv_status st = deal_rounds(a);
    return st ? st : make_curves(a);
}

/* ---- comparing ---- */

typedef struct region { /* what of a tensor holds results: columns [0, columns) of rows [first, first + rows)
                           of each matrix */
    int64_t matrices, first, rows, columns;
} region;

static pv_status read_count(const side *s, const pv_tensor *counter, int64_t *n)
{
    int32_t v = 0;
    pv_status st = counter ? pv_instance_read(s->runner->inst, counter, 0, &v, sizeof v) : PV_OK;
    if (!st && counter && v < *n)
        *n = v < 0 ? 0 : v;
    return st;
}

static pv_status rows_of(const side *s, const pv_tensor *t, region *r)
{
    *r = (region){.rows = pv_row_count(t), .columns = pv_width(t)};
    r->matrices = pv_elements(t) / (r->rows * r->columns);
    return read_count(s, t->rows, &r->rows);
}

/* What a node stores in a state, and from which row on; NULL: output `out` is no state. */
static const pv_tensor *stored(const pv_node *n, int out, int64_t *first)
{
    switch (n->op) {
    case PV_OP_STORE:
        *first = n->attr.range.first;
        return n->in[1];
    case PV_OP_ROPE_STORE:
        *first = n->attr.rope_store.first;
        return n->in[0];
    case PV_OP_ROPE_CACHE:
        *first = n->attr.rope_cache.first;
        return out ? n->in[out] : NULL;
    case PV_OP_LINEAR_ROPE_CACHE:
        *first = n->attr.linear_rope_cache.rope_cache.first;
        return out ? n->in[0] : NULL;
    case PV_OP_EXPERT_BLOCK: /* as many rows as come in */
        *first = n->attr.expert.store;
        return out ? n->in[0] : NULL;
    default:
        return NULL;
    }
}

/* Behind valid rows and keys stands anything, and of a state's new version only what the node stored is its
 * doing. */
static pv_status region_of(const side *s, const pv_node *n, int out, region *r)
{
    int64_t first = 0;
    const pv_tensor *t = n->out[out], *counter = t->rows, *len = NULL, *x = stored(n, out, &first);
    *r = (region){.rows = pv_row_count(t), .columns = pv_width(t)};
    r->matrices = pv_elements(t) / (r->rows * r->columns);
    if (x) {
        r->first = first;
        r->rows = pv_row_count(x);
        counter = x->rows;
    } else if (n->op == PV_OP_ATTENTION_SCORES && n->n_in > 2) {
        len = n->in[2];
    } else if (n->op == PV_OP_SOFTMAX && n->n_in > 1) {
        len = n->in[1];
    }
    pv_status st = read_count(s, counter, &r->rows);
    return st ? st : read_count(s, len, &r->columns);
}

typedef struct operand {
    pv_instance *inst;
    const pv_tensor *t;
} operand;

static pv_status read_floats(against *a, operand o, int64_t first, int64_t n, float *dst)
{
    size_t at = pv_dtype_bytes(o.t->dtype, (size_t)first), bytes = pv_dtype_bytes(o.t->dtype, (size_t)n);
    pv_status st = pv_instance_read(o.inst, o.t, at, a->raw, bytes);
    for (int64_t i = 0; !st && o.t->dtype == PV_I32 && i < n; i++)
        dst[i] = (float)((const int32_t *)a->raw)[i];
    for (int64_t i = 0; !st && o.t->dtype == PV_U8 && i < n; i++)
        dst[i] = ((const uint8_t *)a->raw)[i];
    if (!st && o.t->dtype != PV_I32 && o.t->dtype != PV_U8)
        pv_to_f32(dst, a->raw, o.t->dtype, (size_t)n);
    return st;
}

/* All of the region, piece by piece; *n: how much that was. */
static pv_status compare_region(against *a, operand ours, operand ref, const region *r, distance *d,
                                int64_t *n)
{
    compare c = compare_begin();
    bool same = true;
    int64_t width = pv_width(ours.t), most = a->piece / width;
    pv_status st = PV_OK;
    for (int64_t m = 0; m < r->matrices; m++)
        for (int64_t row = 0, rows; !st && row < r->rows; row += rows) {
            rows = r->rows - row < most ? r->rows - row : most;
            int64_t first = (m * pv_row_count(ours.t) + r->first + row) * width;
            st = read_floats(a, ours, first, rows * width, a->x);
            if (!st)
                st = read_floats(a, ref, first, rows * width, a->y);
            for (int64_t i = 0; !st && i < rows; i++) {
                const float *x = a->x + i * width, *y = a->y + i * width;
                same &= !memcmp(x, y, sizeof *x * (size_t)r->columns);
                for (int64_t k = 0; k < r->columns; k++)
                    compare_add(&c, first + i * width + k, (double)x[k], (double)y[k]);
            }
        }
    *d = compare_end(&c, same);
    *n = c.n;
    return st;
}

/* The worst of several steps: one beyond its limit before one within it, then the larger. NaN is larger than
 * all. */
static bool worse(bool ok, double off, bool was_ok, double was)
{
    return ok != was_ok ? !ok : !(off <= was);
}

static void judge_part(verify_part *p, double *curve, const distance *d, bool ok, double limit, int step)
{
    if (curve && step >= 0)
        curve[step] = d->relative_l2;
    if (!ok && p->failed_step < 0)
        p->failed_step = step < 0 ? 0 : step;
    if (p->there && !worse(ok, d->relative_l2, p->ok, p->d.relative_l2))
        return;
    *p = (verify_part){
        .there = true, .ok = ok, .d = *d, .step = step, .failed_step = p->failed_step, .limit = limit};
}

static pv_status compare_item(against *a, int at, int step)
{
    item *it = &a->items[at];
    verify_entry *e = &a->report->entries[at];
    operand ours = {a->side[OURS].runner->inst, tensor_of(a, it, OURS)};
    operand ref = {a->side[REF].runner->inst, tensor_of(a, it, REF)};
    region r;
    distance d, of_recipe;
    int64_t n;
    pv_status st = it->input >= 0 ? rows_of(&a->side[REF], ref.t, &r)
                                  : region_of(&a->side[REF], node_of(a, it, REF), it->at[REF].out, &r);
    if (!st)
        st = compare_region(a, ours, ref, &r, &d, &n);
    if (!st && it->at[BASE].node >= 0 && it->stage != PV_STAGE_COUNT && n) {
        operand base = {a->side[BASE].runner->inst, tensor_of(a, it, BASE)};
        st = compare_region(a, ref, base, &r, &of_recipe, &n);
        if (!st)
            judge_part(&e->recipe, e->curve[VERIFY_RECIPE], &of_recipe, true, 0, step);
    }
    if (st)
        return pv_fail_in(st, "comparing '%s'", e->name);
    if (!n) {
        e->state = VERIFY_NOT_COMPARED;
        e->why = "no valid rows";
        return PV_OK;
    }
    if (e->curve[VERIFY_SUM] && step >= 0)
        e->curve[VERIFY_SUM][step] = d.relative_l2;
    bool ok = e->gated                       ? d.finite && d.relative_l2 <= e->bound
              : a->report->exact || e->input ? d.same_bytes
              : e->bound == 0                ? d.finite
                                             : d.finite && d.relative_l2 <= e->bound;
    if (!ok && it->failed_step < 0)
        it->failed_step = step < 0 ? 0 : step;
    if (e->worst >= 0 && !worse(ok, d.relative_l2, e->ok, e->relative_l2))
        return PV_OK;
    e->step = step;
    e->ok = ok;
    e->same_bytes = d.same_bytes;
    e->relative_l2 = d.relative_l2;
    e->max_abs = d.max_abs;
    e->mean_abs = d.mean_abs;
    e->max_spread = d.max_spread;
    e->centred_cosine = d.centred_cosine;
    e->cosine = d.cosine;
    e->worst = d.worst;
    return PV_OK;
}

/* The entries of one node, from `at` on: what the CPU makes of what the node read. */
static pv_status compare_local(against *a, int at, int step)
{
    const pv_node *n = node_of(a, &a->items[at], OURS);
    verify_op op;
    pv_status st =
        verify_op_run(&op, a->cpu, a->cpu_weights, a->side[OURS].runner, n, step < 0 ? 0 : step, a->x_t);
    if (st == PV_E_NO_KERNEL)
        return PV_OK;
    for (int i = at;
         !st && i < a->report->n_entries && a->items[i].at[OURS].node == a->items[at].at[OURS].node; i++) {
        verify_entry *e = &a->report->entries[i];
        int out = a->items[i].at[OURS].out;
        operand ours = {a->side[OURS].runner->inst, n->out[out]}, alone = {op.inst, op.out[out]};
        region r;
        distance d = {.finite = false};
        int64_t count = 0;
        if (a->items[i].stage == PV_STAGE_COUNT)
            break;
        st = region_of(&a->side[OURS], n, out, &r);
        if (!st)
            st = compare_region(a, ours, alone, &r, &d, &count);
        bool gated = a->items[i].own_gate >= 0, exact = a->report->exact && !gated;
        double limit = gated ? a->items[i].own_gate : verify_budget(op.plan->graph, op.out[out], count);
        if (!st && limit < 0)
            st = PV_E_MEMORY;
        if (!st && count)
            judge_part(&e->local, e->curve[VERIFY_LOCAL], &d,
                       exact ? d.same_bytes : d.finite && d.relative_l2 <= limit, limit, step);
    }
    verify_op_free(&op);
    return st;
}

static pv_status compare_stages(against *a, int round, pv_stage first, pv_stage last, int step)
{
    pv_status st = PV_OK;
    for (int i = 0, node = -1; !st && i < a->report->n_entries; i++) {
        const item *it = &a->items[i];
        if (it->round != round || it->stage < first || it->stage > last)
            continue;
        if (a->report->entries[i].state == VERIFY_COMPARED)
            st = compare_item(a, i, step);
        if (!st && it->at[OURS].node != node)
            st = compare_local(a, i, step);
        node = it->at[OURS].node;
    }
    return st;
}

static pv_status compare_inputs(against *a)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && i < a->report->n_entries && a->items[i].input >= 0; i++)
        st = compare_item(a, i, -1);
    return st;
}

/* ---- running ---- */

static bool held(void *user, const pv_tensor *t)
{
    const side *s = user;
    return t->usage == PV_SCRATCH && s->held && t->id < s->n_tensors && s->held[t->id];
}

/* A round holds what its nodes make, on every side, and on that under test what they read. */
static void hold_for(against *a, int round)
{
    for (int s = 0; s < a->n_sides; s++)
        memset(a->side[s].held, 0, (size_t)a->side[s].n_tensors);
    for (int i = 0; i < a->report->n_entries; i++) {
        const item *it = &a->items[i];
        if (it->round != round)
            continue;
        const pv_node *n = node_of(a, it, OURS);
        for (int k = 0; k < n->n_in; k++)
            a->side[OURS].held[n->in[k]->id] = true;
        for (int s = 0; s < a->n_sides; s++)
            if (it->at[s].node >= 0)
                a->side[s].held[tensor_of(a, it, s)->id] = true;
    }
}

static pv_status make_runner(against *a, side *s)
{
    const trace_inputs *in = a->p->in;
    pv_runner_params p = {.shape = {in->views, a->model->config.max_tokens, false},
                          .steps = a->p->steps,
                          .recipe = s->recipe,
                          .expand = s == &a->side[OURS] ? a->p->expand : 0,
                          .hold = held,
                          .user = s};
    pv_runner_destroy(&s->runner);
    return pv_runner_create(a->model, s->backend, &p, &s->runner);
}

static pv_status start(const against *a, const side *s)
{
    const trace_inputs *in = a->p->in;
    pv_status st = pv_runner_start(s->runner, s->weights);
    if (!st)
        st = pv_runner_prompt(s->runner, in->tokens, in->n_valid);
    if (!st)
        st = pv_runner_images(s->runner, in->images);
    return st ? st : pv_runner_noise(s->runner, in->noise);
}

static pv_status run_all(const against *a, pv_run run)
{
    pv_status st = PV_OK;
    for (int s = a->n_sides - 1; !st && s >= 0; s--)
        st = pv_instance_run(a->side[s].runner->inst, run, NULL);
    return st;
}

static pv_status start_round(against *a, int round)
{
    hold_for(a, round);
    pv_status st = PV_OK;
    for (int s = a->n_sides - 1; !st && s >= 0; s--)
        st = make_runner(a, &a->side[s]);
    for (int s = a->n_sides - 1; !st && s >= 0; s--)
        st = start(a, &a->side[s]);
    return st;
}

static pv_status run_round(against *a, int round)
{
    pv_stage last = PV_STAGE_VISION;
    for (int i = 0; i < a->report->n_entries; i++)
        if (a->items[i].round == round && a->items[i].stage > last)
            last = a->items[i].stage;
    pv_run run = {.stages = (last > PV_STAGE_VISION ? 1u << PV_STAGE_PREFIX : 0) |
                            (a->p->in->views ? 1u << PV_STAGE_VISION : 0)};
    pv_status st = start_round(a, round);
    if (!st)
        st = run_all(a, run);
    if (!st)
        st = compare_stages(a, round, PV_STAGE_VISION, PV_STAGE_PREFIX, -1);
    if (st || last < PV_STAGE_SCHEDULE)
        return st;
    for (int s = a->n_sides - 1; !st && s >= 0; s--)
        st = pv_runner_tables(a->side[s].runner, a->times, a->dt, a->p->steps, NULL);
    if (!st)
        st = compare_stages(a, round, PV_STAGE_SCHEDULE, PV_STAGE_SCHEDULE, -1);
    const pv_runner *ours = a->side[OURS].runner;
    for (int k = 0; !st && last == PV_STAGE_DENOISE && k < a->p->steps; k++) {
        st = pv_instance_read(ours->inst, ours->x_t, 0, a->x_t, pv_tensor_bytes(ours->x_t));
        if (!st)
            st = run_all(a, (pv_run){.stages = 1u << PV_STAGE_DENOISE, .first_step = k, .n_steps = 1});
        if (!st)
            st = compare_stages(a, round, PV_STAGE_DENOISE, PV_STAGE_DENOISE, k);
    }
    return st;
}

static pv_status run_loop(against *a)
{
    int at = a->report->n_entries - 1;
    if (at < 0 || a->items[at].stage != PV_STAGE_COUNT) /* the two make no actions of one name */
        return PV_OK;
    pv_status st = PV_OK;
    for (int s = REF; !st && s >= OURS; s--) {
        st = pv_runner_noise(a->side[s].runner, a->p->in->noise);
        if (!st)
            st = pv_runner_denoise(a->side[s].runner, a->times, a->dt, a->p->steps, NULL, NULL, NULL);
    }
    return st ? st : compare_item(a, at, -1);
}

/* One table of weights for each backend and recipe, and one for the CPU in the recipe under test. */
static pv_status load_weights(against *a, pv_progress_fn progress, void *user)
{
    pv_status st = PV_OK;
    for (int s = a->n_sides - 1; !st && s >= 0; s--) {
        side *me = &a->side[s];
        for (int other = a->n_sides - 1; other > s; other--)
            if (a->side[other].backend == me->backend && !strcmp(a->side[other].recipe, me->recipe))
                me->weights = a->side[other].weights;
        if (!me->weights)
            st = pv_weights_create(me->backend, &a->model->source, &me->weights);
        if (!st)
            st = pv_weights_load(me->weights, me->runner->plan->graph, progress, user);
        if (me->backend == a->cpu && !strcmp(me->recipe, a->p->recipe))
            a->cpu_weights = me->weights;
    }
    if (!st && !a->cpu_weights) {
        st = pv_weights_create(a->cpu, &a->model->source, &a->loaded);
        a->cpu_weights = a->loaded;
    }
    return st ? st : pv_weights_load(a->cpu_weights, graph_of(a, OURS), progress, user);
}

static uint64_t order_of(const item *it, int step)
{
    return it->input >= 0
               ? 0
               : (uint64_t)(it->stage + 1) << 56 | (uint64_t)step << 32 | (uint64_t)it->at[OURS].node;
}

/* The first in order of execution; where bytes are not at stake, the first op that is off by itself before
 * any that got it from others. */
static void conclude(against *a)
{
    verify_report *r = a->report;
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < r->n_entries; i++) {
        const item *it = &a->items[i];
        const verify_entry *e = &r->entries[i];
        bool compared = e->state == VERIFY_COMPARED, local = e->local.failed_step >= 0;
        r->n_compared += compared;
        r->n_same += compared && e->same_bytes;
        r->n_local += e->local.there;
        r->n_local_failed += local;
        if (it->failed_step < 0 && !local)
            continue;
        r->n_failed++;
        int step = local ? e->local.failed_step : it->failed_step;
        bool by_itself = local || it->input >= 0 || r->exact;
        uint64_t order = order_of(it, step) | (by_itself ? 0 : UINT64_C(1) << 63);
        if (order < first) {
            first = order;
            r->first_failed = e;
            r->first_local = local;
            r->first_step = it->stage == PV_STAGE_DENOISE ? step : -1;
        }
    }
}

static pv_status open_sides(against *a, pv_backend *backend, pv_backend *reference)
{
    const against_params *p = a->p;
    bool cpu = reference->vt == &pv_cpu_backend;
    a->side[OURS] = (side){.backend = backend, .recipe = p->recipe};
    a->side[REF] = (side){.backend = reference, .recipe = p->ref_recipe};
    a->side[BASE] = (side){.backend = reference, .recipe = "f32"};
    a->n_sides = cpu && strcmp(p->recipe, "f32") && !strcmp(p->recipe, p->ref_recipe) ? SIDES : BASE;
    a->report->has_recipe = a->n_sides > BASE;
    a->cpu = cpu ? reference : backend;
    pv_status st = a->cpu->vt == &pv_cpu_backend ? PV_OK : pv_backend_open("cpu", NULL, &a->opened);
    if (a->opened)
        a->cpu = a->opened;
    for (int s = a->n_sides - 1; !st && s >= 0; s--)
        st = make_runner(a, &a->side[s]);
    return st;
}

static void close_all(against *a)
{
    for (int s = 0; s < a->n_sides; s++) {
        pv_runner_destroy(&a->side[s].runner);
        for (int other = s + 1; other < a->n_sides; other++)
            if (a->side[other].weights == a->side[s].weights)
                a->side[s].weights = NULL;
        pv_weights_destroy(&a->side[s].weights);
        pv_free(a->side[s].held);
    }
    pv_weights_destroy(&a->loaded);
    pv_backend_close(&a->opened);
    pv_free(a->items);
    pv_free(a->times);
    pv_free(a->dt);
    pv_free(a->x_t);
    pv_free(a->raw);
    pv_free(a->x);
    pv_free(a->y);
}

pv_status verify_against(pv_model *model, pv_backend *backend, pv_backend *reference,
                         const against_params *params, pv_progress_fn progress, void *user,
                         verify_report *out)
{
    against a = {.model = model, .p = params, .report = out};
    *out = (verify_report){.views = params->in->views,
                           .prompt_tokens = params->in->n_valid,
                           .first_step = -1,
                           .steps = params->steps};
    out->prefix_tokens = out->views * pv_image_tokens(&model->config) + out->prompt_tokens;
    out->exact = verify_exact(pv_backend_name(backend), params->recipe, pv_backend_name(reference),
                              params->ref_recipe);
    a.times = pv_alloc(sizeof(float) * (size_t)(params->steps + 1));
    a.dt = pv_alloc(sizeof(float) * (size_t)params->steps);
    pv_status st = a.times && a.dt ? pv_schedule_times("openpi", params->steps, a.times, a.dt) : PV_E_MEMORY;
    if (!st)
        st = pv_model_embedding(model, progress, user);
    if (!st)
        st = open_sides(&a, backend, reference);
    if (!st)
        st = load_weights(&a, progress, user);
    if (!st)
        st = list_all(&a);
    for (int round = 0; !st && round < out->rounds; round++)
        st = run_round(&a, round);
    if (!st)
        st = compare_inputs(&a);
    if (!st)
        st = run_loop(&a);
    if (!st)
        conclude(&a);
    close_all(&a);
    return st;
}

bool verify_exact(const char *backend, const char *recipe, const char *reference, const char *ref_recipe)
{
    return !strcmp(backend, "cpu") && !strcmp(reference, "cpu") && !strcmp(recipe, ref_recipe);
}
