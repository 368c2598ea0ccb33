/* Prepares frames with all memory between guard pages; or frames made at random, to see it crash.
 *
 *   frames prepare FRAMES_FILE IMAGES_FILE
 *   frames random COUNT
 *
 * A frame in the file: width, height, format, rotation, mirrored, matrix, range, three strides and
 * three sizes of planes as 32-bit integers, then the planes. Each plane, the workspace and the image
 * end at a page that cannot be read; with a negative stride the plane's last row is its first.
 */
#define _GNU_SOURCE
#include HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)

typedef struct {
    unsigned char *mapping, *memory;
    size_t mapped;
} guarded;

static guarded allocate(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    guarded g = {.mapped = inner + 2 * page};
    g.mapping = mmap(NULL, g.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.mapping == MAP_FAILED || (inner && mprotect(g.mapping + page, inner, PROT_READ | PROT_WRITE)))
        exit(3);
    g.memory = g.mapping + page + inner - bytes;
    return g;
}

static void release(guarded g)
{
    munmap(g.mapping, g.mapped);
}

static int prepare(const char *input, const char *output)
{
    size_t image_bytes = (size_t)3 * MODEL_(_describe)()->image_size * MODEL_(_describe)()->image_size;
    FILE *frames = fopen(input, "rb"), *images = fopen(output, "wb");
    int32_t head[13];
    while (fread(head, sizeof head, 1, frames) == 1) {
        MODEL_(_frame) frame = {.width = head[0], .height = head[1], .format = head[2],
                                .rotation = head[3], .mirrored = head[4], .matrix = head[5],
                                .range = head[6]};
        guarded planes[3], image = allocate(image_bytes);
        guarded workspace = allocate(MODEL_(_frame_workspace_bytes)(head[0], head[1]));
        for (int i = 0; i < 3; i++) {
            size_t bytes = (size_t)head[10 + i];
            planes[i] = allocate(bytes);
            if (fread(planes[i].memory, 1, bytes, frames) != bytes)
                return 2;
            frame.strides[i] = head[7 + i];
            size_t stride = (size_t)(head[7 + i] < 0 ? -head[7 + i] : 0);
            size_t rows = stride ? (bytes + stride - 1) / stride : 1;
            frame.planes[i] = bytes ? planes[i].memory + stride * (rows - 1) : NULL;
        }
        int code = MODEL_(_prepare)(&frame, image.memory, workspace.memory);
        if (code) {
            fprintf(stderr, "%s\n", MODEL_(_strerror)(code));
            return 1;
        }
        fwrite(image.memory, 1, image_bytes, images);
        for (int i = 0; i < 3; i++)
            release(planes[i]);
        release(image);
        release(workspace);
    }
    return fclose(images);
}

static uint32_t state = 1;

static int32_t below(int32_t limit)
{
    state = state * 1664525u + 1013904223u;
    return (int32_t)((uint64_t)(state >> 8) * (uint32_t)limit >> 24);
}

static int32_t side(void)
{
    int32_t limits[] = {8, 100, 1000, 17000};
    return below(limits[below(below(8) ? 3 : 4)]);
}

/* Frames of which any field may be wrong; those that fit have just the memory that they need. */
static int random_frames(int count)
{
    int accepted = 0;
    MODEL_(_threads) *four = MODEL_(_threads_create)(4);
    for (int i = 0; i < count; i++) {
        MODEL_(_frame) frame = {.width = side(), .height = below(4) ? side() : 2 * below(8),
                                .format = below(10), .rotation = 90 * below(4),
                                .mirrored = below(2), .matrix = below(2), .range = below(2)};
        int32_t *fields[] = {&frame.width, &frame.height, &frame.format, &frame.rotation,
                             &frame.mirrored, &frame.matrix, &frame.range};
        if (below(4) == 0)
            *fields[below(7)] = below(2) ? -below(1 << 20) : below(1 << 20);
        guarded planes[3];
        int64_t width = frame.width > 0 && frame.width < 20000 ? frame.width : 1;
        int64_t height = frame.height > 0 && frame.height < 20000 ? frame.height : 1;
        for (int p = 0; p < 3; p++) {
            int64_t row = frame.format < 2 ? 3 * width : frame.format < 4 ? 4 * width
                        : frame.format > 7 ? 2 * width : frame.format == 7 && p ? width / 2 : width;
            int64_t rows = frame.format >= 5 && frame.format <= 7 && p ? height / 2 : height;
            planes[p] = allocate(rows > 0 ? (size_t)(row * rows) : 1);
            int32_t wrong = (int32_t)row - 1 - below((int32_t)(2 * row - (row > 0))); /* too short */
            frame.strides[p] = rows == 1 ? PTRDIFF_MIN : below(20) ? row : wrong;
            frame.planes[p] = below(100) ? planes[p].memory : NULL;
        }
        guarded workspace = allocate(MODEL_(_frame_workspace_bytes)((int32_t)width, (int32_t)height));
        guarded answers = allocate(5 * sizeof(MODEL_(_answer)));
        int wanted = below(50) ? 1 + below(5) : below(9) - 2;
        int code = MODEL_(_classify)(&frame, (void *)answers.memory, wanted, workspace.memory,
                                     below(2) ? four : NULL);
        if (code == 0 && wanted > 5)
            return 4;
        accepted += code == 0;
        for (int p = 0; p < 3; p++)
            release(planes[p]);
        release(workspace);
        release(answers);
    }
    MODEL_(_threads_destroy)(four);
    printf("%d\n", accepted);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "prepare") == 0)
        return prepare(argv[2], argv[3]);
    return argc == 3 ? random_frames(atoi(argv[2])) : 5;
}
