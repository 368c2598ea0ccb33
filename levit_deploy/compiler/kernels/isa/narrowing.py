"""Float registers -> nearest int32 -> saturated 16 and 8 bits, by each target's own instructions.

Nothing here wraps: a value that does not fit the narrower type becomes the nearest one that does.
Sources: Intel SDM volume 2 (CVTPS2DQ, PACKSSDW, PACKSSWB, PACKUSWB), Arm ARM (FCVTNS, SQXTN,
VQMOVN).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.targets.target import Arch

# 1.5 * 2^23: adding it to |x| < 2^22 leaves the nearest integer in the low bits of the mantissa.
ROUNDING = 12582912.0
ROUNDING_BITS = 0x4B400000


def lanes_of(vector: Expr) -> int:
    return int(tvm.DataType(str(vector.ty)).lanes)


def shuffle(vectors: Sequence[Expr], lanes: Iterable[int]) -> Expr:
    """The named lanes of the concatenation of `vectors`."""
    return tirx.Shuffle(list(vectors), [tirx.const(lane, "int32") for lane in lanes])


def concat(low: Expr, high: Expr) -> Expr:
    return shuffle([low, high], range(2 * lanes_of(low)))


def half(vector: Expr, which: int) -> Expr:
    """The lower (0) or upper (1) half of the lanes."""
    count = lanes_of(vector) // 2
    return shuffle([vector], range(which * count, (which + 1) * count))


def nearest(simd: Simd, x: Expr, low: Expr, high: Expr) -> Expr:
    """The nearest integers to a float register, ties to even, as int32.

    What is below `low` or above `high` (scalars of int16's range) stays outside or becomes the
    limit, whatever is the target's cheapest way not to overflow.
    """
    kind = f"int32x{simd.lanes}"
    if simd.target.arch is Arch.AARCH64:  # saturates
        return T.call_llvm_pure_intrin(kind, "llvm.aarch64.neon.fcvtns", x)
    x = simd.minimum(x, simd.splat(high))
    if simd.target.arch is Arch.X86_64:  # any overflow gives the smallest int32
        return T.call_llvm_pure_intrin(kind, "llvm.lrint", x)
    x = simd.maximum(x, simd.splat(low))
    bits = T.reinterpret(kind, x + simd.splat(ROUNDING))
    return bits - T.broadcast(T.int32(ROUNDING_BITS), simd.lanes)


def saturate_to_16(simd: Simd, vectors: Sequence[Expr]) -> Expr:
    """One or two int32 registers of 4 or 8 lanes as one int16 vector."""
    if simd.neon:
        name = "llvm.aarch64.neon.sqxtn"
        if simd.target.arch is Arch.ARMV7:
            name = "llvm.arm.neon.vqmovns"
        parts = [T.call_llvm_pure_intrin("int16x4", name, vector) for vector in vectors]
        return parts[0] if len(parts) == 1 else concat(*parts)
    if simd.lanes == 4:
        pair = vectors[0], vectors[-1]
        packed = T.call_llvm_pure_intrin("int16x8", "llvm.x86.sse2.packssdw.128", *pair)
        return packed if len(vectors) == 2 else half(packed, 0)
    if len(vectors) == 1:
        halves = half(vectors[0], 0), half(vectors[0], 1)
        return T.call_llvm_pure_intrin("int16x8", "llvm.x86.sse2.packssdw.128", *halves)
    packed = T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.packssdw", *vectors)
    in_order = [*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]  # it packs 128-bit halves
    return shuffle([packed], in_order)


def saturate_to_8(simd: Simd, vector: Expr, dtype: str) -> Expr:
    """4, 8 or 16 lanes of int16 as int8 or, on x86, uint8."""
    lanes = lanes_of(vector)
    if lanes == 4:
        return half(saturate_to_8(simd, concat(vector, vector), dtype), 0)
    if simd.neon:
        name = "llvm.aarch64.neon.sqxtn"
        if simd.target.arch is Arch.ARMV7:
            name = "llvm.arm.neon.vqmovns"
        return T.call_llvm_pure_intrin("int8x8", name, vector)
    halves = (half(vector, 0), half(vector, 1)) if lanes == 16 else (vector, vector)
    name = "llvm.x86.sse2.packuswb.128" if dtype == "uint8" else "llvm.x86.sse2.packsswb.128"
    packed = T.call_llvm_pure_intrin(f"{dtype}x16", name, *halves)
    return packed if lanes == 16 else half(packed, 0)
