/* bench_ab.c - two ways to run one model, in turn, so that clocks, heat and neighbours meet both alike. Of
 * each pair the difference counts: what drifts slowly falls out of it. The first of a pair is A, then B, then
 * A, ...
 *
 * Two recipes are two sessions of one process. Two builds cannot be: a library of the same name is loaded
 * once, and a program carries its own. So each is a process of its own, started anew for every round; the
 * median of its runs is one number, and what differs from start to start (addresses, clocks) is within the
 * noise, as it should be. */
#define _GNU_SOURCE
#include "bench_compare.h"
#include "expand.h"
#include "base/memory.h"
#include "io/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_BYTES ((size_t)16 << 20) /* of what a program answers */

extern char **environ;

typedef struct pairs {
    double *ms[2][N_TIMES]; /* [n] */
    double *difference, *sorted;
    char *name[2];
    int n;
} pairs;

static void free_pairs(pairs *p)
{
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < N_TIMES; i++)
            pv_free(p->ms[s][i]);
        pv_free(p->name[s]);
    }
    pv_free(p->difference);
    pv_free(p->sorted);
}

bool bench_ab_of(const bench *b, const char *key)
{
    size_t n = strlen(key);
    const char *comma = !strncmp(b->ab, key, n) && b->ab[n] == '=' ? strchr(b->ab + n, ',') : NULL;
    return comma && comma > b->ab + n + 1 && comma[1] && !strchr(comma + 1, ',');
}

static char *copied(const char *from, size_t n)
{
    char *s = pv_alloc(n + 1);
    if (s) {
        memcpy(s, from, n);
        s[n] = 0;
    }
    return s;
}

static pv_status make_pairs(const bench *b, int n, pairs *p)
{
    const char *a = strchr(b->ab, '=') + 1, *comma = strchr(a, ',');
    *p = (pairs){.n = n,
                 .name = {copied(a, (size_t)(comma - a)), copied(comma + 1, strlen(comma + 1))},
                 .difference = pv_alloc(sizeof(double) * (size_t)n),
                 .sorted = pv_alloc(sizeof(double) * (size_t)n)};
    bool ok = p->name[0] && p->name[1] && p->difference && p->sorted;
    for (int s = 0; s < 2; s++)
        for (int i = 0; ok && i < N_TIMES; i++)
            ok = (p->ms[s][i] = pv_alloc(sizeof(double) * (size_t)n)) != NULL;
    return ok ? PV_OK : PV_E_MEMORY;
}

static summary summary_of(const pairs *p, const double *x)
{
    memcpy(p->sorted, x, sizeof *x * (size_t)p->n);
    return summarise(p->sorted, p->n);
}

static int tell(const bench *b, const pairs *p, const char *how, const char *label_a, const char *label_b,
                int runs)
{
    duel d = {.how = how, .label = {label_a, label_b}, .runs = {runs, runs}};
    for (int i = 0; i < N_TIMES; i++) {
        const double *x = p->ms[0][i], *y = p->ms[1][i];
        for (int k = 0; k < p->n; k++)
            p->difference[k] = x[k] > 0 ? y[k] / x[k] : 0;
        double ratio = summary_of(p, p->difference).p50;
        for (int k = 0; k < p->n; k++)
            p->difference[k] = y[k] - x[k];
        summary s = summary_of(p, p->difference);
        double noise = summary_margin(&s, p->n);
        d.row[i] = (duel_row){.there = true,
                              .a = summary_of(p, p->ms[0][i]).p50,
                              .b = summary_of(p, p->ms[1][i]).p50,
                              .ratio = ratio,
                              .difference = s.p50,
                              .noise = noise,
                              .verdict = p->n < SUMMARY_LEAST  ? VERDICT_TOO_FEW
                                         : fabs(s.p50) > noise ? VERDICT_DIFFERENT
                                                               : VERDICT_NOISE};
    }
    return duel_tell(&b->common, &d, b->html);
}

/* ---- recipes ---- */

