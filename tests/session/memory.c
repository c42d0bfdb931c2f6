/* memory.c - what a session takes and gives back: no allocation once a shape is known, every failing
 * allocation clean, all of it through the caller's allocator; and the log. */
#include "rig.h"
#include "base/log.h"
#include "tests/faults.h"

#include <unistd.h>

/* Once each shape has come once, requests in any order allocate nothing. */
static void steady(void)
{
    static const struct {
        int cameras, tokens, steps;
    } shape[] = {{3, 11, 10}, {3, 23, 10}, {1, 2, 4}, {2, 16, 25}, {3, 17, 1}};
    enum { N = sizeof shape / sizeof *shape };
    rig r = rig_open("synth:tiny", NULL, NULL, 2);
    pv_observation obs = rig_observation(11);
    float actions[CHUNK];
    int64_t count = 0, live = 0;
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < N; i++) {
            obs.n_images = shape[i].cameras;
            obs.n_tokens = shape[i].tokens;
            pv_infer_params p = {.steps = shape[i].steps, .schedule = turn & 1 ? "cosine" : NULL};
            CHECK_OK(pv_session_infer(r.session, &obs, &p, actions));
        }
        if (turn == 0) {
            count = pv_alloc_count();
            live = pv_alloc_live();
        }
    }
    CHECK(pv_alloc_count() == count && pv_alloc_live() == live);
    pv_memory_info m = {.size = sizeof m};
    CHECK_OK(pv_session_memory(r.session, &m));
    CHECK(m.plans ==
          4); /* 11 and 2 tokens share a size of plan, as 23 and 17 do; so do not the numbers of cameras */
    CHECK(m.weights_bytes > 0 && m.host_bytes == 503 * 160 * 2 && m.scratch_bytes > 0 && m.state_bytes > 0);

    obs.tokens = (const int32_t[]){-1}; /* failing takes nothing either */
    obs.n_tokens = 1;
    for (int i = 0; i < 10; i++)
        CHECK_STATUS(pv_session_infer(r.session, &obs, NULL, actions), PV_E_ARG);
    CHECK(pv_alloc_count() == count && pv_alloc_live() == live);
    rig_close(&r);
    CHECK(pv_alloc_live() == 0);
}

static pv_status load_and_run(void *model)
{
    pv_observation obs =
        rig_observation(3); /* not the size of the session's first plan: this one is made on the way */
    float actions[CHUNK];
    rig r;
    pv_status st = rig_try(&r, model, &(pv_model_params){.config = TINY_CONFIG},
                           &(pv_session_params){.recipe = "bf16"}, 1);
    if (!st)
        st = pv_session_infer(r.session, &obs, &(pv_infer_params){.steps = 12}, actions);
    rig_close(&r);
    return st;
}

/* A session that ran out of memory while planning for a new shape is as good as before, and can be asked
 * again. */
static void survival(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_observation known = rig_observation(23), fresh = rig_observation(3);
    const pv_infer_params few = {.steps = 2}, more = {.steps = 12};
    chunk want = rig_infer(&r, &known, few);
    long k = 0;
    for (pv_status st = PV_E_MEMORY; st && k < 100000; k++) {
        chunk c = {{0}};
        fault_countdown = k;
        st = pv_session_infer(r.session, &fresh, &more, c.actions);
        bool met = fault_countdown < 0;
        fault_countdown = -1;
        if (!CHECK(st == (met ? PV_E_MEMORY : PV_OK)) || !CHECK(!met || c.actions[0] == 0))
            break;
        c = rig_infer(&r, &known, few);
        CHECK(same(&c, &want));
    }
    printf("a new shape: each of %ld allocations failed once\n", k - 1);
    CHECK(k > 10);
    rig_close(&r);
    CHECK_OK(pv_set_allocator(NULL));
}

/* ---- the caller's allocator ---- */

typedef struct tally {
    long blocks, total;
    size_t bytes;
    bool odd;
} tally;

