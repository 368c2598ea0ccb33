"""The instructions that multiply integers, or pack them, by their names: vectors in, vectors out,
nothing more.

Their operands say how wide they are. What each is exact for, its users say. Sources: Intel SDM
volume 2 (PACKSSDW, PACKUSWB, PMADDUBSW, PMADDWD, VPDPBUSD,
VPDPWSSD), Arm ARM (SDOT, SMMLA).
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import lanes_of

_PMADDUBSW = {
    8: "llvm.x86.ssse3.pmadd.ub.sw.128",
    16: "llvm.x86.avx2.pmadd.ub.sw",
    32: "llvm.x86.avx512.pmaddubs.w.512",
}
_PMADDWD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
_PACKSSDW = {
    4: "llvm.x86.sse2.packssdw.128",
    8: "llvm.x86.avx2.packssdw",
    16: "llvm.x86.avx512.packssdw.512",
}
_PACKUSWB = {16: "llvm.x86.avx2.packuswb", 32: "llvm.x86.avx512.packuswb.512"}
_WIDTHS = {4: "128", 8: "256", 16: "512"}


def pmaddubsw(unsigned: Expr, signed: Expr) -> Expr:
    """Bytes -> int16: sums of two neighbouring products, saturated."""
    lanes = lanes_of(unsigned) // 2
    return _call(f"int16x{lanes}", _PMADDUBSW[lanes], unsigned, signed)


def pmaddwd(a: Expr, b: Expr) -> Expr:
    """int16 -> int32: sums of two neighbouring products."""
    lanes = lanes_of(a) // 2
    return _call(f"int32x{lanes}", _PMADDWD[lanes], a, b)


def vpdpbusd(total: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """int32 `total` plus the products of four neighbouring bytes."""
    lanes = lanes_of(total)
    name = f"llvm.x86.avx512.vpdpbusd.{_WIDTHS[lanes]}"
    return _call(f"int32x{lanes}", name, total, unsigned, signed)


def vpdpwssd(total: Expr, a: Expr, b: Expr) -> Expr:
    """int32 `total` plus the products of two neighbouring int16."""
    lanes = lanes_of(total)
    return _call(f"int32x{lanes}", f"llvm.x86.avx512.vpdpwssd.{_WIDTHS[lanes]}", total, a, b)


def sdot(total: Expr, a: Expr, b: Expr) -> Expr:
    """int32x4 `total` plus the products of four neighbouring signed bytes."""
    return _call("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", total, a, b)


def smmla(total: Expr, a: Expr, b: Expr) -> Expr:
    """int32x4 `total` plus a (2, 8) @ b (2, 8)^T of signed bytes."""
    return _call("int32x4", "llvm.aarch64.neon.smmla.v4i32.v16i8", total, a, b)


def packssdw(a: Expr, b: Expr) -> Expr:
    """int32 -> int16, saturated: in every 128-bit part those of `a`, then those of b."""
    lanes = lanes_of(a)
    return _call(f"int16x{2 * lanes}", _PACKSSDW[lanes], a, b)


def packuswb(a: Expr, b: Expr) -> Expr:
    """int16 -> uint8, saturated: in every 128-bit part those of `a`, then those of b."""
    lanes = lanes_of(a)
    return _call(f"uint8x{2 * lanes}", _PACKUSWB[lanes], a, b)


def _call(kind: str, name: str, *operands: Expr) -> Expr:
    return T.call_llvm_pure_intrin(kind, name, *operands)
