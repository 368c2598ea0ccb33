"""Matrix product of 8-bit tokens and weights with its epilogue: every 8-bit linear layer.

    a[rows, depth] stored, panels, (residual[rows, columns]), (quantization)
        ->  x[rows, columns] float32 and / or quantized for the next 8-bit layer

The work is cut as in `gemm`: a task is one register tile of mr rows x nr columns over the whole
depth, and tasks go down the rows of a panel first. Numbers, the same on all targets with FMA:

    acc = sum over k of (q[k] - zero_point) * w[k]                 exact, int32
    z = fma(float32(acc), multiplier[column], bias[column])        float32 rounds to nearest even
    x = activation(z) + residual
    quantized as `quantize` says
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import PANEL_COLUMNS, GemmTile, Layout
from levit_deploy.compiler.kernels.gemm.int8_proof import prove_exact
from levit_deploy.compiler.kernels.gemm.int8_spec import GemmInt8Spec, PanelCut, tile_family
from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES, load_float
from levit_deploy.compiler.kernels.isa.activation_storage import activation_storage, row_stride
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.quantize import Quantizer, quantization_size
from levit_deploy.targets.target import Target


def gemm_int8_kernel(symbol: str, spec: GemmInt8Spec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a (stored as `activation_storage(target)`), panels (of `pack_weights_int8`),
    residual if any, quantization (of `quantize.pack_quantization`) if quantized, out (float32) if
    there is a layout, out_quantized if quantized, begin, end.

    The result does not depend on `tile`, nor on the target among those with FMA.
    """
    storage = activation_storage(target)
    product = ProductInt8(spec, tile, target)
    a_size = storage.size(spec.input_rows, spec.depth)
    outputs = spec.rows * spec.columns
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_attr({"tirx.noalias": True})

        def parameter(name: str, size: int, dtype: str = "float32") -> tirx.Buffer:
            return T.arg(name, T.Buffer((size,), dtype))

        a = parameter("a", a_size, storage.dtype)
        panels = parameter("panels", product.cut.bytes, "int8")
        residual = parameter("residual", outputs) if spec.residual else None
        if spec.quantized:
            constants = parameter("quantization", quantization_size(spec.columns))
        out = parameter("out", spec.output_size) if spec.layout else None
        if spec.quantized:
            size = storage.size(spec.rows, spec.columns)
            stored = parameter("out_quantized", size, storage.dtype)
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        quantizer = None
        if spec.quantized:
            quantizer = Quantizer(product.simd, spec.columns, constants, stored)
        product.emit(Operands(a, panels, residual, out, quantizer), begin, end)

    words = [spec.activation.value] + ["residual"] * spec.residual
    words += [spec.layout.value] if spec.layout else []
    words += ["quantized"] * spec.quantized
    words += [f"every second of {spec.gather_side}x{spec.gather_side}"] * bool(spec.gather_side)
    floats = outputs * (spec.residual + (spec.layout is not None))
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=product.tasks,
        scratch_bytes=0,
        unaligned=(),
        kind="gemm int8",
        shape=" ".join([f"{spec.rows}x{spec.columns}x{spec.depth}", *words]),
        tile=f"{tile} {product.family.instruction}",
        multiply_adds=outputs * spec.depth,
        bytes_moved=a_size + product.cut.bytes + 4 * floats + outputs * spec.quantized,
        prove_exact=partial(prove_exact, cut=product.cut),
    )


@dataclass(frozen=True)
class Operands:
    """Buffers of a product; `quantizer` knows its own."""

    a: tirx.Buffer
    panels: tirx.Buffer
    residual: tirx.Buffer | None
    out: tirx.Buffer | None
    quantizer: Quantizer | None


