/*
 * Pixels of a frame -> planes of R, G and B, or of grey.
 *
 * YUV in fixed point as OpenCV's cvtColor has it (modules/imgproc, color_yuv: 20 bits behind the
 * point, rounded once); its constants are those of BT.601 with limited range. The others are made
 * in the same way from the numbers of ITU-R BT.601-7 and BT.709-6. Grey of R, G, B as Pillow's
 * convert("L"): ITU-R 601-2 luma in 16 bits.
 */
#include "picture.h"

#define POINT 20
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

static uint8_t limited(int32_t value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* y, u, v: a byte for each pixel. */
static void rgb_of_yuv(const coefficients *m, const uint8_t *restrict y, const uint8_t *restrict u,
                       const uint8_t *restrict v, int32_t count, uint8_t *restrict planes)
{
    const coefficients c = *m;
    for (int32_t i = 0; i < count; i++) {
        int32_t luma = y[i] - c.black;
        luma = (luma < 0 ? 0 : luma) * c.y + (1 << (POINT - 1));
        int32_t blue = u[i] - 128, red = v[i] - 128;
        planes[i] = limited((luma + c.v_red * red) >> POINT);
        planes[STRIP_COLUMNS + i] = limited((luma + c.v_green * red + c.u_green * blue) >> POINT);
        planes[2 * STRIP_COLUMNS + i] = limited((luma + c.u_blue * blue) >> POINT);
    }
}

/* Loops that compilers turn into vectors: every size of a step is a number. */
static void split_3(const uint8_t *restrict from, int32_t count, uint8_t *restrict a,
                    uint8_t *restrict b, uint8_t *restrict c)
{
    for (int32_t i = 0; i < count; i++) {
        a[i] = from[3 * i];
        b[i] = from[3 * i + 1];
        c[i] = from[3 * i + 2];
    }
}

static void split_4(const uint8_t *restrict from, int32_t count, uint8_t *restrict a,
                    uint8_t *restrict b, uint8_t *restrict c)
{
    for (int32_t i = 0; i < count; i++) {
        a[i] = from[4 * i];
        b[i] = from[4 * i + 1];
        c[i] = from[4 * i + 2];
    }
}

/* Chroma, each value for two pixels: U and V in turn, or one of them alone. */
static void double_pairs(const uint8_t *restrict from, int32_t count, uint8_t *restrict a,
                         uint8_t *restrict b)
{
    for (int32_t i = 0; i < count / 2; i++) {
        a[2 * i] = a[2 * i + 1] = from[2 * i];
        b[2 * i] = b[2 * i + 1] = from[2 * i + 1];
    }
}

static void double_each(const uint8_t *restrict from, int32_t count, uint8_t *restrict a)
{
    for (int32_t i = 0; i < count / 2; i++)
        a[2 * i] = a[2 * i + 1] = from[i];
}

/* Y of each pixel at `luma` and the chroma of each two at 1 - `luma`, as YUYV and UYVY have them. */
static void split_422(const uint8_t *restrict from, int luma, int32_t count, uint8_t *restrict y,
                      uint8_t *restrict u, uint8_t *restrict v)
{
    const uint8_t *chroma = from + 1 - luma;
    from += luma;
    for (int32_t i = 0; i < count / 2; i++) {
        y[2 * i] = from[4 * i];
        y[2 * i + 1] = from[4 * i + 2];
        u[2 * i] = u[2 * i + 1] = chroma[4 * i];
        v[2 * i] = v[2 * i + 1] = chroma[4 * i + 2];
    }
}

static const uint8_t *row_of(const NAME(frame) *f, int plane, int32_t y)
{
    return (const uint8_t *)f->planes[plane] + f->strides[plane] * (ptrdiff_t)y;
}

static const coefficients *coefficients_of(const NAME(frame) *f)
{
    if (f->matrix == CODE(BT709))
        return f->range == CODE(FULL_RANGE) ? &full_709 : &limited_709;
    return f->range == CODE(FULL_RANGE) ? &full_601 : &limited_601;
}

static void read_yuv(const NAME(frame) *f, int32_t y, int32_t x, int32_t count, uint8_t *planes)
{
    uint8_t luma[STRIP_COLUMNS], u[STRIP_COLUMNS], v[STRIP_COLUMNS];
    const uint8_t *first = row_of(f, 0, y), *luma_row = luma;
    switch (f->format) {
    case CODE(NV12):
        luma_row = first + x;
        double_pairs(row_of(f, 1, y / 2) + x, count, u, v);
        break;
    case CODE(NV21):
        luma_row = first + x;
        double_pairs(row_of(f, 1, y / 2) + x, count, v, u);
        break;
    case CODE(I420):
        luma_row = first + x;
        double_each(row_of(f, 1, y / 2) + x / 2, count, u);
        double_each(row_of(f, 2, y / 2) + x / 2, count, v);
        break;
    case CODE(YUYV): split_422(first + 2 * x, 0, count, luma, u, v); break;
    case CODE(UYVY): split_422(first + 2 * x, 1, count, luma, u, v); break;
    }
    rgb_of_yuv(coefficients_of(f), luma_row, u, v, count, planes);
}

static void read_rgb(const NAME(frame) *f, int32_t y, int32_t x, int32_t count, uint8_t *planes)
{
    const uint8_t *row = row_of(f, 0, y);
    uint8_t *red = planes, *green = red + STRIP_COLUMNS, *blue = green + STRIP_COLUMNS;
    switch (f->format) {
    case CODE(RGB): split_3(row + 3 * x, count, red, green, blue); return;
    case CODE(BGR): split_3(row + 3 * x, count, blue, green, red); return;
    case CODE(RGBA): split_4(row + 4 * x, count, red, green, blue); return;
    case CODE(BGRA): split_4(row + 4 * x, count, blue, green, red); return;
    case CODE(GRAY8):
        for (int c = 0; c < 3; c++)
            __builtin_memcpy(planes + c * STRIP_COLUMNS, row + x, (size_t)count);
        return;
    }
    read_yuv(f, y, x, count, planes);
}

void NAME(read_pixels)(const NAME(frame) *f, int32_t y, int32_t x, int32_t count, uint8_t *planes)
{
    if (CHANNELS == 3) {
        read_rgb(f, y, x, count, planes);
        return;
    }
    if (f->format == CODE(GRAY8)) {
        __builtin_memcpy(planes, row_of(f, 0, y) + x, (size_t)count);
        return;
    }
    uint8_t rgb[3 * STRIP_COLUMNS];
    const uint8_t *r = rgb, *g = r + STRIP_COLUMNS, *b = g + STRIP_COLUMNS;
    read_rgb(f, y, x, count, rgb);
    for (int32_t i = 0; i < count; i++)
        planes[i] = (uint8_t)((r[i] * 19595u + g[i] * 38470u + b[i] * 7471u + 0x8000u) >> 16);
}
