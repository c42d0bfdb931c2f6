/* thread.h - a pool that runs numbered tasks. Which thread runs a task is left open, what a task computes must not
 * depend on it: so results are the same for any number of threads. */
#ifndef PV_BASE_THREAD_H
#define PV_BASE_THREAD_H

#include "status.h"

typedef struct pv_pool pv_pool;
typedef void (*pv_task_fn)(void *user, int64_t task, int worker); /* worker: 0 .. threads - 1, one task at a time each */

int pv_cpu_count(void); /* cores this process may use, at least 1 */

pv_status pv_pool_create(int threads, pv_pool **out); /* 0: pv_cpu_count(); the caller of run is one of them */
void pv_pool_destroy(pv_pool **pool);
int pv_pool_threads(const pv_pool *pool);

/* Runs tasks 0 .. n - 1 and returns when all are done. Allocates nothing. Callers from several threads take turns. */
void pv_pool_run(pv_pool *pool, int64_t n, pv_task_fn fn, void *user);

#endif
