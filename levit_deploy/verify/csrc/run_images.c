/* Runs an artifact on a file of images: the C program that a verification compiles and executes.
 *
 *   run_images run|run_rgb8 IMAGES_FILE LOGITS_FILE
 *
 * IMAGES_FILE holds images one after the other as the entry point takes them; LOGITS_FILE gets the
 * logits of each, as floats. MODEL, the artifact's name, and HEADER come from the compiler's
 * command line. Exits with 0, or with 1 and one line on stderr; with 125 if the library is not the
 * one that description.h describes, before anything else of it is run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include HEADER

#include "description.h" /* manifest_says: what the library must say of itself */

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

/* The lines of description_text in library_worker.py. */
static void describe(const MODEL_(_info) *info, char *text, size_t bytes)
{
    snprintf(text, bytes,
             "abi_version %u\nimage_size %u\nclasses %u\nworkspace_bytes %llu\n"
             "name %s\nmodel %s\nprecision %s\ntarget %s\nweights_digest %s\nbuild_id %s\n"
             "tool_version %s\npreprocessing %s\nmean %.9g %.9g %.9g\nstd %.9g %.9g %.9g\n",
             (unsigned)info->abi_version, (unsigned)info->image_size, (unsigned)info->classes,
             (unsigned long long)info->workspace_bytes, info->name, info->model, info->precision,
             info->target, info->weights_digest, info->build_id, info->tool_version,
             MODEL_(_preprocessing)(), info->mean[0], info->mean[1], info->mean[2], info->std[0],
             info->std[1], info->std[2]);
}

/* 0 if the library says of itself what its manifest says, else the exit code. */
static int check_description(const MODEL_(_info) *info)
{
    static char text[sizeof manifest_says + 4096];
    describe(info, text, sizeof text);
    if (strcmp(text, (const char *)manifest_says) == 0)
        return 0;
    size_t line = 0;
    for (size_t i = 0; text[i] && text[i] == (char)manifest_says[i]; i++)
        if (text[i] == '\n')
            line = i + 1;
    fprintf(stderr, "it says `%.*s`\n", (int)strcspn(text + line, "\n"), text + line);
    return 125;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fail("usage: run_images run|run_rgb8 IMAGES_FILE LOGITS_FILE");
    const MODEL_(_info) *info = MODEL_(_describe)();
    int another = check_description(info);
    if (another)
        return another;
    int rgb8 = strcmp(argv[1], "run_rgb8") == 0;
    size_t values = (size_t)3 * info->image_size * info->image_size;
    size_t image_bytes = rgb8 ? values : values * sizeof(float);

    FILE *images = fopen(argv[2], "rb");
    FILE *output = fopen(argv[3], "wb");
    void *workspace = malloc(MODEL_(_workspace_bytes)());
    void *image = malloc(image_bytes);
    float *logits = malloc(info->classes * sizeof(float));
    if (!images || !output || !workspace || !image || !logits)
        return fail("no file or no memory");

    int code = MODEL_(_self_test)(workspace);
    while (code == 0 && fread(image, 1, image_bytes, images) == image_bytes) {
        code = rgb8 ? MODEL_(_run_rgb8)(image, logits, workspace)
                    : MODEL_(_run)(image, logits, workspace);
        if (fwrite(logits, sizeof(float), info->classes, output) != info->classes)
            return fail("cannot write the logits");
    }
    if (code != 0)
        return fail(MODEL_(_strerror)(code));
    return fclose(output) ? fail("cannot write the logits") : 0;
}
