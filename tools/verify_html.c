/* verify_html.c - see verify_html.h. Errors are on logarithmic axes; what is equal to the bit has a lane of
 * its own below. */
#include "verify_html.h"
#include "page.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH  PAGE_WIDTH
#define LEFT   62.0
#define RIGHT  10.0
#define TOP    26.0
#define HEIGHT 300.0 /* of the plot itself */
#define LOWEST (-10) /* power of ten on an axis */
#define LANE   26.0  /* below it: equal bytes */

static void put_error(page *p, double v, bool there)
{
    if (!there)
        page_put(p, "<td class=n>&ndash;</td>");
    else if (v == 0)
        page_put(p, "<td class=n>0</td>");
    else
        page_put(p, "<td class=n>%.2e</td>", v);
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
    page_put(p, "<svg viewBox=\"0 0 %g %g\" role=img aria-label=\"%s\">\n", WIDTH,
             TOP + HEIGHT + LANE + below, what);
    for (int e = a->low, every = (a->high - a->low) / 9 + 1; e <= a->high; e++) {
        double y = at_y(a, pow(10, e));
        page_put(p, "<path class=grid d=\"M%g %.1fH%g\"/>", LEFT, y, WIDTH - RIGHT);
        if ((a->high - e) % every == 0)
            page_put(p, "<text class=tick x=%g y=%.1f text-anchor=end>1e%d</text>\n", LEFT - 6, y + 4, e);
    }
    page_put(p, "<rect class=lane x=%g y=%g width=%g height=%g />", LEFT, TOP + HEIGHT, WIDTH - LEFT - RIGHT,
             LANE);
    page_put(p, "<text class=tick x=%g y=%g text-anchor=end>equal</text>\n", LEFT - 6,
             TOP + HEIGHT + LANE / 2 + 4);
}

static void line(page *p, const axes *a, const char *class, const double *v, int n)
{
    bool on = false;
    page_put(p, "<path class=\"line %s\" d=\"", class);
    for (int i = 0; i < n; i++) {
        if (!isnan(v[i]))
            page_put(p, "%c%.1f %.1f", on ? 'L' : 'M', at_x(a, i), at_y(a, v[i]));
        on = !isnan(v[i]);
    }
    page_put(p, "\"/>\n");
}

