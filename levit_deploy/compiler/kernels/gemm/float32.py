"""Matrix product of tokens and weights with its epilogue: every linear layer of LeViT.

    a[rows, depth], panels, (residual[rows, columns])  ->  out[rows, columns]

The output is cut into register tiles of mr rows x nr columns, which stay in registers over the
whole depth. The weights of one column panel are contiguous, in the order in which they are read.
A task is one register tile; tasks go down the rows of a panel first, so that the panel is read
from memory once and from the cache after that, and any split over threads is balanced.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation import activate, gate
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.register_tile import (
    ColdPanels,
    RegisterTile,
    branch_at_edge,
)
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import (
    Activation,
    Kernel,
    kernel_function,
    parameter,
    task_range,
)
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.compiler.kernels.product import Accumulators
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.targets.target import Target


def default_tile(spec: GemmSpec, target: Target, shared: bool = False) -> GemmTile:
    """The largest tile of the target, made wider where there are too few rows to fill it; one that
    reads `shared` panels.
    """
    mr, vectors, unroll = _largest_tile(isa_of(target), spec.group_rows)
    rows = Blocks.of(spec.group_rows, mr)
    wanted, possible = -(-MIN_ACCUMULATORS // rows.smallest), mr * vectors // rows.size
    vectors = max(vectors, min(wanted, possible))
    tile = GemmTile(rows.size, vectors * target.float_lanes, target.float_lanes, unroll)
    return tile.for_sharing() if shared else tile


def _largest_tile(isa: Isa, rows: int) -> tuple[int, int, int]:
    """(mr, vectors of columns, depth_unroll) that fit the registers: LLVM spills with more.

    docs/tile-choices.md has what was measured of these and others.
    """
    if not isa.fma:
        # By lane (vmla): 8 accumulators, 4 times four values of a, 2 weights. Else, where a product
        # needs a register before it is added: 8 accumulators, 2 weights, a splat, 2 products.
        return 4, 2, 4
    if isa.multiplies_by_lane:
        # 24 accumulators, 4 times four values of a, 2 weights: it suits 16 rows. Else 20
        # accumulators, 5 times eight values of a, 2 weights.
        return (4, 6, 8) if Blocks.of(rows, 5).size == 4 else (5, 4, 16)
    if isa.registers == 32:
        return 8, 2, 8  # 16 accumulators; wider panels come too late where rows are few
    return 6, 2, 8  # 12 accumulators, 2 weights, a splat: 15 of 16


def pack_weights(
    weights: NDArray[np.float32], bias: NDArray[np.float32], tile: GemmTile
) -> NDArray[np.float32]:
    """The constant of `gemm_kernel`, flat, from `weights` (depth, columns) and `bias` (columns,).

    Panel after panel, each [1 + depth][panel columns]: the bias, then the weights in order of
    depth. Columns are padded with zeros.
    """
    depth, columns = weights.shape
    panels = Panels(columns, 1 + depth, tile, 1)
    padded = np.zeros((1 + depth, panels.padded), np.float32)
    padded[0, :columns] = bias
    padded[1:, :columns] = weights
    return np.concatenate([padded[:, part].ravel() for part in panels.slices()])


def gemm_kernel(symbol: str, spec: GemmSpec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a, panels (of `pack_weights`), residual if any, out, begin, end.

    Every output is one chain: acc = bias; acc = fma(a[k], w[k], acc) for k = 0, 1, ...; then the
    activation; then + residual (in one rounding with the product that ends an activation). So it
    does not depend on tile or target.
    """
    return FloatGemm(symbol, spec, tile, target).kernel()


@dataclass(frozen=True)
class TilePlace:
    """`mr` rows, from `row` of the output and `a[a_at]` on, times `width` columns from `column` on.

    `number`: of the tile in its panel. `first`: whether no other tile of the range has read it.
    `new_rows`: the same of its rows.
    """

    a_at: Expr
    row: Expr
    mr: int
    column: Expr
    width: int
    number: Expr
    first: Expr
    new_rows: Expr


