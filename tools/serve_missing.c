/* serve_missing.c - `pivot serve` of a build without libwebsockets: says what is missing. */
#include "cli.h"

#include <stdio.h>

int serve_main(int argc, char **argv);
int serve_main(int argc, char **argv)
{
    (void)argc;
    fprintf(stderr, "pivot %s: this build has none: it needs libwebsockets (Debian, Ubuntu: apt install libwebsockets-dev, "
                    "then configure anew)\n", argv[0]);
    return CLI_UNAVAILABLE;
}
