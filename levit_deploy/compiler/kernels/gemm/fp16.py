"""The product of float16 tokens and weights, multiplied as they are: FEAT_FP16 of ARMv8.2.

    a[rows, depth] float16, panels float16, bias, (residual)  ->  x[rows, columns], as an `Output`

The work is cut as in `gemm.float32`. The first tile that reads some rows puts the values that they
have for one step side by side, so that a load serves them all. Every output is the bias and
float16 chains of at most FP16_CHAIN terms (see fp16_chains), so the result depends neither on the
tile nor on the CPU; then the activation; then + residual (in one rounding with the product that
ends an activation). A hardswish of which only the float16 copy is stored is computed in float16,
from the rounded sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation import hardswish_float16
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.fp16_chains import LANES, Fp16Chains, chain_memory
from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm, TilePlace
from levit_deploy.compiler.kernels.gemm.register_tile import branch_at_edge
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmFp16Spec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.neon64 import Neon64
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Activation, Kernel, parameter
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.register_tiles import MOST_VECTORS
from levit_deploy.compiler.kernels.widen import LINE_HALVES
from levit_deploy.half_format import FP16_CHAIN
from levit_deploy.targets.target import Target

ROWS = 8  # whose values of a step are one register
GROUP = 4  # of chains that are added in float16
UNROLL = 16


def default_tile(spec: GemmFp16Spec, target: Target, shared: bool = False) -> GemmTile:
    """24 accumulators, two steps' values of eight rows, 2 weights: 28 of 32 registers. With more
    LLVM spills. `shared`: one that reads shared panels.
    """
    mr = Blocks.of(spec.group_rows, ROWS).size
    tile = GemmTile(mr, min(24 // mr, MOST_VECTORS) * LANES, LANES, UNROLL)
    return tile.for_sharing() if shared else tile


def fp16_kernel(
    symbol: str,
    spec: GemmFp16Spec,
    tile: GemmTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: a, panels and bias (of `stored_half`'s packing), residual if any, those of an
    `Output`, scratch, begin, end."""
    return _Generator(symbol, spec, tile, target, stored).kernel()


