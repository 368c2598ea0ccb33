/*
 * Pixels of a frame -> strips of R, G and B, or of grey.
 *
 * YUV in fixed point as OpenCV's cvtColor has it (modules/imgproc, color_yuv: 20 bits behind the
 * point, rounded once); its constants are those of BT.601 with limited range. The others are made
 * in the same way from the numbers of ITU-R BT.601-7 and BT.709-6. Grey of R, G, B as Pillow's
 * convert("L"): ITU-R 601-2 luma in 16 bits.
 */
#include "picture.h"

#define POINT 20
#define HALF (1 << (POINT - 1))
#define FIXED(x) ((int32_t)((x) * (1 << POINT) + ((x) < 0 ? -0.5 : 0.5)))

typedef struct {
    int32_t black, y, v_red, v_green, u_green, u_blue;
} coefficients;

static const coefficients limited_601 = {16, 1220542, 1673527, -852492, -409993, 2116026};
static const coefficients full_601 = {0, 1 << POINT, FIXED(1.402), FIXED(-0.714136),
                                      FIXED(-0.344136), FIXED(1.772)};
static const coefficients limited_709 = {16, FIXED(1.164384), FIXED(1.792741), FIXED(-0.532909),
                                         FIXED(-0.213249), FIXED(2.112402)};
static const coefficients full_709 = {0, 1 << POINT, FIXED(1.5748), FIXED(-0.468124),
                                      FIXED(-0.187324), FIXED(1.8556)};

typedef uint16_t pairs_of_bytes __attribute__((vector_size(VECTOR_BYTES / 2)));

enum { GROUPS = BLOCK_COLUMNS / TAPS, BLOCK_LANES = LANES * BLOCK_COLUMNS };

/*
 * A tile is 4 x 4 pixels: 16 bytes. A block is 16 groups of four tiles, whose lanes are those of
 * a strip: four below each other, or side by side if the frame is turned. Where the tile in a row
 * and column of the block lies:
 */
typedef struct {
    ptrdiff_t below, beside; /* bytes to the next tile, of four */
} steps;

static inline steps steps_of(const reader *r)
{
    return r->turned ? (steps){LANES_BYTES, TILE_BYTES} : (steps){TILE_BYTES, LANES_BYTES};
}

static inline ptrdiff_t tile_at(steps s, int row, int column)
{
    return column / 4 * (16 * TILE_BYTES) + row * s.below + column % 4 * s.beside;
}

/* Which byte of a tile, as a strip has it. */
static int place_in_tile(const reader *r, int row, int column)
{
    return r->turned ? TAPS * column + row : TAPS * row + column;
}

static int pixel_bytes(int32_t format)
{
    return format == CODE(GRAY8) ? 1 : format >= CODE(RGBA) ? 4 : 3;
}

/*
 * The orders for RGB: dword m of a pixel's row of a tile -> bytes of channel c, 0x80 for those that
 * another dword has. For YUV the first one: from lanes of 2 x 2 pixels.
 */
void NAME(reader_start)(reader *r, const NAME(frame) *f, int turned, uint8_t *memory)
{
    *r = (reader){.frame = f, .turned = turned, .memory = memory};
    __builtin_memset(r->orders, 0x80, sizeof r->orders);
    int is_yuv = f->format >= CODE(NV12), size = pixel_bytes(f->format);
    int is_blue_first = f->format == CODE(BGR) || f->format == CODE(BGRA);
    for (int row = 0; row < 4; row++)
        for (int column = 0; column < 4; column++) {
            int to = place_in_tile(r, row, column);
            if (is_yuv)
                r->orders[0][0][to] =
                    (uint8_t)(8 * (row % 2) + 4 * (column % 2) + 2 * (row / 2) + column / 2);
            for (int c = 0; c < 3 && !is_yuv; c++) {
                int from = size * column + (size == 1 ? 0 : is_blue_first ? 2 - c : c);
                r->orders[c][from / 4][to] = (uint8_t)(4 * row + from % 4);
            }
        }
}

/* Rows of a block. */
typedef struct {
    const uint8_t *first;
    ptrdiff_t stride;
} rows;

static inline const uint8_t *row_of(rows r, int32_t y)
{
    return r.first + r.stride * y;
}

