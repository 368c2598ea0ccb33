"""Products of small integers, of which several are packed into a word of 32 bits.

    total += value * vector       word by word: the sum over the integers in a word

A word is in a float32 register whatever it holds, so that loads, stores, broadcasts and shuffles
are those of float kernels. Signed factors are in [-127, 127], weights in [0, 254].

    PackedSdot        four bytes        a weight is stored less 128
    PackedVpdpbusd    four bytes        one factor is unsigned: keys are stored plus 128
    PackedPmaddwd     two of 16 bits
    PackedFloat       one float32       exact in multiply-adds up to 2 ** 24

All are exact: totals are below 127 * 254 * keys. Of more keys than `exact_steps` a product is made
in parts, whose totals are added as 32-bit integers.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.integer_instructions import pmaddwd, sdot, vpdpbusd
from levit_deploy.compiler.kernels.isa.lanes import concat, shuffle
from levit_deploy.compiler.kernels.isa.simd import ROUNDING, ROUNDING_BITS, Simd
from levit_deploy.compiler.kernels.product import Arithmetic

LARGEST = 127  # of signed factors
LARGEST_WEIGHT = 254  # with half a step added to it, it still rounds to itself
COLUMNS = 16  # that are packed together
SIGN = 128  # added to a byte or taken from it, it flips the highest bit


class PackedDot(ABC):
    """Integers arrive as float32 registers of x + ROUNDING, which hold 16 columns together."""

    # What multiplies, for people.
    instruction: ClassVar[str]
    # Integers in a word.
    per_word: ClassVar[int]
    # Weights are stored less 128.
    signed_weights: ClassVar[bool] = False
    # Keys are stored plus 128.
    unsigned_keys: ClassVar[bool] = False
    # Words whose products add up exactly; None: as many as there are.
    exact_steps: ClassVar[int | None] = None
    # A product takes a register before an instruction of its own adds it.
    adds_apart: ClassVar[bool] = False

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
        """`count` neighbouring words, each in a register of its own: see Simd.splats."""
        return self.simd.splats(buffer, index, count)

    @abstractmethod
    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        """16 neighbouring integers as the words that hold them in order; `flip`: less 128, or plus
        it."""

    def pack_weights(self, rounded: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """16 weights, with `weight_rounding` still added and without it, as `pack` makes them."""
        return self.pack(rounded)

    @property
    def weight_rounding(self) -> float:
        """What rounds a weight when it is added, and leaves the weight as it is stored."""
        return ROUNDING - SIGN * self.signed_weights

    @abstractmethod
    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a row's weights, and one of values."""

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a query's word, and one of keys."""
        return self.multiply_value(query, keys, total)

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """Registers of sums of weights: each plus its register of 16 columns. `stored`: the same
        weights as words."""
        return [total + weight for total, weight in zip(sums, weights, strict=False)]

    def sum_of_weights(self, sums: list[Expr], columns: int) -> Expr:
        """One float32 from what `add_weights` made of so many columns in whole groups."""
        total = sums[0]
        for more in sums[1:]:
            total = T.bind(total + more)
        return self.simd.reduce(total, operator.add)

    def finalize(self, total: Expr) -> Expr:
        """A register of totals as float32, rounded to nearest."""
        return T.cast(self._integers(total), self.simd.type())

    def interleave(self, rows: Sequence[Expr]) -> Expr:
        """`per_word` results of `pack` -> 16 words; word i holds integer i of every row."""
        kind = f"int{32 // self.per_word}x{COLUMNS}"
        vectors = [T.bind(T.reinterpret(kind, row)) for row in rows]
        order = [row * COLUMNS + i for i in range(COLUMNS) for row in range(self.per_word)]
        return T.reinterpret(f"float32x{COLUMNS}", shuffle(vectors, order))

    def _integers(self, word: Expr, kind: str = "int32") -> Expr:
        """What is in a register of words."""
        count = 4 * self.simd.lanes // {"int32": 4, "int16": 2}.get(kind, 1)
        return T.reinterpret(f"{kind}x{count}", word)

    def _words(self, integers: Expr) -> Expr:
        """The register that holds `integers`."""
        return T.reinterpret(self.simd.type(), integers)

    def _narrow16(self, numbers: Sequence[Expr]) -> Expr:
        """16 integers of 16 bits."""
        integers = [self._integers(number) for number in numbers]
        if self.simd.isa.truncates:
            return T.cast(concat(*integers), f"int16x{COLUMNS}")
        rounding = T.broadcast(T.int32(ROUNDING_BITS), self.simd.lanes)
        integers = [integer - rounding for integer in integers]
        pairs = [integers[i : i + 2] for i in range(0, len(integers), 2)]
        return concat(*map(self.simd.isa.saturate_to_16, pairs))


