"""8-bit products by instructions that add up neighbouring k within a 32-bit lane.

    sdot (ARMv8.2 dotprod)                       signed by signed, four k
    vpdpbusd (AVX-VNNI, AVX-512 VNNI)            unsigned by signed, four k
    pmaddubsw, pmaddwd by ones, paddd            signed by signed, four k: see `MaddubsTile`

All of them are exact for any weights and activations; none saturates (vpdpbusds would).
A panel's weights are [depth / 4][columns][4].
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import Bytes, Int8Tile
from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.kernels.isa.integer_instructions import (
    pmaddubsw,
    pmaddwd,
    sdot,
    vpdpbusd,
)
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.product import Accumulators, accumulators

GROUP = 4  # k in one lane
WEIGHTS_TOGETHER = 2  # registers of weights that all rows use before the next are loaded


class _DotTile(Int8Tile):
    """Accumulators by row and register of columns."""

    column_step = GROUP

    def start(self, at: Expr) -> Accumulators:
        acc = accumulators(self.simd, self.mr, self.vectors, "int32")
        for v in range(self.vectors):
            initial = self.initial(at, v)
            for row in acc:
                self.simd.store(row[v], 0, initial)
        return acc

    def finish(self, acc: Accumulators, at: Expr) -> list[list[Expr]]:
        return [[self.simd.load(register, 0) for register in row] for row in acc]


class _BroadcastTile(_DotTile):
    """x86. a: U8, four k of which are broadcast to all lanes."""

    storage = ActivationStorage.U8
    step_depth = GROUP

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        size = GROUP * self.simd.lanes
        wide = self.vectors > WEIGHTS_TOGETHER
        splats = [self.splat(row, k) for row in rows] if wide else []
        for first in range(0, self.vectors, WEIGHTS_TOGETHER):
            group = range(first, min(first + WEIGHTS_TOGETHER, self.vectors))
            weights = w.vectors([self.place(v * self.simd.lanes, GROUP) for v in group], size)
            for i, registers in enumerate(acc):
                activations = splats[i] if wide else self.splat(rows[i], k)
                for v, weight in zip(group, weights, strict=True):
                    total = self.dot(self.simd.load(registers[v], 0), activations, weight)
                    self.simd.store(registers[v], 0, total)

    def splat(self, row: Bytes, k: Expr | int) -> Expr:
        """Four k, from `k` on, in every lane."""
        four = T.reinterpret("int32", row.load(k, GROUP))
        splat = T.bind(T.broadcast(four, self.simd.lanes))
        return T.bind(T.reinterpret(f"uint8x{GROUP * self.simd.lanes}", splat))

    @abstractmethod
    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        """`total` plus the products of the four k of each lane."""


class VpdpbusdTile(_BroadcastTile):
    instruction = "vpdpbusd"

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        if isa.registers == 32:
            return 8, 2, 2
        return 6, 2, 2  # 12 sums, 2 weights, a: 15 of 16

    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        return vpdpbusd(total, a, w)


class MaddubsTile(_BroadcastTile):
    """x86 without a dot product. a: U8.

    pmaddubsw saturates the sum of two products of an unsigned and a signed byte at 16 bits. So the
    weights of neighbouring k, the pairs that it adds up, have sums from -PAIR_LIMIT to PAIR_LIMIT:
    255 * 128 = 32640 fits.
    """

    instruction = "pmaddubsw"

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        if isa.registers == 32:
            return 8, 2, 2
        # 10 sums, 2 weights, a, ones, a product: 15 of 16. SSE, which has no FMA either, has
        # instructions of two operands: one register more for a copy.
        return (5, 2, 2) if isa.fma else (4, 2, 1)

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int]:
        """A lane adds k and k + 1."""
        pairs = weights.astype(np.int32).reshape(-1, 2, weights.shape[1])
        lowest = 255 * np.minimum(pairs, 0).sum(axis=1).min()
        return int(lowest), int(255 * np.maximum(pairs, 0).sum(axis=1).max())

    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        return self.widened(total, pmaddubsw(a, w))

    def widened(self, total: Expr, narrow: Expr) -> Expr:
        """`total` plus both sums of 16 bits of each lane."""
        ones = T.broadcast(T.int16(1), 2 * self.simd.lanes)
        # Unfenced, LLVM adds up the sums of several steps first, and spills.
        return self.simd.fence(total + pmaddwd(narrow, ones))


class SdotTile(_DotTile):
    """a: S8. A step is one load of each row: 16 k, four by four."""

    instruction = "sdot"
    storage = ActivationStorage.S8
    step_depth = 16

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        return 5, 4, 2  # 20 sums, 5 times 16 k, 2 weights

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        simd = self.simd
        loaded = [T.bind(T.reinterpret("int32x4", row.load(k))) for row in rows]
        for lane in range(4):
            for group in simd.load_groups(self.vectors):
                quad = w.after(lane * GROUP * self.panel_width)
                weights = quad.vectors([self.place(v * simd.lanes, GROUP) for v in group])
                for registers, quads in zip(acc, loaded, strict=True):
                    four = T.reinterpret("int8x16", simd.lane(quads, lane))
                    for v, weight in zip(group, weights, strict=True):
                        simd.store(registers[v], 0, sdot(simd.load(registers[v], 0), weight, four))
