/* graph.c - the denoising loop as one recording (a CUDA graph, command buffers) beside the same nodes
 * submitted a step and a node at a time. A node is made a recording of its own: a program whose graph has
 * that node alone, on the same buffers, so any backend can.
 *
 * A recording is not submitted again before it was waited for, so nodes are waited for at the end of each
 * step. */
#include "policy.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/schedule.h"

#include <string.h>

typedef struct piece { /* one node */
    pv_graph graph;
    pv_program program;
    pv_recording *recording;
} piece;

typedef struct graph {
    lab *l;
    pv_runner *r;
    piece *pieces;
    int n, n_fused;
    float *t, *actions, *whole; /* [2 steps + 1]; [chunk]; of all steps in one submission */
    double error[4];            /* of each way's actions, against `whole` */
} graph;

/* ---- pieces ---- */

static void drop_pieces(graph *s)
{
    for (int i = 0; i < s->n; i++)
        s->l->backend->vt->discard(s->pieces[i].recording);
    pv_free(s->pieces);
    s->pieces = NULL;
    s->n = 0;
}

static pv_status make_pieces(graph *s)
{
    const pv_plan *plan = s->r->plan;
    pv_status st = PV_OK;
    s->pieces = pv_alloc_zero(sizeof *s->pieces * (size_t)(plan->graph->n_nodes + 1));
    if (!s->pieces)
        return PV_E_MEMORY;
    for (int i = 0; !st && i < plan->graph->n_nodes; i++) {
        pv_node **node = &plan->graph->nodes[i];
        piece *p = &s->pieces[s->n];
        bool reads_step = false;
        if ((*node)->stage != PV_STAGE_DENOISE)
            continue;
        for (int k = 0; k < (*node)->n_in; k++)
            reads_step |= (*node)->in[k] == plan->program.step;
        p->graph = *plan->graph;
        p->graph.nodes = node;
        p->graph.n_nodes = p->graph.cap_nodes = 1;
        p->program = plan->program;
        p->program.graph = &p->graph;
        p->program.step = reads_step ? plan->program.step : NULL;
        cli_note(&s->l->bar, "recording node %d of %d", i + 1, plan->graph->n_nodes);
        st = s->l->backend->vt->record(s->l->backend, &p->program, &s->r->inst->buffers, &p->recording);
        s->n += !st;
    }
    cli_progress_end(&s->l->bar);
    return st;
}

/* ---- runs ---- */

static pv_status run_nodes(graph *s, int step, bool wait_each)
{
    const pv_backend_vt *vt = s->l->backend->vt;
    const pv_run run = {.stages = 1u << PV_STAGE_DENOISE, .first_step = step, .n_steps = 1};
    pv_status st = PV_OK;
    int pending = 0;
    for (int i = 0; !st && i < s->n; i++) {
        st = vt->submit(s->pieces[i].recording, &run);
        if (!st && wait_each)
            st = vt->wait(s->pieces[i].recording, NULL);
        else if (!st)
            pending = i + 1;
    }
    for (int i = pending - 1; i >= 0; i--) { /* the last first: then the others are done */
        pv_status waited = vt->wait(s->pieces[i].recording, NULL);
        st = st ? st : waited;
    }
    return st;
}

enum { WHOLE, STEP, NODE, NODE_WAIT, N_WAYS };

static const char *const way_names[N_WAYS] = {"all steps in one submission", "a step at a time",
                                              "a node at a time", "a node at a time, each waited for"};
static const char *const way_reports[N_WAYS] = {"234.1 ms (TensorRT, the MLPs)", NULL, "239.7 ms (eager)",
                                                NULL};

/* By the wall's clock: what submitting costs the host counts. */
static pv_status loop(void *user, int way, double *ms)
{
    graph *s = user;
    size_t chunk = s->l->policy->chunk;
    pv_run run = {.stages = 1u << PV_STAGE_DENOISE, .n_steps = way == WHOLE ? s->l->steps : 1};
    pv_status st = pv_runner_noise(s->r, s->l->policy->noise);
    if (!st) /* what was written is there before the clock starts */
        st = pv_runner_actions(s->r, s->actions);
    double start = pv_now_ms();
    for (; !st && run.first_step < s->l->steps; run.first_step += run.n_steps)
        st = way >= NODE ? run_nodes(s, run.first_step, way == NODE_WAIT)
                         : pv_instance_run(s->r->inst, run, NULL);
    *ms = pv_now_ms() - start;
    if (!st)
        st = pv_runner_actions(s->r, s->actions);
    if (!st && way == WHOLE)
        memcpy(s->whole, s->actions, sizeof *s->whole * chunk);
    s->error[way] = lab_error_f32(s->actions, s->whole, chunk);
    return st;
}

