"""Matrix product of 8-bit tokens and weights with its epilogue: every 8-bit linear layer.

    a[rows, depth] stored, panels, (residual[rows, columns]), (quantization)
        ->  out[rows, columns] float32 and / or the same quantized for the next 8-bit layer

The work is cut as in `gemm`: register tiles of mr rows x nr columns over the whole depth, a task
is one register tile, tasks go down the rows of a panel first. Numbers, the same on all targets
with FMA:

    acc = sum over k of (q[k] - zero_point) * w[k]                exact, int32
    z = fma(float32(acc), multiplier[column], bias[column])
    x = activation(z) + residual
    stored float, and quantized as in `quantize`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation_storage import activation_storage, row_stride
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm import PANEL_COLUMNS, GemmTile, Layout
from levit_deploy.compiler.kernels.int8_dot_tile import (
    MaddTile,
    MaddubsTile,
    SdotTile,
    VpdpbusdTile,
    pairs_fit,
)
from levit_deploy.compiler.kernels.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.int8_matrix_tile import SmmlaTile
from levit_deploy.compiler.kernels.int8_tile import HEADER_BYTES, Int8Tile, load_float
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.quantize import Quantizer, quantization_size
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Int8Dot, Target


@dataclass(frozen=True)
class GemmInt8Spec:
    """x[rows, columns] = activation((q - zero_point) @ w * multiplier + bias) (+ residual).

    `layout`: that of the float output, None if x is not stored as float. `quantized`: x is stored
    as 8-bit activations. At least one of them. `pairs_fit`: what `int8_dot_tile.pairs_fit` says of
    the weights. `gather_side`: as in `gemm.GemmSpec`.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout | None
    quantized: bool
    pairs_fit: bool
    gather_side: int = 0

    @property
    def input_rows(self) -> int:
        return self.gather_side**2 if self.gather_side else self.rows

    @property
    def group_rows(self) -> int:
        """Rows that lie at one distance from each other: all, or those of one row of the grid."""
        return (self.gather_side + 1) // 2 if self.gather_side else self.rows

    @property
    def output_size(self) -> int:
        """float32 values in the float output; in PANELS columns are padded to 16."""
        if self.layout is Layout.PANELS:
            return -(-self.columns // PANEL_COLUMNS) * PANEL_COLUMNS * self.rows
        return self.rows * self.columns if self.layout else 0


def default_tile(spec: GemmInt8Spec, target: Target) -> GemmTile:
    lanes = target.float_lanes
    mr, vectors = (6, 4) if target.vector_registers == 32 else (6, 2)
    return GemmTile(Blocks.of(spec.group_rows, mr).size, vectors * lanes, lanes, 2)


def pack_weights_int8(
    weights: NDArray[np.int8],
    multiplier: NDArray[np.float32],
    bias: NDArray[np.float32],
    zero_point: int,
    tile: GemmTile,
    target: Target,
) -> NDArray[np.int8]:
    """The constant of `gemm_int8_kernel`, flat, from `weights` (depth, columns) in -127 ... 127,
    `multiplier` (columns,) = input scale * weight scale, `bias` (columns,), and the input's zero
    point.

    Panel after panel as `int8_tile` says; columns are padded with zeros to a multiple of
    `tile.lanes`, the depth to what the instructions take.
    """
    family = _family(target, pairs_fit(weights))
    depth, columns = weights.shape
    cut = _Cut(columns, depth, tile, family)
    padded = np.zeros((cut.padded_depth, cut.padded_columns), np.int8)
    padded[:depth, :columns] = weights
    header = np.zeros((3, cut.padded_columns), np.int32)
    zero = zero_point + activation_storage(target).offset
    header[0] = -zero * padded.sum(axis=0, dtype=np.int32)
    header[1, :columns] = multiplier.astype(np.float32).view(np.int32)
    header[2, :columns] = bias.astype(np.float32).view(np.int32)
    parts: list[NDArray[np.int8]] = []
    for panel in range(cut.panels.count):
        size = cut.panels.size - (panel >= cut.panels.large)
        start = int(cut.panels.start(panel, size)) * cut.unit
        columns_of_panel = slice(start, start + size * cut.unit)
        parts.append(np.ascontiguousarray(header[:, columns_of_panel]).view(np.int8).ravel())
        parts.append(family.pack(padded[:, columns_of_panel]))
    return np.concatenate(parts)


def _family(target: Target, pairs_fit: bool) -> type[Int8Tile]:
    if target.int8_dot is Int8Dot.MADD:
        return MaddubsTile if pairs_fit else MaddTile
    return {
        Int8Dot.VPDPBUSD: VpdpbusdTile,
        Int8Dot.SDOT: SdotTile,
        Int8Dot.SMMLA: SmmlaTile,
        Int8Dot.MLAL: MlalTile,
    }[target.int8_dot]


class _Cut:
    """The panels of a weight matrix. `unit`: columns that are not separated."""

    def __init__(self, columns: int, depth: int, tile: GemmTile, family: type[Int8Tile]) -> None:
        self.unit = tile.lanes * family.vector_granule
        self.panels = Blocks.of(-(-columns // self.unit), -(-tile.nr // self.unit))
        self.padded_columns = -(-columns // self.unit) * self.unit
        self.padded_depth = -(-depth // family.step_depth) * family.step_depth

    @property
    def bytes(self) -> int:
        return (HEADER_BYTES + self.padded_depth) * self.padded_columns


def gemm_int8_kernel(symbol: str, spec: GemmInt8Spec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a (stored as `activation_storage(target)`), panels (of `pack_weights_int8`),
    residual if any, quantization (of `quantize.pack_quantization`) if quantized, out (float32) if
    `layout`, out_quantized if quantized, begin, end.

    The result does not depend on `tile`, nor on the target among those with FMA.
    """
    return _Generator(symbol, spec, tile, target).kernel()


class _Generator:
    """The parts of one kernel while it is being written."""

    def __init__(self, symbol: str, spec: GemmInt8Spec, tile: GemmTile, target: Target) -> None:
        self.symbol = symbol
        self.spec = spec
        self.tile = tile
        self.target = target
        self.simd = Simd(target)
        self.storage = activation_storage(target)
        self.family = _family(target, spec.pairs_fit)
        self.cut = _Cut(spec.columns, spec.depth, tile, self.family)
        granule = self.family.row_granule
        self.blocks = Blocks.of(-(-spec.group_rows // granule), -(-tile.mr // granule))
        self.groups = spec.rows // spec.group_rows

    @property
    def tiles_per_panel(self) -> int:
        return self.groups * self.blocks.count

    def kernel(self) -> Kernel:
        spec = self.spec
        item_bytes = np.dtype(self.storage.dtype).itemsize
        read = self.storage.size(spec.input_rows, spec.depth) * item_bytes
        outputs = spec.rows * spec.columns
        words = [spec.activation.value] + ["residual"] * spec.residual
        words += [spec.layout.value] if spec.layout else []
        words += ["quantized"] * spec.quantized
        words += [f"every second of {spec.gather_side}x{spec.gather_side}"] * bool(spec.gather_side)
        return Kernel(
            symbol=self.symbol,
            func=self.func(),
            tasks=self.tiles_per_panel * self.cut.panels.count,
            scratch_bytes=0,
            unaligned=(),
            kind="gemm int8",
            shape=" ".join([f"{spec.rows}x{spec.columns}x{spec.depth}", *words]),
            tile=str(self.tile),
            multiply_adds=outputs * spec.depth,
            bytes_moved=read
            + self.cut.bytes
            + 4 * outputs * (spec.residual + (spec.layout is not None))
            + outputs * spec.quantized,
        )

    def func(self) -> tirx.PrimFunc:
        spec = self.spec
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.symbol)
            T.func_attr({"tirx.noalias": True})
            a_size = self.storage.size(spec.input_rows, spec.depth)
            self.a = T.arg("a", T.Buffer((a_size,), self.storage.dtype))
            self.w = T.arg("panels", T.Buffer((self.cut.bytes,), "int8"))
            if spec.residual:
                size = spec.rows * spec.columns
                self.residual = T.arg("residual", T.Buffer((size,), "float32"))
            if spec.quantized:
                size = quantization_size(spec.columns)
                quantization = T.arg("quantization", T.Buffer((size,), "float32"))
            if spec.layout:
                self.out = T.arg("out", T.Buffer((spec.output_size,), "float32"))
            if spec.quantized:
                size = self.storage.size(spec.rows, spec.columns)
                out = T.arg("out_quantized", T.Buffer((size,), self.storage.dtype))
                self.quantizer = Quantizer(self.simd, spec.columns, quantization, out)
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
            with T.serial(begin, end) as task:
                self.task(task)
        return builder.get()

    def task(self, task: Expr) -> None:
        spec, granule = self.spec, self.family.row_granule
        panel = T.bind(task // self.tiles_per_panel)
        tile_row = T.bind(task % self.tiles_per_panel)
        group = T.bind(tile_row // self.blocks.count)
        block = T.bind(tile_row % self.blocks.count)

        def register_tile(units: int, granules: int) -> None:
            first = T.bind(self.blocks.start(block, granules) * granule)
            column = T.bind(self.cut.panels.start(panel, units) * self.cut.unit)
            tile = self.family(
                simd=self.simd,
                mr=granules * granule,
                vectors=units * self.family.vector_granule,
                depth=self.cut.padded_depth,
                unroll=self.tile.depth_unroll,
                sharers=self.tiles_per_panel,
                gathered=spec.gather_side > 0,
            )
            w_at = T.bind(column * (HEADER_BYTES + self.cut.padded_depth))
            acc = tile.multiply(self.a, self.rows(group, first, tile.mr), self.w, w_at, tile_row)
            row = T.bind(group * spec.group_rows + first)
            header = w_at + 4 * tile.width
            if spec.group_rows % granule == 0:
                self.epilogue(acc, row, column, header)
                return
            self.epilogue(acc[:-1], row, column, header)
            with T.If(first + tile.mr <= spec.group_rows), T.Then():
                self.epilogue(acc[-1:], row + (tile.mr - 1), column, header)

        self.cut.panels.branch(
            panel,
            lambda units: self.blocks.branch(
                block, lambda granules: register_tile(units, granules)
            ),
        )

    def rows(self, group: Expr, first: Expr, count: int) -> list[Expr]:
        """Where `count` rows of `a` start, from row `first` of the group.

        One that is beyond the group, to fill a granule, is some row instead.
        """
        spec = self.spec
        step = 2 if spec.gather_side else 1
        stride = row_stride(spec.depth)
        start = T.bind((group * (2 * spec.gather_side) + first * step) * stride)
        rows = [start + i * step * stride for i in range(count)]
        if spec.gather_side and spec.group_rows % self.family.row_granule:
            rows[-1] = T.bind(T.min(rows[-1], T.int32((spec.input_rows - 1) * stride)))
        return rows

    def epilogue(self, acc: list[list[Expr]], row: Expr, column: Expr, header: Expr) -> None:
        """Accumulators -> float -> activation -> + residual -> out, quantized.

        `header`: byte of the tile's multipliers in the panel; its biases follow.
        """
        simd, spec = self.simd, self.spec
        vectors = len(acc[0])
        steps: list[list[Expr]] = [[] for _ in acc]
        for v0 in range(0, vectors, simd.load_group):
            group = range(v0, min(v0 + simd.load_group, vectors))
            at = [T.bind(header + 4 * v * simd.lanes) for v in group]
            multipliers = [T.bind(load_float(simd, self.w, byte)) for byte in at]
            biases = [
                T.bind(load_float(simd, self.w, byte + 4 * vectors * simd.lanes)) for byte in at
            ]
            if spec.quantized:
                factors = self.quantizer.factors(column + v0 * simd.lanes, len(group))
            for i, registers in enumerate(acc):
                for g, v in enumerate(group):
                    total = T.cast(registers[v], simd.type())
                    z = T.bind(simd.fma(total, multipliers[g], biases[g]))
                    if spec.activation is Activation.HARDSWISH:
                        z = T.bind(simd.fence(simd.hardswish(z)))
                    x = self.store_float(z, row + i, column, v, vectors)
                    if spec.quantized:
                        steps[i].append(self.quantizer.steps(x, factors[g]))
        if spec.quantized:
            for i, row_steps in enumerate(steps):
                self.quantizer.store(row + i, column, row_steps)

    def store_float(self, z: Expr, row: Expr, first: Expr, v: int, vectors: int) -> Expr:
        """Add the residual, store x where the spec wants it, and return it.

        z is register `v` of a tile with `vectors`, whose first column is `first`.
        """
        simd, spec = self.simd, self.spec
        column = T.bind(first + v * simd.lanes)
        if spec.layout is Layout.PANELS:
            at = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            simd.store(self.out, at + column % PANEL_COLUMNS, z)
        if spec.layout is Layout.PANELS or not (spec.residual or spec.layout):
            return z
        at = T.bind(row * spec.columns + column)

        def add_and_store(count: int) -> Expr:
            x = z
            if spec.residual and count:
                x = T.bind(z + simd.load_first(self.residual, at, count))
            if spec.layout and count:
                simd.store_first(self.out, at, x, count)
            return x

        rest = spec.columns % self.cut.unit
        unit = vectors * simd.lanes - self.cut.unit  # where the last one of the tile starts
        if rest == 0 or v * simd.lanes < unit:
            return add_and_store(simd.lanes)
        register = simd.register()
        with T.If(first + vectors * simd.lanes <= spec.columns):
            with T.Then():
                simd.store(register, 0, add_and_store(simd.lanes))
            with T.Else():
                columns_left = unit + rest - v * simd.lanes
                simd.store(register, 0, add_and_store(min(max(columns_left, 0), simd.lanes)))
        return T.bind(simd.load(register, 0))
