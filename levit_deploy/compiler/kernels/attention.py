"""One attention layer of LeViT: scores, position bias, softmax, value product, hardswish.

    queries, keys, values in panels of 16 columns, mirrored bias  ->  (tokens, heads * value_dim)

A task is one head and one column of the query grid. Its queries share the horizontal part of the
position bias (see position_bias), and their scores stay in the L1 cache from the first product to
the second:

    score[row, key]  = bias + sum over d of query[row, d] * key[d]
    weight[row, key] = exp(score - maximum of the row)                        (see softmax)
    out[row]         = hardswish((sum over keys of weight * value) * (1 / sum of weights))

Both products are chains of fused multiply-adds in the order of d, from the bias on, and in the
order of the keys, from 0 on; so the result does not depend on tile, target or split of the tasks.
A head's keys are transposed once for all its tasks in a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention_columns import Columns, panels_size
from levit_deploy.compiler.kernels.attention_spec import (
    QUAD,
    AttentionSpec,
    AttentionTile,
    default_tile,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.compiler.kernels.product import add_products, for_steps
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.compiler.kernels.softmax import (
    ExpConstants,
    load_constants,
    rows_together,
    softmax_rows,
)
from levit_deploy.compiler.kernels.transpose import transpose_quads
from levit_deploy.targets.target import Target

__all__ = [
    "AttentionSpec",
    "AttentionTile",
    "attention_kernel",
    "default_tile",
    "is_supported",
    "pack_bias",
]

LINE_FLOATS = 16  # a cache line


def attention_kernel(
    symbol: str,
    spec: AttentionSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: qkv, or queries and keys_values; mirrored bias (of `pack_bias`), those of an
    `Output` of tokens, scratch."""
    return _Generator(symbol, spec, tile, target, stored).kernel()


@dataclass(frozen=True)
class _Block:
    """What a register tile is part of: queries (y + row, x) of a head."""

    head: Expr
    x: Expr
    y: Expr


