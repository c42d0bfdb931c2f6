/* verify_html.c - see verify_html.h. Errors are on logarithmic axes; what is equal to the bit has a lane of
 * its own below. */
#include "verify_html.h"
#include "base/memory.h"
#include "io/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH  1000.0 /* of a drawing, in its own units */
#define LEFT   62.0
#define RIGHT  10.0
#define TOP    26.0
#define HEIGHT 300.0 /* of the plot itself */
#define LOWEST (-10) /* power of ten on an axis */
#define LANE   26.0  /* below it: equal bytes */

typedef struct page {
    pv_file_out file;
    pv_status status;
} page;

static void put(page *p, const char *fmt, ...) PV_PRINTF(2, 3);
static void put(page *p, const char *fmt, ...)
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

/* Names and paths, whatever is in them. */
static void put_text(page *p, const char *text)
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
        put(p, "%.*s", as ? 6 : (int)n, as ? as : text);
    }
}

static void put_error(page *p, double v, bool there)
{
    if (!there)
        put(p, "<td class=n>&ndash;</td>");
    else if (v == 0)
        put(p, "<td class=n>0</td>");
    else
        put(p, "<td class=n>%.2e</td>", v);
}

/* ---- axes ---- */

typedef struct axes {
    int low, high; /* powers of ten */
    double n;      /* places along x */
} axes;

static void see(axes *a, double v)
{
    if (!isfinite(v) || v <= 0)
        return;
    int from = (int)floor(log10(v)), to = (int)ceil(log10(v));
    a->low = from < a->low ? from : a->low;
    a->high = to > a->high ? to : a->high;
}

static double at_x(const axes *a, double i)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / (a->n > 0 ? a->n : 1);
}

static double at_y(const axes *a, double v) /* 0: the lane; what is not finite: the top */
{
    if (v == 0)
        return TOP + HEIGHT + LANE / 2;
    double y = isfinite(v) ? (log10(v) - a->low) / (a->high - a->low) : 1;
    return TOP + HEIGHT * (1 - (y < 0 ? 0 : y > 1 ? 1 : y));
}

static void begin_drawing(page *p, axes *a, double below, const char *what)
{
    if (a->low > a->high) {
        a->low = -8;
        a->high = -2;
    }
    a->low = a->low > LOWEST ? a->low : LOWEST; /* below lie sums in f64 that cancel */
    if (a->low >= a->high)
        a->high = a->low + 1;
    put(p, "<svg viewBox=\"0 0 %g %g\" role=img aria-label=\"%s\">\n", WIDTH, TOP + HEIGHT + LANE + below,
        what);
    for (int e = a->low, every = (a->high - a->low) / 9 + 1; e <= a->high; e++) {
        double y = at_y(a, pow(10, e));
        put(p, "<path class=grid d=\"M%g %.1fH%g\"/>", LEFT, y, WIDTH - RIGHT);
        if ((a->high - e) % every == 0)
            put(p, "<text class=tick x=%g y=%.1f text-anchor=end>1e%d</text>\n", LEFT - 6, y + 4, e);
    }
    put(p, "<rect class=lane x=%g y=%g width=%g height=%g />", LEFT, TOP + HEIGHT, WIDTH - LEFT - RIGHT,
        LANE);
    put(p, "<text class=tick x=%g y=%g text-anchor=end>equal</text>\n", LEFT - 6,
        TOP + HEIGHT + LANE / 2 + 4);
}

static void line(page *p, const axes *a, const char *class, const double *v, int n)
{
    bool on = false;
    put(p, "<path class=\"line %s\" d=\"", class);
    for (int i = 0; i < n; i++) {
        if (!isnan(v[i]))
            put(p, "%c%.1f %.1f", on ? 'L' : 'M', at_x(a, i), at_y(a, v[i]));
        on = !isnan(v[i]);
    }
    put(p, "\"/>\n");
}

static void dashes(page *p, const axes *a, const double *v, int n)
{
    double half = (WIDTH - LEFT - RIGHT) / (a->n > 0 ? a->n : 1) / 2;
    put(p, "<path class=\"line budget\" d=\"");
    for (int i = 0; i < n; i++)
        if (v[i] > 0)
            put(p, "M%.1f %.1fh%.2f", at_x(a, i) - half, at_y(a, v[i]), 2 * half);
    put(p, "\"/>\n");
}

/* ---- along the depth of the model ---- */

