"""The product of bfloat16 tokens and weights, multiplied as they are: AVX512_BF16.

    a[rows, depth] bfloat16, panels bfloat16, bias, (residual)  ->  x[rows, columns], as an `Output`

The work is cut as in `gemm.float32`. Every output is one chain of float32, two steps an instruction
(see `vdpbf16ps`), so the result depends neither on the tile nor on the CPU:

    acc = bias; acc = fma(a[k], w[k], acc) for k = 1, 0, 3, 2, 5, 4, ...; denormal acc become zeros

then the activation; then + residual (in one rounding with the product that ends an activation).
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm, TilePlace
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.spec import GemmBf16Spec, GemmTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import vdpbf16ps
from levit_deploy.compiler.kernels.kernel import Kernel, parameter
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import Accumulators, accumulators
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.compiler.kernels.widen import LINE_HALVES, STORED
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Target

UNROLL = 8  # pairs of steps in a turn


def default_tile(spec: GemmBf16Spec, target: Target, shared: bool = False) -> GemmTile:
    """24 accumulators, 2 weights, a few pairs of a; wider where there are too few rows to fill it.

    `shared`: one that reads shared panels.
    """
    mr, vectors = 12, 2
    rows = Blocks.of(spec.group_rows, mr)
    wanted, possible = -(-MIN_ACCUMULATORS // rows.smallest), mr * vectors // rows.size
    lanes = target.float_lanes
    tile = GemmTile(rows.size, max(vectors, min(wanted, possible)) * lanes, lanes, UNROLL)
    return tile.for_sharing() if shared else tile


def bf16_kernel(
    symbol: str, spec: GemmBf16Spec, tile: GemmTile, target: Target, stored: Stored = Stored.FLOAT
) -> Kernel:
    """Parameters: a, panels and bias (of `stored_half`'s packing), residual if any, those of an
    `Output`, begin, end."""
    return _Generator(symbol, spec, tile, target, stored).kernel()


class _Generator(FloatGemm):
    input_type = STORED[HalfFormat.BF16]

    def __init__(
        self, symbol: str, spec: GemmBf16Spec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        self.pairs = -(-spec.depth // 2)
        self.panels = Panels(spec.columns, 2 * self.pairs, tile, 1)

    @property
    def weight_bytes(self) -> int:
        return (4 * self.pairs + 4) * self.panels.padded

    def declare_weights(self) -> None:
        self.w = parameter("panels", 2 * self.pairs * self.panels.padded, self.input_type)
        self.bias = parameter("bias", self.panels.padded)

    def register_tile(self, place: TilePlace) -> None:
        simd, vectors = self.simd, place.width // self.simd.lanes
        acc = accumulators(simd, place.mr, vectors)
        for v in range(vectors):
            bias = T.bind(simd.load(self.bias, place.column + v * simd.lanes))
            for row in acc:
                simd.store(row[v], 0, bias)
        inside = self.panels.inside(place.column)
        w_at = T.bind(self.panels.start(place.column) + 2 * inside)
        unroll = self.tile.depth_unroll
        turns = self.spec.depth // 2 // unroll
        if turns:
            with T.serial(turns) as turn:
                first = T.bind(turn * unroll)
                for k in range(unroll):
                    self.prefetch(place, w_at, first, k)
                    self.step(acc, place, w_at, first + k)
        for k in range(turns * unroll, self.pairs):
            self.step(acc, place, w_at, T.int32(k), whole=2 * k + 1 < self.spec.depth)
        self.store(acc, place.row, place.column)

    def step(
        self, acc: Accumulators, place: TilePlace, w_at: Expr, pair: Expr, whole: bool = True
    ) -> None:
        """`whole`: whether the pair has a second value."""
        simd, width = self.simd, self.panels.width(place.width)
        weights = []
        for v in range(place.width // simd.lanes):
            panel, column = divmod(v * simd.lanes, width)
            at = w_at + 2 * ((panel * self.pairs + pair) * width + column)
            loaded = self.w.vload([at], f"uint16x{2 * simd.lanes}")
            weights.append(T.bind(T.reinterpret(f"int32x{simd.lanes}", loaded)))
        for i, row in enumerate(acc):
            value = self.values(place.a_at + i * self.row_stride + 2 * pair, whole)
            for register, weight in zip(row, weights, strict=True):
                simd.store(register, 0, vdpbf16ps(simd.load(register, 0), weight, value))

    def values(self, at: Expr, whole: bool) -> Expr:
        """The pair of `a` from `at` on, in all lanes."""
        if whole:
            pair = T.reinterpret("int32", self.a.vload([at], "uint16x2"))
        else:
            pair = T.cast(self.a[at], "int32")
        return T.bind(T.broadcast(pair, self.simd.lanes))

    def prefetch(self, place: TilePlace, w_at: Expr, first: Expr, k: int) -> None:
        """Of this tile's share of the panels that follow, what belongs to step `k` of a turn: see
        RegisterTile. Nothing of panels that are read once: asking costs a third of their time."""
        if self.tiles_per_panel == 1:
            return
        unroll, width = self.tile.depth_unroll, self.panels.width(place.width)
        panels = max(place.width // width, 1)
        mine = -(-unroll * 2 * width // (LINE_HALVES * self.tiles_per_panel))  # lines of a turn
        for line in range(-(-mine * k // unroll), -(-mine * (k + 1) // unroll)):
            for panel in range(panels, 2 * panels):
                at = w_at + 2 * (panel * self.pairs + first) * width
                at += (place.number * mine + line) * LINE_HALVES
                self.simd.prefetch(self.w, at, level=1)
