/* Runs an artifact on a file of images: the C program that a verification compiles and executes.
 *
 *   run_images FUNCTION IMAGES_FILE LOGITS_FILE
 *
 * IMAGES_FILE holds images one after the other as the function takes them; before a frame, its
 * width, height, channels and format as 32-bit integers. LOGITS_FILE gets the logits of each, as
 * floats. FUNCTION is `run`, `run_frame` or another, which takes 8-bit images. MODEL, the
 * artifact's name, HEADER and RUN_8BIT, that other's suffix, come from the compiler's command line.
 * Exits with 0, or with 1 and one line on stderr; with 125 if the library is not the one that
 * description.h describes, before anything else of it is run.
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

static const MODEL_(_info) *info;

/* The next image of the file, or NULL: at its end, or if there is no memory. */
static void *read_bytes(FILE *file, size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory && fread(memory, 1, bytes, file) == bytes)
        return memory;
    free(memory);
    return NULL;
}

/* One image from file to logits: 1 if there was one, 0 at the end, -1 with the code at `code`. */
static int run_fixed(FILE *file, int is_float, float *logits, void *workspace, int *code)
{
    size_t values = (size_t)info->channels * info->image_size * info->image_size;
    void *image = read_bytes(file, is_float ? values * sizeof(float) : values);
    if (!image)
        return 0;
    *code = is_float ? MODEL_(_run)(image, logits, workspace)
                     : MODEL_(RUN_8BIT)(image, logits, workspace);
    free(image);
    return *code ? -1 : 1;
}

static int run_frame(FILE *file, float *logits, int *code)
{
    int32_t size[4];
    if (fread(size, sizeof size, 1, file) != 1)
        return 0;
    void *pixels = read_bytes(file, (size_t)size[2] * size[0] * size[1]);
    void *workspace = malloc(MODEL_(_frame_workspace_bytes)(size[0], size[1]));
    MODEL_(_frame) frame = {.planes = {pixels}, .strides = {size[2] * size[0]}, .width = size[0],
                            .height = size[1], .format = size[3]};
    *code = MODEL_(_run_frame)(&frame, logits, workspace, NULL);
    free(workspace);
    free(pixels);
    return *code ? -1 : 1;
}

/* The lines of description_text in library_worker.py. */
static void describe(char *text, size_t bytes)
{
    int length = snprintf(
        text, bytes,
        "abi_version %u\nimage_size %u\nchannels %u\nclasses %u\nexif %u\nworkspace_bytes %llu\n"
        "name %s\nmodel %s\nprecision %s\ntarget %s\nweights_digest %s\nbuild_id %s\n"
        "tool_version %s\npreprocessing %s\n",
        (unsigned)info->abi_version, (unsigned)info->image_size, (unsigned)info->channels,
        (unsigned)info->classes, (unsigned)info->exif, (unsigned long long)info->workspace_bytes,
        info->name, info->model, info->precision, info->target, info->weights_digest,
        info->build_id, info->tool_version, MODEL_(_preprocessing)());
    const float *numbers[] = {info->mean, info->std};
    for (int i = 0; i < 2 && length > 0 && (size_t)length < bytes; i++) {
        length += snprintf(text + length, bytes - (size_t)length, i ? "\nstd" : "mean");
        for (unsigned c = 0; c < info->channels && c < 3 && (size_t)length < bytes; c++)
            length += snprintf(text + length, bytes - (size_t)length, " %.9g",
                               (double)numbers[i][c]);
    }
    if ((size_t)length < bytes)
        snprintf(text + length, bytes - (size_t)length, "\n");
}

/* 0 if the library says of itself what its manifest says, else the exit code. */
static int check_description(void)
{
    static char text[sizeof manifest_says + 4096];
    describe(text, sizeof text);
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
        return fail("usage: run_images FUNCTION IMAGES_FILE LOGITS_FILE");
    info = MODEL_(_describe)();
    int another = check_description();
    if (another)
        return another;
    int is_frame = strcmp(argv[1], "run_frame") == 0, is_float = strcmp(argv[1], "run") == 0;
    FILE *images = fopen(argv[2], "rb");
    FILE *output = fopen(argv[3], "wb");
    void *workspace = malloc(MODEL_(_workspace_bytes)());
    float *logits = malloc(info->classes * sizeof(float));
    if (!images || !output || !workspace || !logits)
        return fail("no file or no memory");

    int code = MODEL_(_self_test)(workspace);
    int more = code == 0;
    while (more > 0) {
        more = is_frame ? run_frame(images, logits, &code)
                        : run_fixed(images, is_float, logits, workspace, &code);
        if (more > 0 && fwrite(logits, sizeof(float), info->classes, output) != info->classes)
            return fail("cannot write the logits");
    }
    if (code != 0)
        return fail(MODEL_(_strerror)(code));
    return fclose(output) ? fail("cannot write the logits") : 0;
}
