/* Threads of a library for several CPUs: those of the level that front.c has chosen. */
#include "front.h"

#define LEVEL_FUNCTIONS(X, p) \
    X(p, threads_create) X(p, threads_adopt) X(p, threads_destroy) X(p, run_threads) \
    X(p, RUN_8BIT_THREADS_SUFFIX)

#define DECLARED(p, function) extern HIDDEN __typeof__(NAME(function)) OF(p, function);
#define DECLARE(p, target) LEVEL_FUNCTIONS(DECLARED, p)
LEVELS(DECLARE)

#define MEMBER(p, function) __typeof__(&NAME(function)) function;
#define POINTER(p, function) .function = OF(p, function),
#define ROW(p, target) {LEVEL_FUNCTIONS(POINTER, p)},
static const struct {
    LEVEL_FUNCTIONS(MEMBER, )
} levels[] = {LEVELS(ROW)};

#define CHOSEN levels[NAME(level)()]

NAME(threads) *NAME(threads_create)(int count)
{
    return CHOSEN.threads_create(count);
}

NAME(threads) *NAME(threads_adopt)(int count, NAME(parallel_for) parallel_for, void *context)
{
    return CHOSEN.threads_adopt(count, parallel_for, context);
}

void NAME(threads_destroy)(NAME(threads) *threads)
{
    CHOSEN.threads_destroy(threads);
}

int NAME(run_threads)(const float *image, float *logits, void *workspace, NAME(threads) *threads)
{
    return CHOSEN.run_threads(image, logits, workspace, threads);
}

int NAME(RUN_8BIT_THREADS_SUFFIX)(const uint8_t *image, float *logits, void *workspace,
                                  NAME(threads) *threads)
{
    return CHOSEN.RUN_8BIT_THREADS_SUFFIX(image, logits, workspace, threads);
}
