/* trace.c - any bytes as a trace for `verify`: its inputs read against a small config, every name resolved and mapped.
 * LLVMFuzzerTestOneInput(3) as libFuzzer and fuzz/replay.c call it. */
#define _GNU_SOURCE
#include "base/memory.h"
#include "tools/trace.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const pv_config config = {
    .vision = {.width = 8, .depth = 1, .mlp_dim = 8, .heads = 2, .image = 4, .patch = 2},
    .gemma = {.width = 8, .depth = 2, .mlp_dim = 8, .heads = 2, .kv_heads = 1, .head_dim = 4},
    .expert = {.width = 8, .depth = 2, .mlp_dim = 8, .heads = 2, .kv_heads = 1, .head_dim = 4},
    .vocab = 50, .max_tokens = 6, .action_dim = 3, .horizon = 2, .num_steps = 2, .n_cameras = 2,
    .camera = {"a", "b"}, .rms_norm_eps = 1e-6f, .layer_norm_eps = 1e-6f, .rope_theta = 1e4, .time_min_period = 4e-3,
    .time_max_period = 4};

static void look_inside(const pv_safetensors *st, const trace_inputs *in)
{
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        trace_name n = trace_parse(t->name, &config, in);
        int64_t width = config.gemma.width, rows = n.rows == TRACE_ALL ? 4 : in->n_prefix;
        for (int64_t k = 0; n.kind == TRACE_TENSOR && k < rows * width; k++) {
            int64_t at = trace_map(&n, in, &config, n.rows == TRACE_KV_ROWS ? config.gemma.head_dim : width, k);
            if (at < -1 || at >= rows * width)
                __builtin_trap();
            if (n.rows == TRACE_KV_ROWS && k >= in->n_prefix * config.gemma.head_dim - 1)
                break;
        }
        if (t->n_elements < 4096)
            pv_free(trace_floats(st, t));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("trace", 0);
    char path[64];
    pv_safetensors *st = NULL;
    trace_inputs in;
    if (fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size && !pv_safetensors_open(path, &st)) {
        if (!trace_read_inputs(st, &config, &in)) {
            look_inside(st, &in);
            trace_free_inputs(&in);
        }
        pv_safetensors_close(&st);
    }
    close(fd);
    return 0;
}
