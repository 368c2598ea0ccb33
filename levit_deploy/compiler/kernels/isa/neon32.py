"""ARMv7: NEON with 16 registers and without FMA.

Sources: Arm ARM (VQMOVN, VMULL, VPADAL, VPADD).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.packed_dot import PackedFloat
from levit_deploy.compiler.kernels.conv.block_int16 import LaneBlock
from levit_deploy.compiler.kernels.gemm.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.gemm.int8_shared_tiles import MlalSharedTile
from levit_deploy.compiler.kernels.isa.isa import IntegerProducts
from levit_deploy.compiler.kernels.isa.lanes import concat, half
from levit_deploy.compiler.kernels.isa.neon import Neon
from levit_deploy.compiler.kernels.isa.simd import ROUNDING, ROUNDING_BITS, Simd
from levit_deploy.targets.target import Int8Dot


class Neon32(Neon):
    PRODUCTS: ClassVar = {
        Int8Dot.MLAL: IntegerProducts(
            MlalTile, MlalSharedTile, PackedFloat, (LaneBlock,), (LaneBlock,)
        )
    }
    NARROW = "llvm.arm.neon.vqmovns"
    LONG_PRODUCT = "llvm.arm.neon.vmulls"

    @property
    def widens_float16(self) -> bool:
        return False  # that came with VFPv4

    def nearest(self, simd: Simd, x: Expr, low: Expr, high: Expr) -> Expr:
        x = simd.minimum(x, simd.splat(high))
        x = simd.maximum(x, simd.splat(low))
        bits = T.reinterpret(f"int32x{simd.lanes}", x + simd.splat(ROUNDING))
        return bits - T.broadcast(T.int32(ROUNDING_BITS), simd.lanes)

    def add_pairs(self, simd: Simd, total: Expr, vector: Expr) -> Expr:
        return T.call_llvm_pure_intrin("int32x4", "llvm.arm.neon.vpadals", total, vector)

    def sums_of_each(self, vectors: Sequence[Expr]) -> Expr:
        name = "llvm.arm.neon.vpadd"
        halves = [half(vector, 0) + half(vector, 1) for vector in vectors]
        return concat(
            *(T.call_llvm_pure_intrin("int32x2", name, *halves[i : i + 2]) for i in (0, 2))
        )
