/* 16 lanes of bytes, and of pairs of bytes: two inputs for each lane. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>

enum { LANES = 16, PAIR_BYTES = 2 * LANES };

typedef uint8_t bytes_x16 __attribute__((vector_size(16)));
typedef uint8_t bytes_x32 __attribute__((vector_size(32), aligned(16)));
typedef uint16_t shorts_x8 __attribute__((vector_size(16)));

static inline bytes_x16 load_bytes(const uint8_t *from)
{
    bytes_x16 v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

static inline void store_bytes(uint8_t *to, bytes_x16 v)
{
    __builtin_memcpy(to, &v, sizeof v);
}

/* Lane l gets a[l] and b[l]. */
static inline bytes_x32 pairs_of(bytes_x16 a, bytes_x16 b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                   24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* 16 x 16 bytes: byte j of row i becomes byte i of row j. Pitches in bytes. */
static inline void transpose(const uint8_t *from, ptrdiff_t from_pitch, uint8_t *to,
                             ptrdiff_t to_pitch)
{
    bytes_x16 v[16], w[16];
    for (int i = 0; i < 16; i++)
        v[i] = load_bytes(from + i * from_pitch);
    for (int round = 0; round < 4; round++) { /* interleave row i with row i + 8 */
        for (int i = 0; i < 8; i++) {
            bytes_x32 both = pairs_of(v[i], v[i + 8]);
            __builtin_memcpy(w + 2 * i, &both, sizeof both);
        }
        __builtin_memcpy(v, w, sizeof v);
    }
    for (int i = 0; i < 16; i++)
        store_bytes(to + i * to_pitch, v[i]);
}

/* The same of 8 x 8 pairs of bytes. */
static inline void transpose_pairs(const uint8_t *from, ptrdiff_t from_pitch, uint8_t *to,
                                   ptrdiff_t to_pitch)
{
    shorts_x8 v[8], w[8];
    for (int i = 0; i < 8; i++)
        __builtin_memcpy(&v[i], from + i * from_pitch, sizeof v[i]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            w[2 * i] = __builtin_shufflevector(v[i], v[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            w[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        __builtin_memcpy(v, w, sizeof v);
    }
    for (int i = 0; i < 8; i++)
        __builtin_memcpy(to + i * to_pitch, &v[i], sizeof v[i]);
}

#endif
