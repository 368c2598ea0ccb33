/*
 * Several threads classify one image.
 *
 * In every step each thread takes tasks from a common counter until none is left, then waits for
 * the others. Waiting is spinning for some microseconds, the usual length of a step, and then
 * sleeping on a futex. All memory is allocated when the threads are created: each thread but the
 * caller's has its own scratch there.
 */
#include "library.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef WEAK_PTHREAD
/* Before glibc 2.34 these live in libpthread, which a program without threads need not load. */
#pragma weak pthread_create
#pragma weak pthread_join
#pragma weak pthread_sigmask
#define HAVE_PTHREAD (pthread_create && pthread_join && pthread_sigmask)
#else
#define HAVE_PTHREAD 1
#endif

#define SPINS 4096      /* about 50 microseconds */
#define CACHE_LINE 128  /* two lines of 64: x86 fetches them in pairs */

typedef struct {
    NAME(threads) *threads;
    int index;
} worker;

struct NAME(threads) {
    int count; /* the caller's thread included */
    pid_t process;
    unsigned char *scratch; /* of workers 1 .. count - 1 */
    NAME(parallel_for) parallel_for; /* NULL: threads of our own */
    void *context;
    pthread_t handles[CODE(THREADS_MAX)];
    worker workers[CODE(THREADS_MAX)];
    atomic_flag busy;
    atomic_int stop;

    /* The run in progress. */
    frame frame;
    int entry;
    int step;             /* only with parallel_for */
    uint32_t first_goal;  /* of `arrivals`, only with threads of our own */
    atomic_int failed;
    alignas(CACHE_LINE) atomic_int next_task[STEPS];

    /* Words that are waited for; they only grow, and may wrap around. */
    alignas(CACHE_LINE) atomic_uint runs;     /* started since creation */
    alignas(CACHE_LINE) atomic_uint arrivals; /* threads that finished a step, since creation */
    alignas(CACHE_LINE) atomic_int sleepers;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* waits about as long as x86's pause; yield does nothing on most */
#else
    __asm__ volatile("yield");
#endif
}

static int reached(uint32_t value, uint32_t goal)
{
    return (int32_t)(value - goal) >= 0;
}

static void wait_for(NAME(threads) *t, atomic_uint *word, uint32_t goal)
{
    for (int i = 0; i < SPINS; i++) {
        if (reached(atomic_load_explicit(word, memory_order_acquire), goal))
            return;
        relax();
    }
    /* Counted as asleep before the last look: whoever changes the word after it will wake us. */
    atomic_fetch_add(&t->sleepers, 1);
    for (uint32_t seen; !reached(seen = atomic_load(word), goal);)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleepers, 1);
}

