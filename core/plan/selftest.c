/* selftest.c - see selftest.h. What came of it is text, a line a variant: "NAME<tab>ok", "NAME<tab>untested"
 * or "NAME<tab>why it is off". */
#include "selftest.h"
#include "base/clock.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/memory.h"
#include "instance.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define KIND     "selftest"
#define REVISION 5 /* raised when cases or judgement change */
#define TEXT     8192
#define SENTINEL 0xa5
#define OK       "ok"
#define UNTESTED "untested"

/* ---- what is known, in the process and on disk ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct known {
    char identity[sizeof((pv_device_info *)0)->identity];
    char text[TEXT];
} known[8];
static int n_known;

static void key_of(const char *identity, char key[PV_KEPT_KEY])
{
    snprintf(key, PV_KEPT_KEY, "cases %d, %s", REVISION, identity);
}

static struct known *find(const char *identity)
{
    for (int i = 0; i < n_known; i++)
        if (!strcmp(known[i].identity, identity))
            return &known[i];
    return NULL;
}

/* Empty: nothing is known. */
static void recall(const char *identity, const char *cache, char text[TEXT])
{
    char key[PV_KEPT_KEY];
    size_t n = 0;
    *text = 0;
    pthread_mutex_lock(&lock);
    const struct known *k = find(identity);
    if (k)
        memcpy(text, k->text, TEXT);
    pthread_mutex_unlock(&lock);
    if (*text)
        return;
    key_of(identity, key);
    char *bytes = pv_kept_load(cache, KIND, key, TEXT - 1, &n);
    if (bytes && !memchr(bytes, 0, n)) {
        memcpy(text, bytes, n);
        text[n] = 0;
    }
    pv_free(bytes);
}

static void remember(const char *identity, const char *cache, const char *text)
{
    char key[PV_KEPT_KEY];
    pthread_mutex_lock(&lock);
    struct known *k = find(identity);
    if (!k && n_known < (int)(sizeof known / sizeof *known))
        k = &known[n_known++];
    if (k) {
        snprintf(k->identity, sizeof k->identity, "%s", identity);
        snprintf(k->text, sizeof k->text, "%s", text);
    }
    pthread_mutex_unlock(&lock);
    key_of(identity, key);
    pv_kept_save(cache, KIND, key, text, strlen(text));
}

void pv_selftest_forget(void)
{
    pthread_mutex_lock(&lock);
    n_known = 0;
    pthread_mutex_unlock(&lock);
}

/* What the text says of a variant; false: nothing. */
static bool look_up(const char *text, const char *name, char *words, size_t size)
{
    size_t length = strlen(name);
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        if (n > length && !strncmp(line, name, length) && line[length] == '\t') {
            snprintf(words, size, "%.*s", (int)(n - length - 1), line + length + 1);
            return true;
        }
        line += n + (line[n] == '\n');
    }
    return false;
}

static void note(char text[TEXT], const char *name, const char *words)
{
    size_t used = strlen(text);
    if ((size_t)snprintf(text + used, TEXT - used, "%s\t%s\n", name, words) >= TEXT - used)
        text[used] = 0; /* it is tested again the next time */
}

/* ---- a case at work on one backend ---- */

typedef struct work {
    pv_plan *plan; /* NULL: the backend does not claim it in these dtypes */
    pv_instance *inst;
    const pv_tensor *in[PV_MAX_IN], *rows, *out[PV_MAX_OUT];
    int n_out;
} work;

typedef struct types {
    pv_dtype x, w, out;
} types;

static const types combinations[] = {{PV_F32, PV_F32, PV_F32},    {PV_F32, PV_BF16, PV_F32},
                                     {PV_BF16, PV_BF16, PV_BF16}, {PV_BF16, PV_BF16, PV_F32},
                                     {PV_F32, PV_F32, PV_BF16},   {PV_F16, PV_F16, PV_F16}};
#define N_COMBINATIONS ((int)(sizeof combinations / sizeof *combinations))

