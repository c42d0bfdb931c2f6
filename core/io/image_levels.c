/* image_levels.c - the level that every machine of this kind has, and the choice among the levels. */
#define IMAGE_LEVEL pv_image_plain
#define IMAGE_NAME  "plain"
#include "image_loops.h"

static bool plain(void)
{
    return true;
}

#ifdef PV_IMAGE_X86_LEVELS
static bool avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const pv_image_level *level;
    bool (*runs)(void);
} levels[] = {
    {&pv_image_plain, plain},
#ifdef PV_IMAGE_X86_LEVELS
    {&pv_image_avx2, avx2},
    {&pv_image_avx512, avx512},
#endif
};
#define N_LEVELS ((int)(sizeof levels / sizeof *levels))

const pv_image_level *pv_image_level_list(int i)
{
    return i >= 0 && i < N_LEVELS && levels[i].runs() ? levels[i].level : NULL;
}

const pv_image_level *pv_image_level_best(void)
{
    int i = N_LEVELS - 1;
    while (!levels[i].runs())
        i--;
    return levels[i].level;
}
