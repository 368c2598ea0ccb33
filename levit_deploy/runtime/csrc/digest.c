/*
 * Are weights, code and tables what was built? levit_deploy/runtime/digest.py says how their digests are
 * made, and makes those that the build puts into the library.
 */
#include "library.h"

#include <string.h>

#define BLOCK_BYTES 4096
#define LANES 4
#define FACTOR 0x9e3779b97f4a7c15u

static uint64_t mix(uint64_t sum, uint64_t word)
{
    sum ^= word;
    return (sum << 29 | sum >> 35) * FACTOR;
}

/* Of less than a block too; what is missing of the last four words counts as zeros. */
static uint64_t digest_block(const unsigned char *bytes, size_t count)
{
    uint64_t sums[LANES] = {0}, words[LANES], sum = 0;
    for (; count >= sizeof words; count -= sizeof words, bytes += sizeof words) {
        memcpy(words, bytes, sizeof words);
        for (int i = 0; i < LANES; i++)
            sums[i] = mix(sums[i], words[i]);
    }
    if (count > 0) {
        memset(words, 0, sizeof words);
        memcpy(words, bytes, count);
        for (int i = 0; i < LANES; i++)
            sums[i] = mix(sums[i], words[i]);
    }
    for (int i = 0; i < LANES; i++)
        sum = mix(sum, sums[i]);
    return sum;
}

static uint64_t digest(const unsigned char *bytes, size_t count)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < count; at += BLOCK_BYTES) {
        size_t left = count - at;
        sum = mix(sum, digest_block(bytes + at, left < BLOCK_BYTES ? left : BLOCK_BYTES));
    }
    return sum;
}

#if defined(SHARED) && defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

extern const IMAGE_DOS_HEADER __ImageBase; /* the linker's: where the file is mapped */

/* All sections to be executed: the loader writes nothing there, see levit_deploy/runtime/pe.py. */
static int library_is_intact(void)
{
    const unsigned char *base = (const unsigned char *)&__ImageBase;
    const IMAGE_NT_HEADERS *headers = (const void *)(base + __ImageBase.e_lfanew);
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(headers);
    uint64_t sum = 0;
    for (int i = 0; i < headers->FileHeader.NumberOfSections; i++, section++)
        if (section->Characteristics & IMAGE_SCN_MEM_EXECUTE)
            sum = mix(sum, digest(base + section->VirtualAddress, section->Misc.VirtualSize));
    return sum == NAME(digests).library;
}

#elif defined(SHARED) && !defined(__APPLE__)

#include <link.h>

extern HIDDEN const ElfW(Ehdr) __ehdr_start; /* the linker's: where the file is mapped */

/*
 * All that is mapped and never written, by the loader neither: code, tables, symbols. Left out are
 * the headers, which tools that strip a file rewrite, and the constants with the digests behind.
 */
static int library_is_intact(void)
{
    const unsigned char *base = (const unsigned char *)&__ehdr_start;
    const ElfW(Phdr) *segments = (const void *)(base + __ehdr_start.e_phoff);
    const unsigned char *headers_end = (const void *)(segments + __ehdr_start.e_phnum);
    const unsigned char *hole = NAME(constants), *rest = (const void *)(&NAME(digests) + 1);
    uint64_t sum = 0;
    for (int i = 0; i < __ehdr_start.e_phnum; i++) {
        if (segments[i].p_type != PT_LOAD || segments[i].p_flags & PF_W)
            continue;
        const unsigned char *begin = base + segments[i].p_vaddr;
        const unsigned char *end = begin + segments[i].p_filesz;
        if (begin == base)
            begin = headers_end;
        if (begin <= hole && hole < end) {
            sum = mix(sum, digest(begin, (size_t)(hole - begin)));
            begin = rest;
        }
        sum = mix(sum, digest(begin, (size_t)(end - begin)));
    }
    return sum == NAME(digests).library;
}

#else

/* In a program's file code and tables are what its linker made of them; Apple's systems check the
 * signature of each page themselves. */
static int library_is_intact(void)
{
    return 1;
}

#endif

int NAME(is_intact)(void)
{
    return digest(NAME(constants), CONSTANTS_BYTES) == NAME(digests).constants &&
           library_is_intact();
}
