"""Convolution in bfloat16: two products and their sum with a float32 an instruction.

    acc = bias, then as `vdpbf16ps` says for each pair of neighbouring input channels

A panel, in bfloat16: the float32 bias[channels], then [depth / 2][channels][2] weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import FloatBlock, Splat, Value
from levit_deploy.compiler.kernels.conv.spec import ConvTile
from levit_deploy.compiler.kernels.isa.bf16_instructions import vdpbf16ps
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.widen import STORED
from levit_deploy.half_format import HalfFormat


class Bf16Block(FloatBlock):
    """AVX512_BF16. Two input channels of a pixel are broadcast as 32 bits."""

    dtype = STORED[HalfFormat.BF16]
    header = 2
    step_depth = 2
    load_depth = 8

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


def pack_weights_bf16(
    weights: NDArray[np.float32], bias: NDArray[np.float32], tile: ConvTile
) -> NDArray[np.uint16]:
    """The constant of a bfloat16 `conv_kernel`, flat, from `weights` (out, in, 3, 3), which are
    numbers of bfloat16 and an even count of inputs, and `bias` (out,)."""
    bits = weights.astype(HalfFormat.BF16.dtype).view(np.uint16)
    pairs = bits.transpose(2, 3, 1, 0).reshape(-1, 2, len(weights)).transpose(0, 2, 1)
    parts: list[NDArray[np.uint16]] = []
    for first in range(0, len(weights), tile.width):
        panel = slice(first, first + tile.width)
        parts += [bias[panel].view(np.uint16), pairs[:, panel].ravel()]
    return np.concatenate(parts)