static void dashes(page *p, const axes *a, const double *v, int n)
{
    double half = (WIDTH - LEFT - RIGHT) / (a->n > 0 ? a->n : 1) / 2;
    page_put(p, "<path class=\"line budget\" d=\"");
    for (int i = 0; i < n; i++)
        if (v[i] > 0)
            page_put(p, "M%.1f %.1fh%.2f", at_x(a, i) - half, at_y(a, v[i]), 2 * half);
    page_put(p, "\"/>\n");
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
    page_put(p,
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
            page_put(p, "<path class=\"%s\" d=\"M%.1f %gV%g\"/>", stage ? "stage" : "grid", x,
                     stage ? 8.0 : TOP, TOP + HEIGHT + LANE);
        if (stage && stage_length(v, i) > a.n / 14)
            page_put(p, "<text class=tick x=%.1f y=18>%.*s</text>\n", x + 5, (int)part_of(name, false), name);
    }
    dashes(p, &a, v->budget, v->n);
    if (r->has_recipe)
        line(p, &a, "recipe", v->recipe, v->n);
    line(p, &a, "sum", v->sum, v->n);
    for (int i = 0; i < v->n; i++) {
        const verify_entry *e = v->entry[i];
        if (!e->local.there)
            continue;
        page_put(p, "<circle class=\"%s\" cx=%.1f cy=%.1f r=%g><title>", e->local.ok ? "own" : "own bad",
                 at_x(&a, i), at_y(&a, v->own[i]), e->local.ok ? 2.2 : 4.5);
        page_text(p, e->name);
        page_put(p, " (%s): own %.2e, budget %.2e, from start %.2e</title></circle>\n", e->op, v->own[i],
                 e->local.limit, v->sum[i]);
    }
    for (int i = 0; i < v->n; i++)
        if (v->entry[i] == r->first_failed) {
            double x = at_x(&a, i), y = at_y(&a, r->first_local ? v->own[i] : v->sum[i]);
            bool left = x > WIDTH * 0.6;
            page_put(
                p, "<circle class=ring cx=%.1f cy=%.1f r=9 /><text class=first x=%.1f y=%.1f text-anchor=%s>",
                x, y, x + (left ? -14 : 14), y + 4, left ? "end" : "start");
            page_text(p, v->entry[i]->name);
            page_put(p, "</text>\n");
        }
    page_put(p, "</svg>\n<p class=key>%s<span class=sum>%s</span>%s%s</p></figure>\n",
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
        page_put(p, "<figure><figcaption>Error along the steps <span>%s</span></figcaption>\n",
                 s->against ? "x after each denoising step; and the largest error of an op's own in it"
                            : "velocity of each denoising step");
        begin_drawing(p, &a, 26, "error along the steps");
        for (int k = 0, every = n / 20 + 1; k < n; k += every)
            page_put(p, "<text class=tick x=%.1f y=%g text-anchor=middle>%d</text>", at_x(&a, k),
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
                    page_put(p,
                             "<circle class=%s cx=%.1f cy=%.1f r=3.5><title>step %d: %.2e</title></circle>\n",
                             points[c].class, at_x(&a, k), at_y(&a, points[c].v[k]), k, points[c].v[k]);
        page_put(p, "</svg>\n<p class=key>%s<span class=sum>%s</span>%s</p></figure>\n",
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
    page_put(p, "<figure><figcaption>How much of their budgets ops use <span>ops, by per cent of the "
                "budget</span></figcaption>\n");
    page_put(p, "<svg viewBox=\"0 0 %g 210\" role=img aria-label=\"ops by share of the budget\">\n", WIDTH);
    for (int b = 0; b < BINS; b++) {
        double w = (WIDTH - 20) / BINS, x = 10 + w * b, h = 150.0 * count[b] / most;
        page_put(p,
                 "<rect class=\"bar%s\" x=%.1f y=%.1f width=%.1f height=%.1f rx=2 /><text class=count x=%.1f "
                 "y=%.1f text-anchor=middle>%d</text>"
                 "<text class=tick x=%.1f y=196 text-anchor=middle>%s</text>\n",
                 b == BINS - 1 ? " bad" : "", x + 6, 176 - h, w - 12, h, x + w / 2, 170 - h, count[b],
                 x + w / 2, label[b]);
    }
    page_put(p, "</svg></figure>\n");
}

/* ---- tables ---- */

static void put_row(page *p, const verify_report *r, const verify_entry *e)
{
    page_put(p, "<tr%s><td>", verify_entry_ok(e) ? "" : " class=bad");
    page_text(p, e->name);
    page_put(p, "</td><td>%s</td>", e->op ? e->op : "");
    put_error(p, e->local.d.relative_l2, e->local.there);
    put_error(p, e->local.there ? e->local.limit : e->bound, e->local.there || e->bound > 0);
    if (isfinite(verify_used(e)))
        page_put(p, "<td class=n>%.1f %%</td>", 100 * verify_used(e));
    else
        page_put(p, "<td class=n>&ndash;</td>");
    bool sum = e->state == VERIFY_COMPARED;
    put_error(p, e->absolute ? e->max_abs : e->relative_l2, sum);
    put_error(p, e->recipe.d.relative_l2, e->recipe.there && r->has_recipe);
    put_error(p, e->max_spread, sum && !e->absolute);
    page_put(p,
             sum && !e->absolute ? "<td class=n>%.9f</td><td class=n>%.9f</td>"
                                 : "<td class=n>&ndash;</td><td class=n>&ndash;</td>",
             e->centred_cosine, e->cosine);
    put_error(p, e->mean_abs, sum);
    int step = e->local.there ? e->local.step : e->op ? e->step : e->what.step;
    page_put(p, "<td class=n>%lld</td>", (long long)(e->local.there ? e->local.d.worst : e->worst));
    if (step >= 0)
        page_put(p, "<td class=n>%d</td></tr>\n", step);
    else
        page_put(p, "<td></td></tr>\n");
}

static void begin_table(page *p)
{
    page_put(
        p, "<div class=wide><table><tr><th>tensor</th><th>op</th><th class=n>own error</th><th "
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
        page_put(p, "<h2>Nearest to their %s</h2>\n", s->against ? "budgets" : "bounds");
        begin_table(p);
        for (int i = 0; i < n && i < 15; i++)
            put_row(p, r, worst[i]);
        page_put(p, "</table></div>\n");
    }
    if (!st && n_groups) {
        page_put(
            p,
            "<h2>Layers</h2>\n<div class=wide><table><tr><th>layer</th><th class=n>%s</th><th class=n>of "
            "%s</th>"
            "<th>nearest to its %s</th><th>op</th><th class=n>%s</th><th class=n>recipe</th></tr>\n",
            s->against ? "ops" : "tensors", s->against ? "budget" : "bound", s->against ? "budget" : "bound",
            s->against ? "from start" : "relative L2");
        for (int i = 0; i < n_groups; i++) {
            const verify_entry *w = g[i].worst, *l = g[i].last;
            if (!w)
                continue;
            page_put(p, "<tr%s><td>", verify_entry_ok(w) ? "" : " class=bad");
            page_text(p, g[i].name);
            page_put(p, "</td><td class=n>%d</td><td class=n>%.1f %%</td><td>", g[i].judged,
                     100 * verify_used(w));
            page_text(p, w->name);
            page_put(p, "</td><td>%s</td>", w->op ? w->op : "");
            put_error(p, l ? l->relative_l2 : 0, l);
            put_error(p, l ? l->recipe.d.relative_l2 : 0, l && l->recipe.there);
            page_put(p, "</tr>\n");
        }
        page_put(p, "</table></div>\n");
    }
    if (!st) {
        page_put(p, "<details><summary>All tensors</summary>\n");
        begin_table(p);
        for (int i = 0; i < r->n_entries; i++)
            if (r->entries[i].state == VERIFY_COMPARED || r->entries[i].local.there)
                put_row(p, r, &r->entries[i]);
        page_put(p, "</table></div></details>\n");
    }
    pv_free((void *)worst);
    pv_free(g);
    return st;
}

/* ---- the page ---- */

static void put_head(page *p, const verify_subject *s, const verify_report *r)
{
    char verdict[512];
    verify_verdict(s, r, verdict, sizeof verdict);
    page_put(p, "<h1>");
    page_text(p, s->backend);
    page_put(p, " (%s) against ", s->recipe);
    page_text(p, s->against ? s->against : "a trace");
    if (s->against)
        page_put(p, " (%s)", s->ref_recipe);
    page_put(p, "</h1>\n<p class=soft>");
    page_text(p, s->model);
    page_put(p, "; ");
    page_text(p, s->trace ? s->trace : "made-up inputs");
    page_put(p, "; %d cameras, %d prompt tokens, prefix of %d", r->views, r->prompt_tokens, r->prefix_tokens);
    if (s->against)
        page_put(p, ", %d steps", r->steps);
    page_put(p, "; pivot %s</p>\n<p class=\"verdict%s\">", pv_version(), verify_passed(s, r) ? "" : " bad");
    page_text(p, verdict);
    page_put(p, "</p>\n<dl>\n");
    if (s->against) {
        page_tile(p, "ops judged", "%d", r->n_local);
        page_tile(p, "beyond their budgets", "%d", r->n_local_failed);
    }
    page_tile(p, "tensors compared", "%d", r->n_compared);
    if (s->against)
        page_tile(p, "with equal bytes", "%d", r->n_same);
    for (int i = r->n_entries - 1; i >= 0; i--)
        if (r->entries[i].state == VERIFY_COMPARED &&
            (s->against || r->entries[i].what.kind == TRACE_ACTIONS)) {
            double off = r->entries[i].relative_l2;
            page_tile(p, "relative L2 of the actions", off == 0 ? "%.0f" : "%.2e", off);
            break;
        }
    page_put(p, "</dl>\n");
}

pv_status verify_html_write(const char *path, const verify_subject *s, const verify_report *r)
{
    page p;
    series v = {.n = 0};
    pv_status st = page_begin(
        &p, path, verify_passed(s, r) ? "pivot verify: within all bounds" : "pivot verify: out of bounds");
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
    free_series(&v);
    return page_end(&p, st);
}
