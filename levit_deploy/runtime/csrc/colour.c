/*
 * Pixels of a frame -> strips of R, G and B, or of grey.
 *
 * YUV in fixed point as OpenCV's cvtColor has it (modules/imgproc, color_yuv: 20 bits behind the
 * point, rounded once); its constants are those of BT.601 with limited range. The others are made
 * in the same way from the numbers of ITU-R BT.601-7 and BT.709-6. Grey of R, G, B as Pillow's
 * convert("L"): ITU-R 601-2 luma in 16 bits.
 */
#include "vectors.h"

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

enum { BLOCK_LANES = LANES * BLOCK_COLUMNS, VECTOR_ROWS = VECTOR_BYTES / TAPS };

static int pixel_bytes(int32_t format)
{
    return format == CODE(GRAY8) ? 1 : format >= CODE(RGBA) ? 4 : 3;
}

/*
 * A tile is 4 x 4 pixels: 16 bytes of a colour, and a vector has the tiles that are below each
 * other. In a strip their lanes are rows, or columns if the frame is turned.
 */
void NAME(reader_start)(reader *r, const NAME(frame) *f, int turned, uint8_t *memory)
{
    *r = (reader){.frame = f, .turned = turned, .memory = memory};
    __builtin_memset(r->channels, 0x80, sizeof r->channels);
    int is_yuv = f->format >= CODE(NV12), size = pixel_bytes(f->format);
    int is_blue_first = f->format == CODE(BGR) || f->format == CODE(BGRA);
    for (int row = 0; row < 4; row++)
        for (int column = 0; column < 4; column++) {
            int of_squares = 8 * (row % 2) + 4 * (row / 2) + column;
            r->places[turned ? TAPS * column + row : TAPS * row + column] =
                (uint8_t)(is_yuv ? of_squares : TAPS * row + column);
        }
    for (int c = 0; c < 3; c++)
        for (int column = 0; column < 4; column++)
            r->channels[4 * c + column] =
                (uint8_t)(size * column + (size == 1 ? 0 : is_blue_first ? 2 - c : c));
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
 * byte `x` on, of which the frame has `count` or more. At the frame's edges they are copies, with 0
 * beside them and the last one below them.
 */
static rows rows_at(const reader *r, int plane, int every, int32_t y, int32_t x, int32_t count,
                    int32_t wanted, uint8_t *copies)
{
    const NAME(frame) *f = r->frame;
    rows source = {(const uint8_t *)f->planes[plane], f->strides[plane]};
    source.first = row_of(source, y / every) + x;
    int32_t last = (f->height - y) / every - 1;
    if (count < wanted || last < LANES / every - 1) {
        count = count < wanted ? count : wanted;
        for (int32_t l = 0; l < LANES / every; l++) {
            uint8_t *copy = copies + l * wanted;
            __builtin_memcpy(copy, row_of(source, l < last ? l : last), (size_t)count);
            __builtin_memset(copy + count, 0, (size_t)(wanted - count));
        }
        return (rows){copies, wanted};
    }
    return source;
}

/* Where the strips of a block lie, see read_block. */
typedef struct {
    uint8_t *first;
    size_t bytes; /* of each */
} target;

/* The colours of tiles in `column` from `row` on -> the strips. */
static inline void write(const reader *r, target to, int row, int column, bytes red, bytes green,
                         bytes blue)
{
    bytes places = repeated(r->places), colours[3] = {red, green, blue};
    if (CHANNELS == 1) {
        static const uint8_t in_turns[TILE_BYTES] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                     2, 6, 10, 14, 3, 7, 11, 15};
        ints grey[TAPS];
        for (int k = 0; k < TAPS; k++)
            grey[k] = (byte_of(red, k) * 19595 + byte_of(green, k) * 38470 +
                       byte_of(blue, k) * 7471 + 0x8000) >> 16;
        colours[0] = shuffled(packed(grey[0], grey[1], grey[2], grey[3]), repeated(in_turns));
    }
    for (int c = 0; c < CHANNELS; c++) {
        bytes colour = shuffled(colours[c], places);
        if (!r->turned) {
            store(to.first + column / TAPS * STEP_BYTES + c * LANES_BYTES + row * TAPS, colour);
            continue;
        }
        uint8_t *lanes = to.first + (size_t)(column / LANES) * to.bytes + row / TAPS * STEP_BYTES +
                         c * LANES_BYTES + column % LANES * TAPS;
        for (int t = 0; t < VECTOR_BYTES / TILE_BYTES; t++)
            __builtin_memcpy(lanes + t * STEP_BYTES, (const uint8_t *)&colour + t * TILE_BYTES,
                             TILE_BYTES);
    }
}

