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

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.base import AttentionKernel, Columns, QueryTile
from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows, rows_together
from levit_deploy.compiler.kernels.attention.softmax import softmax_rows
from levit_deploy.compiler.kernels.attention.spec import QUAD, AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.exponential import ExpConstants
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import (
    Arithmetic,
    accumulators,
    add_products,
    for_steps,
)
from levit_deploy.targets.target import Target


def attention_kernel(
    symbol: str,
    spec: AttentionSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: qkv, or queries and keys_values; mirrored bias (of `pack_bias`), those of an
    `Output` of tokens, scratch."""
    return FloatAttention(symbol, spec, tile, target, stored).kernel()


class FloatAttention(AttentionKernel):
    """Subclasses have operands in fewer bits, several of which one step multiplies."""

    kind = "attention"
    constants = ExpConstants()
    # Neighbouring d, or keys, that one step of a product takes.
    step: ClassVar[int] = 1

    @property
    def key_steps(self) -> int:
        """Of the product of weights and values."""
        return -(-self.spec.keys // self.step)

    def arithmetic(self) -> Arithmetic | None:
        """Of both products, whose factors are words of `step` values; None: float32's."""
        return None

    def reserve_operands(self) -> None:
        self.keys_at = self.reserve(self.spec.key_dim // self.step * self.padded_keys)
        self.values_at = self.reserve(self.spec.value_dim * self.key_steps)

    def reserve_weights(self) -> None:
        """None: they take the place of their scores."""
        self.weights_at, self.weight_stride = self.scores_at, self.padded_keys

    def start_head(self, head: Expr) -> None:
        def quads_of(keys: list[Expr]) -> Callable[[int], list[Expr]]:
            return lambda d: [
                self.k.buffer.vload([self.k.at(head, d, key)], "float32x4") for key in keys
            ]

        self.transpose_keys(self.spec.key_dim, quads_of)
        if self.v.alignment < self.simd.lanes:
            source, self.v = self.v, Columns(self.scratch, self.spec.keys, 0, 0, self.values_at)
            self.copy_values(head, source)

    def copy_values(self, head: Expr, source: Columns) -> None:
        """Values whose columns lie across panels, into panels of their own."""
        with T.serial(self.spec.keys) as key:
            for column in range(0, self.spec.value_dim, QUAD):
                quad = source.buffer.vload([source.at(head, column, key)], "float32x4")
                T.buffer_store(self.scratch, quad, [T.ramp(self.v.at(0, column, key), 1, 4)])

    def scores(self, tile: QueryTile) -> None:
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        vectors = range(tile.vectors)
        acc = accumulators(simd, tile.mr, tile.vectors)
        for i, registers in enumerate(acc):
            row = self.bias.row(tile.y + tile.row + i)
            bias = T.bind(self.bias_at + row + tile.vector * lanes)
            for v in vectors:
                simd.store(registers[v], 0, simd.load(self.scratch, bias + v * lanes))
        query = T.bind((tile.y + tile.row) * spec.query_side + tile.x)
        words = spec.key_dim // self.step
        panel = T.bind(self.keys_at + tile.vector * (lanes * words))
        run = math.gcd(self.q.alignment, spec.key_dim) // self.step
        for first in range(0, words, run):
            tokens = [query + i * spec.query_side for i in range(tile.mr)]
            places = [self.q.at(tile.head, first * self.step, token) for token in tokens]
            at = [T.bind(place // self.step) for place in places]

            def steps(d: Expr | int, count: int, at: list[Expr] = at, first: int = first) -> None:
                keys = T.bind(panel + (first + d) * (tile.vectors * lanes))
                places = [
                    [keys + (k * tile.vectors + v) * lanes for v in vectors] for k in range(count)
                ]
                values_at = [a + d for a in at]
                arithmetic = self.arithmetic()
                add_products(simd, acc, self.q.buffer, values_at, self.scratch, places, arithmetic)

            for_steps(simd, run, steps)
        for i, registers in enumerate(acc):
            row = (tile.row + i) * self.padded_keys
            at = T.bind(self.scores_at + row + tile.vector * lanes)
            for v in vectors:
                simd.store(self.scratch, at + v * lanes, simd.load(registers[v], 0))

    def weights(self) -> None:
        constants = ExpConstants(*self.loaded_constants())

        def some_rows(row: Expr | int, count: int) -> None:
            rows = self.score_rows(row, count)
            inverses = softmax_rows(rows, constants, partial(self.keep_weights, rows))
            for i, inverse in enumerate(inverses):
                T.buffer_store(self.scratch, inverse, [self.inverse_at + row + i])

        Blocks.of(self.tile.rows, rows_together(self.simd, self.spec.keys)).each(some_rows)

    def keep_weights(self, rows: ScoreRows, row: int, column: Expr | int, value: Expr) -> None:
        """Store a register of weights of a row."""
        self.simd.store(self.scratch, rows.starts[row] + column, value)

    def values(self, tile: QueryTile) -> None:
        simd = self.simd
        acc = accumulators(simd, tile.mr, tile.vectors)
        for register in itertools.chain(*acc):
            simd.store(register, 0, simd.splat(0.0))
        at = T.bind(self.weights_at + tile.row * self.weight_stride)
        columns = [(tile.vector + v) * simd.lanes for v in range(tile.vectors)]

        def steps(key: Expr | int, count: int) -> None:
            weights = [at + i * self.weight_stride + key for i in range(tile.mr)]
            places = [[self.v.at(tile.head, c, key + k) for c in columns] for k in range(count)]
            arithmetic = self.arithmetic()
            add_products(simd, acc, self.scratch, weights, self.v.buffer, places, arithmetic)

        for_steps(simd, self.key_steps, steps)
        for i, registers in enumerate(acc):
            inverse = T.bind(simd.splat(self.scratch[self.inverse_at + tile.row + i]))
            z = [T.bind(simd.load(register, 0) * inverse) for register in registers]
            self.store_output(tile, i, z)
