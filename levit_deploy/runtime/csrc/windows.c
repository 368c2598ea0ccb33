/* What makes a DLL of the library: its exports, and that it needs no C library to start. */
#include "exports.h"

__asm__(".section .drectve,\"yni\"\n"
        ".ascii \"" EXPORTS "\"\n"
        ".text\n");

/* The loader's call: there is nothing to prepare. */
int DllMainCRTStartup(void *module, unsigned reason, void *reserved)
{
    (void)module, (void)reason, (void)reserved;
    return 1;
}
