"""AArch64: NEON with 32 registers, with or without sdot (ARMv8.2), smmla and bfmmla (ARMv8.6).

Sources: Arm ARM (FCVTNS, SQXTN, SMULL, SADALP, ADDP, SLI).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.packed_dot import PackedFloat, PackedSdot
from levit_deploy.compiler.kernels.conv.block_bfmmla import BfmmlaBlock
from levit_deploy.compiler.kernels.conv.block_bytes import (
    SdotBlock,
    SdotByteBlock,
    SmmlaBlock,
    SmmlaByteBlock,
)
from levit_deploy.compiler.kernels.conv.block_int16 import LaneBlock
from levit_deploy.compiler.kernels.gemm.int8_dot_tile import SdotTile
from levit_deploy.compiler.kernels.gemm.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.gemm.int8_matrix_tile import SmmlaTile
from levit_deploy.compiler.kernels.gemm.int8_shared_tiles import MlalSharedTile, SmmlaSharedTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import bfcvtn
from levit_deploy.compiler.kernels.isa.half_storage import QUAD, HalfStorage
from levit_deploy.compiler.kernels.isa.isa import IntegerProducts
from levit_deploy.compiler.kernels.isa.neon import Neon
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.targets.target import Int8Dot


class Neon64(Neon):
    PRODUCTS: ClassVar = {
        Int8Dot.MLAL: IntegerProducts(
            MlalTile, MlalSharedTile, PackedFloat, (LaneBlock,), (LaneBlock,)
        ),
        Int8Dot.SDOT: IntegerProducts(
            SdotTile, SdotTile, PackedSdot, (SdotBlock, LaneBlock), (SdotByteBlock, LaneBlock)
        ),
        Int8Dot.SMMLA: IntegerProducts(
            SmmlaTile,
            SmmlaSharedTile,
            PackedSdot,
            (SmmlaBlock, LaneBlock),
            (SmmlaByteBlock, LaneBlock),
        ),
    }
    bf16_block = BfmmlaBlock
    bf16_step = QUAD
    bf16_storage = HalfStorage.PAIRS
    NARROW = "llvm.aarch64.neon.sqxtn"
    LONG_PRODUCT = "llvm.aarch64.neon.smull"

    @property
    def widens_float16(self) -> bool:
        return True

    def window(
        self, buffer: tirx.Buffer, index: Expr | int, size: int
    ) -> tuple[tirx.Buffer, Expr | int]:
        """Their address becomes a pointer of its own. Otherwise LLVM shares it with other
        addresses of the loop at a distance that ldp cannot reach, and loads one vector at a time.
        """
        address = T.address_of(buffer[index])
        # Means nothing for such a pointer, but LLVM does not look through it.
        opaque = T.call_llvm_pure_intrin("handle", "llvm.launder.invariant.group", address)
        return T.decl_buffer((size,), buffer.dtype, data=T.bind(opaque)), 0

    def load_row(self, simd: Simd, buffer: tirx.Buffer, index: Expr, vectors: int) -> list[Expr]:
        """From a window. TVM tells LLVM that a load from it reads nothing of `buffer`, which may
        just have been written; of an intrinsic it does not say so.
        """
        row, _ = self.window(buffer, index, vectors * simd.lanes)
        every_lane, kind = T.broadcast(T.bool(True), simd.lanes), simd.type()
        places = [T.address_of(row[v * simd.lanes]) for v in range(vectors)]
        return [
            T.bind(T.call_llvm_intrin(kind, "llvm.masked.load", place, every_lane, simd.splat(0.0)))
            for place in places
        ]

    def to_bf16(self, x: Expr) -> Expr:
        return bfcvtn(x)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """fmaxnm, which LLVM takes only from the intrinsic."""
        return T.call_llvm_pure_intrin(str(a.ty), "llvm.maxnum", a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        return T.call_llvm_pure_intrin(str(a.ty), "llvm.minnum", a, b)

    def nearest(self, simd: Simd, x: Expr, low: Expr, high: Expr) -> Expr:
        """fcvtns, which saturates."""
        return T.call_llvm_pure_intrin(f"int32x{simd.lanes}", "llvm.aarch64.neon.fcvtns", x)

    def join(self, low: Expr, high: Expr, bits: int) -> Expr:
        name = "llvm.aarch64.neon.vsli"
        return T.call_llvm_pure_intrin("int32x4", name, low, high, T.int32(bits))

    def add_pairs(self, simd: Simd, total: Expr, vector: Expr) -> Expr:
        pairs = T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp", vector)
        # Unfenced, LLVM adds up the pairs of several steps first.
        return simd.fence(total + pairs)

    def sums_of_each(self, vectors: Sequence[Expr]) -> Expr:
        name = "llvm.aarch64.neon.addp"
        pairs = [T.call_llvm_pure_intrin("int32x4", name, *vectors[i : i + 2]) for i in (0, 2)]
        return T.call_llvm_pure_intrin("int32x4", name, *pairs)
