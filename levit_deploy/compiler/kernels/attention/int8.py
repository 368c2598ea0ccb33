"""Attention whose two products are of 8-bit integers, made of float queries, keys and values.

    queries, keys, values in panels of 16 columns, mirrored bias  ->  (tokens, heads * value_dim)

The kernel rounds its operands itself, for every head of every image anew (see
dynamic_quantization),
so nothing is calibrated, and nothing saturates. K, S and V being what their steps are made of:

    score[row, key]  = (sum over d of query[row, d] * key[d]) * S log2(e) / 127 + bias * log2(e)
    weight[row, key] = 0 ... 254                                     (see error_diffusion)
    out[row, c]      = hardswish((sum over keys of weight * value[c]) / sum of weights * V[c] / 127)

Sums of products are exact (see packed_dot); scores are logarithms to the base 2. Every line is one
rounding of float32 for each of its operations, in an order that no target changes; a score is one
fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention import spec as attention_spec
from levit_deploy.compiler.kernels.attention.base import QueryTile
from levit_deploy.compiler.kernels.attention.dynamic_quantization import (
    LOG2_E,
    DynamicallyQuantized,
)
from levit_deploy.compiler.kernels.attention.error_diffusion import (
    WeightConstants,
    weigh_rows,
)
from levit_deploy.compiler.kernels.attention.packed_dot import COLUMNS
from levit_deploy.compiler.kernels.attention.score_rows import partial_registers, rows_together
from levit_deploy.compiler.kernels.attention.spec import QUAD, AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.lanes import combine_each
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.product import (
    Accumulators,
    accumulators,
    add_products,
    for_steps,
)
from levit_deploy.targets.target import Target


def is_supported(spec: AttentionSpec) -> bool:
    """Whether `attention_int8_kernel` can make it; that of every LeViT is."""
    return spec.key_dim % COLUMNS == 0 and spec.value_dim % COLUMNS == 0


def default_tile(spec: AttentionSpec, target: Target) -> AttentionTile:
    """That of the float kernel; a product that is added by an instruction of its own takes one
    register more, so perhaps one row less."""
    tile, isa = attention_spec.default_tile(spec, target), isa_of(target)
    if not isa.products.dot.adds_apart:
        return tile

    def fewer(rows: int, columns: int) -> int:
        vectors = columns // isa.lanes
        return min(rows, max((isa.registers - 2) // vectors - 1, 1))

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


class _Int8Attention(DynamicallyQuantized):
    kind = "attention int8"

    def reserve_operands(self) -> None:
        super().reserve_operands()
        self.constants = WeightConstants(rounding=self.dot.weight_rounding)

    def scores(self, tile: QueryTile) -> None:
        spec, simd, lanes = self.spec, self.simd, self.simd.lanes
        vectors = range(tile.vectors)
        tokens = [
            T.bind((tile.y + tile.row + i) * spec.query_side + tile.x) for i in range(tile.mr)
        ]
        acc = accumulators(simd, tile.mr, tile.vectors)
        for token, registers in zip(tokens, acc, strict=True):
            start = simd.splat(0.0)
            if self.dot.unsigned_keys:
                start = T.bind(simd.splat(self.scratch[self.query_sum_at + token]))
            for register in registers:
                simd.store(register, 0, start)
        queries = [T.bind(self.queries_at + token * self.key_words) for token in tokens]
        panel = T.bind(self.keys_at + tile.vector * (lanes * self.key_words))

        def steps(word: Expr | int, count: int) -> None:
            keys = T.bind(panel + word * (tile.vectors * lanes))
            places = [
                [keys + (k * tile.vectors + v) * lanes for v in vectors] for k in range(count)
            ]
            at = [query + word for query in queries]
            add_products(simd, acc, self.scratch, at, self.scratch, places, self.dot.of_keys)

        for_steps(simd, self.key_words, steps)
        for i, (token, registers) in enumerate(zip(tokens, acc, strict=True)):
            scale = T.bind(simd.splat(self.scratch[self.query_scale_at + token]))
            row = self.bias.row(tile.y + tile.row + i)
            at = T.bind(self.bias_at + row + tile.vector * lanes)
            biases = simd.isa.load_row(simd, self.scratch, at, tile.vectors)
            row = (tile.row + i) * self.padded_keys
            at = T.bind(self.scores_at + row + tile.vector * lanes)
            for v, (register, bias) in enumerate(zip(registers, biases, strict=True)):
                product = self.dot.finalize(simd.load(register, 0))
                simd.store(self.scratch, at + v * lanes, simd.fma(product, scale, bias))

    def weights(self) -> None:
        """Maxima, weights, inverses of their sums: what goes across the lanes of a row is done for
        four rows at a time."""
        simd, keys = self.simd, self.spec.keys
        constants = WeightConstants(*self.loaded_constants())

        def maxima(row: Expr | int, count: int) -> None:
            partial = self.score_rows(row, count).partial_maxima()
            self.store_quad(self.maxima_at + row, combine_each(partial, simd.maximum))

        def weights(row: Expr | int, count: int) -> None:
            numbers = [row + i for i in range(count)]
            largest = [T.bind(simd.splat(self.scratch[self.maxima_at + i])) for i in numbers]
            at = [T.bind(self.weights_at + i * self.row_words) for i in numbers]
            totals = weigh_rows(self.score_rows(row, count), largest, self.dot, at, constants)
            for i, total in zip(numbers, totals, strict=True):
                simd.store(self.scratch, self.sums_at + i * simd.lanes, total)

        def inverses(row: Expr | int, count: int) -> None:
            places = [self.sums_at + (row + i) * simd.lanes for i in range(count)]
            totals = [T.bind(simd.load(self.scratch, place)) for place in places]
            sums = self.dot.sums_of_weights(totals, keys)
            self.store_quad(self.inverse_at + row, T.broadcast(T.float32(1), QUAD) / sums)

        at_once = simd.isa.registers // 2 // partial_registers(simd, keys)
        for step, rows in (
            (maxima, min(at_once, QUAD)),
            (weights, rows_together(simd, keys)),
            (inverses, QUAD),
        ):
            Blocks.of(self.tile.rows, rows).each(step)

    def values(self, tile: QueryTile) -> None:
        simd, lanes = self.simd, self.simd.lanes
        vectors = range(tile.vectors)
        acc = accumulators(simd, tile.mr, tile.vectors)
        first = T.bind(tile.vector * lanes)
        for v in vectors:
            start = simd.splat(0.0)
            if self.dot.signed_weights:
                start = T.bind(simd.load(self.scratch, self.value_sum_at + first + v * lanes))
            for registers in acc:
                simd.store(registers[v], 0, start)
        rows = T.bind(self.weights_at + tile.row * self.row_words)
        panel = T.bind(self.values_at + first)

        def steps(step: Expr | int, count: int) -> None:
            at = [rows + i * self.row_words + step for i in range(tile.mr)]
            places = [
                [panel + (step + k) * self.spec.value_dim + v * lanes for v in vectors]
                for k in range(count)
            ]
            add_products(simd, acc, self.scratch, at, self.scratch, places, self.dot.of_values)

        self.add_exactly(acc, steps)
        scales = [
            T.bind(simd.load(self.scratch, self.value_scale_at + first + v * lanes))
            for v in vectors
        ]
        for i, registers in enumerate(acc):
            inverse = T.bind(simd.splat(self.scratch[self.inverse_at + tile.row + i]))
            means = [T.bind(self.dot.finalize(simd.load(r, 0)) * inverse) for r in registers]
            z = [T.bind(mean * scale) for mean, scale in zip(means, scales, strict=True)]
            self.store_output(tile, i, z)

    def add_exactly(self, acc: Accumulators, steps: Callable[[Expr | int, int], None]) -> None:
        """All `value_steps`; where floats would not hold their totals, in parts."""
        simd, count = self.simd, self.value_steps
        part = self.dot.exact_steps or count
        if count <= part:
            for_steps(simd, count, steps)
            return
        totals = accumulators(simd, len(acc), len(acc[0]), "int32")
        kind = f"int32x{simd.lanes}"
        pairs = [pair for row in zip(acc, totals, strict=True) for pair in zip(*row, strict=True)]
        for _, total in pairs:
            simd.store(total, 0, T.broadcast(T.int32(0), simd.lanes))

        def add(first: Expr | int, steps_here: int) -> None:
            for_steps(simd, steps_here, lambda step, some: steps(first + step, some))
            for register, total in pairs:
                added = T.cast(simd.load(register, 0), kind)
                simd.store(total, 0, simd.load(total, 0) + added)
                simd.store(register, 0, simd.splat(0.0))

        with T.serial(count // part) as whole:
            add(whole * part, part)
        if count % part:
            add(count - count % part, count % part)
        for register, total in pairs:
            simd.store(register, 0, T.cast(simd.load(total, 0), simd.type()))
