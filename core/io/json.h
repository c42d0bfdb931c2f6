/* json.h - strict reading of JSON from files that may be hostile (on cJSON).
 * Beyond cJSON: limits on size and depth, no trailing bytes, valid UTF-8, duplicate keys refused at every depth,
 * integers exact (|v| <= 2^53). Every failure names the file and the key. */
#ifndef PV_IO_JSON_H
#define PV_IO_JSON_H

#include "file.h"
#include <cjson/cJSON.h>

#define PV_JSON_MAX_DEPTH  32
#define PV_JSON_MAX_VALUES (1 << 20) /* of one text: cJSON takes some 80 bytes for a value that takes 2 to write */

/* Parses n bytes (n <= max_bytes or PV_E_FILE); `where` names the source in error words. Free with cJSON_Delete.
 * PV_E_MEMORY only when there is no memory: what cJSON is given has been read as strict JSON before. */
pv_status pv_json_parse(const char *text, size_t n, size_t max_bytes, const char *where, cJSON **out);
pv_status pv_json_read(const char *path, size_t max_bytes, cJSON **out);

#endif
