/* app IMAGE: the logits of 90 x 60 pixels of RGB, as bytes on stdout. */
#include "small.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    static unsigned char rgb[60 * 90 * 3];
    float logits[SMALL_CLASSES];
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (!file || fread(rgb, 1, sizeof rgb, file) != sizeof rgb)
        return 1;
    small_frame frame = {.planes = {rgb}, .strides = {270}, .width = 90, .height = 60};
    void *workspace = malloc(small_frame_workspace_bytes(90, 60));
    int code = small_run_frame(&frame, logits, workspace, NULL);
    free(workspace);
    return code || fwrite(logits, sizeof logits, 1, stdout) != 1;
}
