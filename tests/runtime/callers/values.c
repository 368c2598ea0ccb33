/* What is no picture gets NaNs; prints, as their bits, the logits of odd images that are. */
#include "caller.h"

static float image[VALUES], logits[TINY_CLASSES];
static uint8_t rgb[VALUES];
static unsigned char workspace[TINY_WORKSPACE_BYTES];

static const uint32_t wrong[] = {
    0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff, /* NaN */
    0x7f800000, 0xff800000,                         /* infinity */
    0x7f7fffff, 0xff7fffff, 0x4f800001, 0xcf800001, /* beyond 2^32 */
};
static const uint32_t odd[] = {
    0x80000000, 0x00000001, 0x807fffff, /* -0, denormal numbers */
    0x477fff00, 0xc9742400,             /* 65535, -1000000 */
    0x4f800000, 0xcf800000,             /* 2^32, -2^32 */
};
enum { PLACES = 5 };
static const int places[PLACES] = {0, 7, VALUES / 2 + 1, VALUES - 9, VALUES - 1};

int main(void)
{
    tiny_threads *threads = tiny_threads_create(3);
    call c = {image, rgb, logits, workspace, threads};
    const uint32_t nan = 0x7fc00000;
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++)
        for (int entry = RUN; entry <= RUN_THREADS; entry += RUN_THREADS - RUN) {
            draw(image, rgb);
            memcpy(&image[places[w % PLACES]], &wrong[w], 4);
            memset(logits, 0, sizeof logits);
            CHECK(enter(entry, &c) == TINY_OK);
            for (int i = 0; i < TINY_CLASSES; i++)
                CHECK(!memcmp(&logits[i], &nan, 4));
        }
    for (size_t o = 0; o < sizeof odd / sizeof *odd; o++)
        for (int everywhere = 0; everywhere < 2; everywhere++) {
            draw(image, rgb);
            for (int i = 0; i < VALUES; i += everywhere ? 2 : VALUES)
                memcpy(&image[i], &odd[o], 4);
            float together[TINY_CLASSES];
            CHECK(tiny_run_threads(image, together, workspace, threads) == TINY_OK);
            CHECK(tiny_run(image, logits, workspace) == TINY_OK);
            CHECK(!memcmp(together, logits, LOGITS_BYTES));
            printf("%08x %d", odd[o], everywhere);
            for (int i = 0; i < TINY_CLASSES; i++) {
                uint32_t bits;
                memcpy(&bits, &logits[i], 4);
                printf(" %08x", bits);
            }
            printf("\n");
        }
    tiny_threads_destroy(threads);
    return 0;
}