/* Adds one to `word`; whoever takes it to `goal` wakes those who wait for that. */
static void advance(NAME(threads) *t, atomic_uint *word, uint32_t goal)
{
    if (atomic_fetch_add(word, 1) + 1 == goal && atomic_load(&t->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, CODE(THREADS_MAX), NULL, NULL, 0);
}

/* Takes tasks of a step until none is left: large portions first, single tasks at the end. */
static void share(NAME(threads) *t, const frame *f, int step, int index)
{
    unsigned char *scratch = index ? t->scratch + (size_t)(index - 1) * SCRATCH_BYTES : f->scratch;
    int32_t tasks = NAME(step_infos)[step].tasks;
    int32_t begin = atomic_load_explicit(&t->next_task[step], memory_order_relaxed);
    while (begin < tasks) {
        int32_t portion = (tasks - begin) / (2 * t->count);
        int32_t end = begin + (portion > 0 ? portion : 1);
        if (!atomic_compare_exchange_weak_explicit(&t->next_task[step], &begin, end,
                                                   memory_order_relaxed, memory_order_relaxed))
            continue;
        if (NAME(step)(step, f, scratch, begin, end))
            atomic_store_explicit(&t->failed, 1, memory_order_relaxed);
        begin = atomic_load_explicit(&t->next_task[step], memory_order_relaxed);
    }
}

/* One thread's part of a run. Once the last step is complete `t` may describe the next run. */
static void work(NAME(threads) *t, int index)
{
    const frame f = t->frame;
    const int entry = t->entry;
    uint32_t goal = t->first_goal;
    for (int step = 0; step < STEPS; step++) {
        if (!(NAME(step_infos)[step].entries & entry))
            continue;
        share(t, &f, step, index);
        advance(t, &t->arrivals, goal);
        wait_for(t, &t->arrivals, goal);
        goal += (uint32_t)t->count;
    }
}

static void *serve(void *argument)
{
    const worker *w = argument;
    for (uint32_t run = 1;; run++) {
        wait_for(w->threads, &w->threads->runs, run);
        if (atomic_load(&w->threads->stop))
            return NULL;
        work(w->threads, w->index);
    }
}

static void lent_task(void *argument, int index)
{
    NAME(threads) *t = argument;
    share(t, &t->frame, t->step, index);
}

static void start_run(NAME(threads) *t)
{
    advance(t, &t->runs, atomic_load(&t->runs) + 1);
}

static int run(int entry, const void *image, float *logits, void *workspace, NAME(threads) *t)
{
    /* The child of a fork has the memory of its parent's threads, but not the threads. */
    if (!t || t->count == 1 || t->process != getpid())
        return entry == ENTRY_FLOAT ? NAME(run)(image, logits, workspace)
                                    : NAME(run_rgb8)(image, logits, workspace);
    frame f;
    int code = NAME(enter)(&f, image, logits, workspace);
    if (code != CODE(OK))
        return code;
    if (atomic_flag_test_and_set(&t->busy))
        return CODE(ERROR_BUSY);
    t->frame = f;
    t->entry = entry;
    atomic_store(&t->failed, 0);
    for (int step = 0; step < STEPS; step++)
        atomic_store_explicit(&t->next_task[step], 0, memory_order_relaxed);
    if (t->parallel_for) {
        for (t->step = 0; t->step < STEPS; t->step++)
            if (NAME(step_infos)[t->step].entries & entry)
                t->parallel_for(t->context, t->count, lent_task, t);
    } else {
        t->first_goal = atomic_load(&t->arrivals) + (uint32_t)t->count;
        start_run(t);
        work(t, 0);
    }
    code = atomic_load(&t->failed) ? CODE(ERROR_KERNEL) : CODE(OK);
    atomic_flag_clear(&t->busy);
    return code;
}

int NAME(run_threads)(const float *image, float *logits, void *workspace, NAME(threads) *threads)
{
    return run(ENTRY_FLOAT, image, logits, workspace, threads);
}

int NAME(run_rgb8_threads)(const uint8_t *rgb, float *logits, void *workspace,
                           NAME(threads) *threads)
{
    return run(ENTRY_RGB8, rgb, logits, workspace, threads);
}

static NAME(threads) *allocate(int count)
{
    if (count < 1 || count > CODE(THREADS_MAX))
        return NULL;
    void *memory;
    size_t bytes = sizeof(NAME(threads)) + (size_t)(count - 1) * SCRATCH_BYTES;
    if (posix_memalign(&memory, CACHE_LINE, bytes))
        return NULL;
    NAME(threads) *t = memory;
    *t = (NAME(threads)){
        .count = count,
        .process = getpid(),
        .scratch = (unsigned char *)memory + sizeof *t,
        .busy = ATOMIC_FLAG_INIT,
    };
    return t;
}

/* Ends workers 1 .. count - 1. */
static void end_workers(NAME(threads) *t, int count)
{
    atomic_store(&t->stop, 1);
    start_run(t);
    for (int i = 1; i < count; i++)
        pthread_join(t->handles[i], NULL);
}

NAME(threads) *NAME(threads_create)(int count)
{
    NAME(threads) *t = HAVE_PTHREAD ? allocate(count) : NULL;
    if (!t)
        return NULL;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* workers inherit it: signals are the caller's */
    int started = 1;
    for (; started < count; started++) {
        t->workers[started] = (worker){t, started};
        if (pthread_create(&t->handles[started], NULL, serve, &t->workers[started]))
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started < count) {
        end_workers(t, started);
        free(t);
        return NULL;
    }
    return t;
}

NAME(threads) *NAME(threads_adopt)(int count, NAME(parallel_for) parallel_for, void *context)
{
    NAME(threads) *t = parallel_for ? allocate(count) : NULL;
    if (t) {
        t->parallel_for = parallel_for;
        t->context = context;
    }
    return t;
}

void NAME(threads_destroy)(NAME(threads) *t)
{
    if (t && !t->parallel_for && t->process == getpid())
        end_workers(t, t->count);
    free(t);
}
