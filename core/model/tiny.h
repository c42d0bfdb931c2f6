/* tiny.h - the small tokenizer and the made-up statistics of the synthetic models, embedded (core/model/tiny/). */
#ifndef PV_MODEL_TINY_H
#define PV_MODEL_TINY_H

#include <stddef.h>

extern const unsigned char pv_tiny_tokenizer[];
extern const size_t pv_tiny_tokenizer_bytes;
extern const char pv_tiny_stats[]; /* norm_stats.json */

#endif