/*
 * The rows of a block in a plane that has one for each `every` of the frame, `wanted` bytes from
 * byte `x` on, of which the frame has `count`. At the frame's edges they are copies, with 0 beside
 * them and the last one below them.
 */
static rows rows_at(const reader *r, int plane, int every, int32_t y, int32_t x, int32_t count,
                    int32_t wanted, uint8_t *copies)
{
    const NAME(frame) *f = r->frame;
    rows source = {(const uint8_t *)f->planes[plane], f->strides[plane]};
    source.first = row_of(source, y / every) + x;
    int32_t last = (f->height - y) / every - 1;
    if (count < wanted || last < LANES / every - 1) {
        for (int32_t l = 0; l < LANES / every; l++) {
            uint8_t *copy = copies + l * wanted;
            __builtin_memcpy(copy, row_of(source, l < last ? l : last), (size_t)count);
            __builtin_memset(copy + count, 0, (size_t)(wanted - count));
        }
        return (rows){copies, wanted};
    }
    for (int32_t l = 0; l < LANES / every && wanted == BLOCK_COLUMNS; l++)
        __builtin_prefetch(row_of(source, l + LANES / every), 0, 2); /* what strides hide from CPUs */
    return source;
}

/* The colours of a group's pixels -> a step of the strip. */
static inline void write(uint8_t *to, bytes red, bytes green, bytes blue)
{
    if (CHANNELS == 3) {
        store(to, red);
        store(to + LANES_BYTES, green);
        store(to + 2 * LANES_BYTES, blue);
        return;
    }
    static const uint8_t turned[TILE_BYTES] = {0, 4, 8,  12, 1, 5, 9,  13,
                                               2, 6, 10, 14, 3, 7, 11, 15};
    ints grey[TAPS];
    for (int k = 0; k < TAPS; k++)
        grey[k] = (byte_of(red, k) * 19595 + byte_of(green, k) * 38470 + byte_of(blue, k) * 7471 +
                   0x8000) >> 16;
    store(to, shuffled(packed(grey[0], grey[1], grey[2], grey[3]), turned));
}

