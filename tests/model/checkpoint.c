/* checkpoint.c - names and dtypes as they were ever published, one set of weights behind all of them; and
 * files that are not a whole Pi0.5, each refused with the tensor's name. All files are of the tiny model,
 * written here. */
#include "files.h"
#include "base/dtype.h"

static file_list list; /* big: not on the stack */

static pv_status load(pv_model **m)
{
    pv_config c;
    pv_config_tiny(&c);
    char *text = pv_config_text(&c);
    CHECK_OK(pv_file_write(in_folder("tiny.json"), text, strlen(text)));
    pv_free(text);
    return pv_model_load(files_folder, &(pv_model_params){.config = in_folder("tiny.json")}, m);
}

/* ---- accepted ---- */

/* Every weight of the model, read through the model, is what the hash says, rounded as the file stores it. */
static void same_weights(const pv_model *m, pv_dtype dtype, const char *what)
{
    int wrong = 0, n_weights = 0;
    for (int i = -1; i < m->wanted->n_tensors; i++) {
        const pv_tensor *w = i < 0 ? NULL : m->wanted->tensors[i];
        if (w && w->usage != PV_WEIGHT)
            continue;
        const char *name = w ? w->name : PV_EMBEDDING_NAME;
        int n_dims = w ? w->n_dims : 2;
        int64_t width = w ? (n_dims > 1 ? w->dim[1] : 1) : m->config.gemma.width;
        int64_t n = w ? pv_elements(w) : m->config.vocab * (int64_t)m->config.gemma.width;
        size_t bytes = pv_dtype_bytes(dtype, (size_t)n);
        uint16_t *bits = pv_alloc((size_t)n * 2);
        float *f = pv_alloc((size_t)n * 4);
        char *want = pv_alloc(bytes), *got = pv_alloc(bytes);
        pv_synthetic_weights(name, n_dims, width, 0, n, bits);
        pv_to_f32(f, bits, PV_BF16, (size_t)n);
        pv_from_f32(want, f, dtype, (size_t)n);
        bool ok = m->source.stored_dtype(m->source.user, name) == dtype &&
                  m->source.read(m->source.user, name, 0, n, got) == PV_OK && !memcmp(got, want, bytes);
        if (ok && n > 10) { /* from the middle on, too */
            size_t at = pv_dtype_bytes(dtype, 5);
            ok = m->source.read(m->source.user, name, 5, n - 5, got) == PV_OK &&
                 !memcmp(got, want + at, bytes - at);
        }
        if (!ok && !wrong++)
            printf("    %s: '%s' differs\n", what, name);
        n_weights++;
        pv_free(bits);
        pv_free(f);
        pv_free(want);
        pv_free(got);
    }
    CHECK(wrong == 0 && n_weights == 111);
}

static void accepted(const char *what, pv_dtype dtype)
{
    pv_model *m = NULL;
    if (!CHECK_OK(load(&m)))
        printf("    %s\n", what);
    if (m)
        same_weights(m, dtype, what);
    pv_model_free(&m);
    CHECK(pv_alloc_live() == 0);
}

static void one_file(const char *what, pv_dtype dtype)
{
    files_write(&list, in_folder("model.safetensors"), 0, 1);
    accepted(what, dtype);
}

static void dtypes(void)
{
    static const pv_dtype all[] = {PV_F32, PV_BF16, PV_F16};
    for (int i = 0; i < 3; i++) {
        files_fresh();
        files_tiny(&list, all[i]);
        CHECK(list.n == 111);
        one_file(pv_dtype_name(all[i]), all[i]);
    }
}

static void leading_model(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    CHECK(files_rename(&list, "", "model.") == 111);
    one_file("leading model.", PV_BF16);
}

/* Under which name the table stands. With both, embed_tokens is the one. */
static void embedding_names(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    files_rename(&list, PRE "paligemma.lm_head.weight", PV_EMBEDDING_NAME);
    one_file("embed_tokens", PV_BF16);
    file_tensor *head = files_add(&list, PRE "paligemma.lm_head.weight", 2, 503, 160); /* other values */
    one_file("both", PV_BF16);
    head->dim[0] = 7; /* not read, so not looked at */
    one_file("both, the head of another shape", PV_BF16);
    files_add(&list, PRE "gemma_expert.lm_head.weight", 2, 503, 80);
    one_file("with the expert's head", PV_BF16);
    files_rename(&list, "", "model.");
    one_file("all of it below model.", PV_BF16);
}

static void short_vision(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    CHECK(files_rename(&list, PRE "paligemma.model.vision_tower.vision_model.",
                       PRE "paligemma.model.vision_tower.") > 20);
    one_file("vision_tower without vision_model", PV_BF16);
}

