/* synth_weights.c - see synth_weights.h. All cores make numbers, one writes them. */
#include "synth_weights.h"
#include "base/arena.h"
#include "base/memory.h"
#include "base/thread.h"
#include "io/safetensors.h"
#include "model/pi05.h"
#include "model/synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((int64_t)1 << 16) /* elements a thread makes at a time */
#define CHUNK (128 * PIECE)      /* elements written at a time */

typedef struct tensor {
    const char *name;   /* in the file */
    const char *origin; /* the model's: its values are hashed from it */
    int n_dims;
    int64_t dim[4], n, fan_in;
    int shard;
} tensor;

typedef struct list {
    pv_arena arena;
    tensor *t;
    int n;
    uint64_t bytes;
} list;

/* ---- which tensors ---- */

static pv_status add(list *l, const synth_weights_params *p, const char *origin, int n_dims,
                     const int64_t *dim)
{
    bool table = !strcmp(origin, PV_EMBEDDING_NAME);
    const char *name = table && !p->lerobot ? PV_LM_HEAD_NAME : origin;
    tensor *t = &l->t[l->n++];
    *t = (tensor){.n_dims = n_dims, .n = 1, .fan_in = 1};
    t->name = pv_arena_printf(&l->arena, "%s%s", p->lerobot ? "model." : "", name);
    t->origin = pv_arena_printf(&l->arena, "%s", origin);
    memcpy(t->dim, dim, sizeof *dim * (size_t)n_dims);
    if (strstr(origin, "patch_embedding.weight")) { /* a convolution in the file */
        t->n_dims = 4;
        t->dim[1] = 3;
        t->dim[2] = t->dim[3] = p->config->vision.patch;
    }
    for (int i = 0; i < t->n_dims; i++) {
        t->n *= t->dim[i];
        t->fan_in *= i ? t->dim[i] : 1;
    }
    l->bytes += pv_dtype_bytes(p->dtype, (size_t)t->n);
    return t->name && t->origin ? PV_OK : PV_E_MEMORY;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tensor *)a)->name, ((const tensor *)b)->name);
}

static void forget(list *l)
{
    pv_arena_free(&l->arena);
    pv_free(l->t);
}

static pv_status make_list(list *l, const synth_weights_params *p)
{
    *l = (list){.n = 0};
    pv_graph *g = pv_graph_create();
    if (!g)
        return PV_E_MEMORY;
    pv_pi05_build(g, p->config, &(pv_pi05_shape){.views = 1, .tokens = 1});
    pv_status st = pv_graph_status(g);
    if (!st && !(l->t = pv_alloc(sizeof *l->t * (size_t)(g->n_tensors + 1))))
        st = PV_E_MEMORY;
    if (!st)
        st = add(l, p, PV_EMBEDDING_NAME, 2, (int64_t[]){p->config->vocab, p->config->gemma.width});
    for (int i = 0; !st && i < g->n_tensors; i++)
        if (g->tensors[i]->usage == PV_WEIGHT)
            st = add(l, p, g->tensors[i]->name, g->tensors[i]->n_dims, g->tensors[i]->dim);
    pv_graph_destroy(&g);
    if (st) {
        forget(l);
        return st;
    }
    qsort(l->t, (size_t)l->n, sizeof *l->t, by_name);
    uint64_t at = 0;
    for (int i = 0; i < l->n; i++) { /* shards of about the same size */
        l->t[i].shard = (int)((double)at / (double)l->bytes * p->shards);
        at += pv_dtype_bytes(p->dtype, (size_t)l->t[i].n);
    }
    int used = 0; /* a large tensor may have jumped over one: number those that are there */
    for (int i = 0, last = l->t[0].shard; i < l->n; i++) {
        used += l->t[i].shard != last;
        last = l->t[i].shard;
        l->t[i].shard = used;
    }
    return PV_OK;
}

pv_status synth_weights_bytes(const synth_weights_params *p, uint64_t *bytes)
{
    list l;
    pv_status st = make_list(&l, p);
    if (st)
        return st;
    *bytes = l.bytes;
    forget(&l);
    return PV_OK;
}

/* ---- their values ---- */

typedef struct work {
    const tensor *t;
    int64_t first, n;
    pv_dtype dtype;
    char *out;
} work;

static void make_piece(void *user, int64_t i, int worker)
{
    const work *w = user;
    int64_t at = i * PIECE, n = w->n - at < PIECE ? w->n - at : PIECE;
    uint16_t bits[4096];
    (void)worker;
    for (int64_t k = 0; k < n; k += 4096) {
        int64_t part = n - k < 4096 ? n - k : 4096;
        char *out = w->out + pv_dtype_bytes(w->dtype, (size_t)(at + k));
        pv_synthetic_weights(w->t->origin, w->t->n_dims, w->t->fan_in, w->first + at + k, part, bits);
        if (w->dtype == PV_BF16)
            memcpy(out, bits, sizeof *bits * (size_t)part);
        else
            pv_to_f32((float *)(void *)out, bits, PV_BF16, (size_t)part);
    }
}

