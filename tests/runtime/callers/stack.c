/* No entry point uses more stack than the header says; the thread's is painted to see. */
#include <pthread.h>

#include "caller.h"

enum { STACK_BYTES = 1 << 17, PAINT = 0xa5 };

static _Alignas(4096) unsigned char stack[STACK_BYTES];
static float image[VALUES], logits[TINY_CLASSES];
static uint8_t rgb[VALUES];
static unsigned char workspace[TINY_WORKSPACE_BYTES];
static unsigned char *top; /* of what the library gets */
static tiny_threads *threads;
static int entry, code;

static void *caller(void *argument)
{
    call c = {image, rgb, logits, workspace, threads};
    top = __builtin_frame_address(0);
    code = enter(entry, &c);
    return argument;
}

int main(void)
{
    draw(image, rgb);
    threads = tiny_threads_adopt(2, one_after_the_other, NULL);
    for (entry = 0; entry < ENTRIES; entry++) {
        pthread_attr_t attributes;
        pthread_t thread;
        memset(stack, PAINT, sizeof stack);
        CHECK(pthread_attr_init(&attributes) == 0);
        CHECK(pthread_attr_setstack(&attributes, stack, sizeof stack) == 0);
        CHECK(pthread_create(&thread, &attributes, caller, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0 && code == TINY_OK);
        const unsigned char *lowest = stack;
        while (*lowest == PAINT)
            lowest++;
        printf("%d ", (int)(top - lowest));
        CHECK(top - lowest > 256); /* the paint came off */
        CHECK(top - lowest <= TINY_STACK_BYTES);
    }
    return 0;
}