static pv_status ways(graph *s, const char *what, bool reported)
{
    static const lab_column columns[] = {{"submissions", "submissions", LAB_COUNT},
                                         {"ratio", "of the first", LAB_RATIO},
                                         {"cost_us", "us more, each", LAB_NUMBER},
                                         {NULL}};
    lab *l = s->l;
    lab_time time[N_WAYS];
    pv_status st = lab_measure_ways(l, what, N_WAYS, loop, s, time);
    if (st)
        return st;
    lab_begin_table(l, columns,
                    "%s: %d nodes a step, %d steps; error: of the actions, against those of the first", what,
                    s->n, l->steps);
    double whole = time[WHOLE].median;
    for (int way = 0; way < N_WAYS; way++) {
        lab_row *r = lab_add(l, "%s", way_names[way]);
        int n = way == WHOLE ? 1 : way == STEP ? l->steps : l->steps * s->n;
        r->time = time[way];
        r->error = s->error[way];
        r->report = reported ? way_reports[way] : NULL;
        r->value[0].number = n;
        if (way != WHOLE) {
            r->value[1].number = r->time.median / whole;
            r->value[2].number = (r->time.median - whole) / n * 1e3;
        }
    }
    lab_say(l,
            "%s: a node at a time the loop takes %.2f times as long, and %.2f times with waiting for each.",
            what, time[NODE].median / whole, time[NODE_WAIT].median / whole);
    return PV_OK;
}

static pv_status one_plan(graph *s, const char *what, uint64_t expand, bool reported)
{
    lab *l = s->l;
    /* two rows at least: a plan of one step may be recorded so that its row is never picked */
    pv_status st =
        lab_runner(l, &(pv_runner_params){.steps = l->steps > 1 ? l->steps : 2, .expand = expand}, &s->r);
    if (!st)
        st = make_pieces(s);
    if (!st)
        st = pv_schedule_times(NULL, l->steps, s->t, s->t + l->steps + 1);
    if (!st)
        st = pv_runner_tables(s->r, s->t, s->t + l->steps + 1, l->steps, NULL);
    if (!st && expand && s->n == s->n_fused)
        lab_say(l, "This backend runs primitive ops alone: there is nothing to take apart.");
    else if (!st)
        st = ways(s, what, reported);
    s->n_fused = s->n;
    drop_pieces(s);
    pv_runner_destroy(&s->r);
    return st;
}

/* ---- the experiment ---- */

static uint64_t composites(void)
{
    uint64_t bits = 0;
    for (int op = 0; op < PV_OP_COUNT; op++)
        bits |= (uint64_t)(pv_ops[op].body != NULL) << op;
    return bits;
}

static pv_status work(graph *s)
{
    lab *l = s->l;
    pv_status st = lab_policy_open(l);
    size_t chunk = st ? 0 : l->policy->chunk;
    s->t = pv_alloc(sizeof *s->t * (size_t)(2 * l->steps + 1));
    s->actions = pv_alloc(sizeof *s->actions * chunk);
    s->whole = pv_alloc(sizeof *s->whole * chunk);
    if (!st && !(s->t && s->actions && s->whole))
        st = PV_E_MEMORY;
    if (!st)
        st = one_plan(s, "Fused ops, as planned", 0, true);
    if (!st)
        st = one_plan(s, "Primitive ops", composites(), false);
    if (!st)
        lab_say(l, "A recording is worth what its nodes cost to submit: much where they are many and short "
                   "(primitive ops), little where a "
                   "kernel does a whole layer, nothing where a node takes longer than the host needs for the "
                   "next. On a CPU a "
                   "recording is a list of calls, and submitting one costs next to nothing either way.");
    return st;
}

int lab_graph(int argc, char **argv)
{
    lab l;
    graph s = {.l = &l};
    const lab_command command = {
        .name = "graph",
        .claim = "The reports: a static graph gains 2 % (of the MLPs, by TensorRT); CUDA graphs for the "
                 "whole loop were left as a\n"
                 "next step. Here: the loop in one submission, and the same nodes one by one.",
        .example = "pivot lab graph --model synth:tiny\n"
                   "pivot lab graph --model synth:full --backend cuda --recipe bf16",
        .uses = LAB_POLICY | LAB_STEPS};
    int code = lab_begin(&l, &command, argc, argv);
    code = lab_end(&l, code, code == CLI_GO ? work(&s) : PV_OK);
    pv_free(s.t);
    pv_free(s.actions);
    pv_free(s.whole);
    return code;
}
