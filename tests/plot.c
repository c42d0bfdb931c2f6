/* plot.c - actions.svg holds every dimension and step, whatever the numbers and the words. */
#include "test.h"

#include "base/memory.h"
#include "io/json.h"
#include "tools/plot.h"

#include <unistd.h>

static char path[64];
static float actions[1000 * 32];

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

/* Every element is closed, in order; no bare ampersand. Enough XML for what the plot writes. */
static bool well_formed(const char *p)
{
    const char *open[16];
    int depth = 0;
    for (; *p; p++) {
        if (*p == '&' && p[1] != '#')
            return false;
        if (*p != '<')
            continue;
        const char *end = strchr(p, '>');
        if (!end)
            return false;
        if (p[1] == '/') {
            size_t n = (size_t)(end - p) - 2;
            if (!depth || strncmp(open[--depth], p + 2, n) || strchr(" >", open[depth][n]) == NULL)
                return false;
        } else if (end[-1] != '/') {
            if (depth == 16)
                return false;
            open[depth++] = p + 1;
        }
        p = end;
    }
    return depth == 0;
}

/* Plots and reads back; pv_free the text. */
static char *plotted(int horizon, int dims, const char *title, const char *unit)
{
    char *text = NULL;
    size_t n = 0;
    if (CHECK_OK(plot_actions(path, actions, horizon, dims, title, unit)) &&
        CHECK_OK(pv_file_read(path, (size_t)8 << 20, &text, &n))) {
        CHECK(well_formed(text));
        CHECK(count(text, "class=\"line\"") == dims);
        CHECK(count(text, "<circle") == (horizon <= 64 ? dims * horizon : 0));
        CHECK(!strstr(text, "nan") && !strstr(text, "inf"));
    }
    remove(path);
    return text;
}

