/* hash.h - FNV-1a of 64 bits: tells things apart that nobody forges. */
#ifndef PV_BASE_HASH_H
#define PV_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define PV_FNV1A_START UINT64_C(0xcbf29ce484222325)

/* Goes on from `hash`. */
static inline uint64_t pv_fnv1a(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
