/* Runs an artifact on a file of images: the C program that a verification compiles and executes.
 *
 *   run_images FUNCTION IMAGES_FILE RESULTS_FILE
 *
 * IMAGES_FILE holds images one after the other as the function takes them; before a frame, its
 * width, height, channels and format as 32-bit integers. RESULTS_FILE gets the logits of each, as
 * floats; of `prepare` the images, as bytes. FUNCTION is `run`, `run_frame`, `prepare` or another,
 * which takes 8-bit images; its suffix, RUN_8BIT, comes from the compiler's command line.
 * Exits with 0, or with 1 and one line on stderr; with 125 if the library is not the one that
 * description.h describes, before anything else of it is run.
 */
#include "described.h"

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

/* The same of a frame; or only the image that the library makes of it, to `image`. */
static int run_frame(FILE *file, uint8_t *image, float *logits, int *code)
{
    int32_t size[4];
    if (fread(size, sizeof size, 1, file) != 1)
        return 0;
    void *pixels = read_bytes(file, (size_t)size[2] * size[0] * size[1]);
    void *workspace = malloc(MODEL_(_frame_workspace_bytes)(size[0], size[1]));
    MODEL_(_frame) frame = {.planes = {pixels}, .strides = {size[2] * size[0]}, .width = size[0],
                            .height = size[1], .format = size[3]};
    *code = image ? MODEL_(_prepare)(&frame, image, workspace)
                  : MODEL_(_run_frame)(&frame, logits, workspace, NULL);
    free(workspace);
    free(pixels);
    return *code ? -1 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fail("usage: run_images FUNCTION IMAGES_FILE RESULTS_FILE");
    int another = check_description();
    if (another)
        return another;
    int is_float = strcmp(argv[1], "run") == 0, is_image = strcmp(argv[1], "prepare") == 0;
    int is_frame = strcmp(argv[1], "run_frame") == 0 || is_image;
    FILE *images = fopen(argv[2], "rb");
    FILE *output = fopen(argv[3], "wb");
    void *workspace = malloc(MODEL_(_workspace_bytes)());
    size_t logits_bytes = info->classes * sizeof(float);
    size_t image_bytes = (size_t)info->channels * info->image_size * info->image_size;
    float *logits = malloc(logits_bytes);
    uint8_t *image = malloc(image_bytes);
    if (!images || !output || !workspace || !logits || !image)
        return fail("no file or no memory");

    int code = MODEL_(_self_test)(workspace);
    int more = code == 0;
    const void *result = is_image ? (void *)image : logits;
    size_t bytes = is_image ? image_bytes : logits_bytes;
    while (more > 0) {
        more = is_frame ? run_frame(images, is_image ? image : NULL, logits, &code)
                        : run_fixed(images, is_float, logits, workspace, &code);
        if (more > 0 && fwrite(result, 1, bytes, output) != bytes)
            return fail("cannot write the results");
    }
    if (code != 0)
        return fail(MODEL_(_strerror)(code));
    return fclose(output) ? fail("cannot write the results") : 0;
}
