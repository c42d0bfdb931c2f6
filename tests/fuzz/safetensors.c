/* safetensors.c - fuzzing the header parser. Input: 4 bytes little-endian, the bytes of data behind the
 * header; then the header itself. What is accepted must keep the promises of safetensors.h, and no failure
 * may be for want of memory unless it was so. */
#include "io/safetensors.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define PROMISE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const uint64_t behind =
        data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16 | (uint64_t)data[3] << 24;
    const size_t n = size - 4;
    pv_safetensors *st;
    pv_status status = pv_safetensors_parse((const char *)data + 4, n, 8 + n + behind, "fuzz", &st);
    PROMISE(status == PV_OK || (status == PV_E_FILE && !st));
    if (status) {
        PROMISE(strncmp(pv_error_text(), "fuzz: ", 6) == 0 && pv_alloc_live() == 0);
        return 0;
    }
    uint64_t at = 8 + n;
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        int64_t elements = 1;
        PROMISE(t->offset == at && t->shard == 0 && t->n_dims >= 0 && t->n_dims <= PV_ST_MAX_DIMS);
        for (int d = 0; d < t->n_dims; d++)
            PROMISE(t->dim[d] >= 0 && !__builtin_mul_overflow(elements, t->dim[d], &elements));
        PROMISE(elements == t->n_elements);
        PROMISE(t->dtype == PV_DTYPE_COUNT || t->bytes == pv_dtype_bytes(t->dtype, (size_t)t->n_elements));
        PROMISE(pv_safetensors_find(st, t->name) == t);
        at += t->bytes;
    }
    PROMISE(at == 8 + n + behind);
    pv_safetensors_close(&st);
    PROMISE(pv_alloc_live() == 0);
    return 0;
}
