/* What the programs of this folder share: the library `tiny`, its images, and how they fail. */
#ifndef CALLER_H
#define CALLER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiny.h"

enum { VALUES = 3 * TINY_IMAGE_SIZE * TINY_IMAGE_SIZE, LOGITS_BYTES = 4 * TINY_CLASSES };

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static inline void draw(float *image, uint8_t *rgb)
{
    for (int i = 0; i < VALUES; i++) {
        rgb[i] = (uint8_t)(i * 7919 % 251);
        image[i] = (float)(i * 7919 % 1000) / 250 - 2;
    }
}

/* What the entry points are called with, and what they are called by. */
typedef struct {
    const float *image;
    const uint8_t *rgb;
    float *logits;
    void *workspace;
    tiny_threads *threads;
} call;

enum { RUN, RUN_RGB8, RUN_THREADS, RUN_RGB8_THREADS, SELF_TEST, ENTRIES };

static inline int enter(int entry, const call *c)
{
    switch (entry) {
    case RUN: return tiny_run(c->image, c->logits, c->workspace);
    case RUN_RGB8: return tiny_run_rgb8(c->rgb, c->logits, c->workspace);
    case RUN_THREADS: return tiny_run_threads(c->image, c->logits, c->workspace, c->threads);
    case RUN_RGB8_THREADS:
        return tiny_run_rgb8_threads(c->rgb, c->logits, c->workspace, c->threads);
    default: return tiny_self_test(c->workspace);
    }
}

/* The caller's own pool, of one thread. */
static inline void one_after_the_other(void *context, int count, void (*task)(void *, int),
                                       void *argument)
{
    (void)context;
    for (int i = 0; i < count; i++)
        task(argument, i);
}

#endif