enum { RANDOM, ZEROS, LARGE, TINY, FILLS };

static pv_dtype dtype_of(pv_case_kind kind, const types *t)
{
    switch (kind) {
    case PV_CASE_W:
    case PV_CASE_STATE:
        return t->w;
    case PV_CASE_X:
    case PV_CASE_KEYS:
    case PV_CASE_COLS:
    case PV_CASE_STATE_X:
        return t->x;
    case PV_CASE_LEN:
    case PV_CASE_PLACES:
        return PV_I32;
    case PV_CASE_U8:
        return PV_U8;
    default:
        return PV_F32;
    }
}

static int n_dims(const pv_case_in *x)
{
    int n = 1;
    while (n < PV_MAX_DIMS && x->dim[n])
        n++;
    return n;
}

static int n_inputs(const pv_selftest_case *c)
{
    int n = 0;
    while (n < PV_MAX_IN && c->in[n].kind)
        n++;
    return n;
}

static void put_down(work *w)
{
    pv_instance_destroy(&w->inst);
    pv_plan_destroy(&w->plan);
}

/* A graph of the case's node, which is *node; NULL where it cannot be. */
static pv_graph *graph_of(const pv_selftest_case *c, const types *t, work *w, pv_node **node)
{
    *w = (work){0};
    *node = NULL;
    pv_graph *g = pv_graph_create();
    if (!g)
        return NULL;
    pv_tensor *in[PV_MAX_IN], *rows = c->rows ? pv_input(g, "rows", PV_I32, 1, (int64_t[]){1}, NULL) : NULL;
    for (int i = 0; i < n_inputs(c); i++) {
        const pv_case_in *x = &c->in[i];
        char name[8];
        snprintf(name, sizeof name, "in%d", i);
        bool state = x->kind == PV_CASE_STATE || x->kind == PV_CASE_STATE_X;
        in[i] = state ? pv_state(g, name, dtype_of(x->kind, t), x->dim[0], x->dim[1])
                      : pv_input(g, name, dtype_of(x->kind, t), n_dims(x), x->dim,
                                 x->kind == PV_CASE_X ? rows : NULL);
        w->in[i] = in[i];
    }
    pv_attr attr = c->attr;
    if (c->op == PV_OP_LINEAR_GEGLU)
        attr.linear_geglu.between = t->x;
    if (c->op == PV_OP_LINEAR_ROPE_CACHE)
        attr.linear_rope_cache.between = t->x;
    const bool residual = c->op == PV_OP_LINEAR_GATED_NORM || c->op == PV_OP_LINEAR_ADD_NORM; /* the first result */
    pv_node *n = pv_node_add(g, "out", c->op, n_inputs(c), in, &attr);
    for (int k = 0; n && k < n->n_out; k++) {
        if (!n->out[k]->base)
            n->out[k]->dtype = residual && k == 0 ? PV_F32 : t->out;
        n->out[k]->output = true;
        w->out[w->n_out++] = n->out[k];
    }
    w->rows = rows;
    for (int i = 0; n && i < n->n_in + n->n_out; i++) /* there is no more space */
        if (pv_elements(i < n->n_in ? n->in[i] : n->out[i - n->n_in]) > PV_CASE_ELEMENTS)
            pv_graph_fail(g, PV_E_SHAPE, "self-test: a case of %s has more than %d elements",
                          pv_ops[c->op].name, PV_CASE_ELEMENTS);
    *node = g->status ? NULL : n;
    return g;
}

/* claimed: only if the backend claims the op itself, not its body. */
static pv_status prepare(pv_backend *be, const pv_selftest_case *c, const types *t, bool claimed, work *w)
{
    pv_node *n;
    pv_graph *g = graph_of(c, t, w, &n);
    if (!g)
        return PV_E_MEMORY;
    if (n && claimed && !be->vt->claims(be, n)) {
        pv_graph_destroy(&g);
        return PV_OK;
    }
    pv_status st = pv_plan_create(be, &g, &(pv_plan_params){.steps = 1}, &w->plan);
    if (!st)
        st = pv_instance_create(w->plan, NULL, &w->inst);
    if (st)
        put_down(w);
    return st;
}