typedef struct series {
    const verify_entry **entry;
    double *own, *budget, *sum, *recipe;
    int n;
} series;

static pv_status make_series(const verify_report *r, series *s)
{
    size_t n = (size_t)r->n_entries + 1;
    *s = (series){.entry = pv_alloc(sizeof *s->entry * n),
                  .own = pv_alloc(sizeof *s->own * n),
                  .budget = pv_alloc(sizeof *s->budget * n),
                  .sum = pv_alloc(sizeof *s->sum * n),
                  .recipe = pv_alloc(sizeof *s->recipe * n)};
    if (!s->entry || !s->own || !s->budget || !s->sum || !s->recipe)
        return PV_E_MEMORY;
    for (int i = 0; i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        bool compared = e->state == VERIFY_COMPARED;
        if ((!compared && !e->local.there) || e->input || e->absolute)
            continue;
        s->entry[s->n] = e;
        s->own[s->n] = e->local.there ? e->local.d.relative_l2 : NAN;
        s->budget[s->n] = e->local.there && (!r->exact || e->local.limit > 0) ? e->local.limit
                          : e->op                                             ? NAN
                                                                              : e->bound;
        s->sum[s->n] = compared ? e->relative_l2 : NAN;
        s->recipe[s->n++] = e->recipe.there ? e->recipe.d.relative_l2 : NAN;
    }
    return PV_OK;
}

static void free_series(series *s)
{
    pv_free((void *)s->entry);
    pv_free(s->own);
    pv_free(s->budget);
    pv_free(s->sum);
    pv_free(s->recipe);
}

/* Where a layer's name ends, "vision.layer3" of "vision.layer3.q"; or that of a stage, "step" of "step3.v_t".
 */
static size_t part_of(const char *name, bool layer)
{
    size_t n = strcspn(name, ".");
    if (layer && !strncmp(name + n, ".layer", 6))
        return n + 1 + strcspn(name + n + 1, ".");
    return strncmp(name, "step", 4) ? n : 4;
}

static bool other_part(const char *a, const char *b, bool layer)
{
    size_t n = part_of(a, layer), m = part_of(b, layer);
    return n != m || strncmp(a, b, n) != 0;
}

static int stage_length(const series *v, int at)
{
    int n = 1;
    while (at + n < v->n && !other_part(v->entry[at]->name, v->entry[at + n]->name, false))
        n++;
    return n;
}

static void draw_depth(page *p, const verify_subject *s, const verify_report *r, const series *v)
{
    axes a = {.low = 99, .high = -99, .n = v->n};
    for (int i = 0; i < v->n; i++) {
        see(&a, v->own[i]);
        see(&a, v->budget[i]);
        see(&a, v->sum[i]);
        see(&a, v->recipe[i]);
    }
    put(p,
        "<figure><figcaption>Error along the depth <span>relative L2 of each tensor, in order of "
        "execution%s</span></figcaption>\n",
        s->against ? "; of a step's tensors the worst step" : "");
    begin_drawing(p, &a, 6, "error along the depth");
    for (int i = 0; i < v->n; i++) {
        const char *name = v->entry[i]->name;
        bool named = strchr(name, '.'),
             stage = named && (!i || other_part(v->entry[i - 1]->name, name, false)),
             layer = named && i && other_part(v->entry[i - 1]->name, name, true);
        double x = at_x(&a, i - 0.5);
        if (stage || layer)
            put(p, "<path class=\"%s\" d=\"M%.1f %gV%g\"/>", stage ? "stage" : "grid", x, stage ? 8.0 : TOP,
                TOP + HEIGHT + LANE);
        if (stage && stage_length(v, i) > a.n / 14)
            put(p, "<text class=tick x=%.1f y=18>%.*s</text>\n", x + 5, (int)part_of(name, false), name);
    }
    dashes(p, &a, v->budget, v->n);
    if (r->has_recipe)
        line(p, &a, "recipe", v->recipe, v->n);
    line(p, &a, "sum", v->sum, v->n);
    for (int i = 0; i < v->n; i++) {
        const verify_entry *e = v->entry[i];
        if (!e->local.there)
            continue;
        put(p, "<circle class=\"%s\" cx=%.1f cy=%.1f r=%g><title>", e->local.ok ? "own" : "own bad",
            at_x(&a, i), at_y(&a, v->own[i]), e->local.ok ? 2.2 : 4.5);
        put_text(p, e->name);
        put(p, " (%s): own %.2e, budget %.2e, from start %.2e</title></circle>\n", e->op, v->own[i],
            e->local.limit, v->sum[i]);
    }
    for (int i = 0; i < v->n; i++)
        if (v->entry[i] == r->first_failed) {
            double x = at_x(&a, i), y = at_y(&a, r->first_local ? v->own[i] : v->sum[i]);
            bool left = x > WIDTH * 0.6;
            put(p, "<circle class=ring cx=%.1f cy=%.1f r=9 /><text class=first x=%.1f y=%.1f text-anchor=%s>",
                x, y, x + (left ? -14 : 14), y + 4, left ? "end" : "start");
            put_text(p, v->entry[i]->name);
            put(p, "</text>\n");
        }
    put(p, "</svg>\n<p class=key>%s<span class=sum>%s</span>%s%s</p></figure>\n",
        s->against ? "<span class=own>own error, on the inputs it had</span>" : "",
        s->against ? "from start" : "beside the trace",
        r->has_recipe ? "<span class=recipe>recipe beside f32</span>" : "",
        "<span class=budget>budget or bound</span>");
}

