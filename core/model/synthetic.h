/* synthetic.h - a deterministic checkpoint made from a hash: any program can produce it bit for bit (docs/synthetic.md).
 *
 *   H(s, i): z = fnv1a64(s) + i + 0x9e3779b97f4a7c15, mixed as splitmix64 does
 *   element i of tensor `name`: bf16(offset + scale * r), r = (H(name, i) >> 40) 2^-23 - 1 in float32
 * offset and scale follow from the name and the fan-in; the table is hashed under its embed_tokens name. */
#ifndef PV_MODEL_SYNTHETIC_H
#define PV_MODEL_SYNTHETIC_H

#include "plan/weights.h"

uint64_t pv_fnv1a64(const char *s);
uint64_t pv_hash(uint64_t fnv, uint64_t i); /* H(s, i) with fnv = pv_fnv1a64(s) */

/* Elements [first, first + n) as bf16 bits. fan_in: product of all dims but the first; n_dims as in the checkpoint. */
void pv_synthetic_weights(const char *name, int n_dims, int64_t fan_in, int64_t first, int64_t n, uint16_t *dst);

/* Inputs of a case by its letter: pixels [side][side][3] of a camera, token ids (mod vocab), normal noise. */
void pv_synthetic_image(const char *prefix, const char *camera, int64_t n, uint8_t *dst);
void pv_synthetic_tokens(const char *prefix, int n, int vocab, int32_t *dst);
void pv_synthetic_noise(const char *prefix, int64_t n, float *dst);

/* Every weight that `wanted` names, and the embedding table [.., width]. The graph must outlive the source. */
pv_weight_source pv_synthetic_source(const pv_graph *wanted);

#endif
