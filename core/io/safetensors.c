/* safetensors.c - tensors in files. Format, limits and what is refused: safetensors.h.
 *
 * Everything a header says is checked before anything is believed: first each entry for itself (numbers,
 * product of the shape, range inside the file), then all ranges of a file in order of their offsets, where
 * each must begin at the byte behind the one before. Names are looked up by binary search in an array sorted
 * by name, so that no choice of names is slow. A sharded checkpoint is the same with several files, and the
 * index must agree with them in both directions. */
#include "safetensors.h"
#include "base/arena.h"
#include "base/memory.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_HEADER_BYTES ((size_t)16 << 20)
#define MAX_TENSORS      65536
#define MAX_SHARDS       256
#define NAME             "tensor '%.200s'" /* of a name in error words: the reason behind it must still fit */

typedef unsigned long long ull;

static const struct {
    const char *name;
    int bits;
    pv_dtype dtype;
} types[] = {
    {"F32", 32, PV_F32},
    {"BF16", 16, PV_BF16},
    {"F16", 16, PV_F16},
    {"I32", 32, PV_I32},
    {"U8", 8, PV_U8},
    {"F64", 64, PV_DTYPE_COUNT},
    {"I64", 64, PV_DTYPE_COUNT},
    {"U64", 64, PV_DTYPE_COUNT},
    {"C64", 64, PV_DTYPE_COUNT},
    {"U32", 32, PV_DTYPE_COUNT},
    {"I16", 16, PV_DTYPE_COUNT},
    {"U16", 16, PV_DTYPE_COUNT},
    {"I8", 8, PV_DTYPE_COUNT},
    {"BOOL", 8, PV_DTYPE_COUNT},
    {"F8_E4M3", 8, PV_DTYPE_COUNT},
    {"F8_E5M2", 8, PV_DTYPE_COUNT},
    {"F8_E8M0", 8, PV_DTYPE_COUNT},
    {"F6_E2M3", 6, PV_DTYPE_COUNT},
    {"F6_E3M2", 6, PV_DTYPE_COUNT},
    {"F4", 4, PV_DTYPE_COUNT},
};
#define N_TYPES (sizeof types / sizeof types[0])

int pv_safetensors_bits(const char *dtype_name)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (!strcmp(types[i].name, dtype_name))
            return types[i].bits;
    return 0;
}

typedef struct pair { /* of __metadata__ */
    struct pair *next;
    const char *key, *value;
} pair;

typedef struct shard {
    const char *path, *name; /* name: the last part of path */
    int fd;                  /* -1: a header alone */
} shard;

struct pv_safetensors {
    pv_arena arena; /* paths, names, metadata */
    pv_st_tensor *tensor;
    const pv_st_tensor **by_name;
    int n_tensors;
    shard *shard;
    int n_shards;
    pair *meta, **meta_end;
};

/* ---- One entry ------------------------------------------------------------------------------------------
 */

static char *keep(pv_arena *arena, const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = pv_arena_alloc(arena, n);
    return p ? memcpy(p, text, n) : NULL;
}

/* The integer in [0, 2^53] that v holds, or -1. */
static int64_t whole(const cJSON *v)
{
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= 9007199254740992.0))
        return -1;
    int64_t i = (int64_t)v->valuedouble;
    return (double)i == v->valuedouble ? i : -1;
}

static pv_status read_shape(const cJSON *v, const char *where, pv_st_tensor *t)
{
    if (!cJSON_IsArray(v))
        return pv_fail(PV_E_FILE, "%s: " NAME ": shape: expected an array", where, t->name);
    int64_t product = 1; /* of the dims that are not 0: whoever multiplies some of them cannot wrap either */
    bool empty = false;
    for (v = v->child; v; v = v->next, t->n_dims++) {
        if (t->n_dims == PV_ST_MAX_DIMS)
            return pv_fail(PV_E_FILE, "%s: " NAME ": more than %d dims", where, t->name, PV_ST_MAX_DIMS);
        int64_t dim = whole(v);
        if (dim < 0)
            return pv_fail(PV_E_FILE, "%s: " NAME ": shape[%d]: expected an integer in 0..2^53", where,
                           t->name, t->n_dims);
        t->dim[t->n_dims] = dim;
        if (dim == 0)
            empty = true;
        else if (product > INT64_MAX / dim)
            return pv_fail(PV_E_FILE,
                           "%s: " NAME ": the number of elements, dims 0..%d multiplied, is beyond 2^63",
                           where, t->name, t->n_dims);
        else
            product *= dim;
    }
    t->n_elements = empty ? 0 : product;
    return PV_OK;
}

