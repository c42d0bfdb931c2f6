/* checkpoint.c - names as published -> names as the model has them; nothing missing, nothing left over. */
#include "checkpoint.h"
#include "base/memory.h"
#include "pi05.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPERT_LM_HEAD "paligemma_with_expert.gemma_expert.lm_head.weight"
#define VISION_TOWER   "paligemma_with_expert.paligemma.model.vision_tower."
#define PATCH_EMBEDDING VISION_TOWER "vision_model.embeddings.patch_embedding.weight"

typedef struct entry {
    char *name; /* the model's */
    const pv_st_tensor *tensor;
    int index; /* of the tensor in the file */
} entry;

struct pv_checkpoint {
    pv_safetensors *file;
    entry *entries; /* by name: what the model reads */
    int n_entries;
    const char **fate; /* of each file tensor */
};

/* ---- names ---- */

static const char *after(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) ? NULL : name + n;
}

/* Written by transformers before 4.52, which had no `.model.` above the parts of PaliGemma. */
static const char *const old_layouts[][2] = {
    {"paligemma_with_expert.paligemma.language_model.lm_head.", "paligemma_with_expert.paligemma.lm_head."},
    {"paligemma_with_expert.paligemma.language_model.model.", "paligemma_with_expert.paligemma.model.language_model."},
    {"paligemma_with_expert.paligemma.vision_tower.", VISION_TOWER},
    {"paligemma_with_expert.paligemma.multi_modal_projector.",
     "paligemma_with_expert.paligemma.model.multi_modal_projector."},
};

const char *pv_checkpoint_name(const char *name, char *text, size_t size)
{
    const char *rest = after(name, "model."), *tail;
    if (rest && (after(rest, "paligemma_with_expert.") || after(rest, "action_") || after(rest, "time_") ||
                 after(rest, "state_proj") || after(rest, "proprio_")))
        name = rest; /* lerobot saves the policy's module under `model` */
    const char *head = "";
    for (size_t i = 0; i < sizeof old_layouts / sizeof *old_layouts; i++)
        if ((tail = after(name, old_layouts[i][0]))) {
            head = old_layouts[i][1];
            name = tail;
            break;
        }
    int n = snprintf(text, size, "%s%s", head, name);
    if (n < 0 || (size_t)n >= size)
        return NULL;
    tail = after(text, VISION_TOWER);
    if (tail && !after(tail, "vision_model.")) { /* one converter leaves this level out */
        char part[256];
        if ((size_t)snprintf(part, sizeof part, "%s", tail) >= sizeof part)
            return NULL;
        n = snprintf(text, size, VISION_TOWER "vision_model.%s", part);
        if (n < 0 || (size_t)n >= size)
            return NULL;
    }
    return text;
}

/* Names that show what this file is instead of a Pi0.5 policy. */
static pv_status check_kind(const char *path, const char *file_name, const char *name)
{
    if (strstr(name, "lora") || after(file_name, "base_model."))
        return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s': this is an adapter; merge it into its base model first", path,
                       file_name);
    if (after(name, "proprio_history_proj"))
        return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s': proprioceptive history is not supported", path, file_name);
    const char *expert = after(name, "paligemma_with_expert.gemma_expert.model.layers.");
    if (after(name, "state_proj") || after(name, "action_time_mlp") ||
        (expert && (strstr(expert, "input_layernorm.weight") || strstr(expert, "post_attention_layernorm.weight"))))
        return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s': this is a pi0 checkpoint, expected pi0.5 (adaRMS expert)", path,
                       file_name);
    return PV_OK;
}

/* ---- matching ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static const entry *find(const pv_checkpoint *c, const char *name)
{
    return c->n_entries ? bsearch(&(entry){.name = (char *)name}, c->entries, (size_t)c->n_entries, sizeof *c->entries,
                                  by_name)
                        : NULL;
}

/* The shape in the file of a weight of the model: the patch convolution [width, 3, patch, patch] is a linear
 * [width, 3 patch patch] here. */