static inline tile_of_ints load_ints(const uint8_t *from)
{
    tile_of_ints v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

/* RGB in any order, with or without alpha, or grey: `size` bytes a pixel, which is a constant. */
static inline __attribute__((always_inline)) void read_rgb(const reader *r, int size, int32_t y,
                                                           int32_t x, int32_t columns,
                                                           uint8_t *to, size_t far)
{
    uint8_t *tiles = r->memory + BLOCK_BYTES / 2;
    const steps s = steps_of(r);
    int32_t rest = r->frame->width - x, count = rest < BLOCK_COLUMNS ? rest : BLOCK_COLUMNS;
    rows source = rows_at(r, 0, 1, y, size * x, size * count, size * BLOCK_COLUMNS, r->memory);
    for (int i = 0; i < 4; i++)
        for (int q = 0; q < columns / TAPS * size; q += 4) {
            tile_of_ints a = load_ints(row_of(source, 4 * i) + 4 * q);
            tile_of_ints b = load_ints(row_of(source, 4 * i + 1) + 4 * q);
            tile_of_ints c = load_ints(row_of(source, 4 * i + 2) + 4 * q);
            tile_of_ints d = load_ints(row_of(source, 4 * i + 3) + 4 * q);
            tile_of_ints ab[2] = {LOW_INTS(a, b), HIGH_INTS(a, b)};
            tile_of_ints cd[2] = {LOW_INTS(c, d), HIGH_INTS(c, d)};
            tile_of_longs turned[4] = {LOW_LONGS(ab[0], cd[0]), HIGH_LONGS(ab[0], cd[0]),
                                       LOW_LONGS(ab[1], cd[1]), HIGH_LONGS(ab[1], cd[1])};
            for (int j = 0; j < 4; j++) {
                int column = (q + j) / size, dword = (q + j) % size;
                uint8_t *tile = tiles + dword * BLOCK_LANES + tile_at(s, i, column);
                __builtin_memcpy(tile, &turned[j], TILE_BYTES);
            }
        }
    for (int g = 0; g < columns / TAPS; g++)
        for (int part = 0; part < LANES_BYTES; part += VECTOR_BYTES) {
            bytes colours[3] = {0};
            for (int c = 0; c < 3; c++)
                for (int m = 0; m < size; m++)
                    colours[c] |= shuffled(load(tiles + m * BLOCK_LANES + g * LANES_BYTES + part),
                                           r->orders[c][m]);
            write(to + (size_t)(g / 4) * far + g % 4 * STEP_BYTES + part, colours[0], colours[1],
                  colours[2]);
        }
}

static const coefficients *coefficients_of(const NAME(frame) *f)
{
    if (f->matrix == CODE(BT709))
        return f->range == CODE(FULL_RANGE) ? &full_709 : &limited_709;
    return f->range == CODE(FULL_RANGE) ? &full_601 : &limited_601;
}

static void interleave(const uint8_t *restrict a, const uint8_t *restrict b,
                       uint8_t *restrict both)
{
    for (int i = 0; i < BLOCK_COLUMNS / 2; i++) {
        both[2 * i] = a[i];
        both[2 * i + 1] = b[i];
    }
}

static void deinterleave(const uint8_t *restrict both, uint8_t *restrict a, uint8_t *restrict b)
{
    for (int i = 0; i < BLOCK_COLUMNS; i++) {
        a[i] = both[2 * i];
        b[i] = both[2 * i + 1];
    }
}

/* Luma and chroma of a block; chroma in pairs, U and V, for two pixels of a row each. */
static void find_yuv(const reader *r, int32_t y, int32_t x, rows *luma, rows *chroma)
{
    int32_t format = r->frame->format, rest = r->frame->width - x;
    int32_t count = rest < BLOCK_COLUMNS ? rest : BLOCK_COLUMNS;
    uint8_t *first = r->memory, *second = first + BLOCK_LANES, *third = second + BLOCK_LANES;
    if (format == CODE(YUYV) || format == CODE(UYVY)) {
        rows both = rows_at(r, 0, 1, y, 2 * x, 2 * count, 2 * BLOCK_COLUMNS, third);
        *luma = (rows){format == CODE(YUYV) ? first : second, BLOCK_COLUMNS};
        *chroma = (rows){format == CODE(YUYV) ? second : first, BLOCK_COLUMNS};
        for (int l = 0; l < LANES; l++)
            deinterleave(row_of(both, l), first + l * BLOCK_COLUMNS, second + l * BLOCK_COLUMNS);
        return;
    }
    *luma = rows_at(r, 0, 1, y, x, count, BLOCK_COLUMNS, first);
    if (format == CODE(I420)) {
        rows u = rows_at(r, 1, 2, y, x / 2, count / 2, BLOCK_COLUMNS / 2, third);
        rows v = rows_at(r, 2, 2, y, x / 2, count / 2, BLOCK_COLUMNS / 2, third + BLOCK_LANES / 2);
        *chroma = (rows){second, BLOCK_COLUMNS};
        for (int l = 0; l < LANES / 2; l++)
            interleave(row_of(u, l), row_of(v, l), second + l * BLOCK_COLUMNS);
    } else {
        *chroma = rows_at(r, 1, 2, y, x, count, BLOCK_COLUMNS, second);
    }
}

/*
 * YUV. First tiles of luma, with the 2 x 2 pixels of a pair of chroma in a lane, and of chroma;
 * `by_row`: a pair is of one row, so each tile has two of chroma, for its even and odd rows.
 */
static inline __attribute__((always_inline)) void read_yuv(const reader *r, int by_row, int32_t y,
                                                           int32_t x, int32_t columns,
                                                           uint8_t *to, size_t far)
{
    uint8_t *tiles = r->memory + BLOCK_BYTES / 2, *pairs = tiles + BLOCK_LANES;
    rows luma, chroma;
    find_yuv(r, y, x, &luma, &chroma);
    const steps s = steps_of(r);
    for (int i = 0; i < 4; i++)
        for (int q = 0; q < columns / TAPS; q += 4) {
            tile_of_shorts row[4];
            for (int l = 0; l < 4; l++)
                __builtin_memcpy(&row[l], row_of(luma, 4 * i + l) + TAPS * q, TILE_BYTES);
            tile_of_shorts upper[2] = {LOW_SHORTS(row[0], row[1]), HIGH_SHORTS(row[0], row[1])};
            tile_of_shorts lower[2] = {LOW_SHORTS(row[2], row[3]), HIGH_SHORTS(row[2], row[3])};
            for (int j = 0; j < 4; j++) {
                tile_of_longs tile = j % 2 ? HIGH_LONGS(upper[j / 2], lower[j / 2])
                                           : LOW_LONGS(upper[j / 2], lower[j / 2]);
                __builtin_memcpy(tiles + tile_at(s, i, q + j), &tile, TILE_BYTES);
            }
            for (int odd = 0; odd < 1 + by_row; odd++) {
                int l = by_row ? 4 * i + odd : 2 * i;
                tile_of_ints a = load_ints(row_of(chroma, l) + TAPS * q);
                tile_of_ints b = load_ints(row_of(chroma, l + 1 + by_row) + TAPS * q);
                tile_of_ints two[2] = {LOW_INTS(a, b), HIGH_INTS(a, b)};
                for (int j = 0; j < 4; j++)
                    __builtin_memcpy(pairs + odd * BLOCK_LANES / 2 + tile_at(s, i, q + j) / 2,
                                     (const uint8_t *)two + j * TILE_BYTES / 2, TILE_BYTES / 2);
            }
        }

    const coefficients *m = coefficients_of(r->frame);
    const int32_t y_weight = byte_weight(m->y), v_red = byte_weight(m->v_red);
    const int32_t v_green = byte_weight(m->v_green), u_green = byte_weight(m->u_green);
    const int32_t u_blue = byte_weight(m->u_blue);
    const ints no_red = (ints){0} + (HALF - 128 * m->v_red); /* where chroma is 0 */
    const ints no_green = (ints){0} + (HALF - 128 * (m->v_green + m->u_green));
    const ints no_blue = (ints){0} + (HALF - 128 * m->u_blue);
    const uint8_t black = (uint8_t)m->black, *order = r->orders[0][0];
    int red_is_first = r->frame->format == CODE(NV21);
    for (int g = 0; g < columns / TAPS; g++)
        for (int part = 0; part < LANES_BYTES; part += VECTOR_BYTES) {
            bytes all = load(tiles + g * LANES_BYTES + part);
            all = (all - black) & (bytes)(all > black);
            ints red[4], green[4], blue[4];
            ints of_red = no_red, of_green = no_green, of_blue = no_blue;
            for (int k = 0; k < 4; k++) {
                if (k == 0 || (k == 2 && by_row)) {
                    pairs_of_bytes uv;
                    __builtin_memcpy(&uv, pairs + (k * BLOCK_LANES / 2 + g * LANES_BYTES + part) / 2,
                                     sizeof uv);
                    bytes both = (bytes)__builtin_convertvector(uv, ints);
                    ints first = byte_factor(both, 0), second = byte_factor(both, 1);
                    ints u = red_is_first ? second : first, v = red_is_first ? first : second;
                    of_red = plus_product(no_red, v, v_red);
                    of_green = plus_product(plus_product(no_green, v, v_green), u, u_green);
                    of_blue = plus_product(no_blue, u, u_blue);
                }
                ints light = byte_factor(all, k);
                red[k] = plus_product(of_red, light, y_weight) >> POINT;
                green[k] = plus_product(of_green, light, y_weight) >> POINT;
                blue[k] = plus_product(of_blue, light, y_weight) >> POINT;
            }
            write(to + (size_t)(g / 4) * far + g % 4 * STEP_BYTES + part,
                  shuffled(packed(red[0], red[1], red[2], red[3]), order),
                  shuffled(packed(green[0], green[1], green[2], green[3]), order),
                  shuffled(packed(blue[0], blue[1], blue[2], blue[3]), order));
        }
}

void NAME(read_block)(const reader *r, int32_t y, int32_t x, int32_t columns,
                      uint8_t *to, size_t strip_bytes)
{
    size_t far = r->turned ? strip_bytes : 4 * STEP_BYTES;
    switch (r->frame->format) {
    case CODE(RGB):
    case CODE(BGR): read_rgb(r, 3, y, x, columns, to, far); return;
    case CODE(RGBA):
    case CODE(BGRA): read_rgb(r, 4, y, x, columns, to, far); return;
    case CODE(GRAY8): read_rgb(r, 1, y, x, columns, to, far); return;
    case CODE(YUYV):
    case CODE(UYVY): read_yuv(r, 1, y, x, columns, to, far); return;
    default: read_yuv(r, 0, y, x, columns, to, far);
    }
}
