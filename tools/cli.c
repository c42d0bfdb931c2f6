/* cli.c - see cli.h. getopt_long reads the command line; its table is made from the tables of cli_option. */
#include "cli.h"
#include "base/clock.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/processors.h"
#include "plan/recipe.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_OPTIONS 64
#define HELP_COLUMN 26

/* ---- messages ---- */

static void say(const cli_options *c, const char *kind, const char *fmt, va_list ap)
{
    fflush(stdout);
    fprintf(stderr, "pivot %s: %s", c->command, kind);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int cli_usage(const cli_options *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(c, "", fmt, ap);
    va_end(ap);
    fprintf(stderr, "Try 'pivot %s --help'.\n", c->command);
    return CLI_USAGE;
}

void cli_warn(const cli_options *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(c, "warning: ", fmt, ap);
    va_end(ap);
}

int cli_fail(const cli_options *c, pv_status status)
{
    fflush(stdout);
    fprintf(stderr, "pivot %s: %s\n", c->command, pv_error_text());
    return status == PV_E_UNAVAILABLE ? CLI_UNAVAILABLE : CLI_FAILED;
}

/* ---- misspellings ---- */

/* Letters to insert, drop, change or swap with the next one, to get from a to b. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 64 };
    int rows[3][MOST], n = (int)strlen(b);
    if (n >= MOST)
        return MOST;
    for (int j = 0; j <= n; j++)
        rows[0][j] = j;
    int i = 1;
    for (; a[i - 1]; i++) {
        int *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int least = up[j - 1] + (a[i - 1] != b[j - 1]);
            least = up[j] + 1 < least ? up[j] + 1 : least;
            least = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < least)
                least = up2[j - 2] + 1;
            row[j] = least;
        }
    }
    return rows[(i + 2) % 3][n];
}

const char *cli_nearest(const char *word, const char *const *list)
{
    const char *best = NULL;
    size_t n = strlen(word);
    int least = n > 64 ? 0 : n < 4 ? 2 : n < 8 ? 3 : 4; /* fewer than this many letters may differ */
    for (; least && *list; list++) {
        int d = distance(word, *list);
        if (d < least) {
            least = d;
            best = *list;
        }
    }
    return best;
}

/* ---- values ---- */

static bool parse_int(const char *text, long long *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return end != text && !*end && !errno;
}

static bool parse_u64(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return end != text && !*end && !errno && !strchr(text, '-');
}

static bool parse_double(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end;
}

static int bad(const cli_options *c, const cli_option *o, const char *expected, const char *value)
{
    return cli_usage(c, "--%s: expected %s, came '%s'", o->name, expected, value);
}

static int take_int(const cli_options *c, const cli_option *o, const char *value)
{
    long long v, low = INT32_MIN, high = INT32_MAX;
    if (o->low != 0 || o->high != 0) {
        low = (long long)o->low;
        high = (long long)o->high;
    }
    if (!parse_int(value, &v) || v < low || v > high) {
        char expected[80];
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", low, high);
        return bad(c, o, expected, value);
    }
    *(int *)o->target = (int)v;
    return CLI_GO;
}

static int take_number(const cli_options *c, const cli_option *o, const char *value)
{
    double v;
    bool any = o->low == 0 && o->high == 0;
    if (!parse_double(value, &v) || !isfinite(v) || (!any && (v < o->low || v > o->high))) {
        char expected[80] = "a number";
        if (!any)
            snprintf(expected, sizeof expected, "a number from %g to %g", o->low, o->high);
        return bad(c, o, expected, value);
    }
    *(double *)o->target = v;
    return CLI_GO;
}

