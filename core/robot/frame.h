/* frame.h - what a robot saw once, in the form of the model's inputs. Memory only grows while the frame lives. */
#ifndef PV_ROBOT_FRAME_H
#define PV_ROBOT_FRAME_H

#include "robot.h"

typedef struct pv_block {
    void *data;
    size_t bytes;
} pv_block;

struct pv_frame {
    const pv_robot *robot; /* NULL: holds no observation */
    pv_observation observation;
    pv_image image[PV_MAX_CAMERAS];
    pv_block pixels[PV_MAX_CAMERAS], slot[PV_MAX_CAMERAS], prompt; /* nothing here points into the robot */
    double state[PV_ROBOT_MAX_DIM]; /* in the units of the statistics */
    int n_state;
};

/* At least so many bytes; what was there is lost when it has to grow. */
pv_status pv_block_need(pv_block *b, size_t bytes);

/* One picture as RGB u8 into `to`: *width and *height of it. */
pv_status pv_read_picture(const pv_robot_camera *camera, const pv_field *f, pv_block *to, int *width, int *height);

/* Each field's own promises: a key that came once, a type, dims, data. PV_E_ARG, PV_E_SHAPE. */
pv_status pv_check_fields(const pv_field *field, int n);

const char *pv_field_type_name(pv_field_type type);
void pv_field_shape(const pv_field *f, char out[96]); /* "f32 [3, 224, 224]" */

#endif
