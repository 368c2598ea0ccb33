/* A library around which a program is linked, and whether it is the one of its manifest.
 *
 * MODEL, the artifact's name, and HEADER come from the compiler's command line.
 */
#ifndef DESCRIBED_H
#define DESCRIBED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include HEADER

#include "description.h" /* manifest_says: what the library must say of itself */

#define PASTE(a, b) a##b
#define NAMED(model, suffix) PASTE(model, suffix)
#define MODEL_(suffix) NAMED(MODEL, suffix)

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

static const MODEL_(_info) *info;

/* The lines of description_text in library_worker.py. */
static void describe(char *text, size_t bytes)
{
    int length = snprintf(
        text, bytes,
        "abi_version %u\nimage_size %u\nchannels %u\nclasses %u\nexif %u\nworkspace_bytes %llu\n"
        "name %s\nmodel %s\nprecision %s\ntarget %s\nweights_digest %s\nbuild_id %s\n"
        "tool_version %s\npreprocessing %s\n",
        (unsigned)info->abi_version, (unsigned)info->image_size, (unsigned)info->channels,
        (unsigned)info->classes, (unsigned)info->exif, (unsigned long long)info->workspace_bytes,
        info->name, info->model, info->precision, info->target, info->weights_digest,
        info->build_id, info->tool_version, MODEL_(_preprocessing)());
    const float *numbers[] = {info->mean, info->std};
    for (int i = 0; i < 2 && length > 0 && (size_t)length < bytes; i++) {
        length += snprintf(text + length, bytes - (size_t)length, i ? "\nstd" : "mean");
        for (unsigned c = 0; c < info->channels && c < 3 && (size_t)length < bytes; c++)
            length += snprintf(text + length, bytes - (size_t)length, " %.9g",
                               (double)numbers[i][c]);
    }
    if ((size_t)length < bytes)
        snprintf(text + length, bytes - (size_t)length, "\n");
}

/* 0 if the library says of itself what its manifest says, else the exit code; sets `info`. */
static int check_description(void)
{
    info = MODEL_(_describe)();
    static char text[sizeof manifest_says + 4096];
    describe(text, sizeof text);
    if (strcmp(text, (const char *)manifest_says) == 0)
        return 0;
    size_t line = 0;
    for (size_t i = 0; text[i] && text[i] == (char)manifest_says[i]; i++)
        if (text[i] == '\n')
            line = i + 1;
    fprintf(stderr, "it says `%.*s`\n", (int)strcspn(text + line, "\n"), text + line);
    return 125;
}

#endif
