/*
 * Several threads classify one image.
 *
 * In every step each thread takes portions of the tasks until none is left; the step is complete
 * when the last portion is done, and then all go on. Nobody waits for a thread that holds no
 * portion: one that the system has put aside finds out, when it comes back, how far the others
 * are. Waiting is spinning for some microseconds, the usual length of a step, and then sleeping.
 * All memory is allocated when the threads are created: each thread but the caller's has
 * its own scratch there.
 */
#define _GNU_SOURCE /* for cpu_share.h */

#include "library.h"

#include <stdalign.h>
#include <stdatomic.h>

#include "cpu_share.h"
#include "float_mode.h"
#ifdef _WIN32
#include "threads_windows.h"
#else
#include "threads_posix.h"
#define WINAPI
#endif

#define SPINS 4096     /* about 50 microseconds */
#define CACHE_LINE 128 /* two lines of 64: x86 fetches them in pairs */
#define STAGES (1 + STEPS) /* of a run: the preparation, and the steps */

/* A number that only grows, and may wrap around; threads wait for it to reach a goal. */
typedef struct {
    alignas(CACHE_LINE) atomic_uint value;
    atomic_int sleepers;
    bed bed;
} counter;

/* Number of the run << 32 | first task that nobody has taken. */
typedef atomic_uint_least64_t ticket;

typedef struct {
    NAME(threads) *threads;
    int index;
} worker;

struct NAME(threads) {
    int count; /* the caller's thread included */
    process process;
    unsigned char *scratch; /* of workers 1 .. count - 1, or of lent tasks 0 .. count - 1 */
    NAME(parallel_for) parallel_for; /* NULL: threads of our own */
    void *context;
    thread handles[CODE(THREADS_MAX)];
    worker workers[CODE(THREADS_MAX)];
    turn turns[CODE(THREADS_MAX)];
    atomic_flag busy;
    atomic_int stop;

    /* The run in progress. A thread that comes late may read it while the next one is written, so
     * all is atomic, and the tickets, written first, tell such a thread that it is late. */
    _Atomic(const void *) image;
    _Atomic(float *) logits;
    _Atomic(unsigned char *) arena;
    atomic_int entry;
    _Atomic(const preparation *) before;
    atomic_int parts; /* of it; 0: there is none */
    atomic_uint first_goal; /* of `steps_done` */
    atomic_int findings; /* of its tasks */
    int lent_stage; /* only with parallel_for */
    alignas(CACHE_LINE) ticket tickets[STAGES];
    atomic_int remaining[STAGES]; /* tasks that are not done */

