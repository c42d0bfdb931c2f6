/* cli.h - what the subcommands of `pivot` share: options, help, exit codes, JSON, progress.
 *
 * A subcommand is one function `int NAME_main(int argc, char **argv)` (argv[0] is its name), listed in
 * main.c. It says what it is in a cli_command, lets cli_parse fill its variables, works, and returns an exit
 * code:
 *
 *     cli_options common;
 *     const cli_option options[] = {{"steps", "N", "denoising steps", CLI_INT, &steps, 1, 1000}, {NULL}};
 *     const cli_command command = {.name = "run", .purpose = "...", .options = options, .groups = CLI_MODEL |
 * CLI_DEVICE}; int code = cli_parse(&command, argc, argv, &common); if (code != CLI_GO) return code;
 *
 * What the command is for goes to stdout, everything else to stderr. With --json stdout is one JSON object
 * whose first key is "schema". */
#ifndef PV_TOOLS_CLI_H
#define PV_TOOLS_CLI_H

#include "base/status.h"
#include <cjson/cJSON.h>

enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,       /* the command line is wrong */
    CLI_GATE = 3,        /* verify: outside the bounds */
    CLI_UNAVAILABLE = 4, /* backend or device not here */
    CLI_GO = -1          /* cli_parse: go on */
};

/* ---- options ----------------------------------------------------------------------------------------- */

typedef enum cli_kind {
    CLI_FLAG,   /* bool *: no value */
    CLI_TEXT,   /* const char ** */
    CLI_LIST,   /* cli_list *: may be given several times */
    CLI_INT,    /* int *: low..high */
    CLI_U64,    /* uint64_t * */
    CLI_NUMBER, /* double *: low..high, finite */
    CLI_SWITCH, /* pv_switch *: on or off */
    CLI_MAYBE   /* cli_maybe *: with a value behind "=" or without one */
} cli_kind;

#define CLI_LIST_MAX 64
typedef struct cli_list {
    const char *item[CLI_LIST_MAX];
    int n;
} cli_list;

typedef struct cli_maybe {
    bool given;
    const char *value; /* NULL: none */
} cli_maybe;

typedef struct cli_option {
    const char *name;  /* long, without dashes; NULL ends a table */
    const char *value; /* stands for the value in the help: "N", "FILE"; NULL for flags */
    const char *help;  /* may have several lines */
    cli_kind kind;
    void *target;     /* untouched when the option is not given */
    double low, high; /* for CLI_INT and CLI_NUMBER; both 0: any */
} cli_option;

enum { CLI_MODEL = 1, CLI_DEVICE = 2, CLI_JSON = 4, CLI_JSON_FILE = 8 }; /* groups of common options; --help is always there */

typedef struct cli_options { /* the values of the common groups */
    const char *command;     /* "run", for messages */
    const char *model;       /* --model, or the operand */
    const char *config, *tokenizer, *norm_stats, *asset_id;
    int horizon;
    pv_switch discrete_state;
    bool zscore;
    const char *backend, *device, *recipe;
    int threads, sms; /* sms: of pv_backend_params, where a command has such an option */
    bool json;           /* to stdout */
    cli_maybe json_file; /* CLI_JSON_FILE: where to, if not to stdout */
} cli_options;

typedef struct cli_command {
    const char *name, *purpose; /* purpose: one line, no full stop */
    const char *usage;          /* what stands behind the name: "--model MODEL [options]" */
    const char *example;        /* whole command lines */
    const char *notes;          /* paragraphs below the options; NULL: none */
    const cli_option *options;  /* its own; ends with a NULL name */
    unsigned groups;
    const char *operand_name; /* "MODEL"; with CLI_MODEL and NULL here, an operand is the model */
    const char **operand;
    cli_list *operands;        /* in place of `operand`: several */
    bool recorded; /* backend and recipe, where they are not given, come from a recording */
    bool model_optional; /* else, with CLI_MODEL, a model must be given */
} cli_command;

