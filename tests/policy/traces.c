/* traces.c - verify on traces that lack something or say it oddly: K's trace, rewritten. */
#include "test.h"
#include "tools/verify.h"

#define DATA PV_SOURCE_DIR "/tests/data/"
#define ODD "traces_odd.safetensors"
#define DUMP "traces_dump.safetensors"

static pv_backend *be;
static pv_model *model;

/* How a tensor of the trace is written: as it is, not at all, without its last element, with another first one, or sampled
 * without one sample. */
typedef enum fate { KEEP, DROP, CUT, BEND, EMPTY_SAMPLE, EMPTY_NORM } fate;

static void declare_sampled(pv_st_writer *w, const char *name, int64_t samples, int64_t norms)
{
    char part[160];
    snprintf(part, sizeof part, "%s.sample", name);
    CHECK_OK(pv_st_writer_declare(w, part, PV_F32, 1, &samples));
    snprintf(part, sizeof part, "%s.sample_index", name);
    CHECK_OK(pv_st_writer_declare(w, part, PV_I32, 1, &samples));
    snprintf(part, sizeof part, "%s.valid_l2", name);
    CHECK_OK(pv_st_writer_declare(w, part, PV_F32, 1, &norms));
}

static void rewrite(fate (*of)(const char *name))
{
    pv_safetensors *st = NULL;
    pv_st_writer *w = NULL;
    CHECK_OK(pv_safetensors_open(DATA "K.safetensors", &st));
    CHECK_OK(pv_st_writer_begin(ODD, &w));
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        int64_t flat = t->n_elements - 1;
        switch (of(t->name)) {
        case KEEP:
        case BEND: CHECK_OK(pv_st_writer_declare(w, t->name, t->dtype, t->n_dims, t->dim)); break;
        case CUT: CHECK_OK(pv_st_writer_declare(w, t->name, t->dtype, 1, &flat)); break;
        case EMPTY_SAMPLE: declare_sampled(w, t->name, 0, 1); break;
        case EMPTY_NORM: declare_sampled(w, t->name, 1, 0); break;
        case DROP: break;
        }
    }
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        fate f = of(t->name);
        char *data = malloc((size_t)t->bytes);
        CHECK_OK(pv_safetensors_read(st, t, 0, t->n_elements, data));
        if (f == BEND)
            *(float *)(void *)data = 0.25f;
        if (f == KEEP || f == BEND || f == CUT)
            CHECK_OK(pv_st_writer_data(w, data, (size_t)t->bytes - (f == CUT ? 4 : 0)));
        else if (f == EMPTY_SAMPLE)
            CHECK_OK(pv_st_writer_data(w, data, 4)); /* the norm; anything does */
        else if (f == EMPTY_NORM)
            CHECK_OK(pv_st_writer_data(w, memset(data, 0, 8), 8));
        free(data);
    }
    CHECK_OK(pv_st_writer_end(&w));
    pv_safetensors_close(&st);
}

/* `first`: the tensor named as the first that fails, NULL for none. */
static void check(const char *trace, const char *dump, const char *first, verify_state state)
{
    verify_report r = {0};
    if (CHECK_OK(verify_trace(model, be, &(verify_params){.trace = trace, .dump = dump}, NULL, NULL, &r))) {
        const verify_entry *e = r.first_failed;
        CHECK(r.n_compared > 50);
        CHECK(r.production_equal);
        CHECK(first ? e && !strcmp(e->name, first) && e->state == state && r.n_failed == 1 : !e);
        if (e)
            printf("    %s: %s\n", e->name, e->why ? e->why : "out of bounds");
    }
    verify_free(&r);
}

static bool has(const char *name, const char *start)
{
    return !strncmp(name, start, strlen(start));
}

/* Steps 1 and 3 of 4 are not there: step 2's time, 1/2, says that there are four. */
static fate without_steps(const char *name)
{
    return has(name, "step1.") || has(name, "step3.") ? DROP : KEEP;
}

static fate cut(const char *name)
{
    return strcmp(name, "prefix.layer0.k") ? KEEP : CUT;
}

/* Pictures only as what the model makes of them: the pixels can be told from that, unless it is no pixel's. */
static fate without_u8(const char *name)
{
    return has(name, "in.image.") && strstr(name, ".u8") ? DROP : KEEP;
}

static fate no_pixel(const char *name)
{
    return strcmp(name, "in.image.head_rgb.f32") ? without_u8(name) : BEND;
}

static fate empty_sample(const char *name)
{
    return strcmp(name, "prefix.layer0.k") ? KEEP : EMPTY_SAMPLE;
}

static fate empty_norm(const char *name)
{
    return strcmp(name, "prefix.layer0.k") ? KEEP : EMPTY_NORM;
}

static void dtype_in_dump(const char *name, pv_dtype dtype)
{
    pv_safetensors *st = NULL;
    CHECK_OK(pv_safetensors_open(DUMP, &st));
    const pv_st_tensor *t = pv_safetensors_find(st, name);
    CHECK(t && t->dtype == dtype);
    pv_safetensors_close(&st);
}

int main(void)
{
    CHECK_OK(pv_backend_open("cpu", NULL, &be));
    CHECK_OK(pv_model_load(DATA "tiny_k.safetensors", &(pv_model_params){.config = DATA "K.json"}, &model));
    if (!be || !model)
        return test_done();
    rewrite(without_steps);
    check(ODD, NULL, NULL, VERIFY_COMPARED);
    rewrite(without_u8);
    check(ODD, NULL, NULL, VERIFY_COMPARED);
    rewrite(no_pixel);
    verify_report refused = {0};
    CHECK_STATUS(verify_trace(model, be, &(verify_params){.trace = ODD}, NULL, NULL, &refused), PV_E_FILE);
    CHECK_TEXT("'in.image.head_rgb.f32': element 0 is 0.25, which no pixel of 8 bits becomes");
    verify_free(&refused);
    rewrite(empty_sample);
    check(ODD, NULL, "prefix.layer0.k", VERIFY_NO_COUNTERPART);
    rewrite(empty_norm);
    check(ODD, NULL, "prefix.layer0.k", VERIFY_NO_COUNTERPART);
    rewrite(cut);
    check(ODD, DUMP, "prefix.layer0.k", VERIFY_NO_COUNTERPART);
    check(DUMP, NULL, NULL, VERIFY_COMPARED); /* with the whole tensor, under its elements' number */

    check(DATA "K.safetensors", DUMP, NULL, VERIFY_COMPARED); /* what verify dumps is a trace */
    check(DUMP, NULL, NULL, VERIFY_COMPARED);
    dtype_in_dump("prefix.pad_mask", PV_U8);
    dtype_in_dump("prefix.position_ids", PV_I32);
    dtype_in_dump("step0.v_t", PV_F32);
    remove(ODD);
    remove(DUMP);
    pv_model_free(&model);
    pv_backend_close(&be);
    return test_done();
}
