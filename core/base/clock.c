/* clock.c - the clock of clock.h, for callers of pivot.h. */
#include "clock.h"
#include "pivot.h"

double pv_clock_ms(void)
{
    return pv_now_ms();
}
