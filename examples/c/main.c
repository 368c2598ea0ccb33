/*
 * Classifies raw images: levit_128s.h, a workspace, one call.
 *
 *   classify IMAGE.rgb...
 *
 * An image file holds LEVIT_128S_IMAGE_SIZE rows of as many pixels of three bytes: R, G, B.
 */
#include "levit_128s.h"

#include <stdio.h>

#define IMAGE_BYTES (3 * LEVIT_128S_IMAGE_SIZE * LEVIT_128S_IMAGE_SIZE)
#define SHOWN 5

static uint8_t image[IMAGE_BYTES];
static float logits[LEVIT_128S_CLASSES];
static unsigned char workspace[LEVIT_128S_WORKSPACE_BYTES];

static int read_image(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return -1;
    size_t bytes = fread(image, 1, IMAGE_BYTES, file);
    int longer = fgetc(file) != EOF;
    fclose(file);
    return bytes == IMAGE_BYTES && !longer ? 0 : -1;
}

/* The best classes first, each taken off the list once it is printed. */
static void print_best(const char *path)
{
    int taken[SHOWN] = {0};
    printf("%s\n", path);
    for (int rank = 0; rank < SHOWN && rank < LEVIT_128S_CLASSES; rank++) {
        int best = -1;
        for (int i = 0; i < LEVIT_128S_CLASSES; i++) {
            int is_taken = 0;
            for (int k = 0; k < rank; k++)
                is_taken |= taken[k] == i;
            if (!is_taken && (best < 0 || logits[i] > logits[best]))
                best = i;
        }
        taken[rank] = best;
        printf("  class %d: %.4f\n", best, (double)logits[best]);
    }
}

int main(int argc, char **argv)
{
    int code = levit_128s_self_test(workspace);
    if (code) {
        fprintf(stderr, "self test: %s\n", levit_128s_strerror(code));
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        if (read_image(argv[i])) {
            fprintf(stderr, "%s: not a raw image of %d bytes\n", argv[i], IMAGE_BYTES);
            return 1;
        }
        code = levit_128s_run_rgb8(image, logits, workspace);
        if (code) {
            fprintf(stderr, "%s: %s\n", argv[i], levit_128s_strerror(code));
            return 1;
        }
        print_best(argv[i]);
    }
    return 0;
}