/* ---- along the steps ---- */

static double largest_own(const verify_report *r, int step)
{
    double most = NAN;
    for (int i = 0; i < r->n_entries; i++) {
        const double *own = r->entries[i].local.there ? r->entries[i].curve[VERIFY_LOCAL] : NULL;
        if (own && !isnan(own[step]) && !(own[step] <= most))
            most = own[step];
    }
    return most;
}

/* Against a backend: x after each step. Beside a trace: the velocities that it has. */
static pv_status draw_steps(page *p, const verify_subject *s, const verify_report *r)
{
    int n = r->steps;
    if (n < 2)
        return PV_OK;
    double *own = pv_alloc(sizeof *own * (size_t)n), *sum = pv_alloc(sizeof *sum * (size_t)n),
           *recipe = pv_alloc(sizeof *recipe * (size_t)n);
    axes a = {.low = 99, .high = -99, .n = n};
    bool ok = own && sum && recipe;
    for (int k = 0; ok && k < n; k++) {
        own[k] = largest_own(r, k);
        sum[k] = verify_after_step(r, k, VERIFY_SUM);
        recipe[k] = verify_after_step(r, k, VERIFY_RECIPE);
        see(&a, own[k]);
        see(&a, sum[k]);
        see(&a, recipe[k]);
    }
    if (ok) {
        put(p, "<figure><figcaption>Error along the steps <span>%s</span></figcaption>\n",
            s->against ? "x after each denoising step; and the largest error of an op's own in it"
                       : "velocity of each denoising step");
        begin_drawing(p, &a, 26, "error along the steps");
        for (int k = 0, every = n / 20 + 1; k < n; k += every)
            put(p, "<text class=tick x=%.1f y=%g text-anchor=middle>%d</text>", at_x(&a, k),
                TOP + HEIGHT + LANE + 18, k);
        line(p, &a, "recipe", recipe, n);
        line(p, &a, "sum", sum, n);
        const struct {
            const char *class;
            const double *v;
        } points[] = {{"recipe", recipe}, {"sum", sum}, {"own", own}};
        for (int k = 0; k < n; k++)
            for (int c = 0; c < 3; c++)
                if (!isnan(points[c].v[k]))
                    put(p, "<circle class=%s cx=%.1f cy=%.1f r=3.5><title>step %d: %.2e</title></circle>\n",
                        points[c].class, at_x(&a, k), at_y(&a, points[c].v[k]), k, points[c].v[k]);
        put(p, "</svg>\n<p class=key>%s<span class=sum>%s</span>%s</p></figure>\n",
            s->against ? "<span class=own>largest own error</span>" : "",
            s->against ? "from start" : "beside the trace",
            r->has_recipe ? "<span class=recipe>recipe beside f32</span>" : "");
    }
    pv_free(own);
    pv_free(sum);
    pv_free(recipe);
    return ok ? PV_OK : PV_E_MEMORY;
}

/* ---- how much of the budgets ---- */

