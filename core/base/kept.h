/* kept.h - bytes worth keeping from process to process, because making them takes time: in a folder, each
 * kind under each key in a file of its own, KIND-<hash>.kept. A hint and never trusted: another kind or key,
 * a wrong length, a sum that does not fit, and it is as if the file were not there, with a line in the log;
 * the next save replaces it. Numbers are as this machine has them. */
#ifndef PV_BASE_KEPT_H
#define PV_BASE_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PV_KEPT_KEY  384 /* a longer one is cut */
#define PV_KEPT_PATH 1024

/* What was saved, n bytes, n <= most; pv_free it. NULL: none. folder NULL or empty: nothing is kept. */
void *pv_kept_load(const char *folder, const char *kind, const char *key, size_t most, size_t *n);

/* Whole or not at all; failing to is a line in the log. */
void pv_kept_save(const char *folder, const char *kind, const char *key, const void *bytes, size_t n);

/* ---- for files of other formats ---- */

uint64_t pv_kept_sum(const void *bytes, size_t n); /* FNV-1a */

/* All of a regular file of 1 to `most` bytes; pv_free it. NULL: there is none, or *wrong says what is the
 * matter. */
void *pv_kept_read(const char *path, size_t most, size_t *n, const char **wrong);

/* Makes the folders above, for their owner alone, and the file, by a rename of one beside it: path and 32
 * letters more must fit in PV_KEPT_PATH. false: errno tells. */
bool pv_kept_replace(const char *path, const void *bytes, size_t n);

#endif
