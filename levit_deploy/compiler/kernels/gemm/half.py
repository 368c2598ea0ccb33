"""The product of float16 tokens and weights, multiplied as they are: FEAT_FP16 of ARMv8.2.

    a[rows, depth] float16, panels float16, bias, (residual)  ->  x[rows, columns], as an `Output`

The work is cut as in `gemm.float32`. Every output is a float32 sum of float16 chains of at most
HALF_CHAIN terms, so the result depends neither on the tile nor on the CPU:

    h = a[k] * w[k] for the first k of a chain, then h = fma(a[k], w[k], h)    rounded to float16
    acc = bias; acc = acc + h of each chain, in order                          rounded to float32

then the activation; then + residual (in one rounding with the product that ends an activation).
Chains that are done wait in the worker's scratch.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm, TilePlace
from levit_deploy.compiler.kernels.gemm.register_tile import branch_at_edge
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmHalfSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.lanes import half
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, parameter
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.compiler.kernels.product import Accumulators, accumulators
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.half_format import HALF_CHAIN
from levit_deploy.targets.target import Target

LANES = 8  # of a register; also the steps that one load of a serves
LINE_HALVES = 32


def default_tile(spec: GemmHalfSpec, target: Target, shared: bool = False) -> GemmTile:
    """24 accumulators, 4 times eight values of a, 2 weights; or 20, 5 and 4.

    Wider where there are too few rows to fill it. `shared`: one that reads shared panels.
    """
    mr, vectors = (4, 6) if Blocks.of(spec.group_rows, 5).size == 4 else (5, 4)
    rows = Blocks.of(spec.group_rows, mr)
    wanted, possible = -(-MIN_ACCUMULATORS // rows.smallest), mr * vectors // rows.size
    tile = GemmTile(rows.size, max(vectors, min(wanted, possible)) * LANES, LANES, LANES)
    return tile.for_sharing() if shared else tile


def half_kernel(
    symbol: str,
    spec: GemmHalfSpec,
    tile: GemmTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: a, panels and bias (of `stored_half`'s packing), residual if any, those of an
    `Output`, scratch where the depth is more than one chain, begin, end."""
    return _Generator(symbol, spec, tile, target, stored).kernel()


