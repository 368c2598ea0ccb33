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
from collections.abc import Callable

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.base import AttentionKernel, Columns
from levit_deploy.compiler.kernels.attention.packed_dot import COLUMNS, LARGEST, SIGN
from levit_deploy.compiler.kernels.isa.simd import ROUNDING

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

    @property
    def exactness(self) -> str:
        return self.dot.exactness(self.spec.key_dim, self.spec.keys)

    def start_head(self, head: Expr) -> None:
        spec = self.spec
        for column in range(0, spec.key_dim, COLUMNS):
            self.measure(head, self.k, column, self.key_scale_at, self.key_inverse_at)
        for column in range(0, spec.value_dim, COLUMNS):
            self.measure(head, self.v, column, self.value_scale_at, self.value_inverse_at)
        self.round_keys(head)
        self.transpose_keys(self.key_words, self.key_quads)
        self.round_queries(head)
        self.round_values(head)

    def measure(
        self, head: Expr, source: Columns, first: int, scale_at: int, inverse_at: int
    ) -> None:
        """largest / 127 and 127 / largest of 16 columns from `first` on."""
        simd = self.simd
        count = COLUMNS // simd.lanes
        largest = [simd.register() for _ in range(count)]
        for register in largest:
            simd.store(register, 0, simd.splat(_SMALLEST))
        with T.serial(self.spec.keys) as key:
            at = T.bind(source.at(head, first, key))
            for i, register in enumerate(largest):
                x = simd.magnitude(simd.load(source.buffer, at + i * simd.lanes))
                simd.store(register, 0, simd.maximum(simd.load(register, 0), x))
        for i, register in enumerate(largest):
            x = T.bind(simd.load(register, 0))
            place = first + i * simd.lanes
            simd.store(self.scratch, scale_at + place, x * simd.splat(1 / LARGEST))
            simd.store(self.scratch, inverse_at + place, simd.splat(LARGEST) / x)

    def round_16(self, source: Columns, at: Expr, inverse_at: int) -> list[Expr]:
        """16 values from `at` on times their inverses, ROUNDING added."""
        simd = self.simd
        rounded = []
        for i in range(0, COLUMNS, simd.lanes):
            scaled = simd.load(source.buffer, at + i) * simd.load(self.scratch, inverse_at + i)
            rounded.append(self.add_rounding(scaled))
        return rounded

    def add_rounding(self, x: Expr) -> Expr:
        return T.bind(self.simd.fence(self.simd.fence(x) + self.simd.splat(ROUNDING)))

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
        simd, dot, lanes = self.simd, self.dot, self.simd.lanes
        with T.serial(self.spec.queries) as query:
            scaled = []
            for column in range(0, self.spec.key_dim, COLUMNS):
                at = T.bind(self.q.at(head, column, query))
                for i in range(0, COLUMNS, lanes):
                    scale = simd.load(self.scratch, self.key_scale_at + column + i)
                    scaled.append(T.bind(simd.load(self.q.buffer, at + i) * scale))
            largest = simd.magnitude(scaled[0])
            for x in scaled[1:]:
                largest = T.bind(simd.maximum(largest, simd.magnitude(x)))
            most = T.bind(T.max(simd.reduce(largest, T.max), T.float32(_SMALLEST)))
            inverse = T.bind(simd.splat(T.float32(LARGEST) / most))
            scale = most * T.float32(LOG2_E / LARGEST)
            T.buffer_store(self.scratch, scale, [self.query_scale_at + query])
            rounded = [self.add_rounding(x * inverse) for x in scaled]
            per_column = COLUMNS // lanes
            for column in range(0, self.spec.key_dim, COLUMNS):
                first = column // lanes
                packed = dot.pack(rounded[first : first + per_column])
                place = query * self.key_words + column // dot.per_word
                self.store_words(self.queries_at + place, packed)
            if dot.unsigned_keys:
                numbers = [x - simd.splat(ROUNDING) for x in rounded]
                total = numbers[0]
                for number in numbers[1:]:
                    total = T.bind(total + number)
                excess = T.cast(simd.reduce(total, operator.add), "int32") * -SIGN
                word = T.reinterpret("float32", excess)
                T.buffer_store(self.scratch, word, [self.query_sum_at + query])

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
                rows = []
                for key in keys:
                    at = T.bind(self.v.at(head, column, key))
                    rows.append(T.bind(dot.pack(self.round_16(self.v, at, inverse_at))))
                place = self.values_at + step * spec.value_dim + column
                T.buffer_store(self.scratch, dot.interleave(rows), [T.ramp(place, 1, COLUMNS)])
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
