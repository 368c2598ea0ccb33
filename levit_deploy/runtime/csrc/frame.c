/* A frame of any size -> the model's picture -> logits. */
#include "picture.h"

#include "cpu.h"
#include "float_mode.h"

enum {
    SIDE_MAX = CODE(FRAME_SIDE_MAX),
    PICTURE_BYTES = CODE(IMAGE_SIZE) * IMAGE_ROW_BYTES,
    STRIPS = BLOCK_COLUMNS / LANES,
    PARTS = 4 /* of a picture, that threads may make at once: each takes memory */
};

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* How many pixels a side of `length` beside one of `other` gets. */
static int32_t resized_length(int32_t length, int32_t other)
{
    switch (RESIZE) {
    case RESIZE_SHORTER:
        return (int32_t)((int64_t)RESIZED_SIDE * length / smaller(length, other));
    case RESIZE_SQUASH: return RESIZED_SIDE;
    default: return length;
    }
}

/* Where the centre begins in a side of `resized` pixels. */
static int32_t crop_start(int32_t resized)
{
    int32_t margin = resized - CODE(IMAGE_SIZE), half = margin / 2;
    return half + (!CROP_ROUNDS_DOWN && margin % 2 && half % 2); /* half a pixel: to even */
}

/*
 * Memory for frames of a size, whichever way they are turned. Never less for a larger frame: the
 * scale of the longer side, whose pixels are rounded down, is bounded by that of one pixel less.
 */
typedef struct {
    int32_t weights; /* of an output, in both passes */
    size_t strip_bytes, part_bytes, bytes;
} room;

static size_t table_bytes(room r)
{
    return (1 + (size_t)r.weights) * CODE(IMAGE_SIZE) * sizeof(int32_t);
}

static int32_t ring_rows(room r)
{
    return r.weights + LANES;
}

static size_t ring_bytes(room r)
{
    return (size_t)ring_rows(r) / TAPS * PITCH;
}

static room room_for(int32_t width, int32_t height)
{
    int32_t longer = larger(width, height);
    int32_t across = RESIZE == RESIZE_SHORTER ? smaller(width, height) : longer;
    int32_t kept = RESIZE == RESIZE_SHORTER  ? RESIZED_SIDE - 1
                   : RESIZE == RESIZE_SQUASH ? RESIZED_SIDE
                                             : across;
    room r = {.weights = NAME(pass_room)(across, kept)};
    int64_t reach = (int64_t)CODE(IMAGE_SIZE) * across / kept + r.weights;
    size_t columns = (size_t)(reach < longer ? reach : longer);
    columns = (columns / BLOCK_COLUMNS + 2) * BLOCK_COLUMNS;
    r.strip_bytes = columns / TAPS * STEP_BYTES;
    size_t terms = (size_t)r.weights * sizeof(double), strips = STRIPS * r.strip_bytes;
    r.part_bytes = ring_bytes(r) + BLOCK_BYTES + (strips > terms ? strips : terms);
    r.bytes = 2 * table_bytes(r) + PARTS * r.part_bytes;
    return r;
}

static size_t rounded_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t NAME(frame_workspace_bytes)(int32_t width, int32_t height)
{
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX)
        return 0;
    size_t bytes = room_for(width, height).bytes;
    bytes = bytes > CODE(WORKSPACE_BYTES) ? bytes : CODE(WORKSPACE_BYTES);
    return ALIGNMENT + rounded_up(PICTURE_BYTES) + rounded_up(CODE(CLASSES) * sizeof(float)) +
           bytes;
}

/* Bytes of a row of each plane; 0 for planes that the format has not. */
static void row_bytes(const NAME(frame) *f, int64_t bytes[3])
{
    int64_t width = f->width;
    bytes[0] = bytes[1] = bytes[2] = 0;
    switch (f->format) {
    case CODE(RGB):
    case CODE(BGR): bytes[0] = 3 * width; break;
    case CODE(RGBA):
    case CODE(BGRA): bytes[0] = 4 * width; break;
    case CODE(GRAY8): bytes[0] = width; break;
    case CODE(NV12):
    case CODE(NV21): bytes[0] = bytes[1] = width; break;
    case CODE(I420): bytes[0] = width, bytes[1] = bytes[2] = width / 2; break;
    case CODE(YUYV):
    case CODE(UYVY): bytes[0] = 2 * width; break;
    }
}

