/*
 * Does this CPU have what the kernels use? Asked at every entry, so the answer is kept nowhere.
 *
 * x86: CPUID and XGETBV, Intel SDM volume 2 (leaves 1, 7, 80000001H) and volume 1, 13.3 (XCR0).
 * ARM: the kernel's AT_HWCAP and AT_HWCAP2; Windows and Apple's systems are asked for the same by
 * name (winnt.h; Apple, "Determining Instruction Set Characteristics"). A register that no feature needs is not read: under a
 * hypervisor one CPUID costs microseconds.
 */
#ifndef CPU_H
#define CPU_H

#include "library.h"

static inline int has(uint32_t bits, uint32_t required)
{
    return (bits & required) == required;
}

/* Of REQUIRED_HWCAP and REQUIRED_HWCAP2, as Linux numbers them: all that targets ask for. */
enum { DOT_PRODUCT_BIT = 1 << 20, MATRIX_MULTIPLY_BIT = 1 << 13, BFLOAT16_BIT = 1 << 14 };

#if defined(__x86_64__)

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} cpuid_registers;

static inline cpuid_registers cpuid(uint32_t leaf, uint32_t subleaf)
{
    cpuid_registers r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

/* Which register files the operating system saves; only where CPUID says OSXSAVE. */
static inline uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static inline int cpu_is_supported(void)
{
    if (REQUIRED_LEAF1_ECX != 0 && !has(cpuid(1, 0).ecx, REQUIRED_LEAF1_ECX))
        return 0;
    if (REQUIRED_XCR0 != 0 && !has(xcr0(), REQUIRED_XCR0))
        return 0;
    if (REQUIRED_LEAF7_EBX != 0 || REQUIRED_LEAF7_ECX != 0) {
        cpuid_registers leaf7 = cpuid(7, 0);
        if (!has(leaf7.ebx, REQUIRED_LEAF7_EBX) || !has(leaf7.ecx, REQUIRED_LEAF7_ECX))
            return 0;
    }
    if (REQUIRED_LEAF7_1_EAX != 0 && !has(cpuid(7, 1).eax, REQUIRED_LEAF7_1_EAX))
        return 0;
    if (REQUIRED_EXTENDED1_ECX != 0 && !has(cpuid(0x80000001u, 0).ecx, REQUIRED_EXTENDED1_ECX))
        return 0;
    return 1;
}

#elif defined(__APPLE__)

#include <sys/sysctl.h>

static inline int says_yes(const char *name)
{
    int answer = 0;
    size_t bytes = sizeof answer;
    return sysctlbyname(name, &answer, &bytes, NULL, 0) == 0 && answer;
}

static inline int cpu_is_supported(void)
{
    if (REQUIRED_HWCAP & DOT_PRODUCT_BIT && !says_yes("hw.optional.arm.FEAT_DotProd"))
        return 0;
    if (REQUIRED_HWCAP2 & MATRIX_MULTIPLY_BIT && !says_yes("hw.optional.arm.FEAT_I8MM"))
        return 0;
    if (REQUIRED_HWCAP2 & BFLOAT16_BIT && !says_yes("hw.optional.arm.FEAT_BF16"))
        return 0;
    return 1;
}

#elif defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

enum { DOT_PRODUCT = 43, MATRIX_MULTIPLY = 66, BFLOAT16 = 68 }; /* PF_ARM_V8.._AVAILABLE */

static inline int cpu_is_supported(void)
{
    if (REQUIRED_HWCAP & DOT_PRODUCT_BIT && !IsProcessorFeaturePresent(DOT_PRODUCT))
        return 0;
    if (REQUIRED_HWCAP2 & MATRIX_MULTIPLY_BIT && !IsProcessorFeaturePresent(MATRIX_MULTIPLY))
        return 0;
    if (REQUIRED_HWCAP2 & BFLOAT16_BIT && !IsProcessorFeaturePresent(BFLOAT16))
        return 0;
    return 1;
}

#else

#include <sys/auxv.h>

#ifndef AT_HWCAP2
#define AT_HWCAP2 26
#endif

static inline int cpu_is_supported(void)
{
    if (REQUIRED_HWCAP != 0 && !has((uint32_t)getauxval(AT_HWCAP), REQUIRED_HWCAP))
        return 0;
    if (REQUIRED_HWCAP2 != 0 && !has((uint32_t)getauxval(AT_HWCAP2), REQUIRED_HWCAP2))
        return 0;
    return 1;
}

#endif

#endif