static int take(const cli_options *c, const cli_option *o, const char *value)
{
    cli_list *list = o->target;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->target = true;
        return CLI_GO;
    case CLI_TEXT:
        *(const char **)o->target = value;
        return CLI_GO;
    case CLI_LIST:
        if (list->n == CLI_LIST_MAX)
            return cli_usage(c, "--%s: given more than %d times", o->name, CLI_LIST_MAX);
        list->item[list->n++] = value;
        return CLI_GO;
    case CLI_MAYBE:
        *(cli_maybe *)o->target = (cli_maybe){true, value};
        return CLI_GO;
    case CLI_INT:
        return take_int(c, o, value);
    case CLI_NUMBER:
        return take_number(c, o, value);
    case CLI_U64:
        return parse_u64(value, o->target) ? CLI_GO : bad(c, o, "a whole number from 0 to 2^64 - 1", value);
    case CLI_SWITCH:
        if (strcmp(value, "on") && strcmp(value, "off"))
            return bad(c, o, "on or off", value);
        *(pv_switch *)o->target = strcmp(value, "on") ? PV_OFF : PV_ON;
        return CLI_GO;
    }
    return CLI_USAGE;
}

/* The item of a list that begins at `text`: its end, and whether it is empty. */
static size_t item(const char *text, char *copy, size_t size)
{
    size_t n = strcspn(text, ",");
    snprintf(copy, size, "%.*s", (int)(n < size ? n : size - 1), text);
    return n;
}

static int count_items(const char *text)
{
    int n = 1;
    for (; (text = strchr(text, ',')); text++)
        n++;
    return n;
}

pv_status cli_numbers(const char *what, const char *text, double **out, int *n)
{
    *n = count_items(text);
    *out = pv_alloc(sizeof **out * (size_t)*n);
    for (int i = 0; *out && i < *n; i++) {
        char word[64];
        size_t used = item(text, word, sizeof word);
        if (!parse_double(word, &(*out)[i])) {
            pv_free(*out);
            *out = NULL;
            return pv_fail(PV_E_ARG, "%s: expected numbers with commas between, number %d is '%s'", what, i,
                           word);
        }
        text += used + 1;
    }
    return *out ? PV_OK : PV_E_MEMORY;
}

pv_status cli_integers(const char *what, const char *text, int32_t **out, int *n)
{
    *n = count_items(text);
    *out = pv_alloc(sizeof **out * (size_t)*n);
    for (int i = 0; *out && i < *n; i++) {
        char word[64];
        long long v;
        size_t used = item(text, word, sizeof word);
        if (!parse_int(word, &v) || v < INT32_MIN || v > INT32_MAX) {
            pv_free(*out);
            *out = NULL;
            return pv_fail(PV_E_ARG, "%s: expected whole numbers with commas between, number %d is '%s'",
                           what, i, word);
        }
        (*out)[i] = (int32_t)v;
        text += used + 1;
    }
    return *out ? PV_OK : PV_E_MEMORY;
}

/* ---- the tables ---- */

typedef struct table {
    cli_option option[MAX_OPTIONS];
    int n, n_own, n_model, n_device; /* own ones first, then group by group */
} table;

static void add(table *t, const cli_option *o)
{
    for (; o->name && t->n < MAX_OPTIONS; o++)
        t->option[t->n++] = *o;
}

typedef struct asked { /* in place of the command's work */
    bool help, version;
} asked;

static const char *recipe_help(const cli_command *cmd)
{
    static char text[256];
    char names[128];
    snprintf(text, sizeof text, "which tensor has which dtype: %s\n(default: %s)", pv_recipe_names(names, sizeof names),
             cmd->recorded ? "as recorded" : pv_recipe_list(0)->name);
    return text;
}