static void old_transformers(bool tied)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    files_rename(&list, PRE "paligemma.model.language_model.", PRE "paligemma.language_model.model.");
    files_rename(&list, PRE "paligemma.model.vision_tower.", PRE "paligemma.vision_tower.");
    files_rename(&list, PRE "paligemma.model.multi_modal_projector.", PRE "paligemma.multi_modal_projector.");
    files_rename(&list, PRE "paligemma.lm_head.",
                 tied ? PRE "paligemma.language_model.lm_head."
                      : PRE "paligemma.language_model.model.embed_tokens.");
    one_file("before transformers 4.52", PV_BF16);
    files_rename(&list, PRE "paligemma.vision_tower.vision_model.", PRE "paligemma.vision_tower.");
    files_rename(&list, "", "model.");
    one_file("before 4.52, short vision, below model.", PV_BF16);
}

static void shards(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    char index[65536] = "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {";
    for (int i = 0; i < list.n; i++)
        snprintf(index + strlen(index), sizeof index - strlen(index), "%s\"%s\": \"part-%d.safetensors\"",
                 i ? ", " : "", list.t[i].name, i % 3);
    strcat(index, "}}");
    files_text("model.safetensors.index.json", index);
    for (int part = 0; part < 3; part++) {
        char name[32];
        snprintf(name, sizeof name, "part-%d.safetensors", part);
        files_write(&list, in_folder(name), part, 3);
    }
    accepted("three shards", PV_BF16);
    unlink(in_folder("part-1.safetensors"));
    pv_model *m = NULL;
    CHECK_STATUS(load(&m), PV_E_FILE);
    CHECK_TEXT("part-1.safetensors");
}

/* Norms in F32 and the rest in BF16, as openpi's trainer saves. */
static void mixed_dtypes(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    file_tensor *norm =
        files_find(&list, PRE "paligemma.model.language_model.layers.1.input_layernorm.weight");
    norm->dtype = PV_F32;
    files_write(&list, in_folder("model.safetensors"), 0, 1);
    pv_model *m = NULL;
    CHECK_OK(load(&m));
    if (m) {
        CHECK(m->source.stored_dtype(m->source.user, norm->name) == PV_F32);
        CHECK(m->source.stored_dtype(m->source.user, "action_in_proj.bias") == PV_BF16);
    }
    pv_model_free(&m);
}

/* ---- what became of each tensor ---- */

static void fates(void)
{
    files_fresh();
    files_tiny(&list, PV_BF16);
    files_add(&list, PV_EMBEDDING_NAME, 2, 503, 160);
    files_add(&list, PRE "gemma_expert.lm_head.weight", 2, 503, 80);
    files_write(&list, in_folder("model.safetensors"), 0, 1);
    pv_model *m = NULL;
    if (!CHECK_OK(load(&m)))
        return;
    int weights = 0, tables = 0, unread = 0, n = 0;
    const pv_st_tensor *t;
    for (const char *fate; (fate = pv_checkpoint_fate(m->checkpoint, n, &t)); n++) {
        weights += !strcmp(fate, "weight");
        tables += !strcmp(fate, "embedding table") && !strcmp(t->name, PV_EMBEDDING_NAME);
        unread += strstr(fate, "not read") && strstr(t->name, "lm_head");
    }
    CHECK(n == 113 && weights == 110 && tables == 1 && unread == 2);
    pv_model_free(&m);
}

/* ---- refused ---- */

#define Q PRE "paligemma.model.language_model.layers.2.self_attn.q_proj.weight"

static void refused(pv_status status, const char *words, const char *more)
{
    pv_model *m = NULL;
    files_write(&list, in_folder("model.safetensors"), 0, 1);
    CHECK_STATUS(load(&m), status);
    CHECK_TEXT(words);
    CHECK_TEXT(more);
    CHECK_TEXT("model.safetensors");
    CHECK(m == NULL && pv_alloc_live() == 0);
    pv_model_free(&m);
    files_tiny(&list, PV_BF16);
}

static void missing_tensor(void)
{
    for (int i = 0; i < list.n; i++) { /* each of them in turn */
        char name[300];
        snprintf(name, sizeof name, "%s", list.t[i].name);
        list.t[i] = list.t[--list.n];
        refused(PV_E_CHECKPOINT, name, "is missing; 110 tensors are there");
    }
    list.n = 0;
    refused(PV_E_CHECKPOINT, "is missing; 0 tensors are there", "lm_head.weight or " PV_EMBEDDING_NAME);
}

static void odd_names(void)
{
    strcpy(files_find(&list, Q)->name, PRE "paligemma.model.language_model.layers.2.self_attn.query.weight");
    refused(PV_E_CHECKPOINT, "'" Q "' is missing", "layers.2.self_attn.query.weight' is none of the model's");
    files_add(&list, "value_head.weight", 2, 4, 4);
    refused(PV_E_CHECKPOINT, "'value_head.weight' is none of the model's", "");
    files_add(&list, PRE "paligemma.model.language_model.layers.3.self_attn.q_proj.weight", 2, 192, 160);
    refused(PV_E_CHECKPOINT, "layers.3.self_attn.q_proj.weight' is none of the model's", "");
    files_rename(&list, "", "policy.");
    refused(PV_E_CHECKPOINT, "is missing", "'policy.");
    file_tensor *t = files_add(&list, "x", 1, 4, 0);
    memset(t->name, 'n', 280);
    refused(PV_E_CHECKPOINT, "nnnn", "is none of the model's");
}

