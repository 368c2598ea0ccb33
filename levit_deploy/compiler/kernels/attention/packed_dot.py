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

from levit_deploy.compiler.kernels.isa.integer_instructions import (
    packssdw,
    packuswb,
    pmaddwd,
    sdot,
    vpdpbusd,
)
from levit_deploy.compiler.kernels.isa.lanes import combine_each, concat, shuffle
from levit_deploy.compiler.kernels.isa.simd import ROUNDING, Simd
from levit_deploy.compiler.kernels.product import Arithmetic

LARGEST = 127  # of signed factors
LARGEST_WEIGHT = 254  # with half a step added to it, it still rounds to itself
COLUMNS = 16  # that are packed together
SIGN = 128  # added to a byte or taken from it, it flips the highest bit


class PackedDot(ABC):
    """Integers arrive as `rounded` registers, which hold 16 columns together."""

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

    @property
    def weights_together(self) -> int:
        """Columns of weights that `pack_weights` takes best."""
        return COLUMNS

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

    def rounded(self, x: Expr) -> Expr:
        """A register of floats, each to the nearest integer, as `pack` takes it: here with
        ROUNDING added."""
        return self.simd.fence(self.simd.fence(x) + self.simd.splat(ROUNDING))

    @abstractmethod
    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        """16 neighbouring integers as the words that hold them in order; `flip`: less 128, or plus
        it."""

    @property
    def weight_rounding(self) -> float:
        """What rounds a weight when it is added, and leaves the weight as it is stored."""
        return ROUNDING - SIGN * self.signed_weights

    @property
    def no_weight(self) -> Expr:
        """A register of weights of 0."""
        return self.simd.splat(self.weight_rounding)

    def round_weight(self, exact: Expr, rounding: Expr) -> tuple[Expr, Expr]:
        """A register of weights, as `pack_weights` takes it, and what rounding took from each.
        `rounding`: `weight_rounding`."""
        rounded = T.bind(self.simd.fence(exact + rounding))
        weight = T.bind(self.simd.fence(rounded - rounding))
        return rounded, exact - weight

    def pack_weights(self, weights: Sequence[Expr]) -> Expr:
        """16 weights, or `weights_together`, as the words that hold them in order."""
        return self.pack(weights)

    @abstractmethod
    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a row's weights, and one of values."""

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        """`total` plus the products of a register of a query's word, and one of keys."""
        return self.multiply_value(query, keys, total)

    def add(self, sums: Expr, more: Expr) -> Expr:
        """Registers of sums of weights, or of weights."""
        return self._words(self._integers(sums) + self._integers(more))

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """Registers of sums of weights: plus some that were packed. `stored`: the same weights as
        words."""
        totals = list(sums)
        for i, weight in enumerate(weights):
            totals[i % len(sums)] = T.bind(self.add(totals[i % len(sums)], weight))
        return totals

    def sums_of_weights(self, totals: Sequence[Expr], columns: int) -> Expr:
        """float32x4 from a register of each of up to four rows: what `add_weights` made of so many
        columns, the last group of 16 filled up with weights of 0."""
        sums = combine_each([self._integers(total) for total in totals], operator.add)
        if self.signed_weights:
            sums = sums + T.broadcast(T.int32(SIGN * -(-columns // COLUMNS) * COLUMNS), 4)
        return T.cast(sums, "float32x4")

    def finalize(self, total: Expr) -> Expr:
        """A register of totals as float32, rounded to nearest."""
        return T.cast(self._integers(total), self.simd.type())

    def interleave(self, rows: Sequence[Sequence[Expr]]) -> list[Expr]:
        """`per_word` rows of `rounded` registers -> registers of words; word i holds integer i of
        every row."""
        joined = []
        for column in zip(*rows, strict=True):
            integers, bits = [self._integers(number) for number in column], 32 // self.per_word
            while len(integers) > 1:
                integers = [
                    T.bind(self.simd.isa.join(low, high, bits))
                    for low, high in zip(integers[::2], integers[1::2], strict=True)
                ]
                bits *= 2
            joined.append(self._words(integers[0]))
        return joined

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
        pairs = [integers[i : i + 2] for i in range(0, len(integers), 2)]
        return concat(*map(self.simd.isa.saturate_to_16, pairs))


class _Converted(PackedDot):
    """One instruction makes integers of floats."""

    @property
    def weights_together(self) -> int:
        """A register of words."""
        return max(self.per_word * self.simd.lanes, COLUMNS)

    def rounded(self, x: Expr) -> Expr:
        kind = f"int32x{self.simd.lanes}"
        return self._words(T.call_llvm_pure_intrin(kind, "llvm.lrint", x))

    @property
    def no_weight(self) -> Expr:
        return self.simd.splat(0.0)

    def round_weight(self, exact: Expr, rounding: Expr) -> tuple[Expr, Expr]:
        weight = T.bind(self.rounded(exact))
        nearest = T.cast(self._integers(weight), self.simd.type())
        return weight, self.simd.isa.remainder(exact, nearest)

    def pack_register(self, weights: Sequence[Expr]) -> Expr:
        """As many registers of weights as a word holds integers, as one of words."""
        packed = [self._integers(weight) for weight in weights]
        for instruction in (packssdw, packuswb):
            if len(packed) > 1:
                pairs = zip(packed[::2], packed[1::2], strict=True)
                packed = [T.bind(instruction(*pair)) for pair in pairs]
        # Fours of integers lie in order of 128-bit parts, then registers.
        count, parts = self.per_word, self.simd.lanes // 4
        fours = T.reinterpret(f"int{128 // count}x{count * parts}", packed[0])
        order = [part * count + register for register in range(count) for part in range(parts)]
        return T.reinterpret(self.simd.type(), shuffle([fours], order))


class _PackedBytes(PackedDot):
    per_word = 4

    @property
    def ones(self) -> Expr:
        """A register of bytes that are 1."""
        return self.simd.splat(T.reinterpret("float32", T.int32(0x01010101)))

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
        return [self.multiply_value(self.ones, stored, sums[0]), *sums[1:]]

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        factors = self._integers(values, "int8"), self._integers(weight, "int8")
        return self._words(sdot(self._integers(total), *factors))


class PackedVpdpbusd(_Converted, _PackedBytes):
    instruction = "vpdpbusd"
    unsigned_keys = True

    def pack_weights(self, weights: Sequence[Expr]) -> Expr:
        """Above 127 they are no signed bytes: saturated to those, they would be too small."""
        if len(weights) == self.per_word:
            return self.pack_register(weights)
        if self.simd.isa.truncates:
            return self.pack(weights)
        integers = self.simd.saturate_to_8(self._narrow16(weights), "uint8")
        return T.reinterpret("float32x4", integers)

    def add_weights(self, sums: list[Expr], weights: Sequence[Expr], stored: Expr) -> list[Expr]:
        """A whole register of words times ones."""
        if len(weights) < self.per_word:
            return super().add_weights(sums, weights, stored)
        return [self.multiply_value(stored, self.ones, sums[0]), *sums[1:]]

    def multiply_key(self, query: Expr, keys: Expr, total: Expr) -> Expr:
        return self.multiply_value(keys, query, total)

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        factors = self._integers(weight, "uint8"), self._integers(values, "int8")
        return self._words(vpdpbusd(self._integers(total), *factors))


class PackedPmaddwd(_Converted):
    instruction = "pmaddwd"
    per_word = 2
    adds_apart = True

    def pack(self, numbers: Sequence[Expr], flip: bool = False) -> Expr:
        assert not flip
        return T.reinterpret("float32x8", self._narrow16(numbers))

    def pack_weights(self, weights: Sequence[Expr]) -> Expr:
        if len(weights) == self.per_word:
            return self.pack_register(weights)
        return self.pack(weights)

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

    @property
    def no_weight(self) -> Expr:
        return self.simd.splat(0.0)

    def round_weight(self, exact: Expr, rounding: Expr) -> tuple[Expr, Expr]:
        rounded, rest = super().round_weight(exact, rounding)
        return T.bind(self.simd.fence(rounded - rounding)), rest

    def pack_weights(self, weights: Sequence[Expr]) -> Expr:
        return concat(*weights)

    def add(self, sums: Expr, more: Expr) -> Expr:
        return sums + more

    def sums_of_weights(self, totals: Sequence[Expr], columns: int) -> Expr:
        return combine_each(totals, operator.add)

    def multiply_value(self, weight: Expr, values: Expr, total: Expr) -> Expr:
        return self.simd.fma(weight, values, total)

    def finalize(self, total: Expr) -> Expr:
        return total

    def interleave(self, rows: Sequence[Sequence[Expr]]) -> list[Expr]:
        (row,) = rows
        return [number - self.simd.splat(ROUNDING) for number in row]
