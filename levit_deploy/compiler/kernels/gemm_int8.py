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
from levit_deploy.compiler.kernels.int8_dot_tile import MaddTile, SdotTile, VpdpbusdTile
from levit_deploy.compiler.kernels.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.int8_matrix_tile import SmmlaTile
from levit_deploy.compiler.kernels.int8_tile import HEADER_BYTES, Int8Tile, load_float
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.quantize import Quantizer, quantization_size
from levit_deploy.compiler.kernels.register_tile import branch_at_edge
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Int8Dot, Target

_FAMILIES: dict[Int8Dot, type[Int8Tile]] = {
    Int8Dot.VPDPBUSD: VpdpbusdTile,
    Int8Dot.MADD: MaddTile,
    Int8Dot.SDOT: SdotTile,
    Int8Dot.SMMLA: SmmlaTile,
    Int8Dot.MLAL: MlalTile,
}


@dataclass(frozen=True)
class GemmInt8Spec:
    """x[rows, columns] = activation((q - zero_point) @ w * multiplier + bias) (+ residual).

    `layout`: that of the float output, None if x is not stored as float. `quantized`: x is stored
    as 8-bit activations. At least one of them. `gather_side`: as in `gemm.GemmSpec`.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout | None
    quantized: bool
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
    return GemmTile(Blocks.of(spec.group_rows, mr).size, vectors * lanes, lanes, 4)


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
    family = _FAMILIES[target.int8_dot]
    depth, columns = weights.shape
    padded_columns = -(-columns // tile.lanes) * tile.lanes
    padded = np.zeros((_padded_depth(depth, family), padded_columns), np.int8)
    padded[:depth, :columns] = weights
    zero = activation_storage(target).zero(zero_point)
    header = np.zeros((3, padded_columns), np.int32)
    header[0] = -zero * padded.sum(axis=0, dtype=np.int32)
    header[1, :columns] = multiplier.astype(np.float32).view(np.int32)
    header[2, :columns] = bias.astype(np.float32).view(np.int32)
    parts = []
    panels = tile.panels(columns)
    start = 0
    for panel in range(panels.count):
        vectors = panels.size if panel < panels.large else panels.size - 1
        end = start + vectors * tile.lanes
        parts.append(np.ascontiguousarray(header[:, start:end]).view(np.int8).ravel())
        parts.append(family.pack(padded[:, start:end]))
        start = end
    return np.concatenate(parts)


def _padded_depth(depth: int, family: type[Int8Tile]) -> int:
    return -(-depth // family.step_depth) * family.step_depth


def gemm_int8_kernel(
    symbol: str, spec: GemmInt8Spec, tile: GemmTile, target: Target
) -> Kernel:
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
        self.family = _FAMILIES[target.int8_dot]
        self.depth = _padded_depth(spec.depth, self.family)
        self.panels = tile.panels(spec.columns)
        granule = self.family.row_granule
        self.blocks = Blocks.of(-(-spec.group_rows // granule), -(-tile.mr // granule))
        self.groups = spec.rows // spec.group_rows

    @property
    def tiles_per_panel(self) -> int:
        return self.groups * self.blocks.count

    @property
    def panels_bytes(self) -> int:
        columns = -(-self.spec.columns // self.tile.lanes) * self.tile.lanes
        return (HEADER_BYTES + self.depth) * columns

    def kernel(self) -> Kernel:
        spec = self.spec
        read = self.storage.size(spec.input_rows, spec.depth) * np.dtype(self.storage.dtype).itemsize
        outputs = spec.rows * spec.columns
        words = [spec.activation.value] + ["residual"] * spec.residual
        words += [spec.layout.value] if spec.layout else []
        words += ["quantized"] * spec.quantized
        words += [f"every second of {spec.gather_side}x{spec.gather_side}"] * bool(spec.gather_side)
        return Kernel(
            symbol=self.symbol,
            func=self.func(),
            tasks=self.tiles_per_panel * self.panels.count,
            scratch_bytes=0,
            unaligned=(),
            kind="gemm int8",
            shape=" ".join([f"{spec.rows}x{spec.columns}x{spec.depth}", *words]),
            tile=str(self.tile),
            multiply_adds=outputs * spec.depth,
            bytes_moved=read
            + self.panels_bytes
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
            self.w = T.arg("panels", T.Buffer((self.panels_bytes,), "int8"))
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

        def register_tile(vectors: int, granules: int) -> None:
            first = T.bind(self.blocks.start(block, granules) * granule)
            vector = T.bind(self.panels.start(panel, vectors))
            tile = self.family(
                simd=self.simd,
                mr=granules * granule,
                vectors=vectors,
                depth=self.depth,
                unroll=self.tile.depth_unroll,
                sharers=self.tiles_per_panel,
                gathered=spec.gather_side > 0,
            )
            w_at = T.bind(vector * (self.simd.lanes * (HEADER_BYTES + self.depth)))
            acc = tile.multiply(self.a, self.rows(group, first, tile.mr), self.w, w_at, tile_row)
            row = T.bind(group * spec.group_rows + first)
            self.epilogue(acc, row, vector, w_at + 4 * tile.width)

        self.panels.branch(
            panel,
            lambda vectors: self.blocks.branch(
                block, lambda granules: register_tile(vectors, granules)
            ),
        )

    def rows(self, group: Expr, first: Expr, count: int) -> list[Expr]:
        """Where `count` rows of `a` start, from row `first` of the group."""
        step = 2 if self.spec.gather_side else 1
        token = group * (2 * self.spec.gather_side) + first * step
        stride = row_stride(self.spec.depth)
        start = T.bind(token * stride)
        return [start + i * step * stride for i in range(count)]

    def epilogue(self, acc: list[list[Expr]], row: Expr, vector: Expr, header: Expr) -> None:
        """Accumulators -> float -> activation -> + residual -> out, quantized.

        `header`: byte of the tile's multipliers in the panel; its biases follow.
        """
        simd, spec = self.simd, self.spec
        vectors = len(acc[0])
        column = T.bind(vector * simd.lanes)
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
                    x = self.store_float(
                        z, row + i, T.bind(column + v * simd.lanes), v == vectors - 1
                    )
                    if spec.quantized:
                        steps[i].append(self.quantizer.steps(x, factors[g]))
        if spec.quantized:
            for i, row_steps in enumerate(steps):
                self.quantizer.store(row + i, column, row_steps)

    def store_float(self, z: Expr, row: Expr, column: Expr, last: bool) -> Expr:
        """Add the residual, store x where the spec wants it, and return it."""
        simd, spec = self.simd, self.spec
        if spec.layout is Layout.PANELS:
            at = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            simd.store(self.out, at + column % PANEL_COLUMNS, z)
        if spec.layout is Layout.PANELS or not (spec.residual or spec.layout):
            return z
        at = T.bind(row * spec.columns + column)
        x = simd.register()

        def add_and_store(count: int) -> None:
            value = z
            if spec.residual:
                value = T.bind(z + simd.load_first(self.residual, at, count))
            if spec.layout:
                simd.store_first(self.out, at, value, count)
            simd.store(x, 0, value)

        branch_at_edge(simd, column, spec.columns, last, add_and_store)
        return T.bind(simd.load(x, 0))
