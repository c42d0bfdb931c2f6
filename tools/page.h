/* page.h - a report as one HTML file: nothing is fetched, styles and drawings are in it, it needs no script
 * and follows the reader's light or dark. Bad luck stays in `status` until page_end, so that writers need not
 * look. */
#ifndef PV_TOOLS_PAGE_H
#define PV_TOOLS_PAGE_H

#include "io/file.h"

#define PAGE_WIDTH 1000.0 /* of a drawing, in its own units */

typedef struct page {
    pv_file_out file;
    pv_status status;
} page;

/* Up to <body>. The file is there whole after page_end or not at all; after a failure of page_begin there is
 * nothing to end. */
pv_status page_begin(page *p, const char *path, const char *title);
void page_put(page *p, const char *fmt, ...) PV_PRINTF(2, 3);
void page_text(page *p, const char *text); /* names and paths, whatever is in them */
void page_tile(page *p, const char *what, const char *fmt, ...) PV_PRINTF(3, 4); /* one figure of a <dl> */
pv_status page_end(page *p, pv_status st); /* st: what the writer met; the first of it and the page's own */

#endif
