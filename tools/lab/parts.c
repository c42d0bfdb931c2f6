/* parts.c - see parts.h. */
#include "parts.h"
#include "base/memory.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

int lab_dtype(lab *l, pv_dtype *out)
{
    l->common.recipe = l->common.recipe ? l->common.recipe : "bf16";
    if (pv_dtype_parse(l->common.recipe, out) || (*out != PV_F32 && *out != PV_BF16 && *out != PV_F16))
        return cli_usage(&l->common, "--recipe: expected f32, bf16 or f16, came '%s'", l->common.recipe);
    return CLI_GO;
}

pv_status lab_fill(uint64_t seed, float deviation, float *x, int64_t rows, int64_t width)
{
    const int64_t pool = (1 << 18) + width;
    float *draw = pv_alloc(sizeof *draw * (size_t)pool);
    if (!draw)
        return PV_E_MEMORY;
    lab_random(seed, draw, (size_t)pool);
    for (int64_t i = 0; i < pool; i++)
        draw[i] *= deviation;
    for (int64_t r = 0; r < rows; r++) {
        uint64_t at = ((uint64_t)r + 1) * 0x9e3779b97f4a7c15u >> (64 - 18); /* apart for 2^18 rows and more */
        memcpy(x + r * width, draw + at, sizeof *x * (size_t)width);
    }
    pv_free(draw);
    return PV_OK;
}

void lab_product(const double *x, const float *w, double *y, int64_t rows, int64_t n, int64_t k)
{
    for (int64_t c = 0; c < n; c++)
        for (int64_t r = 0; r < rows; r++) {
            double sum[4] = {0};
            const double *a = x + r * k;
            const float *b = w + c * k;
            int64_t i = 0;
            for (; i + 4 <= k; i += 4)
                for (int j = 0; j < 4; j++)
                    sum[j] += a[i + j] * (double)b[i + j];
            for (; i < k; i++)
                sum[0] += a[i] * (double)b[i];
            y[r * n + c] = sum[0] + sum[1] + sum[2] + sum[3];
        }
}

pv_tensor *lab_weight(pv_graph *g, pv_dtype dtype, int64_t rows, int64_t width, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *name = pv_graph_vprintf(g, fmt, ap);
    va_end(ap);
    return pv_state(g, name, dtype, rows, width);
}

pv_status lab_put(lab_small *s, const void *bytes, const char *fmt, ...)
{
    char name[48];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const pv_tensor *t = pv_graph_find(s->plan->graph, name);
    return t && t->offset != PV_NOWHERE ? pv_instance_write(s->inst, t, 0, bytes, pv_tensor_bytes(t)) : PV_OK;
}

void *lab_bytes(const float *x, pv_dtype dtype, size_t n)
{
    void *bytes = pv_alloc(pv_dtype_bytes(dtype, n));
    if (bytes)
        pv_from_f32(bytes, x, dtype, n);
    return bytes;
}

pv_status lab_try(lab *l, pv_graph **g, const pv_plan_params *params, lab_row *row, int word, lab_small *out,
                  bool *made)
{
    pv_status st = lab_small_make(l->backend, g, params, out);
    *made = !st;
    if (st != PV_E_NO_KERNEL)
        return st;
    row->value[word].word = "no kernel";
    lab_say(l, "%s: %s", row->name, pv_error_text());
    return PV_OK;
}

lab_time lab_share(lab_time t, int n)
{
    return (lab_time){t.runs, t.median / n, t.low / n, t.high / n};
}