static float draw(uint64_t *s) /* splitmix64, -1 to 1 */
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)(int32_t)((z ^ z >> 31) >> 32) * 0x1p-31f;
}

static bool counts(const pv_selftest_case *c, const pv_case_in *x, int64_t at)
{
    int n = n_dims(x);
    int64_t width = x->dim[n - 1], row = at / width % (n > 1 ? x->dim[n - 2] : 1);
    switch (x->kind) {
    case PV_CASE_X:
        return !c->rows || row < c->rows;
    case PV_CASE_KEYS: /* of each sequence: there are several where all of it is valid */
        return row >= c->first && row < c->first + c->len;
    case PV_CASE_COLS:
        return at % width < c->len;
    default:
        return true;
    }
}

static float number(int fill, pv_dtype dtype, int64_t at, uint64_t *s)
{
    float v = draw(s);
    bool half = dtype == PV_F16;
    return fill == ZEROS                   ? 0
           : fill == LARGE && at % 11 == 3 ? v * (half ? 60 : 1e3f)
           : fill == TINY                  ? v * (half ? 0x1p-10f : 0x1p-128f)
                                           : v;
}

/* The bytes of an input: the same for every backend. */
static void fill_input(const pv_selftest_case *c, int i, pv_dtype dtype, int fill, float *wide, void *bytes)
{
    const pv_case_in *x = &c->in[i];
    int64_t n = 1;
    uint64_t seed = (uint64_t)i * 1000003u + (uint64_t)fill;
    for (int k = 0; k < n_dims(x); k++)
        n *= x->dim[k];
    float size = x->kind == PV_CASE_W ? sqrtf(3.0f / (float)x->dim[n_dims(x) - 1]) : 1;
    for (int64_t at = 0; at < n; at++) {
        float v = number(fill, dtype, at, &seed);
        wide[at] = counts(c, x, at) ? v * size : NAN;
        if (x->kind == PV_CASE_LEN)
            ((int32_t *)bytes)[at] = (int32_t)c->len;
        else if (x->kind == PV_CASE_PLACES)
            ((int32_t *)bytes)[at] = (int32_t)(at * 5 % 8);
        else if (x->kind == PV_CASE_U8)
            ((uint8_t *)bytes)[at] = (uint8_t)(int)((v + 1) * 127.5f);
    }
    if (dtype != PV_I32 && dtype != PV_U8)
        pv_from_f32(bytes, wide, dtype, (size_t)n);
}

typedef struct space {
    float wide[2][PV_CASE_ELEMENTS];
    float bytes[PV_CASE_ELEMENTS];
} space;

static pv_status run(const pv_selftest_case *c, const work *w, int fill, space *s)
{
    const int32_t rows = (int32_t)c->rows;
    pv_status st = w->rows ? pv_instance_write(w->inst, w->rows, 0, &rows, sizeof rows) : PV_OK;
    for (int k = 0; !st && k < w->n_out; k++) { /* what is written shows */
        memset(s->bytes, SENTINEL, sizeof s->bytes);
        st = pv_instance_write(w->inst, w->out[k], 0, s->bytes, pv_tensor_bytes(w->out[k]));
    }
    for (int i = 0; !st && i < n_inputs(c); i++) {
        fill_input(c, i, w->in[i]->dtype, fill, s->wide[0], s->bytes);
        if (w->in[i]->offset != PV_NOWHERE)
            st = pv_instance_write(w->inst, w->in[i], 0, s->bytes, pv_tensor_bytes(w->in[i]));
    }
    return st ? st : pv_instance_run(w->inst, (pv_run){.stages = 1u << PV_STAGE_VISION}, NULL);
}

/* ---- judgement ---- */

