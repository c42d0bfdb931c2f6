/* verify_against.c - the same inputs through one plan on each of two backends, compared tensor by tensor.
 *
 * What is compared is what the plan under test makes, op by op: the tensors of its own nodes, fused and lowered as in
 * `run`. The reference's plan makes tensors of the same names; where it makes none (both claim other ops, or one recipe
 * casts and the other does not) nothing is compared and the report says so. On the CPU, which claims primitives alone,
 * hardly anything has no counterpart. Tensors born in a body have a running number in their name; these are told apart
 * by their order instead.
 *
 * Activations of a full-size model are gigabytes, so they are looked at in rounds: each holds (pv_plan_params.hold) as
 * many of them as `hold_bytes` allows, runs the stages it needs on both sides, step by step in turn, and compares piece
 * by piece. Every round runs the same nodes on the same inputs. In the end the steps run in a row, as in `run`: a backend
 * may have recorded that apart, without the nodes that pick a step's row of a table; so those are not compared. */
#include "base/memory.h"
#include "session/schedule.h"
#include "verify_trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((int64_t)1 << 20) /* elements compared at once, or one row where a row is longer */

typedef struct side {
    pv_backend *backend;
    pv_weights *weights;
    pv_runner *runner; /* of the round; before the first, a plan to look at */
    int *round_of;     /* by tensor id; -1: not looked at */
    int n_tensors, round;
} side;

typedef struct item { /* beside the entry of the same index */
    int node, out, ref_node, ref_out;
    pv_stage stage; /* PV_STAGE_COUNT: the steps in a row */
    int round, failed_step; /* -1: not compared; within bounds so far */
} item;

typedef struct against {
    pv_model *model;
    const against_params *p;
    verify_report *report;
    side ours, ref;
    item *items;
    float *times, *dt;
    void *raw;
    float *x, *y;
    int64_t piece;
} against;

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

/* Names given while the model was built are the same on both sides; those of bodies have a '/'. */
static bool find_ref(const against *a, const item *it, int *node, int *out)
{
    const pv_graph *ours = a->ours.runner->plan->graph, *ref = a->ref.runner->plan->graph;
    const char *full = ours->nodes[it->node]->out[it->out]->name;
    char plain[256];
    int at, k, nth = 0;
    if (!strchr(full, '/'))
        return find_output(ref, full, false, 0, node, out);
    plain_name(full, plain, sizeof plain);
    while (find_output(ours, plain, true, nth, &at, &k) && (at != it->node || k != it->out))
        nth++;
    return find_output(ref, plain, true, nth, node, out);
}

static const pv_tensor *ours_of(const against *a, const item *it)
{
    return a->ours.runner->plan->graph->nodes[it->node]->out[it->out];
}

static const pv_node *ref_node_of(const against *a, const item *it)
{
    return a->ref.runner->plan->graph->nodes[it->ref_node];
}

static void add_entry(against *a, const pv_node *n, int node, int out)
{
    const pv_tensor *t = n->out[out];
    int at = a->report->n_entries++;
    item *it = &a->items[at];
    verify_entry *e = &a->report->entries[at];
    *it = (item){.node = node, .out = out, .stage = n->stage, .round = -1, .failed_step = -1};
    *e = (verify_entry){.state = VERIFY_COMPARED, .op = pv_ops[n->op].name, .step = -1, .worst = -1, .ok = true,
                        .same_bytes = true, .what.kind = TRACE_TENSOR};
    char plain[256];
    plain_name(t->name, plain, sizeof plain);
    snprintf(e->name, sizeof e->name, "%.*s", (int)sizeof e->name - 1, plain);
    snprintf(e->what.tensor, sizeof e->what.tensor, "%.*s", (int)sizeof e->what.tensor - 1, plain);
    e->bound = a->report->exact ? 0 : a->p->bound > 0 ? a->p->bound : verify_bound(&a->model->config, &e->what);
    const pv_tensor *r = NULL;
    if (find_ref(a, it, &it->ref_node, &it->ref_out))
        r = ref_node_of(a, it)->out[it->ref_out];
    if (n->op == PV_OP_ROW)
        e->why = "a table's row, which may be read in place";
    else if (!r)
        e->why = "the reference makes no such tensor";
    else if (pv_elements(r) != pv_elements(t) || pv_width(r) != pv_width(t) || pv_row_count(r) != pv_row_count(t))
        e->why = "the reference's has another shape";
    if (e->why)
        e->state = VERIFY_NOT_COMPARED;
}

