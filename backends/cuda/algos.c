/* algos.c - see algos.h. The file: head, entries, and the FNV-1a sum of all that stands before it; numbers as this machine has
 * them, which the magic tells from another's. */
#include "algos.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x31676c4176506956u /* and the version of this format */

typedef struct head {
    uint64_t magic;
    uint32_t n, entry_bytes;
    char key[ALGOS_KEY];
} head;

/* ---- entries ---- */

static int find(const algos *a, const int64_t shape[8])
{
    for (int i = 0; i < a->n; i++)
        if (!memcmp(a->entry[i].shape, shape, sizeof a->entry[i].shape))
            return i;
    return -1;
}

const uint64_t *algos_find(const algos *a, const int64_t shape[8])
{
    int i = find(a, shape);
    return i < 0 ? NULL : a->entry[i].algo;
}

/* Room for one more; false: there is none, and the entry is not kept. */
static bool grow(algos *a)
{
    if (a->n < a->cap)
        return true;
    int cap = a->cap ? 2 * a->cap : 32;
    algos_entry *more = pv_alloc(sizeof *more * (size_t)cap);
    if (!more)
        return false;
    if (a->n)
        memcpy(more, a->entry, sizeof *more * (size_t)a->n);
    pv_free(a->entry);
    a->entry = more;
    a->cap = cap;
    return true;
}

void algos_put(algos *a, const int64_t shape[8], const uint64_t algo[8])
{
    int i = find(a, shape);
    if (i < 0 && a->n == ALGOS_MOST) { /* the oldest makes room */
        memmove(a->entry, a->entry + 1, sizeof *a->entry * (size_t)(a->n - 1));
        i = a->n - 1;
    } else if (i < 0 && grow(a)) {
        i = a->n++;
    }
    if (i < 0)
        return;
    memcpy(a->entry[i].shape, shape, sizeof a->entry[i].shape);
    memcpy(a->entry[i].algo, algo, sizeof a->entry[i].algo);
    a->dirty = true;
}

/* ---- bytes ---- */

const char *algos_parse(algos *a, const void *bytes, size_t n)
{
    head h;
    uint64_t want;
    if (n < sizeof h + sizeof want)
        return "too short";
    memcpy(&h, bytes, sizeof h);
    if (h.magic != MAGIC || h.entry_bytes != sizeof(algos_entry))
        return "not a file of this version";
    if (h.n > ALGOS_MOST || n != sizeof h + h.n * sizeof(algos_entry) + sizeof want)
        return "a length that does not fit";
    memcpy(&want, (const char *)bytes + n - sizeof want, sizeof want);
    if (pv_kept_sum(bytes, n - sizeof want) != want)
        return "damaged";
    if (memcmp(h.key, a->key, sizeof h.key))
        return "of another device, driver or library";
    bool dirty = a->dirty;
    for (uint32_t i = 0; i < h.n; i++) {
        algos_entry e;
        memcpy(&e, (const char *)bytes + sizeof h + i * sizeof e, sizeof e);
        if (a->n < ALGOS_MOST && find(a, e.shape) < 0)
            algos_put(a, e.shape, e.algo);
    }
    a->dirty = dirty;
    return NULL;
}

void *algos_print(const algos *a, size_t *n)
{
    head h = {MAGIC, (uint32_t)a->n, sizeof(algos_entry), {0}};
    size_t entries = sizeof(algos_entry) * (size_t)a->n;
    memcpy(h.key, a->key, sizeof h.key);
    *n = sizeof h + entries + sizeof(uint64_t);
    char *bytes = pv_alloc(*n);
    if (!bytes)
        return NULL;
    memcpy(bytes, &h, sizeof h);
    if (entries)
        memcpy(bytes + sizeof h, a->entry, entries);
    uint64_t s = pv_kept_sum(bytes, sizeof h + entries);
    memcpy(bytes + sizeof h + entries, &s, sizeof s);
    return bytes;
}

/* ---- the file ---- */

static void load(algos *a)
{
    size_t n = 0;
    const char *wrong;
    void *bytes = pv_kept_read(a->path, ALGOS_FILE_MOST, &n, &wrong);
    if (bytes)
        wrong = algos_parse(a, bytes, n);
    if (wrong)
        pv_log(PV_LOG_WARN, "%s: %s; it will be made anew", a->path, wrong);
    if (wrong)
        a->dirty = true;
    pv_free(bytes);
}

void algos_open(algos *a, const char *folder, const char *key)
{
    *a = (algos){.n = 0};
    snprintf(a->key, sizeof a->key, "%s", key);
    if (!folder || !*folder)
        return;
    int n = snprintf(a->path, sizeof a->path, "%s/cublaslt-%016llx.algos", folder,
                     (unsigned long long)pv_kept_sum(a->key, strlen(a->key)));
    if (n < 0 || (size_t)n >= sizeof a->path - 32) /* of which a file beside it takes some */
        *a->path = 0;
    else
        load(a);
}

void algos_close(algos *a)
{
    pv_free(a->entry);
    *a = (algos){.n = 0};
}

void algos_save(algos *a)
{
    if (!*a->path || !a->dirty)
        return;
    size_t n = 0;
    const char *wrong;
    void *there = pv_kept_read(a->path, ALGOS_FILE_MOST, &n, &wrong);
    if (there)
        algos_parse(a, there, n);
    pv_free(there);
    void *bytes = algos_print(a, &n);
    if (!bytes || !pv_kept_replace(a->path, bytes, n))
        pv_log(PV_LOG_INFO, "%s cannot be written: %s; products are timed anew in the next process", a->path,
               bytes ? strerror(errno) : "out of memory");
    pv_free(bytes);
    a->dirty = false;
}
