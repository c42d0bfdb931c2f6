/* json.h - strict reading of JSON from files that may be hostile (on cJSON).
 * Beyond cJSON: limits on size and depth, no trailing bytes, valid UTF-8, duplicate keys refused at every depth,
 * integers exact (|v| <= 2^53). Every failure names the file and the key. */
#ifndef PV_IO_JSON_H
#define PV_IO_JSON_H

#include "base/status.h"
#include <cjson/cJSON.h>

#define PV_JSON_MAX_DEPTH 32

/* Parses n bytes (n <= max_bytes or PV_E_FILE); `where` names the source in error words. Free with cJSON_Delete. */
pv_status pv_json_parse(const char *text, size_t n, size_t max_bytes, const char *where, cJSON **out);
pv_status pv_json_read(const char *path, size_t max_bytes, cJSON **out);

/* A whole regular file, NUL behind it (not counted in *n). pv_free it. PV_E_FILE with path and reason. */
pv_status pv_file_read(const char *path, size_t max_bytes, char **data, size_t *n);

/* Writes a file whole or not at all: to a temporary file beside it, flushed to disk, then renamed. */
pv_status pv_file_write(const char *path, const void *data, size_t n);

#endif
