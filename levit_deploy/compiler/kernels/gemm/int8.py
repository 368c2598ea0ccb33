"""Matrix product of 8-bit tokens and weights with its epilogue: every 8-bit linear layer.

    a[rows, depth] stored, panels, (residual[rows, columns]), (quantization)
        ->  x[rows, columns] float32 and / or quantized for the next 8-bit layer

The work is cut as in `gemm.float32`: a task is one register tile of mr rows x nr columns over the
whole depth, and tasks go down the rows of a panel first. Numbers, the same on all targets with FMA:

    acc = sum over k of (q[k] - zero_point) * w[k]                 exact, int32
    z = fma(float32(acc), multiplier[column], bias[column])        float32 rounds to nearest even
    x = activation(z) + residual
    quantized as `quantize` says
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation import activate
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.int8_panels import Int8Panels, prove_exact
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmInt8Spec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.activation_storage import row_stride
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
from levit_deploy.targets.target import Target


def default_tile(spec: GemmInt8Spec, target: Target, shared: bool = False) -> GemmTile:
    """The largest tile of the target, made wider where there are too few rows to fill it; one that
    reads `shared` panels.

    docs/tile-choices.md has what was measured of these and others.
    """
    isa = isa_of(target)
    family = isa.products.tile_for(shared)
    mr, vectors, unroll = family.largest(isa)
    rows = Blocks.of(spec.group_rows, mr)
    if rows.size < mr:
        sums = rows.size * family.sums_per_vector
        vectors = max(vectors, -(-family.fewest_sums // sums))
    tile = GemmTile(rows.size, vectors * isa.lanes, isa.lanes, unroll)
    return tile.for_sharing() if shared else tile


def gemm_int8_kernel(
    symbol: str,
    spec: GemmInt8Spec,
    tile: GemmTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: a (stored as `isa_of(target).storage`), panels (of `pack_weights_int8`),
    residual if any, those of an `Output`, begin, end.

    The result does not depend on `tile`, nor on the target among those with FMA.
    """
    return _Generator(symbol, spec, tile, target, stored).kernel()


