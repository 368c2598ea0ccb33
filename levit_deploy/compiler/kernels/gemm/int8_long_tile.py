"""8-bit products by smull, smlal, smlal2 and sadalp: NEON without a dot product (ARMv8.0, ARMv7).

Along k: eight products, eight more added in the same 16-bit lanes, then neighbours added to four
32-bit sums. Two products fit 16 bits because weights are at least -127: 2 * 128 * 127 = 32512. Four
do if the magnitudes of their weights have a sum of at most 255; a panel says behind its weights
whether all of them do. Then 32 k take five instructions instead of six. Nothing saturates or wraps.
Each output has a register of four sums, added up at the end.
a: S8. A panel's weights are [depth / 32][columns][32], then [columns][16] if 16 k are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES, Bytes, Int8Tile
from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import half
from levit_deploy.compiler.kernels.isa.neon import neon_of
from levit_deploy.compiler.kernels.product import Accumulators, accumulators

_BYTES = 16  # of a register
_INT16 = np.iinfo(np.int16)


class LongTile(Int8Tile):
    """Long products, added in 16 bits and then by pairs of lanes to registers of four sums."""

    instruction = "smlal"
    storage = ActivationStorage.S8
    apart: ClassVar[int]  # a lane of 16 bits adds the products of k and of that many k on

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int]:
        return cls.extremes(weights, 2)

    @classmethod
    def extremes(cls, weights: NDArray[np.int8], count: int) -> tuple[int, int]:
        """Of the sums of `count` products in a lane; weights (padded depth, columns)."""
        padding = -len(weights) % (count * cls.apart)
        padded = np.pad(weights.astype(np.int32), ((0, padding), (0, 0)))
        products = padded.reshape(-1, count, cls.apart, weights.shape[1])
        ends = np.stack([-128 * products, 127 * products])
        return int(ends.min(0).sum(1).min()), int(ends.max(0).sum(1).max())

    def start(self, at: Expr) -> Accumulators:
        acc = accumulators(self.simd, self.mr, self.vectors * self.sums_per_vector, "int32")
        for row in acc:
            for register in row:
                self.simd.store(register, 0, T.broadcast(T.int32(0), self.simd.lanes))
        return acc


class MlalTile(LongTile):
    """Accumulators by row and column. A step is two registers of each row."""

    step_depth = 2 * _BYTES
    column_step = 2 * _BYTES
    sums_per_vector = 4
    apart = _BYTES // 2

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        if isa.registers == 32:
            return 4, 1, 2  # 16 times four sums, 4 times 32 k, 2 weights, 4 products: 30 of 32
        return 2, 1, 1  # 8 times four sums, 2 times 32 k, 2 weights, 2 products: 16 of 16

    @staticmethod
    def order_bytes(depth: int, columns: int) -> int:
        return 4  # one would do; with four, panels of four columns are whole cache lines

    @classmethod
    def pack_order(cls, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        """1 if all sums of four products fit, else 0."""
        lowest, highest = cls.extremes(weights, 4)
        return np.array([_INT16.min <= lowest and highest <= _INT16.max], np.int8)

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int]:
        return cls.extremes(weights, 4 if order[0] else 2)

    def add_products(
        self, acc: Accumulators, starts: list[Expr], panel: Expr, inside: Expr | int, share: Expr
    ) -> None:
        four_fit = self.w[panel + (HEADER_BYTES + self.depth) * self.panel_width]
        with T.If(four_fit != T.int8(0)):
            with T.Then():
                self.take_steps(acc, starts, panel, inside, share, self.step)
            # Twice over the depth: both parts in one turn would be a loop as large as that one.
            with T.Else(), T.serial(2) as part:
                half_step = partial(self.half_step, part)
                self.take_steps(acc, starts, panel, inside, share, half_step)
        if rest := self.depth % self.step_depth:
            k = self.depth - rest
            rows = [self.bytes(self.a, start) for start in starts]
            w = self.bytes(self.w, self.weights_at(panel, inside) + k * self.panel_width)
            self.add(acc, rows, k, w, [0], rest)

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        """Four products of a lane fit 16 bits."""
        self.add(acc, rows, k, w, [0, 1], self.column_step)

    def half_step(
        self, part: Expr, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes
    ) -> None:
        """Two do: one register of each row, 0 or 1."""
        self.add(acc, rows, k, w, [part], self.column_step)

    def add(
        self,
        acc: Accumulators,
        rows: list[Bytes],
        k: Expr | int,
        w: Bytes,
        parts: Sequence[Expr | int],
        size: int,
    ) -> None:
        """The products of some registers of each row, added in 16 bits; `size`: bytes of weights
        that a column has in one step."""
        simd, neon = self.simd, neon_of(self.simd)
        loaded = [row.vectors(k + _BYTES * part for part in parts) for row in rows]
        for column in range(self.width):
            weights = w.vectors(column * size + _BYTES * part for part in parts)
            sums: list[Expr] = []
            # Row by row the additions to one register would wait for each other.
            for i, which in itertools.product(range(len(parts)), (0, 1)):
                factor = half(weights[i], which)
                products = [
                    neon.long_product("int16x8", half(row[i], which), factor) for row in loaded
                ]
                if sums:
                    products = [T.bind(a + b) for a, b in zip(sums, products, strict=True)]
                sums = products
            for registers, narrow in zip(acc, sums, strict=True):
                total = simd.load(registers[column], 0)
                simd.store(registers[column], 0, neon.add_pairs(simd, total, narrow))

    def finish(self, acc: Accumulators, at: Expr) -> list[list[Expr]]:
        neon = neon_of(self.simd)
        initial = [self.initial(at, v) for v in range(self.vectors)]
        lanes = [[self.simd.load(register, 0) for register in row] for row in acc]
        return [
            [
                T.bind(neon.sums_of_each(row[4 * v : 4 * v + 4]) + initial[v])
                for v in range(self.vectors)
            ]
            for row in lanes
        ]
