/* prompt.h - what Pi0.5 is told in words: the task, and the robot's state as 256 bins a dimension.
 * openpi models/tokenizer.py, PaligemmaTokenizer.tokenize. */
#ifndef PV_IO_PROMPT_H
#define PV_IO_PROMPT_H

#include "tokenizer.h"

#define PV_PROMPT_MAX_BYTES ((size_t)64 << 10)

/* (number of edges -1 + i/128, i = 0..255, that are <= x) - 1: -1 below -1, 255 from 0.9921875 on. x is finite
 * (openpi makes NaN a 255 without a word; the session refuses it before). */
int pv_state_bin(double x);

/* The text that is tokenised, NUL-terminated, pv_free it. Leading and trailing whitespace (Python's str.strip: Unicode
 * whitespace) goes, '_' and '\n' become spaces. With state (discrete state in the prompt; n_state >= 0 normalised values):
 *   "Task: {text}, State: {b0 b1 ...};\nAction: "
 * and with state NULL the cleaned text alone (whose "\n" is encoded apart, see pv_prompt_tokens).
 * PV_E_ARG: text longer than PV_PROMPT_MAX_BYTES, empty after cleaning, or not UTF-8. */
pv_status pv_prompt_text(const char *prompt, const double *state, int n_state, char **out);

/* BOS, then the ids of pv_prompt_text (state NULL: followed by the ids of "\n", encoded separately).
 * ids[max_tokens]; *n_ids the number in use. Longer than max_tokens: PV_E_ARG that names both numbers, unless
 * allow_truncation, then the right end is cut and *truncated set. */
pv_status pv_prompt_tokens(const pv_tokenizer *t, const char *prompt, const double *state, int n_state, int max_tokens,
                           bool allow_truncation, int32_t *ids, int *n_ids, bool *truncated);

#endif
