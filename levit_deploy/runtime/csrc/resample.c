/*
 * The two passes of a resize, to the bit as Pillow makes them (src/libImaging/Resample.c, 8 bits
 * a channel): double weights, normalised, rounded to 22 bits behind the point; sums in 32 bits;
 * 8 bits between the passes.
 */
#include "vectors.h"

#define POINT 22
#define HALF ((sums){.low = (ints){0} + (1 << (POINT - 1))})
#ifdef __clang__ /* which else takes more than there are terms */
#define VECTORS_OF_4 _Pragma("clang loop vectorize_width(4) interleave(disable)")
#else
#define VECTORS_OF_4
#endif
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

static void reverse(int32_t *numbers, int32_t count)
{
    for (int32_t i = 0, j = count - 1; i < j; i++, j--) {
        int32_t kept = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = kept;
    }
}

#if FILTER == FILTER_NEAREST

/* How many inputs an output is made of at most. */
static int32_t most(int32_t length, int32_t resized)
{
    (void)length, (void)resized;
    return 1;
}

/* Pillow adds the scale up from output 0 on (src/libImaging/Geometry.c); *terms is the last sum. */
static int32_t find_weights(int32_t output, int32_t length, int32_t resized, int32_t *weights,
                            int32_t *count, double *terms)
{
    double scale = (double)length / resized;
    if (*terms == 0) {
        *terms = scale * 0.5;
        for (int32_t i = 0; i < output; i++)
            *terms += scale;
    } else {
        *terms += scale;
    }
    weights[0] = 1 << POINT;
    *count = 1;
    return (int32_t)*terms;
}

#else

static double maximum(double a, double b)
{
    return a > b ? a : b;
}

/* How many inputs an output is made of at most. */
static int32_t most(int32_t length, int32_t resized)
{
    double support = SUPPORT * maximum((double)length / resized, 1);
    return 2 * ((int32_t)support + 1) + 1;
}

/* The weights of an output and how many they are, as Pillow makes them; the first input of it. */
static int32_t find_weights(int32_t output, int32_t length, int32_t resized, int32_t *weights,
                            int32_t *count, double *terms)
{
    double scale = (double)length / resized, filter_scale = maximum(scale, 1);
    double support = SUPPORT * filter_scale, narrow = 1 / filter_scale;
    double centre = (output + 0.5) * scale, sum = 0;
    int32_t first = (int32_t)maximum(centre - support + 0.5, 0);
    int32_t end = (int32_t)(centre + support + 0.5);
    *count = (end < length ? end : length) - first;
    int32_t whole = (*count + TAPS - 1) / TAPS * TAPS;
    VECTORS_OF_4
    for (int32_t k = 0; k < whole; k++)
        terms[k] = filter((k + first - centre + 0.5) * narrow);
    for (int32_t k = 0; k < *count; k++)
        sum += terms[k];
    sum = sum != 0 ? sum : 1;
    VECTORS_OF_4
    for (int32_t k = 0; k < whole; k++) {
        double weight = terms[k] / sum * (1 << POINT);
        weights[k] = (int32_t)(weight + (weight < 0 ? -0.5 : 0.5));
    }
    return first;
}

#endif

int32_t NAME(pass_room)(int32_t length, int32_t resized)
{
    return (most(length, resized) + 2 * (TAPS - 1)) / TAPS * TAPS; /* up to three 0 before them */
}

void NAME(pass_plan)(pass *p, int32_t length, int32_t resized, int32_t start, int reversed,
                     double *terms)
{
    int32_t end = 0;
    p->count = 0;
    *terms = 0;
    for (int32_t i = 0; i < CODE(IMAGE_SIZE); i++) {
        int32_t *weights = p->weights + (ptrdiff_t)i * p->room, count;
        int32_t first = find_weights(start + i, length, resized, weights, &count, terms);
        for (int32_t k = count; k < p->room; k++)
            weights[k] = 0;
        if (reversed) {
            reverse(weights, count);
            first = length - first - count;
        }
        p->first[i] = first;
        int32_t whole = (first + count + TAPS - 1) / TAPS * TAPS;
        end = whole > end ? whole : end;
        whole -= first / TAPS * TAPS;
        p->count = whole > p->count ? whole : p->count;
    }
    for (int32_t i = 0; i < CODE(IMAGE_SIZE); i++) {
        int32_t *weights = p->weights + (ptrdiff_t)i * p->room;
        int32_t first = p->first[i] / TAPS * TAPS, last = end - p->count;
        first = first < last ? first : last;
        int32_t before = p->first[i] - first;
        __builtin_memmove(weights + before, weights, (size_t)(p->count - before) * sizeof *weights);
        __builtin_memset(weights, 0, (size_t)before * sizeof *weights);
        for (int32_t k = 0; k < p->count; k += TAPS)
            split(weights + k);
        p->first[i] = first;
    }
}

