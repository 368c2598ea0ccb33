/* The constants: a file of bytes, in a section that nobody writes to. */
#include "library.h"

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

#if defined(__APPLE__)
#define SYMBOL "_" TEXT(NAME(constants))
#define SECTION "__TEXT,__const"
#define ATTRIBUTES ".private_extern " SYMBOL
#elif defined(_WIN32)
#define SYMBOL TEXT(NAME(constants))
#define SECTION ".rdata,\"dr\""
#define ATTRIBUTES ""
#else
#define SYMBOL TEXT(NAME(constants))
#define SECTION ".rodata." SYMBOL ",\"a\",%progbits"
#define ATTRIBUTES \
    ".hidden " SYMBOL "\n.type " SYMBOL ", %object\n.size " SYMBOL ", " TEXT(CONSTANTS_BYTES)
#endif

__asm__(".section " SECTION "\n"
        ".globl " SYMBOL "\n"
        ATTRIBUTES "\n"
        ".p2align 6\n" SYMBOL ":\n"
        ".incbin \"" CONSTANTS_FILE "\"\n"
        ".text\n");
