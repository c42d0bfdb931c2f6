/* scene.h - a table with coloured blocks, a plate and two grippers, as three cameras see it: sample pictures
 * for trying the program, drawn by tracing one ray for each quarter of a pixel. */
#ifndef PV_TOOLS_SCENE_H
#define PV_TOOLS_SCENE_H

#include <stdint.h>

#define SCENE_VIEWS 3 /* base, left wrist, right wrist */

/* rgb [height][width][3]; view 0 .. SCENE_VIEWS - 1 */
void scene_draw(int view, int width, int height, uint8_t *rgb);

#endif
