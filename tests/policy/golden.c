/* golden.c - every tensor of a trace within bounds. A, B, D and F are openpi's own outputs (commit 15a9616, float32); M and K
 * come from masked_reference.py, which has openpi's masks: M lacks its middle camera, K has other dimensions throughout. */
#include "test.h"
#include "tools/verify.h"

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

/* With the argument `full`, case F: the full-size synthetic checkpoint; 9 GB of memory and some minutes. */
int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "full")) {
        check("F", "synth:full", "F.json", "F.safetensors", 250);
        return test_done();
    }
    check("A", "tiny_f32.safetensors", "A.json", "A.safetensors", 120);
    check("B", "tiny_f32.safetensors", "B.json", "B.safetensors", 100);
    check("D", "tiny_bf16.safetensors", "D.json", "D.safetensors", 100);
    check("M", "tiny_f32.safetensors", "M.json", "M.safetensors", 118);
    check("K", "tiny_k.safetensors", "K.json", "K.safetensors", 75);
    return test_done();
}