class _Generator(FloatGemm):
    """In the scratch lie the chains of the tile that is being computed and, from `rows_at` on, the
    rows of `a` that the range of tasks reads, each tile's as [depth][ROWS]."""

    input_type = "float16"
    scratch_type = "float16"

    def __init__(
        self, symbol: str, spec: GemmFp16Spec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        self.simd = Simd(isa_of(target), LANES)
        vectors = self.panels.tiles.size * self.panels.unit // LANES
        self.rows_at = chain_memory(self.blocks.size, vectors, spec.depth)
        self.tile_rows_size = max(spec.depth, LANES) * ROWS

    @property
    def weight_bytes(self) -> int:
        return (2 * self.spec.depth + 4) * self.panels.padded

    @property
    def scratch_size(self) -> int:
        return self.rows_at + self.tiles_per_panel * self.tile_rows_size

    def declare_weights(self) -> None:
        self.w = parameter("panels", self.spec.depth * self.panels.padded, "float16")
        self.bias = parameter("bias", self.panels.padded)

    def register_tile(self, place: TilePlace) -> None:
        simd, vectors = self.simd, place.width // LANES
        rows_at = T.bind(place.number * self.tile_rows_size)
        with T.If(place.new_rows), T.Then():
            self.pack(place, rows_at)
        chains = Fp16Chains(
            simd,
            place.mr,
            vectors,
            self.spec.depth,
            self.scratch,
            together=self.tile.depth_unroll,
            group=GROUP,
        )
        chains.add(partial(self.steps, chains, place, rows_at))
        with T.serial(place.mr) as i:
            self.finish(chains, place, i)

    def begin_range(self) -> None:
        size = self.tiles_per_panel * self.tile_rows_size
        self.packed, _ = self.simd.isa.window(self.scratch, self.rows_at, size)

    def pack(self, place: TilePlace, rows_at: Expr) -> None:
        """Rows past the last one of the tile are that one."""
        simd, depth = self.simd, self.spec.depth
        neon = simd.isa
        assert isinstance(neon, Neon64)
        rows = [place.a_at + min(i, place.mr - 1) * self.row_stride for i in range(ROWS)]

        def some(first: Expr | int) -> None:
            count = min(depth, LANES)
            vectors = [T.bind(simd.load_first(self.a, at + first, count)) for at in rows]
            neon.store_transposed(self.packed, rows_at + first * ROWS, vectors)

        with T.serial(max(depth // LANES, 1)) as turn:
            some(turn * LANES)
        if depth > LANES and depth % LANES:
            some(depth - LANES)

    def steps(
        self,
        chains: Fp16Chains,
        place: TilePlace,
        rows_at: Expr,
        first: Expr,
        count: int,
        starts: bool,
    ) -> None:
        """`count` steps of the depth."""
        panels, depth = self.panels, self.spec.depth
        start = panels.inside(place.column)
        width = panels.width(place.width)
        parts = max(place.width // width, 1)
        columns = [divmod(v * LANES, width) for v in range(chains.vectors)]
        base = T.bind((place.column - start) * depth + first * width)
        if starts:
            self.prefetch(place, base, parts, width)
        w, w_at = self.weights(base, parts, count * width)
        places = [
            [w_at + part * depth * width + k * width + at + start for part, at in columns]
            for k in range(count)
        ]
        values = self.values(place.mr, T.bind(rows_at + first * ROWS), count)
        chains.multiply(values, w, places, starts)

    def values(self, mr: int, at: Expr, count: int) -> Iterator[list[Expr]]:
        """Of `mr` rows, step after step. Two steps' are one load (ldp). The last row's are also in
        the last lane: of lanes that nobody reads LLVM would make parts of a load."""
        simd, lanes = self.simd, [*range(mr - 1), ROWS - 1]
        for first in range(0, count, 2):
            steps = range(first, min(first + 2, count))
            loaded = [T.bind(simd.load(self.packed, at + k * ROWS)) for k in steps]
            for vector in loaded:
                yield [simd.lane(vector, i) for i in lanes]

    def weights(self, at: Expr, parts: int, size: int) -> tuple[tirx.Buffer, Expr | int]:
        """Those of one turn, where they are one piece."""
        if self.tile.shared or parts > 1:
            return self.w, at
        return self.simd.isa.window(self.w, at, size)

    def prefetch(self, place: TilePlace, at: Expr, parts: int, width: int) -> None:
        """Of this tile's share of the panels that follow, what belongs to a chain: see
        RegisterTile."""
        depth = self.spec.depth
        mine = -(-min(depth, FP16_CHAIN) * width // (LINE_HALVES * self.tiles_per_panel))
        start = T.bind(at + parts * depth * width + place.number * (mine * LINE_HALVES))
        for line in range(mine):
            for part in range(parts):
                self.simd.prefetch(self.w, start + part * depth * width + line * LINE_HALVES)

    def finish(self, chains: Fp16Chains, place: TilePlace, i: Expr) -> None:
        """The epilogue of row `i` of the tile: activation -> + residual -> stored."""
        simd, spec = self.simd, self.spec
        row = T.bind(place.row + i)
        # 64 bits wide, LLVM adds what follows inside of addresses.
        start = T.bind(T.cast(row * spec.columns + place.column, "int64"))
        for v in range(chains.vectors):
            column = place.column + v * LANES
            total = chains.total(i, v, simd.load(self.bias, column))

            def store(count: int, at: Expr = start + v * LANES, total: Expr = total) -> None:
                self.output.store_at(simd, at, self.activated(total, at, count), count)

            if spec.layout is Layout.PANELS:
                panel = (column // PANEL_COLUMNS * spec.rows + row) * PANEL_COLUMNS
                store(LANES, T.bind(panel + column % PANEL_COLUMNS))
            else:
                rest = self.panels.left(v * LANES, place.width)
                branch_at_edge(simd, column, self.panels, rest, store)

    def activated(self, total: Expr, at: Expr, count: int) -> Expr:
        """As `finished`; float16 where that is all that is stored of a hardswish."""
        spec = self.spec
        hardswish = spec.activation is Activation.HARDSWISH and not spec.residual
        if hardswish and self.stored is Stored.FP16:
            return hardswish_float16(self.simd, T.bind(T.cast(total, f"float16x{LANES}")))
        return self.finished(total, at, count)
