/* lab.h - `pivot lab NAME`: an experiment each, one file each, that prints a table and what would turn it
 * over.
 *
 * An experiment is a function `int lab_NAME(int argc, char **argv)` in lab/NAME.c, listed in LAB_EXPERIMENTS.
 * It says what it is in a lab_command, lets lab_begin parse and open, adds rows, and lets lab_end print:
 *
 *     int lab_mask(int argc, char **argv)
 *     {
 *         lab l;
 *         const cli_option options[] = {{"absent", "CAM", "...", CLI_LIST, &absent}, {NULL}};
 *         const lab_command command = {.name = "mask", .claim = "...", .options = options};
 *         int code = lab_begin(&l, &command, argc, argv);
 *         return lab_end(&l, code, code == CLI_GO ? work(&l) : PV_OK);
 *     }
 *
 * What the reports that these experiments test had measured on a Jetson Thor stands in a column of its own,
 * as text: it is never a number among ours. Variants are graphs over ordinary ops, or runs of the model
 * itself, so that every backend has them. */
#ifndef PV_TOOLS_LAB_H
#define PV_TOOLS_LAB_H

#include "base/arena.h"
#include "session/runner.h"
#include "tools/cli.h"

#include <math.h>

/* name, the question that it answers, backends where it makes sense */
/* clang-format off */
#define LAB_EXPERIMENTS(X)                                                                                   \
    X(attention, "the loop's attention through memory, masked, fused, transposed, causal", "cpu cuda vulkan") \
    X(mlp, "the MLPs with numbers of 16, 8 and 4 bits", "cpu cuda vulkan")                                    \
    X(projections, "the products of the expert's layers, one by one and joined", "cpu cuda vulkan")           \
    X(mask, "the mask that openpi builds, and what packing drops in its place", "cpu cuda vulkan")           \
    X(suffix, "what a step does beside its transformer, and what hoisting leaves of it", "cpu cuda vulkan")  \
    X(graph, "one recording of all that a loop does, or its nodes one by one", "cpu cuda vulkan")            \
    X(schedule, "what a noise schedule does with its steps, and what that is worth", "cpu cuda vulkan")      \
    X(steps, "what fewer or more denoising steps cost and give", "cpu cuda vulkan")                          \
    X(reuse, "denoising begun from a state of the chunk before: what it saves and costs", "cpu cuda vulkan")
/* clang-format on */

#define X(name, question, backends) int lab_##name(int argc, char **argv);
LAB_EXPERIMENTS(X)
#undef X

/* ---- what an experiment says of itself ---- */

typedef struct lab_command {
    const char *name;    /* of LAB_EXPERIMENTS */
    const char *claim;   /* of the reports, and how it is tested: lines for --help and below the title */
    const char *example; /* whole command lines */
    const cli_option *options; /* its own, beside --runs and --warmup; ends with a NULL name */
    unsigned uses;             /* which of the shared options */
    int runs;                  /* where --runs is not given; 0: 20 */
} lab_command;

enum {
    LAB_SIZES = 1, /* --views, --prompt-tokens */
    LAB_SEES = 2,  /* --image, --prompt, --state: an observation for the model, see policy.h */
    LAB_STEPS = 4, /* --steps */
    LAB_SEED = 8,  /* --seed */
    LAB_POLICY = LAB_SIZES | LAB_SEES | LAB_SEED
};

/* ---- rows ---- */

typedef struct lab_time { /* milliseconds of `runs` runs; runs 0: not measured */
    int runs;
    double median, low, high; /* low, high: a quarter of the runs is below, a quarter above */
} lab_time;

typedef enum lab_form { LAB_NUMBER, LAB_COUNT, LAB_MS, LAB_ERROR, LAB_PERCENT, LAB_RATIO, LAB_WORD } lab_form;

#define LAB_COLUMNS 8
typedef struct lab_column {  /* beside name, time, error and the reports' figure */
    const char *key, *title; /* in JSON; in text. key NULL ends */
    lab_form form;
} lab_column;

typedef struct lab_value {
    double number;    /* NaN: none */
    const char *word; /* of LAB_WORD; NULL: none */
} lab_value;

typedef struct lab_row {
    const char *name;
    lab_time time;
    double error;       /* relative L2 unless the table says otherwise; NaN: none */
    const char *report; /* what the reports have for it, with its unit; NULL: nothing */
    lab_value value[LAB_COLUMNS];
    struct lab_row *next;
} lab_row;

