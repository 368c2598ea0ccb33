"""The inner kernel of every 8-bit matrix product: a few rows x one panel of columns in registers.

    acc[row, column] = initial[column] + sum over k of stored a[row, k] * w[k, column]

All sums are exact in int32: |a| <= 255 and |w| <= 127, so 2048 k stay below 2^27. Families of
instructions differ in how they step through the depth; what they share is here.

A panel, in bytes: int32 initial[columns], float32 multiplier[columns], float32 bias[columns],
then the weights in the order of the family, then what it must know of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES, Simd
from levit_deploy.compiler.kernels.product import Accumulators
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS

HEADER_BYTES = 12  # of one column


class Bytes(NamedTuple):
    """Those of `buffer` from `start` on: a row of activations, or weights."""

    buffer: tirx.Buffer
    start: Expr | int

    def after(self, count: Expr | int) -> Bytes:
        return Bytes(self.buffer, self.start + count)

    def load(self, offset: Expr | int, count: int = 16) -> Expr:
        """`count` of them from `offset` on."""
        return self.buffer.vload([self.start + offset], f"{self.buffer.dtype}x{count}")

    def vectors(self, offsets: Iterable[Expr | int], count: int = 16) -> list[Expr]:
        """`count` of them from each of `offsets` on, loaded here."""
        return [T.bind(self.load(offset, count)) for offset in offsets]


# What `Int8Tile.step` is.
Step: TypeAlias = Callable[[Accumulators, list[Bytes], Expr | int, Bytes], None]


@dataclass(frozen=True)
class Int8Tile(ABC):
    """`mr` rows of `a` times `vectors` registers of int32 columns of the panels `w`.

    `panel_width`: columns of a panel; a multiple or a divisor of the tile's. `column_bytes`: what
    it has for each.
    `depth`: padded with weights of zero as rows of `a` are. `unroll`: steps in one turn of the
    loop. `tiles_per_panel`: how many tiles read the same panel one after another; each prefetches
    its share of the next panel. `gathered`: the rows are not neighbours in `a`.
    """

    simd: Simd
    a: tirx.Buffer
    w: tirx.Buffer
    mr: int
    vectors: int
    panel_width: int
    column_bytes: int
    depth: int
    unroll: int
    tiles_per_panel: int
    gathered: bool

    # What multiplies, for people.
    instruction: ClassVar[str]
    # How the activations lie that it multiplies as they are.
    storage: ClassVar[ActivationStorage]
    # k that one step takes; if no divisor of CHANNEL_ALIGNMENT, `add_products` takes the rest.
    step_depth: ClassVar[int]
    # Neighbouring k of a column that lie together: so many bytes on are those of the next column.
    column_step: ClassVar[int]
    # Rows, and registers of columns, that belong together: `mr` and `vectors` are multiples.
    row_alignment: ClassVar[int] = 1
    vector_alignment: ClassVar[int] = 1
    # Registers of sums for one row and one register of columns.
    sums_per_vector: ClassVar[int] = 1
    # With fewer registers of sums, additions wait for each other.
    fewest_sums: ClassVar[int] = MIN_ACCUMULATORS
    # Weights are put into another order where they are loaded, once for every tile of rows.
    rearranges_weights: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        """(rows, registers of columns, steps in one turn of the loop) that fit without spills."""

    @classmethod
    def pack(cls, weights: NDArray[np.integer]) -> NDArray[np.integer]:
        """The weights of a panel in their order, [depth / column_step][columns][column_step] and
        then what k are left by column, flat, from (padded depth, columns)."""
        depth, columns = weights.shape
        whole = depth - depth % cls.column_step
        grouped = weights[:whole].reshape(-1, cls.column_step, columns).transpose(0, 2, 1)
        return np.concatenate([grouped.ravel(), weights[whole:].T.ravel()])

    @staticmethod
    def order_bytes(depth: int, columns: int) -> int:
        """What a panel of at least so many columns stores behind the weights of each."""
        return 0

    @classmethod
    def pack_order(cls, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        """What a panel stores behind its weights (padded depth, columns); filled up with zeros."""
        return np.empty(0, np.int8)

    @classmethod
    def depth_order(cls, order: NDArray[np.int8], depth: int) -> NDArray[np.intp]:
        """Which k the rows of a panel's weights are; `order`: what is stored behind them."""
        return np.arange(depth)

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int] | None:
        """The lowest and the highest sum of 16 bits that activations can make of a panel's
        `weights` (padded depth, columns), behind which it stores `order`; None for instructions
        that add in 32 bits."""
        return None

    @abstractmethod
    def start(self, at: Expr) -> Accumulators:
        """Accumulators; `at` as in `header`."""

    @abstractmethod
    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        """One step of the depth: `rows` from `k` on times their weights `w`."""

    @abstractmethod
    def finish(self, acc: Accumulators, at: Expr) -> list[list[Expr]]:
        """The sums by row and register of columns; `at` as in `header`."""

    @property
    def width(self) -> int:
        """Columns of the tile."""
        return self.vectors * self.simd.lanes

    @property
    def panel_bytes(self) -> int:
        return self.column_bytes * self.panel_width

    def place(self, column: int, size: int) -> int:
        """Where something of a column lies from that of the tile's first one on, if columns of a
        panel have `size` bytes of it."""
        panel, inside = divmod(column, self.panel_width)
        return panel * self.panel_bytes + inside * size

    def multiply(
        self, starts: list[Expr], panel: Expr, inside: Expr | int, share: Expr
    ) -> list[list[Expr]]:
        """Emit the product of `mr` rows, which begin at `starts`, and the panel at byte `panel`, of
        which `inside` columns come before the tile's.

        Returns int32 registers by row and vector. `share`: which of the panel's tiles this is.
        """
        header = panel + 4 * inside
        acc = self.start(header)
        self.add_products(acc, starts, panel, inside, share)
        return self.finish(acc, header)

    def add_products(
        self, acc: Accumulators, starts: list[Expr], panel: Expr, inside: Expr | int, share: Expr
    ) -> None:
        """Emit the additions of the whole depth."""
        self.take_steps(acc, starts, panel, inside, share, self.step)

    def take_steps(
        self,
        acc: Accumulators,
        starts: list[Expr],
        panel: Expr,
        inside: Expr | int,
        share: Expr,
        step: Step,
    ) -> None:
        """Emit the additions of all whole steps, each by `step`, in the order of the depth."""
        rows = [self.bytes(self.a, start) for start in starts]
        weights = self.bytes(self.w, T.bind(self.weights_at(panel, inside)))
        steps = self.depth // self.step_depth
        step_bytes = self.step_depth * self.panel_width
        turns = steps // self.unroll
        if turns:
            with T.serial(turns) as turn:
                self._prefetch(panel, inside, share * turns + turn, self.tiles_per_panel * turns)
                for i in range(self.unroll):
                    index = turn * self.unroll + i
                    step(acc, rows, index * self.step_depth, weights.after(index * step_bytes))
        for index in range(turns * self.unroll, steps):
            step(acc, rows, index * self.step_depth, weights.after(index * step_bytes))

    def weights_at(self, panel: Expr, inside: Expr | int) -> Expr:
        """Where those of the tile's first column are."""
        return panel + HEADER_BYTES * self.panel_width + self.column_step * inside

    def bytes(self, buffer: tirx.Buffer, start: Expr) -> Bytes:
        """A row of `a`, or weights, as the loop addresses them."""
        return Bytes(buffer, start)

    def _prefetch(self, panel: Expr, inside: Expr | int, turn: Expr, turns: int) -> None:
        """As many columns of the next panels as the tile has, of which a part falls to this one of
        all `turns` over these."""
        size = self.column_bytes
        next_columns = max(self.width, self.panel_width) * size + inside * size
        stride = -(-self.width * size // turns)
        for at in range(0, stride, CACHE_LINE_BYTES):
            self.simd.prefetch(self.w, panel + next_columns + turn * stride + at)

    def initial(self, at: Expr, vector: int) -> Expr:
        """What the sums of a register of columns start from; `at` as in `header`."""
        return T.bind(T.reinterpret(f"int32x{self.simd.lanes}", self.header(at, 0, vector)))

    def header(self, at: Expr, which: int, vector: int) -> Expr:
        """A register of initial sums, multipliers or biases, as floats; those of the tile's first
        column: at byte `at`."""
        simd = self.simd
        place = at + 4 * which * self.panel_width + self.place(vector * simd.lanes, 4)
        return T.bind(load_float(simd, self.w, place))


def load_float(simd: Simd, buffer: tirx.Buffer, at: Expr) -> Expr:
    """A register of float32 from byte `at` of an int8 buffer."""
    return T.reinterpret(simd.type(), buffer.vload([at], f"int8x{4 * simd.lanes}"))
