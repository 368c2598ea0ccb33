/*
 * From a frame to the model's picture: what the files of this part know of each other.
 *
 * frame -> strips of 16 upright rows -> horizontal pass -> ring of rows -> vertical pass ->
 * picture. Between the passes are 8 bits, as in Pillow, whose bits come out. A lane of a strip or
 * of the ring has the next four inputs of a sum: columns in a strip, rows in the ring.
 */
#ifndef PICTURE_H
#define PICTURE_H

#include "library.h"

#if defined(__AVX512BW__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

enum {
    TAPS = 4,
    TILE_BYTES = 16,
    LANES = 16, /* upright rows of a strip */
    LANES_BYTES = LANES * TAPS,
    STEP_BYTES = CHANNELS * LANES_BYTES, /* four columns of a strip */
    BLOCK_COLUMNS = 64,                  /* of a frame, that are read at once */
    BLOCK_BYTES = LANES * BLOCK_COLUMNS * 4, /* to read a block: copies of its rows */
    IMAGE_ROW_BYTES = CHANNELS * CODE(IMAGE_SIZE),
    PITCH = ((CODE(IMAGE_SIZE) + TAPS - 1) / TAPS * TAPS * CHANNELS + VECTOR_BYTES - 1) /
            VECTOR_BYTES * VECTOR_BYTES * TAPS /* of four rows in the ring */
};

/*
 * One pass of the resize, cut to the outputs that the crop keeps: output i is the sum of inputs
 * first[i] + k times weights, k < count, in 22 bits behind the point. first and count are multiples
 * of four, and so weights of 0 are among them. They begin at weights[i * room], and are split, four
 * at a time.
 */
typedef struct {
    int32_t room, count;
    int32_t *first, *weights;
} pass;

/* How many inputs an output is made of at most, from `length` to `resized` pixels: the `room`. */
HIDDEN int32_t NAME(pass_room)(int32_t length, int32_t resized);

/*
 * Fills the tables at p->first ...: outputs start .. start + IMAGE_SIZE - 1 of `resized`, made of
 * `length` inputs. `reversed`: inputs are numbered from the other end. `terms`: p->room doubles.
 */
HIDDEN void NAME(pass_plan)(pass *p, int32_t length, int32_t resized, int32_t start, int reversed,
                            double *terms);

/* A strip that begins with input `origin` -> its 16 rows in the ring, four at each of `rows`. */
HIDDEN void NAME(horizontal_pass)(const pass *p, const uint8_t *strip, int32_t origin,
                                  uint8_t *const rows[LANES / TAPS]);

/* Rows [first, end) of the picture; input y is row y % ring_rows of the ring. */
HIDDEN void NAME(vertical_pass)(const pass *p, int32_t first, int32_t end, const uint8_t *ring,
                                int32_t ring_rows, uint8_t *picture);

/* How to read a frame; `turned`: its columns are the lanes. */
typedef struct {
    const NAME(frame) *frame;
    int turned;
    uint8_t *memory;              /* BLOCK_BYTES */
    uint8_t channels[TILE_BYTES]; /* where the colours of four pixels of RGB are */
    uint8_t places[TILE_BYTES];   /* where the pixels of a tile are, in the order of a strip */
} reader;

HIDDEN void NAME(reader_start)(reader *r, const NAME(frame) *f, int turned, uint8_t *memory);

/*
 * 16 rows from `y` and 16 to 64 columns from `x` on, all multiples of 16; what lies beyond the
 * frame is 0 or the last row. Into the steps of a strip; or, turned, four steps into each of up to
 * four strips that lie `strip_bytes` apart.
 */
HIDDEN void NAME(read_block)(const reader *r, int32_t y, int32_t x, int32_t columns,
                             uint8_t *strips, size_t strip_bytes);

#if HAS_ANSWERS
/* The `count` best classes in order, with their probabilities. */
HIDDEN void NAME(best)(const float *logits, NAME(answer) *answers, int count);
#endif

#endif