static pv_status open_side(bench *b, const char *recipe, cli_progress_bar *bar, pv_session **out)
{
    pv_session_params sp = {.size = sizeof sp,
                            .recipe = recipe,
                            .max_steps = cli_max_steps(b->steps),
                            .progress = cli_progress,
                            .progress_user = bar};
    pv_status st = pv_session_create_expanded(b->model, b->backend, &sp, b->expand, out);
    cli_progress_end(bar);
    return st;
}

int bench_ab_recipes(bench *b)
{
    pairs p;
    pv_session *session[2] = {NULL, NULL};
    cli_progress_bar bar = {.off = b->common.json};
    pv_status st = make_pairs(b, b->runs, &p);
    if (!st)
        st = bench_make_inputs(b);
    for (int s = 0; !st && s < 2; s++)
        st = open_side(b, p.name[s], &bar, &session[s]);
    for (int i = -b->warmup; !st && i < b->runs; i++) {
        cli_note(&bar, "pair %d of %d", i < 0 ? 0 : i + 1, b->runs);
        if (!b->same_prompt)
            bench_turn_prompt(b);
        for (int k = 0; !st && k < 2; k++) {
            int s = (i & 1) ^ k;
            pv_timing t = {0};
            bench_await(b);
            st = bench_infer(b, session[s], &t);
            if (!st && i >= 0)
                bench_take(&t, p.ms[s], i);
        }
        cli_progress_end(&bar);
    }
    int code = st ? cli_fail(&b->common, st)
                  : tell(b, &p,
                         "1.82 quartile ranges of the pairs' differences over sqrt(pairs), a 95 % interval "
                         "of their median; an\n"
                         "inference of each in turn, with the same inputs, in one process",
                         p.name[0], p.name[1], b->runs);
    pv_session_destroy(&session[0]);
    pv_session_destroy(&session[1]);
    free_pairs(&p);
    return code;
}

/* ---- programs ---- */

#define MOST_WORDS (32 + CLI_LIST_MAX)

typedef struct words {
    char *word[MOST_WORDS + 1];
    int n;
    bool failed;
} words;

static void add(words *w, const char *fmt, ...) PV_PRINTF(2, 3);
static void add(words *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n >= 0 && w->n < MOST_WORDS ? pv_alloc((size_t)n + 1) : NULL;
    if (s) {
        va_start(ap, fmt);
        vsnprintf(s, (size_t)n + 1, fmt, ap);
        va_end(ap);
        w->word[w->n++] = s;
    }
    w->failed |= !s;
}

static void add_text(words *w, const char *option, const char *value)
{
    if (value)
        add(w, "--%s=%s", option, value);
}

static void add_number(words *w, const char *option, int value)
{
    if (value)
        add(w, "--%s=%d", option, value);
}

/* This command line without --ab. Rates are given, as nobody asks for a floor and measuring them takes time.
 */
static void command_line(words *w, const bench *b, const char *program)
{
    const cli_options *c = &b->common;
    *w = (words){.n = 0};
    add(w, "%s", program);
    add(w, "bench");
    add(w, "--json");
    add(w, "--bandwidth=1");
    add(w, "--flops=1");
    add_text(w, "model", c->model);
    add_text(w, "config", c->config);
    add_text(w, "tokenizer", c->tokenizer);
    add_text(w, "norm-stats", c->norm_stats);
    add_text(w, "asset-id", c->asset_id);
    add_number(w, "horizon", c->horizon);
    if (c->discrete_state != PV_AUTO)
        add_text(w, "discrete-state", c->discrete_state == PV_ON ? "on" : "off");
    if (c->zscore)
        add(w, "--zscore");
    add_text(w, "backend", c->backend);
    add_text(w, "device", c->device);
    add_text(w, "recipe", c->recipe);
    add_number(w, "threads", c->threads);
    add_number(w, "sms", c->sms);
    add_number(w, "views", b->views);
    add_number(w, "prompt-tokens", b->tokens);
    add_number(w, "steps", b->steps);
    add(w, "--runs=%d", b->runs);
    add(w, "--warmup=%d", b->warmup);
    if (b->every > 0)
        add(w, "--every=%.17g", b->every);
    if (b->same_prompt)
        add(w, "--same-prompt");
    for (int i = 0; i < b->expand_list.n; i++)
        add_text(w, "expand", b->expand_list.item[i]);
}

