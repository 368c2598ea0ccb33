/*
 * From a frame to the model's picture: what the files of this part know of each other.
 *
 * frame -> strips of 16 upright rows, a byte for each lane -> horizontal pass -> ring of rows ->
 * vertical pass -> picture. Between the passes are 8 bits, as in Pillow, whose bits come out.
 */
#ifndef PICTURE_H
#define PICTURE_H

#include "library.h"
#include "vectors.h"

enum {
    STRIP_COLUMNS = 64, /* pixels that are read at once */
    IMAGE_ROW_BYTES = CHANNELS * CODE(IMAGE_SIZE),
    PITCH = (IMAGE_ROW_BYTES + LANES - 1) / LANES * LANES /* of a row in the ring */
};

/*
 * One pass of the resize, cut to the outputs that the crop keeps: output i is the sum of inputs
 * first[i] + k times weights, k < count[i], in 22 bits behind the point. Its weights begin at
 * weights[i * room], packed in pairs; the last one of an odd number has a 0 beside it.
 */
typedef struct {
    int32_t room; /* even, for one more than `pass_most` */
    int32_t *first, *count, *weights;
} pass;

/* How many inputs an output is made of at most, from `length` to `resized` pixels. */
HIDDEN int32_t NAME(pass_most)(int32_t length, int32_t resized);

/*
 * Fills the tables at p->first ...: outputs start .. start + IMAGE_SIZE - 1 of `resized`, made of
 * `length` inputs. `reversed`: inputs are numbered from the other end. `aligned`: every first[i] is
 * even. `terms`: room for p->room doubles.
 */
HIDDEN void NAME(pass_plan)(pass *p, int32_t length, int32_t resized, int32_t start, int reversed,
                            int aligned, double *terms);

/*
 * 16 upright rows at once, into rows[lane]. A strip has channel c of inputs origin + 2 j and the
 * one after it, in pairs, at (j * CHANNELS + c) * PAIR_BYTES.
 */
HIDDEN void NAME(horizontal_pass)(const pass *p, const uint8_t *strip, int32_t origin,
                                  uint8_t *const rows[LANES]);

/* Row `output` of the picture; input y is row y % ring_rows of the ring. */
HIDDEN void NAME(vertical_pass)(const pass *p, int32_t output, const uint8_t *ring,
                                int32_t ring_rows, uint8_t *picture_row);

/* Pixels [x, x + count) of row y of a frame: channel c of pixel i at c * STRIP_COLUMNS + i. */
HIDDEN void NAME(read_pixels)(const NAME(frame) *f, int32_t y, int32_t x, int32_t count,
                              uint8_t *planes);

#if HAS_ANSWERS
/* The `count` best classes in order, with their probabilities. */
HIDDEN void NAME(best)(const float *logits, NAME(answer) *answers, int count);
#endif

#endif