/* The actions once more, as they come of all steps in a row. */
static void add_loop(against *a)
{
    verify_report *r = a->report;
    for (int i = 0, n = r->n_entries; i < n; i++)
        if (r->entries[i].state == VERIFY_COMPARED && pv_state_root(ours_of(a, &a->items[i])) == a->ours.runner->x_t) {
            r->entries[r->n_entries] = r->entries[i];
            snprintf(r->entries[r->n_entries].name, sizeof r->entries->name, "actions, steps in a row");
            a->items[r->n_entries] = a->items[i];
            a->items[r->n_entries].round = -1;
            a->items[r->n_entries++].stage = PV_STAGE_COUNT;
            return;
        }
}

static pv_status list_outputs(against *a)
{
    const pv_graph *g = a->ours.runner->plan->graph;
    size_t n = 0, used = 0;
    int64_t widest = 1;
    for (int i = 0; i < g->n_nodes; i++)
        n += (size_t)g->nodes[i]->n_out;
    a->report->entries = pv_alloc_zero(sizeof *a->report->entries * (n + 1));
    a->items = pv_alloc_zero(sizeof *a->items * (n + 1)); /* one more: add_loop */
    side *sides[] = {&a->ours, &a->ref};
    for (int s = 0; s < 2; s++) {
        sides[s]->n_tensors = sides[s]->runner->plan->graph->n_tensors;
        sides[s]->round_of = pv_alloc(sizeof *sides[s]->round_of * (size_t)(sides[s]->n_tensors + 1));
        for (int i = 0; sides[s]->round_of && i < sides[s]->n_tensors; i++)
            sides[s]->round_of[i] = -1;
    }
    if (!a->report->entries || !a->items || !a->ours.round_of || !a->ref.round_of)
        return PV_E_MEMORY;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_out; k++) {
            add_entry(a, g->nodes[i], i, k);
            int at = a->report->n_entries - 1;
            item *it = &a->items[at];
            if (a->report->entries[at].state != VERIFY_COMPARED)
                continue;
            const pv_tensor *t = ours_of(a, it), *r = ref_node_of(a, it)->out[it->ref_out];
            size_t mine = pv_tensor_bytes(t), theirs = pv_tensor_bytes(r), bytes = mine > theirs ? mine : theirs;
            if (used && bytes > a->p->hold_bytes - (used < a->p->hold_bytes ? used : a->p->hold_bytes)) {
                a->report->rounds++;
                used = 0;
            }
            used += bytes;
            it->round = a->ours.round_of[t->id] = a->ref.round_of[r->id] = a->report->rounds;
            widest = pv_width(t) > widest ? pv_width(t) : widest;
        }
    a->report->rounds++;
    add_loop(a);
    a->piece = widest > PIECE ? widest : PIECE;
    a->raw = pv_alloc(sizeof(float) * (size_t)a->piece);
    a->x = pv_alloc(sizeof(float) * (size_t)a->piece);
    a->y = pv_alloc(sizeof(float) * (size_t)a->piece);
    return a->raw && a->x && a->y ? PV_OK : PV_E_MEMORY;
}

/* ---- comparing ---- */

typedef struct region { /* what of a tensor holds results: columns [0, columns) of rows [first, first + rows) of each matrix */
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
    case PV_OP_EXPERT_BLOCK: /* as many rows as come in */
        *first = n->attr.expert.store;
        return out ? n->in[0] : NULL;
    default:
        return NULL;
    }
}

/* Behind valid rows and keys stands anything, and of a state's new version only what the node stored is its doing. */
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

static pv_status read_floats(against *a, const side *s, const pv_tensor *t, int64_t first, int64_t n, float *dst)
{
    size_t at = pv_dtype_bytes(t->dtype, (size_t)first), bytes = pv_dtype_bytes(t->dtype, (size_t)n);
    pv_status st = pv_instance_read(s->runner->inst, t, at, a->raw, bytes);
    if (!st)
        pv_to_f32(dst, a->raw, t->dtype, (size_t)n);
    return st;
}

