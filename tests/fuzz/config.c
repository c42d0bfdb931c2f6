/* config.c - fuzzing the configuration: what is accepted is a model whose graph can be built and whose text
 * reads back as the same. */
#include "model/config.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static pv_status read_config(pv_config *c, const char *text, size_t n)
{
    cJSON *v = NULL;
    pv_status st = pv_json_parse(text, n, (size_t)1 << 20, "fuzz", &v);
    if (!st)
        st = pv_config_apply(c, v, "fuzz", NULL);
    cJSON_Delete(v);
    return st ? st : pv_config_check(c, "fuzz");
}

static void check(const pv_config *c)
{
    const pv_siglip_config *v = &c->vision;
    PROMISE(v->image % v->patch == 0 && v->width % v->heads == 0 && c->gemma.heads % c->gemma.kv_heads == 0);
    PROMISE(c->horizon > 0 && c->n_cameras > 0 && c->n_cameras <= PV_MAX_CAMERAS && c->num_steps > 0);
    PROMISE((int64_t)c->n_cameras * pv_image_tokens(c) + c->max_tokens + c->horizon <= 1 << 17);
    PROMISE(c->rms_norm_eps > 0 && c->layer_norm_eps > 0 && isfinite(c->rope_theta));
    for (int i = 0; i < c->n_cameras; i++)
        PROMISE(memchr(c->camera[i], 0, PV_CAMERA_NAME) && c->camera[i][0]);
    char *text = pv_config_text(c);
    pv_config again;
    pv_config_full(&again);
    PROMISE(text && read_config(&again, text, strlen(text)) == PV_OK);
    char *second = pv_config_text(&again);
    PROMISE(second && !strcmp(text, second));
    pv_free(text);
    pv_free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pv_set_log(NULL, NULL, PV_LOG_NONE);
    for (int tiny = 0; tiny < 2; tiny++) {
        pv_config c;
        if (tiny)
            pv_config_tiny(&c);
        else
            pv_config_full(&c);
        pv_status st = read_config(&c, (const char *)data, size);
        PROMISE(st == PV_OK || st == PV_E_FILE || st == PV_E_CHECKPOINT || st == PV_E_UNSUPPORTED);
        if (st)
            PROMISE(!strncmp(pv_error_text(), "fuzz: ", 6));
        else
            check(&c);
    }
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