/* Sums with the bits behind the point, which began with a half -> integers. */
static inline ints rounded(const sums *s)
{
    return total(s) >> POINT;
}

/*
 * Where columns 4 i .. 4 i + 3 of four rows lie in the ring: so that the vertical pass, which packs
 * the lanes of four vectors, gets its columns in order.
 */
static inline ptrdiff_t place(int32_t i)
{
    enum { TILES = VECTOR_BYTES / TILE_BYTES };
    int32_t in_four = i % (4 * TILES);
    return (i - in_four + in_four % 4 * TILES + in_four / 4) * (ptrdiff_t)TILE_BYTES;
}

void NAME(horizontal_pass)(const pass *p, const uint8_t *strip, int32_t origin,
                           uint8_t *const rows[LANES / TAPS])
{
    for (int32_t lanes = 0; lanes < LANES_BYTES; lanes += VECTOR_BYTES)
        for (int32_t i = 0; i < CODE(IMAGE_SIZE); i += 4) {
            ints columns[4 * CHANNELS];
            for (int32_t j = 0; j < 4; j++) {
                int32_t output = i + j < CODE(IMAGE_SIZE) ? i + j : i;
                const uint8_t *input =
                    strip + (p->first[output] - origin) / TAPS * STEP_BYTES + lanes;
                const int32_t *weights = p->weights + (ptrdiff_t)output * p->room;
                sums s[CHANNELS];
                for (int c = 0; c < CHANNELS; c++)
                    s[c] = HALF;
                for (int32_t k = 0; k < p->count; k += TAPS, input += STEP_BYTES)
                    for (int c = 0; c < CHANNELS; c++)
                        add_products(&s[c], load(input + c * LANES_BYTES), weights + k);
                for (int c = 0; c < CHANNELS; c++)
                    columns[j * CHANNELS + c] = rounded(&s[c]);
            }
            for (int32_t n = 0; n < CHANNELS; n++) {
                const ints *four = columns + 4 * n;
                bytes whole = packed(four[0], four[1], four[2], four[3]);
                const uint8_t *tile = (const uint8_t *)&whole;
                for (int t = 0; t < VECTOR_BYTES / TILE_BYTES; t++, tile += TILE_BYTES)
                    __builtin_memcpy(rows[lanes / TILE_BYTES + t] + place(i / 4 * CHANNELS + n),
                                     tile, TILE_BYTES);
            }
        }
}

void NAME(vertical_pass)(const pass *p, int32_t first, int32_t end, const uint8_t *ring,
                         int32_t ring_rows, uint8_t *picture)
{
    for (int32_t x = 0; x < IMAGE_ROW_BYTES; x += VECTOR_BYTES)
        for (int32_t output = first; output < end; output++) {
            const int32_t *weights = p->weights + (ptrdiff_t)output * p->room;
            int32_t row = p->first[output] % ring_rows, rest = IMAGE_ROW_BYTES - x;
            sums s[4] = {HALF, HALF, HALF, HALF};
            for (int32_t k = 0; k < p->count; k += TAPS) {
                const uint8_t *input = ring + (ptrdiff_t)(row / TAPS) * PITCH + x * TAPS;
                for (int n = 0; n < 4; n++)
                    add_products(&s[n], load(input + n * VECTOR_BYTES), weights + k);
                row = row + TAPS == ring_rows ? 0 : row + TAPS;
            }
            bytes result = packed(rounded(&s[0]), rounded(&s[1]), rounded(&s[2]), rounded(&s[3]));
            __builtin_memcpy(picture + output * IMAGE_ROW_BYTES + x, &result,
                             rest < VECTOR_BYTES ? (size_t)rest : VECTOR_BYTES);
        }
}