    counter runs;       /* started since creation */
    counter steps_done; /* since creation */
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

static void wait_for(counter *c, uint32_t goal)
{
    for (int i = 0; i < SPINS; i++) {
        if (reached(atomic_load_explicit(&c->value, memory_order_acquire), goal))
            return;
        relax();
    }
    /* Counted as asleep before the last look: whoever changes the value after it will wake us. */
    atomic_fetch_add(&c->sleepers, 1);
    for (uint32_t seen; !reached(seen = atomic_load(&c->value), goal);)
        sleep_while(&c->bed, &c->value, seen);
    atomic_fetch_sub(&c->sleepers, 1);
}

static void advance(counter *c)
{
    atomic_fetch_add(&c->value, 1);
    if (atomic_load(&c->sleepers))
        wake_all(&c->bed, &c->value);
}

/* How many tasks a stage has: none if it is not made. */
static int32_t tasks_of(NAME(threads) *t, int stage)
{
    if (stage == 0)
        return atomic_load(&t->parts);
    step_info info = NAME(step_infos)[stage - 1];
    return info.entries & atomic_load(&t->entry) ? info.tasks : 0;
}

static int do_tasks(NAME(threads) *t, const frame *f, int stage, int32_t begin, int32_t end)
{
    if (stage > 0)
        return NAME(tasks)(stage - 1, f, f->scratch, begin, end);
    const preparation *before = atomic_load(&t->before);
    for (int32_t part = begin; part < end; part++)
        before->part(before->job, part, atomic_load(&t->parts));
    return 0;
}

/*
 * Takes portions of a stage until none is left: large ones first, single tasks at the end (guided
 * self-scheduling, Polychronopoulos and Kuck 1987).
 * Returns 0 if `run` is over; then `f` may be a mixture of two runs', and was not used.
 */
static int share(NAME(threads) *t, const frame *f, uint32_t run, int stage)
{
    int32_t tasks = tasks_of(t, stage);
    uint64_t seen = atomic_load_explicit(&t->tickets[stage], memory_order_relaxed);
    for (;;) {
        int32_t begin = (int32_t)seen;
        if ((uint32_t)(seen >> 32) != run)
            return 0;
        if (begin >= tasks)
            return 1;
        int32_t portion = (tasks - begin) / t->count;
        portion = portion > 0 ? portion : 1;
        if (!atomic_compare_exchange_weak_explicit(&t->tickets[stage], &seen,
                                                   seen + (uint32_t)portion, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        int findings = do_tasks(t, f, stage, begin, begin + portion);
        if (findings)
            atomic_fetch_or(&t->findings, findings);
        if (atomic_fetch_sub(&t->remaining[stage], portion) == portion)
            advance(&t->steps_done);
        seen = atomic_load_explicit(&t->tickets[stage], memory_order_relaxed);
    }
}

/* The part of thread `index` in a run. */
static void work(NAME(threads) *t, int index, const frame *f, uint32_t run)
{
    uint32_t goal = atomic_load(&t->first_goal);
    for (int stage = 0; stage < STAGES; stage++) {
        if (!tasks_of(t, stage))
            continue;
        share_cpu(t->turns, index, t->count);
        if (!share(t, f, run, stage))
            return;
        wait_for(&t->steps_done, goal++);
    }
}

static frame frame_of_worker(NAME(threads) *t, int index)
{
    return (frame){
        .image = atomic_load(&t->image),
        .logits = atomic_load(&t->logits),
        .arena = atomic_load(&t->arena),
        .scratch = t->scratch + (size_t)(index - 1) * SCRATCH_BYTES,
    };
}

static thread_result WINAPI serve(void *argument)
{
    const worker *w = argument;
    NAME(threads) *t = w->threads;
    enter_float_mode();
    for (uint32_t run = 0;;) {
        wait_for(&t->runs, run + 1);
        run = atomic_load(&t->runs.value);
        if (atomic_load(&t->stop))
            return 0;
        frame f = frame_of_worker(t, w->index);
        work(t, w->index, &f, run);
    }
}

static void lent_task(void *argument, int index)
{
    NAME(threads) *t = argument;
    frame f = frame_of_worker(t, index + 1);
    float_mode callers = enter_float_mode();
    share(t, &f, atomic_load(&t->runs.value), t->lent_stage);
    set_float_mode(callers);
}

/* Describes a run to the other threads and starts it. */
static uint32_t start_run(NAME(threads) *t, int entry, const preparation *before, const frame *f)
{
    uint32_t run = atomic_load(&t->runs.value) + 1;
    for (int stage = 0; stage < STAGES; stage++)
        atomic_store_explicit(&t->tickets[stage], (uint64_t)run << 32, memory_order_relaxed);
    atomic_store(&t->image, f->image);
    atomic_store(&t->logits, f->logits);
    atomic_store(&t->arena, f->arena);
    atomic_store(&t->entry, entry);
    atomic_store(&t->before, before);
    atomic_store(&t->parts, !before ? 0 : before->most < t->count ? before->most : t->count);
    for (int stage = 0; stage < STAGES; stage++)
        atomic_store_explicit(&t->remaining[stage], tasks_of(t, stage), memory_order_relaxed);
    atomic_store(&t->first_goal, atomic_load(&t->steps_done.value) + 1);
    atomic_store(&t->findings, 0);
    advance(&t->runs);
    return run;
}

static int run(int entry, const preparation *before, const void *image, float *logits,
               void *workspace, NAME(threads) *t)
{
    /* The child of a fork has the memory of its parent's threads, but not the threads. */
    if (!t || t->process != this_process()) {
        if (before)
            before->part(before->job, 0, 1);
        return entry == ENTRY_FLOAT ? NAME(run)(image, logits, workspace)
                                    : RUN_8BIT(image, logits, workspace);
    }
    frame f;
    int code = NAME(enter)(&f, entry, image, logits, workspace);
    if (code != CODE(OK))
        return code;
    if (atomic_flag_test_and_set(&t->busy))
        return CODE(ERROR_BUSY);
    uint32_t run = start_run(t, entry, before, &f);
    if (t->parallel_for) {
        for (t->lent_stage = 0; t->lent_stage < STAGES; t->lent_stage++)
            if (tasks_of(t, t->lent_stage))
                t->parallel_for(t->context, t->count, lent_task, t);
    } else {
        float_mode callers = enter_float_mode();
        work(t, 0, &f, run);
        set_float_mode(callers);
    }
    code = NAME(leave)(&f, atomic_load(&t->findings));
    atomic_flag_clear(&t->busy);
    return code;
}

int NAME(run_threads)(const float *image, float *logits, void *workspace, NAME(threads) *threads)
{
    return run(ENTRY_FLOAT, NULL, image, logits, workspace, threads);
}

int RUN_8BIT_THREADS(const uint8_t *image, float *logits, void *workspace,
                     NAME(threads) *threads)
{
    return run(ENTRY_8BIT, NULL, image, logits, workspace, threads);
}

int NAME(run_prepared)(const preparation *before, const uint8_t *image, float *logits,
                       void *workspace, NAME(threads) *threads)
{
    return run(ENTRY_8BIT, before, image, logits, workspace, threads);
}

static NAME(threads) *allocate(int count)
{
    if (count < 1 || count > CODE(THREADS_MAX))
        return NULL;
    size_t bytes = sizeof(NAME(threads)) + (size_t)count * SCRATCH_BYTES;
    NAME(threads) *t = allocate_memory(CACHE_LINE, bytes);
    if (!t)
        return NULL;
    *t = (NAME(threads)){
        .count = count,
        .process = this_process(),
        .scratch = (unsigned char *)(t + 1),
        .busy = ATOMIC_FLAG_INIT,
    };
    make_bed(&t->runs.bed);
    make_bed(&t->steps_done.bed);
    return t;
}

/* Ends workers 1 .. count - 1. */
static void end_workers(NAME(threads) *t, int count)
{
    atomic_store(&t->stop, 1);
    advance(&t->runs);
    for (int i = 1; i < count; i++)
        join_thread(t->handles[i]);
}

NAME(threads) *NAME(threads_create)(int count)
{
    NAME(threads) *t = HAVE_THREADS ? allocate(count) : NULL;
    if (!t)
        return NULL;
    int started = 1;
    for (; started < count; started++) {
        t->workers[started] = (worker){t, started};
        if (!start_thread(&t->handles[started], serve, &t->workers[started]))
            break;
    }
    if (started < count) {
        end_workers(t, started);
        free_memory(t);
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
    if (t && !t->parallel_for && t->process == this_process())
        end_workers(t, t->count);
    free_memory(t);
}