class ProductInt8:
    """Emits the tasks of an 8-bit product into a function that is being written."""

    def __init__(self, spec: GemmInt8Spec, tile: GemmTile, target: Target) -> None:
        self.spec = spec
        self.simd = Simd(target)
        self.unroll = tile.depth_unroll
        self.family = tile_family(target)
        self.granule = self.family.row_granule
        self.cut = PanelCut(spec.columns, spec.depth, tile, self.family)
        self.blocks = Blocks.of(-(-spec.group_rows // self.granule), -(-tile.mr // self.granule))
        self.groups = spec.rows // spec.group_rows
        self.tiles_per_panel = self.groups * self.blocks.count

    @property
    def tasks(self) -> int:
        count: int = self.tiles_per_panel * self.cut.panels.count
        return count

    def emit(self, operands: Operands, begin: Expr, end: Expr) -> None:
        """Panel after panel, so that what the tiles of a panel share is computed once."""
        self.operands = operands
        tiles = self.tiles_per_panel
        with T.serial(T.truncdiv(begin, tiles), T.truncdiv(end + (tiles - 1), tiles)) as panel:
            first = T.bind(panel * tiles)
            from_tile, to_tile = T.max(begin - first, 0), T.min(end - first, tiles)

            def column_panel(units: int) -> None:
                column = T.bind(self.cut.panels.start(panel, units) * self.cut.unit)
                with T.serial(from_tile, to_tile) as tile:
                    group, block = self.group_and_block(tile)
                    self.blocks.branch(
                        block,
                        lambda granules: self.tile(units, column, granules, tile, group, block),
                    )

            self.cut.panels.branch(panel, column_panel)

    def group_and_block(self, tile: Expr) -> tuple[Expr, Expr]:
        if self.groups == 1:
            return T.int32(0), tile
        return T.bind(tile // self.blocks.count), T.bind(tile % self.blocks.count)

    def tile(
        self, units: int, column: Expr, granules: int, index: Expr, group: Expr, block: Expr
    ) -> None:
        """One register tile: `units` of columns from `column`, `granules` of rows."""
        spec = self.spec
        first = T.bind(self.blocks.start(block, granules) * self.granule)
        tile = self.family(
            simd=self.simd,
            mr=granules * self.granule,
            vectors=units * self.family.vector_granule,
            depth=self.cut.depth,
            unroll=self.unroll,
            sharers=self.tiles_per_panel,
            gathered=spec.gather_side > 0,
        )
        at = T.bind(column * (HEADER_BYTES + self.cut.depth))
        rows = self.rows(group, first, tile.mr)
        acc = tile.multiply(self.operands.a, rows, self.operands.panels, at, index)
        row = T.bind(group * spec.group_rows + first)
        multipliers = at + 4 * tile.width
        if spec.group_rows % self.granule == 0:
            self.epilogue(acc, row, column, multipliers)
            return
        self.epilogue(acc[:-1], row, column, multipliers)
        with T.If(first + tile.mr <= spec.group_rows), T.Then():
            self.epilogue(acc[-1:], row + (tile.mr - 1), column, multipliers)

    def rows(self, group: Expr, first: Expr, count: int) -> list[Expr]:
        """Where `count` rows of `a` start, from row `first` of the group.

        One that is beyond the group, to fill a granule, is some row instead.
        """
        spec = self.spec
        step = 2 if spec.gather_side else 1
        stride = row_stride(spec.depth)
        start = T.bind((group * (2 * spec.gather_side) + first * step) * stride)
        rows = [start + i * step * stride for i in range(count)]
        if spec.gather_side and spec.group_rows % self.granule:
            rows[-1] = T.bind(T.min(rows[-1], T.int32((spec.input_rows - 1) * stride)))
        return rows

    def epilogue(self, acc: list[list[Expr]], row: Expr, column: Expr, multipliers: Expr) -> None:
        """Sums -> float -> activation -> + residual -> stored, quantized.

        `multipliers`: the byte where they start in the panel; the biases follow.
        """
        simd, spec, quantizer = self.simd, self.spec, self.operands.quantizer
        vectors = len(acc[0])
        steps: list[list[Expr]] = [[] for _ in acc]
        for first in range(0, vectors, simd.load_group):
            group = range(first, min(first + simd.load_group, vectors))
            scales = [self.header(multipliers, v) for v in group]
            biases = [self.header(multipliers, vectors + v) for v in group]
            if quantizer:
                factors = quantizer.factors(column + first * simd.lanes, len(group))
            for i, registers in enumerate(acc):
                for g, v in enumerate(group):
                    total = T.cast(registers[v], simd.type())
                    z = T.bind(simd.fma(total, scales[g], biases[g]))
                    if spec.activation is Activation.HARDSWISH:
                        z = T.bind(simd.fence(simd.hardswish(z)))
                    x = self.store_float(z, row + i, column, v, vectors)
                    if quantizer:
                        steps[i].append(quantizer.steps(x, factors[g]))
        if quantizer:
            for i, row_steps in enumerate(steps):
                quantizer.store(row + i, column, row_steps)

    def header(self, multipliers: Expr, index: int) -> Expr:
        at = multipliers + 4 * index * self.simd.lanes
        return T.bind(load_float(self.simd, self.operands.panels, at))

    def store_float(self, z: Expr, row: Expr, first: Expr, v: int, vectors: int) -> Expr:
        """Add the residual, store x where the spec wants it, and return it.

        z is register `v` of a tile with `vectors`, whose first column is `first`.
        """
        simd, spec, residual, out = self.simd, self.spec, self.operands.residual, self.operands.out
        column = T.bind(first + v * simd.lanes)
        if spec.layout is Layout.PANELS:
            at = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            simd.store(out, at + column % PANEL_COLUMNS, z)
            return z
        if residual is None and out is None:
            return z
        at = T.bind(row * spec.columns + column)

        def add_and_store(count: int) -> Expr:
            x = z
            if residual is not None and count:
                x = T.bind(z + simd.load_first(residual, at, count))
            if out is not None and count:
                simd.store_first(out, at, x, count)
            return x

        rest = spec.columns % self.cut.unit
        last_unit = vectors * simd.lanes - self.cut.unit
        if rest == 0 or v * simd.lanes < last_unit:
            return add_and_store(simd.lanes)
        register = simd.register()
        with T.If(first + vectors * simd.lanes <= spec.columns):
            with T.Then():
                simd.store(register, 0, add_and_store(simd.lanes))
            with T.Else():
                left = min(max(last_unit + rest - v * simd.lanes, 0), simd.lanes)
                simd.store(register, 0, add_and_store(left))
        return T.bind(simd.load(register, 0))
