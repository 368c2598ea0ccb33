"""Products of 14-bit integers by instructions that multiply bytes, the fastest that ARM has.

    q = 128 * qh + ql,  w = 128 * wh + wl,  the low parts from -64 to 63
    sum of q * w = 128 * (128 * H + S - H - L) + L
        with H = sum of qh * wh, L = sum of ql * wl, S = sum of (qh + ql) * (wh + wl)

which are three products instead of four (Karatsuba). Up to 8191, |q| and |w| have sums of parts
that are signed bytes too. H, L and S have accumulators of their own. smlal keeps one of the two
multipliers of a Cortex-A76 busy, sdot both; smmla does twice the work of sdot.

Of an input, eight channels of a pixel are 16 bytes: eight ql, then eight qh. The weights of eight
channels are three times as many bytes as outputs, in the order of wl, wh, wl + wh.

Weights that are bytes themselves need two products: q * w = 128 * (qh * w) + ql * w.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import Value
from levit_deploy.compiler.kernels.conv.block_int16 import Int16Block
from levit_deploy.compiler.kernels.isa.integer_instructions import sdot, smmla
from levit_deploy.compiler.kernels.isa.lanes import lower_and_upper, row_of_two
from levit_deploy.compiler.kernels.isa.simd import Simd

GROUP = 8  # channels whose bytes lie together
SPLIT = 7  # bits of the low part


def parts_of(values: NDArray[np.int16]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Low and high parts."""
    high = (values + (1 << SPLIT - 1)) >> SPLIT
    return (values - (high << SPLIT)).astype(np.int8), high.astype(np.int8)