static int check(const NAME(frame) *f)
{
    if (f->format < CODE(RGB) || f->format > CODE(UYVY) || (f->matrix & ~1) || (f->range & ~1))
        return CODE(ERROR_FRAME_FORMAT);
    if (f->rotation % 90 || f->rotation < 0 || f->rotation > 270 || (f->mirrored & ~1))
        return CODE(ERROR_FRAME_ROTATION);
    if (f->width < 1 || f->height < 1 || f->width > SIDE_MAX || f->height > SIDE_MAX)
        return CODE(ERROR_FRAME_SIZE);
    if (RESIZE == RESIZE_NONE && (f->width != CODE(IMAGE_SIZE) || f->height != CODE(IMAGE_SIZE)))
        return CODE(ERROR_FRAME_SIZE);
    int halves_rows = f->format >= CODE(NV12) && f->format <= CODE(I420);
    if ((f->format >= CODE(NV12) && f->width % 2) || (halves_rows && f->height % 2))
        return CODE(ERROR_FRAME_SIZE);
    int64_t bytes[3];
    row_bytes(f, bytes);
    for (int plane = 0; plane < 3; plane++) {
        if (bytes[plane] && !f->planes[plane])
            return CODE(ERROR_NULL);
        int64_t stride = f->strides[plane];
        if (stride < bytes[plane] && stride > -bytes[plane])
            return CODE(ERROR_FRAME_STRIDE);
    }
    return CODE(OK);
}

/* Which inputs a pass needs for its outputs `a` to `b`, or `b` to `a`: multiples of 16. */
typedef struct {
    int32_t first, end;
} range;

static range reach(const pass *p, int32_t a, int32_t b)
{
    int32_t end = larger(p->first[a], p->first[b]) + p->count;
    return (range){smaller(p->first[a], p->first[b]) / LANES * LANES,
                   (end + LANES - 1) / LANES * LANES};
}

/* One side of the upright picture; `reversed`: its pixels lie the other way round in the frame. */
typedef struct {
    int32_t length, resized;
    int reversed;
} side;

/* Pillow since 13.0 makes the vertical pass first where that alone takes most of the rows away. */
static int is_vertical_first(side x, side y)
{
    return y.length > y.resized && y.length - y.resized > 2 * (x.length - x.resized);
}

static void swap_rows_and_columns(uint8_t *picture)
{
    for (int32_t y = 1; y < CODE(IMAGE_SIZE); y++)
        for (int32_t x = 0; x < y; x++) {
            uint8_t *a = picture + (y * CODE(IMAGE_SIZE) + x) * CHANNELS;
            uint8_t *b = picture + (x * CODE(IMAGE_SIZE) + y) * CHANNELS;
            for (int c = 0; c < CHANNELS; c++) {
                uint8_t kept = a[c];
                a[c] = b[c];
                b[c] = kept;
            }
        }
}

/* All that is known before the first pixel is read. */
typedef struct {
    const NAME(frame) *frame;
    int turned;            /* the x of the picture runs along the columns of the frame */
    int is_reversed;       /* its last row is made first */
    int is_swapped;        /* it gets the columns of the picture as rows */
    pass passes[2];        /* horizontal, vertical */
    room room;
    unsigned char *memory; /* of part 0; those of the others are before it */
    uint8_t *picture;
} resize_job;

/* Plans the picture of a frame that `check` has passed; `memory` as `room_for` its size says. */
static resize_job plan(const NAME(frame) *f, uint8_t *picture, unsigned char *memory)
{
    int turned = f->rotation % 180 != 0, mirrored = f->mirrored;
    int32_t width = turned ? f->height : f->width, height = turned ? f->width : f->height;
    int x_reversed = f->rotation == 90 || f->rotation == (mirrored ? 0 : 180);
    int y_reversed = f->rotation == 180 || f->rotation == (mirrored ? 90 : 270);
    side x = {width, resized_length(width, height), x_reversed};
    side y = {height, resized_length(height, width), y_reversed};
    resize_job job = {.frame = f, .room = room_for(f->width, f->height), .picture = picture};
    job.is_swapped = is_vertical_first(x, y);
    job.turned = turned ^ job.is_swapped;
    side sides[2] = {job.is_swapped ? y : x, job.is_swapped ? x : y};
    job.is_reversed = sides[1].reversed;
    job.memory = memory + job.room.bytes - job.room.part_bytes;
    for (int i = 0; i < 2; i++, memory += table_bytes(job.room)) {
        int32_t *numbers = (int32_t *)(void *)memory;
        job.passes[i] = (pass){.room = job.room.weights, .first = numbers,
                               .weights = numbers + CODE(IMAGE_SIZE)};
        NAME(pass_plan)(&job.passes[i], sides[i].length, sides[i].resized,
                        crop_start(sides[i].resized), sides[i].reversed,
                        (double *)(void *)job.memory);
    }
    return job;
}