/* All of the region, piece by piece; *same: not a bit differs. */
static pv_status compare_region(against *a, const item *it, const region *r, compare *c, bool *same)
{
    const pv_tensor *t = ours_of(a, it), *ref = ref_node_of(a, it)->out[it->ref_out];
    int64_t width = pv_width(t), most = a->piece / width;
    pv_status st = PV_OK;
    for (int64_t m = 0; m < r->matrices; m++)
        for (int64_t row = 0, rows; !st && row < r->rows; row += rows) {
            rows = r->rows - row < most ? r->rows - row : most;
            int64_t first = (m * pv_row_count(t) + r->first + row) * width;
            st = read_floats(a, &a->ours, t, first, rows * width, a->x);
            if (!st)
                st = read_floats(a, &a->ref, ref, first, rows * width, a->y);
            for (int64_t i = 0; !st && i < rows; i++) {
                const float *x = a->x + i * width, *y = a->y + i * width;
                *same &= !memcmp(x, y, sizeof *x * (size_t)r->columns);
                for (int64_t k = 0; k < r->columns; k++)
                    compare_add(c, first + i * width + k, (double)x[k], (double)y[k]);
            }
        }
    return st;
}

/* Of several steps the entry keeps the one that is furthest off. */
static pv_status compare_item(against *a, int at, int step)
{
    item *it = &a->items[at];
    verify_entry *e = &a->report->entries[at];
    compare c = compare_begin();
    region r;
    bool same = true;
    pv_status st = region_of(&a->ref, ref_node_of(a, it), it->ref_out, &r);
    if (!st)
        st = compare_region(a, it, &r, &c, &same);
    if (st)
        return pv_fail_in(st, "comparing '%s'", e->name);
    if (!c.n) {
        e->state = VERIFY_NOT_COMPARED;
        e->why = "no valid rows";
        return PV_OK;
    }
    double off = compare_relative_l2(&c);
    bool ok = a->report->exact ? same : c.finite && off <= e->bound;
    if (!ok && it->failed_step < 0)
        it->failed_step = step < 0 ? 0 : step;
    if (e->worst >= 0 && (e->ok == ok ? off <= e->relative_l2 : ok))
        return PV_OK;
    e->step = step;
    e->ok = ok;
    e->same_bytes = same;
    e->relative_l2 = off;
    e->max_abs = c.max_abs;
    e->max_spread = compare_max_spread(&c);
    e->centred_cosine = compare_centred_cosine(&c);
    e->worst = c.worst;
    return PV_OK;
}

static pv_status compare_stages(against *a, int round, pv_stage first, pv_stage last, int step)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && i < a->report->n_entries; i++)
        if (a->items[i].round == round && a->items[i].stage >= first && a->items[i].stage <= last &&
            a->report->entries[i].state == VERIFY_COMPARED)
            st = compare_item(a, i, step);
    return st;
}

/* ---- running ---- */

static bool held(void *user, const pv_tensor *t)
{
    const side *s = user;
    return t->usage == PV_SCRATCH && s->round_of && t->id < s->n_tensors && s->round_of[t->id] == s->round;
}

