/*
 * Pictures -> the five most probable classes, with any library that levit-deploy made.
 *
 *   classify [--bench ROUNDS] PICTURE...
 *
 * A picture is a .ppm file, a .jpg file if the program was built with libjpeg, or raw bytes as a
 * camera gives them: WIDTHxHEIGHT:nv12:FILE, or :rgb: instead. HEADER and MODEL, the library's
 * header and name, come from CMake; a program for one library includes "levit_128s.h" and calls
 * levit_128s_classify.
 */
#include HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef HAVE_JPEG
#include <jpeglib.h>
#endif

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)
#define UPPER_(suffix) NAMED(UPPER_MODEL, suffix)

enum { SHOWN = UPPER_(_CLASSES) < 5 ? UPPER_(_CLASSES) : 5 };

/* Reads `planes` after one another into memory that is freed with the first of them. */
static int read_planes(FILE *file, MODEL_(_frame) *frame, const size_t sizes[2])
{
    unsigned char *memory = malloc(sizes[0] + sizes[1]);
    frame->planes[0] = memory;
    frame->planes[1] = memory + sizes[0];
    size_t bytes = sizes[0] + sizes[1];
    return memory && fread(memory, 1, bytes, file) == bytes ? 0 : -1;
}

static int read_pixels(FILE *file, MODEL_(_frame) *frame, int width, int height, int is_nv12)
{
    if (width < 1 || height < 1 || width > UPPER_(_FRAME_SIDE_MAX) ||
        height > UPPER_(_FRAME_SIDE_MAX))
        return -1;
    frame->width = width;
    frame->height = height;
    frame->format = is_nv12 ? UPPER_(_NV12) : UPPER_(_RGB);
    frame->strides[0] = is_nv12 ? width : 3 * width;
    frame->strides[1] = width;
    size_t rows = (size_t)height;
    size_t sizes[2] = {rows * (size_t)frame->strides[0], is_nv12 ? rows / 2 * (size_t)width : 0};
    return read_planes(file, frame, sizes);
}

static int read_ppm(FILE *file, MODEL_(_frame) *frame)
{
    int width, height;
    if (fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF)
        return -1;
    return read_pixels(file, frame, width, height, 0);
}

static int read_jpeg(FILE *file, MODEL_(_frame) *frame)
{
#ifdef HAVE_JPEG
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors; /* its error_exit ends the program, with a sentence */
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    frame->width = (int)jpeg.output_width;
    frame->height = (int)jpeg.output_height;
    frame->strides[0] = 3 * frame->width;
    unsigned char *memory = malloc((size_t)frame->strides[0] * jpeg.output_height);
    frame->planes[0] = memory;
    while (memory && jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = memory + (size_t)frame->strides[0] * jpeg.output_scanline;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_destroy_decompress(&jpeg);
    return memory ? 0 : -1;
#else
    (void)file;
    (void)frame;
    return -1;
#endif
}

static int read_picture(const char *name, MODEL_(_frame) *frame)
{
    int width, height, path = 0;
    char format[5];
    int is_raw = sscanf(name, "%dx%d:%4[a-z0-9]:%n", &width, &height, format, &path) == 3 && path;
    FILE *file = fopen(name + path, "rb");
    if (!file)
        return -1;
    int first = is_raw ? 0 : fgetc(file), code;
    rewind(file);
    if (is_raw)
        code = read_pixels(file, frame, width, height, strcmp(format, "nv12") == 0);
    else
        code = first == 'P' ? read_ppm(file, frame) : read_jpeg(file, frame);
    fclose(file);
    return code;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Classifies `rounds` times and prints the answers, and for a bench the shortest time. */
static int classify(const char *name, const MODEL_(_frame) *frame, int rounds)
{
    MODEL_(_answer) answers[SHOWN];
    void *workspace = malloc(MODEL_(_frame_workspace_bytes)(frame->width, frame->height));
    int code = UPPER_(_ERROR_NULL);
    double best = 1e30;
    for (int i = 0; i < rounds && workspace; i++) {
        double begin = now_ms();
        code = MODEL_(_classify)(frame, answers, SHOWN, workspace, NULL);
        double taken = now_ms() - begin;
        best = taken < best ? taken : best;
        if (code != UPPER_(_OK))
            break;
    }
    free(workspace);
    if (code != UPPER_(_OK)) {
        fprintf(stderr, "%s: %s\n", name, MODEL_(_strerror)(code));
        return 1;
    }
    printf("%s\n", name);
    for (int i = 0; i < SHOWN; i++)
        printf("  %6.2f %%  %s\n", 100 * (double)answers[i].probability,
               MODEL_(_label)(answers[i].class_index));
    if (rounds > 1)
        printf("  %.3f ms\n", best);
    return 0;
}

int main(int argc, char **argv)
{
    int first = 1, rounds = 1;
    if (argc > 2 && strcmp(argv[1], "--bench") == 0) {
        rounds = atoi(argv[2]) > 1 ? atoi(argv[2]) : 2;
        first = 3;
    }
    void *workspace = malloc(UPPER_(_WORKSPACE_BYTES));
    int code = MODEL_(_self_test)(workspace);
    free(workspace);
    if (code != UPPER_(_OK)) {
        fprintf(stderr, "self test: %s\n", MODEL_(_strerror)(code));
        return 1;
    }
    for (int i = first; i < argc; i++) {
        MODEL_(_frame) frame = {0};
        int failed = read_picture(argv[i], &frame);
        if (failed)
            fprintf(stderr, "%s: no picture that this program reads\n", argv[i]);
        else
            failed = classify(argv[i], &frame, rounds);
        free((void *)frame.planes[0]);
        if (failed)
            return 1;
    }
    return 0;
}
