/* safetensors_write.c - writing tensors to a file, in pieces. Rules: safetensors.h.
 *
 * The header grows as text while tensors are declared and is written when the first data comes. Before that
 * it is read back with pv_safetensors_parse: whatever the reader refuses (names twice, names that are no
 * UTF-8, too many tensors) is then refused here, and no rule stands in two places. After a failure only the
 * failure is repeated, until `end` or `abort`. */
#include "base/memory.h"
#include "file.h"
#include "safetensors.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef unsigned long long ull;

typedef struct text { /* grows at the end */
    char *p;
    size_t n, room;
} text;

struct pv_st_writer {
    pv_file_out file;
    text meta, header;
    uint64_t declared, given; /* bytes of data */
    bool started;             /* the header is written */
    pv_status failed;
    char *why;
};

static pv_status reserve(text *t, size_t more)
{
    if (t->room - t->n > more)
        return PV_OK;
    size_t room = t->room * 2 > t->n + more + 1 ? t->room * 2 : t->n + more + 256;
    char *p = pv_alloc(room);
    if (!p)
        return PV_E_MEMORY;
    if (t->n)
        memcpy(p, t->p, t->n);
    pv_free(t->p);
    t->p = p;
    t->room = room;
    return PV_OK;
}

static pv_status PV_PRINTF(2, 3) add(text *t, const char *fmt, ...)
{
    char piece[64];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    pv_status st = reserve(t, (size_t)n);
    if (st)
        return st;
    memcpy(t->p + t->n, piece, (size_t)n);
    t->n += (size_t)n;
    return PV_OK;
}

static pv_status add_string(text *t, const char *s)
{
    pv_status st = reserve(t, pv_mul_size(strlen(s), 6) + 2); /* \u001f is the longest a byte can become */
    if (st)
        return st;
    char *p = t->p + t->n;
    *p++ = '"';
    for (; *s; s++) {
        if ((unsigned char)*s < ' ') {
            p += snprintf(p, 7, "\\u%04x", (unsigned)*s);
        } else {
            if (*s == '"' || *s == '\\')
                *p++ = '\\';
            *p++ = *s;
        }
    }
    *p++ = '"';
    t->n = (size_t)(p - t->p);
    return PV_OK;
}

/* Keeps the first failure: data that follows it must not make a file that looks whole. */
static pv_status fail(pv_st_writer *w, pv_status status)
{
    if (status && !w->failed) {
        w->failed = status;
        w->why = pv_strdup(pv_error_text());
    }
    return status;
}

static pv_status failed(const pv_st_writer *w)
{
    return w->failed ? pv_fail(w->failed, "%s", w->why ? w->why : "writing failed before") : PV_OK;
}

pv_status pv_st_writer_begin(const char *path, pv_st_writer **out)
{
    *out = NULL;
    pv_st_writer *w = pv_alloc_zero(sizeof *w);
    if (!w)
        return PV_E_MEMORY;
    pv_status st = pv_file_out_begin(&w->file, path);
    if (st) {
        pv_free(w);
        return st;
    }
    *out = w;
    return PV_OK;
}

static pv_status may_declare(const pv_st_writer *w, const char *what)
{
    pv_status st = failed(w);
    if (!st && w->started)
        st = pv_fail(PV_E_ARG, "%s: '%.200s' comes too late: data was given already", w->file.path, what);
    return st;
}

pv_status pv_st_writer_metadata(pv_st_writer *w, const char *key, const char *value)
{
    pv_status st = may_declare(w, key);
    if (st)
        return st;
    st = add(&w->meta, "%s", w->meta.n ? "," : "");
    if (!st)
        st = add_string(&w->meta, key);
    if (!st)
        st = add(&w->meta, ":");
    if (!st)
        st = add_string(&w->meta, value);
    return fail(w, st);
}

static const char *spelling(pv_dtype dtype)
{
    static const char *const names[PV_DTYPE_COUNT] = {
        [PV_F32] = "F32", [PV_BF16] = "BF16", [PV_F16] = "F16", [PV_I32] = "I32", [PV_U8] = "U8"};
    return (unsigned)dtype < PV_DTYPE_COUNT ? names[dtype] : NULL;
}

pv_status pv_st_writer_declare(pv_st_writer *w, const char *name, pv_dtype dtype, int n_dims,
                               const int64_t *dim)
{
    pv_status st = may_declare(w, name);
    const char *type = spelling(dtype);
    if (!st && !type)
        return fail(w, pv_fail(PV_E_ARG,
                               "%s: tensor '%.200s': %s cannot be written, only f32, bf16, f16, i32, u8",
                               w->file.path, name, pv_dtype_name(dtype)));
    return st ? st : pv_st_writer_declare_as(w, name, type, n_dims, dim);
}

