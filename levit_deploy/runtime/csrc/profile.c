/* Profile builds only, never shipped: run() with a clock around every step. */
#include "library.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* As NAME(run); `step_ns` gets one duration for each step, 0 for steps of the 8-bit entry. */
__attribute__((visibility("default")))
int NAME(profile)(const float *image, float *logits, void *workspace, uint64_t step_ns[STEPS])
{
    frame f;
    int code = NAME(enter)(&f, ENTRY_FLOAT, image, logits, workspace);
    for (int i = 0; i < STEPS && code == CODE(OK); i++) {
        step_info step = NAME(step_infos)[i];
        step_ns[i] = 0;
        if (!(step.entries & ENTRY_FLOAT))
            continue;
        uint64_t begin = now_ns();
        if (NAME(step)(i, &f, f.scratch, 0, step.tasks))
            code = CODE(ERROR_KERNEL);
        step_ns[i] = now_ns() - begin;
    }
    return code;
}
