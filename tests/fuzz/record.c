/* record.c - any bytes as a recording for `pivot replay`: read, its observation made, and all that it says
 * looked at. */
#define _GNU_SOURCE
#include "base/memory.h"
#include "record/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sink ^= ((const uint8_t *)bytes)[i];
}

static void look_inside(pv_recording *r)
{
    static const size_t width[PV_FIELD_TYPE_COUNT] = {1, 4, 8, 4, 8, 1, 1};
    const pv_recorded *s = pv_recording_look(r);
    pv_observation o;
    for (int i = 0; i < s->horizon * s->model_dim; i++)
        PROMISE(isfinite(s->noise[i]) && isfinite(s->model_actions[i]));
    for (int i = 0; i < s->horizon * s->action_dim; i++)
        PROMISE(isfinite(s->actions[i]));
    touch(s->times, sizeof *s->times * (size_t)(s->steps + 1));
    touch(s->tokens, sizeof *s->tokens * (size_t)s->n_tokens);
    for (int i = 0; i < s->n_fields; i++) {
        size_t n = width[s->fields[i].type];
        for (int d = 0; d < s->fields[i].n_dims; d++)
            n *= (size_t)s->fields[i].dim[d];
        touch(s->fields[i].data, n);
    }
    if (!pv_recording_plain(r, &o)) {
        for (int i = 0; i < o.n_images; i++)
            touch(o.images[i].pixels, 3 * (size_t)o.images[i].width * (size_t)o.images[i].height);
        if (o.prompt)
            touch(o.prompt, strlen(o.prompt));
        touch(o.state, sizeof *o.state * (size_t)o.n_state);
        touch(o.tokens, sizeof *o.tokens * (size_t)o.n_tokens);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("recording", 0);
    char path[64];
    pv_recording *r = NULL;
    if (fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size) {
        pv_status st = pv_recording_open(path, &r);
        PROMISE(st == PV_OK ? r != NULL : st == PV_E_FILE && !r);
        if (r)
            look_inside(r);
        pv_recording_close(&r);
    }
    close(fd);
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
