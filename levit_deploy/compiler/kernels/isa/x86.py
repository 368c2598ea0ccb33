"""x86-64: SSE, AVX2 and AVX-512 by the width of the registers, with or without VNNI.

Sources: Intel SDM volume 2 (CVTPS2DQ, PACKSSWB, PACKUSWB, VREDUCEPS).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.packed_dot import PackedPmaddwd, PackedVpdpbusd
from levit_deploy.compiler.kernels.conv.block_bf16 import Bf16Block
from levit_deploy.compiler.kernels.conv.block_int16 import PmaddwdBlock, VpdpwssdBlock
from levit_deploy.compiler.kernels.gemm.int8_dot_tile import MaddubsTile, VpdpbusdTile
from levit_deploy.compiler.kernels.gemm.int8_pair_tile import MaddubsPairTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import vcvtneps2bf16
from levit_deploy.compiler.kernels.isa.integer_instructions import packssdw
from levit_deploy.compiler.kernels.isa.isa import IntegerProducts, Isa
from levit_deploy.compiler.kernels.isa.lanes import half, lanes_of, shuffle
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.targets.target import Int8Dot

_ZMM_BYTES = 64


class X86(Isa):
    """Operands may lie in memory, and a broadcast costs no more than a load."""

    PRODUCTS: ClassVar = {
        Int8Dot.MADD: IntegerProducts(
            MaddubsPairTile, MaddubsTile, PackedPmaddwd, (PmaddwdBlock,), (PmaddwdBlock,)
        ),
        Int8Dot.VPDPBUSD: IntegerProducts(
            VpdpbusdTile, VpdpbusdTile, PackedVpdpbusd, (VpdpwssdBlock,), (VpdpwssdBlock,)
        ),
    }
    bf16_block = Bf16Block
    multiplies_by_lane = False
    load_group = 4
    runs_ahead = True

    @property
    def truncates(self) -> bool:
        return self.vector_bytes == _ZMM_BYTES

    @property
    def widens_float16(self) -> bool:
        return self.fma  # F16C is in x86-64-v3 with it

    def to_bf16(self, x: Expr) -> Expr:
        return vcvtneps2bf16(x)

    def nearest(self, simd: Simd, x: Expr, low: Expr, high: Expr) -> Expr:
        x = simd.minimum(x, simd.splat(high))  # any overflow gives the smallest int32
        return T.call_llvm_pure_intrin(f"int32x{simd.lanes}", "llvm.lrint", x)

    def remainder(self, x: Expr, nearest: Expr) -> Expr:
        """With AVX-512 vreduceps, which does not need `nearest`."""
        if lanes_of(x) != _ZMM_BYTES // 4:
            return x - nearest
        name = "llvm.x86.avx512.mask.reduce.ps.512"
        to_even, every_lane, default = T.int32(0b1000), T.int16(-1), T.int32(4)
        return T.call_llvm_pure_intrin("float32x16", name, x, to_even, x, every_lane, default)

    def saturate_to_16(self, vectors: Sequence[Expr]) -> Expr:
        if lanes_of(vectors[0]) == 4:
            packed = packssdw(vectors[0], vectors[-1])
            return packed if len(vectors) == 2 else half(packed, 0)
        if len(vectors) == 1:
            return packssdw(half(vectors[0], 0), half(vectors[0], 1))
        in_order = [*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]
        return shuffle([packssdw(*vectors)], in_order)  # it packs 128-bit halves

    def saturate_to_8(self, vector: Expr, dtype: str) -> Expr:
        whole = lanes_of(vector) == 16
        halves = (half(vector, 0), half(vector, 1)) if whole else (vector, vector)
        name = "llvm.x86.sse2.packuswb.128" if dtype == "uint8" else "llvm.x86.sse2.packsswb.128"
        packed = T.call_llvm_pure_intrin(f"{dtype}x16", name, *halves)
        return packed if whole else half(packed, 0)