static void duplicates(void)
{
    files_add(&list, "model." Q, 2, 192, 160);
    refused(PV_E_CHECKPOINT, "'model." Q "'", "are the same tensor of the model");
    files_add(&list, PRE "paligemma.language_model.model.norm.weight", 1, 160, 0);
    refused(PV_E_CHECKPOINT, "language_model.norm.weight'", "are the same tensor of the model");
}

static void shapes(void)
{
    file_tensor *t = files_find(&list, Q);
    t->dim[0] = 191;
    refused(PV_E_CHECKPOINT, "'" Q "': expected shape [192, 160], came [191, 160]", "");
    t = files_find(&list, Q);
    t->dim[0] = 160;
    t->dim[1] = 192;
    refused(PV_E_CHECKPOINT, "expected shape [192, 160], came [160, 192]", Q);
    t = files_find(&list, Q); /* as many elements, more dims */
    t->n_dims = 4;
    t->dim[1] = 16, t->dim[2] = 5, t->dim[3] = 2;
    refused(PV_E_CHECKPOINT, "expected shape [192, 160], came [192, 16, 5, 2]", Q);
    t = files_find(&list, "action_in_proj.bias");
    t->n_dims = 0;
    refused(PV_E_CHECKPOINT, "'action_in_proj.bias': expected shape [80], came []", "");
    t = files_find(&list, PRE "paligemma.model.vision_tower.vision_model.embeddings.patch_embedding.weight");
    t->dim[1] = 14, t->dim[3] = 3; /* JAX's order of dims */
    refused(PV_E_CHECKPOINT, "expected shape [96, 3, 14, 14], came [96, 14, 14, 3]", "patch_embedding");
    t = files_find(&list, PRE "paligemma.lm_head.weight");
    t->dim[0] = 504;
    refused(PV_E_CHECKPOINT, "lm_head.weight': expected shape [503, 160], came [504, 160]", "");
    t = files_find(&list, Q);
    t->n_dims = 8;
    t->dim[0] = 0;
    for (int i = 1; i < 8; i++)
        t->dim[i] = 500;
    refused(PV_E_CHECKPOINT, "came [0, 500, 500, 500, 500, 500, 500, 500]", Q);
}

static void wrong_dtype(void)
{
    files_find(&list, Q)->dtype = PV_I32;
    refused(PV_E_CHECKPOINT, "'" Q "': expected F32, BF16 or F16, came I32", "");
    files_find(&list, PRE "paligemma.lm_head.weight")->dtype = PV_I32;
    refused(PV_E_CHECKPOINT, "lm_head.weight': expected F32, BF16 or F16, came I32", "");
}

static void other_policies(void)
{
    files_add(&list, "state_proj.weight", 2, 80, 32);
    refused(PV_E_CHECKPOINT, "'state_proj.weight'", "pi0 checkpoint");
    files_rename(&list, "time_mlp_in.", "action_time_mlp_in.");
    refused(PV_E_CHECKPOINT, "'action_time_mlp_in.", "pi0 checkpoint");
    files_rename(&list, "time_mlp_out.", "model.action_time_mlp_out.");
    refused(PV_E_CHECKPOINT, "'model.action_time_mlp_out.", "pi0 checkpoint");
    strcpy(files_find(&list, PRE "gemma_expert.model.layers.0.input_layernorm.dense.weight")->name,
           PRE "gemma_expert.model.layers.0.input_layernorm.weight");
    refused(PV_E_CHECKPOINT, "input_layernorm.weight'", "expected pi0.5");
    files_add(&list, PRE "paligemma.model.language_model.layers.0.self_attn.q_proj.lora_A.weight", 2, 16,
              160);
    refused(PV_E_CHECKPOINT, "lora_A.weight'", "adapter");
    files_add(&list, "base_model.model.state.weight", 2, 80, 32);
    refused(PV_E_CHECKPOINT, "'base_model.model.state.weight'", "adapter");
    files_add(&list, "model.proprio_history_proj.weight", 2, 80, 32);
    refused(PV_E_CHECKPOINT, "'model.proprio_history_proj.weight'", "not supported");
}

static void no_file(void)
{
    pv_model *m = NULL;
    files_fresh();
    CHECK_STATUS(load(&m), PV_E_FILE);
    CHECK_TEXT("no model.safetensors");
    files_text("model.safetensors", "{}");
    CHECK_STATUS(load(&m), PV_E_FILE);
    CHECK_TEXT("model.safetensors");
}

int main(void)
{
    dtypes();
    leading_model();
    embedding_names();
    short_vision();
    old_transformers(true);
    old_transformers(false);
    shards();
    mixed_dtypes();
    fates();
    files_fresh();
    files_tiny(&list, PV_BF16);
    missing_tensor();
    odd_names();
    duplicates();
    shapes();
    wrong_dtype();
    other_policies();
    no_file();
    files_clear(files_folder);
    return test_done();
}