class _Generator(FloatGemm):
    scratch_type = "float16"

    def __init__(
        self, symbol: str, spec: GemmHalfSpec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        super().__init__(symbol, spec, tile, target)
        self.halves = Simd(isa_of(target), LANES)
        self.stored = stored
        self.chains = -(-spec.depth // HALF_CHAIN)

    @property
    def weight_bytes(self) -> int:
        return (2 * self.spec.depth + 4) * self.panels.padded

    @property
    def scratch_size(self) -> int:
        """Float16 values: the chains of a tile but the last."""
        tile = self.blocks.size * self.panels.tiles.size * self.panels.unit
        return tile * (self.chains - 1)

    def declare_factors(self) -> None:
        spec = self.spec
        self.a = parameter("a", spec.input_rows * spec.depth, "float16")
        self.w = parameter("panels", spec.depth * self.panels.padded, "float16")
        self.bias = parameter("bias", self.panels.padded)

    def declare_output(self) -> None:
        spec = self.spec
        self.output = Output.declare(
            self.stored, spec.rows, spec.columns, self.simd, floats=spec.output_size
        )

    def register_tile(self, place: TilePlace) -> None:
        halves, simd = self.halves, self.simd
        vectors = range(place.width // LANES)
        acc = accumulators(halves, place.mr, len(vectors), "float16")
        size = place.mr * place.width  # of the tile
        before = self.chains - 1
        if before:
            with T.serial(before) as number:
                self.chain(acc, place, T.bind(number * HALF_CHAIN), HALF_CHAIN)
                at = T.bind(number * size)
                for i, row in enumerate(acc):
                    for v, register in enumerate(row):
                        place_of = at + i * place.width + v * LANES
                        halves.store(self.scratch, place_of, halves.load(register, 0))
        last = before * HALF_CHAIN
        self.chain(acc, place, T.int32(last), self.spec.depth - last)
        for v in vectors:
            column = place.column + v * LANES
            bias = [T.bind(simd.load(self.bias, column + part * simd.lanes)) for part in (0, 1)]
            for i, row in enumerate(acc):
                at = i * place.width + v * LANES
                chains = [halves.load(self.scratch, at + number * size) for number in range(before)]
                sums = bias
                for h in map(T.bind, [*chains, halves.load(row[v], 0)]):
                    sums = [T.bind(s + self.widened(h, part)) for part, s in enumerate(sums)]
                for part, total in enumerate(sums):
                    self.finish(total, place, place.row + i, 2 * v + part)

    def widened(self, h: Expr, part: int) -> Expr:
        """The lower or upper half of a register, as float32."""
        return T.cast(half(h, part), self.simd.type())

    def chain(self, acc: Accumulators, place: TilePlace, first: Expr, count: int) -> None:
        """acc = the float16 sums of `count` steps from `first` on."""
        together = count // LANES
        if together:
            self.steps(acc, place, first, LANES, starts=True)
        if together > 1:
            with T.serial(1, together) as turn:
                self.steps(acc, place, T.bind(first + turn * LANES), LANES)
        rest = count - together * LANES
        if rest:
            self.steps(acc, place, first + together * LANES, rest, starts=not together)

    def steps(
        self, acc: Accumulators, place: TilePlace, first: Expr, count: int, starts: bool = False
    ) -> None:
        """`count` steps of the depth, at most LANES. `starts`: the first step sets acc."""
        halves, panels = self.halves, self.panels
        start = panels.inside(place.column)
        rows = [place.a_at + i * self.row_stride + first for i in range(place.mr)]
        if count == LANES:
            vectors = [T.bind(halves.load(self.a, at)) for at in rows]
            values = [[halves.lane(vector, k) for k in range(LANES)] for vector in vectors]
        else:
            values = [[T.broadcast(self.a[at + k], LANES) for k in range(count)] for at in rows]
        width = panels.width(place.width)
        parts = max(place.width // width, 1)
        base = T.bind((place.column - start) * self.spec.depth + first * width)
        self.prefetch(place, base, parts, count * width)
        w, base = self.weights(base, parts, count * width)
        for k in range(count):
            for some in halves.load_groups(place.width // LANES):
                loaded = []
                for v in some:
                    part, column = divmod(v * LANES, width)
                    at = base + part * self.spec.depth * width + k * width + column + start
                    loaded.append(T.bind(halves.load(w, at)))
                for i, registers in enumerate(acc):
                    for v, weight in zip(some, loaded, strict=True):
                        value = values[i][k]
                        total = halves.load(registers[v], 0)
                        first_of_all = starts and k == 0
                        h = value * weight if first_of_all else halves.fma(value, weight, total)
                        halves.store(registers[v], 0, h)

    def weights(self, base: Expr, parts: int, size: int) -> tuple[tirx.Buffer, Expr | int]:
        """The weights of one turn, where they are one piece."""
        if self.tile.shared or parts > 1:
            return self.w, base
        return self.halves.isa.window(self.w, base, size)

    def prefetch(self, place: TilePlace, base: Expr, parts: int, size: int) -> None:
        """Of this tile's share of the panels that follow, what belongs to a turn of `size` values:
        see RegisterTile."""
        mine = -(-size // (LINE_HALVES * self.tiles_per_panel))
        panel = self.spec.depth * self.panels.width(place.width)
        for line in range(mine):
            for part in range(parts):
                at = base + (parts + part) * panel + (place.number * mine + line) * LINE_HALVES
                self.halves.prefetch(self.w, at)

    def finish(self, total: Expr, place: TilePlace, row: Expr, v: int) -> None:
        """The epilogue of register `v` of a row: activation -> + residual -> stored."""
        simd, spec, at = self.simd, self.spec, v * self.simd.lanes
        column = T.bind(place.column + at)

        def store(count: int) -> None:
            x = self.finished(total, row * spec.columns + column, count)
            self.output.store(simd, row, column, [x], last=count)

        if spec.layout is Layout.PANELS:
            panel = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
            place = panel + column % PANEL_COLUMNS
            simd.store(self.output.out, place, self.finished(total, place, simd.lanes))
        else:
            rest = self.panels.left(at, place.width)
            branch_at_edge(simd, column, self.panels, rest, store)
