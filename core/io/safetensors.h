/* safetensors.h - tensors in files: read as published (one file, or shards with an index), and written.
 *
 * Format: u64 little-endian header length n; n bytes of JSON {name: {dtype, shape, data_offsets [begin, end)}},
 * offsets from the end of the header. Refused with PV_E_FILE and words that name file and tensor: header over
 * 16 MiB, more than 65,536 tensors, more than 8 dims, unknown dtype, size != product of the shape times width
 * (products that wrap included), ranges that overlap, leave gaps or pass the end of the file, duplicate names.
 * The file is never mapped: it may shrink while open and only a read fails then. */
#ifndef PV_IO_SAFETENSORS_H
#define PV_IO_SAFETENSORS_H

#include "base/dtype.h"

#define PV_ST_MAX_DIMS 8

typedef struct pv_st_tensor {
    const char *name;
    pv_dtype dtype;          /* F32, BF16, F16, I32, U8; others (F64, I64, BOOL, ...) are PV_DTYPE_COUNT: listed, not readable */
    const char *dtype_name;  /* as the file spells it */
    int n_dims;
    int64_t dim[PV_ST_MAX_DIMS];
    int64_t n_elements;
    uint64_t offset;         /* absolute, in its shard */
    uint64_t bytes;
    int shard;
} pv_st_tensor;

typedef struct pv_safetensors pv_safetensors;

/* `path`: a .safetensors file, or a model.safetensors.index.json whose weight_map names shards beside it (plain file
 * names only: no directory parts). Headers are read and checked; no tensor data is. */
pv_status pv_safetensors_open(const char *path, pv_safetensors **out);
void pv_safetensors_close(pv_safetensors **st);

int pv_safetensors_count(const pv_safetensors *st);
const pv_st_tensor *pv_safetensors_at(const pv_safetensors *st, int i); /* in order of shard, then offset */
const pv_st_tensor *pv_safetensors_find(const pv_safetensors *st, const char *name); /* binary search; NULL if absent */
const char *pv_safetensors_metadata(const pv_safetensors *st, const char *key);      /* of __metadata__; NULL if absent */
const char *pv_safetensors_path(const pv_safetensors *st, int shard);

/* Raw bytes of elements [first, first + n) of `t` into dst. Any number of threads at a time. */
pv_status pv_safetensors_read(const pv_safetensors *st, const pv_st_tensor *t, int64_t first, int64_t n, void *dst);
/* All t->bytes of `t`, whatever its dtype. */
pv_status pv_safetensors_read_all(const pv_safetensors *st, const pv_st_tensor *t, void *dst);
int pv_safetensors_bits(const char *dtype_name); /* of an element, as files spell it ("F64"); 0: no such dtype */

/* Parses a header alone (for tests and fuzzing): `file_bytes` is the size the whole file would have. */
pv_status pv_safetensors_parse(const char *header, size_t n, uint64_t file_bytes, const char *where, pv_safetensors **out);

/* Writing: declare all tensors, then give their data in the same order, in as many pieces as is handy.
 * The file appears under its name only when `end` succeeds; `abort` (or a failed end) leaves nothing behind.
 * A full disk is PV_E_FILE with the path. */
typedef struct pv_st_writer pv_st_writer;
pv_status pv_st_writer_begin(const char *path, pv_st_writer **out);
pv_status pv_st_writer_metadata(pv_st_writer *w, const char *key, const char *value);
pv_status pv_st_writer_declare(pv_st_writer *w, const char *name, pv_dtype dtype, int n_dims, const int64_t *dim);
/* As above for any dtype that files have, by their spelling; elements of less than a byte must fill whole ones. */
pv_status pv_st_writer_declare_as(pv_st_writer *w, const char *name, const char *dtype_name, int n_dims, const int64_t *dim);
pv_status pv_st_writer_data(pv_st_writer *w, const void *bytes, size_t n);
pv_status pv_st_writer_end(pv_st_writer **w);
void pv_st_writer_abort(pv_st_writer **w);

#endif
