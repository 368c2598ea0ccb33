/*
 * Vectors of the CPU's width: the operations that compilers do not find by themselves.
 *
 * A lane of 32 bits has four bytes, which are multiplied by four weights and added up. A weight of
 * up to 23 bits is split into pieces that the CPU multiplies fastest, whose sums are put together
 * at the end. Everything is modulo 2^32, where the split is exact.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#if defined(__AVX512BW__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

enum { TAPS = 4, TILE_BYTES = 16 };

typedef uint8_t bytes __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t unsigned_ints __attribute__((vector_size(VECTOR_BYTES)));

static inline bytes load(const uint8_t *from)
{
    bytes v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(uint8_t *to, bytes v)
{
    __builtin_memcpy(to, &v, sizeof v);
}

/* Byte k of each lane, 0 to 255. */
static inline ints byte_of(bytes v, int k)
{
    return (ints)((unsigned_ints)v >> (8 * k) & 255);
}

/*
 * shuffled: byte i of every 16 becomes byte order[i] of the same 16, or 0 where order[i] is 0x80.
 * packed: lanes as bytes, below 0 as 0, above 255 as 255; of every four lanes of a, b, c, d in turn.
 * Both act on each 16 bytes by itself.
 */
#if VECTOR_BYTES == 64

static inline bytes shuffled(bytes v, const uint8_t order[16])
{
    __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)order));
    return (bytes)_mm512_shuffle_epi8((__m512i)v, all);
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    return (bytes)_mm512_packus_epi16(_mm512_packs_epi32((__m512i)a, (__m512i)b),
                                      _mm512_packs_epi32((__m512i)c, (__m512i)d));
}

#elif VECTOR_BYTES == 32

static inline bytes shuffled(bytes v, const uint8_t order[16])
{
    __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)order));
    return (bytes)_mm256_shuffle_epi8((__m256i)v, all);
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    return (bytes)_mm256_packus_epi16(_mm256_packs_epi32((__m256i)a, (__m256i)b),
                                      _mm256_packs_epi32((__m256i)c, (__m256i)d));
}

#elif defined(__x86_64__)

static inline bytes shuffled(bytes v, const uint8_t order[16])
{
    return (bytes)_mm_shuffle_epi8((__m128i)v, _mm_loadu_si128((const void *)order));
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    return (bytes)_mm_packus_epi16(_mm_packs_epi32((__m128i)a, (__m128i)b),
                                   _mm_packs_epi32((__m128i)c, (__m128i)d));
}

#else

static inline bytes shuffled(bytes v, const uint8_t order[16])
{
#ifdef __aarch64__
    return (bytes)vqtbl1q_u8((uint8x16_t)v, vld1q_u8(order));
#else
    uint8x8x2_t halves = {{vget_low_u8((uint8x16_t)v), vget_high_u8((uint8x16_t)v)}};
    return (bytes)vcombine_u8(vtbl2_u8(halves, vld1_u8(order)), vtbl2_u8(halves, vld1_u8(order + 8)));
#endif
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    int16x8_t ab = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    int16x8_t cd = vcombine_s16(vqmovn_s32((int32x4_t)c), vqmovn_s32((int32x4_t)d));
    return (bytes)vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd));
}

#endif

/*
 * byte_factor: byte k of each lane. plus_product: sum + that times a weight of up to 22 bits, as
 * byte_weight gives it.
 */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

static inline ints byte_factor(bytes v, int k) /* times 128, and times 1 */
{
    uint8_t order[16];
    for (uint8_t i = 0; i < 16; i++)
        order[i] = i % 4 == 3 ? 0x80 : (uint8_t)(i / 4 * 4 + k);
#if VECTOR_BYTES == 64
    return (ints)_mm512_maddubs_epi16((__m512i)shuffled(v, order), _mm512_set1_epi32(0x00014040));
#else
    return (ints)_mm256_maddubs_epi16((__m256i)shuffled(v, order), _mm256_set1_epi32(0x00014040));
#endif
}

static inline int32_t byte_weight(int32_t weight)
{
    return (weight >> 7 & 0xffff) | (weight & 127) << 16;
}

static inline ints plus_product(ints sum, ints factor, int32_t weight)
{
#if VECTOR_BYTES == 64
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)factor, _mm512_set1_epi32(weight));
#else
    return (ints)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)factor, _mm256_set1_epi32(weight));
#endif
}

#else

static inline ints byte_factor(bytes v, int k)
{
    return byte_of(v, k);
}

static inline int32_t byte_weight(int32_t weight)
{
    return weight;
}

static inline ints plus_product(ints sum, ints factor, int32_t weight)
{
    return sum + factor * weight;
}

#endif

/*
 * split: four weights -> their pieces, four numbers. add_products: v times these, into the sums.
 * total: the sums of whole weights.
 */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

typedef struct {
    ints low, middle, high;
} sums;

#if VECTOR_BYTES == 64
#define DOT(sum, v, piece) \
    (ints)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(v), _mm512_set1_epi32(piece))