/* data: bytes of the file behind the header. t->offset is counted from there, still. */
static pv_status read_entry(const cJSON *entry, uint64_t data, const char *where, pv_st_tensor *t)
{
    const cJSON *dtype = NULL, *shape = NULL, *range = NULL;
    if (!cJSON_IsObject(entry))
        return pv_fail(PV_E_FILE, "%s: " NAME ": expected an object with dtype, shape, data_offsets", where,
                       t->name);
    for (const cJSON *v = entry->child; v; v = v->next) {
        if (strcmp(v->string, "dtype") == 0)
            dtype = v;
        else if (strcmp(v->string, "shape") == 0)
            shape = v;
        else if (strcmp(v->string, "data_offsets") == 0)
            range = v;
        else
            return pv_fail(PV_E_FILE, "%s: " NAME ": unknown key '%.200s'", where, t->name, v->string);
    }
    if (!dtype || !shape || !range)
        return pv_fail(PV_E_FILE, "%s: " NAME ": %s is missing", where, t->name,
                       !dtype   ? "dtype"
                       : !shape ? "shape"
                                : "data_offsets");
    if (!cJSON_IsString(dtype))
        return pv_fail(PV_E_FILE, "%s: " NAME ": dtype: expected a string", where, t->name);
    size_t type = 0;
    while (type < N_TYPES && strcmp(types[type].name, dtype->valuestring) != 0)
        type++;
    if (type == N_TYPES)
        return pv_fail(PV_E_FILE, "%s: " NAME ": unknown dtype '%.200s'", where, t->name, dtype->valuestring);
    t->dtype = types[type].dtype;
    t->dtype_name = types[type].name;

    pv_status st = read_shape(shape, where, t);
    if (st)
        return st;
    const uint64_t bits = (uint64_t)types[type].bits;
    if ((uint64_t)t->n_elements > UINT64_MAX / bits)
        return pv_fail(PV_E_FILE, "%s: " NAME ": %lld elements of %s are beyond 2^64 bits", where, t->name,
                       (long long)t->n_elements, t->dtype_name);
    if ((uint64_t)t->n_elements * bits % 8)
        return pv_fail(PV_E_FILE, "%s: " NAME ": %lld elements of %s do not fill whole bytes", where, t->name,
                       (long long)t->n_elements, t->dtype_name);
    t->bytes = (uint64_t)t->n_elements * bits / 8;

    const cJSON *first = cJSON_IsArray(range) ? range->child : NULL, *second = first ? first->next : NULL;
    int64_t begin = whole(first), end = whole(second);
    if (begin < 0 || end < 0 || second->next)
        return pv_fail(PV_E_FILE, "%s: " NAME ": data_offsets: expected two integers in 0..2^53", where,
                       t->name);
    if (begin > end || (uint64_t)end > data)
        return pv_fail(PV_E_FILE,
                       "%s: " NAME ": data_offsets [%lld, %lld) are no range of the %llu bytes of data",
                       where, t->name, (long long)begin, (long long)end, (ull)data);
    if ((uint64_t)(end - begin) != t->bytes)
        return pv_fail(PV_E_FILE, "%s: " NAME ": its shape of %s takes %llu bytes, data_offsets hold %lld",
                       where, t->name, t->dtype_name, (ull)t->bytes, (long long)(end - begin));
    t->offset = (uint64_t)begin;
    return PV_OK;
}

/* ---- One file -------------------------------------------------------------------------------------------
 */

