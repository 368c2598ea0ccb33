/* The caller's modes of floating point change no bit of the logits, and are as they were. */
#include "caller.h"

typedef uintptr_t mode;

#if defined(__x86_64__)
#include <xmmintrin.h>
enum { STICKY = 0x3f }; /* flags that computing raises */
static const mode modes[] = {
    0x3f80, 0x5f80, 0x7f80,         /* down, up, to zero */
    0x9f80, 0x1fc0, 0x9fc0, 0xffc0, /* denormal results and operands are zero */
    0x0000, 0x6000,                 /* every exception traps */
};
static mode get(void) { return _mm_getcsr() & ~(mode)STICKY; }
static void set(mode m) { _mm_setcsr((unsigned)m); }
#else
/* Up, down, to zero; denormals are zero, NaNs have no payload; every exception traps. */
static const mode modes[] = {
    1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25, 7 << 22, 0x9f00, 0x9f00 | 3 << 22,
};
static mode get(void)
{
    mode m;
#if defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(m));
    return m;
#else
    __asm__ volatile("vmrs %0, fpscr" : "=r"(m));
    return m & 0x07ff9f00;
#endif
}
static void set(mode m)
{
#if defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(m) : "memory");
#else
    __asm__ volatile("vmsr fpscr, %0" : : "r"(m) : "memory");
#endif
}
#endif

static float image[VALUES];
static uint8_t rgb[VALUES];

int main(void)
{
    const mode standard = get();
    float expected[KINDS][TINY_CLASSES], logits[TINY_CLASSES];
    draw(image, rgb);
    call c = allocate(image, rgb, logits);
    expect(c, expected);
    tiny_threads *before = tiny_threads_create(2);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        set(modes[i]);
        mode callers = get(); /* a CPU may lack some */
        set(standard);
        for (int pool = 0; pool < 3; pool++) {
            set(callers);
            c.threads = pool == 0   ? before
                        : pool == 1 ? tiny_threads_create(2)
                                    : tiny_threads_adopt(2, one_after_the_other, NULL);
            set(standard);
            int first = pool ? RUN_THREADS : RUN, last = pool ? RUN_FRAME : SELF_TEST;
            for (int entry = first; entry <= last; entry++) {
                memset(logits, 0, sizeof logits);
                set(callers);
                int code = enter(entry, &c);
                mode after = get();
                set(standard);
                CHECK(code == TINY_OK);
                CHECK(after == callers);
                if (entry != SELF_TEST)
                    CHECK(!memcmp(logits, expected[kind_of(entry)], LOGITS_BYTES));
            }
            if (pool > 0)
                tiny_threads_destroy(c.threads);
        }
    }
    tiny_threads_destroy(before);
    return 0;
}
