/* bench_html.c - what `pivot bench` found, as a page: a waterfall of an inference and one of the cold start,
 * each run, tables. Of a bar that has a floor the part beyond it is pale. */
#include "bench_compare.h"
#include "waterfall.h"

#include <math.h>
#include <stdio.h>

static void draw_inference(page *p, const bench *b)
{
    static const int order[] = {OBSERVE, HOST, VISION, PREFIX, DENOISE};
    enum { N = 5 };
    bar bars[N];
    double at = fmax(bench_summary(b, HOST).p50, 0);
    for (int i = 0; i < N; i++) {
        int time = order[i];
        bool device = time == VISION || time == PREFIX || time == DENOISE;
        summary s = bench_summary(b, time);
        bars[i] = (bar){bench_time_names[time],
                        device ? "" : "host",
                        device ? at : 0,
                        fmax(s.p50, 0),
                        bench_floor(b, time),
                        b->runs >= 100 ? s.p99 : 0,
                        time == DENOISE ? b->steps : 0};
        at += device ? s.p50 : 0;
    }
    page_put(p,
             "<figure><figcaption>One inference <span>milliseconds, medians of %d runs; the stages by the "
             "device's clock one behind the "
             "other, after what the host has beside them%s%s</span></figcaption>\n",
             b->runs, b->runs >= 100 ? "; the line ends at the 99th percentile" : "",
             b->rates.bytes_per_s > 0 ? "; pale: beyond the floor" : "");
    waterfall(p, bars, N, "waterfall of the stages");
    page_put(p, "</figure>\n");
}

static void draw_cold(page *p, const bench *b)
{
    static const int order[] = {COLD_MODEL,  COLD_OPEN, COLD_PLAN, COLD_WEIGHTS,
                                COLD_RECORD, COLD_REST, COLD_FIRST};
    bar bars[N_COLD];
    double at = 0;
    for (int i = 0; i < N_COLD; i++) {
        double ms = fmax(b->cold_ms[order[i]], 0);
        bars[i] = (bar){.name = bench_cold_names[order[i]],
                        .class = order[i] == COLD_FIRST ? "" : "host",
                        .start = at,
                        .length = ms};
        at += ms;
    }
    page_put(p, "<figure><figcaption>Cold start <span>milliseconds, once; ");
    put_ms(p, at);
    page_put(p, " from nothing to the first actions</span></figcaption>\n");
    waterfall(p, bars, N_COLD, "waterfall of the cold start");
    page_put(p, "</figure>\n");
}

/* Each run's total; of very many the slowest of some neighbours. */
static void draw_runs(page *p, const bench *b)
{
    const double left = 100, right = 20;
    enum { TOP = 10, HEIGHT = 130, MOST = 900 };
    summary s = bench_summary(b, TOTAL);
    double span = s.max - s.min, width = PAGE_WIDTH - left - right;
    if (b->runs < 2 || !(span > 0))
        return;
    page_put(
        p,
        "<figure><figcaption>Run by run <span>total, from the fastest to the slowest</span></figcaption>\n"
        "<svg viewBox=\"0 0 %g %d\" role=img aria-label=\"total of each run\">\n",
        PAGE_WIDTH, TOP + HEIGHT + 26);
    const double marks[] = {s.min, s.p50, s.max};
    double last = HUGE_VAL;
    for (int i = 0; i < 3; i++) {
        double y = TOP + HEIGHT * (1 - (marks[i] - s.min) / span);
        page_put(p, "<path class=grid d=\"M%g %.1fH%g\"/>", left, y, PAGE_WIDTH - right);
        if (fabs(y - last) > 14) {
            page_put(p, "<text class=tick x=%g y=%.1f text-anchor=end>", left - 10, y + 4);
            put_ms(p, marks[i]);
            page_put(p, "</text>\n");
            last = y;
        }
    }
    int every = (b->runs + MOST - 1) / MOST;
    page_put(p, "<path class=\"line sum\" d=\"");
    for (int i = 0; i < b->runs; i += every) {
        double most = 0;
        for (int k = i; k < i + every && k < b->runs; k++)
            most = fmax(most, b->ms[TOTAL][k]);
        page_put(p, "%c%.1f %.1f", i ? 'L' : 'M', left + width * i / (b->runs - 1),
                 TOP + HEIGHT * (1 - (most - s.min) / span));
    }
    page_put(p,
             "\"/><text class=tick x=%g y=%d>1</text><text class=tick x=%g y=%d "
             "text-anchor=end>%d</text></svg></figure>\n",
             left, TOP + HEIGHT + 18, PAGE_WIDTH - right, TOP + HEIGHT + 18, b->runs);
}

