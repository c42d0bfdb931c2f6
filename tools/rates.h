/* rates.h - what a backend reaches on this device: bytes and floating point operations a second, measured with two small
 * graphs of ops, so on any backend. The floor of a run is told by them. */
#ifndef PV_TOOLS_RATES_H
#define PV_TOOLS_RATES_H

#include "plan/backend.h"

typedef struct rates {
    double bytes_per_s; /* of a copy, read and written */
    double flops_per_s; /* of a product of two large matrices */
} rates;

/* Measures those that are 0. `dtype`: of the product's operands. */
pv_status rates_measure(pv_backend *be, pv_dtype dtype, rates *r);

/* Milliseconds below which nothing that moves so many bytes and computes so much can come. */
double rates_floor_ms(const rates *r, double bytes, double flops);

#endif
