/*
 * Vectors of the CPU's width: the operations that compilers do not find by themselves.
 *
 * A lane of 32 bits has four bytes, which are multiplied by four weights and added up. A weight of
 * up to 23 bits is split into pieces that the CPU multiplies fastest, whose sums are put together
 * at the end. Everything is modulo 2^32, where the split is exact.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include "picture.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

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
 * All that follows acts on each 16 bytes of a vector by itself.
 *
 * load_apart: 16 bytes from `from`, the next 16 of the vector from `stride` further on, ...
 * repeated: 16 bytes, which every 16 become.
 * shuffled: byte i becomes byte order[i], or 0 where order[i] is 0x80.
 * packed: lanes as bytes, below 0 as 0, above 255 as 255; all lanes of a, then of b, c, d.
 * clipped: the same of lanes with 20 bits behind the point; a's and b's in turns, then c's and d's.
 * LOW_INTS(a, b): the first two lanes of each in turns; HIGH_INTS: the last two; or 16 and 64 bits.
 */
#if defined(__x86_64__)

#if VECTOR_BYTES == 64
typedef __m512i native;
#define OP(name) _mm512_##name
#define REPEATED(v) _mm512_broadcast_i32x4(v)
#define EVEN_AND_ODD(a, b) _mm512_mask_blend_epi16(0xaaaaaaaa, a, b)
#elif VECTOR_BYTES == 32
typedef __m256i native;
#define OP(name) _mm256_##name
#define REPEATED(v) _mm256_broadcastsi128_si256(v)
#define EVEN_AND_ODD(a, b) _mm256_blend_epi16(a, b, 0xaa)
#else
typedef __m128i native;
#define OP(name) _mm_##name
#define REPEATED(v) (v)
#define EVEN_AND_ODD(a, b) _mm_blend_epi16(a, b, 0xaa)
#endif

#if defined(__AVX512VNNI__)
#define DOT(kind, sum, v, weights) \
    (ints)_mm512_dp##kind##_epi32((native)(sum), (native)(v), OP(set1_epi32)(weights))
#elif defined(__AVXVNNI__)
#define DOT(kind, sum, v, weights) \
    (ints)_mm256_dp##kind##_avx_epi32((native)(sum), (native)(v), OP(set1_epi32)(weights))
#endif

static inline __m128i load_16(const uint8_t *from)
{
    return _mm_loadu_si128((const void *)from);
}

static inline bytes load_apart(const uint8_t *from, ptrdiff_t stride)
{
#if VECTOR_BYTES == 64
    __m512i v = _mm512_castsi128_si512(load_16(from));
    v = _mm512_inserti32x4(v, load_16(from + stride), 1);
    v = _mm512_inserti32x4(v, load_16(from + 2 * stride), 2);
    return (bytes)_mm512_inserti32x4(v, load_16(from + 3 * stride), 3);
#elif VECTOR_BYTES == 32
    return (bytes)_mm256_inserti128_si256(_mm256_castsi128_si256(load_16(from)),
                                          load_16(from + stride), 1);
#else
    (void)stride;
    return load(from);
#endif
}

static inline bytes repeated(const uint8_t from[TILE_BYTES])
{
    return (bytes)REPEATED(load_16(from));
}

static inline bytes shuffled(bytes v, bytes order)
{
    return (bytes)OP(shuffle_epi8)((native)v, (native)order);
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    return (bytes)OP(packus_epi16)(OP(packs_epi32)((native)a, (native)b),
                                   OP(packs_epi32)((native)c, (native)d));
}

static inline native upper_halves(ints a, ints b)
{
    return EVEN_AND_ODD(OP(srli_epi32)((native)a, 16), (native)b);
}

static inline bytes clipped(ints a, ints b, ints c, ints d)
{
    return (bytes)OP(packus_epi16)(OP(srai_epi16)(upper_halves(a, b), 4),
                                   OP(srai_epi16)(upper_halves(c, d), 4));
}

#define UNPACKED(part, a, b) (bytes)OP(unpack##part)((native)(a), (native)(b))
#define LOW_SHORTS(a, b) UNPACKED(lo_epi16, a, b)
#define HIGH_SHORTS(a, b) UNPACKED(hi_epi16, a, b)
#define LOW_INTS(a, b) UNPACKED(lo_epi32, a, b)
#define HIGH_INTS(a, b) UNPACKED(hi_epi32, a, b)
#define LOW_LONGS(a, b) UNPACKED(lo_epi64, a, b)
#define HIGH_LONGS(a, b) UNPACKED(hi_epi64, a, b)

#else

