"""The inner kernel of every 8-bit matrix product: a few rows x one panel of columns in registers.

    acc[row, column] = initial[column] + sum over k of stored a[row, k] * w[k, column]

All sums are exact in int32: |a| <= 255 and |w| <= 127, so 2048 k stay below 2^27. Families of
instructions differ in how they step through the depth; what they share is here.

A panel, in bytes: int32 initial[columns], float32 multiplier[columns], float32 bias[columns],
then the weights in the order of the family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd

HEADER_BYTES = 12  # of one column
CACHE_LINE_BYTES = 64


@dataclass(frozen=True)
class Int8Tile(ABC):
    """`mr` rows times `vectors` registers of int32 columns.

    `depth`: padded with weights of zero as rows of `a` are. `unroll`: steps in one turn of the
    loop. `sharers`: how many tiles read the same panel one after another; each prefetches its
    share of the next panel. `gathered`: the rows are not neighbours in `a`.
    """

    simd: Simd
    mr: int
    vectors: int
    depth: int
    unroll: int
    sharers: int
    gathered: bool

    # What multiplies, for people.
    instruction: ClassVar[str]
    # k that one step takes; a divisor of CHANNEL_GRANULE.
    step_depth: ClassVar[int]
    # Rows, and registers of columns, that belong together: `mr` and `vectors` are multiples.
    row_granule: ClassVar[int] = 1
    # Registers of sums for one row and one register of columns.
    sums_per_vector: ClassVar[int] = 1
    vector_granule: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def pack(cls, weights: NDArray[np.integer]) -> NDArray[np.integer]:
        """The weights of a panel in their order, flat, from (padded depth, columns)."""

    @classmethod
    def extremes_of_16_bits(cls, weights: NDArray[np.int8]) -> tuple[int, int] | None:
        """The lowest and the highest sum of 16 bits that activations can make of `weights`
        (padded depth, columns); None for instructions that add in 32 bits."""
        return None

    @abstractmethod
    def start(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, at: Expr
    ) -> list[list[tirx.Buffer]]:
        """Accumulators; the columns' initial values are at byte `at`."""

    @abstractmethod
    def step(
        self,
        acc: list[list[tirx.Buffer]],
        a: tirx.Buffer,
        rows: list[Expr],
        k: Expr | int,
        w: tirx.Buffer,
        at: Expr,
    ) -> None:
        """One step of the depth: the rows of `a` that start at `rows`, from `k` on, times the
        weights at byte `at`."""

    @abstractmethod
    def finish(self, acc: list[list[tirx.Buffer]], w: tirx.Buffer, at: Expr) -> list[list[Expr]]:
        """The sums by row and register of columns; the initial values are at byte `at`."""

    @property
    def width(self) -> int:
        """Columns."""
        return self.vectors * self.simd.lanes

    @property
    def panel_bytes(self) -> int:
        return (HEADER_BYTES + self.depth) * self.width

    def multiply(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, w_at: Expr, share: Expr
    ) -> list[list[Expr]]:
        """Emit the product of `mr` rows of `a`, which start at `rows`, and the panel at byte
        `w_at`. Returns int32 registers by row and vector. `share`: which of the `sharers`."""
        acc = self.start(a, rows, w, w_at)
        weights = T.bind(w_at + HEADER_BYTES * self.width)
        steps = self.depth // self.step_depth
        step_bytes = self.step_depth * self.width
        turns = steps // self.unroll
        if turns:
            with T.serial(turns) as turn:
                self._prefetch(w, w_at, share * turns + turn, self.sharers * turns)
                for step in range(self.unroll):
                    index = turn * self.unroll + step
                    at = weights + index * step_bytes
                    self.step(acc, a, rows, index * self.step_depth, w, at)
        for step in range(turns * self.unroll, steps):
            self.step(acc, a, rows, step * self.step_depth, w, weights + step * step_bytes)
        return self.finish(acc, w, w_at)

    def _prefetch(self, w: tirx.Buffer, w_at: Expr, turn: Expr, turns: int) -> None:
        """The part of the next panel that falls to this one of all `turns` over this panel."""
        stride = -(-self.panel_bytes // turns)
        for at in range(0, stride, CACHE_LINE_BYTES):
            self.simd.prefetch(w, w_at + self.panel_bytes + turn * stride + at)


def load_int32(simd: Simd, buffer: tirx.Buffer, at: Expr) -> Expr:
    """A register of int32 from byte `at` of an int8 buffer."""
    return T.reinterpret(f"int32x{simd.lanes}", buffer.vload([at], f"int8x{4 * simd.lanes}"))


def load_float(simd: Simd, buffer: tirx.Buffer, at: Expr) -> Expr:
    """A register of float32 from byte `at` of an int8 buffer."""
    return T.reinterpret(simd.type(), buffer.vload([at], f"int8x{4 * simd.lanes}"))


def int32_register(simd: Simd) -> tirx.Buffer:
    """A variable of one int32 register."""
    return T.alloc_buffer((simd.lanes,), "int32", scope="local")


def read(register: tirx.Buffer) -> Expr:
    lanes = int(register.shape[0])
    return register.vload([0], f"int32x{lanes}")


def write(register: tirx.Buffer, value: Expr) -> None:
    T.buffer_store(register, value, [T.ramp(0, 1, int(register.shape[0]))])