typedef struct writing {
    const synth_weights_params *p;
    const list *l;
    pv_pool *pool;
    char *chunk;
    uint64_t done;
} writing;

static pv_status write_tensor(writing *w, pv_st_writer *out, const tensor *t)
{
    pv_status st = PV_OK;
    for (int64_t first = 0; !st && first < t->n; first += CHUNK) {
        int64_t n = t->n - first < CHUNK ? t->n - first : CHUNK;
        size_t bytes = pv_dtype_bytes(w->p->dtype, (size_t)n);
        pv_pool_run(w->pool, (n + PIECE - 1) / PIECE, make_piece,
                    &(work){t, first, n, w->p->dtype, w->chunk});
        st = pv_st_writer_data(out, w->chunk, bytes);
        w->done += bytes;
        if (w->p->progress)
            w->p->progress(w->p->user, "weights", w->done, w->l->bytes);
        if (!st && w->p->stopped && w->p->stopped())
            st = pv_fail(PV_E_FILE, "stopped while the weights were written");
    }
    return st;
}

static pv_status write_shard(writing *w, const char *path, int shard)
{
    pv_st_writer *out = NULL;
    pv_status st = pv_st_writer_begin(path, &out);
    if (st)
        return st;
    st = pv_st_writer_metadata(out, "format", "pt");
    for (int i = 0; !st && i < w->l->n; i++) {
        const tensor *t = &w->l->t[i];
        if (t->shard != shard)
            continue;
        st = pv_st_writer_declare(out, t->name, w->p->dtype, t->n_dims, t->dim);
        if (!st &&
            !strcmp(t->name, PV_LM_HEAD_NAME)) /* as safetensors notes a tied tensor that it left out */
            st = pv_st_writer_metadata(out, PV_EMBEDDING_NAME, PV_LM_HEAD_NAME);
    }
    for (int i = 0; !st && i < w->l->n; i++)
        if (w->l->t[i].shard == shard)
            st = write_tensor(w, out, &w->l->t[i]);
    if (!st)
        return pv_st_writer_end(&out);
    pv_st_writer_abort(&out);
    return st;
}

static const char *shard_name(pv_arena *arena, int shard, int shards)
{
    if (shards == 1)
        return "model.safetensors";
    return pv_arena_printf(arena, "model-%05d-of-%05d.safetensors", shard + 1, shards);
}

static pv_status write_index(const list *l, const char *path, int shards, pv_arena *arena)
{
    cJSON *json = cJSON_CreateObject(), *meta = cJSON_AddObjectToObject(json, "metadata");
    bool whole = cJSON_AddNumberToObject(meta, "total_size", (double)l->bytes) != NULL;
    cJSON *map = cJSON_AddObjectToObject(json, "weight_map");
    for (int i = 0; i < l->n; i++) {
        const char *name = shard_name(arena, l->t[i].shard, shards);
        whole = whole && name && cJSON_AddStringToObject(map, l->t[i].name, name);
    }
    char *text = whole ? cJSON_Print(json) : NULL;
    pv_status st =
        text ? pv_file_write(path, text, strlen(text)) : pv_fail(PV_E_MEMORY, "%s: out of memory", path);
    cJSON_free(text);
    cJSON_Delete(json);
    return st;
}

pv_status synth_weights_write(const char *folder, const synth_weights_params *p)
{
    list l;
    pv_status st = make_list(&l, p);
    if (st)
        return st;
    writing w = {.p = p, .l = &l};
    int shards = l.t[l.n - 1].shard + 1;
    w.chunk = pv_alloc(pv_dtype_bytes(p->dtype, (size_t)CHUNK));
    st = w.chunk ? pv_pool_create(0, &w.pool) : PV_E_MEMORY;
    for (int i = 0; !st && i < shards; i++) {
        const char *name = shard_name(&l.arena, i, shards);
        const char *path = name ? pv_arena_printf(&l.arena, "%s/%s", folder, name) : NULL;
        st = path ? write_shard(&w, path, i) : PV_E_MEMORY;
    }
    if (!st && shards > 1) {
        const char *path = pv_arena_printf(&l.arena, "%s/model.safetensors.index.json", folder);
        st = path ? write_index(&l, path, shards, &l.arena) : PV_E_MEMORY;
    }
    pv_pool_destroy(&w.pool);
    pv_free(w.chunk);
    forget(&l);
    return st;
}
