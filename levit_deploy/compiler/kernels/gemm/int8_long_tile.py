"""8-bit products by smull, smlal2 and sadalp: NEON without a dot product (ARMv8.0, ARMv7).

Along k: eight products, eight more added in the same 16-bit lanes, then neighbours added to four
32-bit sums. Two products fit 16 bits because weights are at least -127: 2 * 128 * 127 = 32512;
nothing saturates or wraps. Each output has a register of four sums, added up at the end.
a: S8. A panel's weights are [depth / 16][columns][16].
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
from levit_deploy.compiler.kernels.isa.integer_instructions import smull
from levit_deploy.compiler.kernels.isa.narrowing import concat, half
from levit_deploy.targets.target import Arch

_BYTES = 16  # of a register


class MlalTile(Int8Tile):
    """Accumulators by row and column."""

    instruction = "smlal"
    step_depth = _BYTES
    sums_per_vector = 4

    @classmethod
    def pack(cls, weights: NDArray[np.integer]) -> NDArray[np.integer]:
        depth, columns = weights.shape
        blocks = weights.reshape(depth // cls.step_depth, cls.step_depth, columns)
        return np.ascontiguousarray(blocks.transpose(0, 2, 1)).ravel()

    @classmethod
    def extremes_of_16_bits(cls, weights: NDArray[np.int8]) -> tuple[int, int]:
        """A lane adds k and k + 8 of 16."""
        lanes = weights.astype(np.int32).reshape(-1, 2, _BYTES // 2, weights.shape[1])
        ends = np.stack([-128 * lanes, 127 * lanes])
        return int(ends.min(0).sum(1).min()), int(ends.max(0).sum(1).max())

    def start(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, at: Expr
    ) -> list[list[tirx.Buffer]]:
        acc = [[int32_register(self.simd) for _ in range(self.width)] for _ in range(self.mr)]
        for row in acc:
            for register in row:
                write(register, T.broadcast(T.int32(0), self.simd.lanes))
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
        loaded = [T.bind(a.vload([row + k], "int8x16")) for row in rows]
        for first in range(0, self.width, self.simd.load_group):
            group = range(first, min(first + self.simd.load_group, self.width))
            weights = [T.bind(w.vload([at + column * _BYTES], "int8x16")) for column in group]
            for registers, row in zip(acc, loaded, strict=True):
                for column, weight in zip(group, weights, strict=True):
                    low = self._product(half(row, 0), half(weight, 0))
                    high = self._product(half(row, 1), half(weight, 1))
                    register = registers[column]
                    write(register, self._accumulate(read(register), low + high))

    def _product(self, a: Expr, b: Expr) -> Expr:
        return smull(self.simd.target, "int16x8", a, b)

    def _accumulate(self, total: Expr, words: Expr) -> Expr:
        """`total` plus neighbours of `words`: one instruction."""
        if self.simd.target.arch is Arch.ARMV7:
            return T.call_llvm_pure_intrin("int32x4", "llvm.arm.neon.vpadals", total, words)
        pairs = T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp", words)
        # Unfenced, LLVM adds up the pairs of several steps first.
        return self.simd.fence(total + pairs)

    def finish(self, acc: list[list[tirx.Buffer]], w: tirx.Buffer, at: Expr) -> list[list[Expr]]:
        initial = [T.bind(load_int32(self.simd, w, at + v * _BYTES)) for v in range(self.vectors)]
        return [
            [
                T.bind(self._sum_of_each([read(r) for r in row[4 * v : 4 * v + 4]]) + initial[v])
                for v in range(self.vectors)
            ]
            for row in acc
        ]

    def _sum_of_each(self, registers: list[Expr]) -> Expr:
        """Four registers -> the sums of their lanes, in one."""
        if self.simd.target.arch is Arch.ARMV7:
            halves = [half(register, 0) + half(register, 1) for register in registers]
            pairs = [
                T.call_llvm_pure_intrin("int32x2", "llvm.arm.neon.vpadd", *halves[i : i + 2])
                for i in (0, 2)
            ]
            return concat(*pairs)
        name = "llvm.aarch64.neon.addp"
        pairs = [T.call_llvm_pure_intrin("int32x4", name, *registers[i : i + 2]) for i in (0, 2)]
        return T.call_llvm_pure_intrin("int32x4", name, *pairs)
