/* plot.h - an action chunk as a picture, actions.svg; and curves in one chart. */
#ifndef PV_TOOLS_PLOT_H
#define PV_TOOLS_PLOT_H

#include "base/status.h"

/* One small chart for each action dimension, over the steps of the horizon, in a self-contained SVG file.
 *   actions  [horizon][dims], finite (PV_E_NOT_FINITE otherwise); 1..1000 steps, 1..32 dims (PV_E_ARG
 * otherwise) title    UTF-8, any text; unit: of the actions, such as "robot units" */
pv_status plot_actions(const char *path, const float *actions, int horizon, int dims, const char *title,
                       const char *unit);

/* Curves over the same x, in one chart with logarithmic axes, in a self-contained SVG file. What is not above 0 or
 * not finite has no point. 2..200 x, above 0 and growing, by 1..8 curves, at least one point of them (PV_E_ARG otherwise). */
typedef struct plot_curve {
    const char *name;
    const double *y; /* [n] */
} plot_curve;
pv_status plot_curves(const char *path, const double *x, int n, const plot_curve *curves, int n_curves, const char *title,
                      const char *x_name, const char *y_name);

#endif
