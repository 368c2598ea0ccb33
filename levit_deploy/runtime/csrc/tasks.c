/*
 * Tasks of a step, and whether a float image is a picture at all. That is seen where its rows have
 * just been read by the kernel, and so lie in the first cache. Compiled for the target's own CPU.
 */
#include "library.h"

#include <string.h>

/* 2^32 as the bits of a float. Up to there no network overflows; no picture gets near it. */
#define LARGEST_VALUE_BITS 0x4f800000
#define NAN_BITS 0x7fc00000
#define LANES 16

/* The bits of floats at any address. */
typedef int32_t bits __attribute__((aligned(1), may_alias));
typedef int32_t lanes __attribute__((vector_size(4 * LANES), aligned(1), may_alias));

/* Are all values numbers up to the largest, by their magnitude? */
static int are_sound(const unsigned char *floats, size_t count)
{
    const int32_t magnitude = INT32_MAX, limit = LARGEST_VALUE_BITS + 1;
    lanes below = ~(lanes){0}; /* negative as long as all are */
    for (; count >= LANES; count -= LANES, floats += sizeof(lanes))
        below &= (*(const lanes *)floats & magnitude) - limit;
    int32_t all = -1;
    for (int i = 0; i < LANES; i++)
        all &= below[i];
    for (; count > 0; count--, floats += sizeof(bits))
        all &= (*(const bits *)floats & magnitude) - limit;
    return all < 0;
}

/* The rows of the float image that are a task's part of it, in each plane. */
static int is_picture(const unsigned char *image, int32_t task, int32_t tasks)
{
    const size_t row = sizeof(float) * CODE(IMAGE_SIZE), plane = row * CODE(IMAGE_SIZE);
    size_t first = (size_t)(task * CODE(IMAGE_SIZE) / tasks);
    size_t end = (size_t)((task + 1) * CODE(IMAGE_SIZE) / tasks);
    int sound = 1;
    for (size_t at = first * row; at < sizeof(float) * IMAGE_VALUES; at += plane)
        sound &= are_sound(image + at, (end - first) * CODE(IMAGE_SIZE));
    return sound;
}

int NAME(tasks)(int step, const frame *f, unsigned char *scratch, int32_t begin, int32_t end)
{
    step_info info = NAME(step_infos)[step];
    if (info.entries != ENTRY_FLOAT)
        return NAME(step)(step, f, scratch, begin, end) ? KERNEL_REFUSED : 0;
    int findings = 0;
    for (int32_t task = begin; task < end; task++) {
        findings |= NAME(step)(step, f, scratch, task, task + 1) ? KERNEL_REFUSED : 0;
        findings |= is_picture(f->image, task, info.tasks) ? 0 : NO_PICTURE;
    }
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