static void draw_histogram(page *p, const verify_report *r)
{
    static const double edge[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1};
    static const char *const label[] = {"equal",   "under 0.1", "0.1 to 0.3", "0.3 to 1", "1 to 3",
                                        "3 to 10", "10 to 30",  "30 to 100",  "beyond"};
    enum { BINS = 9 };
    int count[BINS] = {0}, most = 1;
    for (int i = 0; i < r->n_entries; i++) {
        const verify_part *l = &r->entries[i].local;
        int bin = 0;
        if (!l->there)
            continue;
        double used = verify_used(&r->entries[i]);
        if (!l->ok)
            bin = BINS - 1;
        else if (used > 0)
            for (bin = 1; bin < BINS - 2 && used >= edge[bin - 1];)
                bin++;
        count[bin]++;
        most = count[bin] > most ? count[bin] : most;
    }
    put(p, "<figure><figcaption>How much of their budgets ops use <span>ops, by per cent of the "
           "budget</span></figcaption>\n");
    put(p, "<svg viewBox=\"0 0 %g 210\" role=img aria-label=\"ops by share of the budget\">\n", WIDTH);
    for (int b = 0; b < BINS; b++) {
        double w = (WIDTH - 20) / BINS, x = 10 + w * b, h = 150.0 * count[b] / most;
        put(p,
            "<rect class=\"bar%s\" x=%.1f y=%.1f width=%.1f height=%.1f rx=2 /><text class=count x=%.1f "
            "y=%.1f text-anchor=middle>%d</text>"
            "<text class=tick x=%.1f y=196 text-anchor=middle>%s</text>\n",
            b == BINS - 1 ? " bad" : "", x + 6, 176 - h, w - 12, h, x + w / 2, 170 - h, count[b], x + w / 2,
            label[b]);
    }
    put(p, "</svg></figure>\n");
}

/* ---- tables ---- */

static void put_row(page *p, const verify_report *r, const verify_entry *e)
{
    put(p, "<tr%s><td>", verify_entry_ok(e) ? "" : " class=bad");
    put_text(p, e->name);
    put(p, "</td><td>%s</td>", e->op ? e->op : "");
    put_error(p, e->local.d.relative_l2, e->local.there);
    put_error(p, e->local.there ? e->local.limit : e->bound, e->local.there || e->bound > 0);
    if (isfinite(verify_used(e)))
        put(p, "<td class=n>%.1f %%</td>", 100 * verify_used(e));
    else
        put(p, "<td class=n>&ndash;</td>");
    bool sum = e->state == VERIFY_COMPARED;
    put_error(p, e->absolute ? e->max_abs : e->relative_l2, sum);
    put_error(p, e->recipe.d.relative_l2, e->recipe.there && r->has_recipe);
    put_error(p, e->max_spread, sum && !e->absolute);
    put(p,
        sum && !e->absolute ? "<td class=n>%.9f</td><td class=n>%.9f</td>"
                            : "<td class=n>&ndash;</td><td class=n>&ndash;</td>",
        e->centred_cosine, e->cosine);
    put_error(p, e->mean_abs, sum);
    int step = e->local.there ? e->local.step : e->op ? e->step : e->what.step;
    put(p, "<td class=n>%lld</td>", (long long)(e->local.there ? e->local.d.worst : e->worst));
    if (step >= 0)
        put(p, "<td class=n>%d</td></tr>\n", step);
    else
        put(p, "<td></td></tr>\n");
}

static void begin_table(page *p)
{
    put(p, "<div class=wide><table><tr><th>tensor</th><th>op</th><th class=n>own error</th><th "
           "class=n>budget</th>"
           "<th class=n>of budget</th><th class=n>from start</th><th class=n>recipe</th><th "
           "class=n>max/spread</th>"
           "<th class=n>centred cosine</th><th class=n>cosine</th><th class=n>mean abs</th><th class=n>worst "
           "at</th>"
           "<th class=n>step</th></tr>\n");
}

