/* The entry points of the header that need no threads. */
#include "library.h"

#include <string.h>

#include "cpu.h"
#include "float_mode.h"

/* 2^32 as the bits of a float. Up to there no network overflows; no picture gets near it. */
#define LARGEST_VALUE_BITS 0x4f800000
#define NAN_BITS 0x7fc00000

#if defined(__x86_64__) && (REQUIRED_LEAF7_EBX & 1 << 5)
#define USES_AVX2 __attribute__((target("avx2"))) /* the kernels do so too */
#else
#define USES_AVX2
#endif

const NAME(info) *NAME(describe)(void)
{
    return &NAME(info_record);
}

const char *NAME(preprocessing)(void)
{
    return (const char *)NAME(recipe);
}

size_t NAME(workspace_bytes)(void)
{
    return CODE(WORKSPACE_BYTES);
}

/* 32-bit ARM cannot load a float from any address into a vector register; the others can. */
static int is_loadable(const void *floats)
{
#if defined(__arm__)
    return (uintptr_t)floats % sizeof(float) == 0;
#else
    (void)floats;
    return 1;
#endif
}

int NAME(enter)(frame *f, int entry, const void *image, float *logits, void *workspace)
{
    if (!image || !logits || !workspace)
        return CODE(ERROR_NULL);
    if (!is_loadable(logits) || (entry == ENTRY_FLOAT && !is_loadable(image)))
        return CODE(ERROR_ALIGNMENT);
    if (!cpu_is_supported())
        return CODE(ERROR_CPU);
    f->image = image;
    f->logits = logits;
    f->arena = align_up(workspace);
    f->scratch = f->arena + ARENA_BYTES;
    return CODE(OK);
}

/* 8 floats and one, at any address, as their bits. */
typedef int32_t lanes __attribute__((vector_size(32), aligned(1), may_alias));
typedef int32_t bits __attribute__((aligned(1), may_alias));

/* Are all values numbers up to the largest, by their magnitude? */
USES_AVX2 static int is_picture(const unsigned char *floats, size_t count)
{
    const int32_t mask = INT32_MAX, limit = LARGEST_VALUE_BITS + 1;
    lanes inside = ~(lanes){0}; /* negative as long as all are */
    for (; count >= 8; count -= 8, floats += sizeof(lanes))
        inside &= (*(const lanes *)floats & mask) - limit;
    int32_t all = -1;
    for (int i = 0; i < 8; i++)
        all &= inside[i];
    for (; count > 0; count--, floats += sizeof(bits))
        all &= (*(const bits *)floats & mask) - limit;
    return all < 0;
}

int NAME(tasks)(int step, const frame *f, unsigned char *scratch, int32_t begin, int32_t end)
{
    step_info info = NAME(step_infos)[step];
    int findings = 0;
    if (info.entries == ENTRY_FLOAT) {
        /* About the rows that the kernel is going to read. */
        size_t share = IMAGE_VALUES / (size_t)info.tasks;
        size_t first = share * (size_t)begin;
        size_t last = end == info.tasks ? IMAGE_VALUES : share * (size_t)end;
        if (!is_picture((const unsigned char *)f->image + 4 * first, last - first))
            findings |= NO_PICTURE;
    }
    if (NAME(step)(step, f, scratch, begin, end))
        findings |= KERNEL_REFUSED;
    return findings;
}

int NAME(leave)(const frame *f, int findings)
{
    if (findings & KERNEL_REFUSED)
        return CODE(ERROR_KERNEL);
    const uint32_t nan = NAN_BITS;
    for (int i = 0; i < CODE(CLASSES) && (findings & NO_PICTURE); i++)
        memcpy((unsigned char *)f->logits + i * sizeof nan, &nan, sizeof nan);
    return CODE(OK);
}

static int run(int entry, const void *image, float *logits, void *workspace)
{
    frame f;
    int code = NAME(enter)(&f, entry, image, logits, workspace);
    if (code != CODE(OK))
        return code;
    float_mode callers = enter_float_mode();
    int findings = 0;
    for (int i = 0; i < STEPS && !findings; i++)
        if (NAME(step_infos)[i].entries & entry)
            findings = NAME(tasks)(i, &f, f.scratch, 0, NAME(step_infos)[i].tasks);
    set_float_mode(callers);
    return NAME(leave)(&f, findings);
}

int NAME(run)(const float *image, float *logits, void *workspace)
{
    return run(ENTRY_FLOAT, image, logits, workspace);
}

int RUN_8BIT(const uint8_t *image, float *logits, void *workspace)
{
    return run(ENTRY_8BIT, image, logits, workspace);
}

/*
 * The built-in image: 16 x 16 pixel blocks, so that no two regions look alike, under pixel noise,
 * so that no pixel can be taken for its neighbour. levit_deploy/runtime/self_test.py is the same.
 */
static void draw_self_test_image(uint8_t *image)
{
    uint32_t noise = 1;
    for (uint32_t y = 0; y < CODE(IMAGE_SIZE); y++)
        for (uint32_t x = 0; x < CODE(IMAGE_SIZE); x++)
            for (uint32_t c = 0; c < CODE(CHANNELS); c++) {
                uint32_t block = (y / 16 * 73u + x / 16 * 31u + c) * 2654435761u >> 24;
                noise = noise * 1664525u + 1013904223u;
                *image++ = (uint8_t)(block * 7 / 8 + (noise >> 27));
            }
}

int NAME(self_test)(void *workspace)
{
    if (!workspace)
        return CODE(ERROR_NULL);
    if (!NAME(is_intact)())
        return CODE(ERROR_DAMAGED);
    unsigned char *arena = align_up(workspace);
    uint8_t *image = arena + SELF_TEST_IMAGE_OFFSET;
    float *logits = (float *)(void *)(arena + ARENA_BYTES + SCRATCH_BYTES);
    draw_self_test_image(image);
    int code = run(ENTRY_8BIT, image, logits, workspace);
    float_mode callers = enter_float_mode();
    for (int i = 0; i < CODE(CLASSES) && code == CODE(OK); i++) {
        float difference = logits[i] - NAME(self_test_logits)[i];
        int close = difference <= SELF_TEST_TOLERANCE && difference >= -SELF_TEST_TOLERANCE;
        if (!close) /* a NaN is not close */
            code = CODE(ERROR_SELF_TEST);
    }
    set_float_mode(callers);
    return code;
}

const char *NAME(strerror)(int code)
{
    switch (code) {
    case CODE(OK): return "success";
    case CODE(ERROR_NULL): return "a pointer is NULL";
    case CODE(ERROR_CPU): return "this CPU lacks an instruction that the library uses";
    case CODE(ERROR_SELF_TEST): return "self test: the logits are not those of the build machine";
    case CODE(ERROR_BUSY): return "another call is using these threads";
    case CODE(ERROR_ALIGNMENT): return "on this CPU floats must lie at a multiple of 4 bytes";
    case CODE(ERROR_KERNEL): return "a kernel refused its arguments: the library is damaged";
    case CODE(ERROR_FRAME_FORMAT): return "frame: unknown format, matrix or range";
    case CODE(ERROR_FRAME_ROTATION): return "frame: rotation or mirrored has no such value";
    case CODE(ERROR_FRAME_SIZE): return "frame: a side is 0, too long, or odd under chroma";
    case CODE(ERROR_FRAME_STRIDE): return "frame: a stride is shorter than a row";
    case CODE(ERROR_COUNT): return "there are not as many classes as answers were asked for";
    case CODE(ERROR_DAMAGED): return "self test: weights or code are not what was built";
    }
    return "unknown code";
}