#else
#define DOT(sum, v, piece) \
    (ints)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(v), _mm256_set1_epi32(piece))
#endif

static inline void split(int32_t weights[TAPS]) /* signed bytes */
{
    uint32_t pieces[TAPS] = {0};
    for (int k = 0; k < TAPS; k++)
        for (int i = 0; i < 3; i++) {
            int8_t piece = (int8_t)weights[k];
            pieces[i] |= (uint32_t)(uint8_t)piece << (8 * k);
            weights[k] = (weights[k] - piece) >> 8;
        }
    __builtin_memcpy(weights, pieces, sizeof pieces);
}

static inline void add_products(sums *s, bytes v, const int32_t pieces[TAPS])
{
    s->low = DOT(s->low, v, pieces[0]);
    s->middle = DOT(s->middle, v, pieces[1]);
    s->high = DOT(s->high, v, pieces[2]);
}

static inline ints total(const sums *s)
{
    return s->low + (s->middle << 8) + (s->high << 16);
}

#elif defined(__x86_64__)

typedef struct {
    ints low, high;
} sums;

typedef uint16_t shorts __attribute__((vector_size(VECTOR_BYTES)));

static inline ints multiplied(shorts v, int32_t pair)
{
#if VECTOR_BYTES == 64
    return (ints)_mm512_madd_epi16((__m512i)v, _mm512_set1_epi32(pair));
#elif VECTOR_BYTES == 32
    return (ints)_mm256_madd_epi16((__m256i)v, _mm256_set1_epi32(pair));
#else
    return (ints)_mm_madd_epi16((__m128i)v, _mm_set1_epi32(pair));
#endif
}

static inline void split(int32_t weights[TAPS]) /* 15 bits, and the rest, of every other one */
{
    for (int k = 0; k < 2; k++) {
        int32_t first = weights[k], second = weights[k + 2];
        weights[k] = (first & 0x7fff) | (second & 0x7fff) << 16;
        weights[k + 2] = (int32_t)((first >> 15 & 0xffff) | (uint32_t)(second >> 15) << 16);
    }
}

static inline void add_products(sums *s, bytes v, const int32_t pieces[TAPS])
{
    shorts even = (shorts)v & 255, odd = (shorts)v >> 8;
    s->low += multiplied(even, pieces[0]) + multiplied(odd, pieces[1]);
    s->high += multiplied(even, pieces[2]) + multiplied(odd, pieces[3]);
}

static inline ints total(const sums *s)
{
    return s->low + (s->high << 15);
}

#elif defined(__ARM_FEATURE_DOTPROD)

typedef struct {
    ints low, middle, high, bytes;
} sums;

enum { POSITIVE = 1 << 22 }; /* added to weights, whose bytes then have no sign */

static inline ints dot(ints sum, bytes v, uint32_t pieces)
{
    return (ints)vdotq_u32((uint32x4_t)sum, (uint8x16_t)v, vreinterpretq_u8_u32(vdupq_n_u32(pieces)));
}

static inline void split(int32_t weights[TAPS])
{
    uint32_t pieces[TAPS] = {0};
    for (int k = 0; k < TAPS; k++)
        for (int i = 0; i < 3; i++)
            pieces[i] |= ((uint32_t)(weights[k] + POSITIVE) >> (8 * i) & 255) << (8 * k);
    __builtin_memcpy(weights, pieces, sizeof pieces);
}

static inline void add_products(sums *s, bytes v, const int32_t pieces[TAPS])
{
    s->low = dot(s->low, v, (uint32_t)pieces[0]);
    s->middle = dot(s->middle, v, (uint32_t)pieces[1]);
    s->high = dot(s->high, v, (uint32_t)pieces[2]);
    s->bytes = dot(s->bytes, v, 0x01010101);
}

static inline ints total(const sums *s)
{
    return s->low + (s->middle << 8) + (s->high << 16) - s->bytes * POSITIVE;
}

#else

typedef struct {
    ints low;
} sums;

static inline void split(int32_t weights[TAPS])
{
    (void)weights;
}

static inline void add_products(sums *s, bytes v, const int32_t pieces[TAPS])
{
    for (int k = 0; k < TAPS; k++)
        s->low += byte_of(v, k) * pieces[k];
}

static inline ints total(const sums *s)
{
    return s->low;
}

#endif

/* Four rows of 16 bytes, which are turned: lanes i of all rows become row i. */
typedef uint16_t tile_of_shorts __attribute__((vector_size(TILE_BYTES)));
typedef uint32_t tile_of_ints __attribute__((vector_size(TILE_BYTES)));
typedef uint64_t tile_of_longs __attribute__((vector_size(TILE_BYTES)));

#define LOW_SHORTS(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_SHORTS(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW_INTS(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH_INTS(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define LOW_LONGS(a, b) __builtin_shufflevector((tile_of_longs)(a), (tile_of_longs)(b), 0, 2)
#define HIGH_LONGS(a, b) __builtin_shufflevector((tile_of_longs)(a), (tile_of_longs)(b), 1, 3)

#endif
