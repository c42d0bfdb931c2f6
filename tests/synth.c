/* synth.c - `pivot synth`: folders that load by themselves and hold what the hash says, whatever the layout;
 * nothing left behind when the disk is full, the place taken or the program stopped. With the argument
 * `full`, the full model too, read back against data/synthetic_checksums.json: 7 GB in the folder that is
 * named next (default /tmp), and about a minute. */
#include "model/files.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tools/picture.h"
#include "tools/synth_weights.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

int synth_main(int argc, char **argv);

/* Runs it with these words, split at spaces; what it says goes to /dev/null. */
static int synth(const char *fmt, ...)
{
    char words[1024], *argv[24] = {"synth"};
    int argc = 1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    for (char *w = strtok(words, " "); w && argc < 23; w = strtok(NULL, " "))
        argv[argc++] = w;
    fflush(NULL);
    int keep[2] = {dup(1), dup(2)}, null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    int code = synth_main(argc, argv);
    fflush(NULL);
    dup2(keep[0], 1);
    dup2(keep[1], 2);
    close(keep[0]);
    close(keep[1]);
    close(null);
    return code;
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n - 2; /* . and .. */
}

/* Every tensor of the file holds the hash's values; the table's under whatever name. */
static void check_values(const pv_model *m, const char *what)
{
    int wrong = 0, n_weights = 0;
    for (int i = -1; i < m->wanted->n_tensors; i++) {
        const pv_tensor *w = i < 0 ? NULL : m->wanted->tensors[i];
        if (w && w->usage != PV_WEIGHT)
            continue;
        const char *name = w ? w->name : PV_EMBEDDING_NAME;
        int64_t width = w ? (w->n_dims > 1 ? w->dim[1] : 1) : m->config.gemma.width;
        int64_t n = w ? pv_elements(w) : m->config.vocab * (int64_t)m->config.gemma.width;
        pv_dtype dtype = m->source.stored_dtype(m->source.user, name);
        uint16_t *bits = pv_alloc((size_t)n * 2);
        float *f = pv_alloc((size_t)n * 4);
        char *got = pv_alloc((size_t)n * 4);
        pv_synthetic_weights(name, w ? w->n_dims : 2, width, 0, n, bits);
        pv_to_f32(f, bits, PV_BF16, (size_t)n);
        bool ok = m->source.read(m->source.user, name, 0, n, got) == PV_OK &&
                  !memcmp(got, dtype == PV_F32 ? (void *)f : (void *)bits, pv_dtype_bytes(dtype, (size_t)n));
        if (!ok && !wrong++)
            printf("    %s: '%s' differs\n", what, name);
        n_weights++;
        pv_free(bits);
        pv_free(f);
        pv_free(got);
    }
    CHECK(wrong == 0 && n_weights == 111);
}

