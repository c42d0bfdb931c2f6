#include "synthetic.h"
#include "pi05.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

uint64_t pv_fnv1a64(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

uint64_t pv_hash(uint64_t fnv, uint64_t i)
{
    uint64_t z = fnv + i + 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static bool ends(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && !strcmp(name + n - k, end);
}

/* The first rule that matches the name wins. */
static void distribution(const char *name, int n_dims, int64_t fan_in, float *offset, float *scale)
{
    double spread = sqrt(3.0 / (double)fan_in);
    bool layer_norm = strstr(name, "layer_norm1.") || strstr(name, "layer_norm2.") || strstr(name, "post_layernorm.");
    *offset = layer_norm && ends(name, ".weight") ? 1.0f : 0.0f;
    if (layer_norm && (ends(name, ".weight") || ends(name, ".bias")))
        *scale = 0.125f;
    else if (ends(name, ".dense.bias"))
        *scale = 0.5f;
    else if (ends(name, ".bias") || n_dims == 1)
        *scale = 0.125f;
    else if (strstr(name, "position_embedding"))
        *scale = 0.5f;
    else
        *scale = (float)(ends(name, ".q_proj.weight") ? 2 * spread : spread);
}

void pv_synthetic_weights(const char *name, int n_dims, int64_t fan_in, int64_t first, int64_t n, uint16_t *dst)
{
    float offset, scale;
    distribution(name, n_dims, fan_in, &offset, &scale);
    uint64_t fnv = pv_fnv1a64(name);
    for (int64_t i = 0; i < n; i++) {
        float r = (float)(pv_hash(fnv, (uint64_t)(first + i)) >> 40) * 0x1p-23f - 1.0f;
        dst[i] = pv_f32_to_bf16(offset + scale * r);
    }
}

static uint64_t keyed(const char *prefix, const char *what, const char *part)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s%s", prefix, what, part);
    return pv_fnv1a64(key);
}

void pv_synthetic_image(const char *prefix, const char *camera, int64_t n, uint8_t *dst)
{
    uint64_t fnv = keyed(prefix, "image.", camera);
    for (int64_t i = 0; i < n; i++)
        dst[i] = (uint8_t)(pv_hash(fnv, (uint64_t)i) >> 56);
}

void pv_synthetic_tokens(const char *prefix, int n, int vocab, int32_t *dst)
{
    uint64_t fnv = keyed(prefix, "tokens", "");
    for (int i = 0; i < n; i++)
        dst[i] = (int32_t)(pv_hash(fnv, (uint64_t)i) % (uint64_t)vocab);
}

void pv_synthetic_noise(const char *prefix, int64_t n, float *dst)
{
    uint64_t fnv = keyed(prefix, "noise", "");
    for (int64_t i = 0; i < n; i++) { /* the sum of twelve uniform numbers, less 6: exact in double */
        double sum = 0;
        for (uint64_t k = 0; k < 12; k++)
            sum += (double)(pv_hash(fnv, 12 * (uint64_t)i + k) >> 40) * 0x1p-24;
        dst[i] = (float)(sum - 6);
    }
}

/* ---- as a source of weights ---- */

static const pv_tensor *find(const pv_graph *wanted, const char *name)
{
    for (int i = 0; i < wanted->n_tensors; i++)
        if (wanted->tensors[i]->usage == PV_WEIGHT && !strcmp(wanted->tensors[i]->name, name))
            return wanted->tensors[i];
    return NULL;
}

static pv_status read_elements(const void *user, const char *name, int64_t first, int64_t n, void *dst)
{
    const pv_tensor *t = find(user, name);
    if (t) {
        pv_synthetic_weights(name, t->n_dims, t->n_dims > 1 ? t->dim[1] : 1, first, n, dst);
        return PV_OK;
    }
    const pv_tensor *prompt = pv_graph_find(user, "prompt");
    if (strcmp(name, PV_EMBEDDING_NAME) || !prompt)
        return pv_fail(PV_E_CHECKPOINT, "tensor '%s' is none of the model's", name);
    pv_synthetic_weights(name, 2, pv_width(prompt), first, n, dst);
    return PV_OK;
}

static pv_dtype stored_dtype(const void *user, const char *name)
{
    (void)user, (void)name;
    return PV_BF16;
}

static uint64_t position(const void *user, const char *name)
{
    const pv_tensor *t = find(user, name);
    return t ? (uint64_t)t->id : 0;
}

pv_weight_source pv_synthetic_source(const pv_graph *wanted)
{
    return (pv_weight_source){wanted, read_elements, stored_dtype, position};
}