/* Both passes, strip by strip, for a part of the picture's rows. */
static void resize(const void *planned, int32_t part, int32_t parts)
{
    const resize_job *job = planned;
    const pass *horizontal = &job->passes[0], *vertical = &job->passes[1];
    unsigned char *ring = job->memory - (size_t)part * job->room.part_bytes;
    unsigned char *block = ring + ring_bytes(job->room), *strips = block + BLOCK_BYTES;
    int32_t rows_of_ring = ring_rows(job->room), last = CODE(IMAGE_SIZE) - 1;
    int32_t row = CODE(IMAGE_SIZE) * part / parts, end = CODE(IMAGE_SIZE) * (part + 1) / parts;
    reader pixels;
    NAME(reader_start)(&pixels, job->frame, job->turned, block);
    range along = reach(horizontal, 0, last);
    range across = job->is_reversed ? reach(vertical, last - row, last - (end - 1))
                                    : reach(vertical, row, end - 1);
    for (int32_t from = across.first; from < across.end; from += LANES) {
        uint8_t *strip = strips;
        if (job->turned) {
            int32_t number = (from - across.first) / LANES % STRIPS;
            strip += (size_t)number * job->room.strip_bytes;
            int32_t columns = smaller(across.end - from, BLOCK_COLUMNS);
            for (int32_t i = along.first; number == 0 && i < along.end; i += LANES)
                NAME(read_block)(&pixels, i, from, columns,
                                 strip + (i - along.first) / TAPS * STEP_BYTES,
                                 job->room.strip_bytes);
        } else {
            for (int32_t i = along.first; i < along.end; i += BLOCK_COLUMNS)
                NAME(read_block)(&pixels, from, i, smaller(along.end - i, BLOCK_COLUMNS),
                                 strip + (i - along.first) / TAPS * STEP_BYTES, 0);
        }
        uint8_t *rows[LANES / TAPS];
        for (int l = 0; l < LANES; l += TAPS)
            rows[l / TAPS] = ring + (from + l) % rows_of_ring / TAPS * PITCH;
        NAME(horizontal_pass)(horizontal, strip, along.first, rows);
        int32_t made = row;
        for (; row < end; row++) {
            int32_t output = job->is_reversed ? last - row : row;
            if (vertical->first[output] + vertical->count > from + LANES)
                break;
        }
        NAME(vertical_pass)(vertical, job->is_reversed ? last - (row - 1) : made,
                            job->is_reversed ? last - (made - 1) : row, ring, rows_of_ring,
                            job->picture);
    }
}

/* Where things are in the workspace of a frame. */
typedef struct {
    uint8_t *picture;
    float *logits;
    void *rest; /* to make the picture in, and then to run in */
} layout;

static layout lay_out(void *workspace)
{
    unsigned char *memory = align_up(workspace);
    layout l = {.picture = memory};
    memory += rounded_up(PICTURE_BYTES);
    l.logits = (float *)(void *)memory;
    l.rest = memory + rounded_up(CODE(CLASSES) * sizeof(float));
    return l;
}

/* Plans the picture, and makes it if that cannot be done in parts, or if they are not `wanted`. */
static int prepare(const NAME(frame) *f, uint8_t *picture, void *workspace, int wanted,
                   resize_job *job)
{
    if (!f || !picture || !workspace)
        return CODE(ERROR_NULL);
    if (!cpu_is_supported())
        return CODE(ERROR_CPU);
    int code = check(f);
    if (code != CODE(OK))
        return code;
    float_mode callers = enter_float_mode();
    *job = plan(f, picture, lay_out(workspace).rest);
    if (!wanted || job->is_swapped)
        resize(job, 0, 1);
    if (job->is_swapped)
        swap_rows_and_columns(picture);
    set_float_mode(callers);
    return CODE(OK);
}

int NAME(prepare)(const NAME(frame) *f, uint8_t *picture, void *workspace)
{
    resize_job job;
    return prepare(f, picture, workspace, 0, &job);
}

/* Not there unless the program has made threads: then its linker has taken threads.c too. */
extern __typeof__(NAME(run_prepared)) NAME(run_prepared) __attribute__((weak));

int NAME(run_frame)(const NAME(frame) *f, float *logits, void *workspace, NAME(threads) *threads)
{
    if (!f || !logits || !workspace)
        return CODE(ERROR_NULL);
    layout l = lay_out(workspace);
    resize_job job;
    int code = prepare(f, l.picture, workspace, threads != NULL, &job);
    if (code != CODE(OK))
        return code;
    if (!threads)
        return RUN_8BIT(l.picture, logits, l.rest);
    preparation parts = {resize, &job, PARTS};
    return NAME(run_prepared)(job.is_swapped ? NULL : &parts, l.picture, logits, l.rest, threads);
}

#if HAS_ANSWERS
int NAME(classify)(const NAME(frame) *f, NAME(answer) *answers, int count, void *workspace,
                   NAME(threads) *threads)
{
    if (!answers || !workspace)
        return CODE(ERROR_NULL);
    float *logits = lay_out(workspace).logits;
    int code = count < 1 || count > CODE(CLASSES) ? CODE(ERROR_COUNT) : CODE(OK);
    if (code == CODE(OK))
        code = NAME(run_frame)(f, logits, workspace, threads);
    if (code == CODE(OK))
        NAME(best)(logits, answers, count);
    return code;
}
#endif
