/* stats.c - fuzzing the statistics and, with the same bytes, strict JSON. cJSON must take whatever the
 * grammar check lets through (else pv_json_parse answers PV_E_MEMORY), and statistics that were accepted must
 * give finite numbers. */
#include "io/json.h"
#include "io/stats.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const pv_norm *norm)
{
    double x[1024], y[1024];
    PROMISE(norm->dim >= 1 && norm->dim <= norm->padded_dim && norm->padded_dim <= 1024);
    for (int i = 0; i < norm->dim; i++) {
        PROMISE(isfinite(norm->mean[i]) && isfinite(norm->std[i]) && norm->std[i] >= 0);
        PROMISE(!norm->q01 || norm->q01[i] < norm->q99[i]);
        x[i] = norm->mean[i];
    }
    pv_normalize(norm, PV_NORM_ZSCORE, x, y, norm->dim);
    for (int i = 0; i < norm->dim; i++)
        PROMISE(y[i] == 0);
    if (!norm->q01)
        return;
    pv_normalize(norm, PV_NORM_QUANTILE, norm->q01, y, norm->dim);
    for (int i = 0; i < norm->dim; i++)
        PROMISE(y[i] == -1);
    PROMISE(pv_norm_outside(norm, norm->q99, norm->dim) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *v;
    pv_status st = pv_json_parse((const char *)data, size, size, "fuzz", &v);
    PROMISE(st == PV_OK ? v != NULL : st == PV_E_FILE && !v);
    cJSON_Delete(v);
    pv_stats *s;
    st = pv_stats_parse((const char *)data, size, "fuzz", &s);
    PROMISE(st == PV_OK ? s != NULL : st == PV_E_FILE && !s);
    if (s) {
        check(&s->state);
        check(&s->actions);
    }
    pv_stats_free(&s);
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
