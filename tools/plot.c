/* plot.c - actions as small multiples: every dimension its own chart and its own scale, since radians, metres and
 * grippers share none. Steps below, the value at three to five round numbers at the left, a dot for each step
 * while there is room. */
#include "plot.h"

#include "base/memory.h"
#include "io/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_STEPS 1000
#define MAX_DIMS  32

/* All in the SVG's units (pixels at 100 %). */
enum {
    MARGIN = 18,
    HEAD = 76, /* title and line below it */
    FOOT = 10,
    PANEL_W = 300,
    PANEL_H = 184,
    LEFT = 58, /* of the plotting area inside a panel: room for numbers */
    RIGHT = 14,
    TOP = 26,
    BOTTOM = 48,
    DOTS_UP_TO = 64, /* steps */
};

typedef struct svg { /* text that grows */
    char *text;
    size_t n, room;
    pv_status st;
} svg;

static void put(svg *s, const char *fmt, ...) PV_PRINTF(2, 3);

static void put(svg *s, const char *fmt, ...)
{
    char piece[512];
    va_list ap;
    if (s->st)
        return;
    va_start(ap, fmt);
    size_t n = (size_t)vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    if (n >= sizeof piece)
        n = sizeof piece - 1; /* no line below is that long */
    if (s->n + n > s->room) {
        size_t room = s->room ? s->room * 2 : (size_t)1 << 16;
        char *more = pv_alloc(room);
        if (!more) {
            s->st = PV_E_MEMORY;
            return;
        }
        if (s->n)
            memcpy(more, s->text, s->n);
        pv_free(s->text);
        s->text = more;
        s->room = room;
    }
    memcpy(s->text + s->n, piece, n);
    s->n += n;
}

/* Text that may hold any character: markup escaped, control characters (which XML forbids) made spaces; cut
 * behind `most` characters, since SVG does not break lines. */
static void put_text(svg *s, const char *text, int most)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >> 6 != 2 && most-- == 0) { /* a character begins */
            put(s, "\xe2\x80\xa6");
            return;
        }
        if (c == '<' || c == '>' || c == '&' || c == '"')
            put(s, "&#%d;", c);
        else if (c >= 0x20 && c != 0x7f)
            put(s, "%c", c);
        else
            put(s, " ");
    }
}

typedef struct scale { /* of one axis: round numbers first, first + step, ... at most `last` */
    double low, high, first, step;
    int n, decimals;
} scale;

/* 1, 2 or 5 times a power of ten, so that about `want` of them fit into the range. */
static double round_step(double range, int want)
{
    double raw = range / want, power = pow(10, floor(log10(raw))), d = raw / power;
    return (d < 1.5 ? 1 : d < 3.5 ? 2 : d < 7.5 ? 5 : 10) * power;
}

/* Covers [low, high] and widens a range too narrow to be more than rounding. */
static scale scale_of(double low, double high)
{
    double size = fmax(fabs(low), fabs(high)), least = fmax(5e-3 * size, 1e-4);
    if (high - low < least) {
        double middle = (low + high) / 2;
        low = middle - least / 2;
        high = middle + least / 2;
    }
    double air = 0.06 * (high - low);
    scale s = {.low = low - air, .high = high + air};
    s.step = round_step(s.high - s.low, 4);
    s.first = ceil(s.low / s.step) * s.step;
    s.n = (int)floor((s.high - s.first) / s.step + 1e-9) + 1;
    s.decimals = (int)fmax(0, -floor(log10(s.step) + 1e-9));
    return s;
}

static void number(char *out, size_t n, double v, const scale *s)
{
    double size = fmax(fabs(s->low), fabs(s->high));
    if (fabs(v) < s->step / 2)
        v = 0; /* never "-0" */
    if (size >= 1e5 || s->decimals > 4)
        snprintf(out, n, "%.3g", v);
    else
        snprintf(out, n, "%.*f", s->decimals, v);
    char *minus = strchr(out, '-');
    if (minus == out && strlen(out) + 3 < n) { /* the proper sign: U+2212 */
        memmove(out + 3, out + 1, strlen(out));
        memcpy(out, "\xe2\x88\x92", 3);
    }
}

