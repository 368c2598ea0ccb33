"""8-bit products by smull, smlal2 and sadalp: NEON without a dot product (ARMv8.0, ARMv7).

Along k: eight products, eight more added in the same 16-bit lanes, then neighbours added to four
32-bit sums. Two products fit 16 bits because weights are at least -127: 2 * 128 * 127 = 32512;
nothing saturates or wraps. Each output has a register of four sums, added up at the end.
a: S8. A panel's weights are [depth / 16][columns][16].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import Bytes, Int8Tile
from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import half
from levit_deploy.compiler.kernels.isa.neon import neon_of
from levit_deploy.compiler.kernels.product import Accumulators, accumulators

_BYTES = 16  # of a register


class MlalTile(Int8Tile):
    """Accumulators by row and column."""

    instruction = "smlal"
    storage = ActivationStorage.S8
    step_depth = _BYTES
    column_step = _BYTES
    sums_per_vector = 4
    apart = _BYTES // 2  # a lane of 16 bits adds the products of k and of that many k on

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        if isa.registers == 32:
            # 16 times four sums, 4 times 16 k, twice where LLVM loads two steps together, 2
            # weights, products.
            return 4, 1, 4
        return 2, 1, 1  # 8 times four sums, 2 times 16 k, 2 weights, products: 15 of 16

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int]:
        products = weights.astype(np.int32).reshape(-1, 2, cls.apart, weights.shape[1])
        ends = np.stack([-128 * products, 127 * products])
        return int(ends.min(0).sum(1).min()), int(ends.max(0).sum(1).max())

    def start(self, at: Expr) -> Accumulators:
        acc = accumulators(self.simd, self.mr, self.vectors * self.sums_per_vector, "int32")
        for row in acc:
            for register in row:
                self.simd.store(register, 0, T.broadcast(T.int32(0), self.simd.lanes))
        return acc

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        neon = neon_of(self.simd)
        loaded = [T.bind(row.load(k)) for row in rows]
        for group in self.simd.load_groups(self.width):
            weights = w.vectors([column * _BYTES for column in group])
            for registers, row in zip(acc, loaded, strict=True):
                for column, weight in zip(group, weights, strict=True):
                    low, high = (
                        neon.long_product("int16x8", half(row, which), half(weight, which))
                        for which in (0, 1)
                    )
                    total = self.simd.load(registers[column], 0)
                    total = neon.add_pairs(self.simd, total, low + high)
                    self.simd.store(registers[column], 0, total)

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
