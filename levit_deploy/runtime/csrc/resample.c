/*
 * The two passes of a resize, to the bit as Pillow makes them (src/libImaging/Resample.c, 8 bits
 * a channel): double weights, normalised, rounded to 22 bits behind the point; sums in 32 bits;
 * 8 bits between the passes.
 */
#include "picture.h"

#include "products.h"

#define POINT 22
#define PI 3.14159265358979323846

#if FILTER == FILTER_LANCZOS || FILTER == FILTER_HAMMING
/* sin(x) for 0 <= x <= 4 pi: the nearest multiple of pi taken off, then the Taylor series. */
static double sine(double x)
{
    int turns = (int)(x / PI + 0.5);
    double r = x - turns * 3.141592653589793116 - turns * 1.2246467991473532e-16;
    double square = r * r, term = r, sum = r;
    for (int n = 2; n <= 20; n += 2) {
        term *= -square / (n * (n + 1));
        sum += term;
    }
    return turns % 2 ? -sum : sum;
}

static double sinc(double x)
{
    return x == 0 ? 1 : sine(x * PI) / (x * PI);
}
#endif

#if FILTER == FILTER_BICUBIC
#define SUPPORT 2.0
static double filter(double x)
{
    x = x < 0 ? -x : x;
    double inner = (1.5 * x - 2.5) * x * x + 1;
    double outer = (((x - 5) * x + 8) * x - 4) * -0.5;
    return x < 1 ? inner : x < 2 ? outer : 0;
}
#elif FILTER == FILTER_BILINEAR
#define SUPPORT 1.0
static double filter(double x)
{
    x = x < 0 ? -x : x;
    return x < 1 ? 1 - x : 0;
}
#elif FILTER == FILTER_BOX
#define SUPPORT 0.5
static double filter(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}
#elif FILTER == FILTER_HAMMING
#define SUPPORT 1.0
static double filter(double x)
{
    x = x < 0 ? -x : x;
    return x >= 1 ? 0 : sinc(x) * ((double)0.54f + (double)0.46f * sine(x * PI + PI / 2));
}
#elif FILTER == FILTER_LANCZOS
#define SUPPORT 3.0
static double filter(double x)
{
    x = x < 0 ? -x : x;
    return x < 3 ? sinc(x) * sinc(x / 3) : 0;
}
#endif

#if FILTER == FILTER_NEAREST

int32_t NAME(pass_most)(int32_t length, int32_t resized)
{
    (void)length, (void)resized;
    return 1;
}

/* Pillow adds the scale up, from the first output on (src/libImaging/Geometry.c). */
static void plan(pass *p, int32_t length, int32_t resized, int32_t start, double *terms)
{
    (void)terms;
    double scale = (double)length / resized, position = scale * 0.5;
    for (int32_t i = -start; i < CODE(IMAGE_SIZE); i++, position += scale) {
        if (i < 0)
            continue;
        p->first[i] = (int32_t)position;
        p->count[i] = 1;
        p->weights[i * p->room] = 1 << POINT;
    }
}

#else

static double maximum(double a, double b)
{
    return a > b ? a : b;
}

int32_t NAME(pass_most)(int32_t length, int32_t resized)
{
    double support = SUPPORT * maximum((double)length / resized, 1);
    return 2 * ((int32_t)support + 1) + 1;
}

/* The tables as Pillow makes them, unpacked. */
static void plan(pass *p, int32_t length, int32_t resized, int32_t start, double *terms)
{
    double scale = (double)length / resized, filter_scale = maximum(scale, 1);
    double support = SUPPORT * filter_scale, narrow = 1 / filter_scale;
    for (int32_t i = 0; i < CODE(IMAGE_SIZE); i++) {
        double centre = (start + i + 0.5) * scale, sum = 0;
        int32_t first = (int32_t)maximum(centre - support + 0.5, 0);
        int32_t end = (int32_t)(centre + support + 0.5);
        int32_t count = (end < length ? end : length) - first;
        for (int32_t k = 0; k < count; k++)
            terms[k] = filter((k + first - centre + 0.5) * narrow);
        for (int32_t k = 0; k < count; k++)
            sum += terms[k];
        for (int32_t k = 0; k < count; k++) {
            double weight = (sum != 0 ? terms[k] / sum : terms[k]) * (1 << POINT);
            p->weights[i * p->room + k] = (int32_t)(weight + (weight < 0 ? -0.5 : 0.5));
        }
        p->first[i] = first;
        p->count[i] = count;
    }
}

