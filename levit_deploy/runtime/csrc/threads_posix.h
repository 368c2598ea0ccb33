/*
 * What threads.c asks of Linux, Android, macOS and iOS; threads_windows.h is the same for Windows.
 *
 * start_thread, join_thread   a thread, which blocks all signals; start_thread: 1 if it runs
 * allocate_memory, free_memory   lines of cache, NULL if there are none
 * process                     which one is this? The child of a fork has no threads
 * bed                         where threads sleep until a number is not what they have seen
 */
#ifndef THREADS_POSIX_H
#define THREADS_POSIX_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef WEAK_PTHREAD
/* Before glibc 2.34 these live in libpthread, which a program without threads need not load. */
#pragma weak pthread_create
#pragma weak pthread_join
#pragma weak pthread_sigmask
#define HAVE_THREADS (pthread_create && pthread_join && pthread_sigmask)
#else
#define HAVE_THREADS 1
#endif

typedef pthread_t thread;
typedef void *thread_result;
typedef pid_t process;

static inline process this_process(void)
{
    return getpid();
}

static inline int start_thread(thread *t, thread_result (*serve)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* it inherits: signals are the caller's */
    int failed = pthread_create(t, NULL, serve, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

static inline void join_thread(thread t)
{
    pthread_join(t, NULL);
}

static inline void *allocate_memory(size_t alignment, size_t bytes)
{
    void *memory;
    return posix_memalign(&memory, alignment, bytes) ? NULL : memory;
}

static inline void free_memory(void *memory)
{
    free(memory);
}

#if defined(__linux__)

#include <linux/futex.h>
#include <sys/syscall.h>

typedef struct {
    char none; /* the number itself is the futex */
} bed;

static inline void make_bed(bed *b)
{
    (void)b;
}

static inline void sleep_while(bed *b, atomic_uint *number, uint32_t seen)
{
    (void)b;
    syscall(SYS_futex, number, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static inline void wake_all(bed *b, atomic_uint *number)
{
    (void)b;
    syscall(SYS_futex, number, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

#else

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
} bed;

static inline void make_bed(bed *b)
{
    *b = (bed){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
}

static inline void sleep_while(bed *b, atomic_uint *number, uint32_t seen)
{
    pthread_mutex_lock(&b->lock);
    while (atomic_load(number) == seen)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static inline void wake_all(bed *b, atomic_uint *number)
{
    (void)number;
    pthread_mutex_lock(&b->lock); /* whoever has seen the old number sleeps by now */
    pthread_mutex_unlock(&b->lock);
    pthread_cond_broadcast(&b->changed);
}

#endif

#endif
