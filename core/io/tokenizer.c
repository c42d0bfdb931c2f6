/* tokenizer.c - pv_tokenizer on libsentencepiece, or the words that say it is not there. */
#include "tokenizer.h"

#ifdef PV_HAVE_SENTENCEPIECE

#include "base/memory.h"
#include "json.h"
#include "sentencepiece.h"

#define MAX_MODEL_BYTES ((size_t)64 << 20)
#define MAX_TEXT_BYTES  ((size_t)1 << 20)

struct pv_tokenizer {
    pv_sp *sp;
    int vocab, bos;
};

pv_status pv_tokenizer_load(const char *path, pv_tokenizer **out)
{
    char *data = NULL;
    size_t n = 0;
    *out = NULL;
    pv_status st = pv_file_read(path, MAX_MODEL_BYTES, &data, &n);
    if (!st)
        st = pv_tokenizer_parse(data, n, path, out);
    pv_free(data);
    return st;
}

pv_status pv_tokenizer_parse(const void *data, size_t n, const char *where, pv_tokenizer **out)
{
    *out = NULL;
    if (n > MAX_MODEL_BYTES)
        return pv_fail(PV_E_FILE, "%s: a tokenizer of %zu bytes, expected at most %zu", where, n,
                       MAX_MODEL_BYTES);
    pv_status st = pv_sp_check(data, n, where);
    if (st)
        return st;
    pv_tokenizer *t = pv_alloc_zero(sizeof *t);
    if (!t)
        return PV_E_MEMORY;
    st = pv_sp_create(data, n, where, &t->sp);
    if (!st) {
        t->vocab = pv_sp_vocab(t->sp);
        t->bos = pv_sp_bos(t->sp);
        if (t->bos < 0 || t->bos >= t->vocab)
            st = pv_fail(PV_E_FILE, "%s: expected a BOS piece among the %d of the vocabulary, came id %d",
                         where, t->vocab, t->bos);
    }
    if (st)
        pv_tokenizer_free(&t);
    *out = t;
    return st;
}

void pv_tokenizer_free(pv_tokenizer **t)
{
    if (*t)
        pv_sp_destroy((*t)->sp);
    pv_free(*t);
    *t = NULL;
}

int pv_tokenizer_vocab(const pv_tokenizer *t)
{
    return t->vocab;
}

int pv_tokenizer_bos(const pv_tokenizer *t)
{
    return t->bos;
}

pv_status pv_tokenizer_encode(const pv_tokenizer *t, const char *text, size_t n, int32_t *ids, int capacity,
                              int *n_ids)
{
    if (n > MAX_TEXT_BYTES)
        return pv_fail(PV_E_ARG, "tokenizer: a text of %zu bytes, expected at most %zu", n, MAX_TEXT_BYTES);
    return pv_sp_encode(t->sp, text, n, ids, capacity, n_ids);
}

#else

static pv_status absent(const char *where)
{
    return pv_fail(
        PV_E_UNSUPPORTED,
        "%s: this build has no tokenizer (libsentencepiece was absent); pass token ids in place of text",
        where);
}

pv_status pv_tokenizer_load(const char *path, pv_tokenizer **out)
{
    *out = NULL;
    return absent(path);
}

pv_status pv_tokenizer_parse(const void *data, size_t n, const char *where, pv_tokenizer **out)
{
    (void)data, (void)n;
    *out = NULL;
    return absent(where);
}

void pv_tokenizer_free(pv_tokenizer **t)
{
    *t = NULL; /* none was ever made */
}

int pv_tokenizer_vocab(const pv_tokenizer *t)
{
    (void)t;
    return 0;
}

int pv_tokenizer_bos(const pv_tokenizer *t)
{
    (void)t;
    return -1;
}

pv_status pv_tokenizer_encode(const pv_tokenizer *t, const char *text, size_t n, int32_t *ids, int capacity,
                              int *n_ids)
{
    (void)t, (void)text, (void)n, (void)ids, (void)capacity, (void)n_ids;
    return absent("tokenizer");
}

#endif
