/* waterfall.c - see waterfall.h. */
#include "waterfall.h"
#include "cli.h"

#include <math.h>

#define LEFT  100.0
#define RIGHT 20.0
#define ROW   34.0
#define BAR   20.0
#define AXIS  24.0

/* 1, 2 or 5 times a power of ten: some eight of them in `span`. */
static double tick_of(double span)
{
    double power = pow(10, floor(log10(span / 8))), times = span / 8 / power;
    return power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

void put_ms(page *p, double ms)
{
    cli_text t;
    page_put(p, "%s", cli_ms(&t, ms));
}

static void draw_axis(page *p, double span, double width, double bottom)
{
    for (double at = 0, tick = tick_of(span); at <= span * 1.0001; at += tick) {
        double x = LEFT + width * at / span;
        page_put(p,
                 "<path class=grid d=\"M%.1f %gV%.1f\"/><text class=tick x=%.1f y=14 "
                 "text-anchor=middle>%g</text>\n",
                 x, AXIS - 4, bottom, x, at);
    }
}

static void draw_bar(page *p, const bar *b, double scale, double y)
{
    double x = LEFT + scale * b->start, w = scale * b->length, floor_w = scale * b->floor;
    page_put(p, "<text class=name x=%g y=%.1f text-anchor=end>%s</text>", LEFT - 10, y + 15, b->name);
    page_put(p, "<rect class=\"seg %s\" x=%.2f y=%.1f width=%.2f height=%g><title>%s: ", b->class, x, y,
             w > 0.5 ? w : 0.5, BAR, b->name);
    put_ms(p, b->length);
    if (b->floor > 0) {
        page_put(p, ", floor ");
        put_ms(p, b->floor);
    }
    page_put(p, "</title></rect>\n");
    if (b->floor > 0 && floor_w < w)
        page_put(p, "<rect class=\"seg floor\" x=%.2f y=%.1f width=%.2f height=%g />", x + floor_w, y,
                 w - floor_w, BAR);
    for (int k = 1; k < b->ticks && b->ticks <= 50; k++)
        page_put(p, "<path class=tickline d=\"M%.2f %.1fv%g\"/>", x + w * k / b->ticks, y, BAR);
    double end = x + w;
    if (b->reach > b->length) {
        end = x + scale * b->reach;
        page_put(p, "<path class=tail d=\"M%.2f %.1fH%.2fm0 -5v10\"/>", x + w, y + BAR / 2, end);
    }
    bool right = end <= PAGE_WIDTH - RIGHT - 190, left = !right && x - LEFT > 200,
         pale = b->floor > 0 && w - floor_w > 200;
    double at = right ? end + 8 : left ? x - 8 : pale ? x + floor_w + 8 : x + 8;
    page_put(p, "<text %sx=%.1f y=%.1f text-anchor=%s>",
             right || left ? ""
             : pale        ? "class=count "
                           : "style=\"fill:var(--page)\" ",
             at, y + 15, left ? "end" : "start");
    put_ms(p, b->length);
    if (b->floor > 0) {
        page_put(p, ", floor ");
        put_ms(p, b->floor);
        page_put(p, ", %.0f %%", 100 * b->floor / b->length);
    }
    page_put(p, "</text>\n");
}

void waterfall(page *p, const bar *bars, int n, const char *what)
{
    double span = 0, width = PAGE_WIDTH - LEFT - RIGHT, bottom = AXIS + ROW * n;
    for (int i = 0; i < n; i++) {
        double end = bars[i].start + fmax(bars[i].length, bars[i].reach);
        span = end > span ? end : span;
    }
    if (!(span > 0))
        return;
    page_put(p, "<svg viewBox=\"0 0 %g %g\" role=img aria-label=\"%s\">\n", PAGE_WIDTH, bottom + 4, what);
    draw_axis(p, span, width, bottom);
    for (int i = 0; i < n; i++)
        draw_bar(p, &bars[i], width / span, AXIS + ROW * i + (ROW - BAR) / 2);
    page_put(p, "</svg>\n");
}