static void cell_ms(page *p, double ms)
{
    page_put(p, "<td class=n>");
    put_ms(p, ms);
    page_put(p, "</td>");
}

static void cells_floor(page *p, double ms, double floor_ms)
{
    if (floor_ms > 0) {
        cell_ms(p, floor_ms);
        page_put(p, "<td class=n>%.0f %%</td>", bench_percent(ms, floor_ms));
    } else {
        page_put(p, "<td></td><td></td>");
    }
}

static void table_times(page *p, const bench *b)
{
    page_put(p, "<h2>Times</h2>\n<div class=wide><table><tr><th>time</th><th class=n>median</th><th "
                "class=n>p95</th><th class=n>p99</th>"
                "<th class=n>p99.9</th><th class=n>min</th><th class=n>max</th><th class=n>floor</th><th "
                "class=n>of floor</th></tr>\n");
    for (int i = 0; i < N_TIMES; i++) {
        summary s = bench_summary(b, i);
        const double shown[] = {s.p50, s.p95, s.p99, s.p999, s.min, s.max};
        page_put(p, "<tr><td>%s</td>", bench_time_names[i]);
        for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
            cell_ms(p, shown[k]);
        cells_floor(p, s.p50, bench_floor(b, i));
        page_put(p, "</tr>\n");
    }
    page_put(p, "</table></div>\n");
}

static void table_ops(page *p, const bench *b)
{
    double sum = 0;
    for (int i = 0; i < b->n_costs; i++)
        sum += b->costs[i].ms;
    page_put(p, "<h2>Ops</h2>\n<div class=wide><table><tr><th>stage</th><th>op</th><th class=n>count</th><th "
                "class=n>time</th>"
                "<th class=n>share</th><th class=n>floor</th><th class=n>of floor</th><th "
                "class=n>bytes</th><th class=n>GFLOP</th>"
                "<th class=n>GFLOP/s</th></tr>\n");
    for (int i = 0; i < b->n_costs; i++) {
        const cost_row *c = &b->costs[i];
        cli_text t;
        page_put(p, "<tr><td>%s</td><td>%s</td><td class=n>%lld</td>", pv_stage_name(c->stage),
                 pv_ops[c->op].name, (long long)c->count);
        cell_ms(p, c->ms);
        page_put(p, "<td class=n>%.1f %%</td>", sum > 0 ? 100 * c->ms / sum : 0);
        cells_floor(p, c->ms, b->rates.bytes_per_s > 0 && c->floor_ms >= 0.0005 ? c->floor_ms : 0);
        page_put(p, "<td class=n>%s</td>", cli_bytes(&t, (uint64_t)c->bytes));
        if (c->flops > 0)
            page_put(p, "<td class=n>%.*f</td><td class=n>%.1f</td></tr>\n", c->flops < 1e9 ? 4 : 1,
                     c->flops * 1e-9, c->ms > 0 ? c->flops / c->ms * 1e-6 : 0);
        else
            page_put(p, "<td></td><td></td></tr>\n");
    }
    page_put(p, "</table></div>\n");
}

static void row_bytes(page *p, const char *name, uint64_t bytes)
{
    cli_text t;
    page_put(p, "<tr><td>%s</td><td class=n>%s</td></tr>\n", name, cli_bytes(&t, bytes));
}

static void table_memory(page *p, const bench *b)
{
    const pv_memory_info *m = &b->memory;
    page_put(p, "<h2>Memory</h2>\n<div class=wide><table>\n");
    row_bytes(p, "weights, on the device", m->weights_bytes);
    row_bytes(p, "embedding, on the host", m->host_bytes);
    row_bytes(p, "state: K/V cache, tables of the times", m->state_bytes);
    row_bytes(p, "scratch", m->scratch_bytes);
    row_bytes(p, "io", m->io_bytes);
    row_bytes(p, "const", m->const_bytes);
    if (b->load_peak_bytes)
        row_bytes(p, "the process at most while it loaded", b->load_peak_bytes);
    if (b->peak_bytes)
        row_bytes(p, "the process at most", b->peak_bytes);
    page_put(p, "</table></div>\n");
}

