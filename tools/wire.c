/* wire.c - see wire.h. A cursor walks over the message once; arrays are recognised by looking ahead at the
 * keys of maps of three and four. msgpack: https://github.com/msgpack/msgpack/blob/master/spec.md */
#include "wire.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Numbers on the wire are little-endian (dtype '<'), and so must be the memory they are read into. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pivot serve: written for little-endian machines"
#endif

/* ---- tokens ---- */

typedef enum kind { NIL, TRUTH, INTEGER, FLOAT, TEXT, BYTES, LIST, MAP } kind;
static const char *const kind_name[] = {"nil",  "a truth value", "an integer", "a number",
                                        "text", "bytes",         "a list",     "a map"};

typedef struct token {
    kind kind;
    uint32_t n;        /* bytes of TEXT and BYTES, elements of LIST, pairs of MAP */
    const uint8_t *at; /* TEXT, BYTES */
    bool beyond;       /* INTEGER: does not fit i64 */
    int64_t i64;       /* INTEGER, TRUTH */
    double f64;        /* FLOAT, INTEGER */
} token;

typedef struct cursor {
    const uint8_t *at, *end;
} cursor;

static size_t left(const cursor *c)
{
    return (size_t)(c->end - c->at);
}

static pv_status cut(void)
{
    return pv_fail(PV_E_ARG, "message: ends in the middle of a value");
}

/* A big-endian number of `size` bytes, which have been checked to be there. */
static uint64_t take(cursor *c, unsigned size)
{
    uint64_t v = 0;
    for (; size; size--)
        v = v << 8 | *c->at++;
    return v;
}

static pv_status take_number(cursor *c, uint8_t first, token *t)
{
    if (first <= 0x7f || first >= 0xe0) {
        *t = (token){INTEGER, .i64 = (int8_t)first, .f64 = (int8_t)first};
        return PV_OK;
    }
    static const uint8_t sizes[] = {4, 8, 1, 2, 4,
                                    8, 1, 2, 4, 8}; /* 0xca: f32 f64 u8 u16 u32 u64 i8 i16 i32 i64 */
    unsigned size = sizes[first - 0xca], unused = 64 - 8 * size;
    if (left(c) < size)
        return cut();
    uint64_t v = take(c, size);
    if (first == 0xca) {
        uint32_t bits = (uint32_t)v;
        float f;
        memcpy(&f, &bits, sizeof f);
        *t = (token){FLOAT, .f64 = (double)f};
    } else if (first == 0xcb) {
        *t = (token){FLOAT};
        memcpy(&t->f64, &v, sizeof v);
    } else if (first <= 0xcf) {
        *t = (token){INTEGER, .beyond = v > INT64_MAX, .i64 = v > INT64_MAX ? 0 : (int64_t)v,
                     .f64 = (double)v};
    } else {
        int64_t i = (int64_t)(v << unused) >> unused; /* the sign */
        *t = (token){INTEGER, .i64 = i, .f64 = (double)i};
    }
    return PV_OK;
}

/* A length of `size` bytes, and whether so many elements can be there: each takes `least` bytes or more. */
static pv_status take_count(cursor *c, unsigned size, unsigned least, uint32_t *n)
{
    if (left(c) < size)
        return cut();
    *n = (uint32_t)take(c, size);
    if (*n > left(c) / least)
        return pv_fail(PV_E_ARG, "message: a value tells of %u elements or bytes, %zu bytes remain", *n,
                       left(c));
    return PV_OK;
}