/* RGB in any order, with or without alpha, or grey: `size` bytes a pixel, which is a constant. */
static inline __attribute__((always_inline)) void read_rgb(const reader *r, int size, int32_t y,
                                                           int32_t x, int32_t columns, target to)
{
    int32_t wanted = size * (BLOCK_COLUMNS - TAPS) + TILE_BYTES; /* as tiles are loaded */
    rows source = rows_at(r, 0, 1, y, size * x, size * (r->frame->width - x), wanted, r->memory);
    bytes channels = repeated(r->channels);
    for (int column = 0; column < columns; column += TAPS)
        for (int row = 0; row < LANES; row += VECTOR_ROWS) {
            bytes v[4];
            for (int l = 0; l < 4; l++)
                v[l] = shuffled(load_apart(row_of(source, row + l) + size * column,
                                           4 * source.stride), channels);
            bytes low01 = LOW_INTS(v[0], v[1]), low23 = LOW_INTS(v[2], v[3]);
            bytes high01 = HIGH_INTS(v[0], v[1]), high23 = HIGH_INTS(v[2], v[3]);
            write(r, to, row, column, LOW_LONGS(low01, low23), HIGH_LONGS(low01, low23),
                  LOW_LONGS(high01, high23));
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
    int32_t format = r->frame->format, count = r->frame->width - x;
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

/* Weights of a frame's numbers, as byte_weight gives them, and what its colours begin with. */
typedef struct {
    uint8_t black;
    int32_t y, v_red, v_green, u_green, u_blue;
    int32_t red, green, blue;
} conversion;

static conversion conversion_of(const NAME(frame) *f)
{
    const coefficients *m = coefficients_of(f);
    return (conversion){
        .black = (uint8_t)m->black,
        .y = byte_weight(m->y),
        .v_red = byte_weight(m->v_red),
        .v_green = byte_weight(m->v_green),
        .u_green = byte_weight(m->u_green),
        .u_blue = byte_weight(m->u_blue),
        .red = HALF - 128 * m->v_red, /* where chroma is 0 */
        .green = HALF - 128 * (m->v_green + m->u_green),
        .blue = HALF - 128 * m->u_blue,
    };
}

#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED
#endif

/* What chroma adds to the luma of a pixel. */
typedef struct {
    ints red, green, blue;
} tint;

/* Of the pairs from byte `first` on, of each 16. */
static inline tint tint_of(const conversion *m, bytes pairs, int first, int red_is_first)
{
    const ints zero = {0};
    ints one = factors(pairs, first, 2), other = factors(pairs, first + 1, 2);
    ints u = red_is_first ? other : one, v = red_is_first ? one : other;
    return (tint){
        .red = plus_product(zero + m->red, v, m->v_red),
        .green = plus_product(plus_product(zero + m->green, v, m->v_green), u, m->u_green),
        .blue = plus_product(zero + m->blue, u, m->u_blue),
    };
}

/* Tiles whose lanes have the luma of 2 x 2 pixels: two of an even row, two of an odd one. */
static inline __attribute__((always_inline)) void
convert(const reader *r, const conversion *m, target to, int row, int column, bytes squares,
        tint even, tint odd)
{
    ints red[4], green[4], blue[4];
    for (int k = 0; k < 4; k++) {
        ints light = factors(squares, k, 4);
        red[k] = plus_product(k < 2 ? even.red : odd.red, light, m->y);
        green[k] = plus_product(k < 2 ? even.green : odd.green, light, m->y);
        blue[k] = plus_product(k < 2 ? even.blue : odd.blue, light, m->y);
    }
    write(r, to, row, column, clipped(red[0], red[1], red[2], red[3]),
          clipped(green[0], green[1], green[2], green[3]),
          clipped(blue[0], blue[1], blue[2], blue[3]));
}

/*
 * YUV. A lane has the luma of 2 x 2 pixels, which share a pair of chroma; `by_row`: a pair is of
 * one row, so there are two, for even and odd rows.
 */
static inline __attribute__((always_inline)) void read_yuv(const reader *r, int by_row, int32_t y,
                                                           int32_t x, int32_t columns, target to)
{
    rows luma, chroma;
    find_yuv(r, y, x, &luma, &chroma);
    const conversion m = conversion_of(r->frame);
    int red_is_first = r->frame->format == CODE(NV21);
    for (int column = 0; column < columns; column += 4 * TAPS) {
        for (int l = 0; l < 4; l++) { /* of the next strip, which strides hide from CPUs */
            __builtin_prefetch(row_of(luma, LANES + column / 4 + l), 0, 2);
            if (l < 2)
                __builtin_prefetch(row_of(chroma, LANES / 2 + column / 8 + l), 0, 2);
        }
        for (int row = 0; row < LANES; row += VECTOR_ROWS) {
            bytes v[4], pairs[2][2];
            for (int l = 0; l < 4; l++) {
                v[l] = load_apart(row_of(luma, row + l) + column, 4 * luma.stride);
                v[l] = (v[l] - m.black) & (bytes)(v[l] > m.black);
            }
            for (int odd = 0; odd < 1 + by_row; odd++) {
                int first = by_row ? row + odd : row / 2, every = 1 + by_row;
                ptrdiff_t apart = 2 * every * chroma.stride;
                bytes a = load_apart(row_of(chroma, first) + column, apart);
                bytes b = load_apart(row_of(chroma, first + every) + column, apart);
                pairs[odd][0] = LOW_INTS(a, b);
                pairs[odd][1] = HIGH_INTS(a, b);
            }
            bytes upper[2] = {LOW_SHORTS(v[0], v[1]), HIGH_SHORTS(v[0], v[1])};
            bytes lower[2] = {LOW_SHORTS(v[2], v[3]), HIGH_SHORTS(v[2], v[3])};
            UNROLLED
            for (int q = 0; q < 4; q++) {
                bytes squares = q % 2 ? HIGH_LONGS(upper[q / 2], lower[q / 2])
                                      : LOW_LONGS(upper[q / 2], lower[q / 2]);
                tint even = tint_of(&m, pairs[0][q / 2], q % 2 * 8, red_is_first);
                tint odd = by_row ? tint_of(&m, pairs[1][q / 2], q % 2 * 8, red_is_first) : even;
                convert(r, &m, to, row, column + q * TAPS, squares, even, odd);
            }
        }
    }
}

void NAME(read_block)(const reader *r, int32_t y, int32_t x, int32_t columns,
                      uint8_t *strips, size_t strip_bytes)
{
    target to = {strips, strip_bytes};
    switch (r->frame->format) {
    case CODE(RGB):
    case CODE(BGR): read_rgb(r, 3, y, x, columns, to); return;
    case CODE(RGBA):
    case CODE(BGRA): read_rgb(r, 4, y, x, columns, to); return;
    case CODE(GRAY8): read_rgb(r, 1, y, x, columns, to); return;
    case CODE(YUYV):
    case CODE(UYVY): read_yuv(r, 1, y, x, columns, to); return;
    default: read_yuv(r, 0, y, x, columns, to);
    }
}