static void fill(table *t, const cli_command *cmd, cli_options *c, asked *a)
{
    const cli_option model[] = {
        {"model", "MODEL",
         "a folder as published by openpi or lerobot, a .safetensors file with\n"
         "--config, or synth:tiny or synth:full (made from a hash, no file)",
         CLI_TEXT, &c->model},
        {"config", "FILE", "dimensions as JSON; wins over what the folder says", CLI_TEXT, &c->config},
        {"tokenizer", "FILE", "SentencePiece model, where the folder has none", CLI_TEXT, &c->tokenizer},
        {"norm-stats", "FILE", "norm_stats.json, where the folder has none", CLI_TEXT, &c->norm_stats},
        {"asset-id", "ID", "which of several assets/ID/norm_stats.json; of synth:*, 14x12: for a state of 14\n"
         "numbers and 12 actions", CLI_TEXT, &c->asset_id},
        {"horizon", "N", "action steps in a chunk, where the folder does not say", CLI_INT, &c->horizon, 1,
         1 << 16},
        {"discrete-state", "on|off", "is the state told as digits in the prompt?", CLI_SWITCH,
         &c->discrete_state},
        {"zscore", NULL, "normalise with mean and deviation in place of quantiles", CLI_FLAG, &c->zscore},
        {NULL},
    };
    const cli_option device[] = {
        {"backend", "NAME", cmd->recorded ? "what computes (default: as recorded)" : "what computes (default: cpu)", CLI_TEXT, &c->backend},
        {"device", "X", "its device, by index, name or UUID, as pivot devices tells them\n(default: the first that is not software)", CLI_TEXT, &c->device},
        {"recipe", "NAME",
         recipe_help(cmd), CLI_TEXT, &c->recipe},
        {"threads", "N", "CPU threads (default: one for each core this process may use)", CLI_INT,
         &c->threads, 1, 4096},
        {NULL},
    };
    const cli_option json_file[] = {
        {"json", "[=FILE]", "one JSON object: on stdout, or in FILE beside the report", CLI_MAYBE, &c->json_file}, {NULL}};
    const cli_option json[] = {{"json", NULL, "one JSON object on stdout", CLI_FLAG, &c->json}, {NULL}};
    const cli_option last[] = {{"help", NULL, "this page", CLI_FLAG, &a->help},
                               {"version", NULL, "the version of pivot", CLI_FLAG, &a->version},
                               {NULL}};
    if (cmd->options)
        add(t, cmd->options);
    t->n_own = t->n;
    if (cmd->groups & CLI_MODEL)
        add(t, model);
    t->n_model = t->n;
    if (cmd->groups & CLI_DEVICE)
        add(t, device);
    t->n_device = t->n;
    if (cmd->groups & CLI_JSON)
        add(t, json);
    if (cmd->groups & CLI_JSON_FILE)
        add(t, json_file);
    add(t, last);
}

/* ---- help ---- */

static void print_option(const cli_option *o)
{
    int used = printf("  --%s%s%s", o->name, o->value && o->kind != CLI_MAYBE ? " " : "", o->value ? o->value : "");
    if (used >= HELP_COLUMN) {
        putchar('\n');
        used = 0;
    }
    for (const char *line = o->help; line; used = 0) {
        size_t n = strcspn(line, "\n");
        printf("%*s%.*s\n", HELP_COLUMN - used, "", (int)n, line);
        line = line[n] ? line + n + 1 : NULL;
    }
}

static void print_group(const char *title, const cli_option *o, int n)
{
    if (n > 0)
        printf("\n%s\n", title);
    for (int i = 0; i < n; i++)
        print_option(&o[i]);
}

static void print_lines(const char *title, const char *text)
{
    printf("\n%s\n", title);
    while (*text) {
        size_t n = strcspn(text, "\n");
        printf("  %.*s\n", (int)n, text);
        text += n + (text[n] != 0);
    }
}

static void print_help(const cli_command *cmd, const table *t)
{
    printf("pivot %s - %s\n\nUsage: pivot %s %s\n", cmd->name, cmd->purpose, cmd->name, cmd->usage);
    print_group("Options", t->option, t->n_own);
    print_group("Model", t->option + t->n_own, t->n_model - t->n_own);
    print_group("Device", t->option + t->n_model, t->n_device - t->n_model);
    print_group("Output", t->option + t->n_device, t->n - t->n_device);
    if (cmd->notes)
        print_lines("Notes", cmd->notes);
    print_lines("Example", cmd->example);
}

/* ---- parsing ---- */

static int unknown(const cli_options *c, const table *t, const char *word)
{
    const char *names[MAX_OPTIONS + 1] = {NULL};
    for (int i = 0; i < t->n; i++)
        names[i] = t->option[i].name;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word + strspn(word, "-"));
    name[strcspn(name, "=")] = 0;
    const char *near = cli_nearest(name, names);
    return near ? cli_usage(c, "unknown option '%s'; did you mean --%s?", word, near)
                : cli_usage(c, "unknown option '%s'", word);
}

