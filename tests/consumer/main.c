/* main.c - says which Pivot it found: of the header, and of the library. */
#include <pivot.h>
#include <stdio.h>

int main(void)
{
    printf("%d.%d.%d %s\n", PV_VERSION_MAJOR, PV_VERSION_MINOR, PV_VERSION_PATCH, pv_version());
    return pv_abi_version() != PV_ABI_VERSION;
}
