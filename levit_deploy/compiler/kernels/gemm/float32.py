"""Matrix product of tokens and weights with its epilogue: every linear layer of LeViT.

    a[rows, depth], panels, (residual[rows, columns])  ->  out[rows, columns]

The output is cut into register tiles of mr rows x nr columns, which stay in registers over the
whole depth. The weights of one column panel are contiguous, in the order in which they are read.
A task is one register tile; tasks go down the rows of a panel first, so that the panel is read
from memory once and from the cache after that, and any split over threads is balanced.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.register_tile import (
    Accumulators,
    RegisterTile,
    branch_at_edge,
)
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.targets.target import Arch, Target

PANEL_COLUMNS = 16  # of Layout.PANELS


class Layout(StrEnum):
    """How (rows, columns) values lie in memory.

    ROWS: row-major. PANELS: 16 columns at a time, [ceil(columns/16)][rows][16]: what attention
    reads, so that one head's keys or values are contiguous.
    """

    ROWS = "rows"
    PANELS = "panels"


class GatheredRows:
    """Which rows of `a` a product takes: all, or every second of a grid; see GemmSpec."""

    rows: int
    gather_side: int

    @property
    def input_rows(self) -> int:
        return self.gather_side**2 if self.gather_side else self.rows

    @property
    def group_rows(self) -> int:
        """Rows that lie at one distance from each other: all, or those of one row of the grid."""
        return (self.gather_side + 1) // 2 if self.gather_side else self.rows


@dataclass(frozen=True)
class GemmSpec(GatheredRows):
    """out[rows, columns] = activation(a[rows, depth] @ w[depth, columns] + bias) (+ residual).

    `gather_side`: 0, or the side of the square grid of tokens that `a` holds, of which every
    second one in both directions is taken (the shrinking attention's queries):
    rows == ceil(side / 2) ** 2, and `a` has side * side rows.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout
    gather_side: int = 0

    @property
    def output_size(self) -> int:
        """float32 values in the output buffer; in PANELS columns are padded to 16."""
        if self.layout is Layout.ROWS:
            return self.rows * self.columns
        return -(-self.columns // PANEL_COLUMNS) * PANEL_COLUMNS * self.rows


@dataclass(frozen=True)
class GemmTile:
    """The register tile: at most `mr` rows x `nr` columns, in vectors of `lanes` values.

    `nr` is a multiple of `lanes`; `lanes` is the target's. `depth_unroll`: steps of the depth in
    one turn of the loop.
    """

    mr: int
    nr: int
    lanes: int
    depth_unroll: int

    def __str__(self) -> str:
        return f"{self.mr}x{self.nr}"

    def panels(self, columns: int) -> Blocks:
        """The column panels, in vectors."""
        return Blocks.of(-(-columns // self.lanes), self.nr // self.lanes)


# A multiply-add takes about four cycles and two start in each (Zen, Cortex-A76; Skylake Server
# with 512 bits): fewer independent accumulators leave the units idle.
MIN_ACCUMULATORS = 8


def default_tile(spec: GemmSpec, target: Target) -> GemmTile:
    """The largest tile of the target, made wider where there are too few rows to fill it."""
    mr, vectors, unroll = _largest_tile(target, spec.group_rows)
    rows = Blocks.of(spec.group_rows, mr)
    wanted, possible = -(-MIN_ACCUMULATORS // rows.smallest), mr * vectors // rows.size
    vectors = max(vectors, min(wanted, possible))
    return GemmTile(rows.size, vectors * target.float_lanes, target.float_lanes, unroll)


def _largest_tile(target: Target, rows: int) -> tuple[int, int, int]:
    """(mr, vectors of columns, depth_unroll) that fit the registers: LLVM spills with more."""
    x86 = target.arch is Arch.X86_64
    if not target.fma:
        # A product needs a register before it is added. x86: 8 accumulators, 2 weights, a splat,
        # 2 products. ARM: 6 accumulators, 3 times four values of a, 2 weights, 2 products.
        return (4, 2, 4) if x86 else (3, 2, 4)
    if not x86:
        # fmla is 84 % of the loop's instructions with 5x16 (20 accumulators, 5 times eight values
        # of a, 2 weights: 32 of 32), 83 % with 4x24 (24 + 4 times four values + 2), which suits 16
        # rows. Others: 7x12 84 %, with more outside the loop; 6x16 83 %; 8x8 82 %.
        return (4, 6, 8) if Blocks.of(rows, 5).size == 4 else (5, 4, 16)
    if target.vector_registers == 32:
        # 16 accumulators. Share of peak on Zen 4 with 196 / 49 / 16 rows, by
        # `python -m benchmarks.kernels gemm --tiles 8x32x8,14x32x8,6x64x8`: 0.97 / 0.97 / 0.94.
        # 14x32 (28 accumulators): the same at 49 rows and more, 0.91 at 16; 6x64: 0.68 at 16 rows,
        # where half as many and twice as wide panels come too late.
        return 8, 2, 8
    # 12 accumulators, 2 weights, a splat: 15 of 16. Likewise, with `--target x86-64-v3`: 0.99 /
    # 0.94 / 0.81. 4x24 (16 of 16): 0.96 / 0.87 / 0.79; 5x16: 0.93 / 0.93 / 0.80; 4x16: 0.89 / 0.87
    # / 0.76.
    return 6, 2, 8


def pack_weights(
    weights: NDArray[np.float32], bias: NDArray[np.float32], tile: GemmTile
) -> NDArray[np.float32]:
    """The constant of `gemm_kernel`, flat, from `weights` (depth, columns) and `bias` (columns,).

    Panel after panel, each [1 + depth][panel columns]: the bias, then the weights in order of
    depth. Columns are padded with zeros to a multiple of `tile.lanes`.
    """
    depth, columns = weights.shape
    panels = tile.panels(columns)
    padded = np.zeros((1 + depth, -(-columns // tile.lanes) * tile.lanes), np.float32)
    padded[0, :columns] = bias
    padded[1:, :columns] = weights
    widths = [panels.size] * panels.large + [panels.size - 1] * (panels.count - panels.large)
    ends = np.cumsum(widths)[:-1] * tile.lanes
    return np.concatenate([part.ravel() for part in np.split(padded, ends, axis=1)])


def gemm_kernel(symbol: str, spec: GemmSpec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a, panels (of `pack_weights`), residual if any, out, begin, end.

    Every output is one chain: acc = bias; acc = fma(a[k], w[k], acc) for k = 0, 1, ...; then the
    activation; then + residual (in one rounding with the product that ends a hardswish). So it does
    not depend on tile or target.
    """
    return _Generator(symbol, spec, tile, target).kernel()


class _Generator:
    """The parts of one kernel while it is being written."""

    def __init__(self, symbol: str, spec: GemmSpec, tile: GemmTile, target: Target) -> None:
        self.symbol = symbol
        self.spec = spec
        self.tile = tile
        self.simd = Simd(target)
        self.panels = tile.panels(spec.columns)
        self.groups = spec.rows // spec.group_rows
        self.blocks = Blocks.of(spec.group_rows, tile.mr)
        self.row_stride = spec.depth * (2 if spec.gather_side else 1)
        self.group_stride = spec.depth * 2 * spec.gather_side

    def kernel(self) -> Kernel:
        spec = self.spec
        weights = (spec.depth + 1) * self.padded_columns
        moved = spec.rows * (spec.depth + spec.columns * (2 if spec.residual else 1)) + weights
        epilogue = [spec.activation.value] + ["residual"] * spec.residual
        gather = [f"every second of {spec.gather_side}x{spec.gather_side}"] * bool(spec.gather_side)
        shape = f"{spec.rows}x{spec.columns}x{spec.depth}"
        return Kernel(
            symbol=self.symbol,
            func=self.func(),
            tasks=self.tiles_per_panel * self.panels.count,
            scratch_bytes=0,
            unaligned=(),
            kind="gemm",
            shape=" ".join([shape, *epilogue, spec.layout.value, *gather]),
            tile=str(self.tile),
            multiply_adds=spec.rows * spec.columns * spec.depth,
            bytes_moved=4 * moved,
        )

    @property
    def padded_columns(self) -> int:
        return -(-self.spec.columns // self.tile.lanes) * self.tile.lanes

    @property
    def tiles_per_panel(self) -> int:
        return self.groups * self.blocks.count

    def func(self) -> tirx.PrimFunc:
        spec = self.spec
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.symbol)
            T.func_attr({"tirx.noalias": True})
            self.a = self.parameter("a", spec.input_rows * spec.depth)
            self.w = self.parameter("panels", (1 + spec.depth) * self.padded_columns)
            if spec.residual:
                self.residual = self.parameter("residual", spec.rows * spec.columns)
            self.out = self.parameter("out", spec.output_size)
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
            with T.serial(begin, end) as task:
                self.task(task)
        return builder.get()

    @staticmethod
    def parameter(name: str, size: int) -> tirx.Buffer:
        return T.arg(name, T.Buffer((size,), "float32"))

    def task(self, task: Expr) -> None:
        panel = T.bind(task // self.tiles_per_panel)
        tile_row = T.bind(task % self.tiles_per_panel)
        group = T.bind(tile_row // self.blocks.count)
        block = T.bind(tile_row % self.blocks.count)

        def register_tile(vectors: int, mr: int) -> None:
            row = T.bind(self.blocks.start(block, mr))
            vector = T.bind(self.panels.start(panel, vectors))
            tile = RegisterTile(
                simd=self.simd,
                mr=mr,
                vectors=vectors,
                row_stride=self.row_stride,
                depth=self.spec.depth,
                depth_unroll=self.tile.depth_unroll,
                sharers=self.tiles_per_panel,
            )
            a_at = T.bind(group * self.group_stride + row * self.row_stride)
            w_at = T.bind(vector * (self.simd.lanes * (1 + self.spec.depth)))
            acc = tile.multiply(self.a, a_at, self.w, w_at, tile_row)
            self.store(acc, T.bind(group * self.spec.group_rows + row), vector)

        self.panels.branch(
            panel,
            lambda vectors: self.blocks.branch(block, lambda mr: register_tile(vectors, mr)),
        )

    def store(self, acc: Accumulators, row: Expr, vector: Expr) -> None:
        """The epilogue: accumulators -> activation -> + residual -> out."""
        simd, spec = self.simd, self.spec
        vectors = len(acc[0])
        for v in range(vectors):
            column = T.bind((vector + v) * simd.lanes)
            for i in range(len(acc)):
                z = T.bind(simd.load(acc[i][v], 0))
                if spec.layout is Layout.PANELS:
                    at = (column // PANEL_COLUMNS * spec.rows + row + i) * PANEL_COLUMNS
                    self.store_vector(z, at + column % PANEL_COLUMNS, simd.lanes)
                else:
                    at = T.bind((row + i) * spec.columns + column)
                    body = partial(self.store_vector, z, at)
                    branch_at_edge(simd, column, spec.columns, v == vectors - 1, body)

    def store_vector(self, z: Expr, at: Expr, count: int) -> None:
        simd = self.simd
        gate = None
        if self.spec.activation is Activation.HARDSWISH:
            gate = simd.hardswish_gate(z)
        if self.spec.residual:
            residual = simd.load_first(self.residual, at, count)
            z = z + residual if gate is None else simd.fma(z, gate, residual)
        elif gate is not None:
            z = z * gate
        simd.store_first(self.out, at, z, count)
