/* prompt.c - task and state as text, and as token ids. openpi models/tokenizer.py,
 * PaligemmaTokenizer.tokenize. */
#include "prompt.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_STATE 1024 /* as many as statistics may have */

int pv_state_bin(double x)
{
    /* Times 128 is exact where x + 1 would round: -1e-20 belongs to bin 127. */
    double i = floor(x * 128) + 128;
    return i < 0 ? -1 : i < 256 ? (int)i : 255;
}

/* One code point of text[n], n > 0; returns its bytes, 0 if it is no UTF-8 (overlong forms and surrogates
 * included). */
static size_t code_point(const char *text, size_t n, uint32_t *c)
{
    const uint8_t *p = (const uint8_t *)text;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t bytes = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (!bytes || bytes > n)
        return 0;
    *c = bytes == 1 ? p[0] : p[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        *c = *c << 6 | (p[i] & 0x3f);
    }
    return *c < least[bytes] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : bytes;
}

/* What Python's str.isspace says yes to, and str.strip takes away. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

/* The part of `prompt` that strip leaves: [*begin, *end). Empty, too, when only what becomes spaces is left.
 */
static pv_status strip(const char *prompt, size_t *begin, size_t *end)
{
    bool said = false;
    size_t n = 0;
    *begin = *end = 0;
    while (n <= PV_PROMPT_MAX_BYTES && prompt[n])
        n++;
    if (n > PV_PROMPT_MAX_BYTES)
        return pv_fail(PV_E_ARG, "prompt: longer than %zu bytes", PV_PROMPT_MAX_BYTES);
    for (size_t i = 0, bytes; i < n; i += bytes) {
        uint32_t c;
        bytes = code_point(prompt + i, n - i, &c);
        if (!bytes)
            return pv_fail(PV_E_ARG, "prompt: expected UTF-8, came 0x%02x at byte %zu", (uint8_t)prompt[i],
                           i);
        if (is_space(c))
            continue;
        if (!*end)
            *begin = i;
        *end = i + bytes;
        said |= c != '_';
    }
    if (!said)
        return pv_fail(PV_E_ARG, "prompt: expected a task in words, came %s",
                       n ? "blanks alone" : "an empty text");
    return PV_OK;
}

pv_status pv_prompt_text(const char *prompt, const double *state, int n_state, char **out)
{
    enum { BIN_BYTES = 4 }; /* "255 " */
    static const char task[] = "Task: ", middle[] = ", State: ", tail[] = ";\nAction: ";
    size_t begin, end;
    *out = NULL;
    pv_status st = strip(prompt, &begin, &end);
    if (st)
        return st;
    if (state && (n_state < 0 || n_state > MAX_STATE))
        return pv_fail(PV_E_ARG, "prompt: expected a state of 0..%d values, came %d", MAX_STATE, n_state);
    for (int i = 0; state && i < n_state; i++)
        if (!isfinite(state[i]))
            return pv_fail(PV_E_NOT_FINITE, "prompt: value %d of the state is %f", i, state[i]);
    size_t bins = state ? (size_t)n_state * BIN_BYTES : 0;
    char *text = pv_alloc(end - begin + bins + sizeof task + sizeof middle + sizeof tail), *p = text;
    if (!text)
        return PV_E_MEMORY;
    if (state)
        p += sprintf(p, "%s", task);
    for (size_t i = begin; i < end; i++)
        *p++ = prompt[i] == '_' || prompt[i] == '\n' ? ' ' : prompt[i];
    if (state) {
        p += sprintf(p, "%s", middle);
        for (int i = 0; i < n_state; i++)
            p += sprintf(p, i ? " %d" : "%d", pv_state_bin(state[i]));
        p += sprintf(p, "%s", tail);
    }
    *p = 0;
    *out = text;
    return PV_OK;
}

pv_status pv_prompt_tokens(const pv_tokenizer *t, const char *prompt, const double *state, int n_state,
                           int max_tokens, bool allow_truncation, int32_t *ids, int *n_ids, bool *truncated)
{
    char *text = NULL;
    int n = 1;
    *n_ids = 0;
    *truncated = false;
    if (max_tokens < 1)
        return pv_fail(PV_E_ARG, "prompt: expected room for a token or more, came %d", max_tokens);
    pv_status st = pv_prompt_text(prompt, state, n_state, &text);
    if (st)
        return st;
    ids[0] = pv_tokenizer_bos(t);
    st = pv_tokenizer_encode(t, text, strlen(text), ids, max_tokens, &n);
    if (!st && !state)
        st = pv_tokenizer_encode(t, "\n", 1, ids, max_tokens, &n);
    pv_free(text);
    if (st)
        return st;
    if (n > max_tokens && !allow_truncation)
        return pv_fail(PV_E_ARG, "prompt: %d tokens, at most %d fit; say the task in fewer words", n,
                       max_tokens);
    *truncated = n > max_tokens;
    *n_ids = n > max_tokens ? max_tokens : n;
    return PV_OK;
}
