/* steps.c - the loop with 1 to 20 steps: milliseconds of an inference and of the loop in it, beside how far
 * the actions are from where the flow ends. */
#include "flow.h"
#include "base/memory.h"
#include "session/schedule.h"

#define MOST 20

typedef struct steps {
    lab *l;
    int reference;
    double *truth;          /* [chunk] */
    float *actions, *times; /* [chunk]; [2 MOST + 1] */
    pv_runner *r;           /* of n steps */
    int n, run;
    double *loop_ms;                        /* of each run; those of the warm-up are written over */
    double whole[MOST + 1], loop[MOST + 1]; /* medians by steps */
    double error, cosine;                   /* of 10 steps */
} steps;

static pv_status infer(void *user, double *ms)
{
    steps *s = user;
    pv_run_timing t = {{0}};
    pv_status st = pv_runner_noise(s->r, s->l->policy->noise);
    if (!st)
        st = pv_runner_infer(s->r, s->times, s->times + s->n + 1, s->n, s->actions, &t);
    *ms = t.run_ms;
    s->loop_ms[s->run < s->l->warmup ? 0 : s->run - s->l->warmup] = t.stage_ms[PV_STAGE_DENOISE];
    s->run++;
    return st;
}

static pv_status one_count(steps *s, int n)
{
    lab *l = s->l;
    lab_time time;
    s->n = n;
    s->run = 0;
    pv_status st = pv_schedule_times(NULL, n, s->times, s->times + n + 1);
    if (!st)
        st = lab_runner(l, &(pv_runner_params){.steps = n}, &s->r);
    if (!st)
        st = lab_measure(l, lab_text(l, "%d steps", n), infer, s, &time);
    if (!st) {
        lab_row *r = lab_add(l, "%d", n);
        s->whole[n] = time.median;
        s->loop[n] = lab_summary(s->loop_ms, l->runs).median;
        r->time = time;
        r->error = lab_error(s->actions, s->truth, l->policy->chunk);
        r->value[0].number = s->loop[n];
        r->value[1].number = lab_max_abs(s->actions, s->truth, l->policy->chunk);
        r->value[2].number = lab_cosine(s->actions, s->truth, l->policy->chunk);
        if (n == 10) {
            s->error = r->error;
            s->cosine = r->value[2].number;
        }
        r->report = n == 3 ? "3x faster" : n == 10 ? "245 ms loop" : NULL;
    }
    pv_runner_destroy(&s->r);
    return st;
}

static pv_status work(steps *s)
{
    lab *l = s->l;
    static const lab_column columns[] = {{"loop_ms", "loop ms", LAB_MS},
                                         {"max_abs", "largest", LAB_ERROR},
                                         {"cosine", "cosine", LAB_NUMBER},
                                         {NULL}};
    lab_flow flow = {0};
    double own = 0;
    pv_status st = lab_policy_open(l);
    size_t chunk = st ? 0 : l->policy->chunk;
    s->truth = pv_alloc(sizeof *s->truth * chunk);
    s->actions = pv_alloc(sizeof *s->actions * chunk);
    s->times = pv_alloc(sizeof *s->times * (2 * MOST + 1));
    s->loop_ms = pv_alloc(sizeof *s->loop_ms * (size_t)l->runs);
    if (!st && !(s->truth && s->actions && s->times && s->loop_ms))
        st = PV_E_MEMORY;
    if (!st)
        st = lab_flow_open(l, &flow);
    if (!st)
        st = lab_flow_reference(&flow, s->reference, s->truth, &own);
    lab_flow_close(&flow);
    lab_begin_table(l, columns, "Whole inferences by steps; error: of the actions, against %d steps of Heun",
                    s->reference);
    for (int n = 1; !st && n <= MOST; n++)
        st = one_count(s, n);
    if (st)
        return st;
    lab_say(l,
            "Of 10 steps, 3 take %.2f of the loop and %.2f of the whole. A step less saves a step's time and "
            "nothing else: what the "
            "loop is of the whole decides what it is worth, %.0f %% here at 10 steps.",
            s->loop[3] / s->loop[10], s->whole[3] / s->whole[10], 100 * s->loop[10] / s->whole[10]);
    lab_say(l, "A cosine says little of this: %.4f at 10 steps, where the actions are off by %.1f %%.",
            s->cosine, 100 * s->error);
    lab_say_reference(l, s->reference, own);
    return PV_OK;
}

int lab_steps(int argc, char **argv)
{
    lab l;
    steps s = {.l = &l, .reference = 1000};
    const cli_option options[] = {{"reference", "N",
                                   "steps of Heun's method that errors are told against (default: 1000)",
                                   CLI_INT, &s.reference, 2, 100000},
                                  {NULL}};
    const lab_command command = {
        .name = "steps",
        .claim = "The reports: \"3 steps = 3x faster\" denoising, with no error beside it. Here each count "
                 "is planned for\n"
                 "itself, and its actions are held to where the flow ends, integrated with many steps.",
        .example =
            "pivot lab steps --model synth:tiny\n"
            "pivot lab steps --model DIR --backend cuda --recipe bf16 --prompt \"pick up the red block\"",
        .options = options,
        .uses = LAB_POLICY};
    int code = lab_begin(&l, &command, argc, argv);
    code = lab_end(&l, code, code == CLI_GO ? work(&s) : PV_OK);
    pv_free(s.truth);
    pv_free(s.actions);
    pv_free(s.times);
    pv_free(s.loop_ms);
    return code;
}
