/* header.c - pivot.h needs no other header before it and no compiler extension. header.cc says the same in C++. */
#include "pivot.h"

int main(void)
{
    return pv_status_name(PV_OK)[0] == 'O' ? 0 : 1;
}
