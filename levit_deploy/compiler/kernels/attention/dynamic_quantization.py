"""Dynamic quantization: queries, keys and values of one head as integers, scaled as they come.

    key[d]   = rint(k[d] * (127 / K[d]))             K[d], V[c]: largest |k[., d]|, |v[., c]|
    value[c] = rint(v[c] * (127 / V[c]))
    query[d] = rint(s[d] * (127 / S))                s[d] = q[d] * (K[d] / 127), S: largest |s[.]|

Nothing is cut off: |x| <= largest |x|, and every largest one is taken as at least 1e-30. What is
multiplied lies in the scratch buffer as words (see packed_dot).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.base import AttentionKernel, Columns
from levit_deploy.compiler.kernels.attention.packed_dot import COLUMNS, LARGEST, SIGN
from levit_deploy.compiler.kernels.attention.score_rows import combine_registers
from levit_deploy.compiler.kernels.attention.spec import QUAD
from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.isa.lanes import combine_each

LOG2_E = math.log2(math.e)
_SMALLEST = 1e-30  # of what is divided by


class DynamicallyQuantized(AttentionKernel):
    """An attention whose operands are rounded when a head starts.

    Of a query: `query_scale_at` its step times log2(e), `query_sum_at` what keys plus 128 add to
    its products. Of a channel of values: `value_scale_at` its step, `value_sum_at` what weights
    less 128 take from its products.
    """

    def reserve_operands(self) -> None:
        spec, self.dot = self.spec, self.simd.isa.products.dot(self.simd)
        per_word = self.dot.per_word
        self.key_words = spec.key_dim // per_word  # of a key, and of a query
        self.value_steps = -(-spec.keys // per_word)
        self.keys_at = self.reserve(self.key_words * self.padded_keys)
        self.queries_at = self.reserve(self.key_words * spec.queries)
        self.values_at = self.reserve(spec.value_dim * self.value_steps)

    def reserve_weights(self) -> None:
        """What is used less comes last: within 64 KiB, AArch64 adds an offset for nothing."""
        spec = self.spec
        self.row_words = -(-spec.keys // COLUMNS) * (COLUMNS // self.dot.per_word)  # of weights
        self.weights_at = self.reserve(self.tile.rows * self.row_words)
        self.rows_at = self.reserve(self.key_words * spec.keys)  # keys before their transposition
        self.key_scale_at = self.reserve(spec.key_dim)
        self.key_inverse_at = self.reserve(spec.key_dim)
        self.value_scale_at = self.reserve(spec.value_dim)
        self.value_inverse_at = self.reserve(spec.value_dim)
        self.value_sum_at = self.reserve(spec.value_dim)
        self.query_scale_at = self.reserve(spec.queries)
        self.query_sum_at = self.reserve(spec.queries)
        self.maxima_at = self.reserve(self.tile.rows)
        self.sums_at = self.reserve(self.tile.rows * self.simd.lanes)

    @property
    def exactness(self) -> str:
        return self.dot.exactness(self.spec.key_dim, self.spec.keys)

    def start_head(self, head: Expr) -> None:
        self.measure(head)
        self.round_keys(head)
        self.transpose_keys(self.key_words, self.key_quads)
        self.round_queries(head)
        self.round_values(head)

    def measure(self, head: Expr) -> None:
        """largest / 127 and 127 / largest of every channel of keys and values."""
        spec = self.spec
        channels = [
            (self.k, self.key_scale_at, self.key_inverse_at, first)
            for first in range(0, spec.key_dim, COLUMNS)
        ] + [
            (self.v, self.value_scale_at, self.value_inverse_at, first)
            for first in range(0, spec.value_dim, COLUMNS)
        ]
        for source, scale_at, inverse_at, first in channels:
            self.measure_16(head, source, first, scale_at + first, inverse_at + first)

    def measure_16(
        self, head: Expr, source: Columns, first: int, scale_at: int, inverse_at: int
    ) -> None:
        simd, keys = self.simd, self.spec.keys
        largest = [simd.register() for _ in range(COLUMNS // simd.lanes)]
        for register in largest:
            simd.store(register, 0, simd.splat(_SMALLEST))

        def some_keys(key: Expr | int, count: int) -> None:
            at = [T.bind(source.at(head, first, key + i)) for i in range(count)]
            for i, register in enumerate(largest):
                found = [simd.magnitude(simd.load(source.buffer, a + i * simd.lanes)) for a in at]
                most = combine_registers(found, simd.maximum)
                simd.store(register, 0, simd.maximum(simd.load(register, 0), most))

        Blocks.of(keys, QUAD).each(some_keys)
        for i, register in enumerate(largest):
            x, place = T.bind(simd.load(register, 0)), i * simd.lanes
            simd.store(self.scratch, scale_at + place, x * simd.splat(1 / LARGEST))
            simd.store(self.scratch, inverse_at + place, simd.splat(LARGEST) / x)

    def round_16(self, source: Columns, at: Expr, inverse_at: int) -> list[Expr]:
        """16 values from `at` on times their inverses."""
        simd = self.simd
        rounded = []
        for i in range(0, COLUMNS, simd.lanes):
            scaled = simd.load(source.buffer, at + i) * simd.load(self.scratch, inverse_at + i)
            rounded.append(T.bind(self.dot.rounded(scaled)))
        return rounded

    def round_keys(self, head: Expr) -> None:
        """Rows of words, as the queries' are."""
        with T.serial(self.spec.keys) as key:
            for column in range(0, self.spec.key_dim, COLUMNS):
                at = T.bind(self.k.at(head, column, key))
                rounded = self.round_16(self.k, at, self.key_inverse_at + column)
                place = key * self.key_words + column // self.dot.per_word
                self.store_words(
                    self.rows_at + place, self.dot.pack(rounded, self.dot.unsigned_keys)
                )

    def store_words(self, at: Expr | int, words: Expr) -> None:
        T.buffer_store(self.scratch, words, [T.ramp(at, 1, COLUMNS // self.dot.per_word)])

    def key_quads(self, keys: list[Expr]) -> Callable[[int], list[Expr]]:
        """See `QuadsOf`."""
        rows = [T.bind(self.rows_at + key * self.key_words) for key in keys]
        return lambda word: [self.scratch.vload([row + word], "float32x4") for row in rows]

    def round_queries(self, head: Expr) -> None:
        """Rows of words, their scales, and what keys plus 128 add to their scores."""
        Blocks.of(self.spec.queries, QUAD).each(
            lambda query, count: self.round_some_queries(head, [query + i for i in range(count)])
        )

    def round_some_queries(self, head: Expr, queries: Sequence[Expr | int]) -> None:
        simd, dot, first = self.simd, self.dot, queries[0]
        rows = [self.scaled_query(head, query) for query in queries]
        largest = [reduce(simd.maximum, map(simd.magnitude, row)) for row in rows]
        smallest = T.broadcast(T.float32(_SMALLEST), QUAD)
        most = T.bind(simd.maximum(combine_each(largest, simd.maximum), smallest))
        step = most * T.broadcast(T.float32(LOG2_E / LARGEST), QUAD)
        self.store_quad(self.query_scale_at + first, step)
        inverse = T.bind(T.broadcast(T.float32(LARGEST), QUAD) / most)
        per_column = COLUMNS // simd.lanes
        totals = []
        for i, (query, row) in enumerate(zip(queries, rows, strict=True)):
            factor = T.bind(simd.splat(simd.extract(inverse, i)))
            rounded = [T.bind(dot.rounded(x * factor)) for x in row]
            for column in range(0, self.spec.key_dim, COLUMNS):
                start = column // simd.lanes
                packed = dot.pack(rounded[start : start + per_column])
                place = query * self.key_words + column // dot.per_word
                self.store_words(self.queries_at + place, packed)
            totals.append(
                reduce(operator.add, (T.reinterpret(f"int32x{simd.lanes}", x) for x in rounded))
            )
        if dot.unsigned_keys:
            excess = combine_each(totals, operator.add) * T.broadcast(T.int32(-SIGN), QUAD)
            self.store_quad(self.query_sum_at + first, T.reinterpret("float32x4", excess))

    def scaled_query(self, head: Expr, query: Expr | int) -> list[Expr]:
        """Registers of a query times the steps of the keys."""
        simd, scaled = self.simd, []
        for column in range(0, self.spec.key_dim, COLUMNS):
            at = T.bind(self.q.at(head, column, query))
            for i in range(0, COLUMNS, simd.lanes):
                scale = simd.load(self.scratch, self.key_scale_at + column + i)
                scaled.append(T.bind(simd.load(self.q.buffer, at + i) * scale))
        return scaled

    def store_quad(self, at: Expr | int, values: Expr) -> None:
        """Of up to four rows; where there are fewer, what lies behind is written later."""
        T.buffer_store(self.scratch, values, [T.ramp(at, 1, QUAD)])

    def round_values(self, head: Expr) -> None:
        """[value_steps][value_dim] words of neighbouring keys; past the last key it is repeated,
        and meets weights of 0. With weights less 128: what that takes from the sums, too."""
        spec, dot = self.spec, self.dot
        with T.serial(self.value_steps) as step:
            keys = [
                T.bind(T.min(step * dot.per_word + i, spec.keys - 1)) for i in range(dot.per_word)
            ]
            for column in range(0, spec.value_dim, COLUMNS):
                inverse_at = self.value_inverse_at + column
                rows = [
                    self.round_16(self.v, T.bind(self.v.at(head, column, key)), inverse_at)
                    for key in keys
                ]
                place = self.values_at + step * spec.value_dim + column
                for i, words in enumerate(dot.interleave(rows)):
                    self.simd.store(self.scratch, place + i * self.simd.lanes, words)
        if dot.signed_weights:
            self.sum_values()

    def sum_values(self) -> None:
        """128 times the sums of the columns of values."""
        spec, simd = self.spec, self.simd
        once = simd.splat(T.reinterpret("float32", T.int32(0x01010101)))
        for column in range(0, spec.value_dim, simd.lanes):
            total = simd.register()
            simd.store(total, 0, simd.splat(0.0))
            with T.serial(self.value_steps) as step:
                values = simd.load(self.scratch, self.values_at + step * spec.value_dim + column)
                added = self.dot.multiply_value(once, values, simd.load(total, 0))
                simd.store(total, 0, added)
            kind = f"int32x{simd.lanes}"
            sums = T.reinterpret(kind, simd.load(total, 0)) * T.broadcast(T.int32(SIGN), simd.lanes)
            simd.store(self.scratch, self.value_sum_at + column, T.reinterpret(simd.type(), sums))