static int take_operands(const cli_command *cmd, int argc, char **argv, cli_options *c)
{
    const char *none = NULL, **operand = cmd->operand              ? cmd->operand
                                         : cmd->groups & CLI_MODEL ? &c->model
                                                                   : &none;
    for (int i = optind; cmd->operands && i < argc; i++) {
        if (cmd->operands->n == CLI_LIST_MAX)
            return cli_usage(c, "expected at most %d times %s", CLI_LIST_MAX, cmd->operand_name);
        cmd->operands->item[cmd->operands->n++] = argv[i];
    }
    for (int i = optind; !cmd->operands && i < argc; i++) {
        if (operand == &none)
            return cli_usage(c, "unexpected argument '%s'", argv[i]);
        if (*operand)
            return cli_usage(c, "unexpected argument '%s': %s is '%s' already", argv[i],
                             cmd->operand_name ? cmd->operand_name : "MODEL", *operand);
        *operand = argv[i];
    }
    return CLI_GO;
}

int cli_parse(const cli_command *cmd, int argc, char **argv, cli_options *c)
{
    asked request = {0};
    table t = {.n = 0};
    *c = (cli_options){.command = cmd->name};
    fill(&t, cmd, c, &request);
    struct option longs[MAX_OPTIONS + 1] = {{0}};
    for (int i = 0; i < t.n; i++)
        longs[i] = (struct option){t.option[i].name,
                                   t.option[i].kind == CLI_MAYBE ? optional_argument
                                   : t.option[i].value           ? required_argument
                                                                 : no_argument,
                                   NULL, 256 + i};

    opterr = 0;
    optind = 0; /* GNU: start afresh */
    for (int got; (got = getopt_long(argc, argv, ":h", longs, NULL)) != -1;) {
        const char *word = optind > 0 && optind <= argc ? argv[optind - 1] : "";
        int code = CLI_GO;
        if (got == 'h')
            request.help = true;
        else if (got >= 256)
            code = take(c, &t.option[got - 256], optarg);
        else if (got == ':')
            code = cli_usage(c, "%s: expected a value", word);
        else if (optopt >= 256)
            code = cli_usage(c, "--%s takes no value", t.option[optopt - 256].name);
        else if (optopt) /* one letter, perhaps amid others */
            code = cli_usage(c, "unknown option '-%c'", optopt);
        else
            code = unknown(c, &t, word);
        if (code != CLI_GO)
            return code;
    }
    if (request.help)
        print_help(cmd, &t);
    else if (request.version)
        printf("pivot %s\n", pv_version());
    if (request.help || request.version)
        return CLI_OK;
    c->json |= c->json_file.given && !c->json_file.value;
    int code = take_operands(cmd, argc, argv, c);
    if (code == CLI_GO && cmd->groups & CLI_MODEL && !cmd->model_optional && !c->model)
        code = cli_usage(c, "expected a model: --model MODEL");
    return code;
}

/* ---- what the common options stand for ---- */

pv_model_params cli_model_params(const cli_options *c)
{
    return (pv_model_params){
        .size = sizeof(pv_model_params),
        .config = c->config,
        .tokenizer = c->tokenizer,
        .norm_stats = c->norm_stats,
        .asset_id = c->asset_id,
        .horizon = c->horizon,
        .discrete_state = c->discrete_state,
        .zscore = c->zscore ? PV_ON : PV_AUTO,
    };
}

pv_status cli_open_model(const cli_options *c, pv_model **out)
{
    pv_model_params p = cli_model_params(c);
    return pv_model_load(c->model, &p, out);
}

pv_status cli_open_model_for(const cli_options *c, const pv_robot_info *robot, pv_model **out)
{
    pv_model_params p = cli_model_params(c);
    char id[32];
    if (!p.norm_stats && !p.asset_id && !strncmp(c->model, "synth:", 6)) {
        snprintf(id, sizeof id, "%dx%d", robot->state_dim, robot->action_dim);
        p.asset_id = id;
    }
    return pv_model_load(c->model, &p, out);
}