typedef struct box { /* the plotting area of a panel */
    double x, y, w, h;
} box;

static double at_x(const box *b, int step, int horizon)
{
    return b->x + (horizon > 1 ? b->w * step / (horizon - 1) : b->w / 2);
}

static double at_y(const box *b, const scale *s, double v)
{
    return b->y + b->h * (s->high - v) / (s->high - s->low);
}

static void axes(svg *out, const box *b, const scale *s, int horizon)
{
    char text[64];
    for (int i = 0; i < s->n; i++) {
        double v = s->first + i * s->step, y = at_y(b, s, v);
        bool zero = fabs(v) < s->step / 2;
        put(out, "<path class=\"%s\" d=\"M%.1f %.1fh%.1f\"/>\n", zero ? "zero" : "grid", b->x, y, b->w);
        number(text, sizeof text, v, s);
        put(out, "<text class=\"num\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", b->x - 7,
            y + 3.5, text);
    }
    int step = horizon > 1 ? (int)fmax(1, round_step(horizon - 1, 5)) : 1;
    put(out, "<path class=\"axis\" d=\"M%.1f %.1fh%.1f\"/>\n", b->x, b->y + b->h, b->w);
    for (int k = 0; k < horizon; k += step) {
        put(out, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", at_x(b, k, horizon), b->y + b->h);
        put(out, "<text class=\"num\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%d</text>\n",
            at_x(b, k, horizon), b->y + b->h + 16, k);
    }
}

static void curve(svg *out, const box *b, const scale *s, const float *actions, int horizon, int dims)
{
    put(out, "<path class=\"line\" d=\"");
    for (int k = 0; k < horizon; k++)
        put(out, "%c%.1f %.1f", k ? 'L' : 'M', at_x(b, k, horizon), at_y(b, s, actions[(size_t)k * dims]));
    put(out, "\"/>\n");
    for (int k = 0; k < horizon && horizon <= DOTS_UP_TO; k++)
        put(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>\n", at_x(b, k, horizon),
            at_y(b, s, actions[(size_t)k * dims]), horizon <= 20 ? "2.6" : "1.9");
}

static void panel(svg *out, double x, double y, const float *actions, int horizon, int dims, int dim,
                  const char *unit)
{
    box b = {x + LEFT, y + TOP, PANEL_W - LEFT - RIGHT, PANEL_H - TOP - BOTTOM};
    double low = actions[dim], high = low;
    for (int k = 1; k < horizon; k++) {
        low = fmin(low, actions[(size_t)k * dims + dim]);
        high = fmax(high, actions[(size_t)k * dims + dim]);
    }
    scale s = scale_of(low, high);
    put(out, "<g>\n<text class=\"name\" x=\"%.1f\" y=\"%.1f\">action %d</text>\n", b.x, b.y - 9, dim);
    put(out, "<text class=\"unit\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", b.x + b.w, b.y - 9);
    put_text(out, unit, 24);
    put(out, "</text>\n");
    axes(out, &b, &s, horizon);
    curve(out, &b, &s, actions + dim, horizon, dims);
    put(out, "<text class=\"unit\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">step</text>\n</g>\n",
        b.x + b.w / 2, b.y + b.h + 29);
}

/* Up to the words of the title, which are left open. */
static void begin(svg *out, int width, int height, const char *title)
{
    put(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n",
        width, height, width, height);
    put(out, "<style>\n"
              "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2937}\n"
              ".title{font-size:19px;font-weight:600}.sub{font-size:12.5px;fill:#6b7280}\n"
              ".name{font-size:12.5px;font-weight:600}.unit{font-size:10.5px;fill:#6b7280}\n");
    put(out, ".num{font-size:10.5px;fill:#6b7280}.grid,.zero,.axis,.line{fill:none}\n"
              ".grid{stroke:#e5e7eb}.zero{stroke:#9ca3af;stroke-dasharray:3 3}.axis{stroke:#9ca3af}\n"
              ".line{stroke:#2563eb;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}.dot{fill:#"
              "2563eb}\n"
              "</style>\n");
    put(out, "<title>");
    put_text(out, title, 400);
    put(out, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", width, height);
    put(out, "<text class=\"title\" x=\"%d\" y=\"38\">", MARGIN + LEFT);
    put_text(out, title, (width - 2 * MARGIN - LEFT) / 11); /* some 11 wide each at its size */
}

pv_status plot_actions(const char *path, const float *actions, int horizon, int dims, const char *title,
                       const char *unit)
{
    if (horizon < 1 || horizon > MAX_STEPS || dims < 1 || dims > MAX_DIMS)
        return pv_fail(PV_E_ARG, "%s: expected 1..%d steps of 1..%d actions, came %d of %d", path, MAX_STEPS,
                       MAX_DIMS, horizon, dims);
    for (int i = 0; i < horizon * dims; i++)
        if (!isfinite(actions[i]))
            return pv_fail(PV_E_NOT_FINITE, "%s: action %d of step %d is %f", path, i % dims, i / dims,
                           actions[i]);
    int columns = dims == 1 ? 1 : dims <= 4 ? 2 : dims <= 9 ? 3 : 4, rows = (dims + columns - 1) / columns;
    int width = 2 * MARGIN + (columns > 1 ? columns : 2) * PANEL_W, height = HEAD + rows * PANEL_H + FOOT;
    svg out = {0};
    begin(&out, width, height, title);
    put(&out,
        "</text>\n<text class=\"sub\" x=\"%d\" y=\"58\">%d step%s, %d action%s a step; each chart has its "
        "own "
        "scale</text>\n",
        MARGIN + LEFT, horizon, horizon == 1 ? "" : "s", dims, dims == 1 ? "" : "s");
    for (int d = 0; d < dims; d++)
        panel(&out, MARGIN + d % columns * PANEL_W, HEAD + d / columns * PANEL_H, actions, horizon, dims, d,
              unit);
    put(&out, "</svg>\n");
    pv_status st = out.st ? out.st : pv_file_write(path, out.text, out.n);
    pv_free(out.text);
    return st;
}

/* ---- curves ---- */

enum { CURVES_W = 780, CURVES_H = 460, CURVES_LEFT = 76, CURVES_RIGHT = 150, CURVES_BOTTOM = 58 };

static const char *const colours[] = {"#2563eb", "#dc2626", "#16a34a", "#9333ea",
                                      "#ea580c", "#0891b2", "#4b5563", "#ca8a04"};

typedef struct log_scale { /* logarithms to base 10 */
    double low, high;
} log_scale;

static bool drawn(double v)
{
    return isfinite(v) && v > 0;
}

static void widen(log_scale *s, double v)
{
    s->low = fmin(s->low, log10(v));
    s->high = fmax(s->high, log10(v));
}

static double at_log(const log_scale *s, double v, double from, double size)
{
    return from + size * (log10(v) - s->low) / (s->high - s->low);
}

/* 1, 2 and 5 times each power of ten; where there are many, the powers alone. */
static bool ticked(const log_scale *s, int digit)
{
    return digit == 1 || (s->high - s->low < 2.5 && (digit == 2 || digit == 5));
}

static void log_grid(svg *out, const box *b, const log_scale *s, bool across)
{
    for (int power = (int)floor(s->low); power <= (int)ceil(s->high); power++)
        for (int digit = 1; digit < 10; digit++) {
            double v = digit * pow(10, power), log_v = log10(v);
            if (!ticked(s, digit) || log_v < s->low - 1e-9 || log_v > s->high + 1e-9)
                continue;
            if (across) {
                double y = at_log(s, v, b->y + b->h, -b->h);
                put(out, "<path class=\"grid\" d=\"M%.1f %.1fh%.1f\"/>\n", b->x, y, b->w);
                put(out, "<text class=\"num\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n", b->x - 7, y + 3.5, v);
            } else {
                double x = at_log(s, v, b->x, b->w);
                put(out, "<path class=\"grid\" d=\"M%.1f %.1fv%.1f\"/>\n", x, b->y, b->h);
                put(out, "<text class=\"num\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.4g</text>\n", x,
                    b->y + b->h + 16, v);
            }
        }
}

static void log_curve(svg *out, const box *b, const log_scale *sx, const log_scale *sy, const double *x, const plot_curve *c, int n,
                      int at)
{
    const char *colour = colours[at];
    put(out, "<path class=\"line\" style=\"stroke:%s\" d=\"", colour);
    bool begun = false;
    for (int i = 0; i < n; i++) {
        if (!drawn(c->y[i]))
            continue;
        put(out, "%c%.1f %.1f", begun ? 'L' : 'M', at_log(sx, x[i], b->x, b->w), at_log(sy, c->y[i], b->y + b->h, -b->h));
        begun = true;
    }
    put(out, "\"/>\n");
    for (int i = 0; i < n; i++)
        if (drawn(c->y[i]))
            put(out, "<circle style=\"fill:%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n", colour,
                at_log(sx, x[i], b->x, b->w), at_log(sy, c->y[i], b->y + b->h, -b->h));
    double y = b->y + 10 + 20 * at;
    put(out, "<path class=\"line\" style=\"stroke:%s\" d=\"M%.1f %.1fh18\"/>\n", colour, b->x + b->w + 14, y);
    put(out, "<text class=\"unit\" x=\"%.1f\" y=\"%.1f\">", b->x + b->w + 38, y + 3.5);
    put_text(out, c->name, 18);
    put(out, "</text>\n");
}

pv_status plot_curves(const char *path, const double *x, int n, const plot_curve *curves, int n_curves, const char *title,
                      const char *x_name, const char *y_name)
{
    log_scale sx = {INFINITY, -INFINITY}, sy = sx;
    bool ok = n >= 2 && n <= 200 && n_curves >= 1 && n_curves <= 8;
    for (int i = 0; ok && i < n; i++)
        ok = drawn(x[i]) && (!i || x[i] > x[i - 1]);
    for (int c = 0; ok && c < n_curves; c++)
        for (int i = 0; i < n; i++)
            if (drawn(curves[c].y[i]))
                widen(&sy, curves[c].y[i]);
    if (!ok || sy.low > sy.high)
        return pv_fail(PV_E_ARG, "%s: expected 2..200 points, x above 0 and growing, of 1..8 curves with something above 0, came "
                       "%d of %d", path, n, n_curves);
    widen(&sx, x[0]);
    widen(&sx, x[n - 1]);
    double air_x = 0.03 * (sx.high - sx.low), air_y = fmax(0.05 * (sy.high - sy.low), 0.05);
    sx = (log_scale){sx.low - air_x, sx.high + air_x};
    sy = (log_scale){sy.low - air_y, sy.high + air_y};
    box b = {CURVES_LEFT, HEAD, CURVES_W - CURVES_LEFT - CURVES_RIGHT, CURVES_H - HEAD - CURVES_BOTTOM};
    svg out = {0};
    begin(&out, CURVES_W, CURVES_H, title);
    put(&out, "</text>\n<text class=\"sub\" x=\"%d\" y=\"58\">", MARGIN + LEFT);
    put_text(&out, y_name, 110);
    put(&out, "; both axes logarithmic</text>\n");
    log_grid(&out, &b, &sx, false);
    log_grid(&out, &b, &sy, true);
    for (int c = 0; c < n_curves; c++)
        log_curve(&out, &b, &sx, &sy, x, &curves[c], n, c);
    put(&out, "<text class=\"unit\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", b.x + b.w / 2, b.y + b.h + 38);
    put_text(&out, x_name, 80);
    put(&out, "</text>\n</svg>\n");
    pv_status st = out.st ? out.st : pv_file_write(path, out.text, out.n);
    pv_free(out.text);
    return st;
}
