"""The product of float16 tokens and weights, multiplied as they are: FEAT_FP16 of ARMv8.2.

    a[rows, depth] float16, panels float16, bias, (residual)  ->  x[rows, columns], as an `Output`

The work is cut as in `gemm.float32`. Every output is the bias and float16 chains of at most
HALF_CHAIN terms (see half_chains), so the result depends neither on the tile nor on the CPU; then
the activation; then + residual (in one rounding with the product that ends an activation).
"""

from __future__ import annotations

from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm, TilePlace
from levit_deploy.compiler.kernels.gemm.spec import GemmHalfSpec, GemmTile
from levit_deploy.compiler.kernels.half_chains import LANES, HalfChains, chain_memory
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, parameter
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.targets.target import Target

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
    input_type = "float16"
    scratch_type = "float16"

    def __init__(
        self, symbol: str, spec: GemmHalfSpec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        self.simd = Simd(isa_of(target), LANES)

    @property
    def weight_bytes(self) -> int:
        return (2 * self.spec.depth + 4) * self.panels.padded

    @property
    def scratch_size(self) -> int:
        vectors = self.panels.tiles.size * self.panels.unit // LANES
        return chain_memory(self.blocks.size, vectors, self.spec.depth)

    def declare_weights(self) -> None:
        self.w = parameter("panels", self.spec.depth * self.panels.padded, "float16")
        self.bias = parameter("bias", self.panels.padded)

    def register_tile(self, place: TilePlace) -> None:
        vectors = place.width // LANES
        memory = self.scratch if self.scratch_size else None
        chains = HalfChains(self.simd, place.mr, vectors, self.spec.depth, memory)
        chains.add(partial(self.steps, chains, place))
        for v in range(vectors):
            column = T.bind(place.column + v * LANES)
            bias = T.bind(self.simd.load(self.bias, column))
            for i in range(place.mr):
                total, row = chains.total(i, v, bias), T.bind(place.row + i)
                self.store_in_row(total, row, column, v, place.width)

    def steps(
        self, chains: HalfChains, place: TilePlace, first: Expr, count: int, starts: bool
    ) -> None:
        """`count` steps of the depth."""
        panels, depth = self.panels, self.spec.depth
        start = panels.inside(place.column)
        rows = [place.a_at + i * self.row_stride + first for i in range(place.mr)]
        width = panels.width(place.width)
        parts = max(place.width // width, 1)
        base = T.bind((place.column - start) * depth + first * width)
        self.prefetch(place, base, parts, count * width)
        w, base = self.weights(base, parts, count * width)
        columns = [divmod(v * LANES, width) for v in range(chains.vectors)]
        places = [
            [base + part * depth * width + k * width + at + start for part, at in columns]
            for k in range(count)
        ]
        chains.multiply(self.a, rows, w, places, starts)

    def weights(self, base: Expr, parts: int, size: int) -> tuple[tirx.Buffer, Expr | int]:
        """The weights of one turn, where they are one piece."""
        if self.tile.shared or parts > 1:
            return self.w, base
        return self.simd.isa.window(self.w, base, size)

    def prefetch(self, place: TilePlace, base: Expr, parts: int, size: int) -> None:
        """Of this tile's share of the panels that follow, what belongs to a turn of `size` values:
        see RegisterTile."""
        mine = -(-size // (LINE_HALVES * self.tiles_per_panel))
        panel = self.spec.depth * self.panels.width(place.width)
        for line in range(mine):
            for part in range(parts):
                at = base + (parts + part) * panel + (place.number * mine + line) * LINE_HALVES
                self.simd.prefetch(self.w, at)