/* Far above what orders of sums, dtypes and flushed denormals do, far below what a wrong kernel does. */
static double relative(const work *w, const pv_selftest_case *c)
{
    bool bf16 = false, f16 = false;
    for (int i = 0; i < n_inputs(c) + w->n_out; i++) {
        pv_dtype d = i < n_inputs(c) ? w->in[i]->dtype : w->out[i - n_inputs(c)]->dtype;
        bf16 |= d == PV_BF16;
        f16 |= d == PV_F16;
    }
    return bf16 ? 1e-2 : f16 ? 2e-3 : 2e-5;
}

/* Numbers that the CPU wrote and that are finite there. What is behind counted rows is nobody's, and not
 * looked at. */
static bool near(const pv_tensor *t, const float *want, const float *got, double bound, char *words,
                 size_t size)
{
    float sentinel;
    uint32_t bits = 0xa5a5a5a5u;
    double diff2 = 0, want2 = 0, most = 0, worst = 0, floor = t->dtype == PV_F16 ? 1e-6 : 1e-30;
    int64_t n = pv_elements(t), at = 0;
    pv_to_f32(&sentinel, &bits, t->dtype, 1);
    for (int64_t i = 0; i < n; i++)
        if (want[i] != sentinel && isfinite(want[i])) {
            double d = isfinite(got[i]) ? fabs((double)got[i] - (double)want[i]) : INFINITY;
            diff2 += d * d;
            want2 += (double)want[i] * (double)want[i];
            most = fmax(most, fabs((double)want[i]));
            if (d > worst) {
                worst = d;
                at = i;
            }
        }
    if (worst <= floor || (sqrt(diff2) <= bound * sqrt(want2) && worst <= 8 * bound * most))
        return true;
    snprintf(words, size, "%s: [%lld] is %.6g, expected %.6g", pv_dtype_name(t->dtype), (long long)at,
             (double)got[at], (double)want[at]);
    return false;
}

static pv_status read_out(const work *w, int k, float *wide, void *bytes)
{
    pv_status st = pv_instance_read(w->inst, w->out[k], 0, bytes, pv_tensor_bytes(w->out[k]));
    if (!st)
        pv_to_f32(wide, bytes, w->out[k]->dtype, (size_t)pv_elements(w->out[k]));
    return st;
}

/* ---- the test ---- */

typedef struct tester {
    pv_backend *be, *cpu;
    space *space;
    int cases;       /* of this variant */
    char words[256]; /* why it is off; empty: nothing is wrong so far */
} tester;

/* A failure of the device is a verdict on the variant; one of the CPU or of memory is none. */
static pv_status blame(tester *t, pv_status st)
{
    if (st == PV_E_DEVICE)
        snprintf(t->words, sizeof t->words, "cannot be run: %.200s", pv_error_text());
    return st == PV_E_DEVICE ? PV_OK : st;
}

static pv_status compare(tester *t, const pv_selftest_case *c, const work *mine, const work *reference,
                         int fill)
{
    static const char *const fills[] = {"random", "zeros", "large", "tiny"};
    char words[128];
    pv_status st = run(c, reference, fill, t->space);
    if (!st)
        st = blame(t, run(c, mine, fill, t->space));
    for (int k = 0; !st && !*t->words && k < mine->n_out; k++) {
        st = read_out(reference, k, t->space->wide[0], t->space->bytes);
        if (!st)
            st = blame(t, read_out(mine, k, t->space->wide[1], t->space->bytes));
        if (!st && !*t->words &&
            !near(mine->out[k], t->space->wide[0], t->space->wide[1], relative(mine, c), words, sizeof words))
            snprintf(t->words, sizeof t->words, "wrong on %s inputs: output %d, %s", fills[fill], k, words);
    }
    return st;
}

