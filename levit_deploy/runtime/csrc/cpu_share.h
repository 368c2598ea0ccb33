/*
 * How the threads of one image share CPUs with other programs.
 *
 * A thread that the system puts aside in the middle of a portion holds up all others until its
 * next turn, milliseconds later. So each gives its CPU away by itself, between two steps, before
 * its time is up. And while every CPU has work, Linux leaves two threads on one of them, where they
 * only take turns: one that meets a thread of lower number there goes to another CPU.
 */
#ifndef CPU_SHARE_H
#define CPU_SHARE_H

#include <stdatomic.h>
#include <stdint.h>

#if defined(__linux__) && defined(__LP64__)

#include <sched.h>
#include <time.h>

#define TURN_US 2000 /* Linux puts no thread aside before 2 to 4 ms, by version and configuration */

typedef struct {
    int64_t since; /* microseconds: when it last gave its CPU away */
    atomic_int cpu;
} turn;

static inline int64_t time_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

/* To a CPU that the thread may use and no other of these has. Where it may run stays as it was. */
static inline void leave_cpus_of(const turn *turns, int count)
{
    cpu_set_t allowed, vacant;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    vacant = allowed;
    for (int i = 0; i < count; i++)
        CPU_CLR(atomic_load_explicit(&turns[i].cpu, memory_order_relaxed), &vacant);
    if (!sched_setaffinity(0, sizeof vacant, &vacant)) /* it refuses none */
        sched_setaffinity(0, sizeof allowed, &allowed);
}

/* Between two steps, by thread `index` of `count`. */
static inline void share_cpu(turn *turns, int index, int count)
{
    turn *mine = &turns[index];
    if (time_us() - mine->since > TURN_US) {
        sched_yield();
        mine->since = time_us();
    }
    int cpu = sched_getcpu();
    atomic_store_explicit(&mine->cpu, cpu, memory_order_relaxed);
    for (int i = 0; i < index; i++)
        if (atomic_load_explicit(&turns[i].cpu, memory_order_relaxed) == cpu) {
            leave_cpus_of(turns, count);
            return;
        }
}

#else /* not measured elsewhere */

typedef struct {
    char none;
} turn;

static inline void share_cpu(turn *turns, int index, int count)
{
    (void)turns, (void)index, (void)count;
}

#endif

#endif
