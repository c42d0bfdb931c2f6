#include "pivot.h"

#include <stdio.h>

int main(void)
{
    printf("pivot %s\n", pv_version());
    return 0;
}