static void free_words(words *w)
{
    while (w->n)
        pv_free(w->word[--w->n]);
}

/* All of what comes; NUL behind it. */
static pv_status read_all(const char *program, int fd, char **out, size_t *n)
{
    size_t room = 1 << 16;
    char *text = pv_alloc(room);
    for (*n = 0; text;) {
        ssize_t got = read(fd, text + *n, room - *n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        *n += (size_t)got;
        if (*n + 1 < room)
            continue;
        char *more = room < MOST_BYTES ? pv_alloc(room * 2) : NULL;
        if (more)
            memcpy(more, text, *n);
        pv_free(text);
        text = more;
        if (!more)
            return room < MOST_BYTES
                       ? PV_E_MEMORY
                       : pv_fail(PV_E_FILE, "%s: writes more than %zu bytes", program, MOST_BYTES);
        room *= 2;
    }
    if (!text)
        return PV_E_MEMORY;
    text[*n] = 0;
    *out = text;
    return PV_OK;
}

static pv_status start(const char *program, words *w, int *fd, pid_t *pid)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return pv_fail(PV_E_FILE, "%s: no pipe: %s", program, strerror(errno));
    posix_spawn_file_actions_t actions;
    int error = posix_spawn_file_actions_init(&actions);
    if (!error) {
        error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (!error)
            error = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (!error)
            error = posix_spawnp(pid, program, &actions, NULL, w->word, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return pv_fail(PV_E_FILE, "%s: cannot be started: %s", program, strerror(error));
    }
    *fd = ends[0];
    return PV_OK;
}

static pv_status ask(const bench *b, const char *program, summary times[N_TIMES])
{
    words w;
    char *text = NULL;
    size_t n = 0;
    int fd = -1, status = 0, runs = 0;
    pid_t pid = 0;
    cJSON *json = NULL;
    command_line(&w, b, program);
    pv_status st = w.failed ? PV_E_MEMORY : start(program, &w, &fd, &pid);
    free_words(&w);
    if (st)
        return st;
    st = read_all(program, fd, &text, &n);
    close(fd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!st && (!WIFEXITED(status) || WEXITSTATUS(status)))
        st =
            pv_fail(PV_E_FILE, "%s bench: ended with %s %d", program, WIFEXITED(status) ? "status" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    if (!st)
        st = pv_json_parse(text, n, MOST_BYTES, program, &json);
    if (!st)
        st = bench_read(program, json, false, &runs, times);
    pv_free(text);
    cJSON_Delete(json);
    return st;
}

int bench_ab_programs(const bench *b)
{
    pairs p;
    cli_progress_bar bar = {.off = b->common.json};
    pv_status st = make_pairs(b, b->rounds, &p);
    for (int i = 0; !st && i < b->rounds; i++)
        for (int k = 0; !st && k < 2; k++) {
            int s = (i & 1) ^ k;
            summary times[N_TIMES] = {{0}};
            cli_note(&bar, "round %d of %d: %s", i + 1, b->rounds, p.name[s]);
            st = ask(b, p.name[s], times);
            cli_progress_end(&bar);
            for (int t = 0; !st && t < N_TIMES; t++)
                p.ms[s][t][i] = times[t].p50;
        }
    int code = st ? cli_fail(&b->common, st)
                  : tell(b, &p,
                         "1.82 quartile ranges of the rounds' differences over sqrt(rounds), a 95 % interval "
                         "of their median; each\n"
                         "program started anew for each round, in turn, and the median of its runs taken",
                         p.name[0], p.name[1], b->rounds * b->runs);
    free_pairs(&p);
    return code;
}
