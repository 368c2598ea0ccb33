/* What the programs of this folder share: the library `tiny`, its images, and how they fail. */
#ifndef CALLER_H
#define CALLER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiny.h"

enum { SIDE = TINY_IMAGE_SIZE, VALUES = 3 * SIDE * SIDE, LOGITS_BYTES = 4 * TINY_CLASSES };

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
    void *workspace, *frame_workspace;
    tiny_threads *threads;
} call;

enum { RUN, RUN_RGB8, RUN_THREADS, RUN_RGB8_THREADS, RUN_FRAME, SELF_TEST, ENTRIES };
enum { KINDS = 3 }; /* of logits */

static inline int kind_of(int entry)
{
    return entry == RUN_FRAME ? 2 : entry % 2;
}

static inline int enter(int entry, const call *c)
{
    switch (entry) {
    case RUN: return tiny_run(c->image, c->logits, c->workspace);
    case RUN_RGB8: return tiny_run_rgb8(c->rgb, c->logits, c->workspace);
    case RUN_THREADS: return tiny_run_threads(c->image, c->logits, c->workspace, c->threads);
    case RUN_RGB8_THREADS:
        return tiny_run_rgb8_threads(c->rgb, c->logits, c->workspace, c->threads);
    case RUN_FRAME: {
        tiny_frame frame = {.planes = {c->rgb}, .strides = {3 * SIDE}, .width = SIDE,
                            .height = SIDE, .format = TINY_RGB};
        return tiny_run_frame(&frame, c->logits, c->frame_workspace, c->threads);
    }
    default: return tiny_self_test(c->workspace);
    }
}

/* A call without threads, whose workspaces may be of any alignment. */
static inline call allocate(const float *image, const uint8_t *rgb, float *logits)
{
    call c = {image, rgb, logits, malloc(TINY_WORKSPACE_BYTES),
              malloc(tiny_frame_workspace_bytes(SIDE, SIDE)), NULL};
    CHECK(c.workspace && c.frame_workspace);
    return c;
}

/* The logits of each kind. */
static inline void expect(call c, float expected[KINDS][TINY_CLASSES])
{
    for (int entry = 0; entry < SELF_TEST; entry++) {
        c.logits = expected[kind_of(entry)];
        CHECK(enter(entry, &c) == TINY_OK);
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
