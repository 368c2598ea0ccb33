"""Convolution in bfloat16 by bfmmla: two pixels times two channels, four input channels at a time.

    acc = bias, then as `bfmmla` says for four neighbouring input channels after the other

A panel, in bfloat16: the float32 bias[channels], then [depth / 4][channels][4] weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import FloatBlock, Value
from levit_deploy.compiler.kernels.conv.block_bf16 import Bf16Block
from levit_deploy.compiler.kernels.isa.bf16_instructions import bfmmla
from levit_deploy.compiler.kernels.isa.half_storage import QUAD, REGISTER
from levit_deploy.compiler.kernels.isa.lanes import (
    concat,
    lanes_of,
    lower_and_upper,
    of_both_rows,
    row_of_two,
)
from levit_deploy.compiler.kernels.isa.simd import Simd


class BfmmlaBlock(Bf16Block):
    """FEAT_BF16 of ARMv8.6. Eight input channels of a pixel are one load; the last pixel of an odd
    number is its own partner."""

    step_depth = REGISTER
    most_vectors = FloatBlock.most_vectors
    in_tiles = False
    products = 2
    weight_parts = 2
    input_cost = 2  # one load and half of zip1, zip2

    @property
    def rows(self) -> int:
        return self.pixels + self.pixels % 2

    def start(self, w: tirx.Buffer, panel_at: Expr) -> tirx.Buffer:
        acc = T.alloc_buffer((self.rows * self.width,), self.sum_dtype, scope="local")
        for simd, channel in self.registers:
            bias = T.bind(self.initial(simd, w, panel_at, channel))
            doubled = of_both_rows(bias)
            for row in range(self.rows):
                simd.store(acc, row * self.width + channel, doubled[row % 2])
        return acc

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        """Those of one step, or four."""
        return [T.bind(source.vload([at], f"{self.dtype}x{count}"))]

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        pairs = [
            _of_both(values[pixel], values[min(pixel + 1, self.pixels - 1)])
            for pixel in range(0, self.pixels, 2)
        ]
        for quad in range(len(pairs[0])):
            for simd, channel in self.registers:
                at = weights_at + (quad * self.width + channel) * QUAD
                weights = [
                    T.bind(w.vload([at + i * REGISTER], f"{self.dtype}x{REGISTER}")) for i in (0, 1)
                ]
                for row, pixels in enumerate(pairs):
                    for i, weight in enumerate(weights):
                        place = self._place(2 * row + i, channel)
                        simd.store(acc, place, bfmmla(simd.load(acc, place), pixels[quad], weight))

    def total(self, simd: Simd, acc: tirx.Buffer, pixel: int, channel: int) -> Expr:
        first = pixel - pixel % 2
        sums = [simd.load(acc, self._place(first + i, channel)) for i in (0, 1)]
        return row_of_two(sums, pixel % 2)

    def _place(self, row: int, channel: int) -> int:
        """Of four channels, the sums of the last two take the place of those of the second
        pixel."""
        return row * self.width + channel


def _of_both(first: Value | None, second: Value | None) -> list[Expr]:
    """Registers of four channels of each of two pixels."""
    assert isinstance(first, Expr), "a padded source has all columns"
    assert isinstance(second, Expr), "and so has it beside them"
    if lanes_of(first) == QUAD:
        return [T.bind(concat(first, second))]
    return lower_and_upper(first, second)
