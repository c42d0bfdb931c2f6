/* identity.c - what tells one checkpoint from another, without reading all of it: of every tensor its name,
 * dtype, number of elements and a sample. Two trainings that differ anywhere differ nearly everywhere. */
#include "base/hash.h"
#include "base/memory.h"
#include "model.h"

#include <string.h>

#define SAMPLE 256 /* elements at the beginning, in the middle and at the end of a tensor */

static uint64_t add_text(uint64_t hash, const char *text)
{
    return pv_fnv1a(hash, text, strlen(text) + 1);
}

static pv_status add_tensor(const pv_model *m, const char *name, int64_t n, void *sample, uint64_t *hash)
{
    const pv_weight_source *s = &m->source;
    pv_dtype dtype = s->stored_dtype(s->user, name);
    *hash = add_text(add_text(*hash, name), pv_dtype_name(dtype));
    *hash = pv_fnv1a(*hash, &n, sizeof n);
    int64_t part = n < SAMPLE ? n : SAMPLE;
    const int64_t first[] = {0, (n - part) / 2, n - part};
    for (int i = 0; i < 3; i++) {
        pv_status st = s->read(s->user, name, first[i], part, sample);
        if (st)
            return st;
        *hash = pv_fnv1a(*hash, sample, pv_dtype_bytes(dtype, (size_t)part));
    }
    return PV_OK;
}

static uint64_t add_norm(uint64_t hash, const pv_norm *norm)
{
    const double *const part[] = {norm->mean, norm->std, norm->q01, norm->q99, norm->low, norm->high};
    hash = pv_fnv1a(hash, &norm->dim, sizeof norm->dim);
    hash = pv_fnv1a(pv_fnv1a(hash, &norm->mode, sizeof norm->mode), &norm->eps, sizeof norm->eps);
    for (int i = 0; i < 6; i++)
        hash =
            part[i] ? pv_fnv1a(hash, part[i], sizeof *part[i] * (size_t)norm->dim) : add_text(hash, "none");
    return hash;
}

pv_status pv_model_identity(const pv_model *m, pv_identity *out)
{
    double sample[SAMPLE]; /* as wide as any dtype */
    *out = (pv_identity){PV_FNV1A_START, 0};
    pv_status st = PV_OK;
    for (int i = 0; !st && i < m->wanted->n_tensors; i++) {
        const pv_tensor *t = m->wanted->tensors[i];
        if (t->usage == PV_WEIGHT)
            st = add_tensor(m, t->name, pv_elements(t), sample, &out->weights);
    }
    if (!st)
        st = add_tensor(m, PV_EMBEDDING_NAME, (int64_t)m->config.vocab * m->config.gemma.width, sample,
                        &out->weights);
    if (!st && m->stats) {
        out->stats = pv_fnv1a(PV_FNV1A_START, &m->rule, sizeof m->rule);
        out->stats = add_norm(add_norm(out->stats, &m->stats->state), &m->stats->actions);
    }
    return st;
}