static void put_head(page *p, const bench *b)
{
    cli_text t;
    double total = bench_summary(b, TOTAL).p50, run = bench_summary(b, RUN).p50,
           floor_ms = bench_floor(b, RUN);
    page_put(p, "<h1>");
    page_text(p, b->device.name);
    page_put(p, "</h1>\n<p class=soft>");
    page_text(p, b->common.model);
    page_put(p, "; %s, recipe %s; %d views, %d prompt tokens, horizon %d, %d steps; ", b->device.backend,
             bench_recipe(b), b->views, b->tokens, b->info.horizon, b->steps);
    page_text(p, b->device.library);
    if (*b->device.driver) {
        page_put(p, "; driver ");
        page_text(p, b->device.driver);
    }
    if (b->device.clock_mhz)
        page_put(p, "; %d MHz, memory %d MHz", b->device.clock_mhz, b->device.memory_clock_mhz);
    page_put(p, "; pivot %s, %s</p>\n<dl>\n", pv_version(), b->date);
    page_tile(p, "total, median", "%s", cli_ms(&t, total));
    if (total > 0)
        page_tile(p, "chunks a second", "%.1f Hz", 1e3 / total);
    page_tile(p, "on the device", "%s", cli_ms(&t, run));
    if (floor_ms > 0) {
        page_tile(p, "its floor", "%s", cli_ms(&t, floor_ms));
        page_tile(p, "percent of floor", "%.0f %%", bench_percent(run, floor_ms));
    }
    page_tile(p, "cold start", "%s", cli_ms(&t, bench_cold(b)));
    page_put(p, "</dl>\n");
}

pv_status bench_html(const bench *b)
{
    page p;
    pv_status st = page_begin(&p, b->html, "pivot bench");
    if (st)
        return st;
    put_head(&p, b);
    draw_inference(&p, b);
    draw_runs(&p, b);
    draw_cold(&p, b);
    table_times(&p, b);
    if (b->ops)
        table_ops(&p, b);
    table_memory(&p, b);
    return page_end(&p, PV_OK);
}

/* ---- two beside each other ---- */

static void draw_duel(page *p, const duel *d)
{
    static const int order[] = {HOST, VISION, PREFIX, DENOISE};
    enum { N = 4 };
    bar bars[2 * N];
    char names[2 * N][32];
    double at[2] = {0, 0};
    for (int i = 0; i < 2 * N; i++) {
        int time = order[i / 2], s = i % 2;
        double ms = fmax(s ? d->row[time].b : d->row[time].a, 0);
        snprintf(names[i], sizeof names[i], "%s %c", bench_time_names[time], s ? 'B' : 'A');
        bars[i] = (bar){.name = names[i], .class = s ? "other" : "", .start = at[s], .length = ms};
        at[s] += ms;
    }
    page_put(p, "<figure><figcaption>An inference of each <span>milliseconds, medians; stages one behind the "
                "other</span></figcaption>\n");
    waterfall(p, bars, 2 * N, "waterfall of both");
    page_put(p, "</figure>\n");
}

pv_status duel_html(const duel *d, const char *path)
{
    page p;
    pv_status st = page_begin(&p, path, "pivot bench: A and B");
    if (st)
        return st;
    page_put(&p, "<h1>B beside A</h1>\n");
    for (int s = 0; s < 2; s++) {
        page_put(&p, "<p class=soft>%c: ", s ? 'B' : 'A');
        page_text(&p, d->label[s]);
        page_put(&p, ", %d runs</p>\n", d->runs[s]);
    }
    const duel_row *total = &d->row[TOTAL];
    page_put(&p, "<p class=verdict>total: ");
    if (total->ratio > 0)
        page_put(&p, "B takes %.3f of A; ", total->ratio);
    page_put(&p, "%s</p>\n", verdict_words[total->verdict]);
    draw_duel(&p, d);
    page_put(&p, "<h2>Times</h2>\n<div class=wide><table><tr><th>median</th><th class=n>A</th><th "
                 "class=n>B</th><th class=n>B/A</th>"
                 "<th class=n>B - A</th><th class=n>noise</th><th></th></tr>\n");
    for (int i = 0; i < N_TIMES; i++) {
        const duel_row *r = &d->row[i];
        page_put(&p, "<tr><td>%s</td>", bench_time_names[i]);
        cell_ms(&p, r->a);
        cell_ms(&p, r->b);
        page_put(&p, "<td class=n>%.3f</td>", r->ratio);
        cell_ms(&p, r->difference);
        cell_ms(&p, r->noise);
        page_put(&p, "<td>%s</td></tr>\n", verdict_words[r->verdict]);
    }
    page_put(&p, "</table></div>\n<p class=soft>noise: ");
    page_text(&p, d->how);
    page_put(&p, "</p>\n");
    return page_end(&p, PV_OK);
}
