/* plot.h - an action chunk as a picture: actions.svg. */
#ifndef PV_TOOLS_PLOT_H
#define PV_TOOLS_PLOT_H

#include "base/status.h"

/* One small chart for each action dimension, over the steps of the horizon, in a self-contained SVG file.
 *   actions  [horizon][dims], finite (PV_E_NOT_FINITE otherwise); 1..1000 steps, 1..32 dims (PV_E_ARG
 * otherwise) title    UTF-8, any text; unit: of the actions, such as "robot units" */
pv_status plot_actions(const char *path, const float *actions, int horizon, int dims, const char *title,
                       const char *unit);

#endif