class FloatGemm:
    """The parts of one kernel while it is being written. Subclasses have weights, or both factors,
    in fewer bits."""

    input_type: ClassVar[str] = "float32"  # of a
    row_alignment: ClassVar[int] = 1  # rows that belong together in the tile's instructions

    def __init__(
        self,
        symbol: str,
        spec: GemmSpec,
        tile: GemmTile,
        target: Target,
        stored: Stored = Stored.FLOAT,
    ) -> None:
        self.symbol = symbol
        self.stored = stored
        self.spec = spec
        self.tile = tile
        self.simd = Simd(isa_of(target))
        self.panels = Panels(spec.columns, 1 + spec.depth, tile, 1)
        self.blocks = Blocks.of(
            -(-spec.group_rows // self.row_alignment), -(-tile.mr // self.row_alignment)
        )
        self.tiles_per_panel = spec.rows // spec.group_rows * self.blocks.count
        self.row_stride = spec.depth * (2 if spec.gather_side else 1)
        self.group_stride = spec.depth * 2 * spec.gather_side

    @property
    def weight_bytes(self) -> int:
        """Of the constants."""
        return 4 * (1 + self.spec.depth) * self.panels.padded

    @property
    def input_size(self) -> int:
        """Values of a."""
        return self.spec.input_rows * self.spec.depth

    # Type of the worker's scratch.
    scratch_type = "float32"

    @property
    def scratch_size(self) -> int:
        """Values of the worker's scratch."""
        return 0

    def declare_weights(self) -> None:
        self.w = parameter("panels", (1 + self.spec.depth) * self.panels.padded)

    def panel(self, column: Expr, width: int, first: Expr) -> tuple[tirx.Buffer, Expr]:
        """Where the panels of the tile of `width` columns from `column` on begin. `first`: whether
        no other tile of this range has read them."""
        panels = self.panels
        return self.w, T.bind(panels.start(column) + panels.inside(column))

    def cold_panels(self, column: Expr, width: int, w_at: Expr) -> ColdPanels:
        """The panels of the tile in memory. `width`: of each; `column`, `w_at`: as of `panel`."""
        size = (1 + self.spec.depth) * width
        return ColdPanels(self.w, w_at + width, size, self.tiles_per_panel)

    def kernel(self) -> Kernel:
        spec = self.spec
        row_bytes = np.dtype(self.input_type).itemsize * spec.depth
        row_bytes += (4 * spec.residual + self.stored.value_bytes) * spec.columns
        with kernel_function(self.symbol) as builder:
            self.a = parameter("a", self.input_size, self.input_type)
            self.declare_weights()
            if spec.residual:
                self.residual = parameter("residual", spec.rows * spec.columns)
            self.output = Output.declare(
                self.stored,
                spec.rows,
                spec.columns,
                self.simd,
                floats=spec.output_size if spec.layout is Layout.PANELS else None,
            )
            if self.scratch_size:
                self.scratch = parameter("scratch", self.scratch_size, self.scratch_type)
            begin, end = task_range()
            self.begin_range()
            with T.serial(begin, end) as task:
                self.task(task, begin)
        return Kernel(
            symbol=self.symbol,
            func=builder.get(),
            tasks=self.tiles_per_panel * self.panels.tiles.count,
            kind="gemm",
            shape=" ".join([*spec.words(), *spec.gather_words]),
            tile=str(self.tile),
            multiply_adds=spec.rows * spec.columns * spec.depth,
            bytes_moved=spec.rows * row_bytes + self.weight_bytes,
            scratch_bytes=np.dtype(self.scratch_type).itemsize * self.scratch_size,
        )

    def begin_range(self) -> None:
        """Emit what is done before the tasks."""

    def task(self, task: Expr, begin: Expr) -> None:
        panel = T.bind(task // self.tiles_per_panel)
        tile_row = T.bind(task % self.tiles_per_panel)
        first = T.Or(tile_row == 0, task == begin)
        new_rows = task - begin < self.tiles_per_panel
        group = T.bind(tile_row // self.blocks.count)
        block = T.bind(tile_row % self.blocks.count)

        panels = self.panels

        def register_tile(units: int, blocks: int) -> None:
            row = T.bind(self.blocks.start(block, blocks) * self.row_alignment)
            column = T.bind(panels.tiles.start(panel, units) * panels.unit)
            a_at = T.bind(group * self.group_stride + row * self.row_stride)
            out_row = T.bind(group * self.spec.group_rows + row)
            mr, width = blocks * self.row_alignment, units * panels.unit
            place = TilePlace(a_at, out_row, mr, column, width, tile_row, first, new_rows)
            self.register_tile(place)

        panels.tiles.branch(
            panel,
            lambda units: self.blocks.branch(block, lambda blocks: register_tile(units, blocks)),
        )

    def register_tile(self, place: TilePlace) -> None:
        tile = RegisterTile(
            simd=self.simd,
            mr=place.mr,
            vectors=place.width // self.simd.lanes,
            panel_width=self.panels.width(place.width),
            row_stride=self.row_stride,
            depth=self.spec.depth,
            depth_unroll=self.tile.depth_unroll,
            written=self.scratch_size > 0,
        )
        w, w_at = self.panel(place.column, place.width, place.first)
        cold = self.cold_panels(place.column, tile.panel_width, w_at)
        acc = tile.multiply(self.a, place.a_at, w, w_at, cold, place.number)
        self.store(acc, place.row, place.column)

    def store(self, acc: Accumulators, row: Expr, first: Expr) -> None:
        """The epilogue: accumulators -> activation -> + residual -> out."""
        simd, spec = self.simd, self.spec
        vectors = len(acc[0])
        for v in range(vectors):
            column = T.bind(first + v * simd.lanes)
            for i in range(len(acc)):
                z = T.bind(simd.load(acc[i][v], 0))
                if spec.layout is Layout.PANELS:
                    at = (column // PANEL_COLUMNS * spec.rows + row + i) * PANEL_COLUMNS
                    self.store_vector(z, at + column % PANEL_COLUMNS, simd.lanes)
                else:
                    at = T.bind((row + i) * spec.columns + column)
                    body = partial(self.store_vector, z, at)
                    rest = self.panels.left(v * simd.lanes, vectors * simd.lanes)
                    branch_at_edge(simd, column, self.panels, rest, body)

    def store_in_row(self, z: Expr, row: Expr, column: Expr, v: int, width: int) -> None:
        """The same of one register of a row: vector `v` of a tile of so many columns."""
        simd, spec = self.simd, self.spec

        def store(count: int) -> None:
            x = self.finished(z, row * spec.columns + column, count)
            self.output.store(simd, row, column, [x], last=count)

        if spec.layout is Layout.PANELS:
            panel = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            self.store_vector(z, panel + column % PANEL_COLUMNS, simd.lanes)
        else:
            rest = self.panels.left(v * simd.lanes, width)
            branch_at_edge(simd, column, self.panels, rest, store)

    def store_vector(self, z: Expr, at: Expr, count: int) -> None:
        self.output.store_at(self.simd, at, self.finished(z, at, count), count)

    def finished(self, z: Expr, at: Expr, count: int) -> Expr:
        """The activation of a register, + `count` values of the residual from `at` on, if any."""
        simd, activation = self.simd, self.spec.activation
        if not self.spec.residual:
            return activate(simd, activation, z)
        residual = simd.load_first(self.residual, at, count)
        if activation is Activation.NONE:
            return z + residual
        return simd.fma(z, gate(simd, activation, z), residual)