class _Generator:
    """The parts of one kernel while it is being written."""

    def __init__(
        self, symbol: str, spec: GemmInt8Spec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        self.symbol = symbol
        self.spec = spec
        self.tile = tile
        self.stored = stored
        self.simd = Simd(isa_of(target))
        self.cut = Int8Panels.of(spec.columns, spec.depth, tile, target)
        self.family = self.cut.family
        self.alignment = self.family.row_alignment
        self.blocks = Blocks.of(
            -(-spec.group_rows // self.alignment), -(-tile.mr // self.alignment)
        )
        self.groups = spec.rows // spec.group_rows
        self.tiles_per_panel = self.groups * self.blocks.count

    def kernel(self) -> Kernel:
        spec, stored, storage = self.spec, self.stored, self.family.storage
        a_size, outputs = storage.size(spec.input_rows, spec.depth), spec.rows * spec.columns
        with kernel_function(self.symbol) as builder:
            self.a = parameter("a", a_size, storage.dtype)
            self.panels = parameter("panels", self.cut.bytes, "int8")
            self.residual = parameter("residual", outputs) if spec.residual else None
            self.output = Output.declare(
                stored, spec.rows, spec.columns, self.simd, floats=spec.output_size
            )
            self.emit(*task_range())
        words = [*spec.words(layout=stored.float), *["quantized"] * stored.quantized]
        return Kernel(
            symbol=self.symbol,
            func=builder.get(),
            tasks=self.tiles_per_panel * self.cut.tiles.count,
            kind="gemm int8",
            shape=" ".join([*words, *spec.gather_words]),
            tile=f"{self.tile} {self.family.instruction}",
            multiply_adds=outputs * spec.depth,
            bytes_moved=a_size
            + self.cut.bytes
            + outputs * (4 * spec.residual + stored.value_bytes),
            prove_exact=partial(prove_exact, cut=self.cut),
        )

    def emit(self, begin: Expr, end: Expr) -> None:
        """Panel after panel, so that what the tiles of a panel share is computed once."""
        tiles = self.tiles_per_panel
        with T.serial(T.truncdiv(begin, tiles), T.truncdiv(end + (tiles - 1), tiles)) as panel:
            first = T.bind(panel * tiles)
            from_tile, to_tile = T.max(begin - first, 0), T.min(end - first, tiles)

            def column_panel(units: int) -> None:
                column = T.bind(self.cut.tiles.start(panel, units) * self.cut.unit)
                with T.serial(from_tile, to_tile) as index:
                    group, block = self.group_and_block(index)
                    self.blocks.branch(
                        block,
                        lambda blocks: self.register_tile(
                            units, column, blocks, index, group, block
                        ),
                    )

            self.cut.tiles.branch(panel, column_panel)

    def group_and_block(self, index: Expr) -> tuple[Expr, Expr]:
        """Of tile `index` of a panel."""
        if self.groups == 1:
            return T.int32(0), index
        return T.bind(index // self.blocks.count), T.bind(index % self.blocks.count)

    def register_tile(
        self, units: int, column: Expr, blocks: int, index: Expr, group: Expr, block: Expr
    ) -> None:
        """`units` of columns from `column` times as many rows as `blocks` aligned ones."""
        spec, cut = self.spec, self.cut
        width = units * cut.unit
        first = T.bind(self.blocks.start(block, blocks) * self.alignment)
        tile = self.family(
            simd=self.simd,
            a=self.a,
            w=self.panels,
            mr=blocks * self.alignment,
            vectors=width // self.simd.lanes,
            panel_width=cut.width(width),
            column_bytes=cut.column_size,
            depth=cut.depth,
            unroll=self.tile.depth_unroll,
            tiles_per_panel=self.tiles_per_panel,
            gathered=spec.gather_side > 0,
        )
        panel, inside = T.bind(cut.start(column)), cut.inside(column)
        acc = tile.multiply(self.rows(group, first, tile.mr), panel, inside, index)
        row = T.bind(group * spec.group_rows + first)
        header = partial(tile.header, panel + 4 * inside)
        if spec.group_rows % self.alignment == 0:
            self.epilogue(acc, row, column, header)
            return
        self.epilogue(acc[:-1], row, column, header)
        with T.If(first + tile.mr <= spec.group_rows), T.Then():
            self.epilogue(acc[-1:], row + (tile.mr - 1), column, header)

    def rows(self, group: Expr, first: Expr, count: int) -> list[Expr]:
        """Where `count` rows of `a` start, from row `first` of the group.

        One that is beyond the group, to fill an aligned block, is some row instead.
        """
        spec = self.spec
        step = 2 if spec.gather_side else 1
        stride = row_stride(spec.depth)
        start = T.bind((group * (2 * spec.gather_side) + first * step) * stride)
        rows = [start + i * step * stride for i in range(count)]
        if spec.gather_side and spec.group_rows % self.alignment:
            rows[-1] = T.bind(T.min(rows[-1], T.int32((spec.input_rows - 1) * stride)))
        return rows

    def epilogue(
        self,
        acc: list[list[Expr]],
        row: Expr,
        column: Expr,
        header: Callable[[int, int], Expr],
    ) -> None:
        """Sums -> float -> activation -> + residual -> stored, quantized.

        `header`: that of the tile, where its panel is.
        """
        simd, quantizer = self.simd, self.output.quantizer
        vectors = len(acc[0])
        steps: list[list[Expr]] = [[] for _ in acc]
        for group in simd.load_groups(vectors):
            scales = [header(1, v) for v in group]
            biases = [header(2, v) for v in group]
            if quantizer:
                factors = quantizer.factors(column + group.start * simd.lanes, len(group))
            for i, registers in enumerate(acc):
                for g, v in enumerate(group):
                    total = T.cast(registers[v], simd.type())
                    z = T.bind(simd.fma(total, scales[g], biases[g]))
                    if self.spec.activation is not Activation.NONE:
                        z = T.bind(simd.fence(activate(simd, self.spec.activation, z)))
                    x = self.store_float(z, row + i, column, v, vectors)
                    if quantizer:
                        steps[i].append(quantizer.steps(x, factors[g]))
        if quantizer:
            for i, row_steps in enumerate(steps):
                quantizer.store(row + i, column, row_steps)

    def store_float(self, z: Expr, row: Expr, first: Expr, v: int, vectors: int) -> Expr:
        """Add the residual, store x where it is wanted, and return it.

        z is register `v` of a tile with `vectors`, whose first column is `first`.
        """
        simd, spec, residual, out = self.simd, self.spec, self.residual, self.output.out
        column = T.bind(first + v * simd.lanes)
        if residual is None and out is None:
            return z
        if spec.layout is Layout.PANELS:
            at = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            simd.store(out, at + column % PANEL_COLUMNS, z)
            return z
        at = T.bind(row * spec.columns + column)

        def add_and_store(count: int) -> Expr:
            x = z
            if residual is not None and count:
                x = T.bind(z + simd.load_first(residual, at, count))
            if out is not None and count:
                simd.store_first(out, at, x, count)
            return x

        left = self.cut.left(v * simd.lanes, vectors * simd.lanes)
        if left >= simd.lanes:
            return add_and_store(simd.lanes)
        register = simd.register()
        with T.If(first + vectors * simd.lanes <= spec.columns):
            with T.Then():
                simd.store(register, 0, add_and_store(simd.lanes))
            with T.Else():
                simd.store(register, 0, add_and_store(max(left, 0)))
        return T.bind(simd.load(register, 0))
