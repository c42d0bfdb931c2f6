/* page.c - see page.h. */
#include "page.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char style[] =
    "<style>\n"
    ":root{color-scheme:light "
    "dark;--page:#fcfcfb;--text:#1d1d1b;--soft:#6a6a66;--rule:#dededa;--lane:#f0f0ec;--own:#1f66c9;"
    "--sum:#b4560f;--recipe:#2b8063;--budget:#8a8a85;--bad:#c01f2e;--bar:#7ea6de;--good:#2b8063}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#161618;--text:#e9e9e6;--soft:#9d9d98;--rule:#34343a;--"
    "lane:#1f1f23;"
    "--own:#79aefc;--sum:#f0a263;--recipe:#6cc9a6;--budget:#7d7d78;--bad:#ff6b75;--bar:#4b76b3;--good:#"
    "6cc9a6}}\n"
    "body{margin:0 auto;padding:24px;max-width:1120px;background:var(--page);color:var(--text);"
    "font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}p{margin:4px 0}.soft,figcaption "
    "span{color:var(--soft)}\n"
    ".verdict{margin:14px 0;padding:10px 14px;border-left:4px solid "
    "var(--good);background:var(--lane)}.verdict.bad{border-color:var(--bad)}\n"
    "dl{display:flex;flex-wrap:wrap;gap:8px 36px;margin:16px "
    "0}dt{color:var(--soft);font-size:13px}dd{margin:0;font-size:20px}\n"
    "figure{margin:26px 0 0}figcaption{font-weight:600;margin-bottom:4px}figcaption "
    "span{font-weight:400;margin-left:6px}\n"
    "svg{width:100%;height:auto;display:block}svg text{font:12px "
    "system-ui,sans-serif;fill:var(--soft)}text.count{fill:var(--text)}\n"
    ".grid{stroke:var(--rule);stroke-width:.6;fill:none}.stage{stroke:var(--soft);stroke-width:1;fill:none}."
    "lane{fill:var(--lane)}\n"
    ".line{fill:none;stroke-width:1.4;stroke-linejoin:round}.line.sum{stroke:var(--sum)}.line.recipe{stroke:"
    "var(--recipe)}\n"
    ".line.budget{stroke:var(--budget);stroke-width:1.6}circle.own{fill:var(--own)}circle.sum{fill:var(--sum)"
    "}circle.recipe{fill:var(--recipe)}\n"
    "circle.bad{fill:var(--bad)}.ring{fill:none;stroke:var(--bad);stroke-width:2}svg "
    "text.first{fill:var(--bad);font-weight:600;font-size:14px;paint-order:stroke;stroke:var(--page);stroke-"
    "width:5px}\n"
    ".bar{fill:var(--bar)}.bar.bad{fill:var(--bad)}.key span{margin-right:22px}.key "
    "span::before{content:'';display:inline-block;"
    "width:16px;height:4px;border-radius:2px;margin-right:7px;vertical-align:middle;background:var(--budget)}"
    ".key .own::before{background:var(--own)}"
    ".key .sum::before{background:var(--sum)}.key .recipe::before{background:var(--recipe)}\n"
    ".wide{overflow-x:auto}th.n{text-align:right}table{border-collapse:collapse;font-size:13px;white-space:"
    "nowrap}td,th{padding:"
    "3px 10px 3px 0;text-align:left;"
    "border-bottom:1px solid "
    "var(--rule)}th{color:var(--soft);font-weight:500}.n{text-align:right;font-variant-numeric:tabular-nums}"
    "\n"
    "tr.bad td{color:var(--bad)}summary{cursor:pointer;margin:28px 0 8px;font-weight:600}\n"
    ".seg{fill:var(--own)}.seg.floor{fill:var(--page);opacity:.45}.seg.host{fill:var(--budget)}.seg.other{"
    "fill:var(--sum)}.tail{stroke:"
    "var(--sum);stroke-width:2;fill:none}"
    "svg "
    "text.name{fill:var(--text);font-size:13px}.tickline{stroke:var(--page);stroke-width:1;fill:none;opacity:"
    ".6}\n"
    "</style>\n";

pv_status page_begin(page *p, const char *path, const char *title)
{
    *p = (page){.status = PV_OK};
    pv_status st = pv_file_out_begin(&p->file, path);
    if (st)
        return st;
    page_put(p, "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
                "content=\"width=device-width,initial-scale=1\">\n<title>");
    page_text(p, title);
    page_put(p, "</title>\n");
    if (!p->status)
        p->status = pv_file_out_write(&p->file, style, sizeof style - 1);
    page_put(p, "</head><body>\n");
    return PV_OK;
}

void page_put(page *p, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!p->status && (n < 0 || (size_t)n >= sizeof text))
        p->status = pv_fail(PV_E_ARG, "%s: a line of %d characters", p->file.path, n);
    if (!p->status)
        p->status = pv_file_out_write(&p->file, text, (size_t)n);
}

void page_text(page *p, const char *text)
{
    for (size_t n; *text; text += n) {
        n = strcspn(text, "&<>\"");
        n = n ? n : 1;
        const char *as = *text == '&'   ? "&amp;"
                         : *text == '<' ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : *text == '"' ? "&quot;"
                                        : NULL;
        n = n > 1000 ? 1000 : n;
        page_put(p, "%.*s", as ? 6 : (int)n, as ? as : text);
    }
}

void page_tile(page *p, const char *what, const char *fmt, ...)
{
    char text[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    page_put(p, "<div><dt>%s</dt><dd>", what);
    page_text(p, text);
    page_put(p, "</dd></div>\n");
}

pv_status page_end(page *p, pv_status st)
{
    page_put(p, "</body></html>\n");
    st = st ? st : p->status;
    if (!st)
        return pv_file_out_end(&p->file);
    pv_file_out_abort(&p->file);
    return st;
}
