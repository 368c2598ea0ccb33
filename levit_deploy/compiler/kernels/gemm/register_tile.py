"""The inner kernel of every matrix product: mr rows x a few vectors of columns in registers.

    bias, then acc = fma(a[row, k], w[k, column], acc) for k = 0, 1, ...

`w` is a packed panel: [1 + depth][columns], the bias first, in the order in which it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES, Simd
from levit_deploy.compiler.kernels.product import Accumulators, accumulators, add_products

_LINE_FLOATS = CACHE_LINE_BYTES // 4


@dataclass(frozen=True)
class ColdPanels:
    """Where a tile's weights lie in memory, and those of the next one behind them: in `buffer`,
    from `start` on, in panels of `size` values. `tiles`: how many register tiles read the same
    panel one after another; each asks for its share of the next."""

    buffer: tirx.Buffer
    start: Expr
    size: int
    tiles: int

    @property
    def in_line(self) -> int:
        """Values of a cache line."""
        return CACHE_LINE_BYTES // np.dtype(str(self.buffer.dtype)).itemsize


@dataclass(frozen=True)
class RegisterTile:
    """`mr` rows, `row_stride` floats apart in the input, times `vectors` registers of columns.

    `panel_width`: columns of a panel of weights; a multiple or a divisor of the tile's.
    `depth_unroll`: steps of the depth in one turn of the loop. `written`: the kernel has written
    the panel itself, so LLVM must know that this is the same memory.
    """

    simd: Simd
    mr: int
    vectors: int
    panel_width: int
    row_stride: int
    depth: int
    depth_unroll: int
    written: bool = False

    @property
    def width(self) -> int:
        """Columns."""
        return self.vectors * self.simd.lanes

    @property
    def streams(self) -> bool:
        """Whether the next panel is asked for in the first cache level, a line with each step.

        Spread, because requests of the first level wait in a few miss buffers. Panels of narrower
        registers stay in the first level themselves, where the next one would displace them; on
        ARM a spread address takes a register from the loop.
        """
        return self.simd.lanes == _LINE_FLOATS

    def multiply(
        self,
        a: tirx.Buffer,
        a_at: Expr | int,
        w: tirx.Buffer,
        w_at: Expr,
        cold: ColdPanels | None = None,
        share: Expr | int = 0,
    ) -> Accumulators:
        """Emit the product of the rows from `a[a_at]` and the panel at `w[w_at]`.

        `cold`: what to ask for more behind meanwhile; None where panels are read once, one right
        behind the other: a core sees such a stream coming by itself. `share`: which of the tiles of
        the panel this is.
        """
        simd, unroll = self.simd, self.depth_unroll
        acc = accumulators(simd, self.mr, self.vectors)
        for v in range(self.vectors):
            bias = T.bind(simd.load(w, w_at + self._place(v)))
            for i in range(self.mr):
                simd.store(acc[i][v], 0, bias)
        weights = T.bind(w_at + self.panel_width)
        if self.depth >= unroll:
            with T.serial(self.depth // unroll) as turn:
                at = weights + turn * (unroll * self.panel_width)
                if cold and not self.streams:
                    self._prefetch(cold, turn, share, 0, unroll)
                window, start = self._window(w, at)
                for k in range(0, unroll, simd.isa.splat_group):
                    count = min(simd.isa.splat_group, unroll - k)
                    if cold and self.streams:
                        self._prefetch(cold, turn, share, k, count)
                    step_at = start + k * self.panel_width
                    self._steps(acc, a, a_at + (turn * unroll + k), window, step_at, count)
        for k in range(self.depth - self.depth % unroll, self.depth):
            self._steps(acc, a, a_at + k, w, weights + k * self.panel_width, 1)
        return acc

    def _place(self, vector: int) -> int:
        """Where a register of columns lies from the first one on, in a row of the panels."""
        panel, column = divmod(vector * self.simd.lanes, self.panel_width)
        return panel * self._panel_size + column

    @property
    def _panel_size(self) -> int:
        return (1 + self.depth) * self.panel_width

    def _window(self, w: tirx.Buffer, at: Expr) -> tuple[tirx.Buffer, Expr | int]:
        """The weights of one turn, where they are one piece."""
        if self.written or self.width != self.panel_width:
            return w, at
        return self.simd.isa.window(w, at, self.depth_unroll * self.width)

    def _prefetch(self, cold: ColdPanels, turn: Expr, share: Expr, k: int, count: int) -> None:
        """Of this tile's share of the next panel, what belongs to `count` steps of a turn from `k`.

        Weights come cold from memory, and one panel ahead is as far as a core can look without
        losing the present one. The last panel's prefetches fall on what follows in memory: the
        constants of the next kernel.
        """
        unroll = self.depth_unroll
        panels = max(self.width // self.panel_width, 1)
        of_turn = unroll * self.panel_width  # weights, of each panel
        mine = -(-of_turn // (cold.in_line * cold.tiles))  # lines
        for line in range(-(-mine * k // unroll), -(-mine * (k + count) // unroll)):
            for panel in range(panels):
                place = cold.start + turn * of_turn + (panels + panel) * cold.size
                place += (share * mine + line) * cold.in_line
                self.simd.prefetch(cold.buffer, place, level=1 if self.streams else 2)

    def _steps(
        self,
        acc: Accumulators,
        a: tirx.Buffer,
        a_at: Expr | int,
        w: tirx.Buffer,
        w_at: Expr | int,
        count: int,
    ) -> None:
        """`count` steps of the depth."""
        rows = [a_at + i * self.row_stride for i in range(self.mr)]
        starts = [w_at + step * self.panel_width for step in range(count)]
        places = [[at + self._place(v) for v in range(self.vectors)] for at in starts]
        add_products(self.simd, acc, a, rows, w, places)


def branch_at_edge(
    simd: Simd, column: Expr, panels: Panels, rest: int, body: Callable[[int], None]
) -> None:
    """Emit `body(count)` for the `count` lanes of the vector at `column` that are columns.

    `rest`: what is left of them there in the last tile, which alone can reach over the edge.
    """
    if rest >= simd.lanes:
        body(simd.lanes)
        return
    with T.If(column + simd.lanes <= panels.columns):
        with T.Then():
            body(simd.lanes)
        if rest > 0:
            with T.Else():
                body(rest)
