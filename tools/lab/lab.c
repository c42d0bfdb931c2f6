/* lab.c - the command `pivot lab`: the list of experiments, and what all of them share around their work. */
#include "lab.h"
#include "policy.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name, *question, *backends;
    int (*main)(int argc, char **argv);
} experiments[] = {
#define X(name, question, backends) {#name, question, backends, lab_##name},
    LAB_EXPERIMENTS(X)
#undef X
};
#define N_EXPERIMENTS ((int)(sizeof experiments / sizeof *experiments))

/* ---- beginning and end ---- */

static int find(const char *name)
{
    for (int i = 0; i < N_EXPERIMENTS; i++)
        if (!strcmp(experiments[i].name, name))
            return i;
    return -1;
}

#define OPTIONS 32

static int add(cli_option *to, int n, const cli_option *from)
{
    for (; from && from->name && n < OPTIONS - 1; from++)
        to[n++] = *from;
    return n;
}

static int parse(lab *l, int argc, char **argv)
{
    const lab_command *cmd = l->command;
    const cli_option sees[] = {
        {"image", "CAM=FILE", "a camera's picture, JPEG or PNG; once for each camera\n(default: made up)",
         CLI_LIST, &l->images},
        {"prompt", "TEXT", "the task in words (default: made-up tokens)", CLI_TEXT, &l->prompt},
        {"state", "X,X,...", "the robot's state, where the prompt tells it", CLI_TEXT, &l->state},
        {NULL}};
    const cli_option sizes[] = {{"views", "N", "cameras that have a made-up picture (default: all)", CLI_INT,
                                 &l->views, 1, PV_MAX_CAMERAS},
                                {"prompt-tokens", "N", "length of a made-up prompt (default: the longest)",
                                 CLI_INT, &l->tokens, 1, 1 << 20},
                                {NULL}};
    const cli_option steps[] = {
        {"steps", "N", "denoising steps (default: the model's)", CLI_INT, &l->steps, 1, 1000}, {NULL}};
    const cli_option seed[] = {{"seed", "N", "of the noise that is drawn (default: 0)", CLI_U64, &l->seed},
                               {NULL}};
    const cli_option runs[] = {
        {"runs", "N", lab_text(l, "timed runs of each row (default: %d)", l->runs), CLI_INT, &l->runs, 1,
         100000},
        {"warmup", "N", "runs before them (default: 2)", CLI_INT, &l->warmup, 0, 100000},
        {NULL}};
    cli_option options[OPTIONS] = {{NULL}};
    int n = add(options, 0, cmd->options);
    n = add(options, n, cmd->uses & LAB_SEES ? sees : NULL);
    n = add(options, n, cmd->uses & LAB_SIZES ? sizes : NULL);
    n = add(options, n, cmd->uses & LAB_STEPS ? steps : NULL);
    n = add(options, n, cmd->uses & LAB_SEED ? seed : NULL);
    add(options, n, runs);
    const char *name = lab_text(l, "lab %s", cmd->name), *purpose = experiments[find(cmd->name)].question;
    const cli_command command = {.name = name,
                                 .purpose = purpose,
                                 .usage = "--model MODEL [options]",
                                 .example = cmd->example,
                                 .notes = cmd->claim,
                                 .options = options,
                                 .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON_FILE};
    return cli_parse(&command, argc, argv, &l->common);
}

/* Is `word` one of the words of `list`? */
static bool listed(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (!at[n] || at[n] == ' '))
            return true;
    return false;
}

static int check(lab *l)
{
    const char *backend = l->common.backend ? l->common.backend : "cpu";
    const char *backends = experiments[find(l->command->name)].backends;
    if (!listed(backend, backends) && listed(backend, "cpu cuda vulkan"))
        return cli_usage(&l->common, "--backend: this experiment is for %s, came %s", backends, backend);
    if (l->views > l->info.n_cameras)
        return cli_usage(&l->common, "--views: the model has %d cameras, came %d", l->info.n_cameras,
                         l->views);
    if (l->tokens > l->info.max_tokens)
        return cli_usage(&l->common, "--prompt-tokens: the model has room for %d, came %d",
                         l->info.max_tokens, l->tokens);
    return CLI_GO;
}

int lab_begin(lab *l, const lab_command *command, int argc, char **argv)
{
    *l = (lab){.command = command, .warmup = 2, .runs = command->runs ? command->runs : 20};
    time_t now = time(NULL);
    struct tm utc;
    strftime(l->date, sizeof l->date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    int code = parse(l, argc, argv);
    if (code != CLI_GO)
        return code;
    l->bar.off = l->common.json;
    pv_status st = cli_open_model(&l->common, &l->model);
    if (!st)
        st = pv_model_describe(l->model, &l->info);
    if (st)
        return cli_fail(&l->common, st);
    code = check(l);
    if (code != CLI_GO)
        return code;
    st = cli_open_backend(&l->common, &l->backend);
    if (st)
        return cli_fail(&l->common, st);
    l->views = l->views ? l->views : l->info.n_cameras;
    l->tokens = l->tokens ? l->tokens : l->info.max_tokens;
    l->steps = l->steps ? l->steps : l->info.steps;
    return CLI_GO;
}

int lab_end(lab *l, int code, pv_status status)
{
    cli_progress_end(&l->bar);
    if (code == CLI_GO && !status)
        status = l->status;
    if (code == CLI_GO && !status)
        status = pv_backend_device(l->backend, &l->device);
    if (code == CLI_GO)
        code = status ? cli_fail(&l->common, status) : lab_print(l);
    lab_policy_close(l);
    pv_model_free(&l->model);
    pv_backend_close(&l->backend);
    pv_arena_free(&l->arena);
    return code;
}

/* ---- the command ---- */

/* Options before the name of an experiment: --help, --version, or a mistake. */
static int without_name(int argc, char **argv)
{
    char list[2000] = "";
    for (int i = 0; i < N_EXPERIMENTS; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%-12s %s\n", experiments[i].name,
                 experiments[i].question);
    snprintf(list + strlen(list), sizeof list - strlen(list),
             "\n'pivot lab NAME --help' tells what is claimed, how it is tested, and the options. What the\n"
             "reports had measured on a Jetson Thor stands in a column of its own. docs/experiments.md");
    cli_options common;
    const cli_command command = {
        .name = "lab",
        .purpose = "experiments: which findings about Pi0.5 hold on this device and these weights",
        .usage = "NAME --model MODEL [options]",
        .example = "pivot lab schedule --model synth:tiny",
        .notes = list};
    int code = cli_parse(&command, argc, argv, &common);
    return code == CLI_GO ? cli_usage(&common, "expected the name of an experiment") : code;
}

static int unknown(const char *word)
{
    const char *names[N_EXPERIMENTS + 1] = {NULL};
    for (int i = 0; i < N_EXPERIMENTS; i++)
        names[i] = experiments[i].name;
    const char *near = cli_nearest(word, names);
    fprintf(stderr, "pivot lab: unknown experiment '%s'", word);
    fprintf(stderr, near ? "; did you mean '%s'?\n" : "\n", near);
    fprintf(stderr, "Try 'pivot lab --help'.\n");
    return CLI_USAGE;
}

int lab_main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-')
        return without_name(argc, argv);
    int i = find(argv[1]);
    return i < 0 ? unknown(argv[1]) : experiments[i].main(argc - 1, argv + 1);
}