/* The next value; of a list or map, its head. Bytes of text and such are there, elements can be. */
static pv_status next(cursor *c, token *t)
{
    *t = (token){NIL};
    if (!left(c))
        return cut();
    uint8_t b = *c->at++;
    uint32_t n = b & 0x0f;
    pv_status st = PV_OK;
    kind k;
    unsigned size = 0; /* bytes of the length; 0: it is part of `b` */
    if (b <= 0x7f || b >= 0xe0 || (b >= 0xca && b <= 0xd3))
        return take_number(c, b, t);
    if (b == 0xc0 || b == 0xc2 || b == 0xc3) {
        *t = (token){b == 0xc0 ? NIL : TRUTH, .i64 = b == 0xc3};
        return PV_OK;
    }
    if (b <= 0x8f) {
        k = MAP;
    } else if (b <= 0x9f) {
        k = LIST;
    } else if (b <= 0xbf) {
        k = TEXT;
        n = b & 0x1f;
    } else if (b >= 0xc4 && b <= 0xc6) {
        k = BYTES;
        size = 1u << (b - 0xc4);
    } else if (b >= 0xd9 && b <= 0xdb) {
        k = TEXT;
        size = 1u << (b - 0xd9);
    } else if (b >= 0xdc) {
        k = b <= 0xdd ? LIST : MAP;
        size = b & 1 ? 4 : 2;
    } else {
        return pv_fail(PV_E_ARG, "message: msgpack type 0x%02x is none that an observation is made of", b);
    }
    unsigned least = k == MAP ? 2 : 1;
    if (size)
        st = take_count(c, size, least, &n);
    else if (n > left(c) / least)
        st = cut();
    *t = (token){k, n, c->at};
    if (!st && (k == TEXT || k == BYTES))
        c->at += n;
    return st;
}

/* Walks over a value. The depth is limited, so this ends soon: each element takes a byte. */
static pv_status skip(cursor *c, int depth)
{
    token t;
    pv_status st = next(c, &t);
    if (st || (t.kind != LIST && t.kind != MAP))
        return st;
    if (depth == WIRE_MAX_DEPTH)
        return pv_fail(PV_E_ARG, "message: more than %d maps and lists within each other", WIRE_MAX_DEPTH);
    for (uint64_t i = 0, n = (uint64_t)t.n * (t.kind == MAP ? 2 : 1); !st && i < n; i++)
        st = skip(c, depth + 1);
    return st;
}

static bool is(const token *t, const char *word)
{
    return (t->kind == TEXT || t->kind == BYTES) && t->n == strlen(word) && !memcmp(t->at, word, t->n);
}

/* UTF-8 as RFC 3629 has it, without zero bytes: it goes on as a C string. */
static bool is_text(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t b = s[i++];
        int more = b < 0x80 ? 0 : b < 0xc2 ? -1 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : b < 0xf5 ? 3 : -1;
        if (!b || more < 0 || n - i < (size_t)more)
            return false;
        for (int k = 0; k < more; k++, i++) {
            uint8_t low = 0x80, high = 0xbf;
            if (k == 0) {
                low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : low;
                high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : high;
            }
            if (s[i] < low || s[i] > high)
                return false;
        }
    }
    return true;
}

/* ---- fields ---- */

typedef struct reader {
    cursor c;
    wire_request *out;
} reader;

static pv_status add(reader *r, const char *name, pv_field_type type, const void *data, pv_field **out)
{
    wire_request *q = r->out;
    if (q->n_fields == WIRE_MAX_FIELDS)
        return pv_fail(PV_E_ARG, "message: more than %d fields", WIRE_MAX_FIELDS);
    for (int i = 0; i < q->n_fields; i++)
        if (!strcmp(q->key[i], name))
            return pv_fail(PV_E_ARG, "field '%s': is there twice", name);
    char *key = q->key[q->n_fields];
    memcpy(key, name, strlen(name) + 1);
    *out = &q->field[q->n_fields++];
    **out = (pv_field){.key = key, .type = type, .data = data};
    return PV_OK;
}

/* ---- numpy's arrays and scalars ---- */

/* What a dtype becomes; anything else, big-endian ones included, is refused. */
static const struct {
    const char *name;
    pv_field_type type;
    size_t size;
} dtypes[] = {{"|u1", PV_FIELD_U8, 1},  {"<i4", PV_FIELD_I32, 4}, {"<i8", PV_FIELD_I64, 8},
              {"<f4", PV_FIELD_F32, 4}, {"<f8", PV_FIELD_F64, 8}, {"|b1", PV_FIELD_BOOL, 1}};
