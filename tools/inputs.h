/* inputs.h - what a user hands to `pivot run` in files and on the command line, read and checked. */
#ifndef PV_TOOLS_INPUTS_H
#define PV_TOOLS_INPUTS_H

#include "cli.h"
#include "picture.h"

/* CAM=FILE each, with a sign: the pictures, and pv_images that point into them. Zeroed before;
 * input_images_free in any case. */
typedef struct input_images {
    picture picture[PV_MAX_CAMERAS];
    char *camera[PV_MAX_CAMERAS];
    pv_image image[PV_MAX_CAMERAS];
    int n;
} input_images;
pv_status input_images_read(const cli_list *list, input_images *out);
void input_images_free(input_images *images);

/* Tensor `noise` (or a trace's `in.noise`) of a safetensors file, F32 [horizon, dim] -> noise. */
pv_status input_noise_read(const char *path, int horizon, int dim, float *noise);

/* Times of a schedule: a file of numbers with spaces, commas or lines between, or a JSON array of numbers; at
 * least two. *times is pv_alloc'ed, steps + 1 of them. Whether they go down from 1 to 0 is for
 * pv_schedule_custom to say. */
pv_status input_times_read(const char *path, float **times, int *steps);

#endif
