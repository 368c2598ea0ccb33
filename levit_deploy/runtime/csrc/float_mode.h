/*
 * How the CPU computes with floats: rounding, denormal numbers, traps. A thread has these modes for
 * all of its code; the library computes in the default ones, whatever its caller has set.
 *
 * Sources: Intel SDM volume 1, 10.2.3 (MXCSR); Arm ARM, FPCR and, of AArch32, FPSCR.
 */
#ifndef FLOAT_MODE_H
#define FLOAT_MODE_H

#include <stdint.h>

typedef uintptr_t float_mode; /* as wide as the register */

#if defined(__x86_64__)

/* Round to nearest, keep denormal numbers, trap nothing. */
#define DEFAULT_FLOAT_MODE 0x1f80

static inline float_mode get_float_mode(void)
{
    return __builtin_ia32_stmxcsr();
}

static inline void set_float_mode(float_mode mode)
{
    __builtin_ia32_ldmxcsr((unsigned)mode);
}

#else

#define DEFAULT_FLOAT_MODE 0

static inline float_mode get_float_mode(void)
{
    float_mode mode;
#if defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
#else
    __asm__ volatile("vmrs %0, fpscr" : "=r"(mode));
#endif
    return mode;
}

static inline void set_float_mode(float_mode mode)
{
#if defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
#else
    __asm__ volatile("vmsr fpscr, %0" : : "r"(mode) : "memory");
#endif
}

#endif

/* Sets the default modes; returns the caller's, for `set_float_mode` at the end. */
static inline float_mode enter_float_mode(void)
{
    float_mode callers = get_float_mode();
    set_float_mode(DEFAULT_FLOAT_MODE);
    return callers;
}

#endif
