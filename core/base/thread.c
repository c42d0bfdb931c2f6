#define _GNU_SOURCE
#include "thread.h"
#include "memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define MAX_THREADS 256

struct pv_pool {
    int threads, started;
    pthread_mutex_t turn;       /* held by the caller whose tasks run */
    pthread_mutex_t lock;       /* guards what follows, except `next` */
    pthread_cond_t work, done;
    uint64_t job;               /* grows with every run */
    bool quit;
    int busy;                   /* workers that have not finished this job */
    int64_t n;
    atomic_llong next;
    pv_task_fn fn;
    void *user;
    struct worker {
        pv_pool *pool;
        int index;
        pthread_t thread;
    } worker[MAX_THREADS];
};

int pv_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

static void drain(pv_pool *p, int worker)
{
    for (int64_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n;)
        p->fn(p->user, i, worker);
}

static void *loop(void *arg)
{
    struct worker *w = arg;
    pv_pool *p = w->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->quit && p->job == seen)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->quit)
            break;
        seen = p->job;
        pthread_mutex_unlock(&p->lock);
        drain(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

pv_status pv_pool_create(int threads, pv_pool **out)
{
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return pv_fail(PV_E_ARG, "threads: expected 0 to %d, came %d", MAX_THREADS, threads);
    pv_pool *p = pv_alloc_zero(sizeof *p);
    if (!p)
        return PV_E_MEMORY;
    p->threads = threads ? threads : pv_cpu_count();
    pthread_mutex_init(&p->turn, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < p->threads; i++) {
        p->worker[i] = (struct worker){.pool = p, .index = i};
        if (pthread_create(&p->worker[i].thread, NULL, loop, &p->worker[i])) {
            const int wanted = p->threads;
            pv_pool_destroy(&p);
            return pv_fail(PV_E_MEMORY, "out of memory or threads: could not start thread %d of %d", i + 1, wanted);
        }
        p->started = i;
    }
    *out = p;
    return PV_OK;
}

void pv_pool_destroy(pv_pool **pool)
{
    pv_pool *p = *pool;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->turn);
    pv_free(p);
    *pool = NULL;
}

int pv_pool_threads(const pv_pool *pool)
{
    return pool->threads;
}

void pv_pool_run(pv_pool *p, int64_t n, pv_task_fn fn, void *user)
{
    pthread_mutex_lock(&p->turn);
    if (n == 1 || p->threads == 1) {
        for (int64_t i = 0; i < n; i++)
            fn(user, i, 0);
    } else if (n > 1) {
        pthread_mutex_lock(&p->lock);
        p->n = n;
        p->fn = fn;
        p->user = user;
        atomic_store(&p->next, 0);
        p->busy = p->started;
        p->job++;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        drain(p, 0);
        pthread_mutex_lock(&p->lock);
        while (p->busy)
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->turn);
}
