/* weights.c - reads each weight once, in the order of the file, several chunks at a time. */
#include "weights.h"
#include "base/memory.h"
#include "base/thread.h"
#include "plan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((int64_t)4 << 20) /* elements a thread converts at a time: 16 MiB of f32 */

typedef struct entry {
    char *name;
    pv_dtype dtype;
    bool plus_one;
    int64_t n;
    pv_buffer *buffer;
    uint64_t position;
} entry;

struct pv_weights {
    pv_backend *be;
    pv_weight_source source;
    entry *entries; /* sorted by name */
    int n_entries;
    uint64_t bytes;
};

pv_status pv_weights_create(pv_backend *be, const pv_weight_source *source, pv_weights **out)
{
    pv_weights *w = *out = pv_alloc_zero(sizeof *w);
    if (!w)
        return PV_E_MEMORY;
    w->be = be;
    w->source = *source;
    return PV_OK;
}

static void release(pv_weights *w, entry *e, int n)
{
    for (int i = 0; i < n; i++) {
        if (e[i].buffer)
            w->be->vt->release(w->be, e[i].buffer);
        pv_free(e[i].name);
    }
}

void pv_weights_destroy(pv_weights **w)
{
    if (!*w)
        return;
    release(*w, (*w)->entries, (*w)->n_entries);
    pv_free((*w)->entries);
    pv_free(*w);
    *w = NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static int by_position(const void *a, const void *b)
{
    uint64_t x = ((const entry *)a)->position, y = ((const entry *)b)->position;
    return x < y ? -1 : x > y;
}

static entry *find(const entry *e, int n, const char *name)
{
    return n ? bsearch(&(entry){.name = (char *)name}, e, (size_t)n, sizeof *e, by_name) : NULL;
}

pv_buffer *pv_weights_buffer(const pv_weights *w, const pv_tensor *t)
{
    const entry *e = w ? find(w->entries, w->n_entries, t->name) : NULL;
    return e && e->dtype == t->dtype && e->plus_one == t->plus_one && e->n == pv_elements(t) ? e->buffer : NULL;
}

uint64_t pv_weights_bytes(const pv_weights *w)
{
    return w->bytes;
}

/* ---- one chunk ---- */

typedef struct chunk {
    const entry *e;
    int64_t first, n;
} chunk;

typedef struct loading {
    pv_weights *w;
    chunk *chunks;
    void **stage; /* of each worker: raw elements, then f32 */
    int64_t most; /* elements of the largest chunk */
    pthread_mutex_t turn; /* without map chunks are written through the backend, one at a time */
    atomic_int failed;
    pv_status status;
    char words[512];
    pv_progress_fn progress;
    void *user;
    atomic_ullong done;
    uint64_t total;
} loading;

static pv_status load_chunk(loading *l, const chunk *c, void *raw, float *wide)
{
    const pv_weights *w = l->w;
    const entry *e = c->e;
    pv_dtype stored = w->source.stored_dtype(w->source.user, e->name);
    size_t at = pv_dtype_bytes(e->dtype, (size_t)c->first), bytes = pv_dtype_bytes(e->dtype, (size_t)c->n);
    char *direct = w->be->vt->map(w->be, e->buffer);
    bool convert = e->plus_one || stored != e->dtype;
    void *dst = direct ? direct + at : raw;
    pv_status st = w->source.read(w->source.user, e->name, c->first, c->n, convert ? raw : dst);
    if (!st && convert) {
        float *f = direct && e->dtype == PV_F32 ? (float *)dst : wide;
        pv_to_f32(f, raw, stored, (size_t)c->n);
        for (int64_t i = 0; e->plus_one && i < c->n; i++)
            f[i] += 1.0f;
        if (e->dtype != PV_F32)
            pv_from_f32(dst, f, e->dtype, (size_t)c->n);
        else
            dst = f;
    }
    if (st || direct)
        return st;
    pthread_mutex_lock(&l->turn);
    st = w->be->vt->write(w->be, e->buffer, at, dst, bytes);
    pthread_mutex_unlock(&l->turn);
    return st;
}

static void load_task(void *user, int64_t i, int worker)
{
    loading *l = user;
    const chunk *c = &l->chunks[i];
    if (atomic_load(&l->failed))
        return;
    char *stage = l->stage[worker];
    pv_status st = load_chunk(l, c, stage, (float *)(stage + l->most * 4));
    if (st && !atomic_exchange(&l->failed, 1)) {
        l->status = st;
        strncpy(l->words, pv_error_text(), sizeof l->words - 1);
    }
    uint64_t done = atomic_fetch_add(&l->done, pv_dtype_bytes(c->e->dtype, (size_t)c->n)) +
                    pv_dtype_bytes(c->e->dtype, (size_t)c->n);
    if (l->progress && worker == 0)
        l->progress(l->user, "weights", done, l->total);
}

static pv_status load_all(loading *l, const entry *e, int n)
{
    int64_t n_chunks = 0;
    for (int i = 0; i < n; i++) {
        n_chunks += (e[i].n + CHUNK - 1) / CHUNK;
        l->most = e[i].n > l->most ? e[i].n : l->most;
        l->total += pv_dtype_bytes(e[i].dtype, (size_t)e[i].n);
    }
    l->most = l->most < CHUNK ? l->most : CHUNK;
    pv_pool *pool = NULL;
    pv_status st = pv_pool_create(0, &pool);
    int workers = st ? 0 : pv_pool_threads(pool);
    l->chunks = pv_alloc(pv_mul_size(sizeof *l->chunks, (size_t)n_chunks));
    l->stage = pv_alloc_zero(sizeof *l->stage * (size_t)(workers + 1));
    if (!st && (!l->chunks || !l->stage))
        st = PV_E_MEMORY;
    for (int i = 0; !st && i < workers; i++)
        if (!(l->stage[i] = pv_alloc((size_t)l->most * 8)))
            st = PV_E_MEMORY;
    if (!st) {
        int64_t k = 0;
        for (int i = 0; i < n; i++)
            for (int64_t first = 0; first < e[i].n; first += CHUNK)
                l->chunks[k++] = (chunk){&e[i], first, e[i].n - first < CHUNK ? e[i].n - first : CHUNK};
        pv_pool_run(pool, n_chunks, load_task, l);
        if (l->failed)
            st = pv_fail(l->status, "%s", l->words);
        else if (l->progress)
            l->progress(l->user, "weights", l->total, l->total);
    }
    for (int i = 0; l->stage && i < workers; i++)
        pv_free(l->stage[i]);
    pv_free(l->stage);
    pv_free(l->chunks);
    pv_pool_destroy(&pool);
    return st;
}

/* ---- what is missing ---- */

static pv_status list_missing(pv_weights *w, const pv_graph *g, entry *fresh, int *n_fresh)
{
    bool *seen = pv_alloc_zero((size_t)g->n_tensors + 1);
    pv_status st = seen ? PV_OK : PV_E_MEMORY;
    for (int i = 0; !st && i < g->n_nodes; i++)
        for (int k = 0; !st && k < g->nodes[i]->n_in; k++) {
            const pv_tensor *t = g->nodes[i]->in[k];
            if (t->usage != PV_WEIGHT || seen[t->id])
                continue;
            seen[t->id] = true;
            if (pv_weights_buffer(w, t))
                continue;
            if (find(w->entries, w->n_entries, t->name)) {
                st = pv_fail(PV_E_ARG, "weight '%s' is already loaded with another dtype", t->name);
                break;
            }
            entry *e = &fresh[(*n_fresh)++];
            *e = (entry){.name = pv_strdup(t->name), .dtype = t->dtype, .plus_one = t->plus_one, .n = pv_elements(t)};
            e->position = w->source.position(w->source.user, t->name);
            st = e->name ? w->be->vt->alloc(w->be, pv_tensor_bytes(t), PV_WEIGHT, &e->buffer) : PV_E_MEMORY;
            if (st)
                st = pv_no_room(pv_fail_in(st, "weight '%s'", t->name), g, NULL);
        }
    pv_free(seen);
    return st;
}

pv_status pv_weights_load(pv_weights *w, const pv_graph *g, pv_progress_fn progress, void *user)
{
    entry *fresh = pv_alloc_zero(sizeof *fresh * (size_t)(g->n_tensors + 1));
    int n_fresh = 0;
    if (!fresh)
        return PV_E_MEMORY;
    pv_status st = list_missing(w, g, fresh, &n_fresh);
    if (!st && n_fresh) {
        qsort(fresh, (size_t)n_fresh, sizeof *fresh, by_position);
        loading l = {.w = w, .turn = PTHREAD_MUTEX_INITIALIZER, .progress = progress, .user = user};
        st = load_all(&l, fresh, n_fresh);
    }
    entry *all = st || !n_fresh ? NULL : pv_alloc(sizeof *all * (size_t)(w->n_entries + n_fresh));
    if (all) {
        if (w->n_entries)
            memcpy(all, w->entries, sizeof *all * (size_t)w->n_entries);
        memcpy(all + w->n_entries, fresh, sizeof *all * (size_t)n_fresh);
        for (int i = 0; i < n_fresh; i++)
            w->bytes += pv_dtype_bytes(fresh[i].dtype, (size_t)fresh[i].n);
        pv_free(w->entries);
        w->entries = all;
        w->n_entries += n_fresh;
        qsort(all, (size_t)w->n_entries, sizeof *all, by_name);
    } else {
        if (!st && n_fresh)
            st = PV_E_MEMORY;
        release(w, fresh, n_fresh);
    }
    pv_free(fresh);
    return st;
}
