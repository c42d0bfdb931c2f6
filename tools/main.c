/* main.c - the program `pivot`: finds the subcommand and hands over. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COMMANDS(X)                                                                                          \
    X(run, "one inference: pictures, words and state in, an action chunk out")                               \
    X(serve, "a policy behind openpi's websocket protocol")                                                  \
    X(replay, "recordings of `serve --record` run again, beside what came of them")                          \
    X(verify, "this implementation against a trace of openpi or another backend, tensor by tensor")          \
    X(bench, "time and memory of an inference, by stage and by op")                                          \
    X(lab, "experiments: which findings about Pi0.5 hold on this device and these weights")                  \
    X(inspect, "what a checkpoint holds, its graph, its plan, its memory")                                   \
    X(devices, "every backend's devices, and what each supports")                                            \
    X(synth, "a checkpoint folder with made-up weights, to try everything without a download")

#define X(name, text) int name##_main(int argc, char **argv);
COMMANDS(X)
#undef X

static const struct {
    const char *name, *text;
    int (*main)(int argc, char **argv);
} commands[] = {
#define X(name, text) {#name, text, name##_main},
    COMMANDS(X)
#undef X
};
#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

static void print_help(FILE *out)
{
    fprintf(out, "pivot %s - inference for the robot policy Pi0.5\n\nUsage: pivot COMMAND [options]\n\n",
            pv_version());
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].text);
    fprintf(out, "\n'pivot COMMAND --help' tells a command's options; 'pivot --version' the version.\n"
                 "\nExit codes: 0 ok, 1 failure, 2 wrong command line, 3 outside the bounds of precision,\n"
                 "4 backend or device not available.\n");
}

static int unknown(const char *word)
{
    const char *names[N_COMMANDS + 1] = {NULL};
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = cli_nearest(word, names);
    fprintf(stderr, "pivot: unknown command '%s'", word);
    fprintf(stderr, near ? "; did you mean '%s'?\n" : "\n", near);
    fprintf(stderr, "Try 'pivot --help'.\n");
    return CLI_USAGE;
}

/* A full disk behind stdout is a failure too. */
static int finish(int code)
{
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) != 0 || failed) {
        fprintf(stderr, "pivot: standard output cannot be written: %s\n", strerror(errno));
        return code == CLI_OK ? CLI_FAILED : code;
    }
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return finish(CLI_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("pivot %s\n", pv_version());
        return finish(CLI_OK);
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name))
            return finish(commands[i].main(argc - 1, argv + 1));
    return unknown(argv[1]);
}