static void shapes(void)
{
    static const int horizon[] = {1, 2, 10, 50, 64, 65, 1000}, dims[] = {1, 2, 4, 5, 7, 9, 10, 14, 32};
    for (int i = 0; i < 1000 * 32; i++)
        actions[i] = sinf((float)i * 0.37f) * (float)(i % 5);
    for (size_t h = 0; h < sizeof horizon / sizeof *horizon; h++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            pv_free(plotted(horizon[h], dims[d], "title", "robot units"));
}

static void numbers(void)
{
    static const float value[] = {0, 1e-30f, 3.4e38f, -3.4e38f, 1e-6f, 12345.678f, -0.0f, 1e5f};
    for (int spread = 0; spread < 2; spread++) {
        for (int k = 0; k < 10; k++)
            for (int d = 0; d < 8; d++)
                actions[k * 8 + d] = spread && k % 2 ? -value[d] : value[d];
        pv_free(plotted(10, 8, "numbers", "u"));
    }
    for (int k = 0; k < 10; k++)
        actions[k] = (float)k / 10;
    char *text = plotted(10, 1, "ticks", "rad");
    if (text) {
        CHECK(strstr(text, ">0.0</text>") && strstr(text, ">0.8</text>"));
        CHECK(strstr(text, ">8</text>") && strstr(text, ">step</text>") && strstr(text, ">rad</text>"));
        CHECK(strstr(text, "action 0"));
        CHECK(strstr(text, "10 steps, 1 action a step"));
    }
    pv_free(text);
    for (int k = 0; k < 10; k++) /* the line climbs from left below to right above */
        actions[k] = (float)k;
    text = plotted(10, 1, "up", "m");
    double x0, y0, x1, y1;
    const char *line = text ? strstr(text, "class=\"line\" d=\"M") : NULL;
    if (CHECK(line && sscanf(line, "class=\"line\" d=\"M%lf %lfL%lf %lf", &x0, &y0, &x1, &y1) == 4))
        CHECK(x1 > x0 && y1 < y0);
    pv_free(text);
}

static void words(void)
{
    char *text = plotted(3, 2, "a < b & \"c\" > d\n\x01 \xc3\xa9", "m/s & <rad>");
    if (text) {
        CHECK(strstr(text, "a &#60; b &#38; &#34;c&#34; &#62; d   \xc3\xa9"));
        CHECK(strstr(text, "m/s &#38; &#60;rad&#62;"));
    }
    pv_free(text);
    char title[3000] = "";
    for (int i = 0; i < 1000; i++)
        strcat(title, "\xc3\xa9");
    text = plotted(3, 2, title, title);
    CHECK(text && strlen(text) < 9000 && strstr(text, "\xc3\xa9\xe2\x80\xa6</text>"));
    pv_free(text);
}

static void refusals(void)
{
    float a[4] = {0, 1, 2, NAN};
    CHECK_STATUS(plot_actions(path, a, 2, 2, "t", "u"), PV_E_NOT_FINITE);
    CHECK_TEXT("action 1 of step 1");
    a[3] = -INFINITY;
    CHECK_STATUS(plot_actions(path, a, 2, 2, "t", "u"), PV_E_NOT_FINITE);
    CHECK_OK(plot_actions(path, a, 1, 3, "t", "u"));
    remove(path);
    CHECK_STATUS(plot_actions(path, a, 0, 2, "t", "u"), PV_E_ARG);
    CHECK_STATUS(plot_actions(path, a, 1001, 1, "t", "u"), PV_E_ARG);
    CHECK_STATUS(plot_actions(path, a, 1, 0, "t", "u"), PV_E_ARG);
    CHECK_STATUS(plot_actions(path, a, 1, 33, "t", "u"), PV_E_ARG);
    CHECK(access(path, F_OK) != 0); /* nothing is written on failure */
    CHECK_STATUS(plot_actions("/no/such/folder/actions.svg", a, 1, 3, "t", "u"), PV_E_FILE);
}

/* Points lie where their logarithms say; what is not above 0 has none. */
static void curves(void)
{
    double x[] = {1, 10, 100}, falls[] = {1, 0.1, 0.01}, gap[] = {1, NAN, 1}, none[] = {0, -1, INFINITY};
    const plot_curve two[] = {{"falls <b>", falls}, {"gap", gap}};
    char *text = NULL;
    size_t n = 0;
    if (CHECK_OK(plot_curves(path, x, 3, two, 2, "title & words", "x", "y")) &&
        CHECK_OK(pv_file_read(path, (size_t)1 << 20, &text, &n))) {
        double at[6];
        const char *line = strstr(text, "style=\"stroke:#2563eb\" d=\"M");
        CHECK(well_formed(text) && !strstr(text, "nan") && !strstr(text, "inf"));
        CHECK(count(text, "<circle") == 5); /* 3 and 2 */
        CHECK(strstr(text, "falls &#60;b&#62;</text>") && strstr(text, "title &#38; words"));
        CHECK(strstr(text, ">0.01</text>") && strstr(text, ">100</text>"));
        if (CHECK(line && sscanf(line, "style=\"stroke:#2563eb\" d=\"M%lf %lfL%lf %lfL%lf %lf", &at[0], &at[1], &at[2], &at[3],
                                 &at[4], &at[5]) == 6)) {
            CHECK(fabs((at[4] - at[2]) - (at[2] - at[0])) < 0.21 && at[2] > at[0]);
            CHECK(fabs((at[5] - at[3]) - (at[3] - at[1])) < 0.21 && at[3] > at[1]); /* downwards */
        }
    }
    pv_free(text);
    remove(path);
    const plot_curve empty = {"none", none};
    double back[] = {1, 1, 2};
    CHECK_STATUS(plot_curves(path, x, 3, &empty, 1, "t", "x", "y"), PV_E_ARG);
    CHECK_STATUS(plot_curves(path, back, 3, two, 2, "t", "x", "y"), PV_E_ARG);
    CHECK_STATUS(plot_curves(path, none, 3, two, 2, "t", "x", "y"), PV_E_ARG);
    CHECK_STATUS(plot_curves(path, x, 1, two, 2, "t", "x", "y"), PV_E_ARG);
    CHECK_STATUS(plot_curves(path, x, 3, two, 9, "t", "x", "y"), PV_E_ARG);
    CHECK(access(path, F_OK) != 0);
}

int main(void)
{
    char folder[] = "/tmp/pivot_plot_XXXXXX";
    if (CHECK(mkdtemp(folder) != NULL)) {
        snprintf(path, sizeof path, "%s/actions.svg", folder);
        shapes();
        numbers();
        words();
        refusals();
        curves();
        rmdir(folder);
    }
    CHECK(!pv_alloc_live());
    return test_done();
}
