"""The instructions that multiply bfloat16, or round to it, by their names: vectors in, vectors out,
nothing more.

A bfloat16 is a uint16 here, and for AVX512_BF16 a pair of them an int32, whose low half is the
first: TVM knows no such floats. It calls functions, of which `llvm_text` makes LLVM's own.
Sources: Intel SDM volume 2 (VDPBF16PS, VCVTNEPS2BF16), Arm ARM (BFMMLA, BFCVTN).
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import concat, half, lanes_of

# What intrinsics begin with; `llvm.` is missing.
X86_PREFIX = "x86.avx512bf16."
ARM_PREFIX = "aarch64.neon.bf"
ROUNDING = "fptrunc.bfloat"  # LLVM's instruction of that name

_VDPBF16PS = {4: "dpbf16ps.128", 8: "dpbf16ps.256", 16: "dpbf16ps.512"}
_VCVTNE2PS2BF16 = {4: "cvtne2ps2bf16.128", 8: "cvtne2ps2bf16.256", 16: "cvtne2ps2bf16.512"}
_VCVTNEPS2BF16 = {8: "cvtneps2bf16.256", 16: "cvtneps2bf16.512"}


def vdpbf16ps(total: Expr, a: Expr, b: Expr) -> Expr:
    """float32 `total` plus the products of two pairs: fma(a[1], b[1], total), then that of a[0],
    b[0] and this. Each is rounded once, to nearest; denormal inputs and results are zeros."""
    lanes = lanes_of(total)
    return T.call_pure_extern(f"float32x{lanes}", X86_PREFIX + _VDPBF16PS[lanes], total, a, b)


def vcvtneps2bf16(x: Expr) -> Expr:
    """float32 -> the nearest bfloat16, ties to even; denormal numbers are zeros."""
    lanes = lanes_of(x)
    if lanes == 4:
        return half(vcvtneps2bf16(concat(x, x)), 0)
    return T.call_pure_extern(f"uint16x{lanes}", X86_PREFIX + _VCVTNEPS2BF16[lanes], x)


def vcvtne2ps2bf16(low: Expr, high: Expr) -> Expr:
    """The same of two registers, as one."""
    lanes = lanes_of(low)
    if lanes == 2:
        return half(vcvtne2ps2bf16(concat(low, high), concat(low, high)), 0)
    return T.call_pure_extern(f"uint16x{2 * lanes}", X86_PREFIX + _VCVTNE2PS2BF16[lanes], high, low)


def bfmmla(total: Expr, a: Expr, b: Expr) -> Expr:
    """float32 (2, 2) `total` plus a (2, 4) @ b (2, 4)^T of bfloat16, with the default FPCR.

    Two sums of two products each are added to every total, that of the first two k first. Such a
    sum and each addition is rounded once, to odd: cut, and the last bit set if anything was lost.
    Denormal inputs and results are zeros.
    """
    operands = [T.reinterpret("int8x16", x) for x in (a, b)]
    return T.call_pure_extern("float32x4", f"{ARM_PREFIX}mmla.v4f32.v16i8", total, *operands)


def bfcvtn(x: Expr) -> Expr:
    """float32 -> the nearest bfloat16, ties to even."""
    lanes = lanes_of(x)
    return T.call_pure_extern(f"uint16x{lanes}", f"{ROUNDING}.{lanes}", x)