/* Does the combination say anything that an earlier one did not? */
static bool other_types(const pv_selftest_case *c, int combination)
{
    bool x = false, w = false;
    for (int i = 0; i < n_inputs(c); i++) {
        pv_dtype d = dtype_of(c->in[i].kind, &(types){PV_U8, PV_I32, PV_U8});
        x |= d == PV_U8 && c->in[i].kind != PV_CASE_U8;
        w |= d == PV_I32 && c->in[i].kind != PV_CASE_LEN && c->in[i].kind != PV_CASE_PLACES;
    }
    for (int j = 0; j < combination; j++) {
        const types *a = &combinations[j], *b = &combinations[combination];
        if ((!x || a->x == b->x) && (!w || a->w == b->w) && a->out == b->out)
            return false;
    }
    return true;
}

static pv_status test_case(tester *t, const pv_selftest_case *c)
{
    pv_status st = PV_OK;
    for (int i = 0; !st && !*t->words && i < N_COMBINATIONS; i++) {
        work mine = {0}, reference = {0};
        if (!other_types(c, i))
            continue;
        st = blame(t, prepare(t->be, c, &combinations[i], true, &mine));
        if (!st && mine.plan) {
            t->cases++;
            st = prepare(t->cpu, c, &combinations[i], false, &reference);
            for (int fill = 0; !st && !*t->words && fill < FILLS; fill++)
                if (!(c->sharp && fill == LARGE))
                    st = compare(t, c, &mine, &reference, fill);
        }
        put_down(&reference);
        put_down(&mine);
    }
    return st;
}

/* Nothing can be asked of a device that is gone. */
static bool alive(pv_backend *be)
{
    pv_buffer *some = NULL;
    if (be->vt->alloc(be, 64, PV_SCRATCH, &some))
        return false;
    be->vt->release(be, some);
    return true;
}

/* Of the variants of its op `at` alone is on. */
static void leave_one(pv_variant *v, int n, int at)
{
    for (int i = 0; i < n; i++)
        v[i].off = v[i].op == v[at].op && i != at;
}

static void leave_all(pv_variant *v, int n)
{
    for (int i = 0; i < n; i++)
        v[i].off = false;
}

static pv_status test_variant(tester *t, pv_variant *v, int n, int at)
{
    pv_status st = PV_OK;
    t->cases = 0;
    *t->words = 0;
    leave_one(v, n, at);
    for (int i = 0; !st && !*t->words && i < pv_selftest_n_cases; i++)
        if (pv_selftest_cases[i].op == v[at].op)
            st = test_case(t, &pv_selftest_cases[i]);
    leave_all(v, n);
    return st;
}

/* What the test of variant `at` will record, for a backend that can begin with it before. */
static void foresee(pv_backend *be, pv_variant *v, int n, int at)
{
    leave_one(v, n, at);
    for (int i = 0; be->vt->foresee && i < pv_selftest_n_cases; i++)
        for (int k = 0; pv_selftest_cases[i].op == v[at].op && k < N_COMBINATIONS; k++) {
            work w;
            pv_node *node = NULL;
            pv_graph *g = other_types(&pv_selftest_cases[i], k) ? graph_of(&pv_selftest_cases[i], &combinations[k], &w, &node) : NULL;
            if (node)
                be->vt->foresee(be, node);
            pv_graph_destroy(&g);
        }
    leave_all(v, n);
}

