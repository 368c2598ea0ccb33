"""Attention whose two products are of 8-bit integers, made of float queries, keys and values.

    queries, keys, values in panels of 16 columns, mirrored bias  ->  (tokens, heads * value_dim)

The kernel rounds its operands itself, for every head of every image anew (see attention_operands),
so nothing is calibrated, and nothing saturates. K, S and V being what their steps are made of:

    score[row, key]  = (sum over d of query[row, d] * key[d]) * S log2(e) / 127 + bias * log2(e)
    weight[row, key] = 0 ... 254                                     (see integer_weights)
    out[row, c]      = hardswish((sum over keys of weight * value[c]) / sum of weights * V[c] / 127)

Sums of products are exact (see words); scores are logarithms to the base 2. Every line is one
rounding of float32 for each of its operations, in an order that no target changes; a score is one
fused multiply-add.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention import spec as attention_spec
from levit_deploy.compiler.kernels.attention.frame import QueryBlock
from levit_deploy.compiler.kernels.attention.integer_weights import (
    WeightConstants,
    rows_together,
    weigh_rows,
)
from levit_deploy.compiler.kernels.attention.operands import LOG2_E, RoundedOperands
from levit_deploy.compiler.kernels.attention.product import add_products, for_steps
from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.attention.words import COLUMNS, MOST_KEYS
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.vector_constants import load_constants, store_constants
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.targets.target import Int8Dot, Target


def is_supported(spec: AttentionSpec) -> bool:
    """Whether `attention_int8_kernel` can make it; every LeViT's attention at 224 pixels is."""
    whole = spec.key_dim % COLUMNS == 0 and spec.value_dim % COLUMNS == 0
    return whole and spec.keys <= MOST_KEYS