static void layouts(void)
{
    static const struct {
        const char *words, *layout, *first;
        int n_files; /* of weights */
    } rows[] = {
        {"--layout openpi", "openpi", "action_in_proj.bias", 1},
        {"--layout lerobot", "lerobot", "model.action_in_proj.bias", 1},
        {"--layout openpi --dtype f32 --shards 3", "openpi", "action_in_proj.bias", 3},
        {"--layout lerobot --dtype f32 --shards 64", "lerobot", "model.action_in_proj.bias", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pv_model *m = NULL;
        pv_model_info info = {0};
        files_fresh();
        if (!CHECK(synth("tiny %s --out %s/", rows[i].words, files_folder) == 0) ||
            !CHECK_OK(pv_model_load(files_folder, NULL, &m)) || !CHECK_OK(pv_model_describe(m, &info)))
            continue;
        CHECK(!strcmp(info.layout, rows[i].layout) && info.has_stats && !info.discrete_state &&
              info.horizon == 10);
        CHECK(info.n_cameras == 3 && !strcmp(info.camera[1], "left_wrist_0_rgb") && info.action_dim == 7);
#ifdef PV_HAVE_SENTENCEPIECE
        CHECK(info.has_tokenizer);
#endif
        const pv_st_tensor *t;
        CHECK(pv_checkpoint_fate(m->checkpoint, 0, &t) && !strcmp(t->name, rows[i].first));
        check_values(m, rows[i].words);
        pv_model_free(&m);
        int n = 0;
        DIR *dir = opendir(files_folder);
        for (struct dirent *e; dir && (e = readdir(dir));)
            n += !strncmp(e->d_name, "model", 5) && strstr(e->d_name, ".safetensors") && !strstr(e->d_name, ".json");
        if (dir)
            closedir(dir);
        CHECK(rows[i].n_files ? n == rows[i].n_files : n > 8);
        CHECK(access(in_folder("README.txt"), R_OK) == 0);
    }
}

/* A tensor that is written in more than one piece. */
static void large_tensor(void)
{
    enum { VOCAB = 60000 };
    pv_config c;
    pv_config_tiny(&c);
    c.vocab = VOCAB;
    files_fresh();
    CHECK_OK(synth_weights_write(files_folder,
                                 &(synth_weights_params){.config = &c, .dtype = PV_BF16, .shards = 1}));
    pv_safetensors *st = NULL;
    if (!CHECK_OK(pv_safetensors_open(in_folder("model.safetensors"), &st)))
        return;
    const pv_st_tensor *t = pv_safetensors_find(st, PV_LM_HEAD_NAME);
    int64_t n = (int64_t)VOCAB * c.gemma.width;
    uint16_t *want = pv_alloc(sizeof *want * (size_t)n), *got = pv_alloc(sizeof *got * (size_t)n);
    pv_synthetic_weights(PV_EMBEDDING_NAME, 2, c.gemma.width, 0, n, want);
    CHECK(t && t->n_elements == n && pv_safetensors_read(st, t, 0, n, got) == PV_OK &&
          !memcmp(got, want, sizeof *got * (size_t)n));
    pv_free(want);
    pv_free(got);
    pv_safetensors_close(&st);
}

/* Both decoders get work, and what they give is a picture: many colours, no two cameras the same. */
static void pictures(void)
{
    static const char *const names[] = {"images/base_0_rgb.png", "images/left_wrist_0_rgb.jpg",
                                        "images/right_wrist_0_rgb.png"};
    picture p[3] = {{0}};
    files_fresh();
    CHECK(synth("tiny --out %s", files_folder) == 0);
    for (int i = 0; i < 3; i++) {
        if (!CHECK_OK(picture_read(in_folder(names[i]), &p[i])))
            continue;
        CHECK(p[i].width == 320 && p[i].height == 240);
        static uint8_t seen[1 << 15];
        int colours = 0;
        memset(seen, 0, sizeof seen);
        for (int k = 0; k < p[i].width * p[i].height; k++) {
            const uint8_t *c = p[i].rgb + 3 * k;
            int key = (c[0] >> 3) << 10 | (c[1] >> 3) << 5 | c[2] >> 3;
            colours += !seen[key];
            seen[key] = 1;
        }
        CHECK(colours > 100);
        for (int j = 0; j < i; j++)
            CHECK(p[i].rgb && p[j].rgb && memcmp(p[i].rgb, p[j].rgb, 320 * 240 * 3));
    }
    for (int i = 0; i < 3; i++)
        picture_free(&p[i]);
}

static void wrong_words(void)
{
    files_fresh();
    CHECK(synth("") == 2);
    CHECK(synth("huge --out %s/x", files_folder) == 2);
    CHECK(synth("tiny") == 2);
    CHECK(synth("tiny --layout jax --out %s/x", files_folder) == 2);
    CHECK(synth("tiny --dtype f16 --out %s/x", files_folder) == 2);
    CHECK(synth("tiny --shards 0 --out %s/x", files_folder) == 2);
    CHECK(synth("--help") == 0);
    CHECK(entries(files_folder) == 0);
}

static void place_taken(void)
{
    files_fresh();
    files_text("note", "mine");
    CHECK(synth("tiny --out %s", files_folder) == 1);
    CHECK_TEXT("not an empty folder");
    CHECK(synth("tiny --out %s", in_folder("note")) == 1);
    CHECK_TEXT("note");
    CHECK(synth("tiny --out %s", in_folder("none/x")) == 1);
    CHECK_TEXT("none/x");
    CHECK(entries(files_folder) == 1);
}

/* A file that may not grow further is what a full disk looks like. */
static void full_disk(void)
{
    static const rlim_t sizes[] = {100, 5000, 1 << 20}; /* config, tokenizer, weights */
    struct rlimit before, less;
    files_fresh();
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        less = before;
        less.rlim_cur = sizes[i];
        setrlimit(RLIMIT_FSIZE, &less);
        int code = synth("tiny --out %s", in_folder("x"));
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(code == 1);
        CHECK_TEXT("cannot be written");
        CHECK(entries(files_folder) == 0);
    }
    CHECK(pv_alloc_live() == 0);
}

