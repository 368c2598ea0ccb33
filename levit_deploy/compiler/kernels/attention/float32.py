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

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.columns import Columns
from levit_deploy.compiler.kernels.attention.frame import AttentionFrame, QueryBlock
from levit_deploy.compiler.kernels.attention.product import add_products, for_steps
from levit_deploy.compiler.kernels.attention.score_rows import rows_together
from levit_deploy.compiler.kernels.attention.softmax import (
    ExpConstants,
    softmax_rows,
)
from levit_deploy.compiler.kernels.attention.spec import (
    QUAD,
    AttentionSpec,
    AttentionTile,
    default_tile,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.transpose import transpose_quads
from levit_deploy.compiler.kernels.isa.vector_constants import load_constants, store_constants
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.targets.target import Target

__all__ = [
    "AttentionSpec",
    "AttentionTile",
    "attention_kernel",
    "default_tile",
    "is_supported",
    "pack_bias",
]


def attention_kernel(
    symbol: str,
    spec: AttentionSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: qkv, or queries and keys_values; mirrored bias (of `pack_bias`), those of an
    `Output` of tokens, scratch."""
    return _FloatAttention(symbol, spec, tile, target, stored).kernel()


class _FloatAttention(AttentionFrame):
    kind = "attention"

    def __init__(
        self,
        symbol: str,
        spec: AttentionSpec,
        tile: AttentionTile,
        target: Target,
        stored: Stored,
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        self.keys_at = self.reserve(spec.key_dim * self.padded_keys)
        self.values_at = self.reserve(spec.value_dim * spec.keys)
        self.bias_at = self.reserve(self.bias.expanded_size(self.padded_keys))
        self.scores_at = self.reserve(tile.rows * self.padded_keys)
        self.inverse_at = self.reserve(tile.rows)
        self.constants_at = self.reserve(len(ExpConstants()) * self.simd.lanes)

    def start(self) -> None:
        store_constants(self.simd, self.scratch, self.constants_at, ExpConstants())
        self.values_in_place = self.v

    def start_head(self, head: Expr) -> None:
        self.transpose_keys(head)
        if self.values_in_place.granule < self.simd.lanes:
            self.v = Columns(self.scratch, self.spec.keys, 0, 0, self.values_at)
            self.copy_values(head, self.values_in_place)

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

    def scores(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
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

    def weights(self) -> None:
        count = len(ExpConstants())
        loads = load_constants(self.simd, self.scratch, self.constants_at, count)
        constants = ExpConstants(*loads)

        def some_rows(row: Expr | int, count: int) -> None:
            some = [row + i for i in range(count)]
            at = [T.bind(self.scores_at + i * self.padded_keys) for i in some]
            inverses = softmax_rows(self.simd, self.scratch, at, self.spec.keys, constants)
            for i, inverse in zip(some, inverses, strict=True):
                T.buffer_store(self.scratch, inverse, [self.inverse_at + i])

        together = rows_together(self.simd, self.spec.keys)
        Blocks.of(self.tile.rows, together).each(some_rows)

    def values(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
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
            z = [T.bind(simd.load(register, 0) * inverse) for register in acc[i]]
            self.store_output(block, row + i, vector, z)
