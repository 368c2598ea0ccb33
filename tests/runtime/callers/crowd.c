/* 64 callers at once, each with its own workspace, some with as many threads as there can be. */
#include <pthread.h>

#include "caller.h"

enum { CALLERS = 64, POOLS = 2 };

static float image[VALUES], expected[2][TINY_CLASSES];
static uint8_t rgb[VALUES];
static pthread_barrier_t start;

static void *caller(void *number)
{
    float logits[TINY_CLASSES];
    int threads = (intptr_t)number < POOLS ? TINY_THREADS_MAX : 1;
    call c = {image, rgb, logits, malloc(TINY_WORKSPACE_BYTES), tiny_threads_create(threads)};
    CHECK(c.workspace && c.threads);
    pthread_barrier_wait(&start);
    for (int i = 0; i < 5; i++)
        for (int entry = 0; entry < ENTRIES; entry++) {
            memset(logits, 0, sizeof logits);
            CHECK(enter(entry, &c) == TINY_OK);
            CHECK(entry == SELF_TEST || !memcmp(logits, expected[entry % 2], LOGITS_BYTES));
        }
    tiny_threads_destroy(c.threads);
    free(c.workspace);
    return NULL;
}

int main(void)
{
    static unsigned char workspace[TINY_WORKSPACE_BYTES];
    pthread_t callers[CALLERS];
    draw(image, rgb);
    CHECK(tiny_run(image, expected[0], workspace) == TINY_OK);
    CHECK(tiny_run_rgb8(rgb, expected[1], workspace) == TINY_OK);
    CHECK(pthread_barrier_init(&start, NULL, CALLERS) == 0);
    for (intptr_t i = 0; i < CALLERS; i++)
        CHECK(pthread_create(&callers[i], NULL, caller, (void *)i) == 0);
    for (int i = 0; i < CALLERS; i++)
        CHECK(pthread_join(callers[i], NULL) == 0);
    return 0;
}