/* Stopped amid the weights of the full model: nothing is left. Skipped where there is no room to begin. */
static void stopped(void)
{
    files_fresh();
    pid_t child = fork();
    if (child == 0)
        _exit(synth("full --shards 64 --out %s", in_folder("x")));
    bool begun = false;
    int status = 0;
    for (int i = 0; i < 2000 && !begun && waitpid(child, &status, WNOHANG) == 0; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        DIR *dir = opendir(files_folder);
        for (struct dirent *e; dir && (e = readdir(dir));)
            if (strstr(e->d_name, ".part") && entries(in_folder(e->d_name)) >= 6)
                begun = true;
        if (dir)
            closedir(dir);
    }
    if (begun) {
        kill(child, SIGTERM);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 1);
    } else {
        printf("stopping: not tried, no room for the full model\n");
    }
    CHECK(entries(files_folder) == 0);
}

static pv_status write_once(void *folder)
{
    pv_config c;
    pv_config_tiny(&c);
    c.vision.depth = c.gemma.depth = c.expert.depth = 1;
    return synth_weights_write(folder, &(synth_weights_params){.config = &c, .dtype = PV_BF16, .shards = 2});
}

static void failing_memory(void)
{
    char folder[] = "/dev/shm/pv-synth-XXXXXX",
         other[] = "/tmp/pv-synth-XXXXXX"; /* flushing a real disk takes its time */
    char *where = mkdtemp(folder) ? folder : mkdtemp(other);
    if (!CHECK(where != NULL))
        return;
    fault_every(write_once, where, "writing weights");
    CHECK(entries(where) == 3); /* two shards and the index of the run that met no failure */
    files_clear(where);
}

/* ---- full size ---- */

static uint64_t checksum(const pv_safetensors *st, const pv_st_tensor *t, uint16_t *bits)
{
    uint64_t sum = 0;
    for (int64_t first = 0; first < t->n_elements; first += 1 << 22) {
        int64_t n = t->n_elements - first < 1 << 22 ? t->n_elements - first : 1 << 22;
        CHECK_OK(pv_safetensors_read(st, t, first, n, bits));
        for (int64_t i = 0; i < n; i++)
            sum += bits[i] * (2 * (uint64_t)(first + i) + 1);
    }
    return sum;
}

static void full_size(const char *where)
{
    char out[512];
    snprintf(out, sizeof out, "%s/pv-synth-full-%ld", where, (long)getpid());
    if (!CHECK(synth("full --shards 2 --out %s", out) == 0)) {
        printf("    %s\n", pv_error_text());
        return;
    }
    char index[600];
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", out);
    pv_safetensors *st = NULL;
    cJSON *table = NULL;
    const cJSON *row;
    uint16_t *bits = pv_alloc(sizeof *bits << 22);
    int n = 0;
    if (CHECK_OK(pv_safetensors_open(index, &st)) &&
        CHECK_OK(pv_json_read("data/synthetic_checksums.json", 1 << 20, &table))) {
        cJSON_ArrayForEach(row, table)
        {
            const pv_st_tensor *t = pv_safetensors_find(
                st, strcmp(row->string, PV_EMBEDDING_NAME) ? row->string : PV_LM_HEAD_NAME);
            const char *want = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "checksum"));
            n += CHECK(t && checksum(st, t, bits) == strtoull(want, NULL, 16));
        }
        CHECK(n == 811 && pv_safetensors_count(st) == 811);
    }
    pv_model *m = NULL;
    CHECK_OK(pv_model_load(out, NULL, &m)); /* what the exporter's config.json says is enough */
    pv_model_free(&m);
    pv_free(bits);
    cJSON_Delete(table);
    pv_safetensors_close(&st);
    files_clear(out);
}

int main(int argc, char **argv)
{
    layouts();
    large_tensor();
    pictures();
    wrong_words();
    place_taken();
    full_disk();
    stopped();
    failing_memory();
    if (argc > 1 && !strcmp(argv[1], "full"))
        full_size(argc > 2 ? argv[2] : "/tmp");
    CHECK(pv_alloc_live() == 0);
    files_clear(files_folder);
    return test_done();
}
