/* bench.h - what `pivot bench` measured: filled in by bench.c, told by bench_report.c. */
#ifndef PV_TOOLS_BENCH_H
#define PV_TOOLS_BENCH_H

#include "cli.h"
#include "cost.h"
#include "session/session.h"

/* observe, host and total by the clock on the wall; the stages and run, which is all of them, by the device's. host is what
 * total has more than run. */
enum { OBSERVE, VISION, PREFIX, DENOISE, RUN, HOST, TOTAL, N_TIMES };

typedef struct bench {
    cli_options common;
    int views, tokens, steps, runs, warmup;
    bool ops, same_prompt;
    cli_list expand_list;
    uint64_t expand;
    double bandwidth, flops; /* GB/s and TFLOP/s, as given; 0: measured */
    pv_model *model;
    pv_backend *backend;
    pv_session *session;
    pv_model_info info;
    pv_device_info device; /* behind the runs: with the clocks it had by then */
    pv_memory_info memory;
    uint64_t peak_bytes; /* the most that this process had in use for it; 0 where the system does not tell */
    uint8_t *pixels[PV_MAX_CAMERAS];
    pv_image image[PV_MAX_CAMERAS];
    int32_t *ids;
    float *noise, *actions;
    double *ms[N_TIMES]; /* [runs] */
    double load_ms, schedule_ms;
    int prefix_tokens;
    rates rates; /* 0: not known, and there is no floor */
    cost_row *costs;
    int n_costs;
    char date[32];
} bench;

void bench_print(bench *b);
int bench_print_json(bench *b); /* the exit code */

#endif
