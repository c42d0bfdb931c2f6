/* infer.c - the smallest use of the library: one picture and one sentence in, one action chunk out. */
#include <pivot.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static uint8_t pixels[480 * 640 * 3]; /* a camera's picture: RGB, rows from the top */
    float *actions = NULL;
    pv_backend *backend = NULL;
    pv_model *model = NULL;
    pv_session *session = NULL;
    pv_model_info info = {0};
    pv_image image = {.camera = "base_0_rgb", .pixels = pixels, .width = 640, .height = 480};
    pv_observation seen = {.images = &image, .n_images = 1, .prompt = "pick up the red block"};

    pv_status st = pv_backend_open("cpu", NULL, &backend);
    if (!st) st = pv_model_load(argc > 1 ? argv[1] : "synth:tiny", NULL, &model);
    if (!st) st = pv_model_describe(model, &info); /* horizon 10, 7 actions: the tiny made-up model */
    if (!st) st = pv_session_create(model, backend, NULL, &session);
    if (!st) actions = calloc((size_t)(info.horizon * info.action_dim), sizeof *actions);
    if (actions) st = pv_session_infer(session, &seen, NULL, actions);
    if (st) fprintf(stderr, "%s\n", pv_error_text());
    for (int i = 0; actions && !st && i < info.horizon * info.action_dim; i++)
        printf("%9.4f%c", actions[i], (i + 1) % info.action_dim ? ' ' : '\n');

    free(actions);
    pv_session_destroy(&session);
    pv_model_free(&model);
    pv_backend_close(&backend);
    return st || !actions;
}
