/* serve_metrics.c - counters of `pivot serve`, and Prometheus' text of them (exposition format 0.0.4). */
#include "serve.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const error_name[] = {
#define X(name) #name,
    SERVE_ERRORS(X)
#undef X
};
static const char *const stage_name[] = {
#define X(name) #name,
    SERVE_STAGES(X)
#undef X
};

static const double upper_ms[] = {0.1, 0.25, 0.5, 1,    2.5,  5,    10,    25,   50,
                                  100, 250,  500, 1000, 2500, 5000, 10000, 30000};
enum { N_BUCKETS = (int)(sizeof upper_ms / sizeof *upper_ms) };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t replies, superseded, outside, truncated, error[SERVE_ERROR_COUNT];
    int clients;
    struct {
        uint64_t bucket[N_BUCKETS + 1];
        double sum_ms;
    } stage[SERVE_STAGE_COUNT];
} counts;

void serve_count_error(serve_error kind)
{
    pthread_mutex_lock(&lock);
    counts.error[kind]++;
    pthread_mutex_unlock(&lock);
}

void serve_count_superseded(void)
{
    pthread_mutex_lock(&lock);
    counts.superseded++;
    pthread_mutex_unlock(&lock);
}

void serve_count_clients(int change)
{
    pthread_mutex_lock(&lock);
    counts.clients += change;
    pthread_mutex_unlock(&lock);
}

void serve_count_reply(const double ms[SERVE_STAGE_COUNT], int state_outside, bool truncated)
{
    pthread_mutex_lock(&lock);
    counts.replies++;
    counts.outside += (uint64_t)state_outside;
    counts.truncated += truncated;
    for (int s = 0; s < SERVE_STAGE_COUNT; s++) {
        int b = 0;
        while (b < N_BUCKETS && ms[s] > upper_ms[b])
            b++;
        counts.stage[s].bucket[b]++;
        counts.stage[s].sum_ms += ms[s];
    }
    pthread_mutex_unlock(&lock);
}

typedef struct writer {
    char *at;
    size_t left;
} writer;

static void say(writer *w, const char *fmt, ...) PV_PRINTF(2, 3);
static void say(writer *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(w->at, w->left, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < w->left ? (size_t)n : w->left - 1;
    w->at += used;
    w->left -= used;
}

static void head(writer *w, const char *name, const char *type, const char *help)
{
    say(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(writer *w, const char *name, const char *help, uint64_t value)
{
    head(w, name, "counter", help);
    say(w, "%s %llu\n", name, (unsigned long long)value);
}

static void tell_recorder(writer *w, pv_recorder *recorder)
{
    pv_recorder_info r = {.size = sizeof r};
    if (!recorder || pv_recorder_describe(recorder, &r))
        return;
    counter(w, "pivot_recordings_total", "Recordings written.", r.written);
    head(w, "pivot_recordings_dropped_total", "counter",
         "Answered observations that were not recorded: too many waited for the disk, folder full, or the "
         "file failed.");
    say(w, "pivot_recordings_dropped_total{reason=\"queue\"} %llu\n", (unsigned long long)r.dropped_queue);
    say(w, "pivot_recordings_dropped_total{reason=\"limit\"} %llu\n", (unsigned long long)r.dropped_limit);
    say(w, "pivot_recordings_dropped_total{reason=\"failed\"} %llu\n", (unsigned long long)r.dropped_failed);
    head(w, "pivot_recordings_bytes", "gauge", "Of the folder of recordings.");
    say(w, "pivot_recordings_bytes %llu\n", (unsigned long long)r.bytes);
}

size_t serve_metrics(pv_recorder *recorder, char *text, size_t size)
{
    writer w = {text, size};
    *text = 0;
    tell_recorder(&w, recorder);
    pthread_mutex_lock(&lock);
    counter(&w, "pivot_replies_total", "Observations answered with actions.", counts.replies);
    counter(&w, "pivot_superseded_total",
            "Observations that a later one of their connection took the place of.", counts.superseded);
    counter(&w, "pivot_state_outside_total", "Numbers of states outside q01..q99 of the statistics.",
            counts.outside);
    counter(&w, "pivot_prompts_truncated_total", "Prompts cut at the model's length.", counts.truncated);
    head(&w, "pivot_errors_total", "counter", "Requests and connections that were refused or failed.");
    for (int i = 0; i < SERVE_ERROR_COUNT; i++)
        say(&w, "pivot_errors_total{kind=\"%s\"} %llu\n", error_name[i], (unsigned long long)counts.error[i]);
    head(&w, "pivot_clients", "gauge", "Connections that are open.");
    say(&w, "pivot_clients %d\n", counts.clients);
    head(&w, "pivot_stage_seconds", "histogram", "Time of each stage of a request.");
    for (int s = 0; s < SERVE_STAGE_COUNT; s++) {
        uint64_t sum = 0;
        for (int b = 0; b < N_BUCKETS; b++) {
            sum += counts.stage[s].bucket[b];
            say(&w, "pivot_stage_seconds_bucket{stage=\"%s\",le=\"%g\"} %llu\n", stage_name[s],
                upper_ms[b] / 1e3, (unsigned long long)sum);
        }
        sum += counts.stage[s].bucket[N_BUCKETS];
        say(&w, "pivot_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %llu\n", stage_name[s],
            (unsigned long long)sum);
        say(&w, "pivot_stage_seconds_sum{stage=\"%s\"} %.9g\n", stage_name[s], counts.stage[s].sum_ms / 1e3);
        say(&w, "pivot_stage_seconds_count{stage=\"%s\"} %llu\n", stage_name[s], (unsigned long long)sum);
    }
    pthread_mutex_unlock(&lock);
    return (size_t)(w.at - text);
}
