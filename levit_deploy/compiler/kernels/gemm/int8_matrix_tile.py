"""8-bit products by smmla (i8mm): two rows times two columns, eight k at a time.

A register holds [row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1], so that one
instruction does 32 multiply-adds, exactly, in 32 bits. a: S8_PAIRS, of which one load is the
operand. A panel's weights are [depth / 8][columns / 2][2][8]. Source: Arm ARM, SMMLA (vector).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import (
    Int8Tile,
    int32_register,
    load_int32,
    read,
    write,
)
from levit_deploy.compiler.kernels.isa.activation_storage import PAIR_CHANNELS
from levit_deploy.compiler.kernels.isa.integer_instructions import smmla
from levit_deploy.compiler.kernels.isa.narrowing import concat, shuffle

_BYTES = 16  # of a register


class SmmlaTile(Int8Tile):
    """Accumulators by pair of rows and pair of columns."""

    instruction = "smmla"
    step_depth = 2 * PAIR_CHANNELS
    row_granule = 2
    vector_granule = 2  # so that the eight channels of S8_PAIRS are in one panel

    @classmethod
    def pack(cls, weights: NDArray[np.integer]) -> NDArray[np.integer]:
        depth, columns = weights.shape
        pairs = weights.reshape(depth // PAIR_CHANNELS, PAIR_CHANNELS, columns // 2, 2)
        return np.ascontiguousarray(pairs.transpose(0, 2, 3, 1)).ravel()

    def start(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, at: Expr
    ) -> list[list[tirx.Buffer]]:
        pairs = range(2 * self.vectors)
        acc = [[int32_register(self.simd) for _ in pairs] for _ in range(self.mr // 2)]
        for v in range(self.vectors):
            initial = T.bind(load_int32(self.simd, w, at + v * _BYTES))
            for pair in (0, 1):
                doubled = T.bind(shuffle([initial], [2 * pair, 2 * pair + 1] * 2))
                for row in acc:
                    write(row[2 * v + pair], doubled)
        return acc

    def step(
        self,
        acc: list[list[tirx.Buffer]],
        a: tirx.Buffer,
        rows: list[Expr],
        k: Expr | int,
        w: tirx.Buffer,
        at: Expr,
    ) -> None:
        columns = 2 * self.vectors
        for eight in (0, 1):
            loaded = [self._rows(a, rows[i : i + 2], k, eight) for i in range(0, self.mr, 2)]
            for first in range(0, columns, self.simd.load_group):
                group = range(first, min(first + self.simd.load_group, columns))
                weights = [
                    T.bind(w.vload([at + (eight * columns + j) * _BYTES], "int8x16")) for j in group
                ]
                for registers, pair in zip(acc, loaded, strict=True):
                    for j, weight in zip(group, weights, strict=True):
                        write(registers[j], smmla(read(registers[j]), pair, weight))

    def _rows(self, a: tirx.Buffer, rows: list[Expr], k: Expr | int, eight: int) -> Expr:
        """Eight k of two rows. Gathered rows are first ones of their pairs."""
        first, second = (row + 2 * k + eight * _BYTES for row in rows)
        if not self.gathered:
            return T.bind(a.vload([first], "int8x16"))
        return T.bind(concat(a.vload([first], "int8x8"), a.vload([second], "int8x8")))

    def finish(self, acc: list[list[tirx.Buffer]], w: tirx.Buffer, at: Expr) -> list[list[Expr]]:
        sums = []
        for pair in acc:
            registers = [read(register) for register in pair]
            for lanes in ([0, 1, 4, 5], [2, 3, 6, 7]):
                sums.append(
                    [
                        T.bind(shuffle(registers[j : j + 2], lanes))
                        for j in range(0, len(registers), 2)
                    ]
                )
        return sums
