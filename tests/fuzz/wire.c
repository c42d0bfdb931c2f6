/* wire.c - any bytes as an observation for `pivot serve`; every byte of every field is then read.
 * LLVMFuzzerTestOneInput as libFuzzer and fuzz/replay.c call it. */
#include "tools/wire.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t width(pv_field_type type)
{
    return type == PV_FIELD_I32 || type == PV_FIELD_F32   ? 4
           : type == PV_FIELD_I64 || type == PV_FIELD_F64 ? 8
                                                          : 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static wire_request request;
    if (wire_read(data, size, &request))
        return 0;
    unsigned sum = 0;
    for (int i = 0; i < request.n_fields; i++) {
        const pv_field *f = &request.field[i];
        size_t n = width(f->type);
        for (int d = 0; d < f->n_dims; d++)
            n *= (size_t)f->dim[d];
        if (!*f->key || strlen(f->key) > WIRE_MAX_KEY)
            __builtin_trap();
        for (size_t k = 0; k < n; k++)
            sum += ((const uint8_t *)f->data)[k];
    }
    static volatile unsigned read;
    read = sum;
    (void)read;
    wire_request_free(&request);
    return 0;
}
