/* ops.h - one function a family of ops; each prints and returns what test_done() says. */
#ifndef PV_TESTS_OPS_H
#define PV_TESTS_OPS_H

#include "tests/harness.h"

int test_linear(void);
int test_attention(void);
int test_norm(void);
int test_rope(void);
int test_elementwise(void);
int test_layout(void);
int test_quantize(void);
int test_embed(void);
int test_expert(void);

#endif
