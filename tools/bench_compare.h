/* bench_compare.h - two benches beside each other: ratio, difference, and whether it is more than noise.
 * Whoever measured them (two files, or both in turn) fills the rows. */
#ifndef PV_TOOLS_BENCH_COMPARE_H
#define PV_TOOLS_BENCH_COMPARE_H

#include "bench.h"

typedef struct duel_row {
    bool there;
    double a, b;       /* medians, milliseconds */
    double ratio;      /* b / a, 0: none; of pairs, the median of theirs */
    double difference; /* b - a; of pairs, the median of theirs */
    double noise;      /* a difference up to this may be chance */
    verdict verdict;
} duel_row;

typedef struct duel {
    const char *how;      /* what `noise` is made of */
    const char *label[2]; /* "f32", a file, a program */
    int runs[2];
    duel_row row[N_TIMES];
    cJSON *report[2]; /* pivot.bench objects, where they came as such: what differs in them is said */
} duel;

/* As a table or as JSON ("pivot.bench-compare/1"), and as a page where `html` is its name. The exit code. */
int duel_tell(const cli_options *common, const duel *d, const char *html);
pv_status duel_html(const duel *d, const char *path); /* bench_html.c */
extern const char *const verdict_words[];             /* by verdict */

/* A pivot.bench object, checked: its times' medians, quartiles if asked for. PV_E_FILE names the key that is
 * missing or is no such thing. */
pv_status bench_read(const char *where, const cJSON *json, bool quartiles, int *runs, summary out[N_TIMES]);

/* `pivot bench --compare A.json B.json`. The exit code. */
int bench_compare(const bench *b);

#endif
