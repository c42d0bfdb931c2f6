/* fuzz/tokenizer.c - any bytes as a tokenizer model; then texts through what was let in, its own bytes among
 * them. */
#include "io/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void encode(const pv_tokenizer *t, const char *text, size_t n)
{
    int32_t ids[64];
    int n_ids = 0;
    if (pv_tokenizer_encode(t, text, n, ids, 64, &n_ids))
        return;
    for (int i = 0; i < n_ids && i < 64; i++)
        if (ids[i] < 0 || ids[i] >= pv_tokenizer_vocab(t))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char prompt[] = "Task: pick up the cup, State: 1 255 -1;\nAction: ";
    pv_tokenizer *t = NULL;
    if (pv_tokenizer_parse(data, size, "fuzz", &t))
        return 0;
    if (pv_tokenizer_bos(t) < 0 || pv_tokenizer_bos(t) >= pv_tokenizer_vocab(t))
        abort();
    encode(t, prompt, sizeof prompt - 1);
    encode(t, "\xe2\x96\x81 \xff\xc0 ab aaaa <s>", 19);
    encode(t, (const char *)data, size < 4096 ? size : 4096); /* its pieces are in it */
    pv_tokenizer_free(&t);
    return 0;
}