static inline bytes load_apart(const uint8_t *from, ptrdiff_t stride)
{
    (void)stride;
    return load(from);
}

static inline bytes repeated(const uint8_t from[TILE_BYTES])
{
    return load(from);
}

static inline bytes shuffled(bytes v, bytes order)
{
#ifdef __aarch64__
    return (bytes)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)order);
#else
    uint8x8x2_t halves = {{vget_low_u8((uint8x16_t)v), vget_high_u8((uint8x16_t)v)}};
    return (bytes)vcombine_u8(vtbl2_u8(halves, vget_low_u8((uint8x16_t)order)),
                              vtbl2_u8(halves, vget_high_u8((uint8x16_t)order)));
#endif
}

static inline bytes packed(ints a, ints b, ints c, ints d)
{
    int16x8_t ab = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    int16x8_t cd = vcombine_s16(vqmovn_s32((int32x4_t)c), vqmovn_s32((int32x4_t)d));
    return (bytes)vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd));
}

static inline bytes clipped(ints a, ints b, ints c, ints d)
{
    int16x8_t ab = vtrnq_s16((int16x8_t)a, (int16x8_t)b).val[1];
    int16x8_t cd = vtrnq_s16((int16x8_t)c, (int16x8_t)d).val[1];
    return (bytes)vcombine_u8(vqshrun_n_s16(ab, 4), vqshrun_n_s16(cd, 4));
}

typedef uint16_t shorts __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t longs __attribute__((vector_size(VECTOR_BYTES)));
#define PICKED(type, a, b, ...) (bytes)__builtin_shufflevector((type)(a), (type)(b), __VA_ARGS__)
#define LOW_SHORTS(a, b) PICKED(shorts, a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_SHORTS(a, b) PICKED(shorts, a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW_INTS(a, b) PICKED(ints, a, b, 0, 4, 1, 5)
#define HIGH_INTS(a, b) PICKED(ints, a, b, 2, 6, 3, 7)
#define LOW_LONGS(a, b) PICKED(longs, a, b, 0, 2)
#define HIGH_LONGS(a, b) PICKED(longs, a, b, 1, 3)

#endif

/*
 * factors: of each 16, four bytes: `first`, the one `step` further on, ...
 * plus_product: sum + these times a weight of up to 22 bits, as byte_weight gives it.
 */
#if defined(__x86_64__)

static inline ints factors(bytes v, int first, int step) /* times 128, and times 1 */
{
    uint8_t order[TILE_BYTES];
    for (int i = 0; i < TILE_BYTES; i++)
        order[i] = i % 4 == 3 ? 0x80 : (uint8_t)(first + i / 4 * step);
    return (ints)OP(maddubs_epi16)((native)shuffled(v, repeated(order)),
                                   OP(set1_epi32)(0x00014040));
}

static inline int32_t byte_weight(int32_t weight)
{
    return (weight >> 7 & 0xffff) | (weight & 127) << 16;
}

static inline ints plus_product(ints sum, ints factor, int32_t weight)
{
#ifdef DOT
    return DOT(wssd, sum, factor, weight);
#else
    return sum + (ints)OP(madd_epi16)((native)factor, OP(set1_epi32)(weight));
#endif
}

#else

static inline ints factors(bytes v, int first, int step)
{
    uint8_t order[TILE_BYTES];
    for (int i = 0; i < TILE_BYTES; i++)
        order[i] = i % 4 ? 0x80 : (uint8_t)(first + i / 4 * step);
    return (ints)shuffled(v, repeated(order));
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
#ifdef DOT

typedef struct {
    ints low, middle, high;
} sums;

typedef int32_t tile_of_ints __attribute__((vector_size(TILE_BYTES)));
typedef uint8_t tile_of_bytes __attribute__((vector_size(TILE_BYTES)));

static inline void split(int32_t weights[TAPS]) /* signed bytes */
{
    tile_of_ints v;
    __builtin_memcpy(&v, weights, sizeof v);
    tile_of_bytes digits = (tile_of_bytes)((v + 0x808080) ^ 0x808080);
    tile_of_bytes pieces = __builtin_shufflevector(digits, digits, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
                                                   10, 14, 3, 7, 11, 15);
    __builtin_memcpy(weights, &pieces, sizeof pieces);
}

static inline void add_products(sums *s, bytes v, const int32_t pieces[TAPS])
{
    s->low = DOT(busd, s->low, v, pieces[0]);
    s->middle = DOT(busd, s->middle, v, pieces[1]);
    s->high = DOT(busd, s->high, v, pieces[2]);
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
    return (ints)OP(madd_epi16)((native)v, OP(set1_epi32)(pair));
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

#endif