class BytesBlock(Int16Block):
    """Pixels are multiplied in pairs; the last one of an odd number is its own partner."""

    step_depth = GROUP
    load_depth = GROUP
    sums = 3  # of low parts, of high parts, of sums of parts
    weight_parts = 3
    splits_bytes = True
    in_tiles = False

    # Neighbouring output channels in one register of weights, for so many k.
    channels: ClassVar[int]

    @classmethod
    def weight_size(cls, depth: Expr | int) -> Expr | int:
        return depth * cls.weight_parts // 2  # bytes, counted in int16

    @classmethod
    def pack(cls, weights: NDArray[np.int16]) -> NDArray[np.int16]:
        """[depth / 8][columns / channels][parts][k][channels][k of a register], in bytes."""
        depth, width = weights.shape
        shape = (
            cls.weight_parts,
            depth // GROUP,
            -1,
            16 // cls.channels,
            width // cls.channels,
            cls.channels,
        )
        ordered = cls.parts_of_weights(weights).reshape(shape).transpose(1, 4, 0, 2, 5, 3)
        return np.ascontiguousarray(ordered).ravel().view(np.int16)

    @classmethod
    def unpack(cls, packed: NDArray[np.int16], width: int) -> NDArray[np.int16]:
        of_register = 16 // cls.channels
        columns, parts = width // cls.channels, cls.weight_parts
        shape = (-1, columns, parts, GROUP // of_register, cls.channels, of_register)
        ordered = packed.view(np.int8).reshape(shape).transpose(2, 0, 3, 5, 1, 4)
        return cls.weights_of_parts(ordered.reshape(parts, -1, width).astype(np.int16))

    @classmethod
    def parts_of_weights(cls, weights: NDArray[np.int16]) -> NDArray[np.int8]:
        """(weight_parts, depth, width)."""
        low, high = parts_of(weights)
        return np.stack([low, high, low + high])

    @classmethod
    def weights_of_parts(cls, parts: NDArray[np.int16]) -> NDArray[np.int16]:
        """The inverse of `parts_of_weights`."""
        low, high, both = parts
        assert (low + high == both).all(), "a part does not fit its byte"
        return np.asarray((high << SPLIT) + low)

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        """Eight channels in a register, for each step."""
        return [T.bind(source.vload([at + i], "int16x8")) for i in range(0, count, GROUP)]

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        loaded = [T.bind(_bytes(value)) for value in values]
        inputs = [
            self._parts(loaded[pixel], loaded[min(pixel + 1, self.pixels - 1)])
            for pixel in range(0, self.pixels, 2)
        ]
        for channel in range(0, self.width, self.channels):
            for part in range(self.sums):
                if part < self.weight_parts:
                    weights = self._weights(w, weights_at, channel, part)
                for pair, pixels in enumerate(inputs):
                    self.multiply_pair(acc, part, pair, channel, pixels[part], weights)

    def _weights(self, w: tirx.Buffer, weights_at: Expr, channel: int, part: int) -> list[Expr]:
        """The registers of one part: `channels` from `channel` on, eight k."""
        at = weights_at + (channel * self.weight_parts + part * self.channels) * (GROUP // 2)
        size = self.channels * GROUP // 16
        return [T.bind(_bytes(w.vload([at + 8 * i], "int16x8"))) for i in range(size)]

    def _parts(self, first: Expr, second: Expr) -> list[Expr]:
        """Of two pixels: eight low parts of each, high parts, their sums."""
        low, high = lower_and_upper(first, second)
        return [low, high, T.bind(low + high)][: self.sums]

    @abstractmethod
    def multiply_pair(
        self, acc: tirx.Buffer, part: int, pair: int, channel: int, x: Expr, weights: list[Expr]
    ) -> None:
        """Add the products of one part: of a pair of pixels and of `channels` from `channel` on."""

    def total(self, simd: Simd, acc: tirx.Buffer, pixel: int, channel: int) -> Expr:
        low, high, both = (self.sum_of(acc, part, pixel, channel) for part in range(3))
        bits = T.broadcast(T.int32(SPLIT), simd.lanes)
        return T.shift_left(T.shift_left(high, bits) + (both - high - low), bits) + low

    def sum_of(self, acc: tirx.Buffer, part: int, pixel: int, channel: int) -> Expr:
        """Sums of one part, of four channels."""
        return acc.vload([self.place(part, pixel, channel)], "int32x4")

    def place(self, part: int, row: int, channel: int) -> int:
        """Of an accumulator."""
        return (part * self.rows + row) * self.width + channel

    def add(
        self,
        acc: tirx.Buffer,
        at: int,
        multiply: Callable[[Expr, Expr, Expr], Expr],
        a: Expr,
        b: Expr,
    ) -> None:
        T.buffer_store(acc, multiply(acc.vload([at], "int32x4"), a, b), [T.ramp(at, 1, 4)])


class SdotBlock(BytesBlock):
    """Four channels times four k, which are a lane of a pixel."""

    instruction = "sdot"
    channels = 4
    products = 6
    # One load and half of zip1, zip2, add; and one for what LLVM moves about where pixels are many.
    input_cost = 3.5

    def multiply_pair(
        self, acc: tirx.Buffer, part: int, pair: int, channel: int, x: Expr, weights: list[Expr]
    ) -> None:
        fours = T.bind(T.reinterpret("int32x4", x))
        for pixel in range(2 * pair, min(2 * pair + 2, self.pixels)):
            for i, weight in enumerate(weights):
                four = _bytes(Simd(self.isa).lane(fours, pixel % 2 * 2 + i))
                self.add(acc, self.place(part, pixel, channel), sdot, weight, four)


class SmmlaBlock(BytesBlock):
    """Two channels times eight k of two pixels."""

    instruction = "smmla"
    channels = 2
    products = 3
    input_cost = 2.5  # one load and half of zip1, zip2, add

    @property
    def rows(self) -> int:
        return self.pixels + self.pixels % 2

    def multiply_pair(
        self, acc: tirx.Buffer, part: int, pair: int, channel: int, x: Expr, weights: list[Expr]
    ) -> None:
        # Of four channels, the sums of the last two take the place of those of the second pixel.
        row, first = 2 * pair + channel % 4 // 2, channel - channel % 4
        self.add(acc, self.place(part, row, first), smmla, x, weights[0])

    def sum_of(self, acc: tirx.Buffer, part: int, pixel: int, channel: int) -> Expr:
        first = pixel - pixel % 2
        registers = [super(SmmlaBlock, self).sum_of(acc, part, first + i, channel) for i in (0, 1)]
        return T.bind(row_of_two(registers, pixel % 2))


class _ByteWeights(BytesBlock):
    """Weights of 8 bits: the same bytes times the low and the high parts of the inputs."""

    sums = 2
    weight_parts = 1
    input_registers = 1

    @classmethod
    def parts_of_weights(cls, weights: NDArray[np.int16]) -> NDArray[np.int8]:
        return weights.astype(np.int8)[None]

    @classmethod
    def weights_of_parts(cls, parts: NDArray[np.int16]) -> NDArray[np.int16]:
        (weights,) = parts
        return np.asarray(weights)

    def total(self, simd: Simd, acc: tirx.Buffer, pixel: int, channel: int) -> Expr:
        low, high = (self.sum_of(acc, part, pixel, channel) for part in range(2))
        return T.shift_left(high, T.broadcast(T.int32(SPLIT), simd.lanes)) + low


class SdotByteBlock(_ByteWeights, SdotBlock):
    """A pixel's register is an operand as it is: two lanes of low parts, two of high ones."""

    products = 4
    input_cost = 1  # a load

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        pixels = [T.bind(T.reinterpret("int32x4", value)) for value in values]
        for channel in range(0, self.width, self.channels):
            weights = self._weights(w, weights_at, channel, 0)
            for pixel, fours in enumerate(pixels):
                for part in range(self.sums):
                    for i, weight in enumerate(weights):
                        four = _bytes(Simd(self.isa).lane(fours, 2 * part + i))
                        self.add(acc, self.place(part, pixel, channel), sdot, weight, four)


class SmmlaByteBlock(_ByteWeights, SmmlaBlock):
    products = 2
    input_cost = 2  # one load and half of zip1, zip2


def _bytes(vector: Expr) -> Expr:
    return T.reinterpret("int8x16", vector)
