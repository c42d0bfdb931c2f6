/* sentencepiece.h - what tokenizer.c needs of libsentencepiece, as C. Present only with
 * PV_HAVE_SENTENCEPIECE. No exception leaves: what the library throws or reports becomes a status with its
 * words. */
#ifndef PV_IO_SENTENCEPIECE_H
#define PV_IO_SENTENCEPIECE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

typedef struct pv_sp pv_sp;

/* Walks the model file before the library sees it and refuses, with PV_E_FILE, what the library cannot bear
 * (sentencepiece_check.c lists it). */
pv_status pv_sp_check(const void *model, size_t n, const char *where);

/* Call pv_sp_check first. PV_E_FILE, or PV_E_MEMORY. */
pv_status pv_sp_create(const void *model, size_t n, const char *where, pv_sp **out);
void pv_sp_destroy(pv_sp *sp);

int pv_sp_vocab(const pv_sp *sp);
int pv_sp_bos(const pv_sp *sp); /* -1 when the model has none */

/* As pv_tokenizer_encode. n <= INT_MAX / 4. Any number of threads at a time. */
pv_status pv_sp_encode(const pv_sp *sp, const char *text, size_t n, int32_t *ids, int capacity, int *n_ids);

#ifdef __cplusplus
}
#endif

#endif
