/* power_mode.c - see power_mode.h. */
#include "power_mode.h"
#include <stdio.h>

int power_mode(const char *path)
{
    int mode = -1;
    FILE *f = fopen(path, "re");
    if (f && (fscanf(f, "pmode:%4d", &mode) != 1 || mode < 0))
        mode = -1;
    if (f)
        fclose(f);
    return mode;
}
