/*
 * A static program that loads one shared library by itself and runs its self test: an emulator can
 * then execute the library's own bytes, though there is no system of that CPU here to load it.
 *
 *   load_library FILE NAME
 *
 * Maps the segments, applies the dynamic relocations and binds the undefined symbols to the C
 * library that is linked in (System V ABI, chapter 5).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if UINTPTR_MAX > 0xffffffffu
#define ELF(type) Elf64_##type
#define SYMBOL_OF(info) ELF64_R_SYM(info)
#define TYPE_OF(info) ELF64_R_TYPE(info)
#else
#define ELF(type) Elf32_##type
#define SYMBOL_OF(info) ELF32_R_SYM(info)
#define TYPE_OF(info) ELF32_R_TYPE(info)
#endif

#if defined(__x86_64__)
enum { RELATIVE = R_X86_64_RELATIVE, GLOB_DAT = R_X86_64_GLOB_DAT, SLOT = R_X86_64_JUMP_SLOT };
#elif defined(__aarch64__)
enum { RELATIVE = R_AARCH64_RELATIVE, GLOB_DAT = R_AARCH64_GLOB_DAT, SLOT = R_AARCH64_JUMP_SLOT };
#else
enum { RELATIVE = R_ARM_RELATIVE, GLOB_DAT = R_ARM_GLOB_DAT, SLOT = R_ARM_JUMP_SLOT };
#endif

#define BOUND(function) { #function, (void *)function }
static const struct {
    const char *name;
    void *address;
} libc[] = {
    BOUND(clock_gettime), BOUND(free), BOUND(getauxval), BOUND(getpid), BOUND(memcpy),
    BOUND(memmove), BOUND(memset), BOUND(posix_memalign), BOUND(pthread_create),
    BOUND(pthread_join), BOUND(pthread_sigmask), BOUND(sched_getaffinity), BOUND(sched_getcpu),
    BOUND(sched_setaffinity), BOUND(sched_yield), BOUND(sigfillset), BOUND(syscall),
};

static unsigned char *base;
static const ELF(Sym) *symbols;
static const char *strings;
static uint32_t symbol_count;

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "%s: %s\n", what, which);
    exit(1);
}

static void *address_of(const char *name)
{
    for (uint32_t i = 0; i < symbol_count; i++)
        if (symbols[i].st_shndx != SHN_UNDEF && !strcmp(strings + symbols[i].st_name, name))
            return base + symbols[i].st_value;
    for (size_t i = 0; i < sizeof libc / sizeof *libc; i++)
        if (!strcmp(libc[i].name, name))
            return libc[i].address;
    fail("undefined symbol", name);
    return NULL;
}

/* One relocation; with `addend` NULL it is in the place itself (REL). */
static void relocate(uintptr_t offset, uintptr_t info, const uintptr_t *addend)
{
    uintptr_t *place = (uintptr_t *)(void *)(base + offset);
    uintptr_t type = TYPE_OF(info);
    if (type == RELATIVE)
        *place = (uintptr_t)base + (addend ? *addend : *place);
    else if (type == GLOB_DAT || type == SLOT)
        *place = (uintptr_t)address_of(strings + symbols[SYMBOL_OF(info)].st_name)
                 + (addend ? *addend : 0);
    else
        fail("unknown relocation", "");
}

static void *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail("cannot open", path);
    fseek(file, 0, SEEK_END);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(bytes);
    if (!data || fread(data, 1, bytes, file) != bytes)
        fail("cannot read", path);
    fclose(file);
    return data;
}

static const ELF(Dyn) *map_segments(const unsigned char *data)
{
    const ELF(Ehdr) *header = (const void *)data;
    const ELF(Phdr) *segments = (const void *)(data + header->e_phoff);
    const ELF(Dyn) *dynamic = NULL;
    size_t bytes = 0;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD)
            bytes = segments[i].p_vaddr + segments[i].p_memsz;
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < header->e_phnum; i++) {
        const ELF(Phdr) *segment = &segments[i];
        if (segment->p_type == PT_LOAD)
            memcpy(base + segment->p_vaddr, data + segment->p_offset, segment->p_filesz);
        if (segment->p_type == PT_DYNAMIC)
            dynamic = (const void *)(base + segment->p_vaddr);
    }
    __builtin___clear_cache((char *)base, (char *)base + bytes);
    return dynamic;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage", "load_library FILE NAME");
    const ELF(Dyn) *dynamic = map_segments(read_file(argv[1]));
    uintptr_t entry[DT_NUM] = {0};
    for (; dynamic->d_tag != DT_NULL; dynamic++)
        if (dynamic->d_tag > 0 && dynamic->d_tag < DT_NUM)
            entry[dynamic->d_tag] = dynamic->d_un.d_val;
    symbols = (const void *)(base + entry[DT_SYMTAB]);
    strings = (const char *)(base + entry[DT_STRTAB]);
    symbol_count = ((const uint32_t *)(const void *)(base + entry[DT_HASH]))[1];
    int applied = 0;
    const ELF(Rela) *rela = (const void *)(base + entry[DT_RELA]);
    for (uintptr_t i = 0; i < entry[DT_RELASZ] / sizeof *rela; i++, applied++)
        relocate(rela[i].r_offset, rela[i].r_info, (const uintptr_t *)&rela[i].r_addend);
    const ELF(Rel) *rel = (const void *)(base + entry[DT_REL]);
    for (uintptr_t i = 0; i < entry[DT_RELSZ] / sizeof *rel; i++, applied++)
        relocate(rel[i].r_offset, rel[i].r_info, NULL);
    int with_addend = entry[DT_PLTREL] == DT_RELA;
    const unsigned char *slot = base + entry[DT_JMPREL];
    for (const unsigned char *end = slot + entry[DT_PLTRELSZ]; slot < end; applied++) {
        const ELF(Rela) *r = (const void *)slot;
        relocate(r->r_offset, r->r_info, with_addend ? (const uintptr_t *)&r->r_addend : NULL);
        slot += with_addend ? sizeof *rela : sizeof *rel;
    }

    char name[256];
    snprintf(name, sizeof name, "%s_workspace_bytes", argv[2]);
    size_t bytes = ((size_t(*)(void))address_of(name))();
    snprintf(name, sizeof name, "%s_self_test", argv[2]);
    int code = ((int (*)(void *))address_of(name))(malloc(bytes));
    snprintf(name, sizeof name, "%s_threads_create", argv[2]);
    void *threads = ((void *(*)(int))address_of(name))(3);
    snprintf(name, sizeof name, "%s_threads_destroy", argv[2]);
    ((void (*)(void *))address_of(name))(threads);
    snprintf(name, sizeof name, "%s_strerror", argv[2]);
    printf("%d relocations, threads %s, %s\n", applied, threads ? "yes" : "no",
           ((const char *(*)(int))address_of(name))(code));
    return code;
}
