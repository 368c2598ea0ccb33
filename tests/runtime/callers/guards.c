/* Every buffer beside memory that must not be touched: before its first byte, behind its last. */
#include <sys/mman.h>
#include <unistd.h>

#include "caller.h"

/* `bytes` directly behind or directly before a page without access. */
static void *guarded(size_t bytes, int at_end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    unsigned char *memory = mmap(NULL, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                                 -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK(mprotect(memory + page, whole, PROT_READ | PROT_WRITE) == 0);
    return memory + page + (at_end ? whole - bytes : 0);
}

static void make_read_only(void *buffer, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)buffer / page * page;
    CHECK(mprotect((void *)first, (uintptr_t)buffer + bytes - first, PROT_READ) == 0);
}

int main(int argc, char **argv)
{
    static float image[VALUES], expected[KINDS][TINY_CLASSES];
    static uint8_t rgb[VALUES];
    (void)argv;
    draw(image, rgb);
    expect(allocate(image, rgb, NULL), expected);
    for (int at_end = 0; at_end < 2; at_end++)
        for (int count = 2; count <= 3; count++) {
            float *own_image = guarded(sizeof image, at_end);
            uint8_t *own_rgb = guarded(sizeof rgb, at_end);
            memcpy(own_image, image, sizeof image);
            memcpy(own_rgb, rgb, sizeof rgb);
            make_read_only(own_image, sizeof image);
            make_read_only(own_rgb, sizeof rgb);
            call c = {own_image, own_rgb, guarded(LOGITS_BYTES, at_end),
                      guarded(TINY_WORKSPACE_BYTES, at_end),
                      guarded(tiny_frame_workspace_bytes(SIDE, SIDE), at_end),
                      count == 2 ? tiny_threads_create(2)
                                 : tiny_threads_adopt(3, one_after_the_other, NULL)};
            for (int entry = 0; entry < ENTRIES; entry++) {
                memset(c.logits, 0, LOGITS_BYTES);
                CHECK(enter(entry, &c) == TINY_OK);
                if (entry != SELF_TEST)
                    CHECK(!memcmp(c.logits, expected[kind_of(entry)], LOGITS_BYTES));
            }
            tiny_threads_destroy(c.threads);
        }
    if (argc > 1) /* the guards guard */
        *(volatile char *)guarded(1, 1) = ((volatile char *)guarded(1, 1))[1];
    return 0;
}
