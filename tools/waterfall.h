/* waterfall.h - what takes how long, one behind the other, drawn on a page. Of a bar that has a floor the
 * part beyond it is pale. */
#ifndef PV_TOOLS_WATERFALL_H
#define PV_TOOLS_WATERFALL_H

#include "page.h"

typedef struct bar {
    const char *name, *class;
    double start, length, floor, reach; /* reach: how far it went in the worst of 100 runs; 0: not told */
    int ticks;                          /* equal parts within it */
} bar;

void waterfall(page *p, const bar *bars, int n, const char *what); /* milliseconds */
void put_ms(page *p, double ms);

#endif
