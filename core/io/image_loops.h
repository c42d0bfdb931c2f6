/* image_loops.h - the loops of image_levels.h, for the file that includes this with IMAGE_LEVEL and
 * IMAGE_NAME defined.
 *
 * The bytes of one output column come from places along a row that no register can load at once. So BLOCK
 * rows are turned first: then the bytes of a column are neighbours, rows are lanes, and each lane is one sum.
 * What is not a whole block is done again with part of the block before it, or by itself where there is none.
 */
#include "image_levels.h"

#include <string.h>

enum { BLOCK = PV_IMAGE_BLOCK, TURN = 8 };

#ifndef AS_ONE /* in front of a loop over lanes */
#define AS_ONE
#endif

static inline uint8_t to_u8(int32_t sum)
{
    int v = sum >> PV_IMAGE_WEIGHT_BITS;
    return v > 255 ? 255 : (uint8_t)v; /* rounded weights can sum to a little over one; none is negative */
}

/* Sums of n weighted bytes, `stride` from one to the next, in each of BLOCK lanes. */
static inline void lanes(const uint8_t *restrict src, size_t stride, const int32_t *restrict weight, int n,
                         uint8_t *restrict dst)
{
    int32_t sum[BLOCK];
    AS_ONE for (int l = 0; l < BLOCK; l++) sum[l] = PV_IMAGE_WEIGHT_ROUND;
    for (int k = 0; k < n; k++, src += stride)
        AS_ONE for (int l = 0; l < BLOCK; l++) sum[l] += src[l] * weight[k];
    AS_ONE for (int l = 0; l < BLOCK; l++) dst[l] = to_u8(sum[l]);
}

static inline uint8_t one(const uint8_t *src, size_t stride, const int32_t *weight, int n)
{
    int32_t sum = PV_IMAGE_WEIGHT_ROUND;
    for (int k = 0; k < n; k++)
        sum += src[(size_t)k * stride] * weight[k];
    return to_u8(sum);
}

/* Swaps the bits of `a` from `by` on that `mask` tells with those of `b`. */
static inline void swap_bits(uint64_t *a, uint64_t *b, int by, uint64_t mask)
{
    const uint64_t t = ((*a >> by) ^ *b) & mask;
    *b ^= t;
    *a ^= t << by;
}

/* TURN x TURN bytes: rows become columns. */
static inline void turn8(const uint8_t *src, size_t stride, uint8_t *dst, size_t dst_stride)
{
    uint64_t r[TURN];
    for (int i = 0; i < TURN; i++)
        memcpy(&r[i], src + (size_t)i * stride, TURN);
    for (int i = 0; i < 4; i++)
        swap_bits(&r[i], &r[i + 4], 32, 0x00000000ffffffff);
    for (int i = 0; i < 2; i++) {
        swap_bits(&r[i], &r[i + 2], 16, 0x0000ffff0000ffff);
        swap_bits(&r[i + 4], &r[i + 6], 16, 0x0000ffff0000ffff);
    }
    for (int i = 0; i < TURN; i += 2)
        swap_bits(&r[i], &r[i + 1], 8, 0x00ff00ff00ff00ff);
    for (int i = 0; i < TURN; i++)
        memcpy(dst + (size_t)i * dst_stride, &r[i], TURN);
}

/* [rows][columns] to [columns][rows]; both at least TURN. */
static void turn(const uint8_t *src, size_t stride, size_t rows, size_t columns, uint8_t *dst,
                 size_t dst_stride)
{
    for (size_t x = 0; x < columns; x += TURN) {
        const size_t column = x + TURN <= columns ? x : columns - TURN;
        for (size_t y = 0; y < rows; y += TURN) {
            const size_t row = y + TURN <= rows ? y : rows - TURN;
            turn8(src + row * stride + column, stride, dst + column * dst_stride + row, dst_stride);
        }
    }
}

static void horizontal_row(const pv_image_axis *a, const uint8_t *src, uint8_t *dst)
{
    for (int i = 0; i < a->out; i++)
        for (int c = 0; c < PV_IMAGE_CHANNELS; c++)
            *dst++ = one(src + (size_t)a->first[i] * PV_IMAGE_CHANNELS + c, PV_IMAGE_CHANNELS,
                         a->weight + (size_t)i * a->taps, a->n[i]);
}

static void horizontal(const pv_image_axis *a, const uint8_t *src, size_t stride, int rows, uint8_t *work,
                       uint8_t *dst, size_t dst_stride)
{
    const size_t in = (size_t)a->in * PV_IMAGE_CHANNELS, out = (size_t)a->out * PV_IMAGE_CHANNELS;
    uint8_t *made = work + in * BLOCK;
    if (rows < BLOCK || in < TURN || out < TURN) {
        for (int y = 0; y < rows; y++)
            horizontal_row(a, src + (size_t)y * stride, dst + (size_t)y * dst_stride);
        return;
    }
    for (int y = 0; y < rows; y += BLOCK) {
        const size_t row = (size_t)(y + BLOCK <= rows ? y : rows - BLOCK);
        turn(src + row * stride, stride, BLOCK, in, work, BLOCK);
        for (int i = 0; i < a->out; i++)
            for (int c = 0; c < PV_IMAGE_CHANNELS; c++)
                lanes(work + ((size_t)a->first[i] * PV_IMAGE_CHANNELS + (size_t)c) * BLOCK,
                      PV_IMAGE_CHANNELS * BLOCK, a->weight + (size_t)i * a->taps, a->n[i],
                      made + ((size_t)i * PV_IMAGE_CHANNELS + (size_t)c) * BLOCK);
        turn(made, BLOCK, out, BLOCK, dst + row * dst_stride, dst_stride);
    }
}

static void vertical(const pv_image_axis *a, const uint8_t *src, size_t stride, size_t n, uint8_t *dst,
                     size_t dst_stride)
{
    for (int i = 0; i < a->out; i++, dst += dst_stride) {
        const uint8_t *from = src + (size_t)a->first[i] * stride;
        const int32_t *weight = a->weight + (size_t)i * a->taps;
        if (n < BLOCK)
            for (size_t c = 0; c < n; c++)
                dst[c] = one(from + c, stride, weight, a->n[i]);
        else
            for (size_t c = 0; c < n; c += BLOCK) {
                const size_t at = c + BLOCK <= n ? c : n - BLOCK;
                lanes(from + at, stride, weight, a->n[i], dst + at);
            }
    }
}

const pv_image_level IMAGE_LEVEL = {IMAGE_NAME, horizontal, vertical};
