"""Products of small integers, as each target multiplies them: several integers a word of 32 bits.

    total += value * vector       word by word: the sum over the integers in a word

A word is in a float32 register whatever it holds, so that loads, stores, broadcasts and shuffles
are those of float kernels. Signed factors are in [-127, 127], weights in [0, 254].

    SdotWords        four bytes        a weight is stored less 128
    VpdpbusdWords    four bytes        one factor of a product is unsigned: keys are stored plus 128
    PairWords        two of 16 bits    pmaddwd
    FloatWords       one float32       exact in multiply-adds up to 2 ** 24

All are exact: totals are below 127 * 254 * keys, and FloatWords is for at most `MOST_KEYS`.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.product import Arithmetic
from levit_deploy.compiler.kernels.isa.integer_instructions import pmaddwd, sdot, vpdpbusd
from levit_deploy.compiler.kernels.isa.narrowing import (
    ROUNDING,
    ROUNDING_BITS,
    concat,
    saturate_to_8,
    saturate_to_16,
    shuffle,
)
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.targets.target import Int8Dot

LARGEST = 127  # of signed factors
LARGEST_WEIGHT = 254  # with half a step added to it, it still rounds to itself
MOST_KEYS = (1 << 24) // (LARGEST * LARGEST_WEIGHT)
COLUMNS = 16  # that are packed together
SIGN = 128  # added to a byte or taken from it, it flips the highest bit


class Words(ABC):
    """Integers arrive as float32 registers of x + ROUNDING, which hold 16 columns together.

    `instruction`: what multiplies, for people. `per_word`: integers in a word.
    `signed_weights`: weights are stored less 128. `unsigned_keys`: keys are stored plus 128.
    """

    instruction: str
    per_word: int
    signed_weights = False
    unsigned_keys = False

    def __init__(self, simd: Simd) -> None:
        self.simd = simd

    def exactness(self, key_dim: int, keys: int) -> str:
        """How far sums of `key_dim` products of keys, and of `keys` weights times values, can get
        in words; stored with 128 more or less, a factor adds as much at the start."""
        stored = 2 * SIGN if self.signed_weights or self.unsigned_keys else LARGEST_WEIGHT
        largest = LARGEST * stored * max(key_dim, -(-keys // COLUMNS) * COLUMNS)
        return f"{self.instruction}, 32 bits: at most {largest / 1e6:.1f} million"

    @property
    def of_keys(self) -> Arithmetic:
        """Values are queries, vectors keys."""
        return Arithmetic(self.splats, self.multiply_key)

    @property
    def of_values(self) -> Arithmetic:
        """Values are weights, vectors values."""
        return Arithmetic(self.splats, self.multiply_value)

    def splats(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> list[Expr]:
        """As Simd.splats."""
        return self.simd.splats(buffer, index, count)

    @abstractmethod
    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        """16 neighbouring integers as the words that hold them in order; `flip`: less 128, or plus
        it."""

    def pack_weights(self, rounded: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """As `pack`: 16 weights, with `weight_rounding` still added and without it."""
        return self.pack(rounded)

    @property
    def weight_rounding(self) -> float:
        """What rounds a weight when it is added, and leaves the weight as it is stored."""
        return ROUNDING - SIGN * self.signed_weights

    @abstractmethod
    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a query's word, and one of keys."""

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a row's weights, and one of values."""
        return self.multiply_key(weight, values, total)

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """Registers of sums of weights: each plus its register of 16 columns. `stored`: the same
        weights as words."""
        return [total + weight for total, weight in zip(sums, weights, strict=False)]

    def sum_of_weights(self, sums: list[Expr], columns: int) -> Expr:
        """One float32 from what `add_weights` made of so many columns in whole groups."""
        total = sums[0]
        for other in sums[1:]:
            total = T.bind(total + other)
        return self.simd.reduce(total, operator.add)

    def number(self, total: Expr) -> Expr:
        """A register of totals as float32, rounded to nearest."""
        return T.cast(T.reinterpret(f"int32x{self.simd.lanes}", total), self.simd.type())

    def interleave(self, rows: Sequence[Expr]) -> Expr:
        """`per_word` results of `pack` -> 16 words; word i holds integer i of every row."""
        kind = f"int{32 // self.per_word}x{COLUMNS}"
        vectors = [T.bind(T.reinterpret(kind, row)) for row in rows]
        order = [row * COLUMNS + i for i in range(COLUMNS) for row in range(self.per_word)]
        return T.reinterpret(f"float32x{COLUMNS}", shuffle(vectors, order))

    def _words16(self, numbers: Sequence[Expr]) -> Expr:
        """16 integers of 16 bits."""
        lanes = self.simd.lanes
        integers = [T.reinterpret(f"int32x{lanes}", number) for number in numbers]
        if lanes == COLUMNS or self.simd.neon:
            return T.cast(concat_all(integers), f"int16x{COLUMNS}")
        rounding = T.broadcast(T.int32(ROUNDING_BITS), lanes)
        integers = [integer - rounding for integer in integers]
        if lanes == COLUMNS // 2:
            return saturate_to_16(self.simd, integers)
        return concat(*(saturate_to_16(self.simd, integers[i : i + 2]) for i in (0, 2)))