#endif

static void reverse(int32_t *numbers, int32_t count)
{
    for (int32_t i = 0, j = count - 1; i < j; i++, j--) {
        int32_t kept = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = kept;
    }
}

void NAME(pass_plan)(pass *p, int32_t length, int32_t resized, int32_t start, int reversed,
                     int aligned, double *terms)
{
    plan(p, length, resized, start, terms);
    for (int32_t i = 0; i < CODE(IMAGE_SIZE); i++) {
        int32_t *weights = p->weights + (ptrdiff_t)i * p->room;
        if (reversed) {
            reverse(weights, p->count[i]);
            p->first[i] = length - p->first[i] - p->count[i];
        }
        if (aligned && p->first[i] % 2) {
            for (int32_t k = p->count[i]; k > 0; k--)
                weights[k] = weights[k - 1];
            weights[0] = 0;
            p->first[i]--;
            p->count[i]++;
        }
        if (p->count[i] % 2)
            weights[p->count[i]] = 0;
        for (int32_t k = 0; k < p->count[i]; k += 2)
            pack_weights(weights[k], weights[k + 1], weights + k);
    }
}

/* Sums with the bits behind the point -> bytes, rounded. */
static inline bytes_x16 rounded(const sums *s)
{
    ints_x16 v = (total(s) + (1 << (POINT - 1))) >> POINT;
    v &= ~(v >> 31);                 /* below 0: 0 */
    v = (v | ((255 - v) >> 31)) & 255; /* above 255: 255 */
    return __builtin_convertvector(v, bytes_x16);
}

/* 16 columns of 16 lanes -> 16 bytes of each lane's row, `count` of them. */
static void store_columns(const uint8_t *columns, int32_t count, uint8_t *const rows[LANES],
                          int32_t at)
{
    uint8_t turned[LANES * LANES];
    transpose(columns, LANES, turned, LANES);
    for (int l = 0; l < LANES; l++)
        if (count == LANES)
            store_bytes(rows[l] + at, load_bytes(turned + l * LANES));
        else
            __builtin_memcpy(rows[l] + at, turned + l * LANES, (size_t)count);
}

void NAME(horizontal_pass)(const pass *p, const uint8_t *strip, int32_t origin,
                           uint8_t *const rows[LANES])
{
    uint8_t columns[LANES * LANES];
    int32_t at = 0, filled = 0; /* columns that are stored, and that wait */
    for (int32_t i = 0; i < CODE(IMAGE_SIZE); i++) {
        const uint8_t *input = strip + (p->first[i] - origin) / 2 * (CHANNELS * PAIR_BYTES);
        const int32_t *weights = p->weights + (ptrdiff_t)i * p->room;
        sums s[CHANNELS] = {0};
        for (int32_t k = 0; k < p->count[i]; k += 2, input += CHANNELS * PAIR_BYTES)
            for (int c = 0; c < CHANNELS; c++)
                add_products(&s[c], load_pairs(input + c * PAIR_BYTES), weights + k);
        for (int c = 0; c < CHANNELS; c++) {
            store_bytes(columns + filled * LANES, rounded(&s[c]));
            if (++filled == LANES) {
                store_columns(columns, LANES, rows, at);
                at += LANES;
                filled = 0;
            }
        }
    }
    if (filled)
        store_columns(columns, filled, rows, at);
}

void NAME(vertical_pass)(const pass *p, int32_t output, const uint8_t *ring, int32_t ring_rows,
                         uint8_t *picture_row)
{
    const int32_t *weights = p->weights + output * p->room;
    const uint8_t *end = ring + (ptrdiff_t)ring_rows * PITCH;
    const uint8_t *first = ring + (ptrdiff_t)(p->first[output] % ring_rows) * PITCH;
    for (int32_t x = 0; x < IMAGE_ROW_BYTES; x += LANES) {
        const uint8_t *input = first;
        sums s = {0};
        for (int32_t k = 0; k < p->count[output]; k += 2) {
            const uint8_t *next = input + PITCH == end ? ring : input + PITCH;
            add_products(&s, pairs_of(load_bytes(input + x), load_bytes(next + x)), weights + k);
            input = next + PITCH == end ? ring : next + PITCH;
        }
        bytes_x16 result = rounded(&s);
        int32_t rest = IMAGE_ROW_BYTES - x;
        __builtin_memcpy(picture_row + x, &result, rest < LANES ? (size_t)rest : LANES);
    }
}
