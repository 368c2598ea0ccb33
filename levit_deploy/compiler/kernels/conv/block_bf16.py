"""Convolution in bfloat16: two products and their sum with a float32 an instruction.

    acc = bias, then as `vdpbf16ps` says for each pair of neighbouring input channels

Outputs of an even size are made in tiles: `winograd`.

A panel, in bfloat16: the float32 bias[channels], then [depth / 2][channels][2] weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import FloatBlock, Registers, Splat, Value
from levit_deploy.compiler.kernels.isa.bf16_instructions import vcvtne2ps2bf16, vdpbf16ps
from levit_deploy.compiler.kernels.isa.lanes import lanes_of, shuffle
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.widen import STORED, load_widened
from levit_deploy.half_format import HalfFormat


class Bf16Block(FloatBlock):
    """AVX512_BF16. Two input channels of a pixel are broadcast as 32 bits."""

    dtype = STORED[HalfFormat.BF16]
    header = 2
    step_depth = 2
    load_depth = 8
    most_vectors = 6  # panels are fewer then, and each makes the differences of `winograd` anew
    in_tiles = True

    @classmethod
    def wide(cls, simd: Simd, source: tirx.Buffer, at: Expr) -> Registers:
        """Even channels, and odd ones."""
        return load_widened(simd, source, at, HalfFormat.BF16)

    @classmethod
    def narrow(cls, differences: Registers) -> Expr:
        lanes = lanes_of(differences[0])
        rounded = vcvtne2ps2bf16(*differences)
        return shuffle([rounded], [part * lanes + i for i in range(lanes) for part in (0, 1)])

    def initial(self, simd: Simd, w: tirx.Buffer, panel_at: Expr, channel: int) -> Expr:
        bias = w.vload([panel_at + 2 * channel], f"{self.dtype}x{2 * simd.lanes}")
        return T.reinterpret(simd.type(), bias)

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        return [_broadcast_pair(source, at + i) for i in range(0, count, 2)]

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        weights = []
        for simd, channel in self.registers:
            pairs = w.vload([weights_at + 2 * channel], f"{self.dtype}x{2 * simd.lanes}")
            weights.append(T.bind(T.reinterpret(f"int32x{simd.lanes}", pairs)))
        for pixel, value in enumerate(values):
            assert value is not None, "a padded source has all columns"
            pair = {simd.lanes: T.bind(value(simd)) for simd, _ in self.registers}
            for (simd, channel), weight in zip(self.registers, weights, strict=True):
                at = pixel * self.width + channel
                total = vdpbf16ps(simd.load(acc, at), weight, pair[simd.lanes])
                simd.store(acc, at, total)


def _broadcast_pair(buffer: tirx.Buffer, at: Expr) -> Splat:
    def splat(simd: Simd) -> Expr:
        pair = buffer.vload([at], f"{buffer.dtype}x2")
        return T.broadcast(T.reinterpret("int32", pair), simd.lanes)

    return splat