class _ByteWords(Words):
    per_word = 4

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        words = self._words16(numbers)
        if self.simd.lanes == COLUMNS or self.simd.neon:
            integers = T.cast(words, f"int8x{COLUMNS}")
        else:
            integers = saturate_to_8(self.simd, words, "int8")
        if flip:
            integers = T.bitwise_xor(integers, T.broadcast(T.int8(-SIGN), COLUMNS))
        return T.reinterpret("float32x4", integers)

    def _bytes(self, word: Expr, kind: str = "int8") -> Expr:
        return T.reinterpret(f"{kind}x{4 * self.simd.lanes}", word)


class SdotWords(_ByteWords):
    instruction = "sdot"
    signed_weights = True

    def splats(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> list[Expr]:
        """Lanes of integers: sdot takes no others by element."""
        if count < self.simd.lanes:
            return super().splats(buffer, index, count)
        words = T.bind(T.reinterpret("int32x4", self.simd.load(buffer, index)))
        return [self.simd.lane(words, i) for i in range(count)]

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """One register for all 16 columns: they are the products with ones."""
        ones = T.broadcast(T.reinterpret("float32", T.int32(0x01010101)), self.simd.lanes)
        return [self.multiply_value(ones, stored, sums[0]), *sums[1:]]

    def sum_of_weights(self, sums: list[Expr], columns: int) -> Expr:
        lanes = T.reinterpret("int32x4", sums[0])
        return T.cast(self.simd.reduce(lanes, operator.add) + SIGN * columns, "float32")

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        total = T.reinterpret("int32x4", total)
        operands = total, self._bytes(keys), self._bytes(query)
        return T.reinterpret("float32x4", sdot(*operands))


class VpdpbusdWords(_ByteWords):
    instruction = "vpdpbusd"
    unsigned_keys = True

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        return self._dot(total, keys, query)

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        return self._dot(total, weight, values)

    def _dot(self, total: Expr, unsigned: Expr, signed: Expr) -> Expr:
        operands = self._bytes(unsigned, "uint8"), self._bytes(signed)
        total = vpdpbusd(T.reinterpret(f"int32x{self.simd.lanes}", total), *operands)
        return T.reinterpret(self.simd.type(), total)


class PairWords(Words):
    instruction = "pmaddwd"
    per_word = 2

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        assert not flip
        return T.reinterpret("float32x8", self._words16(numbers))

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        lanes = self.simd.lanes
        kind, pairs = f"int32x{lanes}", f"int16x{2 * lanes}"
        products = pmaddwd(T.reinterpret(pairs, query), T.reinterpret(pairs, keys))
        return T.reinterpret(
            self.simd.type(), self.simd.fence(T.reinterpret(kind, total) + products)
        )


class FloatWords(Words):
    instruction = "float32, below 2^24"
    per_word = 1

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        assert not flip
        rounding = self.simd.splat(ROUNDING)
        return concat_all([number - rounding for number in numbers])

    def pack_weights(self, rounded: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        return concat_all(weights)

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        return self.simd.fma(query, keys, total)

    def number(self, total: Expr) -> Expr:
        return total

    def interleave(self, rows: Sequence[Expr]) -> Expr:
        return rows[0]


def concat_all(vectors: Sequence[Expr]) -> Expr:
    """The concatenation of 1, 2, 4 ... vectors."""
    while len(vectors) > 1:
        vectors = [concat(*vectors[i : i + 2]) for i in range(0, len(vectors), 2)]
    return vectors[0]


def words_of(simd: Simd) -> Words:
    """As the target multiplies fastest."""
    kinds: dict[Int8Dot, type[Words]] = {
        Int8Dot.MADD: PairWords,
        Int8Dot.VPDPBUSD: VpdpbusdWords,
        Int8Dot.MLAL: FloatWords,
        Int8Dot.SDOT: SdotWords,
        Int8Dot.SMMLA: SdotWords,
    }
    return kinds[simd.target.int8_dot](simd)