static pv_status add_metadata(pv_safetensors *st, const cJSON *map, const char *where)
{
    if (!cJSON_IsObject(map))
        return pv_fail(PV_E_FILE, "%s: __metadata__: expected an object", where);
    for (const cJSON *v = map->child; v; v = v->next) {
        if (!cJSON_IsString(v))
            return pv_fail(PV_E_FILE, "%s: __metadata__: '%.200s': expected a string", where, v->string);
        pair *p = pv_arena_alloc(&st->arena, sizeof *p);
        if (!p || !(p->key = keep(&st->arena, v->string)) || !(p->value = keep(&st->arena, v->valuestring)))
            return pv_fail_in(PV_E_MEMORY, "%s", where);
        *st->meta_end = p;
        st->meta_end = &p->next;
    }
    return PV_OK;
}

/* Tensors without elements come before the one that begins where they do. */
static int by_offset(const void *a, const void *b)
{
    const pv_st_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* No byte of the data belongs to two tensors, or to none. */
static pv_status check_ranges(const pv_st_tensor *t, int n, uint64_t data, const char *where)
{
    uint64_t at = 0;
    for (int i = 0; i < n; at = t[i].offset + t[i].bytes, i++) {
        if (t[i].offset < at)
            return pv_fail(PV_E_FILE, "%s: " NAME " begins at byte %llu, inside " NAME, where, t[i].name,
                           (ull)t[i].offset, t[i - 1].name);
        if (t[i].offset > at)
            return pv_fail(PV_E_FILE,
                           "%s: " NAME " begins at byte %llu: the %llu bytes before it belong to no tensor",
                           where, t[i].name, (ull)t[i].offset, (ull)(t[i].offset - at));
    }
    if (at != data)
        return pv_fail(PV_E_FILE, "%s: %llu bytes of data, the tensors end at byte %llu%s%.200s", where,
                       (ull)data, (ull)at, n ? ", the last is " : "", n ? t[n - 1].name : "");
    return PV_OK;
}

static pv_status add_tensors(pv_safetensors *st, const cJSON *root, int at_shard, uint64_t header_end,
                             uint64_t data)
{
    const char *where = st->shard[at_shard].path;
    size_t n = 0;
    const cJSON *v;
    for (v = root->child; v; v = v->next)
        n += strcmp(v->string, "__metadata__") != 0;
    const int before = st->n_tensors;
    if (n > (size_t)(MAX_TENSORS - before))
        return pv_fail(PV_E_FILE, "%s: %zu tensors after %d in other shards, at most %d were expected", where,
                       n, before, MAX_TENSORS);
    pv_st_tensor *all = pv_alloc_zero(((size_t)before + n) * sizeof *all);
    if (!all)
        return pv_fail_in(PV_E_MEMORY, "%s", where);
    if (before)
        memcpy(all, st->tensor, (size_t)before * sizeof *all);
    pv_free(st->tensor);
    st->tensor = all;

    pv_status status = PV_OK;
    for (v = root->child; v && !status; v = v->next) {
        if (strcmp(v->string, "__metadata__") == 0) {
            status = add_metadata(st, v, where);
            continue;
        }
        pv_st_tensor *t = &all[st->n_tensors++];
        t->shard = at_shard;
        t->name = keep(&st->arena, v->string);
        status = t->name ? read_entry(v, data, where, t) : pv_fail_in(PV_E_MEMORY, "%s", where);
    }
    if (status)
        return status;
    qsort(all + before, n, sizeof *all, by_offset);
    status = check_ranges(all + before, (int)n, data, where);
    for (size_t i = 0; i < n; i++)
        all[(size_t)before + i].offset += header_end;
    return status;
}

static pv_status add_header(pv_safetensors *st, int at_shard, const char *text, size_t n, uint64_t file_bytes)
{
    const char *where = st->shard[at_shard].path;
    if (n > MAX_HEADER_BYTES)
        return pv_fail(PV_E_FILE, "%s: a header of %zu bytes, at most %zu were expected", where, n,
                       MAX_HEADER_BYTES);
    if (file_bytes < 8 || file_bytes - 8 < n)
        return pv_fail(PV_E_FILE, "%s: a header of %zu bytes does not fit into a file of %llu", where, n,
                       (ull)file_bytes);
    if (n == 0 || text[0] != '{')
        return pv_fail(PV_E_FILE, "%s: expected a header that begins with '{'; this is no safetensors file",
                       where);
    cJSON *root;
    pv_status status = pv_json_parse(text, n, MAX_HEADER_BYTES, where, &root);
    if (!status)
        status = add_tensors(st, root, at_shard, 8 + (uint64_t)n, file_bytes - 8 - n);
    cJSON_Delete(root);
    return status;
}

static pv_status add_file(pv_safetensors *st, int at_shard)
{
    shard *s = &st->shard[at_shard];
    uint64_t file_bytes, n = 0;
    unsigned char length[8];
    pv_status status = pv_file_open(s->path, &s->fd, &file_bytes);
    if (!status && file_bytes < sizeof length)
        status =
            pv_fail(PV_E_FILE, "%s: %llu bytes, too short for a safetensors file", s->path, (ull)file_bytes);
    if (!status)
        status = pv_file_pread(s->fd, s->path, 0, length, sizeof length);
    if (status)
        return status;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | length[i];
    if (n > MAX_HEADER_BYTES || n > file_bytes - 8)
        return pv_fail(PV_E_FILE, "%s: a header of %llu bytes in a file of %llu, at most %zu were expected",
                       s->path, (ull)n, (ull)file_bytes, MAX_HEADER_BYTES);
    char *text = pv_alloc((size_t)n);
    if (!text)
        return pv_fail_in(PV_E_MEMORY, "%s", s->path);
    status = pv_file_pread(s->fd, s->path, 8, text, (size_t)n);
    if (!status)
        status = add_header(st, at_shard, text, (size_t)n, file_bytes);
    pv_free(text);
    return status;
}

/* ---- All files ------------------------------------------------------------------------------------------
 */

static pv_safetensors *create(void)
{
    pv_safetensors *st = pv_alloc_zero(sizeof *st);
    if (st)
        st->meta_end = &st->meta;
    return st;
}

/* Shards of these names in `folder`, which is empty or ends with '/'. */
static pv_status add_shards(pv_safetensors *st, const char *folder, const char *const *name, int n)
{
    st->shard = pv_arena_alloc(&st->arena, (size_t)n * sizeof *st->shard);
    if (!st->shard)
        return PV_E_MEMORY;
    for (; st->n_shards < n; st->n_shards++) {
        shard *s = &st->shard[st->n_shards];
        s->path = pv_arena_printf(&st->arena, "%s%s", folder, name[st->n_shards]);
        if (!s->path)
            return PV_E_MEMORY;
        s->name = s->path + strlen(folder);
        s->fd = -1;
    }
    return PV_OK;
}

static int by_name(const void *a, const void *b)
{
    const pv_st_tensor *x = *(const pv_st_tensor *const *)a, *y = *(const pv_st_tensor *const *)b;
    return strcmp(x->name, y->name);
}

static pv_status sort_names(pv_safetensors *st)
{
    const size_t n = (size_t)st->n_tensors;
    st->by_name = pv_alloc(n * sizeof *st->by_name);
    if (!st->by_name)
        return PV_E_MEMORY;
    for (size_t i = 0; i < n; i++)
        st->by_name[i] = &st->tensor[i];
    qsort(st->by_name, n, sizeof *st->by_name, by_name);
    for (size_t i = 1; i < n; i++) {
        const pv_st_tensor *x = st->by_name[i - 1], *y = st->by_name[i];
        if (strcmp(x->name, y->name) == 0)
            return pv_fail(PV_E_FILE, "%s: " NAME " is also in %s", st->shard[y->shard].path, y->name,
                           st->shard[x->shard].path);
    }
    return PV_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Only names of files beside the index: an index must not reach elsewhere. */
static bool is_plain(const char *name)
{
    return name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strpbrk(name, "/\\");
}

/* Names of the files that `map` mentions, each once and sorted, into name[MAX_SHARDS]. */
static pv_status list_shards(const cJSON *map, const char *path, const char **name, int *n_out)
{
    size_t n = 0, most = 0;
    const cJSON *v;
    for (v = map->child; v; v = v->next, most++) {
        if (!cJSON_IsString(v) || !is_plain(v->valuestring))
            return pv_fail(PV_E_FILE,
                           "%s: weight_map: " NAME
                           ": expected the name of a file beside the index, came '%.200s'",
                           path, v->string, cJSON_IsString(v) ? v->valuestring : "something else");
    }
    const char **all = pv_alloc(most * sizeof *all);
    if (!all)
        return pv_fail_in(PV_E_MEMORY, "%s", path);
    for (v = map->child; v; v = v->next)
        all[n++] = v->valuestring;
    qsort(all, n, sizeof *all, by_text);
    int unique = 0;
    for (size_t i = 0; i < n && unique <= MAX_SHARDS; i++)
        if (i == 0 || strcmp(all[i - 1], all[i]) != 0) {
            if (unique < MAX_SHARDS)
                name[unique] = all[i];
            unique++;
        }
    pv_free(all);
    if (unique == 0 || unique > MAX_SHARDS)
        return pv_fail(PV_E_FILE, "%s: weight_map: expected 1..%d files, %s", path, MAX_SHARDS,
                       unique ? "it names more" : "it names none");
    *n_out = unique;
    return PV_OK;
}

/* Every tensor of the index is in the shard it names, and the shards have no others. */
static pv_status check_index(const pv_safetensors *st, const cJSON *map, const char *path)
{
    bool *mapped = pv_alloc_zero((size_t)st->n_tensors * sizeof *mapped);
    if (!mapped)
        return pv_fail_in(PV_E_MEMORY, "%s", path);
    pv_status status = PV_OK;
    for (const cJSON *v = map->child; v && !status; v = v->next) {
        const pv_st_tensor *t = pv_safetensors_find(st, v->string);
        if (!t)
            status = pv_fail(PV_E_FILE, "%s: " NAME " is in none of the shards, expected in '%s'", path,
                             v->string, v->valuestring);
        else if (strcmp(st->shard[t->shard].name, v->valuestring) != 0)
            status = pv_fail(PV_E_FILE, "%s: " NAME " is in '%s', expected in '%s'", path, v->string,
                             st->shard[t->shard].name, v->valuestring);
        else
            mapped[t - st->tensor] = true;
    }
    for (int i = 0; i < st->n_tensors && !status; i++)
        if (!mapped[i])
            status = pv_fail(PV_E_FILE, "%s: " NAME " of '%s' is missing in the index", path,
                             st->tensor[i].name, st->shard[st->tensor[i].shard].name);
    pv_free(mapped);
    return status;
}

static pv_status open_index(pv_safetensors *st, const char *path)
{
    cJSON *root, *map = NULL;
    pv_status status = pv_json_read(path, MAX_HEADER_BYTES, &root);
    if (status)
        return status;
    if (cJSON_IsObject(root))
        map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    const char *name[MAX_SHARDS], *slash = strrchr(path, '/');
    int n = 0;
    char *folder = pv_arena_printf(&st->arena, "%.*s", slash ? (int)(slash + 1 - path) : 0, path);
    if (!folder)
        status = PV_E_MEMORY;
    else if (!cJSON_IsObject(map))
        status =
            pv_fail(PV_E_FILE, "%s: expected an object 'weight_map' of tensor names and file names", path);
    else
        status = list_shards(map, path, name, &n);
    if (!status)
        status = add_shards(st, folder, name, n);
    for (int i = 0; i < n && !status; i++)
        status = add_file(st, i);
    if (!status)
        status = sort_names(st);
    if (!status)
        status = check_index(st, map, path);
    cJSON_Delete(root);
    return status;
}

static pv_status open_single(pv_safetensors *st, const char *path)
{
    pv_status status = add_shards(st, "", &path, 1);
    if (!status)
        status = add_file(st, 0);
    return status ? status : sort_names(st);
}

pv_status pv_safetensors_open(const char *path, pv_safetensors **out)
{
    const size_t n = strlen(path);
    const bool index = n >= 5 && strcmp(path + n - 5, ".json") == 0;
    pv_safetensors *st = create();
    pv_status status = !st ? PV_E_MEMORY : index ? open_index(st, path) : open_single(st, path);
    if (status)
        pv_safetensors_close(&st);
    *out = st;
    return status;
}

pv_status pv_safetensors_parse(const char *header, size_t n, uint64_t file_bytes, const char *where,
                               pv_safetensors **out)
{
    pv_safetensors *st = create();
    pv_status status = st ? add_shards(st, "", &where, 1) : PV_E_MEMORY;
    if (!status)
        status = add_header(st, 0, header, n, file_bytes);
    if (!status)
        status = sort_names(st);
    if (status)
        pv_safetensors_close(&st);
    *out = st;
    return status;
}

void pv_safetensors_close(pv_safetensors **out)
{
    pv_safetensors *st = *out;
    if (!st)
        return;
    for (int i = 0; i < st->n_shards; i++)
        if (st->shard[i].fd >= 0)
            close(st->shard[i].fd);
    pv_free(st->tensor);
    pv_free(st->by_name);
    pv_arena_free(&st->arena);
    pv_free(st);
    *out = NULL;
}

int pv_safetensors_count(const pv_safetensors *st)
{
    return st->n_tensors;
}

const pv_st_tensor *pv_safetensors_at(const pv_safetensors *st, int i)
{
    return i >= 0 && i < st->n_tensors ? &st->tensor[i] : NULL;
}

const pv_st_tensor *pv_safetensors_find(const pv_safetensors *st, const char *name)
{
    const pv_st_tensor like = {.name = name}, *key = &like;
    const pv_st_tensor **at = bsearch(&key, st->by_name, (size_t)st->n_tensors, sizeof *st->by_name, by_name);
    return at ? *at : NULL;
}

const char *pv_safetensors_metadata(const pv_safetensors *st, const char *key)
{
    for (const pair *p = st->meta; p; p = p->next)
        if (strcmp(p->key, key) == 0)
            return p->value;
    return NULL;
}

const char *pv_safetensors_path(const pv_safetensors *st, int i)
{
    return i >= 0 && i < st->n_shards ? st->shard[i].path : NULL;
}

static pv_status read_bytes(const shard *s, const pv_st_tensor *t, uint64_t at, uint64_t bytes, void *dst)
{
    if (s->fd < 0)
        return pv_fail(PV_E_ARG, "%s: " NAME ": only the header was parsed, there is no data", s->path,
                       t->name);
    if (bytes > SIZE_MAX)
        return pv_fail(PV_E_ARG, "%s: " NAME ": %llu bytes do not fit into memory", s->path, t->name,
                       (ull)bytes);
    return pv_fail_in(pv_file_pread(s->fd, s->path, t->offset + at, dst, (size_t)bytes), NAME, t->name);
}

pv_status pv_safetensors_read(const pv_safetensors *st, const pv_st_tensor *t, int64_t first, int64_t n,
                              void *dst)
{
    const shard *s = &st->shard[t->shard];
    if (t->dtype == PV_DTYPE_COUNT)
        return pv_fail(PV_E_SHAPE, "%s: " NAME " is %s: expected F32, BF16, F16, I32 or U8", s->path, t->name,
                       t->dtype_name);
    if (first < 0 || n < 0 || first > t->n_elements || n > t->n_elements - first)
        return pv_fail(PV_E_ARG, "%s: " NAME " has %lld elements: %lld from %lld cannot be read", s->path,
                       t->name, (long long)t->n_elements, (long long)n, (long long)first);
    const uint64_t width = pv_dtype_bytes(t->dtype, 1);
    return read_bytes(s, t, (uint64_t)first * width, (uint64_t)n * width, dst);
}

pv_status pv_safetensors_read_all(const pv_safetensors *st, const pv_st_tensor *t, void *dst)
{
    return read_bytes(&st->shard[t->shard], t, 0, t->bytes, dst);
}
