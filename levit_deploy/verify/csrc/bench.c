/* Times an artifact, beside other runtimes: the C program of `bench --on`.
 *
 *   bench ROUNDS CORES PMU THREADS [PEER FILE]...
 *
 * CORES and THREADS are numbers with commas. With n threads there are a library that runs on the
 * first n of CORES (`any`: nothing is pinned), and every PEER with its FILE, which latency_worker.py
 * in the working folder times in a process of its own that is stopped while it is not its turn. A
 * round gives each of them a turn of about 50 ms, the first one to warm up. PMU: see counters.h.
 * With STEPS, their number, from the compiler's command line, each step of the library is timed too,
 * in a turn of its own in one thread.
 *
 * Prints one object of JSON, which bench_program.py reads. Exits with 0, or with 1 and one line on
 * stderr; with 125 if the library is not the one that description.h describes, before anything else
 * of it is run.
 */
#define _GNU_SOURCE
#include "described.h"

#include <math.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "counters.h"
#include "pin.h"

enum { TURN_NS = 50000000, CONTENDERS_MAX = 64 };

typedef struct {
    uint64_t *ns;
    size_t count, capacity;
} samples;

typedef struct {
    int threads;
    const char *peer, *file; /* NULL: the library in this program */
    pid_t pid;
    FILE *requests, *answers; /* of the peer's process */
    char version[32];
    size_t batch; /* images of a turn */
    samples wall, cpu;
    long lowest_khz, highest_khz;
    double counts[COUNTERS]; /* of all images together */
} contender;

static const char *cores; /* `any` or numbers with commas, the fastest first */
static float *image, *logits;
static void *workspace;

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    exit(fail(what));
}

static void add(samples *s, uint64_t ns)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 1024;
        s->ns = realloc(s->ns, s->capacity * sizeof *s->ns);
        if (!s->ns)
            die("no memory");
    }
    s->ns[s->count++] = ns;
}

static int by_size(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Sorted, with the shortest first. */
static double median_us(samples *s)
{
    qsort(s->ns, s->count, sizeof *s->ns, by_size);
    uint64_t middle = s->ns[s->count / 2] + s->ns[(s->count - 1) / 2];
    return (double)middle / 2e3;
}

static void pin(int count)
{
    if (strcmp(cores, "any") && pin_to(cores, count))
        die("cannot be pinned to these cores");
}

/* The clock of the first core, as the governor sees it; 0 if it does not say. */
static long clock_khz(void)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%lu/cpufreq/scaling_cur_freq",
             strtoul(cores, NULL, 10));
    long khz = 0;
    FILE *file = strcmp(cores, "any") ? fopen(path, "r") : NULL;
    if (file && fscanf(file, "%ld", &khz) != 1)
        khz = 0;
    if (file)
        fclose(file);
    return khz;
}

static void check(int code)
{
    if (code)
        die(MODEL_(_strerror)(code));
}