typedef struct lab_table {
    const char *title;
    lab_column column[LAB_COLUMNS + 1];
    lab_row *first, *last;
    struct lab_table *next;
} lab_table;

typedef struct lab_note {
    const char *text;
    struct lab_note *next;
} lab_note;

/* ---- an experiment at work ---- */

typedef struct lab {
    const lab_command *command;
    cli_options common;
    int runs, warmup, views, tokens, steps;
    uint64_t seed;
    cli_list images; /* CAM=FILE */
    const char *prompt, *state;
    pv_model *model;
    pv_model_info info;
    pv_backend *backend;
    pv_device_info device; /* behind the runs: with the clocks it had by then */
    char date[32];
    cli_progress_bar bar;
    pv_arena arena;   /* rows, texts */
    pv_status status; /* sticky: no memory for a row */
    lab_table *tables, *table;
    lab_note *notes;
    struct lab_policy *policy; /* policy.h; NULL: not asked for */
} lab;

/* Parses, opens model and backend. CLI_GO, or the exit code. views, tokens and steps are those of the model
 * where they were not given. */
int lab_begin(lab *l, const lab_command *command, int argc, char **argv);
/* Prints, unless `code` is one already or `status` a failure; gives everything back. The exit code. */
int lab_end(lab *l, int code, pv_status status);

/* Rows go to the table that was begun last. Columns end with a NULL key; NULL: none. Text is copied. */
void lab_begin_table(lab *l, const lab_column *columns, const char *title_fmt, ...) PV_PRINTF(3, 4);
lab_row *lab_add(lab *l, const char *name_fmt, ...)
    PV_PRINTF(2, 3); /* never NULL; without time, error and values */
const char *lab_text(lab *l, const char *fmt, ...) PV_PRINTF(2, 3); /* lives as long as the lab; never NULL */
void lab_say(lab *l, const char *fmt, ...)
    PV_PRINTF(2, 3); /* a paragraph below the tables: what turns it over */

int lab_print(lab *l); /* report.c; the exit code */

/* ---- measuring ---- */

/* Of n milliseconds, which are sorted on the way. */
lab_time lab_summary(double *ms, int n);

/* `n` ways of doing something, in turn, so that what else happens on the machine meets them alike: l->warmup
 * rounds, then l->runs. `run` gives the milliseconds of one; out [n]. `what` is for the progress. */
pv_status lab_measure_ways(lab *l, const char *what, int n, pv_status (*run)(void *user, int way, double *ms),
                           void *user, lab_time *out);
/* One way alone. */
pv_status lab_measure(lab *l, const char *what, pv_status (*run)(void *user, double *ms), void *user,
                      lab_time *out);

/* |x - y| / |y| over n numbers, 2-norms; 0 where both are 0. y in float64: what x should be. */
double lab_error(const float *x, const double *y, size_t n);
double lab_error_f32(const float *x, const float *y, size_t n);
double lab_cosine(const float *x, const double *y, size_t n); /* what the reports judged by */
double lab_max_abs(const float *x, const double *y, size_t n);

void lab_random(uint64_t seed, float *x, size_t n); /* independent normal numbers */

/* ---- a small graph of ops at work ----
 * Built with g->stage = PV_STAGE_DENOISE its nodes run lab_small.steps times in one submission: 18 nodes and
 * 10 steps are 180 calls, timed as one. What is to be read must have `output` set before lab_small_make. */
typedef struct lab_small {
    pv_plan *plan;
    pv_instance *inst;
    int steps;
} lab_small;

/* Takes the graph, whether it succeeds or not. params->steps 0 counts as 1. Inputs and states without a
 * producer are zero until they are set. */
pv_status lab_small_make(pv_backend *be, pv_graph **g, const pv_plan_params *params, lab_small *out);
void lab_small_free(lab_small *s);
pv_status lab_small_set(lab_small *s, const char *tensor,
                        const float *x); /* all its elements, rounded to its dtype */
pv_status lab_small_count(lab_small *s, const char *tensor, int32_t value); /* an i32 */
pv_status lab_small_get(lab_small *s, const char *tensor, float *x);
pv_status lab_small_run(lab_small *s, double *ms); /* all stages; ms by the device's clock */
pv_status lab_small_time(lab *l, const char *what, lab_small *s, lab_time *out);

#endif
