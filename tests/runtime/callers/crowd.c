/* 64 callers at once, each with its own workspace, some with as many threads as there can be. */
#include <pthread.h>

#include "caller.h"

enum { CALLERS = 64, POOLS = 2 };

static float image[VALUES], expected[KINDS][TINY_CLASSES];
static uint8_t rgb[VALUES];
static pthread_barrier_t start;

static void *caller(void *number)
{
    float logits[TINY_CLASSES];
    int threads = (intptr_t)number < POOLS ? TINY_THREADS_MAX : 1;
    call c = allocate(image, rgb, logits);
    c.threads = tiny_threads_create(threads);
    CHECK(c.threads);
    pthread_barrier_wait(&start);
    for (int i = 0; i < 5; i++)
        for (int entry = 0; entry < ENTRIES; entry++) {
            memset(logits, 0, sizeof logits);
            CHECK(enter(entry, &c) == TINY_OK);
            CHECK(entry == SELF_TEST || !memcmp(logits, expected[kind_of(entry)], LOGITS_BYTES));
        }
    tiny_threads_destroy(c.threads);
    free(c.workspace);
    free(c.frame_workspace);
    return NULL;
}

int main(void)
{
    pthread_t callers[CALLERS];
    draw(image, rgb);
    expect(allocate(image, rgb, NULL), expected);
    CHECK(pthread_barrier_init(&start, NULL, CALLERS) == 0);
    for (intptr_t i = 0; i < CALLERS; i++)
        CHECK(pthread_create(&callers[i], NULL, caller, (void *)i) == 0);
    for (int i = 0; i < CALLERS; i++)
        CHECK(pthread_join(callers[i], NULL) == 0);
    return 0;
}