static pv_status put_tables(page *p, const verify_subject *s, const verify_report *r)
{
    const verify_entry **worst = NULL;
    verify_group *g = NULL;
    int n = 0, n_groups = 0;
    pv_status st = verify_ranking(r, &worst, &n);
    if (!st)
        st = verify_groups(r, &g, &n_groups);
    if (!st && n) {
        put(p, "<h2>Nearest to their %s</h2>\n", s->against ? "budgets" : "bounds");
        begin_table(p);
        for (int i = 0; i < n && i < 15; i++)
            put_row(p, r, worst[i]);
        put(p, "</table></div>\n");
    }
    if (!st && n_groups) {
        put(p,
            "<h2>Layers</h2>\n<div class=wide><table><tr><th>layer</th><th class=n>%s</th><th class=n>of "
            "%s</th>"
            "<th>nearest to its %s</th><th>op</th><th class=n>%s</th><th class=n>recipe</th></tr>\n",
            s->against ? "ops" : "tensors", s->against ? "budget" : "bound", s->against ? "budget" : "bound",
            s->against ? "from start" : "relative L2");
        for (int i = 0; i < n_groups; i++) {
            const verify_entry *w = g[i].worst, *l = g[i].last;
            if (!w)
                continue;
            put(p, "<tr%s><td>", verify_entry_ok(w) ? "" : " class=bad");
            put_text(p, g[i].name);
            put(p, "</td><td class=n>%d</td><td class=n>%.1f %%</td><td>", g[i].judged, 100 * verify_used(w));
            put_text(p, w->name);
            put(p, "</td><td>%s</td>", w->op ? w->op : "");
            put_error(p, l ? l->relative_l2 : 0, l);
            put_error(p, l ? l->recipe.d.relative_l2 : 0, l && l->recipe.there);
            put(p, "</tr>\n");
        }
        put(p, "</table></div>\n");
    }
    if (!st) {
        put(p, "<details><summary>All tensors</summary>\n");
        begin_table(p);
        for (int i = 0; i < r->n_entries; i++)
            if (r->entries[i].state == VERIFY_COMPARED || r->entries[i].local.there)
                put_row(p, r, &r->entries[i]);
        put(p, "</table></div></details>\n");
    }
    pv_free((void *)worst);
    pv_free(g);
    return st;
}

/* ---- the page ---- */

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
    "</style>\n";

static void tile(page *p, const char *what, const char *fmt, double v)
{
    put(p, "<div><dt>%s</dt><dd>", what);
    char text[64];
    snprintf(text, sizeof text, "%.*f", 0, v);
    if (fmt && v != 0)
        snprintf(text, sizeof text, "%.2e", v);
    put(p, "%s</dd></div>\n", text);
}

static void put_head(page *p, const verify_subject *s, const verify_report *r)
{
    char verdict[512];
    verify_verdict(s, r, verdict, sizeof verdict);
    put(p,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
        "content=\"width=device-width,initial-scale=1\">\n"
        "<title>pivot verify: %s</title>\n",
        verify_passed(s, r) ? "within all bounds" : "out of bounds");
    put(p, "%s", style);
    put(p, "</head><body>\n<h1>");
    put_text(p, s->backend);
    put(p, " (%s) against ", s->recipe);
    put_text(p, s->against ? s->against : "a trace");
    if (s->against)
        put(p, " (%s)", s->ref_recipe);
    put(p, "</h1>\n<p class=soft>");
    put_text(p, s->model);
    put(p, "; ");
    put_text(p, s->trace ? s->trace : "made-up inputs");
    put(p, "; %d cameras, %d prompt tokens, prefix of %d", r->views, r->prompt_tokens, r->prefix_tokens);
    if (s->against)
        put(p, ", %d steps", r->steps);
    put(p, "; pivot %s</p>\n<p class=\"verdict%s\">", pv_version(), verify_passed(s, r) ? "" : " bad");
    put_text(p, verdict);
    put(p, "</p>\n<dl>\n");
    if (s->against) {
        tile(p, "ops judged", NULL, r->n_local);
        tile(p, "beyond their budgets", NULL, r->n_local_failed);
    }
    tile(p, "tensors compared", NULL, r->n_compared);
    if (s->against)
        tile(p, "with equal bytes", NULL, r->n_same);
    for (int i = r->n_entries - 1; i >= 0; i--)
        if (r->entries[i].state == VERIFY_COMPARED &&
            (s->against || r->entries[i].what.kind == TRACE_ACTIONS)) {
            tile(p, "relative L2 of the actions", "e", r->entries[i].relative_l2);
            break;
        }
    put(p, "</dl>\n");
}

pv_status verify_html_write(const char *path, const verify_subject *s, const verify_report *r)
{
    page p = {.status = PV_OK};
    series v = {.n = 0};
    pv_status st = pv_file_out_begin(&p.file, path);
    if (st)
        return st;
    st = make_series(r, &v);
    if (!st) {
        put_head(&p, s, r);
        draw_depth(&p, s, r, &v);
        st = draw_steps(&p, s, r);
    }
    if (!st && s->against)
        draw_histogram(&p, r);
    if (!st)
        st = put_tables(&p, s, r);
    put(&p, "</body></html>\n");
    free_series(&v);
    st = st ? st : p.status;
    if (!st)
        return pv_file_out_end(&p.file);
    pv_file_out_abort(&p.file);
    return st;
}
