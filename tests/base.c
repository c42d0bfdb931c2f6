/* base.c - of the pool: tasks run once each, callers take turns, nothing is allocated while running; arena and error words. */
#include "base/arena.h"
#include "base/memory.h"
#include "base/thread.h"
#include "tests/test.h"

#include <pthread.h>

typedef struct tally {
    int hits[1000], worker[1000];
} tally;

static void mark(void *user, int64_t i, int worker)
{
    tally *t = user;
    t->hits[i]++;
    t->worker[i] = worker;
}

static bool ran_once(pv_pool *p, int n)
{
    static _Thread_local tally t;
    memset(&t, 0, sizeof t);
    pv_pool_run(p, n, mark, &t);
    bool ok = true;
    for (int i = 0; i < 1000; i++)
        ok &= t.hits[i] == (i < n) && t.worker[i] >= 0 && t.worker[i] < pv_pool_threads(p);
    return ok;
}

static void *other_caller(void *pool)
{
    bool ok = true;
    for (int i = 0; i < 300; i++)
        ok &= ran_once(pool, i);
    return ok ? pool : NULL;
}

static void pools(void)
{
    for (int threads = 1; threads <= 4; threads++) {
        pv_pool *p = NULL;
        CHECK_OK(pv_pool_create(threads, &p));
        CHECK(pv_pool_threads(p) == threads);
        int64_t before = pv_alloc_count();
        CHECK(ran_once(p, 0) && ran_once(p, 1) && ran_once(p, 2) && ran_once(p, 1000));
        pthread_t thread;
        void *ok = NULL;
        CHECK(!pthread_create(&thread, NULL, other_caller, p));
        CHECK(other_caller(p) == p);
        pthread_join(thread, &ok);
        CHECK(ok == p);
        CHECK(pv_alloc_count() == before);
        pv_pool_destroy(&p);
        pv_pool_destroy(&p);
    }
    pv_pool *p = NULL;
    CHECK_OK(pv_pool_create(0, &p));
    CHECK(pv_pool_threads(p) == pv_cpu_count());
    pv_pool_destroy(&p);
    CHECK_STATUS(pv_pool_create(-1, &p), PV_E_ARG);
    CHECK_STATUS(pv_pool_create(100000, &p), PV_E_ARG);
    CHECK_TEXT("came 100000");
    CHECK(!p);
}

static void arenas(void)
{
    pv_arena a = {0};
    unsigned char *last = NULL;
    for (size_t n = 1; n < 200000; n = n * 3 + 1) {
        unsigned char *p = pv_arena_alloc(&a, n);
        CHECK(p && (uintptr_t)p % _Alignof(max_align_t) == 0 && !p[0] && !p[n - 1]);
        memset(p, 0xff, n);
        CHECK(!last || *last == 0xff);
        last = p;
    }
    CHECK(!strcmp(pv_arena_printf(&a, "%s.%d", "layer", 3), "layer.3"));
    CHECK(!pv_arena_alloc(&a, SIZE_MAX) && !pv_arena_alloc(&a, SIZE_MAX / 3));
    CHECK_TEXT("out of memory");
    pv_arena_free(&a);
    CHECK(!a.last && !a.bytes);
}

static void words(void)
{
    CHECK_STATUS(pv_fail(PV_E_FILE, "file '%s'", "x"), PV_E_FILE);
    CHECK_STATUS(pv_fail(PV_E_ARG, "outer: %s", pv_error_text()), PV_E_ARG); /* its own words as an argument */
    CHECK(!strcmp(pv_error_text(), "outer: file 'x'"));
    CHECK_STATUS(pv_fail_in(PV_E_FILE, "model %d", 3), PV_E_FILE);
    CHECK(!strcmp(pv_error_text(), "model 3: outer: file 'x'"));
    CHECK_OK(pv_fail_in(PV_OK, "not said"));
    CHECK(!strstr(pv_error_text(), "not said"));
    char longer[5000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    pv_fail(PV_E_ARG, "%s", longer);
    pv_fail_in(PV_E_ARG, "front");
    CHECK(!strncmp(pv_error_text(), "front: aaa", 10) && strlen(pv_error_text()) < 2048);
    CHECK(!strcmp(pv_status_name((pv_status)999), "E_UNKNOWN") && !strcmp(pv_status_name(PV_OK), "OK"));
}

static void *count_blocks(void *user, size_t bytes, size_t alignment)
{
    ++*(int *)user;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void return_block(void *user, void *memory)
{
    --*(int *)user;
    free(memory);
}

static void allocators(void)
{
    int blocks = 0;
    CHECK_STATUS(pv_set_allocator(&(pv_allocator){sizeof(pv_allocator), &blocks, count_blocks, NULL}), PV_E_ARG);
    CHECK_OK(pv_set_allocator(&(pv_allocator){sizeof(pv_allocator), &blocks, count_blocks, return_block}));
    void *p = pv_alloc_zero(0);
    CHECK(p && blocks == 1 && (uintptr_t)p % PV_ALIGN == 0);
    CHECK_STATUS(pv_set_allocator(NULL), PV_E_ARG); /* not while a block is out */
    CHECK_TEXT("still in use");
    pv_free(p);
    pv_free(NULL);
    CHECK(blocks == 0);
    CHECK(!pv_alloc(pv_mul_size(SIZE_MAX / 2, 3)) && !pv_strdup(NULL));
    CHECK_OK(pv_set_allocator(NULL));
}

int main(void)
{
    pools();
    arenas();
    words();
    allocators();
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