def default_tile(spec: AttentionSpec, target: Target) -> AttentionTile:
    """That of the float kernel; a product that is added by an instruction of its own takes one
    register more, so perhaps one row less (Zen 4, AVX2: 3 % of 196 keys)."""
    tile = attention_spec.default_tile(spec, target)
    if target.int8_dot is not Int8Dot.MADD:
        return tile

    def fewer(rows: int, columns: int) -> int:
        vectors = columns // target.float_lanes
        return min(rows, max((target.vector_registers - 2) // vectors - 1, 1))

    return replace(
        tile,
        score_rows=fewer(tile.score_rows, tile.score_columns),
        value_rows=fewer(tile.value_rows, tile.value_columns),
    )


def pack_bias(table: NDArray[np.float32], spec: AttentionSpec) -> NDArray[np.float32] | None:
    """The kernel's flat constant from `table` (heads, queries, keys), as attention.pack_bias."""
    base_2 = (table.astype(np.float64) * LOG2_E).astype(np.float32)
    return attention_spec.pack_bias(base_2, spec)


def attention_int8_kernel(
    symbol: str,
    spec: AttentionSpec,
    tile: AttentionTile,
    target: Target,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: as `attention_kernel`; mirrored bias of this file's `pack_bias`."""
    return _Int8Attention(symbol, spec, tile, target, stored).kernel()


class _Int8Attention(RoundedOperands):
    kind = "attention int8"

    def __init__(
        self,
        symbol: str,
        spec: AttentionSpec,
        tile: AttentionTile,
        target: Target,
        stored: Stored,
    ) -> None:
        super().__init__(symbol, spec, tile, target, stored)
        per_group = COLUMNS // self.words.per_word
        self.row_words = -(-spec.keys // COLUMNS) * per_group  # of a row of weights
        self.bias_at = self.reserve(self.bias.expanded_size(self.padded_keys))
        self.scores_at = self.reserve(tile.rows * self.padded_keys)
        self.weights_at = self.reserve(tile.rows * self.row_words)
        self.reserve_steps()
        self.inverse_at = self.reserve(tile.rows)
        self.constants_at = self.reserve(len(WeightConstants()) * self.simd.lanes)
        self.exactness = self.words.exactness(spec.key_dim, spec.keys)

    def start(self) -> None:
        constants = WeightConstants(rounding=self.words.weight_rounding)
        store_constants(self.simd, self.scratch, self.constants_at, constants)

    def scores(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        tokens = [T.bind((block.y + row + i) * spec.query_side + block.x) for i in range(mr)]
        acc = [[simd.register() for _ in range(vectors)] for _ in range(mr)]
        for token, registers in zip(tokens, acc, strict=True):
            start = simd.splat(0.0)
            if self.words.unsigned_keys:
                start = T.bind(simd.splat(self.scratch[self.query_sum_at + token]))
            for register in registers:
                simd.store(register, 0, start)
        queries = [T.bind(self.queries_at + token * self.key_words) for token in tokens]
        panel = T.bind(self.keys_at + vector * (lanes * self.key_words))

        def steps(word: Expr | int, count: int) -> None:
            keys = T.bind(panel + word * (vectors * lanes))
            places = [
                [keys + (k * vectors + v) * lanes for v in range(vectors)] for k in range(count)
            ]
            at = [query + word for query in queries]
            add_products(simd, acc, self.scratch, at, self.scratch, places, self.words.of_keys)

        for_steps(simd, self.key_words, steps)
        for i, token in enumerate(tokens):
            scale = T.bind(simd.splat(self.scratch[self.query_scale_at + token]))
            bias = T.bind(self.bias_at + self.bias.row(block.y + row + i) + vector * lanes)
            biases, bias = simd.window(self.scratch, bias, vectors * lanes)
            at = T.bind(self.scores_at + (row + i) * self.padded_keys + vector * lanes)
            scores, at = simd.window(self.scratch, at, vectors * lanes)
            for v in range(vectors):
                product = self.words.number(simd.load(acc[i][v], 0))
                score = simd.fma(product, scale, simd.load(biases, bias + v * lanes))
                simd.store(scores, at + v * lanes, score)

    def weights(self) -> None:
        count = len(WeightConstants())
        loads = load_constants(self.simd, self.scratch, self.constants_at, count)
        constants = WeightConstants(*loads)

        def some_rows(row: Expr | int, count: int) -> None:
            some = [row + i for i in range(count)]
            starts = [T.bind(self.scores_at + i * self.padded_keys) for i in some]
            rows = ScoreRows(self.simd, self.scratch, starts, self.spec.keys)
            at = [T.bind(self.weights_at + i * self.row_words) for i in some]
            inverses = weigh_rows(rows, self.words, at, constants)
            for i, inverse in zip(some, inverses, strict=True):
                T.buffer_store(self.scratch, inverse, [self.inverse_at + i])

        together = rows_together(self.simd, self.spec.keys)
        Blocks.of(self.tile.rows, together).each(some_rows)

    def values(
        self, block: QueryBlock, row: Expr | int, mr: int, vector: Expr | int, vectors: int
    ) -> None:
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        acc = [[simd.register() for _ in range(vectors)] for _ in range(mr)]
        first = T.bind(vector * lanes)
        for v in range(vectors):
            start = simd.splat(0.0)
            if self.words.signed_weights:
                start = T.bind(simd.load(self.scratch, self.value_sum_at + first + v * lanes))
            for registers in acc:
                simd.store(registers[v], 0, start)
        rows = T.bind(self.weights_at + row * self.row_words)
        panel = T.bind(self.values_at + first)

        def steps(step: Expr | int, count: int) -> None:
            at = [rows + i * self.row_words + step for i in range(mr)]
            places = [
                [panel + (step + k) * spec.value_dim + v * lanes for v in range(vectors)]
                for k in range(count)
            ]
            add_products(simd, acc, self.scratch, at, self.scratch, places, self.words.of_values)

        for_steps(simd, self.value_steps, steps)
        scales = [
            T.bind(simd.load(self.scratch, self.value_scale_at + first + v * lanes))
            for v in range(vectors)
        ]
        for i, registers in enumerate(acc):
            inverse = T.bind(simd.splat(self.scratch[self.inverse_at + row + i]))
            means = [
                T.bind(self.words.number(simd.load(register, 0)) * inverse)
                for register in registers
            ]
            z = [T.bind(mean * scale) for mean, scale in zip(means, scales, strict=True)]
            self.store_output(block, row + i, vector, z)