/* Every variant of which `text` says nothing; *tested: how many that were. */
static pv_status test_all(pv_backend *be, char text[TEXT], int *tested)
{
    int n = 0;
    char words[256];
    pv_variant *v = be->vt->variants(be, &n);
    tester t = {.be = be};
    pv_status st = PV_OK;
    for (int i = 0; i < n; i++)
        if (!look_up(text, v[i].name, words, sizeof words))
            foresee(be, v, n, i);
    for (int i = 0; !st && i < n; i++) {
        if (look_up(text, v[i].name, words, sizeof words))
            continue;
        if (!t.space && !(t.space = pv_alloc(sizeof *t.space)))
            st = PV_E_MEMORY;
        if (!st && !t.cpu)
            st = pv_backend_open("cpu", &(pv_backend_params){.threads = 1, .cache = ""}, &t.cpu);
        double begun = pv_now_ms();
        if (!st)
            st = test_variant(&t, v, n, i);
        if (st)
            break;
        pv_log(PV_LOG_INFO, "self-test: %s (%s), %d cases in %.0f ms", v[i].name, be->vt->name, t.cases,
               pv_now_ms() - begun);
        (*tested)++;
        for (char *p = t.words; *p; p++)
            if (*p == '\n' || *p == '\t')
                *p = ' ';
        if (*t.words)
            pv_log(PV_LOG_WARN, "self-test: %s of %s is switched off: %s", v[i].name, be->vt->name, t.words);
        note(text, v[i].name, *t.words ? t.words : t.cases ? OK : UNTESTED);
        if (*t.words && !alive(be))
            st = pv_fail(
                PV_E_DEVICE,
                "the self-test of %s took the device with it (%s); open it anew: this is switched off then",
                v[i].name, t.words);
    }
    pv_backend_close(&t.cpu);
    pv_free(t.space);
    return st;
}

static void switch_off(pv_backend *be, const char *text)
{
    int n = 0;
    char words[256];
    pv_variant *v = be->vt->variants(be, &n);
    for (int i = 0; i < n; i++)
        v[i].off =
            look_up(text, v[i].name, words, sizeof words) && strcmp(words, OK) && strcmp(words, UNTESTED);
}

pv_status pv_selftest(pv_backend **be, const pv_backend_params *params)
{
    const pv_backend_vt *vt = (*be)->vt;
    pv_device_info info;
    char *text = pv_alloc(TEXT);
    int tested = 0;
    pv_status st = text ? vt->describe(*be, &info) : PV_E_MEMORY;
    if (!st) {
        recall(info.identity, params->cache, text);
        st = test_all(*be, text, &tested);
        if (tested)
            remember(info.identity, params->cache, text);
    }
    if (st || tested)
        pv_backend_close(be);
    if (!st && tested) /* without what the test has made */
        st = vt->open(params, be);
    if (!st)
        switch_off(*be, text);
    pv_free(text);
    return st;
}

/* Appends "NAME WORDS" to a list of them. */
static void enlist(char *list, size_t size, const char *line, int name, const char *words, int n)
{
    size_t used = strlen(list);
    snprintf(list + used, size - used, n ? "%s%.*s (%.*s)" : "%s%.*s", *list ? ", " : "", name, line, n,
             words);
}

void pv_selftest_tell(pv_device_info *info, const char *cache)
{
    char *text = *info->identity ? pv_alloc(TEXT) : NULL, off[400] = "", untested[300] = "";
    int n = 0, known_of = 0;
    if (!text)
        return;
    recall(info->identity, cache, text);
    for (const char *line = text; *line; known_of++) {
        size_t length = strcspn(line, "\n"), name = strcspn(line, "\t\n");
        const char *words = line + name + (line[name] == '\t');
        size_t rest = (size_t)(line + length - words);
        if (rest == strlen(UNTESTED) && !strncmp(words, UNTESTED, rest))
            enlist(untested, sizeof untested, line, (int)name, "", 0);
        else if (rest != strlen(OK) || strncmp(words, OK, rest))
            enlist(off, sizeof off, line, (int)name, words, (int)rest);
        n += rest == strlen(OK) && !strncmp(words, OK, rest);
        line += length + (line[length] == '\n');
    }
    char lines[900];
    if (!known_of)
        snprintf(lines, sizeof lines, "self-test: not run yet; it runs when the device is opened\n");
    else
        snprintf(lines, sizeof lines, "self-test: %d ways to do an op are right%s%s%s%s%s\n", n,
                 *off ? "" : ", none is wrong", *off ? "\nswitched off: " : "", off,
                 *untested ? "\nnot tested, as no case fits: " : "", untested);
    size_t used = strlen(info->supports);
    if (strlen(lines) < sizeof info->supports - used)
        memcpy(info->supports + used, lines, strlen(lines) + 1);
    pv_free(text);
}
