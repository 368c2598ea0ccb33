"""The stem: four convolutions, the last one's output as tokens.

Before, x (1, 3, S, S):
    hardswish(add(conv2d(x, [weight]), [bias])) three times; add(conv2d(.., [weight]), [bias])
    reshape (1, C, N); permute (0, 2, 1)
After:  four conv calls. The activations between them are channels-last with a border of zeros; the
        first convolution also exists in a form that reads 8-bit images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.patterns import (
    Float32,
    array_of,
    hardswish,
    is_float32,
    permuted,
    shape_of,
)
from levit_deploy.compiler.kernels.conv import (
    ConvSpec,
    ConvTile,
    Destination,
    Source,
    conv_kernel,
    pack_weights,
)
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored

CONVOLUTIONS = 4
IMAGE_CHANNELS = 3
SMALLEST_IMAGE = 16
CHANNEL_MULTIPLE = 4  # of what the convolution kernels write

_CONV = {
    "strides": [2, 2],
    "padding": [1, 1, 1, 1],
    "dilation": [1, 1],
    "groups": 1,
    "data_layout": "NCHW",
    "kernel_layout": "OIHW",
    "out_layout": "NCHW",
}


def stem_group() -> Group:
    x = y = wildcard()
    parts: dict[str, DFPattern] = {"x": x}
    for index in range(CONVOLUTIONS):
        weight, bias = is_const(), is_const()
        y = is_op("relax.add")(is_op("relax.nn.conv2d")(y, weight).has_attr(_CONV), bias)
        if index < CONVOLUTIONS - 1:
            y = hardswish(y)
        parts |= {f"weight{index}": weight, f"bias{index}": bias}
    flat = is_op("relax.reshape")(y, wildcard())
    return Group("stem", permuted(flat, 0, 2, 1), {**parts, "flat": flat}, _plan)


@dataclass(frozen=True)
class _StemPlan:
    """`specs`: of the convolutions, in their order."""

    specs: tuple[ConvSpec, ...]

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        y = parts["x"]
        for index, spec in enumerate(self.specs):
            weight, bias = array_of(parts[f"weight{index}"]), array_of(parts[f"bias{index}"])
            y = _convolve(calls, spec, y, weight, bias.ravel())
        return y


def _convolve(calls: KernelCalls, spec: ConvSpec, x: Expr, weight: Float32, bias: Float32) -> Expr:
    tile = calls.tiles.conv(spec, calls.target)
    symbol, operands = _symbol(spec, tile), [x, pack_weights(weight, bias, spec, tile)]

    def kernel(symbol: str, stored: Stored) -> Kernel:
        return conv_kernel(symbol, spec, tile, calls.target, stored=stored)

    if spec.destination is Destination.TOKENS:
        tokens = (1, spec.out_size**2, spec.out_channels)
        return calls.call_storing(symbol, kernel, operands, tokens)
    y = calls.call(
        symbol, lambda symbol: kernel(symbol, Stored.FLOAT), operands, (spec.destination_size,)
    )
    if spec.source is Source.IMAGE_F32:
        rgb8 = replace(spec, source=Source.IMAGE_RGB8)
        calls.add_rgb8_twin(
            _symbol(spec, tile),
            _symbol(rgb8, tile),
            lambda symbol: conv_kernel(symbol, rgb8, tile, calls.target, calls.normalization),
        )
    return y


def _symbol(spec: ConvSpec, tile: ConvTile) -> str:
    """Such as conv_s224_c3_n16_hardswish_f32_8x16_b28."""
    words = ["conv", f"s{spec.in_size}", f"c{spec.in_channels}", f"n{spec.out_channels}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += [spec.source.value] * (spec.source is not Source.PADDED)
    vectors = "_".join(map(str, tile.vectors))
    return "_".join([*words, f"{tile.pixels}x{vectors}", f"b{tile.bands}"])


def _plan(parts: Parts) -> _StemPlan | None:
    x = shape_of(parts["x"])
    if len(x) != 4 or x[:2] != (1, IMAGE_CHANNELS) or x[2] != x[3] or x[2] < SMALLEST_IMAGE:
        return None
    if not all(map(is_float32, parts.values())):
        return None
    specs: list[ConvSpec] = []
    size, channels = x[2], IMAGE_CHANNELS
    for index in range(CONVOLUTIONS):
        first, last = index == 0, index == CONVOLUTIONS - 1
        weight, bias = shape_of(parts[f"weight{index}"]), shape_of(parts[f"bias{index}"])
        out_channels = weight[0]
        if weight[1:] != (channels, 3, 3) or out_channels % CHANNEL_MULTIPLE:
            return None
        if bias != (1, out_channels, 1, 1):
            return None
        spec = ConvSpec(
            in_size=size,
            in_channels=channels,
            out_channels=out_channels,
            activation=Activation.NONE if last else Activation.HARDSWISH,
            source=Source.IMAGE_F32 if first else Source.PADDED,
            destination=Destination.TOKENS if last else Destination.PADDED,
        )
        specs.append(spec)
        size, channels = spec.out_size, out_channels
    if shape_of(parts["flat"]) != (1, channels, size**2):
        return None
    return _StemPlan(tuple(specs))
