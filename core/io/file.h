/* file.h - files whole, in pieces, and never half written. Every failure is PV_E_FILE with the path and the
 * reason; interrupted and short reads and writes go on where they stopped. */
#ifndef PV_IO_FILE_H
#define PV_IO_FILE_H

#include "base/status.h"

/* A whole regular file, NUL behind it (not counted in *n). pv_free it. PV_E_FILE with path and reason. */
pv_status pv_file_read(const char *path, size_t max_bytes, char **data, size_t *n);

/* Writes a file whole or not at all: to a temporary file beside it, flushed to disk, then renamed. What is there
 * already must be a regular file: a folder, a device or a symbolic link is refused and stays. */
pv_status pv_file_write(const char *path, const void *data, size_t n);

/* A regular file for reading; anything else (folder, FIFO, device) is refused without waiting for it. */
pv_status pv_file_open(const char *path, int *fd, uint64_t *bytes);

/* Exactly n bytes from `offset`; a file that ends before that is PV_E_FILE. Any thread may call. */
pv_status pv_file_pread(int fd, const char *path, uint64_t offset, void *dst, size_t n);

/* pv_file_write in pieces. After begin, exactly one of end and abort; both release what begin took, and
 * unless `end` answers PV_OK nothing is left behind. */
typedef struct pv_file_out {
    int fd;
    char *path, *part; /* the name it shall have; the name it has until then */
} pv_file_out;

pv_status pv_file_out_begin(pv_file_out *f, const char *path);
pv_status pv_file_out_write(pv_file_out *f, const void *data, size_t n);
pv_status pv_file_out_end(pv_file_out *f);
void pv_file_out_abort(pv_file_out *f);

#endif
