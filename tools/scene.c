/* scene.c - see scene.h. Metres; x towards the viewer, y to the right, z up; the table top is z = 0. */
#include "scene.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct vec {
    double x, y, z;
} vec;

static vec add(vec a, vec b, double k)
{
    return (vec){a.x + k * b.x, a.y + k * b.y, a.z + k * b.z};
}

static double dot(vec a, vec b)
{
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

static vec cross(vec a, vec b)
{
    return (vec){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

static vec unit(vec a)
{
    double n = sqrt(dot(a, a));
    return (vec){a.x / n, a.y / n, a.z / n};
}

/* ---- things ---- */

typedef enum kind { BOX, DISC } kind;

typedef struct thing {
    kind kind;
    vec at, half; /* centre and half sides; a disc: radius in x, thickness in z */
    double turn;  /* about z */
    vec colour;
} thing;

#define METAL                                                                                                \
    {                                                                                                        \
        0.55, 0.57, 0.60                                                                                     \
    }
#define DARK                                                                                                 \
    {                                                                                                        \
        0.13, 0.14, 0.16                                                                                     \
    }

static const thing things[] = {
    {BOX, {0, 0, -0.02}, {0.46, 0.62, 0.02}, 0, {0.71, 0.53, 0.36}}, /* the table: the only one with grain */
    {DISC, {0.12, 0.02, 0.006}, {0.115, 0, 0.006}, 0, {0.90, 0.91, 0.92}},
    {DISC, {0.12, 0.02, 0.009}, {0.082, 0, 0.006}, 0, {0.80, 0.84, 0.90}},
    {BOX, {-0.06, -0.19, 0.030}, {0.030, 0.030, 0.030}, 0.4, {0.80, 0.13, 0.11}},
    {BOX, {0.17, -0.24, 0.025}, {0.025, 0.025, 0.025}, 0.9, {0.13, 0.35, 0.78}},
    {BOX, {-0.13, 0.09, 0.028}, {0.028, 0.028, 0.028}, -0.3, {0.16, 0.58, 0.25}},
    {BOX, {-0.03, 0.26, 0.025}, {0.025, 0.050, 0.025}, 0.7, {0.93, 0.73, 0.12}},
    {BOX, {-0.06, -0.19, 0.082}, {0.022, 0.022, 0.022}, 0.1, {0.94, 0.52, 0.14}},
    {BOX, {-0.02, -0.43, 0.160}, {0.008, 0.007, 0.060}, 0, METAL}, /* left gripper: fingers, palm, arm */
    {BOX, {-0.02, -0.35, 0.160}, {0.008, 0.007, 0.060}, 0, METAL},
    {BOX, {-0.02, -0.39, 0.235}, {0.025, 0.055, 0.018}, 0, DARK},
    {BOX, {-0.12, -0.43, 0.300}, {0.140, 0.030, 0.050}, 0.3, {0.85, 0.86, 0.88}},
    {BOX, {-0.02, 0.39, 0.160}, {0.008, 0.007, 0.060}, 0, METAL}, /* right gripper */
    {BOX, {-0.02, 0.47, 0.160}, {0.008, 0.007, 0.060}, 0, METAL},
    {BOX, {-0.02, 0.43, 0.235}, {0.025, 0.055, 0.018}, 0, DARK},
    {BOX, {-0.12, 0.47, 0.300}, {0.140, 0.030, 0.050}, -0.3, {0.85, 0.86, 0.88}},
};
#define N_THINGS (sizeof things / sizeof *things)

typedef struct hit {
    double t;
    const thing *thing;
    vec normal;
} hit;

static vec turned(vec a, double c, double s)
{
    return (vec){c * a.x - s * a.y, s * a.x + c * a.y, a.z};
}

static void meet_box(const thing *b, vec from, vec way, hit *best)
{
    double c = cos(b->turn), s = sin(b->turn), near = 1e-6, far = best->t;
    vec o = turned(add(from, b->at, -1), c, -s), d = turned(way, c, -s), n = {0, 0, 0};
    const double from3[] = {o.x, o.y, o.z}, way3[] = {d.x, d.y, d.z},
                 half[] = {b->half.x, b->half.y, b->half.z};
    for (int i = 0; i < 3; i++) {
        double inverse = 1 / (way3[i] != 0 ? way3[i] : 1e-300);
        double t0 = (-half[i] - from3[i]) * inverse, t1 = (half[i] - from3[i]) * inverse;
        double enter = fmin(t0, t1), leave = fmax(t0, t1), side = way3[i] > 0 ? -1 : 1;
        if (enter > near) {
            near = enter;
            n = (vec){i == 0 ? side : 0, i == 1 ? side : 0, i == 2 ? side : 0};
        }
        far = fmin(far, leave);
    }
    if (near < far && dot(n, n) > 0)
        *best = (hit){near, b, turned(n, c, s)};
}

static void meet_disc(const thing *b, vec from, vec way, hit *best)
{
    double t = (b->at.z + b->half.z - from.z) / (way.z != 0 ? way.z : 1e-300);
    vec p = add(from, way, t);
    double x = p.x - b->at.x, y = p.y - b->at.y;
    if (t > 1e-6 && t < best->t && x * x + y * y < b->half.x * b->half.x)
        *best = (hit){t, b, {0, 0, 1}};
}

static hit meet(vec from, vec way, double far)
{
    hit best = {.t = far};
    for (size_t i = 0; i < N_THINGS; i++)
        if (things[i].kind == BOX)
            meet_box(&things[i], from, way, &best);
        else
            meet_disc(&things[i], from, way, &best);
    return best;
}

/* ---- light ---- */

static double grain(vec p) /* of wood along y: rings cut slantwise, and boards */
{
    double ring = sin(90 * (p.x + 0.02 * sin(7 * p.y) + 0.012 * sin(23 * p.y + 11 * p.x)));
    double board = sin(60 * floor(p.x / 0.115));
    double gap = fabs(p.x / 0.115 - round(p.x / 0.115)) < 0.012 ? -0.25 : 0;
    return 1 + 0.05 * ring + 0.06 * board + gap;
}

static vec sky(vec way) /* a plain room: wall above, floor below */
{
    double up = way.z;
    double k = up > -0.16 ? 0.74 + 0.15 * up : 0.32 + 0.1 * up;
    return (vec){k, k * 0.985, k * 0.95};
}

static vec look(vec from, vec way)
{
    static const vec sun = {0.35, -0.42, 0.84};
    hit h = meet(from, way, 1e9);
    if (!h.thing)
        return sky(way);
    vec p = add(from, way, h.t), colour = h.thing->colour, to_sun = unit(sun);
    bool shadow = meet(add(p, h.normal, 1e-5), to_sun, 1e9).thing != NULL;
    double light = 0.42 + 0.12 * h.normal.z + (shadow ? 0 : 0.62 * fmax(0, dot(h.normal, to_sun)));
    if (h.thing == things && h.normal.z > 0.5)
        light *= grain(p);
    return (vec){colour.x * light, colour.y * light, colour.z * light};
}

/* ---- cameras ---- */

static const struct {
    vec at, target;
    double zoom; /* focal length over half the picture's width */
} views[SCENE_VIEWS] = {
    {{0.95, 0.03, 0.66}, {0.03, 0.01, 0.05}, 1.75},
    {{0.17, -0.37, 0.33}, {-0.05, -0.27, 0.04}, 1.05},
    {{0.17, 0.41, 0.33}, {-0.05, 0.30, 0.04}, 1.05},
};

static uint8_t level(double light) /* sRGB's gamma, nearly */
{
    double v = pow(fmin(fmax(light, 0), 1), 1 / 2.2) * 255;
    return (uint8_t)(v + 0.5);
}

void scene_draw(int view, int width, int height, uint8_t *rgb)
{
    vec at = views[view].at, ahead = unit(add(views[view].target, at, -1));
    vec right = unit(cross(ahead, (vec){0, 0, 1})), up = cross(right, ahead);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            vec sum = {0, 0, 0};
            for (int k = 0; k < 4; k++) {
                double u = (x + 0.25 + 0.5 * (k & 1) - width * 0.5) / (width * 0.5);
                double v = (height * 0.5 - y - 0.25 - 0.5 * (k >> 1)) / (width * 0.5);
                vec way = add(add((vec){ahead.x * views[view].zoom, ahead.y * views[view].zoom,
                                        ahead.z * views[view].zoom},
                                  right, u),
                              up, v);
                sum = add(sum, look(at, unit(way)), 0.25);
            }
            uint8_t *p = rgb + ((size_t)y * (size_t)width + (size_t)x) * 3;
            p[0] = level(sum.x);
            p[1] = level(sum.y);
            p[2] = level(sum.z);
        }
}
