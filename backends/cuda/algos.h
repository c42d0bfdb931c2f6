/* algos.h - algorithms that were chosen for products, kept in a file from process to process: choosing takes seconds. What an
 * algorithm is does not matter here: 64 bytes that the library can use again, as long as device, driver and library are the
 * same. These make the key; it names the file and stands in it. Nothing here knows CUDA.
 *
 * The file is a hint and is never trusted: another key, a wrong length, a sum that does not fit, and it is as if it were not
 * there, with a line in the log, and the next save makes it anew. Whoever uses an algorithm must check it. */
#ifndef PV_CUDA_ALGOS_H
#define PV_CUDA_ALGOS_H

#include "base/kept.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALGOS_MOST 1024 /* a model takes some thirty; the file stays below 128 KiB */
#define ALGOS_KEY  384
#define ALGOS_FILE_MOST ((size_t)160 << 10)

typedef struct algos_entry {
    int64_t shape[8]; /* whatever decides the algorithm; never padding */
    uint64_t algo[8];
} algos_entry;

typedef struct algos {
    char path[PV_KEPT_PATH]; /* empty: not kept */
    char key[ALGOS_KEY];
    algos_entry *entry;
    int n, cap;
    bool dirty; /* more than the file holds */
} algos;

/* Reads what there is for this key. folder NULL or empty: nothing is read or kept. `key` is cut to what there is room for. */
void algos_open(algos *a, const char *folder, const char *key);
void algos_close(algos *a);

const uint64_t *algos_find(const algos *a, const int64_t shape[8]); /* NULL: not known */
void algos_put(algos *a, const int64_t shape[8], const uint64_t algo[8]); /* in the place of one for the same shape, or of the oldest */

/* Writes the file, if there is something new: whole or not at all, and with what others have put there meanwhile. Failing to is
 * a line in the log. */
void algos_save(algos *a);

/* The bytes of a file. algos_parse adds what is not known yet and returns NULL, or what is wrong with the bytes. algos_print:
 * pv_free it; NULL: out of memory. */
const char *algos_parse(algos *a, const void *bytes, size_t n);
void *algos_print(const algos *a, size_t *n);

#endif