#define N_DTYPES ((int)(sizeof dtypes / sizeof *dtypes))

typedef struct numpy {
    bool array;               /* else a scalar */
    token data, dtype, shape; /* shape: its head; what follows is at `dims` */
    cursor dims;
} numpy;

/* Is the map whose pairs begin at `c` an array or a scalar of numpy? Its key may stand anywhere. */
static pv_status is_numpy(cursor c, uint32_t pairs, int depth, bool *yes, bool *array)
{
    *yes = false;
    for (uint32_t i = 0; (pairs == 3 || pairs == 4) && i < pairs; i++) {
        token key;
        pv_status st = next(&c, &key);
        if (st)
            return st;
        *array = is(&key, "__ndarray__");
        if (*array || is(&key, "__npgeneric__")) {
            *yes = true;
            return PV_OK;
        }
        if (key.kind != TEXT && key.kind != BYTES) /* told where the map is read */
            return PV_OK;
        st = skip(&c, depth + 1);
        if (st)
            return st;
    }
    return PV_OK;
}

static pv_status read_numpy(reader *r, const char *name, uint32_t pairs, int depth, numpy *v)
{
    enum { MARK = 1, DATA = 2, DTYPE = 4, SHAPE = 8 };
    unsigned seen = 0, all = v->array ? MARK | DATA | DTYPE | SHAPE : MARK | DATA | DTYPE;
    for (uint32_t i = 0; i < pairs; i++) {
        token key, value = {NIL};
        pv_status st = next(&r->c, &key);
        unsigned which = st                                                     ? 0
                         : is(&key, v->array ? "__ndarray__" : "__npgeneric__") ? MARK
                         : is(&key, "data")                                     ? DATA
                         : is(&key, "dtype")                                    ? DTYPE
                         : is(&key, "shape") && v->array                        ? SHAPE
                                                                                : 0;
        if (!st && (!which || seen & which))
            st = pv_fail(
                PV_E_ARG,
                "field '%s': expected __ndarray__, data, dtype, shape once each (a scalar has no shape)",
                name);
        seen |= which;
        cursor begin = r->c;
        if (!st)
            st = next(&r->c, &value);
        if (!st && (value.kind == LIST || value.kind == MAP)) {
            v->dims = r->c;
            r->c = begin;
            st = skip(&r->c, depth + 1);
        }
        if (st)
            return st;
        *(which == DATA ? &v->data : which == DTYPE ? &v->dtype : which == SHAPE ? &v->shape : &key) = value;
        if (which == MARK && (value.kind != TRUTH || !value.i64))
            return pv_fail(PV_E_ARG, "field '%s': expected true behind the mark of a numpy value", name);
    }
    return seen == all
               ? PV_OK
               : pv_fail(PV_E_ARG, "field '%s': a numpy value without its data, dtype or shape", name);
}

static pv_status read_dims(const char *name, numpy *v, size_t size, int *n_dims, int64_t *dim)
{
    if (v->shape.kind != LIST || v->shape.n > 4)
        return pv_fail(PV_E_SHAPE, "field '%s': shape: expected a list of at most 4 numbers, came %s of %u",
                       name, kind_name[v->shape.kind], v->shape.n);
    uint64_t bytes = size;
    *n_dims = (int)v->shape.n;
    for (int i = 0; i < *n_dims; i++) {
        token t;
        pv_status st = next(&v->dims, &t);
        if (st)
            return st;
        if (t.kind != INTEGER || t.beyond || t.i64 < 1 || (uint64_t)t.i64 > v->data.n / bytes)
            return pv_fail(PV_E_SHAPE, "field '%s': dim %d of its shape does not fit its %u bytes of data",
                           name, i, v->data.n);
        dim[i] = t.i64;
        bytes *= (uint64_t)t.i64;
    }
    return bytes == v->data.n
               ? PV_OK
               : pv_fail(PV_E_SHAPE, "field '%s': its shape stands for %llu bytes, its data are %u", name,
                         (unsigned long long)bytes, v->data.n);
}

