/*
 * The entry points of a library for several CPUs. It holds a complete library for each kind of
 * them, a level, on the same weights; calls go to the most capable one that this CPU can run.
 */
#include "front.h"

#include <stdatomic.h>
#ifdef _WIN32 /* where the library has no C library to ask */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <stdlib.h>
#endif

/* For tests: the name of a target, whose level is then used whatever the CPU is. */
#define FORCED "LEVIT_DEPLOY_LEVEL"

#define LEVEL_FUNCTIONS(X, p) \
    X(p, describe) X(p, preprocessing) X(p, workspace_bytes) X(p, run) X(p, RUN_8BIT_SUFFIX) \
    X(p, frame_workspace_bytes) X(p, run_frame) X(p, prepare) X(p, self_test) X(p, strerror) \
    ANSWER_FUNCTIONS(X, p)
#if HAS_ANSWERS
#define ANSWER_FUNCTIONS(X, p) X(p, classify) X(p, softmax) X(p, label)
#else
#define ANSWER_FUNCTIONS(X, p)
#endif

/* A level's functions are those of the header under other names. */
#define DECLARED(p, function) extern HIDDEN __typeof__(NAME(function)) OF(p, function);
#define DECLARE(p, target) \
    extern HIDDEN int OF(p, is_supported)(void); \
    LEVEL_FUNCTIONS(DECLARED, p)
LEVELS(DECLARE)

#define MEMBER(p, function) __typeof__(&NAME(function)) function;
typedef struct {
    const char *target;
    int (*is_supported)(void);
    LEVEL_FUNCTIONS(MEMBER, )
} level;

#define POINTER(p, function) .function = OF(p, function),
#define ROW(p, name) \
    {.target = name, .is_supported = OF(p, is_supported), LEVEL_FUNCTIONS(POINTER, p)},
static const level levels[] = {LEVELS(ROW)};

enum { COUNT = sizeof levels / sizeof *levels };

/* What FORCED says, or NULL; `room`: where the system may put it. */
static const char *forced_level(char *room, unsigned bytes)
{
#ifdef _WIN32
    unsigned length = GetEnvironmentVariableA(FORCED, room, bytes);
    return length > 0 && length < bytes ? room : NULL;
#else
    (void)room, (void)bytes;
    return getenv(FORCED);
#endif
}

static int is_same(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++)
        ;
    return *a == *b;
}

static int choose(void)
{
    char room[64];
    const char *forced = forced_level(room, sizeof room);
    for (int i = 0; i < COUNT; i++)
        if (forced ? is_same(forced, levels[i].target) : levels[i].is_supported())
            return i;
    return COUNT - 1; /* which says what is wrong with this CPU, if it is */
}

int NAME(level)(void)
{
    static atomic_int chosen; /* and 1 more; whoever comes first, all find the same */
    int known = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (known == 0) {
        known = choose() + 1;
        atomic_store_explicit(&chosen, known, memory_order_relaxed);
    }
    return known - 1;
}

#define CHOSEN levels[NAME(level)()]

const NAME(info) *NAME(describe)(void)
{
    return CHOSEN.describe();
}

const char *NAME(preprocessing)(void)
{
    return CHOSEN.preprocessing();
}

size_t NAME(workspace_bytes)(void)
{
    return CHOSEN.workspace_bytes();
}

int NAME(run)(const float *image, float *logits, void *workspace)
{
    return CHOSEN.run(image, logits, workspace);
}

int NAME(RUN_8BIT_SUFFIX)(const uint8_t *image, float *logits, void *workspace)
{
    return CHOSEN.RUN_8BIT_SUFFIX(image, logits, workspace);
}

size_t NAME(frame_workspace_bytes)(int32_t width, int32_t height)
{
    return CHOSEN.frame_workspace_bytes(width, height);
}

int NAME(run_frame)(const NAME(frame) *f, float *logits, void *workspace, NAME(threads) *threads)
{
    return CHOSEN.run_frame(f, logits, workspace, threads);
}

int NAME(prepare)(const NAME(frame) *f, uint8_t *picture, void *workspace)
{
    return CHOSEN.prepare(f, picture, workspace);
}

#if HAS_ANSWERS

int NAME(classify)(const NAME(frame) *f, NAME(answer) *answers, int count, void *workspace,
                   NAME(threads) *threads)
{
    return CHOSEN.classify(f, answers, count, workspace, threads);
}

int NAME(softmax)(const float *logits, float *probabilities)
{
    return CHOSEN.softmax(logits, probabilities);
}

const char *NAME(label)(int class_index)
{
    return CHOSEN.label(class_index);
}

#endif

int NAME(self_test)(void *workspace)
{
    return CHOSEN.self_test(workspace);
}

const char *NAME(strerror)(int code)
{
    return CHOSEN.strerror(code);
}
