"""The instructions of AVX512_BF16, by their names: vectors in, vectors out, nothing more.

A bfloat16 is a uint16 here, and a pair of them an int32, whose low half is the first: TVM knows no
such floats. It calls functions, which `llvm_text` gives the names of LLVM's intrinsics.
Source: Intel SDM volume 2 (VDPBF16PS, VCVTNEPS2BF16).
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import concat, half, lanes_of

PREFIX = "x86.avx512bf16."  # of the functions; `llvm.` is missing

_VDPBF16PS = {4: "dpbf16ps.128", 8: "dpbf16ps.256", 16: "dpbf16ps.512"}
_VCVTNEPS2BF16 = {8: "cvtneps2bf16.256", 16: "cvtneps2bf16.512"}


def vdpbf16ps(total: Expr, a: Expr, b: Expr) -> Expr:
    """float32 `total` plus the products of two pairs: fma(a[1], b[1], total), then that of a[0],
    b[0] and this. Each is rounded once, to nearest; denormal inputs and results are zeros."""
    lanes = lanes_of(total)
    return T.call_pure_extern(f"float32x{lanes}", PREFIX + _VDPBF16PS[lanes], total, a, b)


def vcvtneps2bf16(x: Expr) -> Expr:
    """float32 -> the nearest bfloat16, ties to even; denormal numbers are zeros."""
    lanes = lanes_of(x)
    if lanes == 4:
        return half(vcvtneps2bf16(concat(x, x)), 0)
    return T.call_pure_extern(f"uint16x{lanes}", PREFIX + _VCVTNEPS2BF16[lanes], x)
