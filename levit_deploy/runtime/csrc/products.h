/*
 * 16 lanes of sums of products of bytes and weights, in whatever registers the CPU has.
 *
 * Bytes come in pairs, two inputs for each lane, since x86 multiplies 16-bit pairs fastest: a
 * weight of up to 24 bits is split into its low 15 bits and the rest, whose sums are put together
 * at the end. Everything is modulo 2^32, where the split is exact. Other CPUs multiply 32 bits.
 */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "vectors.h"

typedef int32_t ints_x16 __attribute__((vector_size(64), aligned(16)));

static inline bytes_x32 load_pairs(const uint8_t *from)
{
    bytes_x32 v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

#if defined(__x86_64__)

#include <immintrin.h> /* slow to read: for this file alone */

#if defined(__AVX512BW__)
typedef __m512i part;
#define WIDENED(bytes) _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(bytes)))
#define IN_ALL_LANES _mm512_set1_epi32
#ifdef __AVX512VNNI__
#define ADD_PAIRS _mm512_dpwssd_epi32
#else
#define ADD_PAIRS(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#endif
#elif defined(__AVX2__)
typedef __m256i part;
#define WIDENED(bytes) _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(bytes)))
#define IN_ALL_LANES _mm256_set1_epi32
#ifdef __AVXVNNI__
#define ADD_PAIRS _mm256_dpwssd_avx_epi32
#else
#define ADD_PAIRS(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#endif
#else
typedef __m128i part;
#define WIDENED(bytes) _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)(bytes)))
#define IN_ALL_LANES _mm_set1_epi32
#define ADD_PAIRS(sum, a, b) _mm_add_epi32(sum, _mm_madd_epi16(a, b))
#endif

typedef int32_t ints __attribute__((vector_size(sizeof(part))));
enum { PARTS = 64 / sizeof(part) };

typedef struct {
    ints low[PARTS], high[PARTS];
} sums;

/* The weights of a pair, as `add_products` wants them: two numbers. */
static inline void pack_weights(int32_t first, int32_t second, int32_t packed[2])
{
    packed[0] = (int32_t)((uint32_t)(first & 0x7fff) | (uint32_t)(second & 0x7fff) << 16);
    packed[1] = (int32_t)((uint32_t)(first >> 15 & 0xffff) | (uint32_t)(second >> 15) << 16);
}

static inline void add_products(sums *s, bytes_x32 pairs, const int32_t packed[2])
{
    const part low = IN_ALL_LANES(packed[0]), high = IN_ALL_LANES(packed[1]);
    const uint8_t *bytes = (const uint8_t *)&pairs;
    for (int i = 0; i < PARTS; i++) {
        part inputs = WIDENED(bytes + i * (PAIR_BYTES / PARTS));
        s->low[i] = (ints)ADD_PAIRS((part)s->low[i], inputs, low);
        s->high[i] = (ints)ADD_PAIRS((part)s->high[i], inputs, high);
    }
}

static inline ints_x16 total(const sums *s)
{
    ints whole[PARTS];
    for (int i = 0; i < PARTS; i++)
        whole[i] = s->low[i] + (s->high[i] << 15);
    ints_x16 v;
    __builtin_memcpy(&v, whole, sizeof v);
    return v;
}

#else

typedef struct {
    ints_x16 all;
} sums;

static inline void pack_weights(int32_t first, int32_t second, int32_t packed[2])
{
    packed[0] = first;
    packed[1] = second;
}

static inline void add_products(sums *s, bytes_x32 pairs, const int32_t packed[2])
{
    bytes_x16 first = __builtin_shufflevector(pairs, pairs, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20,
                                              22, 24, 26, 28, 30);
    bytes_x16 second = __builtin_shufflevector(pairs, pairs, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21,
                                               23, 25, 27, 29, 31);
    s->all += __builtin_convertvector(first, ints_x16) * packed[0];
    s->all += __builtin_convertvector(second, ints_x16) * packed[1];
}

static inline ints_x16 total(const sums *s)
{
    return s->all;
}

#endif

#endif
