/* What threads.c asks of Windows, from Vista on: as threads_posix.h says. */
#ifndef THREADS_WINDOWS_H
#define THREADS_WINDOWS_H

#define WIN32_LEAN_AND_MEAN
#include <stdatomic.h>
#include <windows.h>

#define HAVE_THREADS 1

typedef HANDLE thread;
typedef DWORD thread_result;
typedef int process; /* nothing forks */

static inline process this_process(void)
{
    return 0;
}

static inline int start_thread(thread *t, thread_result(WINAPI *serve)(void *), void *argument)
{
    *t = CreateThread(NULL, 0, serve, argument, 0, NULL);
    return *t != NULL;
}

static inline void join_thread(thread t)
{
    WaitForSingleObject(t, INFINITE);
    CloseHandle(t);
}

static inline void *allocate_memory(size_t alignment, size_t bytes)
{
    (void)alignment; /* pages */
    return VirtualAlloc(NULL, bytes, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
}

static inline void free_memory(void *memory)
{
    if (memory)
        VirtualFree(memory, 0, MEM_RELEASE);
}

typedef struct {
    SRWLOCK lock;
    CONDITION_VARIABLE changed;
} bed;

static inline void make_bed(bed *b)
{
    InitializeSRWLock(&b->lock);
    InitializeConditionVariable(&b->changed);
}

static inline void sleep_while(bed *b, atomic_uint *number, uint32_t seen)
{
    AcquireSRWLockExclusive(&b->lock);
    while (atomic_load(number) == seen)
        SleepConditionVariableSRW(&b->changed, &b->lock, INFINITE, 0);
    ReleaseSRWLockExclusive(&b->lock);
}

static inline void wake_all(bed *b, atomic_uint *number)
{
    (void)number;
    AcquireSRWLockExclusive(&b->lock); /* whoever has seen the old number sleeps by now */
    ReleaseSRWLockExclusive(&b->lock);
    WakeAllConditionVariable(&b->changed);
}

#endif