static pv_status add_array(reader *r, const char *name, numpy *v)
{
    int d = 0, n_dims = 0;
    int64_t dim[4] = {0};
    while (d < N_DTYPES && !is(&v->dtype, dtypes[d].name))
        d++;
    bool text = v->dtype.kind == TEXT || v->dtype.kind == BYTES;
    if (d == N_DTYPES)
        return pv_fail(PV_E_SHAPE, "field '%s': expected dtype |u1, <i4, <i8, <f4, <f8 or |b1, came '%.*s'",
                       name, text ? v->dtype.n < 16 ? (int)v->dtype.n : 16 : 1,
                       text ? (const char *)v->dtype.at : "?");
    if (v->data.kind != BYTES)
        return pv_fail(PV_E_ARG, "field '%s': data: expected bytes, came %s", name, kind_name[v->data.kind]);
    size_t size = dtypes[d].size;
    pv_status st = read_dims(name, v, size, &n_dims, dim);
    for (uint32_t i = 0; !st && dtypes[d].type == PV_FIELD_BOOL && i < v->data.n; i++)
        if (v->data.at[i] > 1)
            st = pv_fail(PV_E_SHAPE, "field '%s': truth value %u is neither 0 nor 1", name, i);
    pv_field *f = NULL;
    if (!st)
        st = add(r, name, dtypes[d].type, v->data.at, &f);
    if (st)
        return st;
    f->n_dims = n_dims;
    memcpy(f->dim, dim, sizeof dim);
    return PV_OK;
}

/* ---- plain values ---- */

static pv_status add_value(reader *r, const char *name, const token *t)
{
    pv_field *f;
    pv_status st = PV_OK;
    if (t->kind == TEXT || t->kind == BYTES) {
        if (!is_text(t->at, t->n))
            return pv_fail(PV_E_ARG, "field '%s': text is not UTF-8, or holds a zero byte", name);
        st = add(r, name, PV_FIELD_TEXT, t->at, &f);
        if (!st) {
            f->n_dims = 1;
            f->dim[0] = t->n;
        }
        return st;
    }
    if (t->kind == NIL || t->kind == MAP || t->kind == LIST || t->beyond)
        return pv_fail(PV_E_ARG, "field '%s': expected an array, a number or text, came %s", name,
                       t->beyond ? "a number beyond int64" : kind_name[t->kind]);
    st = add(r, name,
             t->kind == FLOAT     ? PV_FIELD_F64
             : t->kind == INTEGER ? PV_FIELD_I64
                                  : PV_FIELD_BOOL,
             NULL, &f);
    if (st)
        return st;
    int i = (int)(f - r->out->field);
    f->data = &r->out->scalar[i];
    if (t->kind == FLOAT)
        r->out->scalar[i].f64 = t->f64;
    else if (t->kind == INTEGER)
        r->out->scalar[i].i64 = t->i64;
    else
        r->out->scalar[i].truth = t->i64 != 0;
    return PV_OK;
}

static pv_status add_list(reader *r, const char *name, uint32_t n)
{
    if (n < 1 || n > WIRE_MAX_LIST)
        return pv_fail(PV_E_SHAPE, "field '%s': expected a list of 1 to %d numbers, came %u", name,
                       WIRE_MAX_LIST, n);
    pv_field *f;
    pv_status st = add(r, name, PV_FIELD_F64, NULL, &f);
    if (st)
        return st;
    double *x = r->out->owned[f - r->out->field] = pv_alloc(n * sizeof *x);
    if (!x)
        return PV_E_MEMORY;
    for (uint32_t i = 0; i < n; i++) {
        token t;
        st = next(&r->c, &t);
        if (!st && t.kind != INTEGER && t.kind != FLOAT)
            st = pv_fail(PV_E_ARG, "field '%s': expected a list of numbers, element %u is %s", name, i,
                         kind_name[t.kind]);
        if (st)
            return st;
        x[i] = t.f64;
    }
    f->data = x;
    f->n_dims = 1;
    f->dim[0] = n;
    return PV_OK;
}

