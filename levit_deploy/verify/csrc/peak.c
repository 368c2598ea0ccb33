/* The multiply-add peak of the core in the argument, or of any: a loop that touches nothing but registers, 12 independent chains
 * (a latency of 4 cycles times 2 a cycle needs 8). Prints giga multiply-adds a second. */
#define _GNU_SOURCE
#include "pin.h"

#include <stdio.h>
#include <time.h>

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));
enum { CHAINS = 12, TURNS = 100000, RUNS = 200 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define STEP(i) c##i = c##i * x + y;
#define ALL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

int main(int argc, char **argv)
{
    if (argc > 1 && pin_to(argv[1], 1))
        return 1;
    double best_s = 1e9;
    float sink = 0.0f;
    for (int run = 0; run < RUNS; run++) {
        vector x = (vector){0} + 0.5f * (float)argc, y = (vector){0} + 1.0f;
#define START(i) vector c##i = y + (float)(i);
        ALL(START)
        double begin = now_s();
        for (int turn = 0; turn < TURNS; turn++) {
            ALL(STEP)
        }
        double taken = now_s() - begin;
        best_s = taken < best_s ? taken : best_s;
#define KEEP(i) sink += c##i[0];
        ALL(KEEP)
    }
    fprintf(stderr, "%g\n", (double)sink);
    printf("%.3f\n", (double)CHAINS * TURNS * (VECTOR_BYTES / sizeof(float)) / best_s * 1e-9);
    return 0;
}
