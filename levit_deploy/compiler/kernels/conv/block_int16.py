"""Convolution in 16-bit integers: products of int16 steps, summed up exactly in int32.

    acc[pixel, channel] = sum over taps and input channels of q * w
    z = fma(float32(acc), multiplier[channel], bias[channel])

No sum wraps, in whatever order: `int16.largest_step` says how far q may go for given weights.
Products and sums are one instruction or two:

    vpdpwssd (AVX-VNNI, AVX-512 VNNI)            two input channels of each lane
    pmaddwd, paddd (x86)                         the same
    smlal, smlal2 by lane (NEON)                 one input channel

A panel, in int16: float32 multiplier[channels], float32 bias[channels], then the weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import PixelBlock, Splat, Value, lane_of
from levit_deploy.compiler.kernels.isa.integer_instructions import pmaddwd, vpdpwssd
from levit_deploy.compiler.kernels.isa.lanes import half
from levit_deploy.compiler.kernels.isa.neon import neon_of
from levit_deploy.compiler.kernels.isa.simd import Simd


class Int16Block(PixelBlock):
    dtype = "int16"
    sum_dtype = "int32"
    header = 4
    load_depth = 8
    # Whether the two bytes of an input lie apart, as in `block_bytes`.
    splits_bytes: ClassVar[bool] = False
    in_tiles = True

    # What multiplies, for people.
    instruction: ClassVar[str]

    @classmethod
    def pack(cls, weights: NDArray[np.int16]) -> NDArray[np.int16]:
        """The weights of a panel in their order, flat, from (depth, width)."""
        depth, width = weights.shape
        steps = weights.reshape(depth // cls.step_depth, cls.step_depth, width)
        return np.ascontiguousarray(steps.transpose(0, 2, 1)).ravel()

    @classmethod
    def unpack(cls, packed: NDArray[np.int16], width: int) -> NDArray[np.int16]:
        """The inverse of `pack`."""
        steps = packed.reshape(-1, width, cls.step_depth)
        return steps.transpose(0, 2, 1).reshape(-1, width)

    def initial(self, simd: Simd, w: tirx.Buffer, panel_at: Expr, channel: int) -> Expr:
        return T.broadcast(T.int32(0), simd.lanes)

    def result(
        self,
        simd: Simd,
        acc: tirx.Buffer,
        pixel: int,
        w: tirx.Buffer,
        panel_at: Expr,
        channel: int,
    ) -> Expr:
        total = self.total(simd, acc, pixel, channel)
        multiplier = _load_float(simd, w, panel_at + 2 * channel)
        bias = _load_float(simd, w, panel_at + 2 * (self.width + channel))
        return simd.fma(T.cast(total, simd.type()), multiplier, bias)


class _PairBlock(Int16Block):
    """x86. Two input channels of a pixel are broadcast as 32 bits."""

    step_depth = 2

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        return [_broadcast_pair(source, at + i) for i in range(0, count, 2)]

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        weights = [
            T.bind(w.vload([weights_at + 2 * channel], f"int16x{2 * simd.lanes}"))
            for simd, channel in self.registers
        ]
        for pixel, value in enumerate(values):
            assert value is not None, "a padded source has all columns"
            pairs = {simd.lanes: T.bind(value(simd)) for simd, _ in self.registers}
            for (simd, channel), weight in zip(self.registers, weights, strict=True):
                at = pixel * self.width + channel
                total = simd.load(acc, at)
                simd.store(acc, at, self.add_products(simd, total, pairs[simd.lanes], weight))

    @abstractmethod
    def add_products(self, simd: Simd, total: Expr, a: Expr, b: Expr) -> Expr:
        """`total` plus the products of the two channels of each lane."""


class VpdpwssdBlock(_PairBlock):
    instruction = "vpdpwssd"

    def add_products(self, simd: Simd, total: Expr, a: Expr, b: Expr) -> Expr:
        return vpdpwssd(total, a, b)


class PmaddwdBlock(_PairBlock):
    instruction = "pmaddwd"
    half_suffices = True

    def add_products(self, simd: Simd, total: Expr, a: Expr, b: Expr) -> Expr:
        # Unfenced, LLVM adds up the products of several steps first, and spills.
        return simd.fence(total + pmaddwd(a, b))


class LaneBlock(Int16Block):
    """NEON. Eight input channels of a pixel are one load, then used by lane; eight output channels
    are one load of weights."""

    instruction = "smlal"

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        values: list[Value] = []
        while count:
            lanes = 8 if count >= 8 else 4
            loaded = T.bind(source.vload([at], f"int16x{lanes}"))
            values += [lane_of(loaded, i) for i in range(lanes)]
            at, count = at + lanes, count - lanes
        return values

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        for first in range(0, len(self.vectors), 2):
            registers = self.registers[first : first + 2]
            size = 4 * len(registers)
            weights = T.bind(w.vload([weights_at + registers[0][1]], f"int16x{size}"))
            parts = [half(weights, 0), half(weights, 1)] if len(registers) == 2 else [weights]
            for pixel, value in enumerate(values):
                assert value is not None, "a padded source has all columns"
                for (simd, channel), part in zip(registers, parts, strict=True):
                    at = pixel * self.width + channel
                    product = neon_of(simd).long_product("int32x4", part, value(simd))
                    # Unfenced, LLVM adds up the products of several steps first.
                    total = simd.load(acc, at)
                    simd.store(acc, at, simd.fence(total + product))


def _load_float(simd: Simd, buffer: tirx.Buffer, at: Expr) -> Expr:
    """A register of float32 from value `at` of an int16 buffer."""
    return T.reinterpret(simd.type(), buffer.vload([at], f"int16x{2 * simd.lanes}"))


def _broadcast_pair(buffer: tirx.Buffer, at: Expr) -> Splat:
    def splat(simd: Simd) -> Expr:
        pair = T.reinterpret("int32", buffer.vload([at], "int16x2"))
        return T.reinterpret(f"int16x{2 * simd.lanes}", T.broadcast(pair, simd.lanes))

    return splat