/* ---- maps ---- */

/* `name` holds the name of the map, of `used` bytes, and room for WIRE_MAX_KEY. */
static pv_status read_map(reader *r, char *name, size_t used, uint32_t pairs, int depth);

static pv_status read_value(reader *r, char *name, size_t used, int depth)
{
    token t;
    pv_status st = next(&r->c, &t);
    if (st)
        return st;
    if ((t.kind == MAP || t.kind == LIST) && depth == WIRE_MAX_DEPTH)
        return pv_fail(PV_E_ARG, "message: more than %d maps and lists within each other", WIRE_MAX_DEPTH);
    if (t.kind == LIST)
        return add_list(r, name, t.n);
    if (t.kind != MAP)
        return add_value(r, name, &t);
    numpy v = {0};
    bool yes;
    st = is_numpy(r->c, t.n, depth, &yes, &v.array);
    if (!st && !yes)
        return read_map(r, name, used, t.n, depth + 1);
    if (!st)
        st = read_numpy(r, name, t.n, depth, &v);
    return st ? st : v.array ? add_array(r, name, &v) : add_value(r, name, &v.data);
}

static pv_status read_map(reader *r, char *name, size_t used, uint32_t pairs, int depth)
{
    for (uint32_t i = 0; i < pairs; i++) {
        token key;
        pv_status st = next(&r->c, &key);
        if (st)
            return st;
        if ((key.kind != TEXT && key.kind != BYTES) || !key.n || !is_text(key.at, key.n))
            return pv_fail(PV_E_ARG, "message: expected text as key %u of '%s', came %s", i, name,
                           key.kind == TEXT || key.kind == BYTES ? "no text" : kind_name[key.kind]);
        size_t slash = used != 0;
        if (used + slash + key.n > WIRE_MAX_KEY)
            return pv_fail(PV_E_ARG, "message: a field's name is longer than %d bytes", WIRE_MAX_KEY);
        if (slash)
            name[used] = '/';
        memcpy(name + used + slash, key.at, key.n);
        name[used + slash + key.n] = 0;
        st = read_value(r, name, used + slash + key.n, depth);
        if (st)
            return st;
        name[used] = 0;
    }
    return PV_OK;
}

pv_status wire_read(const uint8_t *bytes, size_t n, wire_request *out)
{
    char name[WIRE_MAX_KEY + 1] = "";
    token t;
    out->n_fields = 0;
    memset(out->owned, 0, sizeof out->owned);
    if (!n)
        return pv_fail(PV_E_ARG, "message: is empty");
    reader r = {{bytes, bytes + n}, out};
    pv_status st = next(&r.c, &t);
    if (!st && t.kind != MAP)
        st = pv_fail(PV_E_ARG, "message: expected a map, came %s", kind_name[t.kind]);
    if (!st)
        st = read_map(&r, name, 0, t.n, 1);
    if (!st && left(&r.c))
        st = pv_fail(PV_E_ARG, "message: %zu bytes stand behind its end", left(&r.c));
    if (st)
        wire_request_free(out);
    return st;
}

void wire_request_free(wire_request *q)
{
    for (int i = 0; i < WIRE_MAX_FIELDS; i++) {
        pv_free(q->owned[i]);
        q->owned[i] = NULL;
    }
    q->n_fields = 0;
}

/* ---- writing ---- */

static uint8_t *more(wire_buffer *b, size_t n)
{
    if (!b->failed && n > b->room - b->n) {
        size_t room = b->room < 512 ? 512 : b->room;
        while (room < b->n + n && room < SIZE_MAX / 2)
            room *= 2;
        uint8_t *bytes = room >= b->n + n ? pv_alloc(room) : NULL;
        if (bytes && b->n)
            memcpy(bytes, b->bytes, b->n);
        b->failed = !bytes;
        if (bytes) {
            pv_free(b->bytes);
            b->bytes = bytes;
            b->room = room;
        }
    }
    if (b->failed)
        return NULL;
    b->n += n;
    return b->bytes + b->n - n;
}