static void *tally_alloc(void *user, size_t bytes, size_t alignment)
{
    tally *t = user;
    size_t room = (bytes + 2 * alignment - 1) / alignment * alignment; /* the size stands before the block */
    char *p = aligned_alloc(alignment, room);
    t->odd |= !bytes || alignment != PV_ALIGN;
    t->blocks++;
    t->total++;
    t->bytes += bytes;
    memcpy(p, &bytes, sizeof bytes);
    return p + alignment;
}

static void tally_release(void *user, void *memory)
{
    tally *t = user;
    t->odd |= !memory;
    t->blocks--;
    size_t bytes;
    memcpy(&bytes, (char *)memory - PV_ALIGN, sizeof bytes);
    t->bytes -= bytes;
    free((char *)memory - PV_ALIGN);
}

static void allocator(void)
{
    tally t = {0};
    pv_allocator a = {sizeof a, &t, tally_alloc, tally_release},
                 half = {sizeof half, NULL, tally_alloc, NULL};
    CHECK_STATUS(pv_set_allocator(&half), PV_E_ARG);
    half = (pv_allocator){sizeof half, NULL, NULL, tally_release};
    CHECK_STATUS(pv_set_allocator(&half), PV_E_ARG);
    half.size = sizeof half + 8;
    CHECK_STATUS(pv_set_allocator(&half), PV_E_ARG);
    CHECK_OK(pv_set_allocator(&a));
    rig r = rig_open("synth:tiny", NULL, NULL, 1);
    pv_observation obs = rig_observation(11);
    float actions[CHUNK];
    CHECK_OK(pv_session_infer(r.session, &obs, NULL, actions));
    CHECK(t.blocks == pv_alloc_live() && t.total > t.blocks && !t.odd);
    pv_memory_info m = {.size = sizeof m};
    CHECK_OK(pv_session_memory(r.session, &m));
    uint64_t told =
        m.weights_bytes + m.host_bytes + m.state_bytes + m.scratch_bytes + m.io_bytes + m.const_bytes;
    CHECK(told <= t.bytes);                         /* what it says it holds, it holds */
    CHECK_STATUS(pv_set_allocator(NULL), PV_E_ARG); /* its blocks are out */
    CHECK_TEXT("still in use");
    rig_close(&r);
    CHECK(t.blocks == 0 && t.bytes == 0);
    CHECK_OK(pv_set_allocator(NULL));
}

/* ---- the log ---- */

typedef struct heard {
    int n;
    pv_log_level level;
    char text[64];
} heard;

static void hear(void *user, pv_log_level level, const char *text)
{
    heard *h = user;
    h->n++;
    h->level = level;
    snprintf(h->text, sizeof h->text, "%s", text);
}

static void logging(void)
{
    heard h = {0};
    pv_set_log(hear, &h, PV_LOG_INFO);
    pv_log(PV_LOG_DEBUG, "too quiet");
    CHECK(h.n == 0);
    pv_log(PV_LOG_INFO, "%d of %s", 3, "four");
    CHECK(h.n == 1 && h.level == PV_LOG_INFO && !strcmp(h.text, "3 of four"));
    pv_log(PV_LOG_ERROR, "loud");
    CHECK(h.n == 2 && h.level == PV_LOG_ERROR);
    pv_set_log(hear, &h, PV_LOG_NONE);
    pv_log(PV_LOG_ERROR, "unheard");
    CHECK(h.n == 2);

    FILE *file = tmpfile(); /* in place of stderr */
    int kept = dup(2);
    if (!CHECK(file && kept >= 0))
        return;
    fflush(stderr);
    dup2(fileno(file), 2);
    pv_set_log(NULL, NULL, PV_LOG_WARN);
    pv_log(PV_LOG_INFO, "too quiet");
    pv_log(PV_LOG_WARN, "heed");
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    char line[64] = "", more[8];
    rewind(file);
    CHECK(fgets(line, sizeof line, file) && !strcmp(line, "pivot: warning: heed\n"));
    CHECK(!fgets(more, sizeof more, file));
    fclose(file);
    CHECK(h.n == 2);
}

int main(void)
{
    steady();
    fault_every(load_and_run, "synth:tiny", "a session of synth:tiny");
    fault_every(load_and_run, TINY_F32, "a session of a file");
    survival();
    allocator();
    logging();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
