"""The product of bfloat16 tokens and weights, multiplied as they are: FEAT_BF16 of ARMv8.6.

    a[rows, depth] bfloat16 in pairs of rows, panels bfloat16, bias, (residual)
                                                              ->  x[rows, columns], as an `Output`

The work is cut as in `gemm.float32`. A register of sums holds two rows times two columns: one
`bfmmla` does 16 multiply-adds of four steps. Every output starts from its bias, to which the
products are added as `bfmmla` says, four k after the other, so the result depends neither on the
tile nor on the CPU; then the activation; then + residual (in one rounding with the product that
ends an activation). Zeros fill up the last four.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm, TilePlace
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.spec import GemmBfmmlaSpec, GemmTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import bfmmla
from levit_deploy.compiler.kernels.isa.half_storage import PAIR, QUAD, REGISTER, HalfStorage
from levit_deploy.compiler.kernels.isa.lanes import concat, of_both_rows, row_of_two
from levit_deploy.compiler.kernels.kernel import Kernel, parameter
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import Accumulators, accumulators, add_matrices
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.compiler.kernels.widen import LINE_HALVES, STORED
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Target

UNROLL = 2  # times four steps in a turn: LLVM spills with more


def default_tile(spec: GemmBfmmlaSpec, target: Target, shared: bool = False) -> GemmTile:
    """24 sums of 2x2, 3 times two rows, 2 weights; wider where there are too few rows to fill it.

    `shared`: one that reads shared panels.
    """
    pairs, vectors = 3, 4
    rows = Blocks.of(-(-spec.group_rows // PAIR), pairs)
    wanted = -(-MIN_ACCUMULATORS // (PAIR * rows.smallest))
    width = max(vectors, min(wanted, pairs * vectors // rows.size)) * target.float_lanes
    tile = GemmTile(PAIR * rows.size, width, target.float_lanes, UNROLL)
    return tile.for_sharing() if shared else tile


def bfmmla_kernel(
    symbol: str, spec: GemmBfmmlaSpec, tile: GemmTile, target: Target, stored: Stored = Stored.FLOAT
) -> Kernel:
    """Parameters: a (of `HalfStorage.PAIRS`), panels and bias (of `stored_half`'s packing),
    residual if any, those of an `Output`, begin, end."""
    return _Generator(symbol, spec, tile, target, stored).kernel()


class _Generator(FloatGemm):
    input_type = STORED[HalfFormat.BF16]
    row_alignment = PAIR

    def __init__(
        self, symbol: str, spec: GemmBfmmlaSpec, tile: GemmTile, target: Target, stored: Stored
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        self.quads = -(-spec.depth // QUAD)
        self.panels = Panels(spec.columns, QUAD * self.quads, tile, 1)
        # Rows of a tile begin with the first one of a pair: from that to any row of it.
        step = 2 if spec.gather_side else 1
        self.row_stride = step * HalfStorage.PAIRS.stride(spec.depth)
        self.group_stride = spec.gather_side * self.row_stride

    @property
    def weight_bytes(self) -> int:
        return (2 * QUAD * self.quads + 4) * self.panels.padded

    @property
    def input_size(self) -> int:
        return HalfStorage.PAIRS.size(self.spec.input_rows, self.spec.depth)

    def declare_weights(self) -> None:
        self.w = parameter("panels", QUAD * self.quads * self.panels.padded, self.input_type)
        self.bias = parameter("bias", self.panels.padded)

    def register_tile(self, place: TilePlace) -> None:
        acc = self.started(place)
        rows = self.rows(place)
        inside = self.panels.inside(place.column)
        w_at = T.bind(self.panels.start(place.column) + QUAD * inside)
        unroll, whole = self.tile.depth_unroll, self.spec.depth // QUAD
        turns = whole // unroll
        if turns:
            with T.serial(turns) as turn:
                first = T.bind(turn * unroll)
                self.prefetch(place, w_at, first)
                w = self.weights(place, w_at, first, unroll)
                for quad in range(unroll):
                    self.step(acc, rows, first + quad, partial(w, quad))
        rest = turns * unroll
        if rest < self.quads:
            w = self.weights(place, w_at, T.int32(rest), self.quads - rest)
            for quad in range(rest, self.quads):
                self.step(acc, rows, T.int32(quad), partial(w, quad - rest), whole=quad < whole)
        self.finish(acc, place)

    def started(self, place: TilePlace) -> Accumulators:
        """By pair of rows and pair of columns, with their biases."""
        simd, vectors = self.simd, place.width // self.simd.lanes
        acc = accumulators(simd, place.mr // PAIR, PAIR * vectors)
        for v in range(vectors):
            bias = T.bind(simd.load(self.bias, place.column + v * simd.lanes))
            for pair, doubled in enumerate(of_both_rows(bias)):
                for row in acc:
                    simd.store(row[PAIR * v + pair], 0, doubled)
        return acc

    def rows(self, place: TilePlace) -> list[Expr]:
        """Where those of the tile start. One that is beyond its group, to fill a pair, is some row
        instead."""
        rows = [place.a_at + i * self.row_stride for i in range(place.mr)]
        if self.spec.gather_side and self.spec.group_rows % PAIR:
            last = (self.spec.input_rows - 1) // PAIR * self.row_stride
            rows[-1] = T.bind(T.min(rows[-1], T.int32(last)))
        return rows

    def weights(
        self, place: TilePlace, w_at: Expr, first: Expr, count: int
    ) -> Callable[[int, int], Expr]:
        """What loads four k of a pair of columns, by number, from `first` on."""
        width = self.panels.width(place.width)
        w, start = self.w, w_at + QUAD * width * first
        if place.width == width:
            w, start = self.simd.isa.window(w, start, QUAD * width * count)

        def load(quad: int, pair: int) -> Expr:
            panel, column = divmod(PAIR * pair, width)
            at = start + QUAD * ((panel * self.quads + quad) * width + column)
            return T.bind(w.vload([at], f"{self.input_type}x{REGISTER}"))

        return load

    def step(
        self,
        acc: Accumulators,
        rows: list[Expr],
        quad: Expr,
        weight: Callable[[int], Expr],
        whole: bool = True,
    ) -> None:
        """Four steps of the depth; `whole`: whether all of them are there."""
        values = [self.pair(rows[i : i + PAIR], quad, whole) for i in range(0, len(rows), PAIR)]
        add_matrices(self.simd, acc, values, lambda some: [weight(j) for j in some], bfmmla)

    def pair(self, rows: list[Expr], quad: Expr, whole: bool) -> Expr:
        """Four k of two rows. Gathered rows are first ones of their pairs."""
        at = quad * REGISTER
        if self.spec.gather_side:
            parts = [self.a.vload([row + at], f"{self.input_type}x{QUAD}") for row in rows]
            value = concat(*parts)
        else:
            value = self.a.vload([rows[0] + at], f"{self.input_type}x{REGISTER}")
        if not whole:
            mask = T.int64((1 << 16 * (self.spec.depth % QUAD)) - 1)
            bits = T.reinterpret("int64x2", value) & T.broadcast(mask, 2)
            value = T.reinterpret(f"{self.input_type}x{REGISTER}", bits)
        return T.bind(value)

    def prefetch(self, place: TilePlace, w_at: Expr, first: Expr) -> None:
        """Of this tile's share of the panels that follow, what belongs to a turn: see
        RegisterTile."""
        if self.tiles_per_panel == 1:
            return
        width = self.panels.width(place.width)
        panels, turn = max(place.width // width, 1), QUAD * self.tile.depth_unroll * width
        mine = -(-turn // (LINE_HALVES * self.tiles_per_panel))
        for line in range(mine):
            for panel in range(panels, 2 * panels):
                at = w_at + QUAD * (panel * self.quads + first) * width
                self.simd.prefetch(self.w, at + (place.number * mine + line) * LINE_HALVES)

    def finish(self, acc: Accumulators, place: TilePlace) -> None:
        """The epilogue: sums by row -> activation -> + residual -> stored."""
        if self.spec.group_rows % PAIR == 0:
            self.store_rows(acc, place, range(place.mr))
            return
        self.store_rows(acc, place, range(place.mr - 1))
        block = place.number % self.blocks.count
        with T.If(block < self.blocks.count - 1), T.Then():
            self.store_rows(acc, place, range(place.mr - 1, place.mr))

    def store_rows(self, acc: Accumulators, place: TilePlace, rows: range) -> None:
        simd = self.simd
        for v in range(place.width // simd.lanes):
            column = T.bind(place.column + v * simd.lanes)
            for i in rows:
                sums = [simd.load(register, 0) for register in acc[i // PAIR][PAIR * v :][:PAIR]]
                z = T.bind(row_of_two(sums, i % PAIR))
                self.store_in_row(z, T.bind(place.row + i), column, v, place.width)