static void put(wire_buffer *b, const void *data, size_t n)
{
    uint8_t *at = more(b, n);
    if (at && n)
        memcpy(at, data, n);
}

static void put_number(wire_buffer *b, uint8_t type, uint64_t v, unsigned size)
{
    uint8_t text[9] = {type};
    for (unsigned i = 0; i < size; i++)
        text[1 + i] = (uint8_t)(v >> 8 * (size - 1 - i));
    put(b, text, 1 + size);
}

/* The shortest head, as Python's msgpack writes it: `fix` for n <= most, else `type` of 1, 2 or 4 bytes, or
 * of 2 and 4. */
static void put_head(wire_buffer *b, uint32_t n, int fix, uint32_t most, uint8_t type, bool has8)
{
    if (fix && n <= most)
        put_number(b, (uint8_t)((unsigned)fix | n), 0, 0);
    else if (has8 && n <= 0xff)
        put_number(b, type, n, 1);
    else if (n <= 0xffff)
        put_number(b, (uint8_t)(type + has8), n, 2);
    else
        put_number(b, (uint8_t)(type + has8 + 1), n, 4);
}

void wire_map(wire_buffer *b, uint32_t n)
{
    put_head(b, n, 0x80, 15, 0xde, false);
}

void wire_list(wire_buffer *b, uint32_t n)
{
    put_head(b, n, 0x90, 15, 0xdc, false);
}

void wire_text(wire_buffer *b, const char *text)
{
    uint32_t n = (uint32_t)strlen(text);
    put_head(b, n, 0xa0, 31, 0xd9, true);
    put(b, text, n);
}

void wire_number(wire_buffer *b, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_number(b, 0xcb, bits, 8);
}

void wire_integer(wire_buffer *b, uint64_t v)
{
    if (v <= 0x7f)
        put_number(b, (uint8_t)v, 0, 0);
    else
        put_number(b,
                   v <= 0xff         ? 0xcc
                   : v <= 0xffff     ? 0xcd
                   : v <= 0xffffffff ? 0xce
                                     : 0xcf,
                   v,
                   v <= 0xff         ? 1
                   : v <= 0xffff     ? 2
                   : v <= 0xffffffff ? 4
                                     : 8);
}

void wire_truth(wire_buffer *b, bool value)
{
    put_number(b, value ? 0xc3 : 0xc2, 0, 0);
}

static void put_bytes(wire_buffer *b, const void *data, uint32_t n)
{
    put_head(b, n, 0, 0, 0xc4, true);
    put(b, data, n);
}

static void put_array(wire_buffer *b, const void *x, const char *dtype, size_t size, int rows, int columns)
{
    wire_map(b, 4);
    put_bytes(b, "__ndarray__", 11);
    wire_truth(b, true);
    put_bytes(b, "data", 4);
    put_bytes(b, x, (uint32_t)((size_t)rows * (size_t)columns * size));
    put_bytes(b, "dtype", 5);
    wire_text(b, dtype);
    put_bytes(b, "shape", 5);
    wire_list(b, 2);
    wire_integer(b, (uint64_t)rows);
    wire_integer(b, (uint64_t)columns);
}

void wire_f64(wire_buffer *b, const double *x, int rows, int columns)
{
    put_array(b, x, "<f8", sizeof *x, rows, columns);
}

void wire_f32(wire_buffer *b, const float *x, int rows, int columns)
{
    put_array(b, x, "<f4", sizeof *x, rows, columns);
}

void wire_reserve(wire_buffer *b, size_t n)
{
    uint8_t *at = more(b, n);
    if (at && n)
        memset(at, 0, n);
}

pv_status wire_ok(const wire_buffer *b)
{
    return b->failed ? PV_E_MEMORY : PV_OK;
}
