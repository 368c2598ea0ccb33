/* Debug builds only, never shipped: run() that shows the arena after every step. */
#include "library.h"

/*
 * As NAME(run). `finished` is called when a step is done, before the next one can overwrite what it
 * made; steps of the 8-bit entry are not made.
 */
__attribute__((visibility("default")))
int NAME(taps)(const float *image, float *logits, void *workspace,
               void (*finished)(void *user, int step, const unsigned char *arena), void *user)
{
    frame f;
    int code = NAME(enter)(&f, ENTRY_FLOAT, image, logits, workspace);
    for (int i = 0; i < STEPS && code == CODE(OK); i++) {
        step_info step = NAME(step_infos)[i];
        if (!(step.entries & ENTRY_FLOAT))
            continue;
        if (NAME(step)(i, &f, f.scratch, 0, step.tasks))
            code = CODE(ERROR_KERNEL);
        else
            finished(user, i, f.arena);
    }
    return code;
}
