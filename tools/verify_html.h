/* verify_html.h - a report as one HTML page: what it found, drawn. Nothing is fetched: styles and drawings
 * are in the page, which needs no script and follows the reader's light or dark. */
#ifndef PV_TOOLS_VERIFY_HTML_H
#define PV_TOOLS_VERIFY_HTML_H

#include "verify_report.h"

/* The file is there whole or not at all. */
pv_status verify_html_write(const char *path, const verify_subject *s, const verify_report *r);

#endif