const char *cli_folder_robot(const cli_options *c)
{
    return c->model && !c->norm_stats && !c->asset_id && pv_processors_in(c->model) ? c->model : NULL;
}

pv_status cli_open_backend(const cli_options *c, pv_backend **out)
{
    pv_backend_params p = {.size = sizeof p, .device = c->device, .threads = c->threads, .sms = c->sms};
    return pv_backend_open(c->backend ? c->backend : "cpu", &p, out);
}

/* ---- output ---- */

const char *cli_bytes(cli_text *buf, uint64_t bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1000 && u < 6; u++)
        v /= 1024;
    snprintf(buf->s, sizeof buf->s, "%.*f %s", u == 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2, v, unit[u]);
    return buf->s;
}

const char *cli_count(cli_text *buf, uint64_t n)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), used = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            buf->s[used++] = ',';
        buf->s[used++] = digits[i];
    }
    buf->s[used] = 0;
    return buf->s;
}

const char *cli_ms(cli_text *buf, double ms)
{
    if (ms >= 9999.5)
        snprintf(buf->s, sizeof buf->s, "%.*f s", ms >= 99995 ? 1 : 2, ms / 1e3);
    else
        snprintf(buf->s, sizeof buf->s, "%.*f ms",
                 ms >= 999.5   ? 0
                 : ms >= 99.95 ? 1
                 : ms >= 9.995 ? 2
                               : 3,
                 ms);
    return buf->s;
}

void cli_progress_end(cli_progress_bar *bar)
{
    if (bar->drawn)
        fprintf(stderr, "\r\033[K");
    bar->drawn = false;
}

void cli_note(cli_progress_bar *bar, const char *fmt, ...)
{
    if (bar->off || !isatty(STDERR_FILENO))
        return;
    va_list ap;
    va_start(ap, fmt);
    fputc('\r', stderr);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\033[K");
    fflush(stderr);
    va_end(ap);
    bar->drawn = true;
}

void cli_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    cli_progress_bar *bar = user;
    double now = pv_now_ms();
    if (bar->off || !total || !isatty(STDERR_FILENO))
        return;
    if (!bar->what || strcmp(bar->what, what)) {
        bar->what = what;
        bar->started_ms = now;
        bar->drawn_ms = 0;
    }
    if (done >= total) {
        cli_progress_end(bar);
        return;
    }
    if (now - bar->started_ms < 200 || now - bar->drawn_ms < 100) /* what is quick needs no bar */
        return;
    enum { WIDTH = 30 };
    char blocks[WIDTH + 1];
    int full = (int)((double)done / (double)total * WIDTH);
    memset(blocks, '.', WIDTH);
    memset(blocks, '#', (size_t)full);
    blocks[WIDTH] = 0;
    cli_text a, b, rate;
    fprintf(stderr, "\r%s [%s] %s of %s, %s/s\033[K", what, blocks, cli_bytes(&a, done), cli_bytes(&b, total),
            cli_bytes(&rate, (uint64_t)((double)done / (now - bar->started_ms) * 1e3)));
    fflush(stderr);
    bar->drawn = true;
    bar->drawn_ms = now;
}

cJSON *cli_json(const char *schema)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "schema", schema);
    return json;
}

cJSON *cli_json_float(float value)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return cJSON_CreateNumber(strtod(text, NULL));
}

cJSON *cli_json_u64(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return cJSON_CreateRaw(text);
}

void cli_json_add_ms(cJSON *object, const char *key, double ms)
{
    cJSON_AddNumberToObject(object, key, round(ms * 1e6) * 1e-6);
}

cJSON *cli_json_floats(const float *x, int n)
{
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(array, cli_json_float(x[i]));
    return array;
}

int cli_json_print(const cli_options *c, cJSON *json)
{
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (!text)
        return cli_fail(c, pv_fail(PV_E_MEMORY, "out of memory for the JSON output"));
    pv_status st = c->json_file.value ? pv_file_write(c->json_file.value, text, strlen(text)) : PV_OK;
    if (!c->json_file.value)
        puts(text);
    cJSON_free(text);
    return st ? cli_fail(c, st) : CLI_OK;
}
