/* files.h - checkpoints of the tiny model for tests: a list of tensors that a test may bend, written as a
 * file. */
#ifndef PV_TESTS_MODEL_FILES_H
#define PV_TESTS_MODEL_FILES_H

#include "base/memory.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 256

typedef struct file_tensor {
    char name[300];   /* in the file */
    char origin[200]; /* the model's: its values go in */
    int n_dims;
    int64_t dim[8];
    pv_dtype dtype;
} file_tensor;

typedef struct file_list {
    file_tensor t[FILES_MAX];
    int n;
} file_list;

#define PRE "paligemma_with_expert."

/* All tensors of the tiny model as openpi's exporter names and shapes them, the table under lm_head. */
static inline void files_tiny(file_list *l, pv_dtype dtype)
{
    pv_config c;
    pv_config_tiny(&c);
    pv_graph *g = pv_graph_create();
    pv_pi05_build(g, &c, &(pv_pi05_shape){.views = 1, .tokens = 1});
    CHECK_OK(pv_graph_status(g));
    l->n = 0;
    file_tensor *table = &l->t[l->n++];
    *table =
        (file_tensor){PRE "paligemma.lm_head.weight", PV_EMBEDDING_NAME, 2, {c.vocab, c.gemma.width}, dtype};
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *w = g->tensors[i];
        if (w->usage != PV_WEIGHT)
            continue;
        file_tensor *t = &l->t[l->n++];
        *t = (file_tensor){.n_dims = w->n_dims, .dtype = dtype};
        snprintf(t->name, sizeof t->name, "%s", w->name);
        snprintf(t->origin, sizeof t->origin, "%s", w->name);
        memcpy(t->dim, w->dim, sizeof *t->dim * (size_t)w->n_dims);
        if (strstr(w->name, "patch_embedding.weight")) {
            t->n_dims = 4;
            t->dim[1] = 3;
            t->dim[2] = t->dim[3] = c.vision.patch;
        }
    }
    pv_graph_destroy(&g);
}

static inline file_tensor *files_find(file_list *l, const char *name)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->t[i].name, name))
            return &l->t[i];
    printf("no tensor %s in the list\n", name);
    exit(1);
}

static inline file_tensor *files_add(file_list *l, const char *name, int n_dims, int64_t d0, int64_t d1)
{
    file_tensor *t = &l->t[l->n++];
    *t = (file_tensor){.n_dims = n_dims, .dim = {d0, d1}, .dtype = PV_BF16};
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->origin, sizeof t->origin, "%s", name);
    return t;
}

/* Puts `to` in the place of `from` at the start of every name that has it; returns how many. */
static inline int files_rename(file_list *l, const char *from, const char *to)
{
    int n = 0;
    for (int i = 0; i < l->n; i++)
        if (!strncmp(l->t[i].name, from, strlen(from))) {
            char old[300];
            snprintf(old, sizeof old, "%s", l->t[i].name + strlen(from));
            snprintf(l->t[i].name, sizeof l->t[i].name, "%s%s", to, old);
            n++;
        }
    return n;
}

static inline size_t files_width(pv_dtype d)
{
    return d == PV_DTYPE_COUNT ? 0 : pv_dtype_bytes(d, 1);
}

/* Tensors i with i % parts == part, values as the hash says, rounded to the tensor's dtype. */
static inline void files_write(const file_list *l, const char *path, int part, int parts)
{
    pv_st_writer *w = NULL;
    if (!CHECK_OK(pv_st_writer_begin(path, &w)))
        return;
    for (int i = part; i < l->n; i += parts)
        CHECK_OK(pv_st_writer_declare(w, l->t[i].name, l->t[i].dtype, l->t[i].n_dims, l->t[i].dim));
    for (int i = part; i < l->n; i += parts) {
        const file_tensor *t = &l->t[i];
        int64_t n = 1, fan_in = 1;
        for (int d = 0; d < t->n_dims; d++) {
            n *= t->dim[d];
            fan_in *= d ? t->dim[d] : 1;
        }
        uint16_t *bits = pv_alloc((size_t)n * 2);
        float *f = pv_alloc((size_t)n * 4);
        char *out = pv_alloc((size_t)n * 4);
        pv_synthetic_weights(t->origin, t->n_dims, fan_in, 0, n, bits);
        pv_to_f32(f, bits, PV_BF16, (size_t)n);
        if (t->dtype == PV_I32)
            memset(out, 0, (size_t)n * 4);
        else
            pv_from_f32(out, f, t->dtype, (size_t)n);
        CHECK_OK(pv_st_writer_data(w, out, (size_t)n * files_width(t->dtype)));
        pv_free(bits);
        pv_free(f);
        pv_free(out);
    }
    CHECK_OK(pv_st_writer_end(&w));
}

/* ---- a folder of the test's own ---- */

static char files_folder[64];

static inline const char *in_folder(const char *name) /* good for eight names at a time */
{
    static char path[8][512];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof *path, "%s/%s", files_folder, name);
    return path[next];
}

static inline void files_text(const char *name, const char *text)
{
    CHECK_OK(pv_file_write(in_folder(name), text, strlen(text)));
}

static inline void files_clear(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[1024];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (unlink(path))
            files_clear(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

static inline void files_fresh(void) /* an empty one */
{
    if (*files_folder)
        files_clear(files_folder);
    snprintf(files_folder, sizeof files_folder, "/tmp/pv-model-XXXXXX");
    if (!mkdtemp(files_folder)) {
        printf("%s: cannot be made\n", files_folder);
        exit(1);
    }
}

#endif
