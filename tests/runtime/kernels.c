/* Hand-written kernels of a small network, in the shape that the compiler's have. */
#include <stdint.h>
#include <string.h>

#define KERNEL(name) __attribute__((visibility("hidden"))) int32_t PREFIX(name)
#define PREFIX(name) PREFIX_(NAME_OF_KERNELS, name)
#define PREFIX_(name, suffix) PREFIX__(name, suffix)
#define PREFIX__(name, suffix) name##_##suffix

enum { SIDE = 8, PIXELS = 3 * SIDE * SIDE, HIDDEN_UNITS = 50, CLASSES = 5 };

/* A task is a row of the image; the caller's pointer has any alignment. */
KERNEL(load_f32)(const unsigned char *image, float *out, int32_t begin, int32_t end)
{
    for (int c = 0; c < 3; c++)
        memcpy(out + (c * SIDE + begin) * SIDE, image + 4 * (c * SIDE + begin) * SIDE,
               (size_t)(end - begin) * SIDE * 4);
    return 0;
}

/* scale_shift: 3 scales, 3 shifts. */
KERNEL(load_rgb8)(const uint8_t *rgb, const float *scale_shift, float *out, int32_t begin,
                  int32_t end)
{
    for (int y = begin; y < end; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++)
                out[(c * SIDE + y) * SIDE + x] =
                    rgb[(y * SIDE + x) * 3 + c] * scale_shift[c] + scale_shift[3 + c];
    return 0;
}

/* A task is one hidden unit; the products pass through the worker's scratch. */
KERNEL(hidden)(const float *in, const float *weights, float *out, float *scratch, int32_t begin,
               int32_t end)
{
    for (int32_t j = begin; j < end; j++) {
        for (int i = 0; i < PIXELS; i++)
            scratch[i] = in[i] * weights[j * PIXELS + i];
        float sum = 0;
        for (int i = 0; i < PIXELS; i++)
            sum += scratch[i];
        out[j] = sum > 0 ? sum : 0;
    }
    return 0;
}

KERNEL(head)(const float *in, const float *weights, unsigned char *logits, int32_t begin,
             int32_t end)
{
    for (int32_t j = begin; j < end; j++) {
        float sum = 0;
        for (int i = 0; i < HIDDEN_UNITS; i++)
            sum += in[i] * weights[j * HIDDEN_UNITS + i];
        memcpy(logits + 4 * j, &sum, 4);
    }
    return 0;
}
