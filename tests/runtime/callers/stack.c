/* Prints how much stack each entry point uses, in bytes, on a thread whose stack is painted. */
#include <pthread.h>

#include "caller.h"

enum { STACK_BYTES = 1 << 17, PAINT = 0xa5 };

static _Alignas(4096) unsigned char stack[STACK_BYTES];
static float image[VALUES], logits[TINY_CLASSES];
static uint8_t rgb[VALUES];
static unsigned char workspace[TINY_WORKSPACE_BYTES];
static unsigned char *top; /* of what the library gets */
static int entry, code;

static void *caller(void *argument)
{
    call c = {image, rgb, logits, workspace, NULL};
    top = __builtin_frame_address(0);
    code = enter(entry, &c);
    return argument;
}

int main(void)
{
    draw(image, rgb);
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
        printf("%d\n", (int)(top - lowest));
    }
    return 0;
}
