/* infer.c - the smallest use of the library: one camera, one prompt, one action chunk.
 *   infer [MODEL]    a checkpoint folder; default: the tiny made-up model */
#include <pivot.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static uint8_t pixels[480 * 640 * 3]; /* RGB, from the top; a robot puts its camera's picture here */
    static double state[32];              /* joints and gripper, in the units of the dataset */
    pv_backend *backend = NULL;
    pv_model *model = NULL;
    pv_session *session = NULL;
    pv_model_info info = {0};
    float *actions = NULL;

    pv_status st = pv_backend_open("cpu", NULL, &backend);
    if (!st) st = pv_model_load(argc > 1 ? argv[1] : "synth:tiny", NULL, &model);
    if (!st) st = pv_model_describe(model, &info);
    if (!st) st = pv_session_create(model, backend, NULL, &session);
    if (!st) actions = malloc(sizeof *actions * (size_t)(info.horizon * info.action_dim));
    if (actions) {
        pv_image image = {.camera = info.camera[0], .pixels = pixels, .width = 640, .height = 480};
        pv_observation seen = {.images = &image, .n_images = 1, .prompt = "pick up the red block",
                               .state = state, .n_state = info.state_dim < 32 ? info.state_dim : 32};
        st = pv_session_infer(session, &seen, NULL, actions);
        for (int i = 0; !st && i < info.horizon * info.action_dim; i++)
            printf("%9.4f%c", actions[i], (i + 1) % info.action_dim ? ' ' : '\n');
    }
    if (st) fprintf(stderr, "%s\n", pv_error_text());
    free(actions);
    pv_session_destroy(&session);
    pv_model_free(&model);
    pv_backend_close(&backend);
    return st != PV_OK;
}