class _PackedBytes(PackedDot):
    per_word = 4

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        narrow = self._narrow16(numbers)
        if self.simd.isa.truncates:
            integers = T.cast(narrow, f"int8x{COLUMNS}")
        else:
            integers = self.simd.saturate_to_8(narrow, "int8")
        if flip:
            integers = T.bitwise_xor(integers, T.broadcast(T.int8(-SIGN), COLUMNS))
        return T.reinterpret("float32x4", integers)


class PackedSdot(_PackedBytes):
    instruction = "sdot"
    signed_weights = True

    def splats(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> list[Expr]:
        """Lanes of integers: sdot takes no others by element."""
        if count < self.simd.lanes:
            return super().splats(buffer, index, count)
        words = T.bind(self._integers(self.simd.load(buffer, index)))
        return [self.simd.lane(words, i) for i in range(count)]

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """One register for all 16 columns: they are the products with ones."""
        ones = T.broadcast(T.reinterpret("float32", T.int32(0x01010101)), self.simd.lanes)
        return [self.multiply_value(ones, stored, sums[0]), *sums[1:]]

    def sum_of_weights(self, sums: list[Expr], columns: int) -> Expr:
        lanes = self._integers(sums[0])
        return T.cast(self.simd.reduce(lanes, operator.add) + SIGN * columns, "float32")

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        factors = self._integers(values, "int8"), self._integers(weight, "int8")
        return self._words(sdot(self._integers(total), *factors))


class PackedVpdpbusd(_PackedBytes):
    instruction = "vpdpbusd"
    unsigned_keys = True

    def pack_weights(self, rounded: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """Above 127 they are no signed bytes: saturated to those, they would be too small."""
        if self.simd.isa.truncates:
            return self.pack(rounded)
        integers = self.simd.saturate_to_8(self._narrow16(rounded), "uint8")
        return T.reinterpret("float32x4", integers)

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        return self.multiply_value(keys, query, total)

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        factors = self._integers(weight, "uint8"), self._integers(values, "int8")
        return self._words(vpdpbusd(self._integers(total), *factors))


class PackedPmaddwd(PackedDot):
    instruction = "pmaddwd"
    per_word = 2
    adds_apart = True

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        assert not flip
        return T.reinterpret("float32x8", self._narrow16(numbers))

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        products = pmaddwd(self._integers(weight, "int16"), self._integers(values, "int16"))
        return self._words(self.simd.fence(self._integers(total) + products))


class PackedFloat(PackedDot):
    instruction = "float32, below 2^24"
    per_word = 1
    exact_steps = 512  # the power of two below 2^24 / (LARGEST * LARGEST_WEIGHT)

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        assert not flip
        rounding = self.simd.splat(ROUNDING)
        return concat(*(number - rounding for number in numbers))

    def pack_weights(self, rounded: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        return concat(*weights)

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        return self.simd.fma(weight, values, total)

    def finalize(self, total: Expr) -> Expr:
        return total

    def interleave(self, rows: Sequence[Expr]) -> Expr:
        return rows[0]
