/* vector.c - the level that every machine of this kind has, and the choice among the levels. */
#define CPU_VECTOR cpu_vector_plain
#define CPU_LEVEL  "plain"
#include "vector_loops.h"

#include <stddef.h>

static bool plain(void)
{
    return true;
}

#ifdef PV_CPU_X86_LEVELS
static bool avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool avx512(void)
{
    return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const cpu_vector *vector;
    bool (*runs)(void);
} levels[] = {
    {&cpu_vector_plain, plain},
#ifdef PV_CPU_X86_LEVELS
    {&cpu_vector_avx2, avx2},
    {&cpu_vector_avx512, avx512},
#endif
};
#define N_LEVELS ((int)(sizeof levels / sizeof *levels))

const cpu_vector *cpu_vector_list(int i)
{
    return i >= 0 && i < N_LEVELS && levels[i].runs() ? levels[i].vector : NULL;
}

const cpu_vector *cpu_vector_best(void)
{
    int i = N_LEVELS - 1;
    while (!levels[i].runs())
        i--;
    return levels[i].vector;
}
