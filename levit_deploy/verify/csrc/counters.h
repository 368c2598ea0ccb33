/* What the CPU counts while this process and its children run, by Linux's perf_event_open. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNTERS = 3 };
static const char *const counter_names[COUNTERS] = {"cycles", "instructions", "cache_misses"};
static int counters[COUNTERS]; /* file descriptors, or -1 */

/* 0, or why nothing is counted. Threads and processes that are made later count too. `pmu`: the
 * kernel's number of the kind of counters, 0 where there is one kind. */
static int open_counters(uint64_t pmu)
{
    static const uint64_t events[COUNTERS] = {
        PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS, PERF_COUNT_HW_CACHE_MISSES};
    int error = ENOENT;
    for (int i = 0; i < COUNTERS; i++) {
        struct perf_event_attr attr = {
            .type = PERF_TYPE_HARDWARE,
            .size = sizeof attr,
            .config = events[i] | pmu << 32, /* PERF_PMU_TYPE_SHIFT, since Linux 5.13 */
            .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
            .disabled = 1,
            .inherit = 1,
            .exclude_kernel = 1,
            .exclude_hv = 1,
        };
        counters[i] = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
        error = counters[i] < 0 ? errno : 0;
    }
    for (int i = 0; i < COUNTERS; i++)
        if (counters[i] >= 0)
            return 0;
    return error;
}

static void let_count(int on)
{
    for (int i = 0; i < COUNTERS; i++)
        if (counters[i] >= 0)
            ioctl(counters[i], on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
}

/* How much there is of each counter since the start, NAN of those that never ran; where more are
 * wanted than there are, each runs a part of the time, and stands for all of it. */
static void read_counters(double counts[COUNTERS])
{
    for (int i = 0; i < COUNTERS; i++) {
        struct {
            uint64_t value, enabled_ns, running_ns;
        } now;
        int known = counters[i] >= 0 && read(counters[i], &now, sizeof now) == sizeof now;
        counts[i] = known && now.running_ns
                        ? (double)now.value * (double)now.enabled_ns / (double)now.running_ns
                        : __builtin_nan("");
    }
}

#endif
