/* Which cores a program may run on. */
#ifndef PIN_H
#define PIN_H

#ifndef _GNU_SOURCE
#error "CPU sets are an extension of glibc, musl and Android: define _GNU_SOURCE first"
#endif

#include <sched.h>
#include <stdlib.h>

/* To the first `count` of the cores in `list`, numbers with commas; 0 if the system lets it. */
static int pin_to(const char *list, int count)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (; count > 0 && *list; count--) {
        char *end;
        CPU_SET(strtoul(list, &end, 10), &cores);
        list = *end ? end + 1 : end;
    }
    return sched_setaffinity(0, sizeof cores, &cores);
}

#endif
