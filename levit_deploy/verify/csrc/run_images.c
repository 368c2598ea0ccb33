/* Runs an artifact on a file of images: the C program that a verification compiles and executes.
 *
 *   run_images FUNCTION IMAGES_FILE LOGITS_FILE
 *
 * IMAGES_FILE holds images one after the other as the entry point takes them; LOGITS_FILE gets the
 * logits of each, as floats. FUNCTION is `run` or another, which takes 8-bit images. MODEL, the
 * artifact's name, HEADER and RUN_8BIT, that other's suffix, come from the compiler's command line.
 * Exits with 0, or with 1 and one line on stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include HEADER

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fail("usage: run_images FUNCTION IMAGES_FILE LOGITS_FILE");
    const MODEL_(_info) *info = MODEL_(_describe)();
    int eight_bit = strcmp(argv[1], "run") != 0;
    size_t values = (size_t)info->channels * info->image_size * info->image_size;
    size_t image_bytes = eight_bit ? values : values * sizeof(float);

    FILE *images = fopen(argv[2], "rb");
    FILE *output = fopen(argv[3], "wb");
    void *workspace = malloc(MODEL_(_workspace_bytes)());
    void *image = malloc(image_bytes);
    float *logits = malloc(info->classes * sizeof(float));
    if (!images || !output || !workspace || !image || !logits)
        return fail("no file or no memory");

    int code = MODEL_(_self_test)(workspace);
    while (code == 0 && fread(image, 1, image_bytes, images) == image_bytes) {
        code = eight_bit ? MODEL_(RUN_8BIT)(image, logits, workspace)
                         : MODEL_(_run)(image, logits, workspace);
        if (fwrite(logits, sizeof(float), info->classes, output) != info->classes)
            return fail("cannot write the logits");
    }
    if (code != 0)
        return fail(MODEL_(_strerror)(code));
    return fclose(output) ? fail("cannot write the logits") : 0;
}
