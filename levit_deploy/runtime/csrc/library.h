/*
 * What the parts of the library know of each other.
 *
 * A program is a list of steps, each one kernel over a number of tasks. Tasks of a step may run in
 * any order and on any thread; a step starts when the one before it is complete.
 */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdint.h>

#include "program.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define ALIGNMENT 64 /* kernels may assume it of all memory but the caller's image and logits */

enum { ENTRY_FLOAT = 1, ENTRY_8BIT = 2 };

/* What tasks may find out, as bits. */
enum { KERNEL_REFUSED = 1, NO_PICTURE = 2 };

typedef struct {
    int32_t tasks;
    int32_t entries; /* for which kinds of image the step is made */
} step_info;

/* The memory of one classification. */
typedef struct {
    const void *image;
    float *logits;
    unsigned char *arena;
    unsigned char *scratch; /* of the calling thread */
} frame;

/* What is done before the steps of a run: up to `most` parts, in any order and on any thread. */
typedef struct {
    void (*part)(const void *job, int32_t part, int32_t parts);
    const void *job;
    int32_t most;
} preparation;

/* Of the constants, and of all else that nobody writes, see digest.c. */
typedef struct {
    uint64_t constants;
    uint64_t library;
} digests;

/* Generated. */
extern HIDDEN const NAME(info) NAME(info_record);
extern HIDDEN const unsigned char NAME(recipe)[]; /* a string, UTF-8 */
extern HIDDEN const unsigned char NAME(labels)[]; /* strings one after the other, UTF-8 */
extern HIDDEN const uint32_t NAME(label_starts)[];
extern HIDDEN const float NAME(self_test_logits)[CODE(CLASSES)];
extern HIDDEN const step_info NAME(step_infos)[STEPS];
extern HIDDEN const unsigned char NAME(constants)[];
extern HIDDEN const digests NAME(digests);
HIDDEN int32_t NAME(step)(int index, const frame *f, unsigned char *scratch, int32_t begin,
                          int32_t end);

/* Checks the arguments and the CPU, and lays out the workspace: a code, and `*f` if it is OK. */
HIDDEN int NAME(enter)(frame *f, int entry, const void *image, float *logits, void *workspace);

/* Does tasks [begin, end) of a step; those that read a float image also look whether it is one. */
HIDDEN int NAME(tasks)(int step, const frame *f, unsigned char *scratch, int32_t begin,
                       int32_t end);

/* 8-bit classification on several threads; `before` may be NULL. In programs that make threads. */
HIDDEN int NAME(run_prepared)(const preparation *before, const uint8_t *image, float *logits,
                              void *workspace, NAME(threads) *threads);

/* Are constants, code and tables what they were when the library was built? */
HIDDEN int NAME(is_intact)(void);

/* The code of a run whose tasks found `findings`; what is no picture gets logits that are NaN. */
HIDDEN int NAME(leave)(const frame *f, int findings);

/* `pointer` or the next byte that is aligned. */
static inline unsigned char *align_up(void *pointer)
{
    uintptr_t address = (uintptr_t)pointer;
    return (unsigned char *)pointer + (-address & (ALIGNMENT - 1));
}

#endif