static pv_status make_runner(against *a, side *s, int round)
{
    const trace_inputs *in = a->p->in;
    bool ours = s == &a->ours;
    pv_runner_params p = {.shape = {in->views, a->model->config.max_tokens, false}, .steps = a->p->steps,
                          .recipe = ours ? a->p->recipe : a->p->ref_recipe, .expand = ours ? a->p->expand : 0,
                          .hold = held, .user = s};
    s->round = round;
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

static pv_status run_both(const against *a, pv_run run)
{
    pv_status st = pv_instance_run(a->ref.runner->inst, run, NULL);
    return st ? st : pv_instance_run(a->ours.runner->inst, run, NULL);
}

static pv_status run_round(against *a, int round)
{
    pv_stage last = PV_STAGE_VISION;
    for (int i = 0; i < a->report->n_entries; i++)
        if (a->items[i].round == round && a->items[i].stage > last)
            last = a->items[i].stage;
    pv_run run = {.stages = (last > PV_STAGE_VISION ? 1u << PV_STAGE_PREFIX : 0) |
                            (a->p->in->views ? 1u << PV_STAGE_VISION : 0)};
    pv_status st = make_runner(a, &a->ref, round);
    if (!st)
        st = make_runner(a, &a->ours, round);
    if (!st)
        st = start(a, &a->ref);
    if (!st)
        st = start(a, &a->ours);
    if (!st)
        st = run_both(a, run);
    if (!st)
        st = compare_stages(a, round, PV_STAGE_VISION, PV_STAGE_PREFIX, -1);
    if (st || last < PV_STAGE_SCHEDULE)
        return st;
    st = pv_runner_tables(a->ref.runner, a->times, a->dt, a->p->steps, NULL);
    if (!st)
        st = pv_runner_tables(a->ours.runner, a->times, a->dt, a->p->steps, NULL);
    if (!st)
        st = compare_stages(a, round, PV_STAGE_SCHEDULE, PV_STAGE_SCHEDULE, -1);
    for (int k = 0; !st && last == PV_STAGE_DENOISE && k < a->p->steps; k++) {
        st = run_both(a, (pv_run){.stages = 1u << PV_STAGE_DENOISE, .first_step = k, .n_steps = 1});
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
    side *sides[] = {&a->ref, &a->ours};
    pv_status st = PV_OK;
    for (int i = 0; !st && i < 2; i++) {
        st = pv_runner_noise(sides[i]->runner, a->p->in->noise);
        if (!st)
            st = pv_runner_denoise(sides[i]->runner, a->times, a->dt, a->p->steps, NULL, NULL, NULL);
    }
    return st ? st : compare_item(a, at, -1);
}

/* One table of weights for each backend and recipe. */
static pv_status load_weights(against *a, pv_progress_fn progress, void *user)
{
    bool one = a->ours.backend == a->ref.backend && !strcmp(a->p->recipe, a->p->ref_recipe);
    pv_status st = pv_weights_create(a->ref.backend, &a->model->source, &a->ref.weights);
    if (!st && one)
        a->ours.weights = a->ref.weights;
    else if (!st)
        st = pv_weights_create(a->ours.backend, &a->model->source, &a->ours.weights);
    if (!st)
        st = pv_weights_load(a->ref.weights, a->ref.runner->plan->graph, progress, user);
    return st ? st : pv_weights_load(a->ours.weights, a->ours.runner->plan->graph, progress, user);
}

static void conclude(against *a)
{
    verify_report *r = a->report;
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < r->n_entries; i++) {
        const item *it = &a->items[i];
        bool compared = r->entries[i].state == VERIFY_COMPARED;
        r->n_compared += compared;
        r->n_same += compared && r->entries[i].same_bytes;
        if (it->failed_step < 0)
            continue;
        r->n_failed++;
        uint64_t order = (uint64_t)it->stage << 56 | (uint64_t)it->failed_step << 32 | (uint64_t)it->node;
        if (order < first) {
            first = order;
            r->first_failed = &r->entries[i];
            r->first_step = it->stage == PV_STAGE_DENOISE ? it->failed_step : -1;
        }
    }
}

pv_status verify_against(pv_model *model, pv_backend *backend, pv_backend *reference, const against_params *params,
                         pv_progress_fn progress, void *user, verify_report *out)
{
    against a = {.model = model, .p = params, .report = out, .ours.backend = backend, .ref.backend = reference};
    *out = (verify_report){.views = params->in->views, .prompt_tokens = params->in->n_valid, .first_step = -1};
    out->prefix_tokens = out->views * pv_image_tokens(&model->config) + out->prompt_tokens;
    out->exact = verify_exact(pv_backend_name(backend), params->recipe, pv_backend_name(reference), params->ref_recipe);
    a.times = pv_alloc(sizeof(float) * (size_t)(params->steps + 1));
    a.dt = pv_alloc(sizeof(float) * (size_t)params->steps);
    pv_status st = a.times && a.dt ? pv_schedule_times("openpi", params->steps, a.times, a.dt) : PV_E_MEMORY;
    if (!st)
        st = pv_model_embedding(model, progress, user);
    if (!st)
        st = make_runner(&a, &a.ref, 0);
    if (!st)
        st = make_runner(&a, &a.ours, 0);
    if (!st)
        st = load_weights(&a, progress, user);
    if (!st)
        st = list_outputs(&a);
    for (int round = 0; !st && round < out->rounds; round++)
        st = run_round(&a, round);
    if (!st)
        st = run_loop(&a);
    if (!st)
        conclude(&a);
    pv_runner_destroy(&a.ours.runner);
    pv_runner_destroy(&a.ref.runner);
    if (a.ours.weights != a.ref.weights)
        pv_weights_destroy(&a.ours.weights);
    pv_weights_destroy(&a.ref.weights);
    pv_free(a.ours.round_of);
    pv_free(a.ref.round_of);
    pv_free(a.items);
    pv_free(a.times);
    pv_free(a.dt);
    pv_free(a.raw);
    pv_free(a.x);
    pv_free(a.y);
    return st;
}

bool verify_exact(const char *backend, const char *recipe, const char *reference, const char *ref_recipe)
{
    return !strcmp(backend, "cpu") && !strcmp(reference, "cpu") && !strcmp(recipe, ref_recipe);
}