class _Generator:
    def __init__(
        self,
        symbol: str,
        spec: AttentionSpec,
        tile: AttentionTile,
        target: Target,
        stored: Stored,
    ) -> None:
        self.symbol = symbol
        self.stored = stored
        self.spec = spec
        self.tile = tile
        self.simd = Simd(target)
        self.bias = spec.position_bias
        lanes = self.simd.lanes
        key_vectors = -(-spec.keys // lanes)
        self.padded_keys = key_vectors * lanes
        self.key_panels = Blocks.of(key_vectors, tile.score_columns // lanes)
        self.value_blocks = Blocks.of(spec.value_dim // lanes, tile.value_columns // lanes)

        self.head_columns = spec.key_dim * (2 if spec.fused_qkv else 1) + spec.value_dim
        self.kv_size = panels_size(spec.keys, spec.heads * self.head_columns)
        self.q_size = panels_size(spec.queries, spec.heads * spec.key_dim)

        self.scratch_size = 0
        self.keys_at = self.reserve(spec.key_dim * self.padded_keys)
        self.values_at = self.reserve(spec.value_dim * spec.keys)
        self.bias_at = self.reserve(self.bias.expanded_size(self.padded_keys))
        self.scores_at = self.reserve(tile.rows * self.padded_keys)
        self.inverse_at = self.reserve(tile.rows)
        self.constants_at = self.reserve(len(ExpConstants()) * lanes)

    @property
    def value_granule(self) -> int:
        """All blocks of values start at a column that is a multiple of it."""
        alike = self.value_blocks.large == self.value_blocks.count
        return math.gcd(
            self.spec.value_dim, self.simd.lanes * (self.value_blocks.size if alike else 1)
        )

    def reserve(self, size: int) -> int:
        """Where `size` values of the scratch buffer start, at a cache line."""
        start = self.scratch_size
        self.scratch_size += -(-size // LINE_FLOATS) * LINE_FLOATS
        return start

    def kernel(self) -> Kernel:
        spec = self.spec
        inputs = self.kv_size + (0 if spec.fused_qkv else self.q_size)
        outputs = spec.queries * spec.heads * spec.value_dim
        dims = f"{spec.key_dim}+{spec.value_dim}"
        return Kernel(
            symbol=self.symbol,
            func=self.func(),
            tasks=spec.heads * spec.query_side,
            scratch_bytes=4 * self.scratch_size,
            unaligned=(),
            kind="attention",
            shape=f"{spec.heads} heads {dims}, {spec.queries} queries {spec.keys} keys"
            + f" {self.stored}" * self.stored.quantized,
            tile=str(self.tile),
            multiply_adds=spec.heads * spec.queries * spec.keys * (spec.key_dim + spec.value_dim),
            bytes_moved=4 * (inputs + self.bias.packed_size(spec.heads))
            + self.stored.value_bytes * outputs,
        )

    def func(self) -> tirx.PrimFunc:
        spec, side, key = self.spec, self.spec.query_side, self.spec.key_dim
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.symbol)
            T.func_attr({"tirx.noalias": True})
            if spec.fused_qkv:
                qkv = _parameter("qkv", self.kv_size)
                self.q = Columns(qkv, spec.queries, self.head_columns, 0)
                self.k = Columns(qkv, spec.keys, self.head_columns, key)
                self.v = Columns(qkv, spec.keys, self.head_columns, 2 * key)
            else:
                self.q = Columns(_parameter("queries", self.q_size), spec.queries, key, 0)
                kv = _parameter("keys_values", self.kv_size)
                self.k = Columns(kv, spec.keys, self.head_columns, 0)
                self.v = Columns(kv, spec.keys, self.head_columns, key)
            mirrored = _parameter("mirrored_bias", self.bias.packed_size(spec.heads))
            self.output = Output.declare(
                self.stored,
                rows=spec.queries,
                channels=spec.heads * spec.value_dim,
                target=self.simd.target,
                granule=self.value_granule,
            )
            self.scratch = _parameter("scratch", self.scratch_size)
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())

            ExpConstants().store(self.simd, self.scratch, self.constants_at)
            values_in_place = self.v
            with T.serial(begin // side, (end + side - 1) // side) as head:
                self.transpose_keys(head)
                if self.v.granule < self.simd.lanes:
                    self.v = Columns(self.scratch, spec.keys, 0, 0, self.values_at)
                    self.copy_values(head, values_in_place)
                first = T.bind(T.max(begin - head * side, 0))
                with T.serial(first, T.min(end - head * side, side)) as x:
                    self.bias.expand(self.simd, mirrored, head, x, self.scratch, self.bias_at)
                    self.grid_column(head, x)
        return builder.get()

    def transpose_keys(self, head: Expr) -> None:
        """The head's keys as the weights of a matrix product: a panel of `score_columns` keys
        after the other, each [key_dim][keys]. The last vector is filled up with the last key."""
        spec, lanes = self.spec, self.simd.lanes

        def load(first_key: Expr, d: int) -> list[Expr]:
            """Values d ... d + 3 of a vector of keys."""
            keys = [first_key + i for i in range(lanes)]
            if spec.keys % lanes:
                keys = [T.min(key, spec.keys - 1) for key in keys]
            return [self.k.buffer.vload([self.k.at(head, d, key)], "float32x4") for key in keys]

        def panel(start: Expr | int, vectors: int) -> None:
            at = T.bind(self.keys_at + start * (lanes * spec.key_dim))
            for v in range(vectors):
                for d in range(0, spec.key_dim, QUAD):
                    rows = transpose_quads(load((start + v) * lanes, d))
                    for step, row in enumerate(rows):
                        place = ((d + step) * vectors + v) * lanes
                        self.simd.store(self.scratch, at + place, row)

        self.key_panels.each(panel)

    def copy_values(self, head: Expr, source: Columns) -> None:
        """Values whose columns lie across panels, into panels of their own."""
        with T.serial(self.spec.keys) as key:
            for column in range(0, self.spec.value_dim, QUAD):
                quad = source.buffer.vload([source.at(head, column, key)], "float32x4")
                T.buffer_store(self.scratch, quad, [T.ramp(self.v.at(0, column, key), 1, 4)])

    def grid_column(self, head: Expr, x: Expr) -> None:
        """All queries of column `x` of the grid, `tile.rows` at a time. The last block may redo
        queries of the one before."""
        side, rows = self.spec.query_side, self.tile.rows
        with T.serial(-(-side // rows)) as index:
            y = T.bind(T.min(index * rows, side - rows))
            block = _Block(head, x, y)

            def scores(vector: Expr | int, vectors: int) -> None:
                tiles = Blocks.of(rows, self.tile.score_rows)
                tiles.each(lambda row, mr: self.scores(block, row, mr, vector, vectors))

            def values(vector: Expr | int, vectors: int) -> None:
                tiles = Blocks.of(rows, self.tile.value_rows)
                tiles.each(lambda row, mr: self.values(block, row, mr, vector, vectors))

            self.key_panels.each(scores)
            constants = load_constants(self.simd, self.scratch, self.constants_at)

            def weights(row: Expr | int, count: int) -> None:
                some = [row + i for i in range(count)]
                at = [T.bind(self.scores_at + i * self.padded_keys) for i in some]
                inverses = softmax_rows(self.simd, self.scratch, at, self.spec.keys, constants)
                for i, inverse in zip(some, inverses, strict=True):
                    T.buffer_store(self.scratch, inverse, [self.inverse_at + i])

            Blocks.of(rows, rows_together(self.simd, self.spec.keys)).each(weights)
            self.value_blocks.each(values)

    def scores(
        self, block: _Block, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        """`mr` rows of scores, of the panel of keys that starts at vector `vector`."""
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        acc = [[simd.register() for _ in range(vectors)] for _ in range(mr)]
        for i in range(mr):
            bias = T.bind(self.bias_at + self.bias.row(block.y + row + i) + vector * lanes)
            for v in range(vectors):
                simd.store(acc[i][v], 0, simd.load(self.scratch, bias + v * lanes))
        query = T.bind((block.y + row) * spec.query_side + block.x)
        panel = T.bind(self.keys_at + vector * (lanes * spec.key_dim))
        run = math.gcd(self.q.granule, spec.key_dim)
        for first in range(0, spec.key_dim, run):
            tokens = [query + i * spec.query_side for i in range(mr)]
            at = [T.bind(self.q.at(block.head, first, token)) for token in tokens]

            def steps(d: Expr | int, count: int, at: list[Expr] = at, first: int = first) -> None:
                keys = T.bind(panel + (first + d) * (vectors * lanes))
                places = [
                    [keys + (k * vectors + v) * lanes for v in range(vectors)] for k in range(count)
                ]
                add_products(simd, acc, self.q.buffer, [a + d for a in at], self.scratch, places)

            for_steps(simd, run, steps)
        for i in range(mr):
            at = T.bind(self.scores_at + (row + i) * self.padded_keys + vector * lanes)
            for v in range(vectors):
                simd.store(self.scratch, at + v * lanes, simd.load(acc[i][v], 0))

    def values(
        self, block: _Block, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        """`mr` rows of the output, `vectors` vectors of the head's columns."""
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        acc = [[simd.register() for _ in range(vectors)] for _ in range(mr)]
        for i in range(mr):
            for v in range(vectors):
                simd.store(acc[i][v], 0, simd.splat(0.0))
        at = T.bind(self.scores_at + row * self.padded_keys)

        def steps(key: Expr | int, count: int) -> None:
            weights = [at + i * self.padded_keys + key for i in range(mr)]
            columns = [(vector + v) * lanes for v in range(vectors)]
            places = [[self.v.at(block.head, c, key + k) for c in columns] for k in range(count)]
            add_products(simd, acc, self.scratch, weights, self.v.buffer, places)

        for_steps(simd, spec.keys, steps)
        for i in range(mr):
            inverse = T.bind(simd.splat(self.scratch[self.inverse_at + row + i]))
            token = T.bind((block.y + row + i) * spec.query_side + block.x)
            channel = T.bind(block.head * spec.value_dim + vector * lanes)
            z = [T.bind(simd.load(register, 0) * inverse) for register in acc[i]]
            self.output.store(simd, token, channel, [simd.hardswish(value) for value in z])


def _parameter(name: str, size: int) -> tirx.Buffer:
    return T.arg(name, T.Buffer((size,), "float32"))