static int file_shape(const char *name, int n_dims, const int64_t *dim, int64_t shape[4])
{
    for (int i = 0; i < n_dims; i++)
        shape[i] = dim[i];
    if (strcmp(name, PATCH_EMBEDDING))
        return n_dims;
    shape[1] = 3;
    shape[2] = shape[3] = (int64_t)lround(sqrt((double)dim[1] / 3));
    return 4;
}

static void shape_text(int n_dims, const int64_t *dim, char *text, size_t size)
{
    *text = 0;
    for (int i = 0; i < n_dims; i++) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)dim[i]);
    }
}

/* What a file has that the model has not, to go with what is missing: often one name written in two ways. */
static pv_status missing(const pv_checkpoint *c, const char *path, const char *name)
{
    for (int i = 0, n = pv_safetensors_count(c->file); i < n; i++)
        if (!c->fate[i])
            return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s' is missing; of %d tensors there, '%s' is none of the model's",
                           path, name, n, pv_safetensors_at(c->file, i)->name);
    return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s' is missing; %d tensors are there", path, name,
                   pv_safetensors_count(c->file));
}

/* t: the file's; name, n_dims, dim: the model's. */
static pv_status check_tensor(const char *path, const pv_st_tensor *t, const char *name, int n_dims, const int64_t *dim)
{
    if (t->dtype != PV_F32 && t->dtype != PV_BF16 && t->dtype != PV_F16)
        return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s': expected F32, BF16 or F16, came %s", path, t->name, t->dtype_name);
    int64_t shape[4];
    int n = file_shape(name, n_dims, dim, shape);
    if (t->n_dims == n && !memcmp(t->dim, shape, sizeof *shape * (size_t)n))
        return PV_OK;
    char expected[24 * 4], came[24 * PV_ST_MAX_DIMS];
    shape_text(n, shape, expected, sizeof expected);
    shape_text(t->n_dims, t->dim, came, sizeof came);
    return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s': expected shape [%s], came [%s]", path, t->name, expected, came);
}

static pv_status collect(pv_checkpoint *c, const char *path)
{
    int n = pv_safetensors_count(c->file);
    c->entries = pv_alloc_zero(sizeof *c->entries * (size_t)(n + 1));
    c->fate = pv_alloc_zero(sizeof *c->fate * (size_t)(n + 1));
    if (!c->entries || !c->fate)
        return PV_E_MEMORY;
    for (int i = 0; i < n; i++) {
        const pv_st_tensor *t = pv_safetensors_at(c->file, i);
        char text[512];
        const char *name = pv_checkpoint_name(t->name, text, sizeof text);
        if (!name)
            return pv_fail(PV_E_CHECKPOINT, "%s: tensor '%.80s...': a name of this length is none of the model's", path,
                           t->name);
        pv_status st = check_kind(path, t->name, name);
        if (st)
            return st;
        if (!strcmp(name, EXPERT_LM_HEAD)) {
            c->fate[i] = "not read: the expert's language head";
            continue;
        }
        c->entries[c->n_entries] = (entry){pv_strdup(name), t, i};
        if (!c->entries[c->n_entries++].name)
            return PV_E_MEMORY;
    }
    qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, by_name);
    for (int i = 1; i < c->n_entries; i++)
        if (!strcmp(c->entries[i - 1].name, c->entries[i].name))
            return pv_fail(PV_E_CHECKPOINT, "%s: '%s' and '%s' are the same tensor of the model", path,
                           c->entries[i - 1].tensor->name, c->entries[i].tensor->name);
    return PV_OK;
}

/* The exporter ties the table to the language head and keeps one name of the two. Where both are there, only
 * embed_tokens was trained. */
