/* Times kernels that compute the same and differ in their tiles, where they will run.
 *
 *   time_kernels ROUNDS KERNEL...
 *
 * In a model the constants of every layer are read once for each inference, so they come from
 * memory or the outer cache. Here a kernel is called on COPIES of its constants in turn; its other
 * buffers stay the same. That is a turn, between two calibration loops of integer arithmetic: if
 * these take longer than they can, the machine was busy with something else, and the turn is made
 * again. Turns of all kernels make a round. Each copy has its own best round, and the mean over the
 * copies counts: a disturbance spoils no more than one call.
 *
 * Prints one line of JSON: the system, the clock in MHz or null, whether the machine stayed busy,
 * and else the microseconds of each kernel, on one thread; null for a kernel that does not write
 * the bytes that kernel 0 writes.
 *
 * kernels.h, which is generated, has COPIES, `buffers` and `kernels`; `operands`, in the folder
 * where this runs, what is in the buffers at first. From the compiler's command line come CALM, how
 * much longer than the fastest a calibration may take, PATIENCE, how many busy turns in a row are
 * too many, and LONGEST_CALL_S.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels.h"

enum { ALIGNMENT = 64, WARM_UP_US = 100000 };

static char *operands;
static void *warm[BUFFERS];         /* of INPUT, OUTPUT and SCRATCH */
static void *copies[COPIES][BUFFERS]; /* the same, and CONSTANT */
static double best_calibration_us = 1e30;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!memory)
        fail("memory");
    return memory;
}

static void read_operands(void)
{
    FILE *file = fopen("operands", "rb");
    operands = allocate(OPERANDS_BYTES);
    if (!file || fread(operands, 1, OPERANDS_BYTES, file) != OPERANDS_BYTES)
        fail("operands");
    fclose(file);
}

/* All buffers, with the inputs of kernel 0, which are those of the others too. */
static void make_buffers(void)
{
    for (int b = 0; b < BUFFERS; b++) {
        int cold = buffers[b].role == CONSTANT;
        warm[b] = allocate(buffers[b].bytes);
        memset(warm[b], 0, buffers[b].bytes);
        if (buffers[b].role == INPUT)
            memcpy(warm[b], operands + kernels[0].contents[b].at, kernels[0].contents[b].bytes);
        for (int c = 0; c < COPIES; c++)
            copies[c][b] = cold ? allocate(buffers[b].bytes) : warm[b];
    }
}

/* The constants of `kernel` in all copies. They are read once more: what a write leaves in a cache
 * is dirty, and would be written back while the kernel is timed. */
static void fill(const struct kernel *kernel)
{
    static volatile char sink;
    for (int b = 0; b < BUFFERS; b++) {
        const struct content *content = &kernel->contents[b];
        if (buffers[b].role != CONSTANT)
            continue;
        for (int c = 0; c < COPIES; c++)
            memcpy(copies[c][b], operands + content->at, content->bytes);
        for (int c = 0; c < COPIES; c++)
            for (size_t i = 0; i < content->bytes; i += ALIGNMENT)
                sink = ((char *)copies[c][b])[i];
    }
    (void)sink;
}

/* One call on the first copy, all of whose output was 0xff. */
static void call_once(const struct kernel *kernel)
{
    for (int b = 0; b < BUFFERS; b++) {
        const struct content *content = &kernel->contents[b];
        if (buffers[b].role == CONSTANT)
            memcpy(copies[0][b], operands + content->at, content->bytes);
        if (buffers[b].role == OUTPUT)
            memset(warm[b], 0xff, buffers[b].bytes);
    }
    kernel->call(copies[0]);
}

/* Whether it writes what kernel 0 does; in a process of its own, for it may crash or hang. */
static int is_right(const struct kernel *kernel)
{
    static char *expected[BUFFERS];
    if (!expected[0]) {
        call_once(&kernels[0]);
        for (int b = 0; b < BUFFERS; b++)
            expected[b] = memcpy(allocate(buffers[b].bytes), warm[b], buffers[b].bytes);
    }
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        int wrong = 0;
        alarm(LONGEST_CALL_S);
        call_once(kernel);
        for (int b = 0; b < BUFFERS; b++)
            if (buffers[b].role == OUTPUT)
                wrong |= memcmp(expected[b], warm[b], buffers[b].bytes) != 0;
        _exit(wrong);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static double calibrate(void)
{
    static volatile uint64_t state = 1;
    uint64_t x = state;
    double start = now_us();
    for (int i = 0; i < 20000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    state = x;
    double taken = now_us() - start;
    best_calibration_us = taken < best_calibration_us ? taken : best_calibration_us;
    return taken;
}

/* One calm turn: the smaller times go to `best_us`. 0 if there was none. */
static int turn(const struct kernel *kernel, double best_us[COPIES])
{
    fill(kernel);
    for (int attempt = 0; attempt < PATIENCE; attempt++) {
        double taken_us[COPIES], before = calibrate();
        for (int c = 0; c < COPIES; c++) {
            double start = now_us();
            kernel->call(copies[c]);
            taken_us[c] = now_us() - start;
        }
        double after = calibrate();
        if ((before > after ? before : after) > CALM * best_calibration_us)
            continue;
        for (int c = 0; c < COPIES; c++)
            best_us[c] = taken_us[c] < best_us[c] ? taken_us[c] : best_us[c];
        return 1;
    }
    return 0;
}

/* Of the core that this runs on; 0 if the system does not tell. */
static double clock_mhz(void)
{
    char line[256];
    double found = 0;
    snprintf(line, sizeof line, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq",
             sched_getcpu());
    FILE *file = fopen(line, "r");
    if (file) {
        if (fscanf(file, "%lf", &found) == 1)
            found /= 1000;
        fclose(file);
    } else if ((file = fopen("/proc/cpuinfo", "r"))) {
        while (!found && fgets(line, sizeof line, file))
            sscanf(line, "cpu MHz : %lf", &found);
        fclose(file);
    }
    return found;
}

static void print_or_null(int is_known, double number)
{
    if (is_known)
        printf("%.4f", number);
    else
        printf("null");
}

int main(int argc, char **argv)
{
    static double best_us[KERNELS][COPIES];
    static int right[KERNELS];
    struct utsname system;
    int calm = 1, rounds = atoi(argv[1]);
    read_operands();
    make_buffers();
    for (int a = 2; a < argc; a++)
        right[atoi(argv[a])] = is_right(&kernels[atoi(argv[a])]);
    for (double start = now_us(); now_us() - start < WARM_UP_US;)
        calibrate();
    for (int k = 0; k < KERNELS; k++)
        for (int c = 0; c < COPIES; c++)
            best_us[k][c] = 1e30;
    for (int round = 0; round < rounds && calm; round++)
        for (int a = 2; a < argc && calm; a++)
            if (right[atoi(argv[a])])
                calm = turn(&kernels[atoi(argv[a])], best_us[atoi(argv[a])]);
    double mhz = clock_mhz();
    uname(&system);
    printf("{\"os\": \"%s %s\", \"clock_mhz\": ", system.sysname, system.release);
    print_or_null(mhz > 0, mhz);
    printf(", \"busy\": %s, \"microseconds\": [", calm ? "false" : "true");
    for (int a = 2; a < argc && calm; a++) {
        int k = atoi(argv[a]);
        double sum = 0;
        for (int c = 0; c < COPIES; c++)
            sum += best_us[k][c];
        fputs(a > 2 ? ", " : "", stdout);
        print_or_null(right[k], sum / COPIES);
    }
    printf("]}\n");
    return 0;
}
