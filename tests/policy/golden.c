/* golden.c - every tensor of a trace within bounds. A, B, D and F are openpi's own outputs (commit 15a9616, float32); M and K
 * come from masked_reference.py, which has openpi's masks: M lacks its middle camera, K has other dimensions throughout. */
#include "test.h"
#include "tools/verify.h"
#include <unistd.h>

static void check(const char *label, const char *weights, const char *config, const char *trace, int least)
{
    char model_path[512], config_path[512], trace_path[512];
    snprintf(model_path, sizeof model_path, PV_SOURCE_DIR "/tests/data/%s", weights);
    snprintf(config_path, sizeof config_path, PV_SOURCE_DIR "/tests/data/%s", config);
    snprintf(trace_path, sizeof trace_path, PV_SOURCE_DIR "/tests/data/%s", trace);
    pv_backend *be = NULL;
    pv_model *m = NULL;
    verify_report r = {0};
    CHECK_OK(pv_backend_open("cpu", NULL, &be));
    CHECK_OK(pv_model_load(strstr(weights, "synth:") ? weights : model_path, &(pv_model_params){.config = config_path}, &m));
    if (be && m && CHECK_OK(verify_trace(m, be, &(verify_params){.trace = trace_path}, NULL, NULL, &r))) {
        CHECK(r.n_compared >= least);
        CHECK(r.production_equal);
        CHECK(r.first_failed == NULL);
        double worst = 0;
        for (int i = 0; i < r.n_entries; i++) {
            const verify_entry *e = &r.entries[i];
            if (e->state == VERIFY_COMPARED && !e->absolute && e->relative_l2 > worst)
                worst = e->relative_l2;
            if (e->state == VERIFY_NO_COUNTERPART || (e->state == VERIFY_COMPARED && !e->ok))
                printf("    %s %s: relative L2 %.3g, max abs %.3g, bound %.3g %s\n", label, e->name, e->relative_l2,
                       e->max_abs, e->bound, e->why ? e->why : "");
        }
        printf("%s: %d tensors compared, worst relative L2 %.3g\n", label, r.n_compared, worst);
    }
    verify_free(&r);
    pv_model_free(&m);
    pv_backend_close(&be);
}

/* The tiny checkpoint with one weight of expert layer 1's up-projection altered: the culprit is named, no earlier tensor. */
static void check_altered(void)
{
    const char *altered = "paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight";
    pv_safetensors *st = NULL;
    pv_st_writer *w = NULL;
    CHECK_OK(pv_safetensors_open(PV_SOURCE_DIR "/tests/data/tiny_f32.safetensors", &st));
    CHECK_OK(pv_st_writer_begin("golden_altered.safetensors", &w));
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        CHECK_OK(pv_st_writer_declare(w, t->name, t->dtype, t->n_dims, t->dim));
    }
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        float *x = malloc((size_t)t->bytes);
        CHECK_OK(pv_safetensors_read(st, t, 0, t->n_elements, x));
        if (!strcmp(t->name, altered))
            x[1000] += 0.01f;
        CHECK_OK(pv_st_writer_data(w, x, (size_t)t->bytes));
        free(x);
    }
    CHECK_OK(pv_st_writer_end(&w));
    pv_safetensors_close(&st);

    pv_backend *be = NULL;
    pv_model *m = NULL;
    verify_report r = {0};
    CHECK_OK(pv_backend_open("cpu", NULL, &be));
    CHECK_OK(pv_model_load("golden_altered.safetensors", &(pv_model_params){.config = PV_SOURCE_DIR "/tests/data/A.json"}, &m));
    CHECK_OK(verify_trace(m, be, &(verify_params){.trace = PV_SOURCE_DIR "/tests/data/A.safetensors"}, NULL, NULL, &r));
    CHECK(r.first_failed && !strcmp(r.first_failed->name, "step0.layer1.mlp_out"));
    verify_free(&r);
    pv_model_free(&m);
    pv_backend_close(&be);
    remove("golden_altered.safetensors");
}

#define FULL_GIB 10 /* of memory in the machine; case F takes 7.3 (2026-11) */

/* With the argument `full`, case F alone: the full-size synthetic checkpoint, some minutes. */
int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "full")) {
        double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
        if (gib < FULL_GIB) {
            printf("SKIPPED: case F wants a machine of %d GiB, this one has %.1f\n", FULL_GIB, gib);
            return 77;
        }
        check("F", "synth:full", "F.json", "F.safetensors", 250);
        return test_done();
    }
    check("A", "tiny_f32.safetensors", "A.json", "A.safetensors", 120);
    check("B", "tiny_f32.safetensors", "B.json", "B.safetensors", 100);
    check("D", "tiny_bf16.safetensors", "D.json", "D.safetensors", 100);
    check("M", "tiny_f32.safetensors", "M.json", "M.safetensors", 118);
    check("K", "tiny_k.safetensors", "K.json", "K.safetensors", 75);
    check_altered();
    return test_done();
}