pv_status pv_st_writer_declare_as(pv_st_writer *w, const char *name, const char *type, int n_dims,
                                  const int64_t *dim)
{
    pv_status st = may_declare(w, name);
    if (st)
        return st;
    const char *path = w->file.path;
    uint64_t bits = (uint64_t)pv_safetensors_bits(type), elements = 1;
    if (!bits)
        return fail(w, pv_fail(PV_E_ARG, "%s: tensor '%.200s': files have no dtype '%s'", path, name, type));
    if (n_dims < 0 || n_dims > PV_ST_MAX_DIMS)
        return fail(w, pv_fail(PV_E_ARG, "%s: tensor '%.200s': %d dims, expected 0..%d", path, name, n_dims,
                               PV_ST_MAX_DIMS));
    for (int i = 0; i < n_dims; i++) {
        if (dim[i] < 0)
            return fail(w,
                        pv_fail(PV_E_ARG, "%s: tensor '%.200s': dim %d is %" PRId64, path, name, i, dim[i]));
        if (dim[i] && elements * bits / 8 > (((uint64_t)1 << 53) - w->declared) / (uint64_t)dim[i])
            return fail(w,
                        pv_fail(PV_E_ARG, "%s: tensor '%.200s': the data would pass 2^53 bytes", path, name));
        elements *= (uint64_t)dim[i];
    }
    const uint64_t bytes =
        elements * bits / 8; /* what does not fill bytes is refused when the header is read back */
    st = add(&w->header, "%s", w->header.n ? "," : "");
    if (!st)
        st = add_string(&w->header, name);
    if (!st)
        st = add(&w->header, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int i = 0; i < n_dims && !st; i++)
        st = add(&w->header, "%s%" PRId64, i ? "," : "", dim[i]);
    if (!st)
        st = add(&w->header, "],\"data_offsets\":");
    if (!st)
        st = add(&w->header, "[%llu,%llu]}", (ull)w->declared, (ull)(w->declared + bytes));
    w->declared += bytes;
    return fail(w, st);
}

static pv_status start(pv_st_writer *w)
{
    text h = {0};
    unsigned char length[8];
    pv_safetensors *back = NULL;
    pv_status st = reserve(&h, w->meta.n + w->header.n + 64);
    if (!st && w->meta.n) {
        st = add(&h, "{\"__metadata__\":{");
        memcpy(h.p + h.n, w->meta.p, w->meta.n);
        h.n += w->meta.n;
        h.n += (size_t)snprintf(h.p + h.n, 4, w->header.n ? "}," : "}");
    } else if (!st) {
        st = add(&h, "{");
    }
    if (!st) {
        if (w->header.n)
            memcpy(h.p + h.n, w->header.p, w->header.n);
        h.n += w->header.n;
        st = add(&h, "}");
    }
    while (!st && h.n % 8) /* the data begins at a multiple of 8 */
        st = add(&h, " ");
    if (!st) {
        st = pv_safetensors_parse(h.p, h.n, 8 + (uint64_t)h.n + w->declared, w->file.path, &back);
        if (st == PV_E_FILE) /* no fault of a file, then, but of what was declared */
            st = PV_E_ARG;
    }
    pv_safetensors_close(&back);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)h.n >> 8 * i);
    if (!st)
        st = pv_file_out_write(&w->file, length, sizeof length);
    if (!st)
        st = pv_file_out_write(&w->file, h.p, h.n);
    pv_free(h.p);
    w->started = true;
    return fail(w, st);
}

pv_status pv_st_writer_data(pv_st_writer *w, const void *bytes, size_t n)
{
    pv_status st = failed(w);
    if (!st && !w->started)
        st = start(w);
    if (st)
        return st;
    if (n > w->declared - w->given)
        return fail(w, pv_fail(PV_E_ARG,
                               "%s: %llu bytes of data were declared, %llu were given and %zu more came",
                               w->file.path, (ull)w->declared, (ull)w->given, n));
    w->given += n;
    return fail(w, pv_file_out_write(&w->file, bytes, n));
}

static void release(pv_st_writer **w)
{
    pv_free((*w)->meta.p);
    pv_free((*w)->header.p);
    pv_free((*w)->why);
    pv_free(*w);
    *w = NULL;
}

pv_status pv_st_writer_end(pv_st_writer **w)
{
    pv_st_writer *x = *w;
    pv_status st = failed(x);
    if (!st && !x->started)
        st = start(x);
    if (!st && x->given != x->declared)
        st = pv_fail(PV_E_ARG, "%s: %llu bytes of data were declared, %llu were given", x->file.path,
                     (ull)x->declared, (ull)x->given);
    if (st) {
        pv_st_writer_abort(w);
        return st;
    }
    st = pv_file_out_end(&x->file);
    release(w);
    return st;
}

void pv_st_writer_abort(pv_st_writer **w)
{
    if (!*w)
        return;
    pv_file_out_abort(&(*w)->file);
    release(w);
}
