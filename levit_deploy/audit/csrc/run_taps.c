/* Shows the inside of a debug build: the C program that an audit compiles and keeps running.
 *
 *   run_taps STEP:OFFSET:BYTES ...
 *
 * stdin: normalised float images, one after the other. stdout, for each: its logits, then what lies
 * at OFFSET in the arena when STEP is done, for each argument. MODEL, the library's name, and HEADER
 * come from the compiler's command line. Exits with 0 at the end of stdin, or with 1 and one line on
 * stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include HEADER

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)

int MODEL_(_taps)(const float *image, float *logits, void *workspace,
                  void (*finished)(void *user, int step, const unsigned char *arena), void *user);

typedef struct {
    int step;
    size_t offset, bytes;
    unsigned char *copy;
} tap;

typedef struct {
    int count;
    tap *taps;
} all_taps;

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

static void finished(void *user, int step, const unsigned char *arena)
{
    const all_taps *all = user;
    for (int i = 0; i < all->count; i++)
        if (all->taps[i].step == step)
            memcpy(all->taps[i].copy, arena + all->taps[i].offset, all->taps[i].bytes);
}

int main(int argc, char **argv)
{
    const MODEL_(_info) *info = MODEL_(_describe)();
    size_t values = (size_t)info->channels * info->image_size * info->image_size;
    all_taps all = {argc - 1, calloc((size_t)argc, sizeof(tap))};
    void *workspace = malloc(MODEL_(_workspace_bytes)());
    float *image = malloc(values * sizeof(float));
    float *logits = malloc(info->classes * sizeof(float));
    if (!all.taps || !workspace || !image || !logits)
        return fail("no memory");
    for (int i = 0; i < all.count; i++) {
        tap *t = &all.taps[i];
        if (sscanf(argv[i + 1], "%d:%zu:%zu", &t->step, &t->offset, &t->bytes) != 3)
            return fail("usage: run_taps STEP:OFFSET:BYTES ...");
        t->copy = malloc(t->bytes);
        if (!t->copy)
            return fail("no memory");
    }

    while (fread(image, sizeof(float), values, stdin) == values) {
        int code = MODEL_(_taps)(image, logits, workspace, finished, &all);
        if (code != 0)
            return fail(MODEL_(_strerror)(code));
        int written = fwrite(logits, sizeof(float), info->classes, stdout) == info->classes;
        for (int i = 0; i < all.count; i++)
            written &= fwrite(all.taps[i].copy, 1, all.taps[i].bytes, stdout) == all.taps[i].bytes;
        if (!written || fflush(stdout))
            return fail("cannot write the tensors");
    }
    return 0;
}
