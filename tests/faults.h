/* faults.h - making allocations fail on purpose: ours through pv_set_allocator, cJSON's through its hooks.
 * The k-th one fails and all before and after it succeed, which finds more than failing for good. */
#ifndef PV_TESTS_FAULTS_H
#define PV_TESTS_FAULTS_H

#include "base/memory.h"
#include "tests/test.h"
#include <cjson/cJSON.h>
#include <stdatomic.h>

static atomic_long fault_countdown = -1; /* allocations that still succeed; -1: all do */

static inline bool fault_now(void)
{
    return fault_countdown >= 0 && fault_countdown-- == 0; /* several threads may ask */
}

static void *fault_alloc(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return fault_now() ? NULL : aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void fault_release(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static void *fault_malloc(size_t bytes)
{
    return fault_now() ? NULL : malloc(bytes);
}

/* Runs `attempt` with the k-th allocation failing, for every k until one run meets no failure. Each run must
 * answer PV_E_MEMORY and leave nothing allocated; the last must answer PV_OK. `attempt` frees what it got. */
static inline void fault_every(pv_status (*attempt)(void *), void *user, const char *what)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    cJSON_Hooks hooks = {fault_malloc, free};
    cJSON_InitHooks(&hooks);
    CHECK_OK(pv_set_allocator(&failing));
    long k = 0;
    for (bool met = true; met && k < 100000; k++) {
        fault_countdown = k;
        const pv_status st = attempt(user);
        met = fault_countdown < 0;
        fault_countdown = -1;
        if (!CHECK_STATUS(st, met ? PV_E_MEMORY : PV_OK) || !CHECK(pv_alloc_live() == 0)) {
            printf("    %s, allocation %ld\n", what, k);
            break;
        }
        if (met)
            CHECK_TEXT("memory");
    }
    printf("%s: each of %ld allocations failed once\n", what, k - 1);
    CHECK(k > 1);
    CHECK_OK(pv_set_allocator(NULL));
    cJSON_InitHooks(NULL);
}

#endif