/* Fills the targets and `common` (zeroed first). CLI_GO, or the exit code: --help or --version has been printed, or the
 * mistake. */
int cli_parse(const cli_command *command, int argc, char **argv, cli_options *common);

/* Prints "pivot COMMAND: ..." and where to look, for a wrong command line found after parsing. Returns
 * CLI_USAGE. */
int cli_usage(const cli_options *common, const char *fmt, ...) PV_PRINTF(2, 3);
/* Prints "pivot COMMAND: " and pv_error_text(). Returns the exit code of `status`. */
int cli_fail(const cli_options *common, pv_status status);
/* "pivot COMMAND: warning: ..." on stderr. */
void cli_warn(const cli_options *common, const char *fmt, ...) PV_PRINTF(2, 3);

/* The entry of `list` (NULL-terminated) that `word` is most likely a misspelling of; NULL: none is near. */
const char *cli_nearest(const char *word, const char *const *list);

/* "1,2.5,-3": pv_free the array. PV_E_ARG names `what`, the place and what stood there. */
pv_status cli_numbers(const char *what, const char *text, double **out, int *n);
pv_status cli_integers(const char *what, const char *text, int32_t **out, int *n);

/* ---- what the common options stand for ---------------------------------------------------------------- */

pv_model_params cli_model_params(const cli_options *common);
pv_status cli_open_model(const cli_options *common, pv_model **out);
/* The same for a robot: a synthetic model gets statistics of its dims, unless others were asked for. */
pv_status cli_open_model_for(const cli_options *common, const pv_robot_info *robot, pv_model **out);
/* For pv_robot_load: the model's folder where lerobot's processors lie in it and no other statistics were
 * asked for. */
const char *cli_folder_robot(const cli_options *common);
pv_status cli_open_backend(const cli_options *common, pv_backend **out); /* "cpu" unless --backend */

/* ---- output ------------------------------------------------------------------------------------------- */

/* A pv_progress_fn: a bar with bytes and rate on stderr when that is a terminal, else nothing. It takes
 * itself away when all is done; cli_progress_end takes it away before. user: a zeroed cli_progress_bar, .off
 * with --json. */
typedef struct cli_progress_bar {
    bool off;
    bool drawn;
    const char *what;
    double started_ms, drawn_ms;
} cli_progress_bar;
void cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
void cli_note(cli_progress_bar *bar, const char *fmt, ...) PV_PRINTF(2, 3); /* words in place of the bar */
void cli_progress_end(cli_progress_bar *bar);

/* max_steps of a session that will be asked for `steps` alone (0: the model's), so that they are recorded as one; beyond a
 * thousand their tables take more than that gains. */
static inline int cli_max_steps(int steps)
{
    return steps < 1000 ? steps : 1000;
}

/* Text for people; the buffer is the caller's, and the result. */
typedef struct cli_text {
    char s[32];
} cli_text;
const char *cli_bytes(cli_text *buf, uint64_t bytes); /* "6.25 GiB" */
const char *cli_count(cli_text *buf, uint64_t n);     /* "3,353,433,872" */
const char *cli_ms(cli_text *buf, double ms);         /* "12.3 ms", "4.21 s" */

/* JSON: cJSON answers a lack of memory with NULL, which its Add functions bear; cli_json_print then fails. */
cJSON *cli_json(const char *schema); /* {"schema": schema} */
cJSON *cli_json_float(float value);  /* with as few digits as tell it apart */
cJSON *cli_json_u64(uint64_t value); /* all its digits, where a double would round */
void cli_json_add_ms(cJSON *object, const char *key, double ms); /* to the nanosecond */
cJSON *cli_json_floats(const float *x, int n);                   /* [x0, x1, ...] */
int cli_json_print(const cli_options *common, cJSON *json);      /* takes it, to stdout or json_file; the exit code */

#endif
