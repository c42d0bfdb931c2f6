/* tokenizer.h - SentencePiece model file -> token ids (libsentencepiece behind a thin C shim).
 * A build without libsentencepiece answers PV_E_UNSUPPORTED on load and says to pass token ids instead.
 * Encoding is thread-safe on one tokenizer. */
#ifndef PV_IO_TOKENIZER_H
#define PV_IO_TOKENIZER_H

#include "base/status.h"

typedef struct pv_tokenizer pv_tokenizer;

/* File at most 64 MiB. Malformed or without a BOS id: PV_E_FILE with the path. */
pv_status pv_tokenizer_load(const char *path, pv_tokenizer **out);
pv_status pv_tokenizer_parse(const void *data, size_t n, const char *where, pv_tokenizer **out);
void pv_tokenizer_free(pv_tokenizer **t);

int pv_tokenizer_vocab(const pv_tokenizer *t);
int pv_tokenizer_bos(const pv_tokenizer *t); /* >= 0 */

/* Appends the ids of text[n] at ids[*n_ids] (no BOS, no EOS). Ids past `capacity` are not written but counted:
 * *n_ids tells how many there would be. */
pv_status pv_tokenizer_encode(const pv_tokenizer *t, const char *text, size_t n, int32_t *ids, int capacity, int *n_ids);

#endif
