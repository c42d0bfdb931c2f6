/* bench.h - what `pivot bench` measured: filled in by bench.c, told by bench_report.c. */
#ifndef PV_TOOLS_BENCH_H
#define PV_TOOLS_BENCH_H

#include "bench_stats.h"
#include "cli.h"
#include "cost.h"
#include "session/session.h"

/* observe, host and total by the clock on the wall; the stages and run, which is all of them, by the
 * device's. host is what total has more than run. */
enum { OBSERVE, VISION, PREFIX, DENOISE, RUN, HOST, TOTAL, N_TIMES };
extern const char *const bench_time_names[N_TIMES];

/* What stands between nothing and the first actions, one behind the other. The first inference makes a plan
 * of its own where its shape is not that of all cameras and the longest prompt, which opening a session plans
 * for. */
enum { COLD_OPEN, COLD_MODEL, COLD_PLAN, COLD_WEIGHTS, COLD_RECORD, COLD_REST, COLD_FIRST, N_COLD };
extern const char *const bench_cold_names[N_COLD];

typedef struct bench {
    cli_options common;
    int views, tokens, steps, runs, warmup, rounds;
    bool ops, same_prompt;
    const char *html, *compare, *ab;
    cli_list expand_list;
    uint64_t expand;
    double bandwidth, flops; /* GB/s and TFLOP/s, as given; 0: measured */
    double every, due;       /* ms from one inference's begin to the next one's; when that is */
    pv_model *model;
    pv_backend *backend;
    pv_session *session;
    pv_model_info info;
    pv_device_info device; /* behind the runs: with the clocks it had by then */
    int power_mode;        /* of a Jetson; -1: not known */
    pv_memory_info memory;
    uint64_t peak_bytes, load_peak_bytes; /* the most that this process had in use, in all and until it was
                                           * loaded; 0 where the system does not tell */
    uint8_t *pixels[PV_MAX_CAMERAS];
    pv_image image[PV_MAX_CAMERAS];
    int32_t *ids;
    float *noise, *actions;
    double *ms[N_TIMES]; /* [runs], in their order */
    double *sorted;      /* [runs]: room for a summary */
    double cold_ms[N_COLD], schedule_ms;
    int prefix_tokens;
    rates rates; /* 0: not known, and there is no floor */
    cost_row *costs;
    int n_costs;
    char date[32];
} bench;

summary bench_summary(const bench *b, int time);
double bench_floor(const bench *b, int time);     /* of the times that have one; 0: none */
double bench_percent(double ms, double floor_ms); /* of the floor: 100 where nothing is lost; 0: no floor */
cost_row bench_stage(const bench *b, pv_stage stage); /* all its ops added up */
double bench_cold(const bench *b);                    /* all of cold_ms */
const char *bench_recipe(const bench *b);

void bench_print(const bench *b);
int bench_print_json(const bench *b); /* the exit code */
pv_status bench_html(const bench *b); /* bench_html.c: as a page, to b->html */

/* What an A/B does itself. */
void bench_turn_prompt(bench *b);
void bench_await(bench *b); /* the next inference's time, with --every */
pv_status bench_infer(const bench *b, pv_session *s, pv_timing *t);
void bench_take(const pv_timing *t, double *const ms[N_TIMES], int i);
pv_status bench_make_inputs(bench *b);

/* `--ab recipe=X,Y` once model and backend are there; `--ab program=X,Y` without them. The exit code. */
bool bench_ab_of(const bench *b, const char *key);
int bench_ab_recipes(bench *b);
int bench_ab_programs(const bench *b);

#endif