static void run_library(contender *c)
{
    MODEL_(_threads) *threads = c->threads > 1 ? MODEL_(_threads_create)(c->threads) : NULL;
    if (c->threads > 1 && !threads)
        die("cannot create threads");
    check(MODEL_(_run_threads)(image, logits, workspace, threads)); /* the threads are awake */
    let_count(1);
    for (size_t i = 0; i < c->batch; i++) {
        uint64_t wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        check(MODEL_(_run_threads)(image, logits, workspace, threads));
        add(&c->wall, now_ns(CLOCK_MONOTONIC) - wall);
        add(&c->cpu, now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
    let_count(0);
    MODEL_(_threads_destroy)(threads);
}

/* What it wrote on stderr says why, but for these. */
static void peer_died(const contender *c)
{
    int status;
    if (waitpid(c->pid, &status, 0) == c->pid && WIFSIGNALED(status))
        fprintf(stderr, "`%s` crashed with signal %d\n", c->peer, WTERMSIG(status));
    else if (WEXITSTATUS(status) == 127)
        die("no python3");
    exit(1);
}

/* The worker answers with a JSON list of pairs: only the digits matter. */
static void run_peer(contender *c)
{
    let_count(1);
    kill(c->pid, SIGCONT);
    fprintf(c->requests, "%zu\n", c->batch);
    fflush(c->requests);
    uint64_t number = 0;
    int in_number = 0, is_cpu = 0, byte;
    while ((byte = fgetc(c->answers)) != '\n') {
        if (byte == EOF)
            peer_died(c);
        if (byte >= '0' && byte <= '9') {
            number = 10 * number + (uint64_t)(byte - '0');
            in_number = 1;
        } else if (in_number) {
            add(is_cpu ? &c->cpu : &c->wall, number);
            is_cpu = !is_cpu;
            in_number = 0;
            number = 0;
        }
    }
    kill(c->pid, SIGSTOP);
    let_count(0);
}

static void start_peer(contender *c)
{
    int to[2], from[2];
    char threads[12], channels[12], size[12];
    snprintf(threads, sizeof threads, "%d", c->threads);
    snprintf(channels, sizeof channels, "%u", (unsigned)info->channels);
    snprintf(size, sizeof size, "%u", (unsigned)info->image_size);
    if (pipe(to) || pipe(from))
        die("no pipes");
    c->pid = fork();
    if (c->pid < 0)
        die("no process");
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(c->threads);
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        execlp("python3", "python3", "latency_worker.py", c->peer, c->file, threads, channels,
               size, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    c->requests = fdopen(to[1], "w");
    c->answers = fdopen(from[0], "r");
    if (!c->requests || !c->answers ||
        fscanf(c->answers, "ready %31[0-9A-Za-z.+_-]", c->version) != 1 ||
        fgetc(c->answers) != '\n')
        peer_died(c);
    kill(c->pid, SIGSTOP);
}

static void take_turn(contender *c)
{
    double before[COUNTERS], after[COUNTERS];
    pin(c->threads);
    read_counters(before);
    if (c->peer)
        run_peer(c);
    else
        run_library(c);
    read_counters(after);
    for (int i = 0; i < COUNTERS; i++)
        c->counts[i] += after[i] - (isnan(before[i]) ? 0.0 : before[i]);
    long khz = clock_khz();
    c->lowest_khz = c->lowest_khz && c->lowest_khz < khz ? c->lowest_khz : khz;
    c->highest_khz = c->highest_khz > khz ? c->highest_khz : khz;
}

/* The first turn, of one image, says how many images fill the next ones, and counts no more. */
static void warm_up(contender *c)
{
    c->batch = 1;
    take_turn(c);
    c->batch = TURN_NS / (c->wall.ns[0] + 1);
    c->batch += c->batch == 0;
    c->wall.count = c->cpu.count = 0;
    c->lowest_khz = c->highest_khz = 0;
    memset(c->counts, 0, sizeof c->counts);
}

#ifdef STEPS
int MODEL_(_profile)(const float *image, float *logits, void *workspace, uint64_t *step_ns);

static uint64_t fastest_ns[STEPS];

static void time_steps(void)
{
    uint64_t step_ns[STEPS], end_ns = now_ns(CLOCK_MONOTONIC) + TURN_NS;
    pin(1);
    do {
        check(MODEL_(_profile)(image, logits, workspace, step_ns));
        for (int i = 0; i < STEPS; i++)
            if (!fastest_ns[i] || step_ns[i] < fastest_ns[i])
                fastest_ns[i] = step_ns[i];
    } while (now_ns(CLOCK_MONOTONIC) < end_ns);
}

static void print_steps(void)
{
    for (int i = 0; i < STEPS; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)fastest_ns[i]);
}
#else
static void time_steps(void) {}
static void print_steps(void) {}
#endif

/* null where there is none. */
static void print_number(const char *name, double value, double unit)
{
    if (value > 0.0)
        printf(", \"%s\": %.0f", name, value / unit);
    else
        printf(", \"%s\": null", name);
}

static void print_contender(contender *c)
{
    size_t images = c->wall.count;
    printf("{\"name\": \"%s\", \"version\": \"%s\", \"threads\": %d, \"images\": %zu",
           c->peer ? c->peer : info->name, c->peer ? c->version : info->tool_version, c->threads,
           images);
    samples *times[] = {&c->wall, &c->cpu};
    for (int i = 0; i < 2; i++) {
        double median = median_us(times[i]);
        const char *of = i ? "cpu" : "wall";
        printf(", \"min_%s_us\": %.3f, \"median_%s_us\": %.3f", of,
               (double)times[i]->ns[0] / 1e3, of, median);
    }
    print_number("lowest_mhz", (double)c->lowest_khz, 1e3);
    print_number("highest_mhz", (double)c->highest_khz, 1e3);
    for (int i = 0; i < COUNTERS; i++)
        print_number(counter_names[i], c->counts[i], (double)images);
    printf("}");
}

/* Noise: how long it takes does not depend on the image. */
static float *make_image(void)
{
    size_t values = (size_t)info->channels * info->image_size * info->image_size;
    float *made = malloc(values * sizeof *made);
    uint32_t state = 1;
    for (size_t i = 0; made && i < values; i++) {
        state = 1664525u * state + 1013904223u;
        made[i] = (float)(state >> 8) * 0x1p-22f - 2.0f;
    }
    return made;
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc % 2 == 0)
        return fail("usage: bench ROUNDS CORES PMU THREADS [PEER FILE]...");
    int another = check_description();
    if (another)
        return another;
    cores = argv[2];
    signal(SIGPIPE, SIG_IGN); /* a peer that died is noticed when it does not answer */
    int refused = open_counters(strtoull(argv[3], NULL, 10));
    image = make_image();
    logits = malloc(info->classes * sizeof(float));
    workspace = malloc(MODEL_(_workspace_bytes)());
    if (!image || !logits || !workspace)
        return fail("no memory");
    check(MODEL_(_self_test)(workspace));

    static contender contenders[CONTENDERS_MAX];
    int count = 0;
    for (char *threads = argv[4]; *threads; threads += *threads == ',')
        for (int i = 4, n = (int)strtoul(threads, &threads, 10);
             i < argc && count < CONTENDERS_MAX; i += 2)
            contenders[count++] = (contender){.threads = n,
                                              .peer = i > 4 ? argv[i - 1] : NULL,
                                              .file = i > 4 ? argv[i] : NULL};
    for (int i = 0; i < count; i++) {
        if (contenders[i].peer)
            start_peer(&contenders[i]);
        warm_up(&contenders[i]);
    }
    for (unsigned long rounds = strtoul(argv[1], NULL, 10); rounds; rounds--) {
        for (int i = 0; i < count; i++)
            take_turn(&contenders[i]);
        time_steps();
    }

    printf("{\"no_counters\": \"%s\", \"steps_ns\": [", refused ? strerror(refused) : "");
    print_steps();
    printf("], \"latencies\": [");
    for (int i = 0; i < count; i++) {
        printf("%s", i ? ", " : "");
        print_contender(&contenders[i]);
        if (contenders[i].peer) {
            kill(contenders[i].pid, SIGKILL);
            waitpid(contenders[i].pid, NULL, 0);
        }
    }
    printf("]}\n");
    return fflush(stdout) ? fail("cannot write the result") : 0;
}