static pv_status choose_embedding(pv_checkpoint *c)
{
    const entry *head = find(c, PV_LM_HEAD_NAME), *table = find(c, PV_EMBEDDING_NAME);
    if (table && head)
        c->fate[head->index] = "not read: embed_tokens stands in its place";
    else if (head) { /* the model knows it by the table's name */
        entry *e = (entry *)head;
        char *name = pv_strdup(PV_EMBEDDING_NAME);
        if (!name)
            return PV_E_MEMORY;
        pv_free(e->name);
        e->name = name;
        qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, by_name);
        table = find(c, PV_EMBEDDING_NAME);
    }
    if (table)
        c->fate[table->index] = "embedding table";
    return PV_OK;
}

static pv_status match(pv_checkpoint *c, const char *path, const pv_graph *wanted, int64_t vocab, int64_t width)
{
    for (int i = 0; i < wanted->n_tensors; i++) {
        const entry *e = wanted->tensors[i]->usage == PV_WEIGHT ? find(c, wanted->tensors[i]->name) : NULL;
        if (e)
            c->fate[e->index] = "weight";
    }
    const entry *e = find(c, PV_EMBEDDING_NAME);
    pv_status st = e ? check_tensor(path, e->tensor, e->name, 2, (int64_t[]){vocab, width})
                     : missing(c, path, PV_LM_HEAD_NAME " or " PV_EMBEDDING_NAME);
    for (int i = 0; !st && i < wanted->n_tensors; i++) {
        const pv_tensor *w = wanted->tensors[i];
        if (w->usage != PV_WEIGHT)
            continue;
        e = find(c, w->name);
        st = e ? check_tensor(path, e->tensor, w->name, w->n_dims, w->dim) : missing(c, path, w->name);
    }
    for (int i = 0, n = pv_safetensors_count(c->file); !st && i < n; i++)
        if (!c->fate[i])
            st = pv_fail(PV_E_CHECKPOINT, "%s: tensor '%s' is none of the model's", path,
                         pv_safetensors_at(c->file, i)->name);
    return st;
}

pv_status pv_checkpoint_open(const char *path, const pv_graph *wanted, int64_t vocab, int64_t width, pv_checkpoint **out)
{
    *out = NULL;
    pv_checkpoint *c = pv_alloc_zero(sizeof *c);
    if (!c)
        return PV_E_MEMORY;
    pv_status st = pv_safetensors_open(path, &c->file);
    if (!st)
        st = collect(c, path);
    if (!st)
        st = choose_embedding(c);
    if (!st)
        st = match(c, path, wanted, vocab, width);
    if (st)
        pv_checkpoint_close(&c);
    *out = c;
    return st;
}

void pv_checkpoint_close(pv_checkpoint **checkpoint)
{
    pv_checkpoint *c = *checkpoint;
    if (!c)
        return;
    for (int i = 0; i < c->n_entries; i++)
        pv_free(c->entries[i].name);
    pv_free(c->entries);
    pv_free(c->fate);
    pv_safetensors_close(&c->file);
    pv_free(c);
    *checkpoint = NULL;
}

const char *pv_checkpoint_fate(const pv_checkpoint *c, int i, const pv_st_tensor **tensor)
{
    if (i < 0 || i >= pv_safetensors_count(c->file))
        return NULL;
    *tensor = pv_safetensors_at(c->file, i);
    return c->fate[i];
}

/* ---- as a source of weights ---- */

static pv_status read_elements(const void *user, const char *name, int64_t first, int64_t n, void *dst)
{
    const pv_checkpoint *c = user;
    const entry *e = find(c, name);
    return e ? pv_safetensors_read(c->file, e->tensor, first, n, dst)
             : pv_fail(PV_E_CHECKPOINT, "tensor '%s' is missing", name);
}

static pv_dtype stored_dtype(const void *user, const char *name)
{
    const entry *e = find(user, name);
    return e ? e->tensor->dtype : PV_F32;
}

static uint64_t position(const void *user, const char *name)
{
    const entry *e = find(user, name);
    return e ? ((uint64_t)e->tensor->shard << 48) + e->tensor->offset : 0;
}

pv_weight_source pv_checkpoint_source(const pv_checkpoint *c)
{
    return (pv_weight_source){c, read_elements, stored_dtype, position};
}
